"""An LSTM over padded batches for wide layers in bfloat16 on a CPU, where the fused kernel's backward pass is slow.

    i, f, g, o = W x_t + U h_{t-1} + b        c_t = s(f) c_{t-1} + s(i) tanh(g)        h_t = s(o) tanh(c_t)

The products with x, and those for the gradients of x, W and U, are one large product each, over all steps; only the
recurrent product stays in the loop, its matrix packed once for all steps. Gates and cells are float32. For layers of
a thousand states it takes half the time of the fused kernel in training; for a few hundred the fused one is faster.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqtext.nn.products import FAVOURED

WIDE = 768 if FAVOURED else 512
"""States from which on this is the faster of the two: measured on processors with AMX and with AVX-512 alone."""
SUPPORTED = (
    torch.backends.mkldnn.is_available()
    and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
)


def suits(x: Tensor, hidden_size: int) -> bool:
    """Whether a layer over x (B, T, D) should run here: in training, on a CPU, under bfloat16 autocast, and wide."""
    return (
        SUPPORTED
        and hidden_size >= WIDE
        and x.device.type == "cpu"
        and x.numel() > 0
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


def wide_lstm(x: Tensor, state: tuple[Tensor, Tensor], weights: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """x (B, T, D), state (h, c) of (B, H), weights as torch.lstm takes them -> states (B, T, H), h and c (B, H).

    Products are in bfloat16.
    """
    w_ih, w_hh, b_ih, b_hh = weights
    with torch.autocast("cpu", enabled=False):
        x, w_ih, w_hh = (tensor.to(torch.bfloat16) for tensor in (x, w_ih, w_hh))
        h, c = (part.float() for part in state)
        states, h, c = _LSTM.apply(x.transpose(0, 1).contiguous(), h, c, w_ih, w_hh, (b_ih + b_hh).float())
    return states.transpose(0, 1), h, c


def _packed(weight: Tensor, rows: int) -> Tensor:
    """A weight laid out for `_times` with so many rows."""
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows)


def _times(x: Tensor, packed: Tensor) -> Tensor:
    """x (N, D), a packed weight (V, D) -> (N, V)."""
    return torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


class _LSTM(torch.autograd.Function):
    """Time first: x (T, B, D), h and c (B, H), W (4H, D), U (4H, H), b (4H,) -> states (T, B, H), last h and c."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, c: Tensor, w_ih: Tensor, w_hh: Tensor, bias: Tensor) -> Any:
        steps, batch, _ = x.shape
        size = w_hh.size(1)
        gates = nn.functional.linear(x.flatten(0, 1), w_ih, bias.to(x.dtype)).float().view(steps, batch, 4, size)
        cells, states = h.new_empty(steps + 1, batch, size), x.new_empty(steps + 1, batch, size)
        cells[0], states[0] = c, h
        squashed = torch.empty_like(cells[1:])  # tanh(c_t)
        packed = _packed(w_hh, batch)
        for t in range(steps):
            gate = gates[t].add_(_times(states[t], packed).view(batch, 4, size))
            gate[:, :2].sigmoid_()
            gate[:, 2].tanh_()
            gate[:, 3].sigmoid_()
            i, f, g, o = gate.unbind(1)
            torch.mul(f, cells[t], out=cells[t + 1]).addcmul_(i, g)
            torch.tanh(cells[t + 1], out=squashed[t])
            torch.mul(squashed[t], o, out=states[t + 1])
        ctx.save_for_backward(x, w_ih, w_hh, gates, cells, states, squashed)
        return states[1:], states[-1].float(), cells[-1].clone()

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor, grad_h: Tensor, grad_c: Tensor) -> Any:  # type: ignore[override]
        x, w_ih, w_hh, gates, cells, states, squashed = ctx.saved_tensors
        steps, batch, _ = x.shape
        size = w_hh.size(1)
        i, f, g, o = gates.unbind(2)
        # What each gate's gradient is of that of the cell (i, f, g) or of the state (o), for all steps at once.
        factors = torch.empty_like(gates)
        torch.mul(g, i * (1 - i), out=factors[:, :, 0])
        torch.mul(cells[:-1], f * (1 - f), out=factors[:, :, 1])
        torch.mul(i, 1 - g * g, out=factors[:, :, 2])
        torch.mul(squashed, o * (1 - o), out=factors[:, :, 3])
        into = o * (1 - squashed * squashed)  # from a state to its cell
        grads = torch.empty(gates.shape, dtype=x.dtype)
        grad_states, grad_h, grad_c = grad_states.float(), grad_h.float().clone(), grad_c.float().clone()
        packed = _packed(w_hh.t().contiguous(), batch)
        for t in reversed(range(steps)):
            grad_h.add_(grad_states[t])
            grad_c.addcmul_(grad_h, into[t])
            gate = factors[t]
            gate[:, :3].mul_(grad_c.unsqueeze(1))
            gate[:, 3].mul_(grad_h)
            grads[t] = gate
            grad_c.mul_(f[t])
            grad_h = _times(grads[t].view(batch, 4 * size), packed).float()
        flat = grads.view(steps * batch, 4 * size)
        grad_x = (flat @ w_ih).view(x.shape) if ctx.needs_input_grad[0] else None
        grad_w, grad_u = flat.t() @ x.flatten(0, 1), flat.t() @ states[:-1].flatten(0, 1)
        return grad_x, grad_h, grad_c, grad_w, grad_u, factors.sum((0, 1)).flatten()
