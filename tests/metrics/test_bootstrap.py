"""Paired bootstrap resampling against sacreBLEU's own, and on systems that are clearly better, alike and the same."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from sacrebleu.metrics import BLEU, CHRF, TER
from sacrebleu.significance import PairedTest

from seqtext.metrics.bootstrap import compare, interval, paired, resamples
from seqtext.metrics.translation import quality

WORDS = ["ein", "Mann", "sieht", "den", "Hund", "auf", "der", "Straße", "vor", "Haus", "und", "läuft", ",", "weil"]


def corpus(*chances, lines=150):
    """References, and systems that each have that share of the words wrong."""
    rng = random.Random(1)
    references = [" ".join(rng.choices(WORDS, k=rng.randint(4, 14))) for _ in range(lines)]
    systems = [
        [" ".join(rng.choice(WORDS) if rng.random() < chance else word for word in line.split()) for line in references]
        for chance in chances
    ]
    return references, *systems


@pytest.mark.parametrize("references", [1, 2])
def test_equal_to_sacrebleu(references, monkeypatch):
    reference, baseline, system, other = corpus(0.35, 0.31, 0.5)
    streams = [reference, other][:references]
    monkeypatch.setenv("SACREBLEU_SEED", "7")
    metrics = {"BLEU": BLEU(force=True), "chrF2": CHRF(), "TER": TER()}
    test = PairedTest([("a", baseline), ("b", system)], metrics, streams, test_type="bs", n_samples=200)
    signatures, theirs = test()
    found = compare(baseline, system, *streams, samples=200, seed=7)
    assert [row.metric for row in found] == list(metrics)
    for row in found:
        before, after = theirs[row.metric]
        assert (row.baseline, row.system) == (pytest.approx(before.score), pytest.approx(after.score))
        assert row.p == after.p_value
        # Both systems' means are over the same resamples; sacreBLEU sums in float32.
        assert row.mean == pytest.approx(float(after.mean) - float(before.mean), abs=1e-3)
        assert row.signature == str(signatures[row.metric])
    assert any(0.01 < row.p < 0.5 for row in found)  # p-values that say something


def test_a_system_that_is_clearly_better():
    reference, baseline, system = corpus(0.5, 0.2)
    for row, worse in zip(compare(baseline, system, reference), compare(system, baseline, reference)):
        sign = -1 if row.metric == "TER" else 1
        assert row.p == worse.p == 1 / 1001
        assert (row.wins, worse.wins) == (1, 0)
        assert sign * row.low > 0 and sign * row.high > 0
        assert row.low < row.difference < row.high and row.low < row.mean < row.high
        assert (worse.low, worse.high) == (pytest.approx(-row.high), pytest.approx(-row.low))
        assert "|bs:1000|seed:12345|" in row.signature
    scores = quality(system, reference)
    assert [row.system for row in compare(baseline, system, reference, samples=1)] == (
        pytest.approx([scores.bleu, scores.chrf2, scores.ter])
    )


def test_systems_that_are_equally_good():
    reference, one, other = corpus(0.2, 0.4)
    # Each is the better one on one half of the same lines. Were d normal, p would be P(|z| > mean |z|), or 0.425.
    for row in compare(one + other, other + one, reference + reference):
        assert row.difference == pytest.approx(0, abs=1e-9)
        assert row.p == pytest.approx(0.425, abs=0.05)
        assert row.low < 0 < row.high
        assert row.wins == pytest.approx(0.5, abs=0.05)


def test_a_system_is_not_better_than_itself():
    reference, system = corpus(0.3)
    for row in compare(system, list(system), reference, samples=50):
        assert (row.p, row.difference, row.low, row.high, row.wins) == (1, 0, 0, 0, 0)


def test_the_interval_holds_95_percent():
    reference, baseline, system = corpus(0.35, 0.3, lines=40)
    (narrow, *_), (wide, *_) = (compare(baseline, system, reference, samples=count, seed=3) for count in (200, 39))
    assert narrow.low < narrow.mean < narrow.high
    # By the definition: resample, score, and take the middle 95%. Of 39 all are within.
    rng = np.random.default_rng(3)
    differences = []
    for _ in range(200):
        rows = rng.choice(40, size=40)
        drawn = [[lines[row] for row in rows] for lines in (baseline, system, reference)]
        before, after = (BLEU(force=True).corpus_score(lines, [drawn[2]]).score for lines in drawn[:2])
        differences.append(after - before)
    assert narrow.mean == pytest.approx(np.mean(differences))
    assert (narrow.low, narrow.high) == (
        pytest.approx(sorted(differences)[5]),
        pytest.approx(sorted(differences)[-6]),
    )
    assert narrow.wins == np.mean(np.array(differences) > 0)
    assert (wide.low, wide.high) == (pytest.approx(min(differences[:39])), pytest.approx(max(differences[:39])))


def test_the_seed_decides():
    reference, baseline, system = corpus(0.35, 0.3, lines=40)
    runs = [compare(baseline, system, reference, samples=50, seed=seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1]
    assert runs[0][0].mean != runs[2][0].mean


def test_refused():
    with pytest.raises(ValueError, match=r"^2 translations of the system, but 1 of the baseline$"):
        compare(["a"], ["a", "b"], ["a"])
    with pytest.raises(ValueError, match=r"^2 references, but 1 hypotheses$"):
        compare(["a"], ["a"], ["a", "b"])
    with pytest.raises(ValueError, match=r"^nothing to score: no hypotheses$"):
        compare([], [], [])
    with pytest.raises(ValueError, match=r"^samples 0: expected 1 or more$"):
        compare(["a"], ["a"], ["a"], samples=0)


def test_any_score_of_sums_is_resampled_as_translations_are():
    from seqtext.metrics.translation import metrics

    baseline, system = (
        ["a cat sat", "the dog", "no", "x y z w v", "one two"] * 4,
        ["a cat sat", "a dog", "no"] * 6 + ["x"] * 2,
    )
    references = ["a cat sat", "the dog", "yes", "x y z", "one"] * 4
    (bleu, *_), metric = compare(baseline, system, references, samples=200), metrics()["bleu"]
    rows = [np.array(metric._extract_corpus_statistics(lines, [references]), float) for lines in (baseline, system)]

    def score(sums):
        return metric._compute_score_from_stats(sums.tolist()).score

    found = paired(*rows, score, samples=200)
    assert found[:3] == pytest.approx((bleu.difference, bleu.low, bleu.high))
    ties = [score(weights @ rows[1]) == score(weights @ rows[0]) for weights in resamples(20, 200, 12345)]
    assert found.wins == pytest.approx(bleu.wins + np.mean(ties) / 2)
    alone = interval(rows[0], score, samples=200)
    assert alone.score == pytest.approx(bleu.baseline) and alone.low < alone.score < alone.high
    # Of a mean, the interval is that of the normal distribution where there are many examples.
    values = np.random.default_rng(1).normal(size=(4000, 1))
    mean = interval(values, lambda sums: float(sums[0]) / 4000)
    spread = 1.96 * values.std() / 4000**0.5
    assert (mean.low, mean.high) == pytest.approx((values.mean() - spread, values.mean() + spread), abs=0.1 * spread)
    with pytest.raises(ValueError, match="no examples"):
        interval(values[:0], score)


@pytest.mark.parametrize("shift", [0.0, 0.02, 0.05, 0.08, 0.1, 0.15, 0.3, -0.1])
@pytest.mark.parametrize("seed", range(4))
def test_the_p_value_says_what_the_interval_says(shift, seed):
    """And for a mean it is that of the normal distribution."""
    generator = np.random.default_rng(seed)
    baseline = generator.normal(size=(400, 1))
    system = baseline + generator.normal(loc=shift, size=(400, 1))
    found = paired(baseline, system, lambda sums: float(sums[0]) / 400, samples=1000)
    if not 0.03 < found.p < 0.07:
        assert (found.p < 0.05) == (not found.low <= 0.0 <= found.high)
    differences = (system - baseline)[:, 0]
    z = abs(differences.mean()) / (differences.std() / 400**0.5)
    assert found.p == pytest.approx(math.erfc(z / 2**0.5), abs=0.06)


def test_two_that_never_differ():
    same = np.ones((5, 1))
    assert paired(same, same, lambda sums: float(sums[0])) == (0.0, 0.0, 0.0, 1.0, 0.5)
