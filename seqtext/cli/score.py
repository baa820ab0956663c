"""`seqtext score`."""

from __future__ import annotations

import io
import json
import math
import sys
from typing import Annotated

import typer

from seqtext.cli.lines import check_files, lines_of
from seqtext.cli.options import BatchTokens, Device, Json, RunFolder


def score(
    run: RunFolder,
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="A text file, one text a line; - is stdin.")] = "-",
    batch_tokens: BatchTokens = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Give each line of a text its probability under a language model, one line for a line, in the order of the input.

    Each line is read by itself, as if it were the first of a text, and its end is scored as a token too. The columns,
    parted by tabs: log-probability (in nats), perplexity (per token), tokens, and how many of them are unknown; a line
    without a word has 0 tokens and the perplexity nan (with --json, null). With --json, objects: text, log_probability,
    perplexity, tokens, unknown.
    """
    from seqtext import api
    from seqtext.errors import InputError
    from seqtext.search.generate import WritingTask

    check_files([file])
    model = api.load(run, device=device)
    if not isinstance(model.task, WritingTask):
        raise InputError(f"{run}: a run of the task {model.task.name}; seqtext score needs a language model's")
    typed = file == "-" and sys.stdin.isatty()
    if typed:
        typer.echo("type a text a line; Ctrl-D ends", err=True)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8")  # as the input is, whatever the locale
    for example, line in model.stream(lines_of(file), batch_tokens=batch_tokens, at_once=1 if typed else None):
        record = model.task.record(example, line)
        if as_json:
            sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
        else:
            log_probability, perplexity = record["log_probability"], record["perplexity"]
            perplexity = math.nan if perplexity is None else perplexity
            sys.stdout.write(f"{log_probability:.4f}\t{perplexity:.4f}\t{record['tokens']}\t{record['unknown']}\n")
        if sys.stdout.isatty():
            sys.stdout.flush()
    sys.stdout.flush()
