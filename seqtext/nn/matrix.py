"""A weight matrix as the steps of one forward pass use it: drawn once, in the number format of products."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from seqtext.nn.products import product
from seqtext.nn.shared import Shared, Unshared

Product: TypeAlias = Any
"""`Shared` or, without a gradient, `Unshared`: x (N, I) -> (N, O), in the number format of x."""


class Matrix(nn.Module):
    """W x + b as the steps of one pass use it: W (O, I), b (O,) where it has one."""

    mask: Tensor | None

    def __init__(self, columns: int, rows: int, *, bias: bool = False, mask: Tensor | None = None) -> None:
        """`mask` (O, I) has 0 at entries that are always 0. Of no column there is no W, and b is all."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns)) if columns else None
        self.bias = nn.Parameter(torch.empty(rows)) if bias else None
        self.register_buffer("mask", mask, persistent=False)

    def drawn(self, *, drop: float = 0.0) -> tuple[Tensor, Tensor | None]:
        """W, a share of its entries dropped, and b, in the number format that products are computed in."""
        assert self.weight is not None
        weight = self.weight if self.mask is None else self.weight * self.mask
        weight = formatted(dropped(weight, drop))
        return weight, None if self.bias is None else self.bias.to(weight.dtype)

    def begin(self, *, drop: float = 0.0, biased: bool = True) -> Product:
        """The product for one forward pass, a share of the entries of W dropped, with the bias where wanted."""
        weight, bias = self.drawn(drop=drop)
        return begun(weight, bias if biased else None)

    def over(self, x: Tensor, *, biased: bool = True) -> Tensor:
        """x (T, B, I) -> (T, B, O), in one product; in float32 at least."""
        found = self.begin(biased=biased)(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return found.to(torch.promote_types(x.dtype, torch.float32))


def dropped(weight: Tensor, share: float) -> Tensor:
    """W with a share of its entries dropped, the others grown by it."""
    if not share:
        return weight
    # Drawn by `rand`, which is five times faster on a CPU than dropout's own `bernoulli_`.
    return weight * torch.rand_like(weight).lt_(1.0 - share).div_(1.0 - share)


def formatted(weight: Tensor) -> Tensor:
    """W in the number format that products are computed in."""
    device = weight.device.type
    return weight.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else weight


def begun(weight: Tensor, bias: Tensor | None) -> Product:
    """The product with W (O, I) and b (O,) for one forward pass."""
    if torch.is_grad_enabled():
        return Shared(weight, bias)
    return Unshared(lambda x: product(x.to(weight.dtype), weight, bias).to(x.dtype))
