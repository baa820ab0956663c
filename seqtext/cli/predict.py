"""`seqtext predict`."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqtext.cli.lines import check_files, lines_of, placed_lines
from seqtext.cli.options import BatchTokens, Device, Json, Precision, RunFolder, Threads

if TYPE_CHECKING:
    from seqtext.task import DrawingTask


def predict(
    run: RunFolder,
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE|-", help="Text files, one example a line; - is stdin.")
    ] = None,
    pretokenized: Annotated[
        bool, typer.Option("--pretokenized", help="Words are what stands between spaces; do not split further.")
    ] = False,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="ner: give each entity's probability (with --json).")
    ] = False,
    nbest: Annotated[
        int, typer.Option(min=1, help="ner: give the k best answers with probabilities (with --json).")
    ] = 1,
    label: Annotated[
        str | None, typer.Option(help="lm: what the lines are scored for, where the model is conditioned on labels.")
    ] = None,
    draw: Annotated[
        bool, typer.Option("--draw", help="tree-sentiment: draw each tree, coloured by its labels.")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="tree-sentiment: write a page of trees, or one to .svg."),
    ] = None,
    as_text: Annotated[
        bool, typer.Option("--text", help="tree-sentiment: lines that begin with a bracket are text, not trees.")
    ] = False,
    precision: Precision = "float32",
    batch_tokens: BatchTokens = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Read text, one example a line, and print one result a line, in the order of the input.

    A tagger (ner) prints the text with its entities in brackets, a classifier (sentiment) the label, its probability
    and the text, a language model (lm) the log-probability and the text; with tabs between them. A classifier of trees
    (tree-sentiment) reads plain text, or a tree in brackets a line. With --json, objects: all probabilities, offsets of
    entities, every constituent. A line without a word gives an empty result in its place.
    """
    from seqtext import draw as drawings
    from seqtext.cli.library import api
    from seqtext.errors import InputError
    from seqtext.files import write_text
    from seqtext.task import CuttingTask, TranslatingTask

    if (confidence or nbest > 1) and not as_json:
        raise InputError("--confidence and --nbest need --json, which has room for them")
    if draw and as_json:
        raise InputError("--draw and --json: one or the other")
    names = files or ["-"]
    check_files(names)
    model = api.load(run, device=device, precision=precision)
    if model.run.meta["step"] == 0 and not model.run.meta["scores"]:
        typer.echo(f"note: {run} was not trained to its end; these are its best weights so far", err=True)
    typed = "-" in names and sys.stdin.isatty()
    # The first of the options that the task does not have is the one that an error names.
    options: dict[str, Any] = {"nbest": nbest} if nbest > 1 else {}
    options |= {} if label is None else {"label": label}
    options |= {"confidence": True} if confidence or nbest > 1 else {}
    options |= {"batch_tokens": batch_tokens, "pretokenized": pretokenized, "at_once": 1 if typed else None}
    translator = isinstance(model.task, TranslatingTask)
    if translator and pretokenized:
        raise InputError("--pretokenized: a translator reads plain text as it is written; leave this out")
    trees = _trees(model.task, draw=draw, html=html, as_text=as_text)
    lines = lines_of(*names, nul=not translator)
    if trees:
        del options["pretokenized"]
        results = model.stream_prepared(_prepared(trees, *names, pretokenized=pretokenized, text=as_text), **options)
    else:
        results = model.stream(lines, **options)
    if typed:
        typer.echo("type a text a line; Ctrl-D ends", err=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the input is, whatever the locale
    write = sys.stdout.write
    colour, width = drawings.wants_colour(sys.stdout), shutil.get_terminal_size((100, 24)).columns
    cuts = 0
    drawn = []
    for line, (example, prediction) in enumerate(results, start=1):
        if isinstance(model.task, CuttingTask) and (cut := model.task.cut(example)):
            cuts += 1
            if cuts == 1:
                typer.echo(f"note: line {line}: {cut}", err=True)
        if html and trees and len(example):
            drawn.append(trees.labelled(example, prediction))
        if draw and trees and len(example):
            write(drawings.terminal(trees.labelled(example, prediction), colour=colour, width=width) + "\n")
        elif as_json:
            write(json.dumps(model.task.record(example, prediction), ensure_ascii=False) + "\n")
        else:
            write(model.task.show(example, prediction) + "\n")
        if sys.stdout.isatty():
            sys.stdout.flush()
    sys.stdout.flush()
    if html:
        if html.suffix == ".svg" and len(drawn) != 1:
            raise InputError(f"--html {html}: {len(drawn):,} trees, and an .svg file has one; write to an .html file")
        write_text(html, drawings.svg(drawn[0]) if html.suffix == ".svg" else drawings.html(drawn))
        typer.echo(f"{len(drawn):,} tree{'s' * (len(drawn) != 1)} in {html}", err=True)
    if cuts > 1:
        typer.echo(f"note: {cuts:,} of {line:,} lines were not read whole", err=True)


def _trees(task: Any, *, draw: bool, html: Path | None, as_text: bool) -> DrawingTask | None:
    """The task, if its predictions are trees. Raises `InputError` for options that are for such tasks alone."""
    from seqtext.errors import InputError
    from seqtext.task import DrawingTask

    if isinstance(task, DrawingTask):
        if html and html.suffix not in (".html", ".htm", ".svg"):
            raise InputError(f"--html {html}: expected a name that ends in .html, or in .svg for a single tree")
        if html and not html.absolute().parent.is_dir():
            raise InputError(f"--html {html}: no such folder: {html.parent}")
        return task
    for name, given in {"--draw": draw, "--html": html, "--text": as_text}.items():
        if given:
            raise InputError(f"{name}: a run of the task {task.name}, whose results are no trees")
    return None


def _prepared(task: DrawingTask, *names: str, pretokenized: bool, text: bool) -> Iterator[Any]:
    """The lines as examples, trees among them; a tree that does not read is told by its file and line."""
    from seqtext.errors import DataError

    for place, number, line in placed_lines(*names):
        try:
            yield task.prepare(line, pretokenized=pretokenized, trees=not text)
        except DataError as error:
            raise DataError(f"{error}; with --text it is text", path=place, line=number) from None
