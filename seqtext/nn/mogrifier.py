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
from seqtext.nn.looped import Looped, remembered, remembered_back, sigmoid_back, squash, tanh_back
from seqtext.nn.matrix import Matrix


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

    def begin(self) -> list[Any]:
        rounds: Any = self.rounds
        return [*super().begin(), self.input.begin(), *(matrix.begin() for matrix in rounds)]

    def given(self, x: Tensor | None) -> Tensor:
        assert x is not None
        return x

    def mogrified(self, x: Tensor, h: Tensor, rounds: Sequence[Any]) -> tuple[Tensor, Tensor, list[Any]]:
        """x and h of the last rounds; of each round the gate, what it saw and what it was for."""
        noted = []
        for number, product in enumerate(rounds):
            seen, gated = (h, x) if number % 2 == 0 else (x, h)
            gate = product(seen).sigmoid()
            noted.append((gate, seen, gated))
            half = gate * gated
            x, h = (half + half, h) if number % 2 == 0 else (x, half + half)
        return x, h, noted

    def advance(self, given: Tensor, state: State, uses: Sequence[Any]) -> tuple[State, Any]:
        (h, c), (from_h, from_x, *rounds) = state, uses
        x, h, noted = self.mogrified(given, h, rounds)
        o, c, kept = remembered(from_x(x) + from_h(h), c)
        squashed = squash(c)
        return (o * squashed, c), (x, h, noted, kept, o, squashed)

    def retreat(self, grads: State, kept: Any, uses: Sequence[Any]) -> tuple[Tensor, State]:
        (of_h, of_c), (x, h, noted, inner, o, squashed), (from_h, from_x, *rounds) = grads, kept, uses
        of_sums, of_c = remembered_back(of_h * squashed, of_c + tanh_back(of_h * o, squashed), inner)
        of_h, of_x = from_h.backward(h, of_sums), from_x.backward(x, of_sums)
        for number in reversed(range(len(rounds))):
            gate, seen, gated = noted[number]
            of_gated = of_x if number % 2 == 0 else of_h
            of_half = of_gated + of_gated
            of_seen = rounds[number].backward(seen, sigmoid_back(of_half * gated, gate))
            of_gated = of_half * gate
            of_x, of_h = (of_gated, of_h + of_seen) if number % 2 == 0 else (of_x + of_seen, of_gated)
        return of_x, (of_h, of_c)
