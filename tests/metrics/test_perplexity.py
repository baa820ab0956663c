"""Perplexity and bits per character against probabilities multiplied out."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.metrics.perplexity import LineScore, score

PROBABILITIES = st.lists(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=5), min_size=1, max_size=6)


@given(PROBABILITIES, st.integers(0, 3))
def test_by_the_definitions(lines, unknown):
    scores = [LineScore(-sum(map(math.log, line)), len(line), unknown) for line in lines]
    characters = 4 * sum(map(len, lines)) + len(lines)
    found = score(scores, characters)
    every = [probability for line in lines for probability in line]
    product = math.prod(every)
    # The inverse of the geometric mean over all tokens, long lines weighing more; and log2 of the whole text.
    assert found["perplexity"] == pytest.approx(product ** (-1 / len(every)))
    assert found["bits_per_character"] == pytest.approx(-math.log2(product) / characters)
    assert found["nll"] == pytest.approx(math.log(found["perplexity"]))
    assert (found["targets"], found["unknown"]) == (len(every), unknown * len(lines))
    assert list(found) == ["perplexity", "bits_per_character", "nll", "targets", "unknown"]


@given(PROBABILITIES)
def test_parts_of_a_line_add_up(parts):
    scores = [LineScore(-sum(map(math.log, part)), len(part), 1) for part in parts]
    whole = sum(scores, LineScore())
    assert (whole.targets, whole.unknown) == (sum(map(len, parts)), len(parts))
    assert whole.nll == pytest.approx(-sum(math.log(probability) for part in parts for probability in part))
    assert score([whole], 9) == pytest.approx(score(scores, 9))


def test_a_uniform_model_over_ten_words():
    found = score([LineScore(4 * math.log(10), 4), LineScore(2 * math.log(10), 2, 1)], 30)
    assert found["perplexity"] == pytest.approx(10)
    assert found["bits_per_character"] == pytest.approx(0.2 * math.log2(10))
    assert LineScore(4 * math.log(10), 4).perplexity == pytest.approx(10)


def test_extremes():
    assert score([LineScore(1e6, 1)], 1)["perplexity"] == math.inf
    assert math.isnan(score([LineScore(math.nan, 1)], 1)["perplexity"])
    assert math.isnan(LineScore().perplexity)
    with pytest.raises(ValueError, match="nothing was scored: 0 targets, 5 characters"):
        score([], 5)
    small = [LineScore(0.1, 1)] * 10
    assert score(small, 1)["nll"] == 0.1  # not 0.09999999999999999, as adding one by one has it
