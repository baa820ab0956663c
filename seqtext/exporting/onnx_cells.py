"""Recurrent layers as ONNX has them: one operator a layer and direction, over any number of steps.

Torch would trace its own kernels as one product a step, for the one number of steps that it was shown. So while a
module is traced, each layer is an operator of ours, which exists in traced graphs only and has the shapes, the order of
gates and the layout of ONNX's; the exporter then writes that one in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from seqtext.nn.fused import Fused

GATES: dict[str, tuple[int, ...]] = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN_TANH": (0,), "RNN_RELU": (0,)}
"""Torch's blocks of rows in the order of ONNX: i o f c of i f g o, z r h of r z n."""
LIBRARY = torch.library.Library("seqtext_onnx", "DEF")
LIBRARY.define("lstm(Tensor x, Tensor w, Tensor r, Tensor b, Tensor h, Tensor c, int size) -> (Tensor, Tensor, Tensor)")
for _name in ("gru", "rnn_tanh", "rnn_relu"):
    LIBRARY.define(f"{_name}(Tensor x, Tensor w, Tensor r, Tensor b, Tensor h, int size) -> (Tensor, Tensor)")


def _shapes(x: Tensor, w: Tensor, r: Tensor, b: Tensor, h: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    """x (T,B,D), w (1,G,D), r (1,G,H), b (1,2G), states (1,B,H) -> states (T,1,B,H), the last of them (1,B,H)."""
    *cells, size = rest
    return (x.new_empty(x.size(0), 1, x.size(1), size), torch.empty_like(h), *map(torch.empty_like, cells))


for _name in ("lstm", "gru", "rnn_tanh", "rnn_relu"):
    torch.library.register_fake(f"seqtext_onnx::{_name}", _shapes, lib=LIBRARY)


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What the exporter writes for each of the operators."""
    from onnxscript import opset18 as op

    def lstm(x: Any, w: Any, r: Any, b: Any, h: Any, c: Any, size: int) -> Any:
        return op.LSTM(x, w, r, b, None, h, c, hidden_size=size)

    def gru(x: Any, w: Any, r: Any, b: Any, h: Any, size: int) -> Any:
        return op.GRU(x, w, r, b, None, h, hidden_size=size, linear_before_reset=1)

    def rnn_tanh(x: Any, w: Any, r: Any, b: Any, h: Any, size: int) -> Any:
        return op.RNN(x, w, r, b, None, h, hidden_size=size, activations=["Tanh"])

    def rnn_relu(x: Any, w: Any, r: Any, b: Any, h: Any, size: int) -> Any:
        return op.RNN(x, w, r, b, None, h, hidden_size=size, activations=["Relu"])

    ops = torch.ops.seqtext_onnx
    return {
        ops.lstm.default: lstm,
        ops.gru.default: gru,
        ops.rnn_tanh.default: rnn_tanh,
        ops.rnn_relu.default: rnn_relu,
    }


class OnnxKernel(nn.Module):
    """In place of a cell's kernel while it is traced."""

    def __init__(self, kernel: Any) -> None:
        super().__init__()
        self.mode, self.size = kernel.mode, kernel.hidden_size
        for name, parts in {
            "w": (kernel.weight_ih_l0,),
            "r": (kernel.weight_hh_l0,),
            "b": (kernel.bias_ih_l0, kernel.bias_hh_l0),
        }.items():
            ordered = [part.detach().chunk(len(GATES[self.mode]))[gate] for part in parts for gate in GATES[self.mode]]
            self.register_buffer(name, torch.cat(ordered).unsqueeze(0))

    def forward(self, x: Tensor, start: Any) -> tuple[Tensor, Any]:
        """x (B,T,D), start (1,B,H), two of them for an LSTM, or None -> states (B,T,H), the last."""
        if start is None:
            zero = x.new_zeros(1, x.size(0), self.size)
            start = (zero, zero) if self.mode == "LSTM" else zero
        given = start if isinstance(start, tuple) else (start,)
        run = getattr(torch.ops.seqtext_onnx, self.mode.lower())
        states, *end = run(x.transpose(0, 1), self.w, self.r, self.b, *given, self.size)
        return states.squeeze(1).transpose(0, 1), tuple(end) if self.mode == "LSTM" else end[0]


@contextmanager
def traceable(module: nn.Module) -> Iterator[None]:
    """The module's recurrent layers as ONNX has them, while this lasts."""
    before = [(cell, cell.kernel) for cell in module.modules() if isinstance(cell, Fused)]
    try:
        for cell, kernel in before:
            cell.kernel = OnnxKernel(kernel)
        yield
    finally:
        for cell, kernel in before:
            cell.kernel = kernel
