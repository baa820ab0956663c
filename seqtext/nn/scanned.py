"""Cells whose gates see x alone, so that their states are a scan over time and no step waits for the one before.

    h_t = a_t h_{t-1} + b_t        a_t and b_t of all t from one product with x

They have no recurrent matrix. States are computed in float32 at least.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.cell import Cell, State, last_of, zero_state
from seqtext.nn.looped import squash
from seqtext.nn.matrix import Matrix
from seqtext.nn.scan import scan


class Scanned(Cell):
    """Base: input matrices start Xavier-uniform, biases zero."""

    recurs = False

    def __init__(self, input_size: int, hidden_size: int, *, blocks: int, bias: bool = True) -> None:
        """`blocks` of H are computed from x."""
        super().__init__(input_size, hidden_size)
        self.input = Matrix(input_size, blocks * hidden_size, bias=bias)

    def reset_parameters(self) -> None:
        assert self.input.weight is not None
        nn.init.xavier_uniform_(self.input.weight)
        if self.input.bias is not None:
            nn.init.zeros_(self.input.bias)

    def run(self, given: Tensor, x: Tensor, start: State) -> tuple[Tensor, ...]:
        """What is computed from x (T, B, blocks * H), x (T, B, D), the state before -> all states' parts (T, B, H)."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: State | None = None, *, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        turned = x.transpose(0, 1)
        given = self.input.over(turned)
        start = tuple(part.to(given.dtype) for part in (zero_state(self, x) if state is None else state))
        parts = self.run(given, turned.to(given.dtype), start)
        if lengths is None or bool((lengths == x.size(1)).all()):
            end = tuple(part[-1] for part in parts)
        else:
            end = tuple(last_of(part, first, lengths) for part, first in zip(parts, start))
        return parts[0].transpose(0, 1).to(x.dtype), tuple(part.to(x.dtype) for part in end)


class MinGRU(Scanned):
    """z = s(W x + b), h' = (1 - z) * h + z * (V x + c) (Feng 2024, section 3.1)."""

    def __init__(self, input_size: int, hidden_size: int, options: Config | None = None) -> None:
        super().__init__(input_size, hidden_size, blocks=2)
        self.reset_parameters()

    def run(self, given: Tensor, x: Tensor, start: State) -> tuple[Tensor, ...]:
        z, new = given.chunk(2, dim=2)
        z = z.sigmoid()
        return (scan(1.0 - z, z * new, start[0]),)


class MinLSTMOptions(Config):
    """Settings of `minlstm`."""

    forget_bias: float = 0.0
    """Where the forget gate's bias starts."""


class MinLSTM(Scanned):
    """f, i = s(W x + b), h' = f / (f + i) * h + i / (f + i) * (V x + c) (Feng 2024, section 3.2)."""

    Options = MinLSTMOptions

    def __init__(self, input_size: int, hidden_size: int, options: MinLSTMOptions | None = None) -> None:
        super().__init__(input_size, hidden_size, blocks=3)
        self.options = options or MinLSTMOptions()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        assert self.input.bias is not None
        nn.init.constant_(self.input.bias.data.chunk(3)[0], self.options.forget_bias)

    def run(self, given: Tensor, x: Tensor, start: State) -> tuple[Tensor, ...]:
        f, i, new = given.chunk(3, dim=2)
        # f / (f + i) by logarithms: both gates may be too small to divide by.
        keep = (nn.functional.logsigmoid(f) - nn.functional.logsigmoid(i)).sigmoid()
        return (scan(keep, (1.0 - keep) * new, start[0]),)


class SRU(Scanned):
    """f, r = s(W x + b), c' = f * c + (1 - f) * V x, h' = r * tanh(c') + (1 - r) * x (Lei 2018).

    With gates that see x alone, as in the paper's first version: those of its last see the memory as well, and then
    steps wait for each other. Where x is not of the size of the state, a matrix brings it to it.
    """

    parts = 2
    starts = (1,)

    def __init__(self, input_size: int, hidden_size: int, options: Config | None = None) -> None:
        super().__init__(input_size, hidden_size, blocks=3 if input_size == hidden_size else 4, bias=False)
        self.bias = nn.Parameter(torch.empty(2 * hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.bias)

    def run(self, given: Tensor, x: Tensor, start: State) -> tuple[Tensor, ...]:
        size = self.hidden_size
        f, r = (given[:, :, : 2 * size] + self.bias).sigmoid().chunk(2, dim=2)
        new, past = given[:, :, 2 * size : 3 * size], x if self.input_size == size else given[:, :, 3 * size :]
        c = scan(f, new - f * new, start[1])
        return torch.lerp(past, squash(c), r), c
