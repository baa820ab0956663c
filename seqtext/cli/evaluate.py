"""`seqtext evaluate`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqtext.cli.options import BatchTokens, Device, Json, RunFolder, SplitName

if TYPE_CHECKING:
    from seqtext.task import Passing


def evaluate(
    run: RunFolder,
    data: Annotated[
        str | None,
        typer.Option(help="Other data than the run's own: a folder, a file, sample, hub:NAME or nltk:CORPUS."),
    ] = None,
    split: SplitName = "test",
    dynamic: Annotated[
        bool,
        typer.Option("--dynamic", help="A language model learns from each few tokens after they were scored."),
    ] = False,
    cache: Annotated[
        int | None,
        typer.Option(min=1, help="A language model makes the words of so many tokens back more probable, such as 500."),
    ] = None,
    tune: Annotated[
        bool, typer.Option("--tune", help="Choose the settings of --dynamic and --cache on the run's valid split.")
    ] = False,
    batch_tokens: BatchTokens = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Score a run on held-out data: the figures, and a table for people.

    With --dynamic (dynamic evaluation; Krause 2018) and --cache (the neural cache; Grave 2017) every token is still
    scored from what stands before it alone, and the run is left as it is. Dynamic evaluation takes a step of learning
    every 5 tokens, by gradients of the run's training text. What was chosen by --tune stands with the figures.
    """
    from seqtext import api
    from seqtext.errors import InputError

    if split not in ("train", "valid", "test"):
        raise InputError(f"--split {split}: expected train, valid or test")
    with _Passes() as passes:
        result = api.evaluate(
            run,
            data,
            split=split,  # type: ignore[arg-type]
            device=device,
            batch_tokens=batch_tokens,
            dynamic=dynamic,
            cache=cache or 0,
            tune=tune,
            listen=passes,
        )
    if as_json:
        values = {"split": result.split, "examples": result.examples, "metric": result.settings, **result.scores}
        if result.adaptation is not None:
            values["adaptation"] = result.adaptation
        typer.echo(json.dumps(values))
        return
    from seqtext.cli.tables import print_table

    for table in result.tables:
        print_table(table.title, table.header, table.rows)
    typer.echo(result.settings)


class _Passes:
    """The passes of an evaluation that adapts, on stderr: a line for each, and on a terminal how far it is."""

    def __init__(self) -> None:
        self.last: Passing | None = None
        self.bar: Any = None

    def __enter__(self) -> _Passes:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()

    def __call__(self, passing: Passing) -> None:
        if self.last is not None and passing.what != self.last.what:
            self._end()
        self.last = passing
        if not sys.stderr.isatty():
            return
        if self.bar is None:
            from rich.console import Console
            from rich.progress import Progress

            self.bar = Progress(console=Console(stderr=True), transient=True)
            self.bar.start()
            self.bar.add_task("", total=passing.total)
        self.bar.update(0, completed=passing.done, description=self._told(passing))

    def _end(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None
        if self.last is not None:
            part = self.last.done < self.last.total
            stopped = f", stopped after {self.last.done:,} of {self.last.total:,} windows" if part else ""
            typer.echo(self._told(self.last) + stopped, err=True)
            self.last = None

    def _told(self, passing: Passing) -> str:
        return passing.what + ("" if passing.perplexity is None else f": perplexity {passing.perplexity:.2f}")
