"""The best continuations, against sorting all of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqtext.search.candidates import CHUNK, best, block_repeats, leave_only


@given(
    st.integers(0, 10_000),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([1, 5, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 5 * CHUNK + 7]),
    st.integers(1, 12),
    st.booleans(),
)
def test_the_best_of_a_sentence_are_the_best_of_all(seed, count, width, size, k, ties):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(count * width, size, generator=generator)
    totals = torch.randn(count, width, generator=generator, dtype=torch.float64)
    if ties:
        scores, totals = scores.round(), totals.round()
    scores[torch.rand(scores.shape, generator=generator) < 0.3] = -math.inf
    totals[:, 1:][torch.rand(count, width - 1, generator=generator) < 0.3] = -math.inf
    sums, rows, tokens = best(scores, totals, k)
    every = (scores.view(count, width, size) + totals.unsqueeze(2)).flatten(1)
    expected = every.sort(descending=True).values[:, :k]
    torch.testing.assert_close(sums, expected, rtol=0.0, atol=0.0)
    assert torch.equal(sums, totals.flatten()[rows] + scores[rows, tokens])  # each is what it says it is
    assert [set(row.tolist()) <= set(range(i * width, (i + 1) * width)) for i, row in enumerate(rows)] == [True] * count
    for places in (rows * size + tokens).tolist():
        assert len(set(places)) == len(places) == min(k, width * size)


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=3), st.integers(1, 7))
def test_blocked_are_the_tokens_that_would_repeat_a_sequence(rows, n):
    scores = torch.zeros(len(rows), 4)
    block_repeats(scores, torch.tensor(rows), n)
    for row, left in zip(rows, scores.tolist()):
        grams = [row[i : i + n] for i in range(len(row) - n + 1)]
        assert left == [-math.inf if [*row, token][-n:] in grams else 0.0 for token in range(4)]


def test_one_token_is_left_where_one_is_wanted():
    scores = torch.tensor([[0.0, 1.0], [2.0, -math.inf], [4.0, 5.0]])
    leave_only(scores, torch.tensor([-1, 1, 0]), torch.tensor([7.0, 8.0, 9.0]))
    assert scores.tolist() == [[0.0, 1.0], [-math.inf, 8.0], [9.0, -math.inf]]
    assert pytest.approx(scores[1, 1].item()) == 8.0
