"""`seqtext translate`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from seqtext.cli.lines import check_files, lines_of, prompted
from seqtext.cli.options import BatchTokens, Device, Json, Precision, RunFolder, Threads

AT_ONCE = 16
"""Sentences that are translated together, at most, where attention is kept of them."""


def translate(
    run: RunFolder,
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE|-", help="Text files, one sentence a line; - is stdin.")
    ] = None,
    beam: Annotated[int | None, typer.Option(help="Hypotheses kept of each sentence; 1 is greedy and fastest.")] = None,
    nbest: Annotated[
        int | None, typer.Option(help="Give the k best translations of each sentence, at most as many as --beam.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="How much length counts; at 0 the short ones come first, being more probable.")
    ] = None,
    length_penalty: Annotated[
        str | None,
        typer.Option(metavar="average|wu", help="What log-probabilities are divided by: n^alpha or ((5+n)/6)^alpha."),
    ] = None,
    coverage_penalty: Annotated[
        float | None, typer.Option(help="What it costs to leave parts of the source without attention, such as 0.2.")
    ] = None,
    min_length: Annotated[
        int | None, typer.Option(help="Tokens of a translation, at least, if --max-ratio lets it.")
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of a translation, at most, however long the source.")
    ] = None,
    min_ratio: Annotated[
        float | None, typer.Option(help="Tokens of a translation, at least, as a share of the source's.")
    ] = None,
    max_ratio: Annotated[
        float | None, typer.Option(help="Tokens of a translation, at most, as a share of the source's, and ten more.")
    ] = None,
    block_ngrams: Annotated[
        int | None, typer.Option(metavar="N", help="Let no sequence of n tokens occur twice in a translation.")
    ] = None,
    early: Annotated[
        bool | None,
        typer.Option("--early/--no-early", help="Stop when --beam hypotheses have ended, even if a better could come."),
    ] = None,
    sample: Annotated[bool, typer.Option("--sample", help="Draw translations instead of searching.")] = False,
    temperature: Annotated[
        float | None, typer.Option(help="Above 0: below 1 makes the probable more probable; with --sample.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Draw from the k most probable tokens; with --sample.")] = None,
    top_p: Annotated[
        float | None, typer.Option(help="Draw from the fewest tokens of this probability together; with --sample.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The seed of the draws; equal sentences are drawn alike.")
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What every translation begins with; its last word may go on.")
    ] = None,
    replace_unknown: Annotated[
        bool, typer.Option("--replace-unknown", help="Write for an unknown word the source's that it looks at.")
    ] = False,
    attention: Annotated[
        bool, typer.Option("--attention", help="Give what each token of the best one looked at (with --json).")
    ] = False,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN2", help="Translate with this run as well, by mean probability; may be repeated."),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Draw the attention of line n to DIR/n.png, of 100 tokens a side at most."),
    ] = None,
    plot_format: Annotated[str, typer.Option(metavar="png|svg", help="What --plot draws.")] = "png",
    precision: Precision = "float32",
    batch_tokens: BatchTokens = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Translate text, one sentence a line, and print one translation a line, in the order of the input.

    What is not given here is as model.search of the recipe says. An empty line gives an empty line. The input may be
    endless. A line of any length is read whole, and no more than --max-length tokens (by default 250) are written for
    it: what is longer is cut there; part long texts into sentences. A line that is not UTF-8, or has a NUL, is refused.

    With --nbest k, k lines a sentence, best first, as Moses prints them: number of the sentence from 0 ||| translation
    ||| score. With --json, objects: source, translation, score (what it ranks by), log_probability (in nats), nbest,
    attention (tokens of both sides, and a row of weights a target token).
    """
    from seqtext.cli.library import api
    from seqtext.errors import InputError
    from seqtext.plot import FORMATS, check_plot
    from seqtext.task import TranslatingTask

    if attention and not as_json:
        raise InputError("--attention needs --json, which has room for it; --plot draws it")
    if plot_format not in FORMATS:
        raise InputError(f"--plot-format {plot_format}: expected {' or '.join(FORMATS)}")
    names = files or ["-"]
    check_files(names)
    if plot is not None:
        check_plot()
        _check_folder(Path(plot))
    model = api.load(run, device=device, ensemble=ensemble or (), precision=precision)
    if not isinstance(model.task, TranslatingTask):
        raise InputError(f"{run}: a run of the task {model.task.name}; seqtext translate needs a translator's")
    given = {
        "beam": beam,
        "nbest": nbest,
        "alpha": alpha,
        "length_penalty": length_penalty,
        "coverage_penalty": coverage_penalty,
        "min_length": min_length,
        "max_length": max_length,
        "min_ratio": min_ratio,
        "max_ratio": max_ratio,
        "block_ngrams": block_ngrams,
        "early": early,
        "sample": sample or None,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "prefix": prefix or None,
        "replace_unknown": replace_unknown or None,
        "attention": attention or plot is not None or None,
    }
    options: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    typed = "-" in names and sys.stdin.isatty()
    at_once = 1 if typed else AT_ONCE if "attention" in options else None
    if plot is not None:
        model.task.searched(options, attention_flag="--attention, --plot" if attention else "--plot")
    lines = lines_of(*names, nul=False)
    lines = prompted(lines) if typed else lines
    results = model.stream(lines, batch_tokens=batch_tokens, at_once=at_once, **options)
    if typed:
        typer.echo("type a sentence a line; Ctrl-D ends", err=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the input is, whatever the locale
    for number, (example, prediction) in enumerate(results):
        if plot is not None and prediction.candidates:
            _draw(prediction.attention, Path(plot) / f"{number + 1}.{plot_format}")
            prediction = prediction if attention else prediction._replace(attention=None)
        if as_json:
            shown = [json.dumps(model.task.record(example, prediction), ensure_ascii=False)]
        elif nbest is not None and nbest > 1:
            shown = list(_moses(number, prediction))
        else:
            shown = [model.task.show(example, prediction)]
        sys.stdout.writelines(f"{line}\n" for line in shown)
        if typed or sys.stdout.isatty():
            sys.stdout.flush()
    sys.stdout.flush()


def _moses(number: int, prediction: Any) -> Iterator[str]:
    """The lines of an n-best list; a sentence without a word has one that is empty."""
    from seqtext.tasks.translated import one_line

    for candidate in prediction.candidates:
        yield f"{number} ||| {one_line(candidate.text)} ||| {candidate.score:.4f}"
    if not prediction.candidates:
        yield f"{number} |||  ||| {0:.4f}"


def _check_folder(folder: Path) -> None:
    """Raises `InputError` where the folder of the pictures cannot be: before anything is computed."""
    from seqtext.errors import InputError

    if folder.exists() and not folder.is_dir():
        raise InputError(f"--plot {folder}: this is a file; a folder is expected")
    if not folder.absolute().parent.is_dir():
        raise InputError(f"--plot {folder}: {folder.parent}: no such folder")


def _draw(attention: Any, file: Path) -> None:
    from seqtext.errors import InputError
    from seqtext.plot import heat_map

    try:
        file.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"--plot {file.parent}: cannot be made: {error.strerror or error}") from None
    heat_map(attention.source, attention.target, attention.weights, file)
