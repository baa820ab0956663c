"""GRUs over padded batches on a CPU, where torch has no fused kernel for them.

    r, z = s(W x_t + b + U h_{t-1} + c)     n = tanh(W x_t + b + r (U h_{t-1} + c))     h_t = (1 - z) n + z h_{t-1}

The products with x, and those for the gradients of x, W and U, are one large product each, over all steps. What a step
computes stays in the processor's cache, and its gradient takes the place of what it kept, since memory that is new
costs more than a sum of its size. Gates and states are float32 where products are in fewer bits.

Shapes: T time, B batch, D features, H hidden. A step's sums (B, 4 H) are those of U h + c for n, of r, of z, and of
W x + b for n: so both W and U make three blocks side by side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqtext.nn.products import Laid, add_laid, outer, product, product_into
from seqtext.nn.scripted import scripted
from seqtext.nn.shared import ends


def wide_gru(x: Tensor, start: Tensor, weights: list[Tensor]) -> Tensor:
    """What is read (T, B, D), the state before (B, H), weights as torch.gru takes them -> states (T, B, H), float32.

    Products are in the number format of the weights.
    """
    w, u, b, c = weights
    with torch.autocast("cpu", enabled=False):
        x = x.to(w.dtype, memory_format=torch.contiguous_format).contiguous()  # one copy, for both passes
        states: Tensor = _GRU.apply(x, start.float(), w, u, b.float(), c.float())
    return states


class _GRU(torch.autograd.Function):
    """x (T, B, D), h (B, H), W (3 H, D), U (3 H, H), b and c (3 H,) -> states (T, B, H)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, h: Tensor, w: Tensor, u: Tensor, b: Tensor, c: Tensor) -> Tensor:
        (steps, batch, _), size = x.shape, h.size(1)
        bias = b.clone()
        bias[: 2 * size] += c[: 2 * size]
        sums = h.new_empty(steps, batch, 4 * size)
        product_into(sums.flatten(0, 1)[:, size:], x.flatten(0, 1), w, bias.to(w.dtype))
        sums[..., :size] = c[2 * size :]
        states = h.new_empty(steps + 1, batch, size)
        states[0] = h
        inputs = states.to(w.dtype)  # of the products with U; the states themselves in float32
        laid = Laid(u.roll(size, 0), batch)
        _onward(sums, states, inputs, laid.weight, laid.packed)
        ctx.save_for_backward(x, w, u, sums, states, inputs)
        return states[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        x, w, u, sums, states, inputs = ctx.saved_tensors
        if not ends():  # what was kept is wanted again
            sums = sums.clone()
        size, number = u.size(1), w.dtype
        with torch.autocast("cpu", enabled=False):
            # The gradients of the sums in the number format of products.
            taken = sums if number == sums.dtype else torch.empty_like(sums, dtype=number)
            laid = Laid(u.roll(size, 0).t(), grad.size(1))
            of_h = _back(grad, sums, states, taken, laid.weight, laid.packed)
            read, flat = x.flatten(0, 1), taken.flatten(0, 1)
            of_x = product(flat[:, size:], w.t()).view(x.shape) if ctx.needs_input_grad[0] else None
            of_w = outer(flat[:, size:], read)
            of_u = outer(flat[:, : 3 * size], inputs[:-1].flatten(0, 1)).roll(-size, 0)
            total = sums.sum((0, 1))
        return of_x, of_h, of_w, of_u, total[size:], total[: 3 * size].roll(-size)


@scripted
def _onward(sums: Tensor, states: Tensor, inputs: Tensor, laid: Tensor, packed: bool) -> None:
    """Add the products with U to the sums (T, B, 4 H), put the gates in their place, and write the states after.

    States and inputs, (T + 1, B, H), are one tensor where the number format of products is float32.
    """
    size = states.size(2)
    apart = inputs.dtype != states.dtype
    read, before = inputs.unbind(), states.unbind()
    for t, total in enumerate(sums.unbind()):
        add_laid(total[:, : 3 * size], read[t], laid, packed)
        total[:, size : 3 * size].sigmoid_()
        seen, r, z, new = total.chunk(4, dim=1)
        new.addcmul_(r, seen).tanh_()
        torch.lerp(new, before[t], z, out=before[t + 1])
        if apart:
            read[t + 1].copy_(before[t + 1])


@scripted
def _back(grad: Tensor, sums: Tensor, states: Tensor, taken: Tensor, laid: Tensor, packed: bool) -> Tensor:
    """The gradient of the states (T, B, H) -> that of the state before; those of the sums take their place.

    `taken` (T, B, 4 H) gets them in the number format of products, where it is another tensor.
    """
    size = states.size(2)
    apart = taken.dtype != sums.dtype
    of, read, totals, before = grad.unbind(), taken.unbind(), sums.unbind(), states.unbind()
    now = torch.zeros_like(before[0])
    past, other = torch.empty_like(now), torch.empty_like(now)
    for i in range(len(totals)):
        t = len(totals) - 1 - i
        now.add_(of[t])
        seen, r, z, new = totals[t].chunk(4, dim=1)
        torch.sub(before[t], new, out=other).mul_(now)
        torch.mul(now, z, out=past)
        now.sub_(past)
        torch.ops.aten.sigmoid_backward(other, z, grad_input=z)
        torch.ops.aten.tanh_backward(now, new, grad_input=new)
        torch.mul(new, seen, out=other)
        torch.mul(new, r, out=seen)
        torch.ops.aten.sigmoid_backward(other, r, grad_input=r)
        if apart:
            read[t].copy_(totals[t])
        add_laid(past, read[t][:, : 3 * size], laid, packed)
        now, past = past, now
    return now
