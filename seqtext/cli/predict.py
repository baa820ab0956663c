"""`seqtext predict`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

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
        bool, typer.Option("--confidence", help="Give each entity's probability (with --json).")
    ] = False,
    nbest: Annotated[int, typer.Option(min=1, help="Give the k best answers with probabilities (with --json).")] = 1,
    batch_tokens: BatchTokens = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Read text, one example a line, and print one result a line, in the order of the input.

    A line without a word gives an empty result in its place.
    """
    from seqtext import api
    from seqtext.errors import DataError, InputError

    if (confidence or nbest > 1) and not as_json:
        raise InputError("--confidence and --nbest need --json, which has room for them")
    for name in files or []:
        if name != "-" and not Path(name).exists():  # before other files have been answered
            raise DataError("no such file", path=name)
    model = api.load(run, device=device)
    if model.run.meta["step"] == 0 and not model.run.meta["scores"]:
        typer.echo(f"note: {run} was not trained to its end; these are its best weights so far", err=True)
    typed = "-" in (files or ["-"]) and sys.stdin.isatty()
    if typed:
        typer.echo("type a sentence a line; Ctrl-D ends", err=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the input is, whatever the locale
    lines = (line for name in files or ["-"] for line in _lines(name))
    options: dict[str, Any] = {"confidence": True, "nbest": nbest} if confidence or nbest > 1 else {}
    write = sys.stdout.write
    options |= {"batch_tokens": batch_tokens, "pretokenized": pretokenized, "at_once": 1 if typed else None}
    for example, prediction in model.stream(lines, **options):
        if as_json:
            write(json.dumps(model.task.record(example, prediction), ensure_ascii=False) + "\n")
        else:
            write(model.task.show(example, prediction) + "\n")
        if sys.stdout.isatty():
            sys.stdout.flush()
    sys.stdout.flush()


def _lines(name: str) -> Iterator[str]:
    from seqtext.data.text import open_text, text_lines

    if name != "-":
        return (line for _, line in open_text(name))
    return (line for _, line in text_lines(sys.stdin.buffer, "standard input"))
