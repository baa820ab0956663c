"""`seqtext evaluate`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqtext.cli.options import BatchTokens, Device, Json, Precision, RunFolder, SplitName, Threads

if TYPE_CHECKING:
    from seqtext.task import Listing, Passing


def evaluate(
    run: RunFolder,
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Settings of how the data reads to change, such as data.text_field=review."
        ),
    ] = None,
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
    beam: Annotated[
        int | None, typer.Option(help="Translate with so many hypotheses, instead of what the recipe says.")
    ] = None,
    alpha: Annotated[
        float | None, typer.Option(help="How much length counts in a translation's rank, instead of what it says.")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(
            metavar="RUN2", help="Compare a translator's scores with this run's on the same data: paired bootstrap."
        ),
    ] = None,
    ensemble: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN2", help="Translate with this run as well, by mean probability; may be repeated."),
    ] = None,
    errors: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Where to write what it does worst on, instead of RUN/errors.jsonl (translation: RUN/worst.jsonl), "
            "and with --data or KEY=VALUE.",
        ),
    ] = None,
    worst: Annotated[int | None, typer.Option(min=1, help="How many of these to write; by default 50.")] = None,
    precision: Precision = "float32",
    batch_tokens: BatchTokens = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Score a run on held-out data: the figures, and a table for people.

    The texts that a classifier (sentiment) is most confidently wrong about are written to RUN/errors.jsonl, those that
    a translator (translation) translates worst and best by chrF2 to RUN/worst.jsonl and RUN/best.jsonl. Those of other
    data, or of an ensemble, are no part of the run: --errors FILE writes the first list. With --compare, the run is the
    system and RUN2 the baseline: p tells how likely such a difference is by chance.

    With --dynamic (dynamic evaluation; Krause 2018) and --cache (the neural cache; Grave 2017) every token is still
    scored from what stands before it alone, and the run is left as it is. Dynamic evaluation takes a step of learning
    every 5 tokens, by gradients of the run's training text. What was chosen by --tune stands with the figures.
    """
    from seqtext.cli.library import api
    from seqtext.errors import InputError

    if split not in ("train", "valid", "test"):
        raise InputError(f"--split {split}: expected train, valid or test")
    if errors is not None:
        _check_place(Path(errors))
        worst = worst or api.WORST
    given = {"beam": beam, "alpha": alpha}
    options = {name: value for name, value in given.items() if value is not None}
    with _Passes() as passes:
        result = api.evaluate(
            run,
            data,
            split=split,  # type: ignore[arg-type]
            overrides=overrides or (),
            device=device,
            batch_tokens=batch_tokens,
            precision=precision,
            dynamic=dynamic,
            cache=cache or 0,
            tune=tune,
            worst=worst,
            compare=compare,
            ensemble=ensemble or (),
            listen=passes,
            **options,
        )
    for warning in result.warnings:
        typer.echo(f"warning: {warning}", err=True)
    own = data is None and not overrides and not ensemble
    for number, listing in enumerate(result.listings or []):
        if number == 0 and errors is not None:
            _write_listing(listing, Path(errors), given=True)
        elif own:
            _write_listing(listing, Path(run) / f"{listing.name}.jsonl", given=False)
    if as_json:
        values = {"split": result.split, "examples": result.examples, "metric": result.settings, **result.scores}
        if result.adaptation is not None:
            values["adaptation"] = result.adaptation
        if result.comparison is not None:
            values["comparison"] = {"baseline": compare, "scores": result.comparison.records}
        typer.echo(json.dumps(values))
        return
    from seqtext.cli.tables import print_table

    for table in [*result.tables, *([result.comparison.table] if result.comparison is not None else [])]:
        print_table(table.title, table.header, table.rows)
    typer.echo(result.settings)


def _check_place(file: Path) -> None:
    """Raises `InputError` where a file cannot be written: before anything is computed."""
    from seqtext.errors import InputError

    if file.is_dir():
        raise InputError(f"--errors {file}: this is a folder; a file is expected")
    if not file.parent.is_dir():
        raise InputError(f"--errors {file}: {file.parent}: no such folder")


def _write_listing(listing: Listing, file: Path, *, given: bool) -> None:
    """Write a list to the file that was given, or to one in the run folder, where it is no fault if it cannot be."""
    from seqtext.errors import InputError
    from seqtext.files import write_json_lines

    try:
        write_json_lines(file, listing.examples)
    except OSError as error:
        message = f"{file}: cannot be written: {error.strerror or error}"
        if given:
            raise InputError(f"--errors {message}") from None
        typer.echo(f"note: {message}; --errors FILE writes the errors elsewhere", err=True)
        return
    count = "1 example" if len(listing.examples) == 1 else f"{len(listing.examples)} examples"
    typer.echo(f"{file}: the {count} {listing.what}", err=True)


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
