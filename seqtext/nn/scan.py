"""h_t = a_t h_{t-1} + b_t for all t at once, in a number of steps that grows with the logarithm of T.

Two steps in a row are one: (a, b) then (a', b') is (a' a, a' b + b'). So neighbours are joined, the sequence of half
the length is solved in the same way, and each step between takes one more (Blelloch 1990, "Prefix sums and their
applications"). That is two multiplications and an addition for each t, and twice as many in all.

With 0 <= a <= 1 no product can overflow, and one that vanishes is of a past that is forgotten: no logarithms are
needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def scan(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """a and b (T, ...), start (...) -> h_1 ... h_T (T, ...), with h_0 = start. Its gradient is a scan too."""
    return _Scan.apply(a, torch.cat([torch.addcmul(b[:1], a[:1], start), b[1:]]))


def _scan(a: Tensor, b: Tensor) -> Tensor:
    """From nothing: a_1 is not read."""
    steps = len(b)
    if steps == 1:
        return b
    h = torch.empty_like(b)
    even = steps - steps % 2
    # Steps 2, 4, ... counted from 1, each joined with the one before it.
    joined = torch.addcmul(b[1:even:2], a[1:even:2], b[0:even:2])
    h[1:even:2] = _scan(a[1:even:2] * a[0:even:2], joined)
    h[0] = b[0]
    torch.addcmul(b[2::2], a[2::2], h[1 : steps - 1 : 2], out=h[2::2])
    return h


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        h = _scan(a, b)
        ctx.save_for_backward(a, h)
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        """g_t = grad_t + a_{t+1} g_{t+1}, from the last to the first; of a_t it is g_t h_{t-1}."""
        a, h = ctx.saved_tensors
        turned = torch.cat([a[:1], a[1:].flip(0)])
        g = _scan(turned, grad.flip(0)).flip(0)
        grad_a = torch.zeros_like(a)
        torch.mul(g[1:], h[:-1], out=grad_a[1:])
        return grad_a, g
