"""Scores of a classifier that names one class a text and gives every class a probability.

Accuracy; precision, recall and F1 of each class with their plain (macro) and support-weighted means; the confusion
matrix; the log-loss; and the expected calibration error of Guo et al. 2017, "On Calibration of Modern Neural
Networks", eq. 5: how far the probability of the predicted class is from how often that prediction is right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from seqtext.metrics.entities import Counts

BINS = 15
"""Equal-width bins of the calibration error, as in the paper."""
SMALLEST = 1e-15
"""Probabilities below this count as this in the log-loss, which is infinite for a gold class of probability 0."""


class Row(NamedTuple):
    """One line of the table: fractions from 0 to 1, then numbers of examples."""

    name: str
    precision: float
    recall: float
    f1: float
    gold: int
    predicted: int
    correct: int


@dataclass(frozen=True)
class Classification:
    """The scores of N examples over C classes; fractions from 0 to 1.

    `macro_f1` is the mean F1 of the classes that are in the gold or the predicted labels, `weighted_f1` the mean over
    gold examples. `confusion[i][j]` counts the examples of class i that were taken for class j, by their place in
    `labels`. `log_loss` is in nats, `ece` over `BINS` bins.
    """

    labels: tuple[str, ...]
    classes: Mapping[str, Counts]
    confusion: tuple[tuple[int, ...], ...]
    accuracy: float
    macro_f1: float
    weighted_f1: float
    log_loss: float
    ece: float

    @property
    def settings(self) -> str:
        """What the scores are, to print beside them."""
        return f"accuracy; log-loss in nats; top-label calibration error over {BINS} equal-width bins"

    def flat(self) -> dict[str, float]:
        """Every score by name, for metrics files: `accuracy`, `macro_f1`, `f1/positive`, ..."""
        names = ("accuracy", "macro_f1", "weighted_f1", "log_loss", "ece")
        return {name: getattr(self, name) for name in names} | {
            f"f1/{label}": counts.f1 for label, counts in self.classes.items()
        }

    def table(self) -> list[Row]:
        """A row a class, in the order of `labels`."""
        return [
            Row(label, counts.precision, counts.recall, counts.f1, *counts) for label, counts in self.classes.items()
        ]


def score(
    gold: Sequence[str], predicted: Sequence[str], probabilities: np.ndarray, labels: Sequence[str]
) -> Classification:
    """Score predictions for N examples; `probabilities` is (N, C), its columns in the order of `labels` (C,).

    Raises `ValueError` where there is no example, lengths differ, or a label is not one of `labels`.
    """
    chances = np.asarray(probabilities, dtype=np.float64)
    if chances.shape != (len(gold), len(labels)) or len(gold) != len(predicted):
        shape = f"{len(gold)} gold labels, {len(predicted)} predicted, {len(labels)} classes"
        raise ValueError(f"{shape}, but probabilities of shape {chances.shape}")
    if not len(gold):
        raise ValueError("no example to score")
    places = {label: place for place, label in enumerate(labels)}
    unknown = sorted({*gold, *predicted} - places.keys())
    if unknown:
        raise ValueError(f"label {unknown[0]!r} is not one of {', '.join(labels)}")
    true, found = (np.array([places[label] for label in side], dtype=np.int64) for side in (gold, predicted))
    size = len(labels)
    confusion = np.bincount(true * size + found, minlength=size * size).reshape(size, size)
    columns = (confusion.sum(1).tolist(), confusion.sum(0).tolist(), confusion.diagonal().tolist())
    classes = {label: Counts(*counts) for label, *counts in zip(labels, *columns)}
    present = [counts for counts in classes.values() if counts.gold or counts.predicted]
    rows = np.arange(len(gold))
    return Classification(
        labels=tuple(labels),
        classes=classes,
        confusion=tuple(map(tuple, confusion.tolist())),
        accuracy=float((true == found).mean()),
        macro_f1=sum(counts.f1 for counts in present) / len(present),
        weighted_f1=sum(counts.f1 * counts.gold for counts in present) / len(gold),
        log_loss=float(-np.log(np.maximum(chances[rows, true], SMALLEST)).mean()),
        ece=calibration_error(chances[rows, found], true == found),
    )


def calibration_error(confidence: np.ndarray, correct: np.ndarray, *, bins: int = BINS) -> float:
    """Expected calibration error of N predictions, from their probabilities (N,) and whether they are right (N,).

    Bin m holds the confidences in ((m - 1) / bins, m / bins]; the error is the mean over examples of the difference
    between their bin's accuracy and its mean confidence.
    """
    edges = np.linspace(0.0, 1.0, bins + 1)
    where = np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, bins - 1)  # (N,)
    # A bin's size times the difference of its means is the difference of its sums.
    gaps = np.bincount(where, weights=np.asarray(correct, np.float64) - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(where))
