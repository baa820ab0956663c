"""The score of each task as a function of sums over examples, for its interval and for the difference of two runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import numpy as np

from seqtext.data.labels import spans
from seqtext.metrics.bootstrap import Score
from seqtext.metrics.entities import Counts
from seqtext.metrics.translation import metrics
from seqtext.report.held import Held

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


def entities(held: Held) -> list[Measure]:
    scheme = held.run.task.scheme  # type: ignore[attr-defined]
    rows = []
    for record in held.records:
        gold, found = (set(spans(record[side], scheme)) for side in ("gold", "tags"))
        rows.append((len(gold), len(found), len(gold & found)))
    keys: list[Hashable] = [(*record["tokens"], *record["gold"]) for record in held.records]
    score: Score = lambda sums: Counts(*sums.tolist()).f1  # noqa: E731
    return [Measure("f1", "entity F1, %", np.array(rows, float).reshape(-1, 3), score, keys, factor=100.0)]


def labels(held: Held) -> list[Measure]:
    known = [record for record in held.records if record.get("gold")]
    rows = [(record["label"] == record["gold"], 1) for record in known]
    keys: list[Hashable] = [(record.get("text") or " ".join(record["tokens"]), record["gold"]) for record in known]
    names = ("accuracy", "accuracy, %") if held.task == "sentiment" else ("root", "accuracy at roots, %")
    return [Measure(*names, np.array(rows, float).reshape(-1, 2), _share, keys, factor=100.0)]


def language(held: Held) -> list[Measure]:
    rows = [(-record["log_probability"], record["tokens"]) for record in held.records]
    keys: list[Hashable] = [(record["text"], record["tokens"]) for record in held.records]

    def perplexity(sums: np.ndarray) -> float:
        return math.exp(min(sums[0] / sums[1], 700.0)) if sums[1] else math.nan

    return [Measure("perplexity", "perplexity", np.array(rows, float).reshape(-1, 2), perplexity, keys, less=True)]


def translations(held: Held) -> list[Measure]:
    ours = [record.get("translation", "") for record in held.records]
    gold = [record["reference"]["text"] for record in held.records]
    keys: list[Hashable] = [(record["source"], text) for record, text in zip(held.records, gold)]
    found = []
    for name, metric in metrics().items():
        if name in ("bleu", "chrf2"):
            rows = np.array(metric._extract_corpus_statistics(ours, [gold]), float)

            def score(sums: np.ndarray, metric: Any = metric) -> float:
                return float(metric._compute_score_from_stats(sums.tolist()).score)

            found.append(Measure(name, {"bleu": "BLEU", "chrf2": "chrF2"}[name], rows, score, keys))
    return found


MEASURES: dict[str, Callable[[Held], list[Measure]]] = {
    "ner": entities,
    "sentiment": labels,
    "tree-sentiment": labels,
    "lm": language,
    "translation": translations,
}


def measures(held: Held) -> list[Measure]:
    """The scores of a run that can be resampled; none where nothing was predicted, or has no gold answer."""
    return [one for one in MEASURES[held.task](held) if len(one.statistics)] if held.records else []


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
