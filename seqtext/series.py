"""Several trainings of one recipe that differ in one setting: seeds, or the folds of a cross-validation."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from seqtext import run as runs
from seqtext import session
from seqtext.errors import RunError
from seqtext.files import write_json
from seqtext.recipe import Recipe
from seqtext.run import Run
from seqtext.session import Listener
from seqtext.training.processes import Processes


class Series(NamedTuple):
    """What several trainings left."""

    folder: Path
    facts: dict[str, Any]
    """What they have in common and what tells them apart, as summary.json says it."""
    runs: list[Run]
    summary: dict[str, dict[str, float]]
    """For each split's goal ("test f1"): mean, deviation (of the sample), minimum, maximum."""


def train_all(
    recipes: Mapping[str, Recipe],
    folder: Path,
    device: torch.device,
    *,
    facts: dict[str, Any],
    group: Processes,
    tensorboard: bool,
    listen: Listener,
) -> Series:
    """Train each of `recipes` into `folder`/NAME, and write what their scores come to into `folder`/summary.json.

    A finished run that stands there already is not trained again and an unfinished one is resumed. Raises `RunError`,
    before anything is trained, where a run of other settings stands there.
    """
    folder = Path(group.tell(str(folder)))
    known = {name: runs.open_run(folder / name) for name in recipes if (folder / name / "meta.json").is_file()}
    if known:  # one machine may choose another precision than the last; a series has one
        first = next(iter(known.values())).recipe.train.precision
        recipes = {name: _with_precision(recipe, first) for name, recipe in recipes.items()}
    for name, run in known.items():
        if run.recipe.toml() != recipes[name].absolute().toml():
            raise RunError(f"{run.folder}: a run of another recipe or other settings; choose another --out")
    finished = []
    for name, recipe in recipes.items():
        if name not in known:
            finished.append(
                session.start(recipe, folder / name, device, group=group, tensorboard=tensorboard, listen=listen)
            )
        elif known[name].meta.get("finished"):
            finished.append(known[name])
        else:
            finished.append(
                session.resume(folder / name, (), device, group=group, tensorboard=tensorboard, listen=listen)
            )
    summary = _summary(finished)
    if group.first:
        write_json(folder / "summary.json", {"recipe": finished[0].recipe.name, **facts, **summary})
    return Series(folder, facts, finished, summary)


def _with_precision(recipe: Recipe, precision: str) -> Recipe:
    """The recipe with this precision in place of "auto"."""
    if recipe.train.precision != "auto":
        return recipe
    return replace(recipe, train=recipe.train.model_copy(update={"precision": precision}))


def _summary(finished: Sequence[Run]) -> dict[str, dict[str, float]]:
    key = finished[0].task.goal.key
    summary = {}
    for split in finished[0].meta["scores"]:
        values = [run.meta["scores"][split][key] for run in finished]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        summary[f"{split} {key}"] = {
            "mean": statistics.fmean(values),
            "deviation": deviation,
            "minimum": min(values),
            "maximum": max(values),
        }
    return summary
