"""Picking rows out of a state."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from seqtext.search.decoder import select


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
