"""`seqtext tune`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from seqtext.cli.options import Device, Json, Threads, recipe_names

if TYPE_CHECKING:
    from seqtext.tuning import Tried, Tuned

SHOWN = 10
"""Trials of the table."""


def tune(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE", help="A recipe with a table `tune`, by name or file.", autocompletion=recipe_names
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to change, such as train.epochs=5.")
    ] = None,
    trials: Annotated[int, typer.Option(help="Trainings in all, those of a study that goes on among them.")] = 20,
    data: Annotated[str | None, typer.Option(help="A folder or source name in place of the recipe's own.")] = None,
    out: Annotated[
        str | None,
        typer.Option(help="The folder of the study; by default a new one under runs/. One that is there goes on."),
    ] = None,
    processes: Annotated[int, typer.Option(help="Trainings at a time.")] = 1,
    seed: Annotated[int | None, typer.Option(min=0, help="The seed of every training, and of the search.")] = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Search for better settings of a recipe, over the ranges that its table `tune` says.

    Each trial trains with other settings and is stopped early where it falls behind. Ctrl-C stops the search; the same
    command with --out goes on with it. OUT/best.toml is the recipe with the best settings. Needs the extra `tune`.
    """
    from seqtext.cli.library import api
    from seqtext.tuning import Stopped

    def listen(tried: Tried) -> None:
        score = tried.reason if tried.score is None else f"{tried.score:.4f}"
        values = " ".join(f"{key}={_value(value)}" for key, value in tried.values.items())
        typer.echo(f"trial {tried.number}: {tried.state}, {score}, {tried.epochs} epochs; {values}", err=True)

    try:
        tuned = api.tune(
            recipe,
            trials,
            data=data,
            overrides=overrides or [],
            out=out,
            seed=seed,
            processes=processes,
            device=device,
            listen=listen,
        )
    except Stopped as stopped:
        _show(stopped.tuned, as_json)
        raise
    _show(tuned, as_json)


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _show(tuned: Tuned, as_json: bool) -> None:
    from seqtext.cli.tables import figure, print_table

    key, mode = tuned.goal
    if as_json:
        best = tuned.best._asdict() if tuned.best else None
        told = {"folder": str(tuned.folder), "goal": key, "best": best, "importance": tuned.importance}
        typer.echo(json.dumps(told | {"trials": [tried._asdict() for tried in tuned.trials]}))
    elif tuned.trials:
        sign = -1.0 if mode == "max" else 1.0
        scored = [tried for tried in tuned.trials if tried.score is not None]
        scored.sort(key=lambda tried: (tried.state != "done", sign * (tried.score or 0.0)))
        names = list(tuned.trials[0].values)
        rows = [
            [str(tried.number), figure(key, tried.score or 0.0), tried.state, str(tried.epochs)]
            + [_value(tried.values[name]) for name in names if name in tried.values]
            for tried in scored[:SHOWN]
        ]
        counts = [
            f"{sum(tried.state == state for tried in tuned.trials)} {state}" for state in ("done", "pruned", "failed")
        ]
        title = f"Trials ({', '.join(counts)}), the best first"
        print_table(title, ["trial", f"valid {key}", "", "epochs", *names], rows)
        if tuned.importance:
            shares = [[name, f"{share:.2f}"] for name, share in tuned.importance.items()]
            print_table("Importance", ["key", "share"], shares)
    if tuned.best:
        typer.echo(f"next: seqtext train {tuned.folder / 'best.toml'}", err=True)
