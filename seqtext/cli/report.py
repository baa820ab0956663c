"""`seqtext report`."""

from __future__ import annotations

from typing import Annotated

import typer

from seqtext.cli.options import Device, Threads


def report(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run folders, as training left them.")],
    out: Annotated[str, typer.Option("--out", "-o", metavar="FILE", help="The page to write.")] = "report.html",
    examples: Annotated[int, typer.Option(help="Errors, sentences and pictures of each kind.")] = 5,
    limit: Annotated[
        int, typer.Option(help="Examples to predict for a run that holds no predictions, such as an export.")
    ] = 200,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Write a page about runs, to open in a browser: it needs no network and no other file.

    Learning curves, scores with their intervals, what a task has to show (confusions or types, the worst errors,
    entities, attention, trees, generated text), and settings. Several runs of a task stand side by side, with whether
    their differences are more than chance. All is of the validation split, as the run folder holds it.
    """
    from seqtext.cli.library import api

    typer.echo(str(api.report(runs, out, examples=examples, limit=limit, device=device)))
