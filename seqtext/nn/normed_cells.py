"""LSTM and GRU with layer normalisation of what x and the state give (Ba 2016, "Layer Normalization", eq. 20-29).

Both normalised terms have gains of their own; of biases that would only add up there is one.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.cell import State
from seqtext.nn.looped import Looped, Product, squash


def normalised(x: Tensor, gain: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., N), gain and bias (N,): to mean 0 and variance 1 over the features of each."""
    bias = None if bias is None else bias.to(x.dtype)
    return nn.functional.layer_norm(x, gain.shape, gain.to(x.dtype), bias)


class Normed(Looped):
    """Base of both. What x gives is normalised for all steps at once, in the blocks that the state's share is."""

    norms: tuple[int, ...]
    """Blocks of H that are normalised together."""

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__(input_size, hidden_size)
        rows = self.gates * hidden_size
        self.input_gain = nn.Parameter(torch.empty(rows)) if input_size else None
        self.gain = nn.Parameter(torch.empty(rows))
        self.sizes = [blocks * hidden_size for blocks in self.norms]

    def reset_parameters(self) -> None:
        super().reset_parameters()
        for gain in (self.gain, self.input_gain):
            if gain is not None:
                nn.init.ones_(gain)

    def given(self, x: Tensor | None) -> Tensor:
        if x is None:
            return super().given(x)
        assert self.input_gain is not None and self.input.bias is not None
        parts = self.input.over(x, biased=False).split(self.sizes, dim=2)
        gains, biases = self.input_gain.split(self.sizes), self.input.bias.split(self.sizes)
        return torch.cat([normalised(*each) for each in zip(parts, gains, biases)], dim=2)


class LNLSTMOptions(Config):
    """Settings of `lnlstm`."""

    forget_bias: float = 1.0
    """Where the forget gate's bias starts."""


class LNLSTM(Normed):
    """i, f, g, o = LN(W x) + LN(U h) + b, c' = s(f) c + s(i) tanh(g), h' = s(o) tanh(LN(c'))."""

    Options = LNLSTMOptions
    gates = 4
    norms = (4,)
    parts = 2
    starts = (0, 1)

    def __init__(self, input_size: int, hidden_size: int, options: LNLSTMOptions | None = None) -> None:
        super().__init__(input_size, hidden_size)
        self.options = options or LNLSTMOptions()
        self.memory_gain = nn.Parameter(torch.empty(hidden_size))
        self.memory_bias = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        assert self.input.bias is not None
        nn.init.constant_(self.input.bias.data.chunk(4)[1], self.options.forget_bias)
        nn.init.ones_(self.memory_gain)
        nn.init.zeros_(self.memory_bias)

    def advance(self, given: Tensor, state: State, products: Sequence[Product]) -> State:
        h, c = state
        i, f, g, o = (given + normalised(products[0](h).to(h.dtype), self.gain)).chunk(4, dim=1)
        c = f.sigmoid() * c + i.sigmoid() * squash(g)
        return o.sigmoid() * squash(normalised(c, self.memory_gain, self.memory_bias)), c


class LNGRU(Normed):
    """z, r = s(LN(W x) + LN(U h) + b), n = tanh(LN(W' x) + b' + r * (LN(U' h) + c)), h' = (1 - z) h + z n."""

    gates = 3
    norms = 2, 1

    def __init__(self, input_size: int, hidden_size: int, options: Config | None = None) -> None:
        super().__init__(input_size, hidden_size)
        self.recurrent_bias = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.recurrent_bias)

    def advance(self, given: Tensor, state: State, products: Sequence[Product]) -> State:
        (h,) = state
        kept = products[0](h).to(h.dtype).split(self.sizes, dim=1)
        gains, (gates, new) = self.gain.split(self.sizes), given.split(self.sizes, dim=1)
        z, r = (gates + normalised(kept[0], gains[0])).sigmoid().chunk(2, dim=1)
        new = squash(new + r * normalised(kept[1], gains[1], self.recurrent_bias))
        return (torch.lerp(h, new, z),)
