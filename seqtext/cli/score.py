"""`seqtext score`."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from seqtext.cli.lines import check_files, placed_lines
from seqtext.cli.options import BatchTokens, Device, Json, Precision, RunFolder, Threads


def score(
    run: RunFolder,
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE|-", help="A text file, one text a line, or a source, a tab and its translation; - is stdin."
        ),
    ] = "-",
    label: Annotated[
        str | None, typer.Option(help="What the lines are scored for, where the model is conditioned on labels.")
    ] = None,
    precision: Precision = "float32",
    batch_tokens: BatchTokens = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Give each line of a text its probability under a language model, one line for a line, in the order of the input.

    With a translator (translation), a line is a source, a tab and a translation, whose probability given the source
    this is. Each line is read by itself, as if it were the first of a text, and its end is scored as a token too. The
    columns, parted by tabs: log-probability (in nats), perplexity (per token), tokens, and how many of them are
    unknown; a line without a word (of the source) has 0 tokens and the perplexity nan (with --json, null). With
    --json, objects: text (or source and target), log_probability, perplexity, tokens, unknown.
    """
    from seqtext.cli.library import api
    from seqtext.errors import InputError
    from seqtext.search.generate import WritingTask
    from seqtext.task import TranslatingTask

    check_files([file])
    model = api.load(run, device=device, precision=precision)
    translator = model.task if isinstance(model.task, TranslatingTask) else None
    if translator is None and not isinstance(model.task, WritingTask):
        needed = "a language model's or a translator's"
        raise InputError(f"{run}: a run of the task {model.task.name}; seqtext score needs {needed}")
    typed = file == "-" and sys.stdin.isatty()
    if typed:
        what = "text" if translator is None else "source, tab and translation"
        typer.echo(f"type a {what} a line; Ctrl-D ends", err=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the input is, whatever the locale
    options: dict[str, Any] = {} if translator is None else {"forced": True}
    if label is not None and translator is not None:
        raise InputError(f"--label {label}: a translator reads no label")
    if isinstance(model.task, WritingTask):
        model.task.decoder(model.module, label=label)  # says what is wrong before anything is read
        options = {} if label is None else {"label": label}
    prepared = _prepared(model.task, file)
    at_once = 1 if typed else None
    for example, found in model.stream_prepared(prepared, batch_tokens=batch_tokens, at_once=at_once, **options):
        record = model.task.record(example, found) if translator is None else translator.scored(example, found)
        if as_json:
            sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
        else:
            log_probability, perplexity = record["log_probability"], record["perplexity"]
            perplexity = math.nan if perplexity is None else perplexity
            sys.stdout.write(f"{log_probability:.4f}\t{perplexity:.4f}\t{record['tokens']}\t{record['unknown']}\n")
        if sys.stdout.isatty():
            sys.stdout.flush()
    sys.stdout.flush()


def _prepared(task: Any, file: str) -> Iterator[Any]:
    """What a line is to the task: a text, or a pair. Raises `DataError` for a line that is no pair."""
    from seqtext.errors import DataError
    from seqtext.task import TranslatingTask

    for place, number, line in placed_lines(file, nul=not isinstance(task, TranslatingTask)):
        if not isinstance(task, TranslatingTask):
            yield task.prepare(line)
            continue
        columns = line.split("\t") if line.strip() else ["", ""]
        if len(columns) != 2:
            count = "no tab" if len(columns) == 1 else f"{len(columns) - 1} tabs"
            raise DataError(f"{count}; expected a source, one tab and a translation", path=place, line=number)
        yield task.prepare_pair(*columns)
