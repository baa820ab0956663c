"""Classification scores against their definitions written out example by example, and cases worked by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.metrics.classification import calibration_error, score

LABELS = ["c", "a", "b d", "e"]
CASES = st.lists(
    st.tuples(
        st.sampled_from(LABELS[:3]),
        st.lists(st.sampled_from([0.0, 0.01, 0.2, 1 / 3, 0.4, 0.6, 0.8, 1.0]), min_size=4, max_size=4).filter(any),
    ),
    min_size=1,
    max_size=12,
)


def by_definition(gold, predicted, chances):
    """Every score in plain loops, from the definitions."""
    total = len(gold)
    f1, support = {}, {}
    for label in LABELS:
        right = sum(g == p == label for g, p in zip(gold, predicted))
        precision = right / predicted.count(label) if label in predicted else 0.0
        recall = right / gold.count(label) if label in gold else 0.0
        f1[label] = 2 * precision * recall / (precision + recall) if right else 0.0
        support[label] = gold.count(label)
    met = [label for label in LABELS if label in gold or label in predicted]
    error = 0.0
    for number in range(1, 16):
        inside = []
        for g, p, row in zip(gold, predicted, chances):
            confidence = row[LABELS.index(p)]
            # The first bin takes 0 as well; it cannot be the probability of a best class.
            if (number - 1) / 15 < confidence <= number / 15:
                inside.append((g == p, confidence))
        if inside:
            accuracy, confidence = (sum(column) / len(inside) for column in zip(*inside))
            error += len(inside) / total * abs(accuracy - confidence)
    return {
        "accuracy": sum(g == p for g, p in zip(gold, predicted)) / total,
        "macro_f1": sum(f1[label] for label in met) / len(met),
        "weighted_f1": sum(f1[label] * support[label] for label in LABELS) / total,
        "log_loss": -sum(math.log(max(row[LABELS.index(g)], 1e-15)) for g, row in zip(gold, chances)) / total,
        "ece": error,
        **{f"f1/{label}": f1[label] for label in LABELS},
    }


@given(CASES)
def test_equals_the_definitions(cases):
    gold = [label for label, _ in cases]
    chances = np.array([np.array(row) / sum(row) for _, row in cases])
    predicted = [LABELS[place] for place in chances.argmax(1)]
    found = score(gold, predicted, chances, LABELS)
    assert found.flat() == pytest.approx(by_definition(gold, predicted, chances.tolist()))
    assert list(found.flat()) == list(by_definition(gold, predicted, chances.tolist()))
    for i, row in enumerate(found.confusion):
        for j, count in enumerate(row):
            assert count == sum((g, p) == (LABELS[i], LABELS[j]) for g, p in zip(gold, predicted))


def test_by_hand():
    gold = ["neg", "neg", "neg", "pos"]
    predicted = ["neg", "neg", "pos", "pos"]
    chances = [[0.9, 0.1], [0.5, 0.5], [0.22, 0.78], [0.25, 0.75]]
    found = score(gold, predicted, np.array(chances, dtype=np.float32), ["neg", "pos"])
    assert found.confusion == ((2, 1), (0, 1))
    assert found.table() == [("neg", 1.0, 2 / 3, 0.8, 3, 2, 2), ("pos", 0.5, 1.0, 2 / 3, 1, 2, 1)]
    assert found.accuracy == 0.75
    assert found.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)
    assert found.weighted_f1 == pytest.approx((3 * 0.8 + 2 / 3) / 4)
    assert found.log_loss == pytest.approx(-math.log(0.9 * 0.5 * 0.22 * 0.75) / 4)
    # Bins: 0.5 | 0.75 and 0.78 (one right of two) | 0.9
    assert found.ece == pytest.approx((0.5 + abs(1 - 1.53) + 0.1) / 4)


def test_a_class_that_is_nowhere_does_not_lower_the_mean_and_certainty_in_error_stays_finite():
    found = score(["a", "b"], ["a", "a"], np.array([[1.0, 0, 0], [1.0, 0, 0]]), ["a", "b", "never"])
    assert found.macro_f1 == pytest.approx((2 / 3 + 0) / 2)
    assert found.flat()["f1/never"] == 0.0
    assert found.log_loss == pytest.approx(-math.log(1e-15) / 2)
    assert found.ece == pytest.approx(0.5)


def test_calibrated_guesses_have_no_error_and_bins_are_closed_above():
    right = np.array([True] * 8 + [False] * 2)
    assert calibration_error(np.full(10, 0.8), right) == pytest.approx(0.0)
    # 0.2 ends a bin and 0.25 lies in the next: apart their errors do not cancel, as they would in one bin of 5.
    pair = np.array([0.2, 0.25]), np.array([True, False])
    assert calibration_error(*pair) == pytest.approx((0.8 + 0.25) / 2)
    assert calibration_error(*pair, bins=2) == pytest.approx((1 - 0.45) / 2)


@pytest.mark.parametrize(
    ("gold", "predicted", "shape", "said"),
    [
        ([], [], (0, 2), "no example to score"),
        (["a"], ["x"], (1, 2), "label 'x' is not one of a, b"),
        (["x"], ["b"], (1, 2), "label 'x' is not one of a, b"),
        (["a"], ["b"], (1, 3), "1 gold labels, 1 predicted, 2 classes, but probabilities of shape (1, 3)"),
        (["a"], ["b", "b"], (1, 2), "1 gold labels, 2 predicted, 2 classes, but"),
    ],
)
def test_what_cannot_be_scored(gold, predicted, shape, said):
    with pytest.raises(ValueError) as raised:
        score(gold, predicted, np.ones(shape), ["a", "b"])
    assert str(raised.value).startswith(said)
