"""Matrix products and tanh by the fastest kernel at hand, for code that computes its own gradients or wants none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

# The oneDNN kernel that torch's compiler puts in place of a linear layer. For float32 it is about twice as fast as the
# BLAS behind `torch.mm` on processors that MKL does not favour, and as fast elsewhere. It has no gradient.
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
REORDERS = ONEDNN and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
MANY = 8
"""Products that repay the layout."""


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N, D), weight (V, D), bias (V,) -> (N, V): x W' + b, without a gradient."""
    if ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


def repeated(weight: Tensor, rows: int, times: int) -> Callable[[Tensor], Tensor]:
    """`product` with weight (V, D) for x (rows, D), so many times: laid out for many once, it is a fifth faster."""
    fast = REORDERS and weight.device.type == "cpu" and weight.dtype == torch.float32
    if fast and rows and times >= MANY:
        laid = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        return lambda x: torch.ops.mkldnn._linear_pointwise(x, laid, None, "none", [], "")
    return lambda x: product(x, weight)


def without_gradient(x: Tensor, *, number: torch.dtype = torch.float32) -> bool:
    """Whether what is computed from x now is for prediction on a CPU in this number format.

    In float32, `product` is then the faster way.
    """
    return (
        ONEDNN
        and x.device.type == "cpu"
        and x.dtype == number
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer(x)`, by `product` where no gradient is wanted; a layer that stands in for a linear one does as it does."""
    return product(x, layer.weight, layer.bias) if without_gradient(x) and type(layer) is nn.Linear else layer(x)


MINUS_ONE = torch.tensor(-1.0)
"""A tensor because torch makes one of a number at each use, which takes as long as a small sum."""


def tanh(x: Tensor) -> Tensor:
    """tanh(x) = 2 sigmoid(2 x) - 1, to within rounding: torch's own takes seven times as long as its sigmoid on a CPU.

    For float32: numbers of fewer digits lose too many where x is small.
    """
    return torch.add(MINUS_ONE, (x + x).sigmoid_(), alpha=2)
