"""A stack of recurrent layers over padded batches, in one or both directions.

Batches stay padded. The backward direction runs the same forward kernel over rows that were each reversed by their
own length, so that padding stays at the end and never reaches a real state; no packed sequences, whose kernels are
slower and cannot be captured in a graph.
"""

from __future__ import annotations

import difflib
import itertools
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from pydantic import Field, ValidationError, model_validator
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.cell import FURTHEST
from seqtext.nn.cells import CELLS, State, build_cell
from seqtext.nn.dropout import LockedDropout
from seqtext.nn.looped import squash
from seqtext.nn.products import linear

DEEPEST = 1000
"""Layers of a stack, and maps or transitions of a layer."""


class Stack(Config):
    """Layers of one kind of cell: what every schema of a recurrent encoder has. A subclass names the cell."""

    if TYPE_CHECKING:
        cell: str
    cell_options: dict[str, Any] = Field(default_factory=dict)
    """Settings of that cell alone, for example `{nonlinearity = "relu"}` for `rnn`."""
    hidden_size: int = 200
    """Features of a state, in each direction."""
    last_size: int | None = None
    """Features of the last layer's state, where they are not `hidden_size`."""
    layers: int = 1
    """How many layers are stacked."""
    skip: Literal["none", "residual", "highway", "dense"] = "none"
    """How a layer's input gets past it: added to its output (residual) or mixed with it by a gate (highway, Srivastava
    2015), wherever both have the same size; or each layer reads the input and all layers below (dense, Huang 2017)."""
    dilation: int | list[int] = 1
    """How many steps back the recurrence reaches (Chang 2017): one number for all layers, or one for each."""
    input_depth: int = 1
    """Maps from a layer's input to its cells, the cells' own among them (Pascanu 2014)."""
    transition_depth: int = 1
    """Transitions from a state to the next; only the first reads the input (Pascanu 2014, Miceli Barone 2017)."""
    output_depth: int = 1
    """Maps from the last layer's states to what reads them, the reader's own among them (Pascanu 2014)."""
    dropout: float = 0.0
    """Locked dropout between layers."""
    weight_dropout: float = 0.0
    """Chance that an entry of the recurrent matrices is dropped, one draw for all steps (Merity 2018)."""

    @model_validator(mode="before")
    @classmethod
    def _older(cls, values: Any) -> Any:
        """Runs of versions that knew only residual layers say so by a key of its own."""
        if isinstance(values, dict) and isinstance(values.get("residual"), bool) and "skip" not in values:
            values = dict(values)
            values["skip"] = "residual" if values.pop("residual") else "none"
        return values

    @classmethod
    def place_of(cls, key: str) -> str:
        having = _having(key)
        return f"; it is cell_options.{key}, an option of the cells {', '.join(having)}" if having else ""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not hasattr(self, "cell"):  # this schema by itself, which names none
            return self
        if self.cell not in CELLS:
            near = difflib.get_close_matches(self.cell, CELLS, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise ValueError(f"cell {self.cell!r} is not one of {', '.join(CELLS)}{hint}")
        options = CELLS[self.cell].Options
        for key in self.cell_options:
            if key not in options.model_fields:
                having = _having(key)
                where = f"cells that have it: {', '.join(having)}" if having else "no cell has it"
                if near := difflib.get_close_matches(key, options.model_fields, n=1):
                    where += f"; did you mean '{near[0]}'?"
                raise ValueError(f"cell_options: cell '{self.cell}' has no option '{key}'; {where}")
        try:
            read = options.model_validate(self.cell_options)
        except ValidationError as error:
            item = error.errors()[0]
            key = ".".join(map(str, ["cell_options", *item["loc"]]))
            told = item["ctx"]["error"] if item["type"] == "value_error" else item["msg"]
            told = str(told).replace("Input should be", "expected")
            got = f", got {item['input']!r}" if item["loc"] else ""  # or options that do not go together
            raise ValueError(f"{key}: {told}{got}") from None
        if self.hidden_size < 1:
            raise ValueError(f"hidden_size must be at least 1, got {self.hidden_size}")
        if self.last_size is not None and self.last_size < 1:
            raise ValueError(f"last_size must be at least 1, got {self.last_size}")
        for name in ("dropout", "weight_dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        for name in ("layers", "input_depth", "transition_depth", "output_depth"):
            if not 1 <= getattr(self, name) <= DEEPEST:
                raise ValueError(f"{name} must be from 1 to {DEEPEST:,}, got {getattr(self, name)}")
        if len(self.dilations) != self.layers or min(self.dilations) < 1:
            raise ValueError(f"dilation must be a number from 1 on, or one for each layer, got {self.dilation}")
        if max(self.dilations) > FURTHEST:
            raise ValueError(f"dilation must be at most {FURTHEST:,} steps, got {self.dilation}")
        if self.weight_dropout and not CELLS[self.cell].recurs:
            able = ", ".join(name for name, cell in CELLS.items() if cell.recurs)
            raise ValueError(f"weight_dropout: cell '{self.cell}' has no recurrent matrix; cells that have one: {able}")
        if self.transition_depth > 1 and not CELLS[self.cell].deepens:
            able = ", ".join(name for name, cell in CELLS.items() if cell.deepens)
            raise ValueError(f"transition_depth: a step of cell '{self.cell}' is one; cells that can have more: {able}")
        if self.transition_depth > 1 and getattr(read, "kernel", None) == "fused":
            raise ValueError("cell_options: kernel = 'fused': its steps are one transition; leave it out")
        CELLS[self.cell].check(read, min(self.sizes))
        return self

    @property
    def dilations(self) -> list[int]:
        """Of each layer."""
        return self.dilation if isinstance(self.dilation, list) else [self.dilation] * self.layers

    @property
    def sizes(self) -> list[int]:
        """Features of each layer's state, in each direction."""
        return [self.hidden_size] * (self.layers - 1) + [self.last_size or self.hidden_size]


def _having(option: str) -> list[str]:
    """The cells that have an option."""
    return [name for name, cell in CELLS.items() if option in cell.Options.model_fields]


class RecurrentConfig(Stack):
    """Layers of one kind of cell, in one or both directions."""

    cell: str = "lstm"
    """Which cell: a key of `CELLS`."""
    bidirectional: bool = True
    """Read in both directions and join the states: (B, T, 2H)."""


class ForwardConfig(Stack):
    """Layers of one kind of cell that read forward only."""

    cell: str = "lstm"
    """Which cell: a key of `CELLS`."""


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


class Maps(nn.Module):
    """Layers tanh(W x + b), or none: what makes an input-to-hidden or a hidden-to-output map deep."""

    def __init__(self, input_size: int, output_size: int, count: int) -> None:
        super().__init__()
        sizes = [input_size, *[output_size] * count]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))
        self.output_size = sizes[-1]

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., output_size)."""
        layers: Any = self.layers
        for layer in layers:
            x = squash(linear(layer, x))
        return x


class Recurrent(nn.Module):
    """Stacked recurrent layers (an encoder): `CELLS[cell]` in one or both directions."""

    def __init__(self, input_size: int, config: Stack) -> None:
        super().__init__()
        self.directions = 2 if getattr(config, "bidirectional", False) else 1
        self.skip = config.skip
        self.idle = config.skip != "none"
        """Whether its skip gets past nothing: a dense one needs two layers, the others equal sizes."""
        self.layers, self.inputs, self.gates, self.outputs = (nn.ModuleList() for _ in range(4))
        self.sizes = [size * self.directions for size in config.sizes]
        read = size = input_size
        for hidden_size, dilation, output_size in zip(config.sizes, config.dilations, self.sizes):
            maps = Maps(read, hidden_size, config.input_depth - 1)
            cells = [
                build_cell(
                    config.cell,
                    maps.output_size,
                    hidden_size,
                    config.cell_options,
                    transition_depth=config.transition_depth,
                    dilation=dilation,
                )
                for _ in range(self.directions)
            ]
            for cell in cells:
                cell.weight_dropout = config.weight_dropout
            self.layers.append(nn.ModuleList(cells))
            self.inputs.append(maps)
            self.idle &= len(self.layers) == 1 if self.skip == "dense" else size != output_size
            gated = self.skip == "highway" and size == output_size
            self.gates.append(_highway(size) if gated else nn.Identity())
            read, size = (read + output_size if self.skip == "dense" else output_size), output_size
        # A map for each direction, so that halves of the output stay those of the two.
        last = config.sizes[-1]
        self.outputs.extend(Maps(last, last, config.output_depth - 1) for _ in range(self.directions))
        self.output_size = size
        self.dropout = LockedDropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        lengths: Tensor | None,
        state: list[State] | None = None,
        *,
        with_state: bool = True,
        masks: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[State]]:
        """x (B, T, D), lengths (B,) on the CPU, or None where all are T -> states (B, T, directions * H), state.

        The state is one tuple of (B, H) tensors a layer and direction, layer by layer, forward before backward, each
        row's own at its last real step. Without `with_state` it is an empty list, and ragged batches stay on the
        fastest kernel. States at padded positions are arbitrary but finite. `masks`, drawn once by `masks`, keep the
        dropout between layers locked where a text is read step by step.
        """
        ragged = with_state and lengths is not None and bool((lengths != x.size(1)).any())
        order = None
        if self.directions == 2:
            whole = torch.full((x.size(0),), x.size(1)) if lengths is None else lengths
            order = reversal(whole, x.size(1), x.device)
        ends = lengths if ragged else None
        result: list[State] = []
        cells: Any
        seen: list[Tensor] = []
        for depth, cells in enumerate(self.layers):
            below = x if depth == 0 else self.dropout(x) if masks is None else x * masks[depth - 1]
            inputs = below
            if self.skip == "dense":
                seen.append(below)
                inputs = torch.cat(seen, dim=-1)
            inputs = self.inputs[depth](inputs)
            readings = [inputs] if order is None else [inputs, reverse(inputs, order)]
            first = depth * self.directions
            starts = list(state[first : first + self.directions]) if state else [None] * self.directions
            outputs = []
            for direction, (states, end) in enumerate(cells[0].together(cells, readings, starts, ends)):
                if direction == 1:
                    assert order is not None
                    states = reverse(states, order)
                outputs.append(self.outputs[direction](states) if depth == len(self.layers) - 1 else states)
                result.append(end)
            x = self._past(outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=-1), below, self.gates[depth])
        return x, result if with_state else []

    def _past(self, states: Tensor, below: Tensor, gate: nn.Module) -> Tensor:
        """A layer's states and what was below it (B, T, D) -> its output."""
        if states.shape != below.shape:
            return states
        if self.skip == "residual":
            return states + below
        if self.skip == "highway":
            return torch.lerp(below.to(states.dtype), states, linear(gate, below).sigmoid().to(states.dtype))
        return states

    def masks(self, like: Tensor) -> list[Tensor]:
        """One draw of the dropout before each layer but the first, for rows like those of `like` (B, T, D)."""
        return [self.dropout.mask(like, size) for size in self.sizes[:-1]]

    def of_layer(self, depth: int) -> nn.ModuleList:
        """All that is trained with a layer: its cells, and the maps and the gate around them."""
        around = [self.inputs[depth], self.gates[depth]]
        return nn.ModuleList([self.layers[depth], *around, *(self.outputs if depth == len(self.layers) - 1 else [])])


def _highway(size: int) -> nn.Linear:
    """The gate between a layer's input and output; it starts by letting more of the input past (Srivastava 2015)."""
    gate = nn.Linear(size, size)
    nn.init.constant_(gate.bias, -1.0)
    return gate
