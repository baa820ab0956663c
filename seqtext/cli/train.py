"""`seqtext train`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from seqtext.cli.options import Device, Json, recipe_names


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
        str | None, typer.Option(help="A folder with train, valid and test files, or sample, hub:NAME, nltk:CORPUS.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="The run folder to make; by default a new one under runs/.")] = None,
    resume: Annotated[
        str | None, typer.Option(metavar="RUN", help="Go on with a run from its last checkpoint.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="The seed of weights, order and dropout.")] = None,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Train this many seeds and report mean, deviation, minimum and maximum.")
    ] = None,
    device: Device = "auto",
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also write TensorBoard files into the run.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Train a model and leave a run folder.

    Without --data, `seqtext train ner` trains on the embedded synthetic sample and needs no network. Ctrl-C saves a
    checkpoint; --resume goes on to the same weights as if nothing had happened.
    """
    from seqtext import api
    from seqtext.cli.progress import Display
    from seqtext.errors import InputError

    changes = list(overrides or [])
    if resume is not None and recipe is not None and "=" in recipe:
        changes.insert(0, recipe)
        recipe = None
    with Display() as display:
        if seeds is not None:
            if resume is not None or recipe is None:
                raise InputError("--seeds takes a recipe, not --resume; the same command with --out goes on by itself")
            result = api.train_seeds(
                recipe,
                seeds,
                data=data,
                overrides=changes,
                out=out,
                seed=seed,
                device=device,
                tensorboard=tensorboard,
                listen=display,
            )
            display.close()
            numbers = [run.recipe.seed for run in result.runs]
            _show_seeds(str(result.folder), numbers, result.summary, as_json)
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
    key = run.task.goal.key
    if as_json:
        typer.echo(json.dumps({"run": str(run.folder), "step": run.meta["step"], "scores": run.meta["scores"]}))
    else:
        shown = ", ".join(f"{split} {key} {scores[key]:.4f}" for split, scores in run.meta["scores"].items())
        typer.echo(f"{run.folder}: {shown}")
    held_out = "" if "test" in run.meta["scores"] else " --split valid"
    typer.echo(f"next: seqtext evaluate {run.folder}{held_out}", err=True)
    typer.echo(f"      seqtext predict {run.folder} FILE", err=True)


def _show_seeds(folder: str, seeds: list[int], summary: dict[str, dict[str, float]], as_json: bool) -> None:
    if as_json:
        values: dict[str, Any] = {"folder": folder, "seeds": seeds, **summary}
        typer.echo(json.dumps(values))
        return
    typer.echo(f"{folder}: seeds {', '.join(map(str, seeds))}")
    for name, row in summary.items():
        numbers = ", ".join(f"{key} {value:.4f}" for key, value in row.items())
        typer.echo(f"{name}: {numbers}")
