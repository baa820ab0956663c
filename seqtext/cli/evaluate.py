"""`seqtext evaluate`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from seqtext.cli.options import BatchTokens, Device, Json, RunFolder, SplitName


def evaluate(
    run: RunFolder,
    data: Annotated[
        str | None,
        typer.Option(help="Other data than the run's own: a folder, a file, sample, hub:NAME or nltk:CORPUS."),
    ] = None,
    split: SplitName = "test",
    batch_tokens: BatchTokens = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score a run on held-out data: the figures, and a table for people."""
    from seqtext import api
    from seqtext.errors import InputError

    if split not in ("train", "valid", "test"):
        raise InputError(f"--split {split}: expected train, valid or test")
    result = api.evaluate(run, data, split=split, device=device, batch_tokens=batch_tokens)  # type: ignore[arg-type]
    if as_json:
        values = {"split": result.split, "examples": result.examples, "metric": result.settings, **result.scores}
        typer.echo(json.dumps(values))
        return
    from seqtext.cli.tables import print_table

    for table in result.tables:
        print_table(table.title, table.header, table.rows)
    typer.echo(result.settings)
