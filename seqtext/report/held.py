"""What a run folder holds for a report: its facts, how training went, and what it predicts of its validation split."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from seqtext import run as runs
from seqtext.errors import DataError, RunError
from seqtext.model import Model, load
from seqtext.run import Run
from seqtext.session import encode

NEEDED = {
    "ner": ("tokens", "gold", "tags"),
    "sentiment": ("text", "gold", "label", "probabilities"),
    "tree-sentiment": ("tokens", "gold", "nodes", "label"),
    "lm": ("text", "log_probability", "perplexity", "tokens", "unknown"),
    "translation": ("source", "reference"),
    "memory": ("text", "positions", "gold", "answers"),
}
"""What the records of each task must have; those of an older version may not."""
TESTED = "predictions.test.jsonl"


@dataclass(frozen=True)
class Held:
    """A run, as a report reads it."""

    run: Run
    name: str
    """What it is called among the others."""
    log: list[dict[str, Any]]
    """The lines of metrics.jsonl."""
    records: list[dict[str, Any]]
    """Examples of the validation split with their predictions, in its order, as `Task.record` has them."""
    tested: list[dict[str, Any]]
    """The same of the test split, where training had one; none of runs of an older version, and of exports."""
    about: str
    """Where `records` are from, and how many there are."""
    device: str

    @property
    def task(self) -> str:
        return self.run.task.name

    @cached_property
    def model(self) -> Model:
        """The run, loaded: for what no file of it tells."""
        return load(self.run.folder, device=self.device)

    def kind(self, *kinds: str) -> list[dict[str, Any]]:
        """The lines of the log of these kinds."""
        return [line for line in self.log if line.get("kind") in kinds]


def hold(folder: str | Path, *, name: str, limit: int, device: str) -> Held:
    """Read a run folder; where it holds no predictions, predict the first `limit` examples of its validation split.

    Raises `RunError` for a folder that is no run or is damaged.
    """
    run = runs.open_run(folder)
    log = _lines(run.folder / "metrics.jsonl", cut=True) if (run.folder / "metrics.jsonl").exists() else []
    file = run.folder / "predictions.valid.jsonl"
    records, tested = ([] if not one.exists() else _lines(one) for one in (file, file.with_name(TESTED)))
    about = f"All {len(records):,} examples of the validation split, as {file.name} has them."
    if not records or not all(_reads(run.task.name, record) for record in records):
        why = "" if not records else f"{file.name} is not of this version of seqtext. "
        records, about = _predicted(run, limit, device)
        about = why + about
    tested = tested if all(_reads(run.task.name, record) for record in tested) else []
    return Held(run, name, log, records, tested, about, device)


def _reads(task: str, record: dict[str, Any]) -> bool:
    """Whether a record has what its task's sections read."""
    if not set(NEEDED[task]) <= record.keys():
        return False
    return task != "tree-sentiment" or all("children" in node for node in record["nodes"])


def _predicted(run: Run, limit: int, device: str) -> tuple[list[dict[str, Any]], str]:
    try:
        dataset = run.task.read(run.recipe.data, "valid")
    except DataError as error:
        return [], f"The run holds no predictions, and its validation data is not to be read: {error}"
    chosen = dataset.select(range(min(limit, len(dataset))))
    model = load(run.folder, device=device)
    predictions = model.predict_encoded(encode(model.task, run.recipe.data, "valid", chosen))
    records = [model.task.record(*pair) for pair in zip(chosen, predictions)]
    return records, f"The first {len(records):,} of {len(dataset):,} examples of the validation split, predicted anew."


def _lines(path: Path, *, cut: bool = False) -> list[dict[str, Any]]:
    """The objects of a file; with `cut`, a last line that a kill cut off is left out."""
    found = []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # and not where a text itself has other ends of lines
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: damaged, not the text that a run holds ({error})") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError:
            value = None
        if isinstance(value, dict):
            found.append(value)
        elif not (cut and number == len(lines)):
            raise RunError(f"{path}:{number}: damaged, not the JSON line that a run holds")
    return found
