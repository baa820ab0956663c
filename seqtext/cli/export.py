"""`seqtext export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqtext.cli.options import RunFolder

if TYPE_CHECKING:
    from seqtext.exporting.onnx import OnnxExported
    from seqtext.exporting.weights import Exported


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="The new folder to write.")],
    int8: Annotated[
        bool, typer.Option("--int8", help="A run with matrices of 8 bits: a quarter of the size, for CPUs.")
    ] = False,
    bf16: Annotated[
        bool,
        typer.Option("--bf16", help="A run with weights of 16 bits: half the size, for processors that have them."),
    ] = False,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="ner, sentiment, lm: a graph for onnxruntime, checked against the run.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    r"""Write a finished run in another form, for prediction only.

    With --int8 and --bf16 it is a run folder again, which predict, evaluate, translate, score and generate take; tables
    tell what has how many bits, and size, speed and score before and after, by the real predict, on the test split of
    the run's own data (else on valid). With --int8, recurrent layers (LSTMs from 160 states on, every GRU), linear
    layers, softmax and embeddings compute from whole numbers of 8 bits on a CPU; narrower LSTMs are kept so and compute
    in float32, which is the faster, and on a GPU all do. Convolutions, reservoirs and plain recurrences stay float32.
    Small recurrent models gain size by either, and hardly speed.

    With --onnx, OUT has model.onnx, the tokenizers and labels, and a README.md of inputs and outputs; it needs
    pip install "seqtext\[onnx]".
    """
    from seqtext.cli.library import api
    from seqtext.errors import InputError

    forms = {"int8": int8, "bf16": bf16, "onnx": onnx}
    chosen = [name for name, given in forms.items() if given]
    if len(chosen) != 1:
        found = " and ".join(f"--{name}" for name in chosen) or "none"
        raise InputError(f"seqtext export takes one of --int8, --bf16 and --onnx; given: {found}")
    done: Any = api.export(run, out, form=chosen[0])  # type: ignore[arg-type]
    if onnx:
        _show_onnx(done, as_json=as_json)
    else:
        _show_weights(done, as_json=as_json)


def _show_onnx(done: OnnxExported, *, as_json: bool) -> None:
    if as_json:
        values = done._asdict() | {"folder": str(done.folder)}
        typer.echo(json.dumps(values))
        return
    checked = "not checked, since onnxruntime is not installed"
    if done.difference is not None:
        checked = f"its outputs differ from the run's by {done.difference:.1e} at most"
    typer.echo(f"{done.folder / 'model.onnx'}: {_size(done.bytes)}; {checked}")


def _show_weights(done: Exported, *, as_json: bool) -> None:
    from seqtext.cli.tables import figure, print_table

    found = done.comparison
    if as_json:
        values: dict[str, Any] = {"run": str(done.folder), "weights": done.weights}
        values["layers"] = [share._asdict() for share in done.shares]
        values |= {"split": found.split, "examples": found.examples}
        for name, measured in (("before", found.before), ("after", found.after)):
            values[name] = {
                "bytes": measured.bytes,
                "texts_per_second": measured.bulk,
                "p50_ms": measured.single,
                "scores": measured.scores,
            }
        typer.echo(json.dumps(values))
        return
    rows = [[share.kind, f"{share.numbers:,}", share.kept, share.computed] for share in done.shares]
    print_table(f"{done.folder}: weights", ["", "numbers", "kept in", "computed in"], rows)
    before, after = found.before, found.after
    rows = [["size of the weights", _size(before.bytes), _size(after.bytes), _ratio(after.bytes, before.bytes)]]
    if before.bulk and after.bulk and before.single and after.single:
        rates = f"{before.bulk:,.0f}", f"{after.bulk:,.0f}", _ratio(after.bulk, before.bulk)
        rows.append(["texts a second, in bulk", *rates])
        times = f"{before.single:.2f} ms", f"{after.single:.2f} ms", _ratio(after.single, before.single)
        rows.append(["one text at a time, p50", *times])
    if found.split:
        scores = (before.scores[found.goal], after.scores[found.goal])
        change = f"{scores[1] - scores[0]:+.4f}"
        rows.append([f"{found.goal} on {found.split}", *(figure(found.goal, score) for score in scores), change])
    print_table("Before and after", ["", "float32", done.weights, "after / before"], rows)
    if not found.split:
        typer.echo(f"note: not timed and not scored, the run's own data is not there: {found.lacking}", err=True)


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def _ratio(new: float, old: float) -> str:
    return f"{new / old:.2f}"
