"""The face of every recurrent cell: one layer, one direction, over a padded batch.

    cell(x (B, T, D), state=None)  -> (states (B, T, H), state)      all steps at once
    cell.step(x (B, D), state=None) -> (output (B, H), state)        one step, for decoding

A state is a tuple of (B, H) tensors; its first member is the output. `None` is the zero state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from seqtext.config import Config

State: TypeAlias = tuple[Tensor, ...]


FURTHEST = 1024
"""Steps that a recurrence may reach back at once: each has a state of its own to keep, and few texts are longer."""


class Cell(nn.Module):
    """Base of all cells. They are built with `build_cell`, from their size and their `Options`."""

    Options: ClassVar[type[Config]] = Config
    """Settings this cell alone has; by default none."""
    name: str
    """Its key in `CELLS`."""
    options: Any
    """Its `Options`."""
    parts: int = 1
    """Members of the state."""
    starts: tuple[int, ...] = (0,)
    """Those of them that the next step reads and that may start anywhere; the others start at zero."""
    recurs: ClassVar[bool] = True
    """Whether it has a recurrent matrix, entries of which can be dropped."""
    deepens: ClassVar[bool] = False
    """Whether its step can be made of several (`deep.Deep`)."""
    weight_dropout: float = 0.0
    """Chance that an entry of the recurrent matrices is dropped, one draw for all steps (Merity 2018, section 2)."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size, self.hidden_size = input_size, hidden_size

    @classmethod
    def suited(cls, options: Config, *, deep: bool = False) -> type[Cell]:
        """The class that computes this cell with these `Options`, or the transitions of a deep step."""
        return cls

    @classmethod
    def check(cls, options: Config, hidden_size: int) -> None:
        """Raises `ValueError` where these `Options` do not suit the size."""

    def reset_parameters(self) -> None:
        """Draw all weights anew from torch's global generator."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: State | None = None, *, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        """x (B, T, D), state of (B, H) -> states (B, T, H), the state after the last step.

        With `lengths` (B,) the returned state is each row's own at its last real step. Where they differ, that costs
        speed: pass `lengths` only where the state is used, since `states` do not need it.
        """
        raise NotImplementedError

    @classmethod
    def together(
        cls, cells: Sequence[Cell], readings: Sequence[Tensor], starts: Sequence[State | None], lengths: Tensor | None
    ) -> list[tuple[Tensor, State]]:
        """What `forward` gives for each direction of a layer: cells of this class, what each reads, and its state.

        A class that takes the steps of all directions at once, where that is faster, says so here.
        """
        return [cell(x, start, lengths=lengths) for cell, x, start in zip(cells, readings, starts)]

    def step(self, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """x (B, D), state of (B, H) -> output (B, H), state."""
        states, state = self(x.unsqueeze(1), state)
        return states.squeeze(1), state


def zero_state(cell: Cell, x: Tensor) -> State:
    """The zero state of `cell` for a batch like x (B, ...)."""
    return tuple(torch.zeros(x.size(0), cell.hidden_size, dtype=x.dtype, device=x.device) for _ in range(cell.parts))


def last_of(steps: Tensor, start: Tensor, lengths: Tensor) -> Tensor:
    """Steps (T, B, H), start (B, H), lengths (B,) -> each row's last real step (B, H); its start where it has none."""
    lengths = lengths.to(steps.device, non_blocking=True)
    last = (lengths - 1).clamp(min=0).view(1, -1, 1).expand(1, -1, steps.size(2))
    return torch.where((lengths > 0).unsqueeze(1), steps.gather(0, last).squeeze(0), start.to(steps.dtype))
