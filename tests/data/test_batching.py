"""Batches by a token budget: nothing lost, nothing over the budget, little padding, the same from the same seed."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.data.batching import bucketed

LENGTHS = st.lists(st.integers(0, 40), max_size=60).map(np.array)
BUDGET = st.integers(1, 120)
SEED = st.none() | st.integers(0, 5)


def cut(lengths: np.ndarray, tokens: int, seed: int | None, **options: int) -> list[list[int]]:
    shuffle = None if seed is None else np.random.default_rng(seed)
    return [rows.tolist() for rows in bucketed(lengths, tokens=tokens, shuffle=shuffle, **options)]


@given(LENGTHS, BUDGET, SEED)
def test_every_row_once_and_each_batch_within_the_budget(lengths: np.ndarray, tokens: int, seed: int | None) -> None:
    batches = cut(lengths, tokens, seed)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        longest = max(lengths[row] for row in rows)
        assert len(rows) * longest <= tokens or len(rows) == 1
    assert batches == cut(lengths, tokens, seed)


@given(LENGTHS, BUDGET, SEED, st.integers(1, 30))
def test_rows_read_some_positions_at_a_time_count_for_no_more(
    lengths: np.ndarray, tokens: int, seed: int | None, widest: int
) -> None:
    batches = cut(lengths, tokens, seed, widest=widest)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) * min(widest, max(lengths[rows])) <= tokens or len(rows) == 1
    for rows, following in pairwise(batches if seed is None else []):
        assert max(lengths[rows]) <= min(lengths[following])  # long rows stay with their like
        assert (len(rows) + 1) * min(widest, lengths[following[0]]) > tokens or len(rows) == tokens


@given(LENGTHS, BUDGET)
def test_without_a_generator_lengths_rise_and_no_batch_could_take_another_row(lengths: np.ndarray, tokens: int) -> None:
    batches = cut(lengths, tokens, None)
    order = [row for rows in batches for row in rows]
    assert order == sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    for rows, following in pairwise(batches):
        more = (len(rows) + 1) * lengths[following[0]]
        assert more > tokens or len(rows) == tokens  # the second where rows are of length 0


@given(LENGTHS, BUDGET, SEED, st.integers(1, 5))
def test_processes_share_the_batches_of_one(lengths: np.ndarray, tokens: int, seed: int | None, world: int) -> None:
    whole = cut(lengths, tokens, seed)
    shares = [cut(lengths, tokens, seed, rank=rank, world=world) for rank in range(world)]
    assert {len(share) for share in shares} == {len(whole)}  # or one process would wait for ever
    for rows, *parts in zip(whole, *shares):
        assert sorted(row for part in parts for row in part) == sorted(rows)
        sizes = [len(part) for part in parts]  # nearly equal; some are empty where a batch has too few rows
        assert max(sizes) - min(sizes) <= 1


def test_another_generator_makes_other_batches_in_another_order() -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 300)
    epochs = [cut(lengths, 128, seed) for seed in range(4)]
    sets = [{frozenset(rows) for rows in batches} for batches in epochs]
    for one, other in pairwise(sets):
        assert len(one & other) < 0.2 * len(one)
    for batches in epochs:  # not from short to long
        means = [float(np.mean(lengths[rows])) for rows in batches]
        assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.5
    # Two draws of one generator differ as well: an epoch from the one before.
    generator = np.random.default_rng(0)
    first, second = ([rows.tolist() for rows in bucketed(lengths, tokens=128, shuffle=generator)] for _ in range(2))
    assert first != second


@pytest.mark.parametrize(("seed", "most"), [(None, 0.03), (1, 0.12)])
def test_little_padding(seed: int | None, most: float) -> None:
    lengths = np.random.default_rng(0).lognormal(2.6, 0.7, 5000).astype(int) + 1  # news: median 14, few over 60
    padded = sum(len(rows) * lengths[rows].max() for rows in cut(lengths, 1024, seed))
    assert 1 - lengths.sum() / padded < most
