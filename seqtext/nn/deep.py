"""Cells made of cells: deep transitions, and recurrences that reach several steps back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqtext.nn.cell import Cell, State, zero_state
from seqtext.nn.looped import Looped
from seqtext.nn.shared import SharedVector


class Deep(Looped):
    """A step of several transitions, one after the other; only the first reads x (Pascanu 2014, DT-RNN).

    For cells with gates, all transitions have theirs (Miceli Barone 2017, "Deep architectures for neural machine
    translation", eq. 4-6). Zoneout is of the whole step.
    """

    def __init__(self, cells: Sequence[Looped]) -> None:
        """The transitions of a step; those after the first are cells without input."""
        first = cells[0]
        Cell.__init__(self, first.input_size, first.hidden_size)
        self.parts, self.starts, self.rates = first.parts, first.starts, first.rates
        self.transitions = nn.ModuleList(cells)

    def reset_parameters(self) -> None:
        cells: Any = self.transitions
        for cell in cells:
            cell.reset_parameters()

    def begin(self) -> list[Any]:
        cells: Any = self.transitions
        for cell in cells:
            cell.weight_dropout = self.weight_dropout
        own = [None, *(SharedVector(cell.given(None).flatten()) for cell in cells[1:])]
        return [(cell, each, cell.begin()) for cell, each in zip(cells, own)]

    def tokens(self, uses: Sequence[Any]) -> list[Tensor]:
        found = [own.token for _, own, _ in uses if own is not None]
        return found + [token for cell, _, each in uses for token in cell.tokens(each)]

    def given(self, x: Tensor | None) -> Tensor:
        first: Any = self.transitions[0]
        return first.given(x)

    def advance(self, given: Tensor, state: State, uses: Sequence[Any]) -> tuple[State, Any]:
        noted = []
        for cell, own, each in uses:
            state, kept = cell.advance(given if own is None else own.value.expand_as(given), state, each)
            noted.append(kept)
        return state, noted

    def retreat(self, grads: State, kept: Any, uses: Sequence[Any]) -> tuple[Tensor, State]:
        for (cell, own, each), noted in zip(uses[::-1], kept[::-1]):
            of_given, grads = cell.retreat(grads, noted, each)
            if own is not None:
                own.gather(of_given.sum(0))
        return of_given, grads


class Dilated(Cell):
    """A cell whose step reads the state of d steps before (Chang 2017, "Dilated recurrent neural networks", eq. 1).

    Steps 1, 1 + d, 1 + 2 d ... do not see the others: each such thread is a row of its own for the cell, which so runs
    as fast as it does. A state has the parts of the last d steps, the latest first.
    """

    def __init__(self, cell: Cell, dilation: int) -> None:
        super().__init__(cell.input_size, cell.hidden_size)
        self.cell, self.dilation = cell, dilation
        self.name, self.options = cell.name, cell.options
        self.parts = cell.parts * dilation
        self.starts = tuple(lag * cell.parts + part for lag in range(dilation) for part in cell.starts)

    def reset_parameters(self) -> None:
        self.cell.reset_parameters()

    def forward(self, x: Tensor, state: State | None = None, *, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        state = zero_state(self, x) if state is None else state
        parts, reach, (rows, time, _) = self.cell.parts, self.dilation, x.shape
        self.cell.weight_dropout = self.weight_dropout
        if time == 1:
            states, now = self.cell(x, state[-parts:])
            return states, (*now, *state[:-parts])
        each = -(-time // reach)  # steps of a thread
        folded = nn.functional.pad(x, (0, 0, 0, each * reach - time)).view(rows, each, reach, x.size(2))
        folded = folded.transpose(1, 2).reshape(rows * reach, each, x.size(2))
        # Thread p (from 0) goes on from p steps after the oldest.
        starts = [torch.stack(state[part::parts][::-1], dim=1) for part in range(parts)]  # (B, d, H) each
        own = torch.full((rows,), time) if lengths is None else lengths.cpu()
        threads = torch.arange(reach)
        steps = (own.unsqueeze(1) - threads + reach - 1).div(reach, rounding_mode="floor").clamp(min=0)  # (B, d)
        begun = (steps > 0).unsqueeze(2).to(x.device)
        states, ends = self.cell(
            folded, tuple(start.flatten(0, 1) for start in starts), lengths=steps.flatten().clamp(min=1)
        )
        states = states.view(rows, reach, each, self.hidden_size).transpose(1, 2).flatten(1, 2)[:, :time]
        # The state k steps before the end is that of the thread which was there.
        order = ((own.unsqueeze(1) - 1 - threads) % reach).to(x.device).unsqueeze(2)  # (B, d), the latest first
        found = []
        for start, end in zip(starts, ends):
            end = torch.where(begun, end.view(start.shape), start.to(end.dtype))
            found.append(end.gather(1, order.expand_as(end)).unbind(1))
        return states, tuple(one for lag in zip(*found) for one in lag)
