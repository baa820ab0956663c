"""An echo state network: a fixed random recurrent layer whose read-out alone is trained (Jaeger 2001).

    u'(t) = tanh(A [1; x(t)] + R s(t-1)),    s(t) = (1 - a) s(t-1) + a u'(t)        (Lukosevicius 2012, eq. 2-3)

R is sparse and scaled to a given spectral radius, so that what was read fades; the leak a sets how fast states move.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.cells import State
from seqtext.nn.pool import States
from seqtext.nn.rnn import reversal, reverse


class ReservoirConfig(Config):
    """An echo state network: word vectors and recurrence stay as they were drawn, only what reads them is trained."""

    name: Literal["esn"] = "esn"
    size: int = Field(default=500, ge=1)
    """Units of the reservoir, in each direction."""
    density: float = Field(default=0.05, gt=0.0, le=1.0)
    """Share of the units that each unit hears; at least one."""
    spectral_radius: float = Field(default=0.9, gt=0.0)
    """Size of the largest eigenvalue of the recurrent matrix: from about 1 on, states may never forget."""
    leak: float = Field(default=0.5, gt=0.0, le=1.0)
    """Share of a state that is new at each word; 1 is the plain recurrence."""
    input_scale: float = Field(default=1.0, gt=0.0)
    """Input weights and biases are drawn evenly from within plus and minus this."""
    bidirectional: bool = False
    """Read in both directions, by the same reservoir, and join the states."""
    readout: Literal["softmax", "ridge"] = "softmax"
    """What reads the states: a softmax trained by gradients, or estimates of probabilities by linear regression, solved
    in closed form (`train.optimizer.name = "ridge"`)."""


class Reservoir(nn.Module):
    """The states of a fixed random recurrent layer. It has buffers, no parameters, and passes no gradient on."""

    inputs: Tensor
    bias: Tensor
    recurrent: Tensor

    def __init__(self, input_size: int, config: ReservoirConfig) -> None:
        super().__init__()
        self.leak, self.directions = config.leak, 2 if config.bidirectional else 1
        self.size = config.size
        self.sizes = [config.size * self.directions]
        scale = config.input_scale
        self.register_buffer("inputs", torch.empty(config.size, input_size).uniform_(-scale, scale))
        self.register_buffer("bias", torch.empty(config.size).uniform_(-scale, scale))
        self.register_buffer("recurrent", draw(config.size, config.density, config.spectral_radius))

    def output_lengths(self, longest: int) -> list[int]:
        """Positions of the output for a text of `longest` words."""
        return [longest]

    def forward(self, x: Tensor, lengths: Tensor) -> list[States]:
        """x (B, T, D), lengths (B,) on the CPU -> states (B, T, directions * size)."""
        return [States(self.run(x, lengths)[0], lengths)]

    @torch.no_grad()
    def run(self, x: Tensor, lengths: Tensor | None, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, T, D), lengths (B,) on the CPU or None where all are T, start (B, size), by default zero
        -> states (B, T, directions * size), the state after the last step (B, size) of the forward direction.

        At padded positions both are arbitrary but finite.
        """
        rows, time = x.size(0), x.size(1)
        driven = nn.functional.linear(x, self.inputs, self.bias)  # (B, T, N)
        if self.directions == 2:  # one loop over time for both
            whole = torch.full((rows,), time) if lengths is None else lengths
            order = reversal(whole, time, x.device)
            driven = torch.cat([driven, reverse(driven, order)])  # (2B, T, N)
        state = driven.new_zeros(driven.size(0), driven.size(2))
        if start is not None:
            state[:rows] = start
        states = torch.empty_like(driven)
        turned = self.recurrent.t().to(driven.dtype)
        for step in range(time):
            state = torch.lerp(state, torch.addmm(driven[:, step], state, turned).tanh().to(state.dtype), self.leak)
            states[:, step] = state
        if self.directions == 2:
            states = torch.cat([states[:rows], reverse(states[rows:], order)], dim=2)
        return states, state[:rows]


class Echo(nn.Module):
    """A reservoir with the face of `Recurrent`: what taggers and language models read states of."""

    def __init__(self, input_size: int, config: ReservoirConfig) -> None:
        super().__init__()
        self.reservoir = Reservoir(input_size, config)
        self.output_size = self.reservoir.sizes[0]

    def forward(
        self, x: Tensor, lengths: Tensor | None, state: list[State] | None = None, *, with_state: bool = True
    ) -> tuple[Tensor, list[State]]:
        """x (B, T, D), lengths (B,) on the CPU, or None where all are T -> states (B, T, directions * size), state.

        The state is that after step T, whatever the lengths; without `with_state` an empty list.
        """
        states, end = self.reservoir.run(x, lengths, state[0][0] if state else None)
        return states, [(end,)] if with_state else []


def draw(size: int, density: float, spectral_radius: float) -> Tensor:
    """(N, N) float32, from torch's global generator: `density` of each row within plus and minus one, scaled.

    As every unit hears another, there is a cycle, and so the radius to scale by is not zero.
    """
    heard = max(1, round(density * size))
    columns = torch.rand(size, size).topk(heard, dim=1).indices
    matrix = torch.zeros(size, size, dtype=torch.float64)
    matrix.scatter_(1, columns, torch.empty(size, heard, dtype=torch.float64).uniform_(-1.0, 1.0))
    return (matrix * (spectral_radius / torch.linalg.eigvals(matrix).abs().max())).float()
