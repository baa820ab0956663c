"""GRUs over padded batches for the training of wide layers on a CPU, where torch has no fused kernel for them.

    r, z = s(W x_t + b + U h_{t-1} + c)     n = tanh(W x_t + b + r (U h_{t-1} + c))     h_t = (1 - z) n + z h_{t-1}

The directions of a layer take their steps together: that halves the calls. The products with x, and those for the
gradients of x, W and U, are one large product each, over all steps. What a step computes stays in the processor's
cache, and its gradient takes the place of what it kept, since memory that is new costs more than a sum of its size.
Gates and states are float32 where products are in fewer bits.

Shapes: S directions, T time, B batch, D features, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqtext.nn.products import Laid, product, product_into
from seqtext.nn.shared import ends

sigmoid_back = torch.ops.aten.sigmoid_backward.grad_input
tanh_back = torch.ops.aten.tanh_backward.grad_input


def wide_gru(readings: Sequence[Tensor], starts: Sequence[Tensor], weights: Sequence[list[Tensor]]) -> Tensor:
    """The states (S, T, B, H) of all steps, in float32.

    For each direction: what it reads, (T, B, D), the state before, (B, H), and weights as torch.gru takes them, in the
    number format of products.
    """
    w, u, b, c = (torch.stack(parts) for parts in zip(*weights))
    with torch.autocast("cpu", enabled=False):
        x = torch.stack([reading.to(w.dtype) for reading in readings])
        states: Tensor = _GRU.apply(x, torch.stack([start.float() for start in starts]), w, u, b.float(), c.float())
    return states


class _GRU(torch.autograd.Function):
    """x (S, T, B, D), h (S, B, H), W (S, 3H, D), U (S, 3H, H), b and c (S, 3H) -> states (S, T, B, H)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> Tensor:
        directions, steps, batch, _ = x.shape
        size, number = h.size(-1), w.dtype
        gates = 2 * size
        sums, n = h.new_empty(directions, steps, batch, 3 * size), h.new_empty(directions, steps, batch, size)
        for s, read in enumerate(x.flatten(1, 2)):
            of_both = (b[s, :gates] + c[s, :gates]).to(number)
            product_into(sums[s].flatten(0, 1)[:, :gates], read, w[s, :gates], of_both)
            product_into(n[s].flatten(0, 1), read, w[s, gates:], b[s, gates:].to(number))
        sums[..., gates:] = c[:, None, None, gates:]  # n has the bias of its product with h apart
        states = h.new_empty(directions, steps + 1, batch, size)
        states[:, 0] = h
        inputs = states if number == states.dtype else states.to(number)  # of the products with U
        onward = [Laid(each, batch) for each in u]
        for t in range(steps):
            for laid, total, before in zip(onward, sums[:, t], inputs[:, t]):
                laid.add(total, before)
            kept, new, after = sums[:, t], n[:, t], states[:, t + 1]
            r, z = kept[..., :gates].sigmoid_().chunk(2, dim=-1)
            new.addcmul_(r, kept[..., gates:]).tanh_()
            torch.lerp(new, states[:, t], z, out=after)
            if inputs is not states:
                inputs[:, t + 1] = after
        ctx.save_for_backward(x, w, u, sums, n, states, inputs)
        return states[:, 1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, w, u, sums, n, states, inputs = ctx.saved_tensors
        if not ends():  # what was kept is wanted again
            sums, n = sums.clone(), n.clone()
        directions, steps, batch, size = n.shape
        gates, number = 2 * size, w.dtype
        # The gradients of the products with h, in the number format of products.
        taken = sums if number == sums.dtype else sums.new_empty(sums.shape, dtype=number)
        back = [Laid(each.t(), batch) for each in u]
        now, before, other = n.new_zeros(3, directions, batch, size).unbind()
        for t in reversed(range(steps)):
            now.add_(grad[:, t])
            new, (r, z, seen) = n[:, t], sums[:, t].chunk(3, dim=-1)
            torch.sub(states[:, t], new, out=other).mul_(now)
            torch.mul(now, z, out=before)
            now.sub_(before)
            sigmoid_back(other, z, grad_input=z)
            tanh_back(now, new, grad_input=new)
            torch.mul(new, seen, out=other)
            torch.mul(new, r, out=seen)
            sigmoid_back(other, r, grad_input=r)
            if taken is not sums:
                taken[:, t] = sums[:, t]
            for laid, total, each in zip(back, before, taken[:, t]):
                laid.add(total, each)
            now, before = before, now

        of_x, of_w, of_u = torch.empty_like(x), torch.empty_like(w), torch.empty_like(u)
        for s, (read, of_sums, of_new) in enumerate(zip(x.flatten(1, 2), taken.flatten(1, 2), n.flatten(1, 2))):
            of_gates, of_new = of_sums[:, :gates], of_new.to(number)
            of_w[s, :gates], of_w[s, gates:] = product(of_gates.t(), read.t()), product(of_new.t(), read.t())
            of_u[s] = product(of_sums.t(), inputs[s, :-1].flatten(0, 1).t())
            if ctx.needs_input_grad[0]:
                of_x[s] = product(of_gates, w[s, :gates].t()).add_(product(of_new, w[s, gates:].t())).view(x[s].shape)
        of_c = sums.sum((1, 2))
        of_b = torch.cat([of_c[:, :gates], n.sum((1, 2))], dim=1)
        return of_x if ctx.needs_input_grad[0] else None, now, of_w, of_u, of_b, of_c
