"""The Mogrifier LSTM: input and state gate each other some rounds before every step (Melis 2020, eq. 1-2).

x_i = 2 s(Q_i h_{i-1}) * x_{i-2} for odd i,    h_i = 2 s(R_i x_{i-1}) * h_{i-2} for even i
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.cell import State
from seqtext.nn.looped import Looped, Matrix, Product, squash


class MogrifierOptions(Config):
    """Settings of `mogrifier`."""

    rounds: int = Field(default=5, ge=0)
    """How often they gate each other, in turn; of none it is an LSTM."""
    forget_bias: float = 1.0
    """Where the forget gate's bias starts."""


class Mogrifier(Looped):
    """An LSTM of the x and h of the last rounds. As x changes with the state, so does what it gives: no big product."""

    Options = MogrifierOptions
    deepens = False
    gates = 4
    parts = 2
    starts = (0, 1)

    def __init__(self, input_size: int, hidden_size: int, options: MogrifierOptions | None = None) -> None:
        super().__init__(input_size, hidden_size)
        self.options = options or MogrifierOptions()
        sizes = hidden_size, input_size
        self.rounds = nn.ModuleList(
            Matrix(sizes[number % 2], sizes[1 - number % 2]) for number in range(self.options.rounds)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        assert self.input.bias is not None
        nn.init.constant_(self.input.bias.data.chunk(4)[1], self.options.forget_bias)

    def begin(self) -> list[Product]:
        rounds: Any = self.rounds
        return [*super().begin(), self.input.begin(), *(matrix.begin() for matrix in rounds)]

    def given(self, x: Tensor | None) -> Tensor:
        assert x is not None
        return x

    def advance(self, given: Tensor, state: State, products: Sequence[Product]) -> State:
        (h, c), x = state, given
        from_h, from_x, *rounds = products
        for number, gate in enumerate(rounds):
            if number % 2 == 0:
                x = 2.0 * gate(h).to(x.dtype).sigmoid() * x
            else:
                h = 2.0 * gate(x).to(h.dtype).sigmoid() * h
        i, f, g, o = (from_x(x) + from_h(h)).to(c.dtype).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * squash(g)
        return o.sigmoid() * squash(c), c
