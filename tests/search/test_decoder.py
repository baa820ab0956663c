"""Picking rows out of a state."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from seqtext.search.decoder import rows_of, select, select_memory


class Named(NamedTuple):
    first: Tensor
    second: Tensor | None


def test_rows_of_a_nested_state_are_picked_wherever_they_stand():
    rows = torch.tensor([2, 0, 2, 1])
    a, b, c = torch.arange(3), torch.arange(6).view(3, 2), torch.tensor([True, False, True])
    picked = select([Named(a, None), (b, [c])], rows)
    assert type(picked) is list and type(picked[0]) is Named and type(picked[1]) is tuple
    assert picked[0].first.tolist() == [2, 0, 2, 1] and picked[0].second is None
    assert picked[1][0].tolist() == [[4, 5], [0, 1], [4, 5], [2, 3]]
    assert picked[1][1][0].tolist() == [True, True, True, False]


def test_what_is_no_state_is_refused():
    with pytest.raises(TypeError, match="a state of dict: expected tensors, None, and tuples or lists of these"):
        select((torch.zeros(1), {}), torch.tensor([0]))


def test_a_memory_follows_the_hypotheses_that_are_left():
    memory = (None, [torch.tensor([10, 11, 12])])

    def left(rows):
        return select_memory(memory, torch.tensor(rows, dtype=torch.int64), 6)[1][0].tolist()

    assert left([0, 1, 4, 5]) == [10, 12]  # both of two sources
    assert left([0, 3, 4]) == [10, 11, 12]  # one of each
    assert left([0, 1, 3]) == [10, 10, 11]  # each its own
    assert left([]) == []
    assert rows_of(memory) == 3 and rows_of(None) is None and rows_of((None, [])) is None
    assert select_memory(None, torch.tensor([1]), 2) is None
