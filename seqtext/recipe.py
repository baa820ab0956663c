"""Recipes: a TOML file that says which task, data, model and training; parsed, overridden, checked, written."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from seqtext.config import Config, override, parse, read_toml, to_toml
from seqtext.data.sources import reading_keys
from seqtext.errors import ConfigError, InputError
from seqtext.ranges import Range, read_ranges
from seqtext.shelf import find, name_of
from seqtext.tasks import TASKS
from seqtext.training.config import TrainConfig

TOP = ("task", "seed", "description", "data", "model", "train", "tune", "expected")


class Expected(Config):
    """What a recipe reached when it was last run, and how to run it again."""

    score: str
    """The figures, for people: metric, split, mean and deviation."""
    data: str = ""
    """The data they were measured on."""
    seeds: list[int] = Field(default_factory=list)
    """The seeds of the mean."""
    command: str = ""
    """What printed them."""
    commit: str = ""
    """The code that printed them."""
    machine: str = ""
    """The kind of machine, and the time a run took there."""
    published: str = ""
    """What others printed for the like, with the source."""


@dataclass(frozen=True)
class Recipe:
    """A recipe whose every value was checked."""

    name: str
    task: type[Any]
    seed: int
    description: str
    data: Any
    model: Any
    train: TrainConfig
    expected: Expected | None
    tune: dict[str, Range] = field(default_factory=dict, compare=False)
    """What `seqtext tune` tries; training knows nothing of it, and neither does a run."""

    def absolute(self) -> Recipe:
        """The recipe with paths that hold from any folder: what a run keeps, as it is used from others too."""
        return replace(self, data=self.data.absolute(), train=self.train.absolute())

    def fold(self, number: int, count: int) -> Recipe:
        """The recipe whose test data is fold `number` of `count`. Raises `ConfigError` where the data forbids it."""
        values = self.data.model_dump() | {"folds": count, "fold": number}
        return replace(self, data=parse(type(self.data), values, source=f"--folds {count}", prefix="data"))

    def toml(self) -> str:
        """The recipe with every default written out; itself a recipe."""
        table: dict[str, Any] = {"task": self.task.name, "seed": self.seed, "description": self.description}
        table |= {"data": self.data.model_dump(), "model": self.model.model_dump(), "train": self.train.model_dump()}
        if self.expected:
            table["expected"] = self.expected.model_dump()
        return to_toml(table)


def load(name: str, overrides: Sequence[str] | Mapping[str, Any] = (), *, search: bool = False) -> Recipe:
    """Find, read, override and check a recipe. Raises `ConfigError` with every fault at once.

    Unless it is for a `search`, the ranges of a recipe are for it as it is written: with any `overrides` it has none.
    """
    path = find(name)
    values = changed(read_toml(path), overrides, source=str(path))
    if overrides and not search:
        values = {key: table for key, table in values.items() if key != "tune"}
    return check(values, name=name_of(path), source=str(path))


def changed(values: Mapping[str, Any], overrides: Sequence[str] | Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """A recipe's table with `overrides` made by `config.override`: another cell keeps the settings of the old one."""
    return override(values, overrides, source=source, schemas=_schemas(values))


def _schemas(values: Mapping[str, Any]) -> dict[str, type[Config]]:
    """Those of a recipe's tables, of the task that it names."""
    kind = values.get("task")
    task = TASKS.get(kind) if isinstance(kind, str) else None
    found: dict[str, type[Config]] = {"train": TrainConfig, "expected": Expected}
    return found | ({"data": task.Data, "model": task.Model} if task is not None else {})


def choose(
    name: str,
    *,
    data: str | None = None,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    seed: int | None = None,
    folds: int = 0,
    search: bool = False,
) -> Recipe:
    """As `load`, with another source of data and another seed where they are given.

    `folds` says how many trainings will cut the data, by `Recipe.fold`. Raises `InputError` where it cannot be cut.
    """
    recipe = load(name, overrides, search=search)
    if folds and not _is_cut(recipe.task):
        others = ", ".join(name for name, task in TASKS.items() if _is_cut(task))
        raise InputError(f"--folds {folds}: the task {recipe.task.name} has no folds; those that have: {others}")
    if folds and recipe.data.folds:
        there = f"data.folds = {recipe.data.folds} and data.fold = {recipe.data.fold}"
        raise InputError(f"--folds {folds}: the recipe has {there}; leave them out, every fold is trained")
    if data is not None:
        source = {"source": data}
        if Path(data).expanduser().is_file():
            _check_cut(recipe, data, folds)
            source = {"source": "sample", "train": data}  # the sample never completes data that is given
        update = {"train": None, "valid": None, "test": None, **source}
        recipe = replace(recipe, data=recipe.data.model_copy(update=update))
    return recipe if seed is None else replace(recipe, seed=seed)


def _check_cut(recipe: Recipe, data: str, folds: int) -> None:
    """Raises `ConfigError` unless the one file `data` will be cut into splits."""
    hint = "give a folder, or data.train=FILE data.valid=FILE data.test=FILE"
    cut = _is_cut(recipe.task)
    if "hold_out" in recipe.task.Data.model_fields:
        if folds or recipe.data.hold_out or (cut and recipe.data.folds):
            return
        hint += "; or have it cut: data.hold_out=0.1 (a tenth to validate on, a tenth to test on)"
        hint += " or --folds 5" if cut else ""
    raise ConfigError(f"--data {data}", [f"this is one file, and training needs more than one split; {hint}"])


