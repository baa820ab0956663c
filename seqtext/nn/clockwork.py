"""A clockwork recurrence: groups of units that each move at a period of their own (Koutnik 2014, eq. 1-4).

A group moves at the steps that its period divides, the first step among them, and keeps its state at the others; it
hears its own group and those of longer periods.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor

from seqtext.config import Config
from seqtext.nn.cell import FURTHEST, State
from seqtext.nn.looped import Looped, squash, tanh_back
from seqtext.nn.matrix import Matrix


class ClockworkOptions(Config):
    """Settings of `clockwork`."""

    periods: list[int] = Field(default=[1, 2, 4, 8], min_length=1)
    """The period of each group of units, rising. Groups are of one size, or the first ones larger by one."""

    @field_validator("periods")
    @classmethod
    def _rising(cls, periods: list[int]) -> list[int]:
        if periods[0] < 1 or any(one >= other for one, other in itertools.pairwise(periods)):
            raise ValueError("Input should be whole numbers from 1 on, each greater than the one before")
        if periods[-1] > FURTHEST:
            raise ValueError(f"Input should be at most {FURTHEST:,} steps")
        return periods


class Clockwork(Looped):
    """h' = tanh(W x + U h + b) for the units whose time it is, others keep theirs.

    The second part of a state is how many steps ago each unit moved last, 0 where it moves next.
    """

    Options = ClockworkOptions
    deepens = False
    parts = 2
    starts = (0,)
    periods: Tensor

    def __init__(self, input_size: int, hidden_size: int, options: ClockworkOptions | None = None) -> None:
        """Raises `ValueError` where there are fewer units than periods."""
        super().__init__(input_size, hidden_size)
        periods = (options or ClockworkOptions()).periods
        groups = torch.arange(hidden_size).tensor_split(len(periods))
        each = torch.cat([torch.full((len(group),), float(period)) for group, period in zip(groups, periods)])
        self.register_buffer("periods", each, persistent=False)
        hears = each.unsqueeze(1) <= each
        self.recurrent[0] = Matrix(hidden_size, hidden_size, mask=hears.float())
        self.reset_parameters()

    @classmethod
    def check(cls, options: Config, hidden_size: int) -> None:
        assert isinstance(options, ClockworkOptions)
        if hidden_size < len(options.periods):
            raise ValueError(
                f"cell_options.periods: {len(options.periods)} periods need at least as many units, got {hidden_size}"
            )

    def advance(self, given: Tensor, state: State, uses: Sequence[Any]) -> tuple[State, Any]:
        h, clock = state
        moves = clock == 0
        new = squash(given + uses[0](h))
        return (torch.where(moves, new, h), torch.remainder(clock + 1, self.periods)), (h, moves, new)

    def retreat(self, grads: State, kept: Any, uses: Sequence[Any]) -> tuple[Tensor, State]:
        (grad, of_clock), (h, moves, new) = grads, kept
        moved = grad * moves
        of_new = tanh_back(moved, new)
        return of_new, (uses[0].backward(h, of_new) + (grad - moved), of_clock)
