"""How far a score can be trusted, and whether one system is better than another: bootstrap resampling.

Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation", section 4: draw as many lines as there
are, with replacement, score both systems on them, and do so many times over. The lines drawn, the scores and the
p-value are those of sacreBLEU's `--paired-bs`: with D the systems' difference on all lines and d_i that on the i-th of
N resamples, p = (1 + #{i: |d_i| - mean |d| > |D|}) / (N + 1). Where D is clear that is one-sided. The resampling is
done here because sacreBLEU gives the spread of each system's score, and what tells is that of their difference.

`interval` and `paired` do the same for any score that is a function of sums over examples. Intervals are those between
percentiles of the resamples (Efron & Tibshirani 1993, "An Introduction to the Bootstrap", section 13.3), and the
p-value of `paired` is two-sided and says what its interval says: it is below 0.05 where that does not hold 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from seqtext.metrics.translation import TITLES, check_lengths, metrics

COMPARED = ("bleu", "chrf2", "ter")
SEED = 12345
"""That of sacreBLEU's command."""


class Difference(NamedTuple):
    """Two systems by one metric: scores on all lines, and how their difference, system - baseline, varies.

    `low` to `high` is the 95% interval of the difference over the resamples, `mean` its mean, and `wins` the share of
    the resamples on which the system is the better one, by which Koehn judges. For TER, less is better.
    """

    metric: str
    baseline: float
    system: float
    mean: float
    low: float
    high: float
    p: float
    wins: float
    signature: str

    @property
    def difference(self) -> float:
        """On all lines: system - baseline."""
        return self.system - self.baseline


class Interval(NamedTuple):
    """A score of all examples, and the 95% interval of the resamples' scores."""

    score: float
    low: float
    high: float


class Paired(NamedTuple):
    """As `Difference`, of one score of two systems: system - baseline. A tie is half a win."""

    difference: float
    low: float
    high: float
    p: float
    wins: float


Score = Callable[[np.ndarray], float]
"""A score, of sums (K,) over examples."""


def interval(statistics: np.ndarray, score: Score, *, samples: int = 1000, seed: int = SEED) -> Interval:
    """How a score of N examples varies; statistics (N, K), of which it needs the sums over examples.

    Raises `ValueError` where there is no example.
    """
    _check(statistics)
    drawn = np.array([score(weights @ statistics) for weights in resamples(len(statistics), samples, seed)])
    return Interval(score(statistics.sum(0)), *_middle(drawn))


def paired(
    baseline: np.ndarray,
    system: np.ndarray,
    score: Score,
    *,
    less: bool = False,
    samples: int = 1000,
    seed: int = SEED,
) -> Paired:
    """How much better a system is than a baseline on the same N examples; statistics (N, K) of either.

    Where `less` is better, `wins` counts resamples with the smaller score. Raises `ValueError` where there is no
    example, or one has more than the other.
    """
    _check(baseline)
    if baseline.shape != system.shape:
        raise ValueError(f"statistics of {baseline.shape} and {system.shape}: not of the same examples")
    weighted = resamples(len(baseline), samples, seed)
    differences = np.array([score(weights @ system) - score(weights @ baseline) for weights in weighted])
    whole = score(system.sum(0)) - score(baseline.sum(0))
    below, above = float((differences < 0).mean()), float((differences > 0).mean())
    even = 1.0 - below - above
    p = min(1.0, 2.0 * (min(below, above) + even + 1.0 / (samples + 1)))
    return Paired(whole, *_middle(differences), p, (below if less else above) + even / 2.0)


def _check(statistics: np.ndarray) -> None:
    if not len(statistics):
        raise ValueError("nothing to draw from: no examples")


def _middle(values: np.ndarray) -> tuple[float, float]:
    """The ends of the middle 95% of values (samples,)."""
    samples = len(values)
    low, high = np.sort(values)[[samples // 40, samples - samples // 40 - 1]].tolist()
    return low, high


def compare(
    baseline: Sequence[str],
    system: Sequence[str],
    *references: Sequence[str],
    samples: int = 1000,
    seed: int = SEED,
) -> list[Difference]:
    """Compare a system's translations with a baseline's by BLEU, chrF2 and TER.

    The same seed gives the same figures. They mean little for less than some hundred lines, which do not vary enough
    to stand for others. Raises `ValueError` where there are no lines, numbers of lines differ, or `samples` is below 1.
    """
    check_lengths(baseline, *references)
    if len(system) != len(baseline):
        raise ValueError(f"{len(system):,} translations of the system, but {len(baseline):,} of the baseline")
    if samples < 1:
        raise ValueError(f"samples {samples}: expected 1 or more")
    chosen = {name: metric for name, metric in metrics().items() if name in COMPARED}
    # Sums over lines of (lines, 2, K) statistics are all that a metric's score depends on.
    statistics = [
        np.stack([metric._extract_corpus_statistics(lines, references) for lines in (baseline, system)], axis=1)
        for metric in chosen.values()
    ]

    def scores(weights: np.ndarray) -> list[list[float]]:
        """[metric][baseline, system], each line counted as often as `weights` (lines,) has it."""
        return [
            [metric._compute_score_from_stats(row).score for row in np.tensordot(weights, counts, 1).tolist()]
            for metric, counts in zip(chosen.values(), statistics)
        ]

    whole = scores(np.ones(len(baseline)))
    drawn = np.array([scores(weights) for weights in resamples(len(baseline), samples, seed)])  # (samples, metrics, 2)
    found = []
    for number, (name, metric) in enumerate(chosen.items()):
        before, after = whole[number]
        signature = metric.get_signature()
        signature.update("seed", seed)
        signature.update("bs", samples)
        differences = drawn[:, number, 1] - drawn[:, number, 0]
        low, high = _middle(differences)
        found.append(
            Difference(
                TITLES[name],
                baseline=before,
                system=after,
                mean=float(differences.mean()),
                low=low,
                high=high,
                p=_p_value(differences, after - before),
                wins=float(((differences < 0) if name == "ter" else (differences > 0)).mean()),
                signature=str(signature),
            )
        )
    return found


def resamples(lines: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each line is in each resample, (lines,) at a time; line by line those that sacreBLEU draws."""
    generator = np.random.default_rng(seed)
    for _ in range(samples):
        yield np.bincount(generator.choice(lines, size=lines), minlength=lines)


def _p_value(differences: np.ndarray, whole: float) -> float:
    sizes = np.abs(differences)
    if not sizes.any() and not whole:
        return 1.0  # The formula below has 1 / (N + 1) here: that two systems that never differ certainly do.
    return (1 + int((sizes - sizes.mean() > abs(whole)).sum())) / (len(sizes) + 1)
