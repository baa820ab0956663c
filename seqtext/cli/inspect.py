"""`seqtext inspect`: gradients, gates, attention, trees, embeddings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqtext.cli.options import Device, Json, RunFolder, Threads, recipe_names

if TYPE_CHECKING:
    from seqtext.inspecting.gates import Gated
    from seqtext.inspecting.gradients import Carried

app = typer.Typer(help="See what happens inside a model.", no_args_is_help=True)

Text = Annotated[str, typer.Argument(metavar="TEXT", help="A sentence.")]
Plot = Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it to this file, .svg or .png.")]
At = Annotated[str | None, typer.Option(metavar="CELL", help="Which cell, such as encoder.layers.0.0.")]
SHOWN = (0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70, 100, 150, 200, 300, 500, 1000)
"""The steps back that a table has; --json has all."""


@app.command()
def gradients(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN_OR_RECIPE...", help="Run folders, or recipes by name or file.", autocompletion=recipe_names
        ),
    ],
    cells: Annotated[
        str | None,
        typer.Option(
            metavar="CELL,...",
            help="Untrained cells to measure, each with options: rnn,rnn:gain=2,lstm:forget_bias=2,gru:update_bias=3.",
        ),
    ] = None,
    steps: Annotated[int, typer.Option(help="How far back, at most.")] = 50,
    gain: Annotated[
        float | None, typer.Option(help="A factor on the recurrent matrices, which start orthogonal: their radius.")
    ] = None,
    max_norm: Annotated[
        float | None, typer.Option(help="Clip to this norm instead of train.clip; 0 does not clip.")
    ] = None,
    at: At = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the recipe to change; may be repeated."),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Other data than the recipe's own.")] = None,
    plot: Plot = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """How far back gradients come: the norm of d L(t) / d s(t-k), and the largest singular value of d s(t) / d s(t-k).

    Of a run, its trained cell is measured, and of a recipe untrained ones: --cells, or a tanh RNN of a small and of a
    large radius, LSTMs and GRUs, as they usually start and with their gates opened. All read the longest texts of the
    validation split. The gradient of all parameters is given before and after clipping. With --json, an object a cell.
    """
    from seqtext.inspecting.gradients import inspect_gradients
    from seqtext.plot import check_picture

    if plot is not None:
        check_picture(plot)
    found: list[Carried] = []
    for target in targets:
        name = Path(target).name if len({Path(other).name for other in targets}) == len(targets) else target
        several = f"{name}: " if len(targets) > 1 else ""
        found += [
            one.named(several + one.name)
            for one in inspect_gradients(
                target, cells=cells, gain=gain, steps=steps, at=at, clip=max_norm, data=data, overrides=overrides or ()
            )
        ]
    if plot is not None:
        from seqtext.plot import save
        from seqtext.report.figures import gradient_figure

        save(lambda: gradient_figure(found), plot)
        typer.echo(str(plot), err=True)
    if as_json:
        for one in found:
            typer.echo(json.dumps(one.record()))
        return
    from seqtext.cli.tables import print_table

    names = [one.name for one in found]
    for title, first, rows in (
        ("Norm of d L(t) / d s(t-k), the mean over t and texts", 0, [one.norms for one in found]),
        ("The same after clipping", 0, [one.clipped for one in found]),
        ("Largest singular value of d s(t) / d s(t-k)", 1, [one.singular for one in found]),
    ):
        longest = max(map(len, rows)) + first
        table = [
            [str(k), *(f"{row[k - first]:.3g}" if k - first < len(row) else "" for row in rows)]
            for k in sorted({*(k for k in SHOWN if first <= k < longest), longest - 1})
        ]
        print_table(title, ["k", *names], table)
    clipping = [
        [one.name, f"{one.parameters:.3g}", f"{one.clipped_parameters:.3g}", f"{one.limit:g}" if one.limit else "none"]
        for one in found
    ]
    print_table("Norm of the gradient of all parameters", ["cell", "before", "after", "clipped at"], clipping)


@app.command()
def gates(
    run: RunFolder,
    text: Text,
    at: At = None,
    label: Annotated[
        str | None, typer.Option(help="What the text is read as, by a language model conditioned on labels.")
    ] = None,
    plot: Plot = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """What the gates of a run's cells do over a sentence, and what the cells remember: a row a token, a shade a unit.

    Gates are shaded from 0 to 1, candidates and states from -1 to 1, memories from their largest value below 0 to that
    above. Units are those whose memory varies most. With --json, an object a cell, with all values.
    """
    from seqtext.cli.library import api
    from seqtext.inspecting.gates import inspect_gates
    from seqtext.plot import check_picture

    if plot is not None:
        check_picture(plot)
    found = inspect_gates(api.load(run, device=device), text, at=at, label=label)
    if plot is not None:
        from seqtext.plot import save
        from seqtext.report.figures import gate_figure

        save(lambda: gate_figure(found), plot)
        typer.echo(str(plot), err=True)
    _utf8()
    if as_json:
        for one in found:
            typer.echo(json.dumps(one.record(), ensure_ascii=False))
    else:
        for one in found:
            _shade_gates(one)


def _shade_gates(one: Gated) -> None:
    from seqtext.draw import wants_colour
    from seqtext.inspecting.shading import label, label_width, shade, terminal_width
    from seqtext.report.figures import scale_of

    colour, beside = wants_colour(sys.stdout), label_width(one.tokens)
    room = max(8, (terminal_width() - beside) // len(one.gates) - 2)
    units = one.liveliest(room)
    typer.echo(f"{one.name} ({one.cell}), units {', '.join(map(str, units))}")
    typer.echo(" " * beside + "".join(f"  {name[:room]:<{max(len(units), min(room, 9))}}" for name in one.gates))
    scales = {name: scale_of(name, float(values.abs().max())) for name, values in one.gates.items()}
    width = max(len(units), min(room, 9))
    for place, token in enumerate(one.tokens):
        row = label(token, beside)
        for name, values in one.gates.items():
            shades = "".join(shade(value, *scales[name], colour=colour) for value in values[place, units].tolist())
            row += "  " + shades + " " * (width - len(units))
        typer.echo(row.rstrip() if not colour else row)


@app.command()
def attention(
    run: RunFolder,
    text: Text,
    plot: Plot = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """What a translator looks at for each token that it writes, or a classifier with attention in its text.

    A row a target token: a shade for each source token, and the one that it looks at most. With --json, one object:
    source, target, weights (a row a target token), result.
    """
    from seqtext.cli.library import api
    from seqtext.draw import plain, wants_colour
    from seqtext.inspecting.attention import inspect_attention
    from seqtext.inspecting.shading import label, label_width, shade
    from seqtext.plot import check_picture, heat_map

    if plot is not None:
        check_picture(plot)
    found = inspect_attention(api.load(run, device=device), text)
    if plot is not None:
        heat_map(found.source, found.target, found.weights, plot)
        typer.echo(str(plot), err=True)
    _utf8()
    if as_json:
        typer.echo(json.dumps(found.record(), ensure_ascii=False))
        return
    colour = wants_colour(sys.stdout)
    typer.echo(found.result)
    if len(found.target) == 1:  # a label: a row a word
        beside, (weights,) = label_width(found.source), found.weights
        for token, weight in zip(found.source, weights):
            bar = "█" * round(40 * weight)
            typer.echo(f"{label(token, beside)} {weight:.3f} {bar}".rstrip())
        return
    beside = label_width(found.target)
    for token, row in zip(found.target, found.weights):
        most = max(range(len(row)), key=row.__getitem__)
        shades = "".join(shade(weight, 0.0, 1.0, colour=colour) for weight in row)
        typer.echo(f"{label(token, beside)} |{shades}| {row[most]:.2f} {plain(found.source[most])}")


@app.command()
def trees(
    run: RunFolder,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="A sentence, or a tree in brackets.")],
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw it to this file, .svg or .html.")] = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """The tree of a sentence, each node shaded by its label (tree-sentiment). With --json, one object with all nodes.

    `seqtext predict --draw` and `--html` do the same for files.
    """
    from seqtext import draw
    from seqtext.cli.library import api
    from seqtext.errors import InputError
    from seqtext.files import write_text
    from seqtext.inspecting.reading import prepared
    from seqtext.inspecting.shading import terminal_width
    from seqtext.task import DrawingTask

    if plot is not None and plot.suffix not in (".svg", ".html", ".htm"):
        raise InputError(f"--plot {plot}: expected a name that ends in .svg or .html")
    if plot is not None and not plot.absolute().parent.is_dir():
        raise InputError(f"--plot {plot}: no such folder: {plot.parent}")
    model = api.load(run, device=device)
    if not isinstance(model.task, DrawingTask):
        raise InputError(f"{run}: a run of the task {model.task.name}, whose results are no trees")
    example = prepared(model, text)
    (prediction,) = model.predict_prepared([example])
    _utf8()
    if as_json:
        typer.echo(json.dumps(model.task.record(example, prediction), ensure_ascii=False))
    tree: Any = None
    if plot is not None or not as_json:
        tree = model.task.labelled(example, prediction)
    if plot is not None:
        write_text(plot, draw.svg(tree) if plot.suffix == ".svg" else draw.html([tree]))
        typer.echo(str(plot), err=True)
    if not as_json:
        typer.echo(draw.terminal(tree, colour=draw.wants_colour(sys.stdout), width=terminal_width()), nl=False)


@app.command()
def embeddings(
    run: RunFolder,
    words: Annotated[list[str], typer.Argument(metavar="WORD...", help="Words of the run's vocabulary.")],
    k: Annotated[int, typer.Option("--k", help="How many neighbours.")] = 10,
    side: Annotated[
        str | None,
        typer.Option(metavar="source|target", help="Which side of a translator's vocabulary; default: source."),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """The nearest neighbours of words among the run's vocabulary, by the cosine of their vectors.

    With --json, an object a word: word, neighbours (each with its cosine).
    """
    from seqtext.cli.library import api
    from seqtext.cli.tables import print_table
    from seqtext.errors import InputError
    from seqtext.inspecting.embeddings import inspect_embeddings

    if side not in (None, "source", "target"):
        raise InputError(f"--side {side}: expected source or target")
    found = inspect_embeddings(api.load(run, device=device), words, k=k, side=side)  # type: ignore[arg-type]
    _utf8()
    for one in found:
        if as_json:
            typer.echo(json.dumps(one.record(), ensure_ascii=False))
        else:
            print_table(one.word, ["neighbour", "cosine"], [[word, f"{cosine:.3f}"] for word, cosine in one.found])


def _utf8() -> None:
    import io

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the input is, whatever the locale
