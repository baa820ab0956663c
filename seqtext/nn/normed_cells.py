"""LSTM and GRU with layer normalisation of what x and the state give (Ba 2016, "Layer Normalization", eq. 20-29).

Both normalised terms have gains of their own; of biases that would only add up there is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.cell import State
from seqtext.nn.looped import Looped, remembered, remembered_back, sigmoid_back, squash, tanh_back
from seqtext.nn.shared import SharedVector

EPSILON = 1e-5
"""Added to a variance."""


def normalised(x: Tensor, gain: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (..., N), gain and bias (N,): to mean 0 and variance 1 over the features of each."""
    bias = None if bias is None else bias.to(x.dtype)
    return nn.functional.layer_norm(x, gain.shape, gain.to(x.dtype), bias, EPSILON)


def norm(x: Tensor, gain: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Any]:
    """`normalised` x (B, N), and what `norm_back` needs to know."""
    y, mean, scale = torch.native_layer_norm(x, gain.shape, gain, bias, EPSILON)
    return y, (x, mean, scale, gain, bias)


def norm_back(grad: Tensor, kept: Any) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, of the gain and of the bias, from that of y."""
    x, mean, scale, gain, bias = kept
    shape, wanted = gain.shape, [True, True, bias is not None]
    return torch.ops.aten.native_layer_norm_backward.default(grad, x, shape, mean, scale, gain, bias, wanted)


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

    def begin(self) -> list[Any]:
        return [*super().begin(), *vectors(self.gain, self.memory_gain, self.memory_bias)]

    def advance(self, given: Tensor, state: State, uses: Sequence[Any]) -> tuple[State, Any]:
        (h, c), (product, *vectors) = state, uses
        gain, memory_gain, memory_bias = (vector.value.to(h.dtype) for vector in vectors)
        share, normed = norm(product(h), gain)
        o, c, kept = remembered(given + share, c)
        level, levelled = norm(c, memory_gain, memory_bias)
        squashed = squash(level)
        return (o * squashed, c), (h, normed, kept, o, levelled, squashed)

    def retreat(self, grads: State, kept: Any, uses: Sequence[Any]) -> tuple[Tensor, State]:
        (of_h, of_c), (h, normed, inner, o, levelled, squashed) = grads, kept
        product, gain, memory_gain, memory_bias = uses
        of_level, *of_vectors = norm_back(tanh_back(of_h * o, squashed), levelled)
        of_sums, of_c = remembered_back(of_h * squashed, of_c + of_level, inner)
        of_share, of_gain, _ = norm_back(of_sums, normed)
        for vector, each in zip((gain, memory_gain, memory_bias), (of_gain, *of_vectors)):
            vector.gather(each)
        return of_sums, (product.backward(h, of_share), of_c)


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

    def begin(self) -> list[Any]:
        return [*super().begin(), *vectors(*self.gain.split(self.sizes), self.recurrent_bias)]

    def advance(self, given: Tensor, state: State, uses: Sequence[Any]) -> tuple[State, Any]:
        ((h,), (product, *vectors)), (given_gates, given_new) = (state, uses), given.split(self.sizes, dim=1)
        gates_gain, gain, bias = (vector.value.to(h.dtype) for vector in vectors)
        first, second = product(h).split(self.sizes, dim=1)
        share, normed_gates = norm(first.contiguous(), gates_gain)
        seen, normed = norm(second.contiguous(), gain, bias)
        gates = (given_gates + share).sigmoid()
        z, r = gates.chunk(2, dim=1)
        new = squash(torch.addcmul(given_new, r, seen))
        return (torch.lerp(h, new, z),), (h, gates, seen, new, normed_gates, normed)

    def retreat(self, grads: State, kept: Any, uses: Sequence[Any]) -> tuple[Tensor, State]:
        (grad,), (h, gates, seen, new, normed_gates, normed) = grads, kept
        product, gates_gain, gain, bias = uses
        z, r = gates.chunk(2, dim=1)
        of_update = grad * z
        of_new = tanh_back(of_update, new)
        of_gates = sigmoid_back(torch.cat([grad * (new - h), of_new * seen], dim=1), gates)
        of_first, of_gates_gain, _ = norm_back(of_gates, normed_gates)
        of_second, of_gain, of_bias = norm_back(of_new * r, normed)
        for vector, each in ((gates_gain, of_gates_gain), (gain, of_gain), (bias, of_bias)):
            vector.gather(each)
        of_h = product.backward(h, torch.cat([of_first, of_second], dim=1))
        return torch.cat([of_gates, of_new], dim=1), (of_h.add_(grad - of_update),)


def vectors(*values: Tensor) -> list[SharedVector]:
    """Gains and biases as the steps of one pass use them."""
    return [SharedVector(value) for value in values]
