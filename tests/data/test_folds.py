"""Cuts of examples: even in every class, the same for a seed, and none that leaves a class without training data."""

import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.data.folds import assign, hold_out
from seqtext.errors import DataError

FOLDS = [0, 3, 2, 1, 2, 2, 3, 2, 1, 3, 0, 0, 1, 3, 1, 2, 0, 0, 3, 1]
PARTS = [0, 0, 0, 2, 2, 0, 2, 0, 0, 1, 0, 2, 0, 0, 1, 1, 1, 0, 0, 0]
CODES = st.lists(st.integers(0, 3), min_size=1, max_size=80)


@given(CODES, st.integers(2, 5), st.integers(0, 3))
def test_folds_are_even_in_every_class(codes, k, seed):
    codes = codes + [code for code in set(codes) for _ in range(k)]
    folds = assign(codes, k, seed)
    assert np.array_equal(folds, assign(np.array(codes), k, seed))
    for members in [folds, *(folds[np.array(codes) == code] for code in set(codes))]:
        sizes = [int((members == fold).sum()) for fold in range(k)]
        assert sum(sizes) == len(members) and max(sizes) - min(sizes) <= 1


@given(CODES, st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.3]), max_size=2), st.integers(0, 3))
def test_a_share_is_held_out_of_every_class(codes, shares, seed):
    parts = hold_out(codes, shares, seed)
    sizes = Counter(codes)
    for number, share in enumerate(shares, start=1):
        for code, size in sizes.items():
            held = int((parts[np.array(codes) == code] == number).sum())
            # A class of few may have to keep what rounding would take.
            assert held <= size * share + 1 and (held >= size * share - 1 or size <= 3)
        if min(sizes.values()) > 3:
            assert abs(int((parts == number).sum()) - len(codes) * share) <= 0.5 + 1e-9
    assert set(parts.tolist()) <= set(range(len(shares) + 1))
    assert set(np.array(codes)[parts == 0].tolist()) == set(codes)


def test_cuts_are_the_same_on_every_machine_and_others_for_another_seed():
    codes = [0, 1] * 10
    assert assign(codes, 4, 0).tolist() == FOLDS
    assert hold_out(codes, [0.2, 0.2], 0).tolist() == PARTS
    assert assign(codes, 4, 1).tolist() != FOLDS and hold_out(codes, [0.2, 0.2], 1).tolist() != PARTS


def test_cuts_that_cannot_be_made():
    said = "t.csv: class 'x' has 1 example, fewer than the 3 folds; expected one a fold at least"
    with pytest.raises(DataError, match=f"^{re.escape(said)}$"):
        assign([0, 0, 0, 1], 3, 0, names=["y", "x"], path="t.csv")
    with pytest.raises(ValueError, match="at least 2 folds, got 1"):
        assign([0], 1, 0)
    with pytest.raises(ValueError, match=re.escape("add up to less than 1, got [0.5, 0.5]")):
        hold_out([0, 1], [0.5, 0.5], 0)
