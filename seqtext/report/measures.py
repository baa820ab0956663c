"""The score of each task as a function of sums over examples, for its interval and for the difference of two runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from seqtext.data.labels import spans
from seqtext.metrics.bootstrap import Score
from seqtext.metrics.entities import Counts
from seqtext.metrics.translation import metrics
from seqtext.tasks.memory import FAR, Memory, Prediction

if TYPE_CHECKING:
    from datasets import Dataset

Record = dict[str, Any]


class Measure(NamedTuple):
    """A score over N examples."""

    key: str
    """What `Task.score` calls it."""
    title: str
    statistics: np.ndarray
    """(N, K): what is summed over examples."""
    score: Score
    keys: list[Hashable]
    """(N,): what each example is, to tell whether two runs were scored on the same ones."""
    less: bool = False
    """Whether less is better."""
    factor: float = 1.0
    """What a figure is multiplied by to be shown: 100 for percents."""


def _share(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1]) if sums[1] else 0.0


def entities(task: Any, records: Sequence[Record]) -> list[Measure]:
    scheme = task.scheme
    rows = []
    for record in records:
        gold, found = (set(spans(record[side], scheme)) for side in ("gold", "tags"))
        rows.append((len(gold), len(found), len(gold & found)))
    keys: list[Hashable] = [(*record["tokens"], *record["gold"]) for record in records]
    score: Score = lambda sums: Counts(*sums.tolist()).f1  # noqa: E731
    return [Measure("f1", "entity F1, %", np.array(rows, float).reshape(-1, 3), score, keys, factor=100.0)]


def labels(task: Any, records: Sequence[Record]) -> list[Measure]:
    known = [record for record in records if record.get("gold")]
    rows = [(record["label"] == record["gold"], 1) for record in known]
    keys: list[Hashable] = [(record.get("text") or " ".join(record["tokens"]), record["gold"]) for record in known]
    names = ("accuracy", "accuracy, %") if task.name == "sentiment" else ("root", "accuracy at roots, %")
    return [Measure(*names, np.array(rows, float).reshape(-1, 2), _share, keys, factor=100.0)]


def language(task: Any, records: Sequence[Record]) -> list[Measure]:
    rows = [(-record["log_probability"], record["tokens"]) for record in records]
    keys: list[Hashable] = [(record["text"], record["tokens"]) for record in records]

    def perplexity(sums: np.ndarray) -> float:
        return math.exp(min(sums[0] / sums[1], 700.0)) if sums[1] else math.nan

    return [Measure("perplexity", "perplexity", np.array(rows, float).reshape(-1, 2), perplexity, keys, less=True)]


def translations(task: Any, records: Sequence[Record]) -> list[Measure]:
    ours = [record.get("translation", "") for record in records]
    gold = [record["reference"]["text"] for record in records]
    keys: list[Hashable] = [(record["source"], text) for record, text in zip(records, gold)]
    found = []
    for name, metric in metrics().items():
        if name in ("bleu", "chrf2"):
            rows = np.array(metric._extract_corpus_statistics(ours, [gold]), float)

            def score(sums: np.ndarray, metric: Any = metric) -> float:
                return float(metric._compute_score_from_stats(sums.tolist()).score)

            found.append(Measure(name, {"bleu": "BLEU", "chrf2": "chrF2"}[name], rows, score, keys))
    return found


def memories(task: Memory, records: Sequence[Record]) -> list[Measure]:
    right, distances = task.right(*remembered(task, records))
    far, counts = distances >= FAR, [len(record["gold"]) for record in records]
    every = np.stack([right, np.ones(len(right)), right & far, far], axis=1).astype(float)
    rows = np.array([part.sum(0) for part in np.split(every, np.cumsum(counts)[:-1])])
    whole = np.stack([rows[:, 0] == rows[:, 1], np.ones(len(rows))], axis=1).astype(float)
    keys: list[Hashable] = [record["text"] for record in records]
    found = [
        Measure("accuracy", "answers right, %", rows[:, :2], _share, keys, factor=100.0),
        Measure("far_accuracy", f"{FAR} steps back or more, %", rows[:, 2:], _share, keys, factor=100.0),
        Measure("whole", "sequences all right, %", whole, _share, keys, factor=100.0),
    ]
    needed = {"accuracy": True, "far_accuracy": far.any(), "whole": len(right) > len(records)}
    return [one for one in found if needed[one.key]]


def remembered(task: Memory, records: Sequence[Record]) -> tuple[list[Prediction], Dataset]:
    """Records of the task memory as what its methods take."""
    from datasets import Dataset

    predictions, rows = [], []
    for record in records:
        given = record["answers"] if task.names else map(float, record["answers"])
        predictions.append(Prediction(tuple(given), tuple(record.get("probabilities", ()))))
        words = record["text"].split()
        asked = {"positions": record["positions"], "distances": task.job.ask(words).distances}
        rows.append({"tokens": words, "answers": record["gold"], **asked})
    return predictions, Dataset.from_list(rows)


MEASURES: dict[str, Callable[[Any, Sequence[Record]], list[Measure]]] = {
    "ner": entities,
    "sentiment": labels,
    "tree-sentiment": labels,
    "lm": language,
    "translation": translations,
    "memory": memories,
}


def measures(task: Any, records: Sequence[Record]) -> list[Measure]:
    """The scores that can be resampled; none where nothing was predicted, or has no gold answer."""
    return [one for one in MEASURES[task.name](task, records) if len(one.statistics)] if records else []


def cut(one: Measure, other: Measure) -> tuple[Measure, Measure]:
    """Both over the examples that both have, where those of one are the first of the other's."""
    count = min(len(one.keys), len(other.keys))
    if one.keys[:count] != other.keys[:count]:
        return one, other
    first, second = (each._replace(statistics=each.statistics[:count], keys=each.keys[:count]) for each in (one, other))
    return first, second


def same_examples(one: Measure, other: Measure) -> str | None:
    """Why two runs cannot be compared example by example, if they cannot."""
    if len(one.keys) != len(other.keys):
        return f"they were scored on {len(one.keys):,} and {len(other.keys):,} examples"
    differing = [number for number, pair in enumerate(zip(one.keys, other.keys), start=1) if pair[0] != pair[1]]
    if not differing:
        return None
    count = "1 example" if len(differing) == 1 else f"{len(differing):,} examples"
    what = "are not the same, or are not cut into the same tokens"
    return f"{count} of {len(one.keys):,} {what}, the first is number {differing[0]:,}"
