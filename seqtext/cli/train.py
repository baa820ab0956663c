"""`seqtext train`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from seqtext.cli.options import Device, Json, Threads, recipe_names
from seqtext.cli.tables import figure

if TYPE_CHECKING:
    from seqtext.run import Run
    from seqtext.series import Series


def train(
    recipe: Annotated[
        str | None,
        typer.Argument(
            metavar="TASK_OR_RECIPE",
            help="A recipe by name or file; `seqtext recipes` lists them.",
            autocompletion=recipe_names,
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to change, such as train.epochs=20.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A folder with train, valid and test files, or sample, hub:NAME, nltk:CORPUS; for sentiment and lm "
            "also a single file, with data.hold_out=0.1 (or --folds: sentiment)."
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(help="The run folder to make; by default a new one under runs/.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run from its last checkpoint.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The seed of weights, order and dropout.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Train this many seeds and report mean, deviation, minimum and maximum.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            help="Cross-validate: train and test on this many folds of the training data, and report the same."
        ),
    ] = None,
    device: Device = "auto",
    threads: Threads = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard files into the run.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model and leave a run folder.

    Without --data, `seqtext train ner`, `sentiment`, `translation` and `tree-sentiment` train on embedded synthetic
    samples, `memory` on sequences that it generates and `lm` on English prose that ships with Python; no network is
    needed. Ctrl-C saves a checkpoint; --resume goes on to the same
    weights as if nothing had happened. With --seeds or --folds (sentiment) the same command goes on.
    """
    from seqtext.cli.library import api
    from seqtext.cli.progress import Display
    from seqtext.errors import InputError
    from seqtext.training.processes import is_first

    changes = list(overrides or [])
    if resume is not None and recipe is not None and "=" in recipe:
        changes.insert(0, recipe)
        recipe = None
    with Display() as display:
        if seeds is not None or folds is not None:
            flag = "--seeds" if folds is None else "--folds"
            if seeds is not None and folds is not None:
                raise InputError("--seeds and --folds: give one of them; --seed chooses the seed of all folds")
            if resume is not None or recipe is None:
                raise InputError(f"{flag} takes a recipe, not --resume; the same command with --out goes on by itself")
            train_all, count = (api.train_seeds, seeds) if folds is None else (api.train_folds, folds)
            assert count is not None
            result = train_all(
                recipe,
                count,
                data=data,
                overrides=changes,
                out=out,
                seed=seed,
                device=device,
                tensorboard=tensorboard,
                listen=display,
            )
            display.close()
            if is_first():
                _show_series(result, as_json)
            return
        run = api.train(
            recipe,
            data=data,
            overrides=changes,
            out=out,
            resume=resume,
            seed=seed,
            device=device,
            tensorboard=tensorboard,
            listen=display,
        )
    if not is_first():
        return
    key = run.task.goal.key
    if as_json:
        typer.echo(json.dumps({"run": str(run.folder), "step": run.meta["step"], "scores": run.meta["scores"]}))
    else:
        scores = run.meta["scores"].items()
        shown = ", ".join(f"{split} {key} {figure(key, found[key])}" for split, found in scores)
        typer.echo(f"{run.folder}: {shown}")
    _show_next(run)


def _show_next(run: Run) -> None:
    """What to do with a run of this task, on stderr."""
    from seqtext.search.generate import WritingTask
    from seqtext.task import TranslatingTask

    held_out = "" if "test" in run.meta["scores"] else " --split valid"
    commands = [f"seqtext evaluate {run.folder}{held_out}", f"seqtext predict {run.folder} FILE"]
    if isinstance(run.task, WritingTask):
        label = f" --label {run.task.names[0]}" if run.recipe.model.condition != "none" else ""  # type: ignore[attr-defined]
        commands = [f"seqtext generate {run.folder}{label} --prompt TEXT", f"seqtext score {run.folder}{label} FILE"]
    if isinstance(run.task, TranslatingTask):
        commands = [f"seqtext translate {run.folder} FILE", f"seqtext evaluate {run.folder}{held_out}"]
    commands.append(f"seqtext report {run.folder}")
    typer.echo("next: " + "\n      ".join(commands), err=True)


def _show_series(series: Series, as_json: bool) -> None:
    if as_json:
        values: dict[str, Any] = {"folder": str(series.folder), **series.facts, **series.summary}
        typer.echo(json.dumps(values))
        return
    shown = {key: ", ".join(map(str, fact)) if isinstance(fact, list) else fact for key, fact in series.facts.items()}
    typer.echo(f"{series.folder}: " + ", ".join(f"{key} {fact}" for key, fact in shown.items()))
    for name, row in series.summary.items():
        key = name.partition(" ")[2]
        numbers = ", ".join(f"{what} {figure(key, value)}" for what, value in row.items())
        typer.echo(f"{name}: {numbers}")
