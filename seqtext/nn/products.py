"""Matrix products by the fastest kernel at hand, for code that computes its own gradients."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# The oneDNN kernel that torch's compiler puts in place of a linear layer. For float32 it is about twice as fast as the
# BLAS behind `torch.mm` on processors that MKL does not favour, and as fast elsewhere. It has no gradient.
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x (N, D), weight (V, D), bias (V,) -> (N, V): x W' + b, without a gradient."""
    if ONEDNN and x.device.type == "cpu" and x.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return nn.functional.linear(x, weight, bias)


def without_gradient(x: Tensor) -> bool:
    """Whether what is computed from x now is for prediction in float32 on a CPU, where `product` is the faster way."""
    return (
        ONEDNN
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and not torch.is_grad_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """`layer(x)`, by `product` where no gradient is wanted; a layer that stands in for a linear one does as it does."""
    return product(x, layer.weight, layer.bias) if without_gradient(x) and type(layer) is nn.Linear else layer(x)
