"""Layers whose matrices are whole numbers of 8 bits, for prediction on a CPU.

Each row of a matrix W has a scale of its own, s_i = max_j |W_ij| / 127, and W_ij is kept as round(W_ij / s_i)
(Krishnamoorthi 2018, "Quantizing deep convolutional networks for efficient inference", section 2: symmetric, per
channel). What is multiplied with it is quantised anew for each product, to 8 bits between its own extremes (dynamic
quantisation), and sums are gathered in 32 bits. Biases, gates and states stay float32.

Quantising what was read back gives the same numbers again: the largest entry of a row is 127 scales. As the extremes
are those of a whole batch, an answer may differ by rounding with what else is in its batch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

SUPPORTED = "x86" in torch.backends.quantized.supported_engines and all(
    hasattr(torch, name) for name in ("_make_per_channel_quantized_tensor", "quantized_lstm", "quantized_gru")
)
"""Whether this build of torch, on this kind of processor, has the kernels (torch 2.13 calls them deprecated)."""
SATURATES = not getattr(torch.cpu, "_is_vnni_supported", lambda: False)()
"""Whether sums of two products overflow 16 bits on this processor, unless activations have 7 bits only."""


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """weight (V, D) -> int8 (V, D), scales (V,) float32."""
    scale = weight.float().abs().amax(1) / 127.0
    scale = scale.clamp(min=torch.finfo(torch.float32).tiny)  # a row of zeros has a scale too
    return (weight.float() / scale.unsqueeze(1)).round().clamp(-127, 127).to(torch.int8), scale


def dequantize(weight: Tensor, scale: Tensor) -> Tensor:
    """int8 (V, D), scales (V,) -> float32 (V, D)."""
    return weight.float() * scale.unsqueeze(1)


class Int8Linear(nn.Module):
    """W x + b, by the engine `x86` (FBGEMM's kernels), or by `onednn`, which is the faster for very many outputs."""

    def __init__(self, weight: Tensor, bias: Tensor | None, *, engine: str = "x86") -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = pack(weight, bias, engine=engine)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., D) -> (..., V), float32."""
        if not x.numel():
            return x.new_zeros(*x.shape[:-1], self.out_features)
        return torch.ops.quantized.linear_dynamic(x.contiguous(), self.packed, reduce_range=SATURATES)


class Int8Embedding(nn.Module):
    """Rows of a table."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        numbers, scale = quantize(weight)
        self.register_buffer("numbers", numbers)
        self.register_buffer("scale", scale)

    numbers: Tensor
    scale: Tensor

    @property
    def weight(self) -> Tensor:
        """(V, D) float32, made anew each time it is asked for."""
        return dequantize(self.numbers, self.scale)

    def forward(self, ids: Tensor) -> Tensor:
        """ids (...) int64 -> (..., D), float32."""
        return nn.functional.embedding(ids, self.numbers).float() * self.scale[ids].unsqueeze(-1)


class Int8Kernel(nn.Module):
    """A recurrent layer in one direction, in place of `nn.LSTM` or `nn.GRU` with `batch_first`."""

    def __init__(self, kernel: Any) -> None:
        super().__init__()
        self.mode, self.input_size, self.hidden_size = kernel.mode, kernel.input_size, kernel.hidden_size
        biases = kernel.bias_ih_l0.float(), kernel.bias_hh_l0.float()
        self.given = pack(kernel.weight_ih_l0, biases[0])
        self.kept = pack(kernel.weight_hh_l0, biases[1])
        self.cell = torch.ops.quantized.make_quantized_cell_params_dynamic(self.given, self.kept, *biases, SATURATES)

    def forward(self, x: Tensor | PackedSequence, start: Any) -> tuple[Any, Any]:
        """As the module in whose place it stands: x (B, T, D), start (1, B, H), two of them for an LSTM, or None."""
        packed = x if isinstance(x, PackedSequence) else None
        data: Any = x if packed is None else packed.data
        if start is None:
            rows = len(data) if packed is None else int(packed.batch_sizes[0])
            zero = data.new_zeros(1, rows, self.hidden_size)
            start = (zero, zero) if self.mode == "LSTM" else zero
        elif packed is not None:
            start = _permuted(start, packed.sorted_indices)
        run: Any = torch.quantized_lstm if self.mode == "LSTM" else torch.quantized_gru
        how = {"dtype": torch.qint8, "use_dynamic": True} if self.mode == "LSTM" else {}
        if packed is None:
            states, *end = run(data.contiguous(), start, [self.cell], True, 1, 0.0, False, False, True, **how)
            return states, tuple(end) if self.mode == "LSTM" else end[0]
        states, *end = run(data, packed.batch_sizes, start, [self.cell], True, 1, 0.0, False, False, **how)
        ends = _permuted(tuple(end) if self.mode == "LSTM" else end[0], packed.unsorted_indices)
        return packed._replace(data=states), ends

    def products(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D), h (B, H) -> W x + b and U h + c, (B, gates * H) each."""
        times = torch.ops.quantized.linear_dynamic
        return times(x.contiguous(), self.given, SATURATES), times(h.contiguous(), self.kept, SATURATES)


def pack(weight: Tensor, bias: Tensor | None, *, engine: str = "x86") -> Any:
    """A matrix (V, D) and a bias (V,) as the kernels of `engine` take them."""
    numbers, scale = quantize(weight.detach())
    zero = torch.zeros(len(scale), dtype=torch.int64)
    with _engine(engine), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch's, that a later version will not have them any more
        quantized = torch._make_per_channel_quantized_tensor(numbers, scale.double(), zero, 0)
        return torch.ops.quantized.linear_prepack(quantized, None if bias is None else bias.detach().float())


@contextmanager
def _engine(name: str) -> Iterator[None]:
    """Torch has one for the whole process; a packed matrix keeps that which it was packed for."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = name
    try:
        yield
    finally:
        torch.backends.quantized.engine = before


def _permuted(state: Any, order: Tensor | None) -> Any:
    """A state (1, B, H), or a tuple of them, with its rows in another order."""
    if order is None:
        return state
    if isinstance(state, tuple):
        return tuple(part.index_select(1, order) for part in state)
    return state.index_select(1, order)