def _is_cut(task: type[Any]) -> bool:
    """Whether data of this task can be cut into folds."""
    return "folds" in task.Data.model_fields


def read_otherwise(data: Any, overrides: Sequence[str] | Mapping[str, Any], *, source: str) -> Any:
    """A run's [data] with other values of the keys that say how files read, written as in `load`.

    Raises `ConfigError` for any other key, as a trained run has made something of it already.
    """
    allowed = reading_keys(type(data))
    known = ", ".join(f"data.{name}" for name in allowed)
    faults = []
    for text in overrides:
        key, equals, _ = text.partition("=")
        section, _, rest = key.strip().partition(".")
        name = rest.partition(".")[0]
        if not equals and not isinstance(overrides, Mapping):
            faults.append(f"{text!r}: expected KEY=VALUE with a key among {known}; other data is named by --data")
        elif section != "data" or not name or (name in type(data).model_fields and name not in allowed):
            faults.append(f"{key}: fixed in a trained run; only how data reads can change: {known}")
    if faults:
        raise ConfigError(source, faults)
    values = override({"data": data.model_dump()}, overrides, source=source)
    return parse(type(data), values["data"], source=source, prefix="data")


def check(values: Mapping[str, Any], *, name: str, source: str) -> Recipe:
    """Check a recipe's table. Raises `ConfigError` with every fault at once."""
    faults = []
    for key in values:
        if key not in TOP:
            near = difflib.get_close_matches(key, TOP, n=1)
            faults.append(
                f"{key}: unknown key; " + (f"did you mean '{near[0]}'?" if near else f"known: {', '.join(TOP)}")
            )
    kind = values.get("task")
    task = TASKS.get(kind) if isinstance(kind, str) else None
    if task is None:
        near = difflib.get_close_matches(str(kind), TASKS, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        faults.append(f"task: expected one of {', '.join(TASKS)}, got {kind!r}{hint}")
    seed, description = values.get("seed", 1), values.get("description", "")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        faults.append(f"seed: expected a whole number of 0 or more, got {seed!r}")
    if not isinstance(description, str):
        faults.append(f"description: expected a string, got {description!r}")
    schemas = _schemas(values)
    parts: dict[str, Any] = {}
    wrong: list[str] = []  # of the ranges
    for section in ("data", "model", "train", "tune", "expected"):
        table = values.get(section, {})
        if not isinstance(table, Mapping):
            faults.append(f"{section}: expected a table, got {table!r}")
        elif section == "tune":
            parts[section], wrong = read_ranges(table, source=source)
        elif section in schemas and (section != "expected" or table):
            try:
                parts[section] = parse(schemas[section], table, source=source, prefix=section)
            except ConfigError as error:
                faults.extend(error.faults)
    if not faults:
        faults = _unsolved(parts["model"], parts["train"])
    ranges: dict[str, Range] = {}
    if not faults:
        try:
            ranges = _suited(parts["tune"], values, source=source)
        except ConfigError as error:
            faults.extend(error.faults)
    if faults := [*faults, *wrong]:
        raise ConfigError(source, faults)
    assert task is not None
    sections = (parts["data"], parts["model"], parts["train"])
    return Recipe(name, task, seed, description, *sections, parts.get("expected"), ranges)


def _unsolved(model: Any, train: TrainConfig) -> list[str]:
    """The fault of a read-out that is to be solved for and an optimizer that takes steps, or the other way round."""
    needed = 'model.encoder.name = "esn" and model.encoder.readout = "ridge" (tasks ner, sentiment, lm)'
    solved = getattr(getattr(model, "encoder", None), "readout", "softmax") == "ridge"
    given = train.optimizer.name
    if solved and given != "ridge":
        told = 'with model.encoder.readout = "ridge", which has no gradient and is solved for'
        return [f"train.optimizer.name: expected 'ridge' {told}, got '{given}'"]
    if given == "ridge" and not solved:
        return [f"train.optimizer.name: 'ridge' solves for the read-out of an echo state network: it needs {needed}"]
    return []


def _suited(ranges: Mapping[str, Range], values: Mapping[str, Any], *, source: str) -> dict[str, Range]:
    """The ranges of a recipe that is right without them, of whole numbers where the key takes such.

    Raises `ConfigError` for keys that there are not, and for values that they do not take.
    """
    alone = {key: value for key, value in values.items() if key != "tune"}
    faults: dict[str, None] = {}
    found = {}
    for key, tried in ranges.items():
        found[key] = tried
        for value in tried.ends:
            try:
                recipe: Any = check(changed(alone, {key: value}, source=source), name="", source=source)
            except ConfigError as error:
                faults |= dict.fromkeys(
                    f"tune.{fault}" if fault.startswith(f"{key}:") else f"tune.{key}: {fault}" for fault in error.faults
                )
                continue
            for part in key.split("."):
                recipe = recipe.get(part) if isinstance(recipe, Mapping) else getattr(recipe, part)
            if isinstance(recipe, float) and not tried.choices:
                found[key] = tried.real()
    if faults:
        raise ConfigError(source, list(faults))
    return found
