"""`seqtext predict`."""

from __future__ import annotations

import io
import json
import sys
from typing import Annotated, Any

import typer

from seqtext.cli.lines import check_files, lines_of
from seqtext.cli.options import BatchTokens, Device, Json, RunFolder


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
    batch_tokens: BatchTokens = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Read text, one example a line, and print one result a line, in the order of the input.

    A tagger (ner) prints the text with its entities in brackets, a classifier (sentiment) the label, its probability
    and the text, a language model (lm) the log-probability and the text; with tabs between them. With --json, objects:
    all probabilities, offsets of entities. A line without a word gives an empty result in its place.
    """
    from seqtext import api
    from seqtext.errors import InputError
    from seqtext.task import CuttingTask, TranslatingTask

    if (confidence or nbest > 1) and not as_json:
        raise InputError("--confidence and --nbest need --json, which has room for them")
    names = files or ["-"]
    check_files(names)
    model = api.load(run, device=device)
    if model.run.meta["step"] == 0 and not model.run.meta["scores"]:
        typer.echo(f"note: {run} was not trained to its end; these are its best weights so far", err=True)
    typed = "-" in names and sys.stdin.isatty()
    # The first of the options that the task does not have is the one that an error names.
    options: dict[str, Any] = {"nbest": nbest} if nbest > 1 else {}
    options |= {"confidence": True} if confidence or nbest > 1 else {}
    options |= {"batch_tokens": batch_tokens, "pretokenized": pretokenized, "at_once": 1 if typed else None}
    translator = isinstance(model.task, TranslatingTask)
    if translator and pretokenized:
        raise InputError("--pretokenized: a translator reads plain text as it is written; leave this out")
    results = model.stream(lines_of(*names, nul=not translator), **options)
    if typed:
        typer.echo("type a text a line; Ctrl-D ends", err=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the input is, whatever the locale
    write = sys.stdout.write
    cuts = 0
    for line, (example, prediction) in enumerate(results, start=1):
        if isinstance(model.task, CuttingTask) and (cut := model.task.cut(example)):
            cuts += 1
            if cuts == 1:
                typer.echo(f"note: line {line}: {cut}", err=True)
        if as_json:
            write(json.dumps(model.task.record(example, prediction), ensure_ascii=False) + "\n")
        else:
            write(model.task.show(example, prediction) + "\n")
        if sys.stdout.isatty():
            sys.stdout.flush()
    sys.stdout.flush()
    if cuts > 1:
        typer.echo(f"note: {cuts:,} of {line:,} lines were not read whole", err=True)
