"""Two models of one run side by side: the size of their weights, their speed and their scores, by the real predict."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from seqtext import session
from seqtext.data.sources import Split
from seqtext.errors import DataError
from seqtext.model import Model
from seqtext.task import DrawingTask

if TYPE_CHECKING:
    from datasets import Dataset

BULK, SINGLE = 512, 64
"""Texts that are predicted together, and one at a time, at most."""
ROUNDS, SECONDS = 3, 2.0
"""Of each measurement: repeats of both models in turn, at least, and the time after which there are no more."""


class Measured(NamedTuple):
    """One of the two."""

    bytes: int
    """Of its file of weights."""
    bulk: float | None
    """Texts a second, many of them together."""
    single: float | None
    """Milliseconds that one text takes by itself, the median."""
    scores: dict[str, float]
    """Of the split that both were scored on."""


class Comparison(NamedTuple):
    """What changed."""

    before: Measured
    after: Measured
    goal: str
    """The score that counts."""
    split: Split | None
    """What both were scored on; None where none of the run's own data is there any more."""
    examples: int
    lacking: str
    """Why nothing was scored and timed, where nothing was."""


def compare(before: Model, after: Model) -> Comparison:
    """Measure both on the test split of the run's own data, else on its valid split; timings take turns."""
    sizes = [(model.run.folder / "model.safetensors").stat().st_size for model in (before, after)]
    goal = before.task.goal.key
    lacking = ""
    splits: tuple[Split, ...] = ("test", "valid")
    for split in splits:
        try:
            dataset = before.task.read(before.run.recipe.data, split)
        except DataError as error:
            lacking = lacking or str(error)
            continue
        scores = [_scores(model, dataset, split) for model in (before, after)]
        bulk, single = _speeds(before, after, dataset)
        both = [Measured(*row) for row in zip(sizes, bulk, single, scores)]
        return Comparison(both[0], both[1], goal, split, len(dataset), "")
    first, second = (Measured(size, None, None, {}) for size in sizes)
    return Comparison(first, second, goal, None, 0, lacking)


def _scores(model: Model, dataset: Dataset, split: Split) -> dict[str, float]:
    encoded = session.encode(model.task, model.run.recipe.data, split, dataset)
    return model.task.score(model.predict_encoded(encoded), dataset)


def _speeds(before: Model, after: Model, dataset: Dataset) -> tuple[list[float | None], list[float | None]]:
    """Of both: texts a second in bulk, milliseconds of one by itself; None where there is no text."""
    texts, prepare = _texts(before, dataset)
    if not texts:
        return [None, None], [None, None]

    def calls(some: Sequence[str]) -> list[Callable[[], Any]]:
        return [partial(_predict, model, prepare, some) for model in (before, after)]

    bulk = _turns(calls(texts))
    alone: list[list[float]] = [[], []]
    for text in texts[:SINGLE]:
        for taken, seconds in zip(alone, _turns(calls([text]), limit=SECONDS / SINGLE)):
            taken.append(1000.0 * seconds)
    return [len(texts) / seconds for seconds in bulk], [statistics.median(taken) for taken in alone]


def _predict(model: Model, prepare: Callable[[str], Any], texts: Sequence[str]) -> list[Any]:
    conditioned = getattr(model.module, "conditioning", None) is not None
    label = {"label": model.task.names[0]} if conditioned else {}  # type: ignore[attr-defined]
    return model.predict_prepared([prepare(text) for text in texts], **label)


def _texts(model: Model, dataset: Dataset) -> tuple[list[str], Callable[[str], Any]]:
    """Some raw texts of a split, and how the task reads one."""
    column = next(name for name in ("source", "text", "tokens") if name in dataset.column_names)
    found = dataset.select(range(min(len(dataset), 4 * BULK)))[column]
    texts = [text if isinstance(text, str) else " ".join(text) for text in found]
    options: dict[str, Any] = {"pretokenized": True} if column == "tokens" else {}
    if isinstance(model.task, DrawingTask):
        options["trees"] = False  # a sentence may begin with a bracket
    return [text for text in texts if text.strip()][:BULK], partial(model.task.prepare, **options)


def _turns(calls: Sequence[Callable[[], Any]], *, limit: float = SECONDS) -> list[float]:
    """The median seconds of each call, by turns, after one that does not count."""
    taken: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    end = time.perf_counter() + limit
    while len(taken[0]) < ROUNDS or time.perf_counter() < end:
        for call, seconds in zip(calls, taken):
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in taken]
