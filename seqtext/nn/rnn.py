"""A stack of recurrent layers over padded batches, in one or both directions.

Batches stay padded. The backward direction runs the same forward kernel over rows that were each reversed by their
own length, so that padding stays at the end and never reaches a real state; no packed sequences, whose kernels are
slower and cannot be captured in a graph.
"""

from __future__ import annotations

import difflib
from typing import Any

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.cells import CELLS, State, build_cell
from seqtext.nn.dropout import LockedDropout


class RecurrentConfig(Config):
    """Layers of one kind of cell."""

    cell: str = "lstm"
    """Which cell: a key of `CELLS`."""
    cell_options: dict[str, Any] = Field(default_factory=dict)
    """Settings of that cell alone, for example `{nonlinearity = "relu"}` for `rnn`."""
    hidden_size: int = 200
    """Features of a state, in each direction."""
    layers: int = 1
    """How many layers are stacked."""
    bidirectional: bool = True
    """Read in both directions and join the states: (B, T, 2H)."""
    residual: bool = False
    """Add a layer's input to its output wherever the two have the same size."""
    dropout: float = 0.0
    """Locked dropout between layers."""

    @model_validator(mode="after")
    def _check(self) -> RecurrentConfig:
        if self.cell not in CELLS:
            near = difflib.get_close_matches(self.cell, CELLS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"cell {self.cell!r} is not one of {', '.join(CELLS)}{hint}")
        options = CELLS[self.cell].Options
        for key in self.cell_options:
            if key not in options.model_fields:
                having = [name for name, cell in CELLS.items() if key in cell.Options.model_fields]
                where = f"cells that have it: {', '.join(having)}" if having else "no cell has it"
                raise ValueError(f"cell_options: cell '{self.cell}' has no option '{key}'; {where}")
        try:
            options.model_validate(self.cell_options)
        except ValidationError as error:
            item = error.errors()[0]
            raise ValueError(f"cell_options.{item['loc'][0]}: {item['msg']}, got {item['input']!r}") from None
        if self.hidden_size < 1 or self.layers < 1:
            raise ValueError(f"hidden_size and layers must be at least 1, got {self.hidden_size} and {self.layers}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")
        return self


class _Permute(torch.autograd.Function):
    """Reorder rows by a permutation that is its own inverse, so that the gradient is the same copy, not a scatter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor) -> Tensor:
        ctx.save_for_backward(order)
        return x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        (order,) = ctx.saved_tensors
        return grad.contiguous().index_select(0, order), None


def reversal(lengths: Tensor, time: int, device: torch.device) -> Tensor:
    """(B,) lengths -> (B * T,) int64: where each position of the reversed rows comes from; padding stays in place."""
    steps = torch.arange(time, device=device)
    ends = lengths.to(device, non_blocking=True).unsqueeze(1)  # (B, 1)
    source = torch.where(steps < ends, ends - 1 - steps, steps)  # (B, T)
    return (source + torch.arange(source.size(0), device=device).unsqueeze(1) * time).flatten()


def reverse(x: Tensor, order: Tensor) -> Tensor:
    """x (B, T, D) with every row reversed by its own length; `order` is from `reversal`."""
    return _Permute.apply(x.reshape(-1, x.size(-1)), order).view(x.shape)


class Recurrent(nn.Module):
    """Stacked recurrent layers (an encoder): `CELLS[cell]` in one or both directions."""

    def __init__(self, input_size: int, config: RecurrentConfig) -> None:
        super().__init__()
        self.directions = 2 if config.bidirectional else 1
        self.output_size = config.hidden_size * self.directions
        self.residual = config.residual
        layers = []
        for layer in range(config.layers):
            size = input_size if layer == 0 else self.output_size
            layers.append(
                nn.ModuleList(
                    build_cell(config.cell, size, config.hidden_size, config.cell_options)
                    for _ in range(self.directions)
                )
            )
        self.layers = nn.ModuleList(layers)
        self.dropout = LockedDropout(config.dropout)

    def forward(
        self, x: Tensor, lengths: Tensor, state: list[State] | None = None, *, with_state: bool = True
    ) -> tuple[Tensor, list[State]]:
        """x (B, T, D), lengths (B,) on the CPU -> states (B, T, directions * H), state.

        The state is one tuple of (B, H) tensors a layer and direction, layer by layer, forward before backward, each
        row's own at its last real step. Without `with_state` it is an empty list, and ragged batches stay on the
        fastest kernel. States at padded positions are arbitrary but finite.
        """
        ragged = bool((lengths != x.size(1)).any())
        order = reversal(lengths, x.size(1), x.device) if self.directions == 2 else None
        ends = lengths if with_state and ragged else None
        result: list[State] = []
        cells: Any
        for depth, cells in enumerate(self.layers):
            inputs = x if depth == 0 else self.dropout(x)
            outputs = []
            for direction, cell in enumerate(cells):
                start = state[depth * self.directions + direction] if state else None
                if direction == 1:
                    assert order is not None
                    states, end = cell(reverse(inputs, order), start, lengths=ends)
                    states = reverse(states, order)
                else:
                    states, end = cell(inputs, start, lengths=ends)
                outputs.append(states)
                result.append(end)
            joined = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1)
            x = joined + inputs if self.residual and joined.shape == inputs.shape else joined
        return x, result if with_state else []
