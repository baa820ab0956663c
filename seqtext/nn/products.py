"""Matrix products and tanh by the fastest kernel at hand, for code that computes its own gradients or wants none.

Which is the fastest goes by who made the processor and not by a measurement, so that a run that goes on adds up in the
same order.
"""

from __future__ import annotations

import platform
from pathlib import Path

import torch
from torch import Tensor, nn

from seqtext.nn.room import filled


def _maker(about: Path = Path("/proc/cpuinfo")) -> str:
    """Who made the processor, or all that the system tells of it."""
    lines = about.read_text(encoding="utf-8", errors="replace").splitlines() if about.is_file() else []
    found = [line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")]
    return found[0] if found else platform.processor()


FAVOURED = torch.backends.mkl.is_available() and "Intel" in _maker()
"""Whether MKL, the BLAS and the tanh of torch's builds, takes its fast paths: on its own maker's processors."""
# The oneDNN kernel that torch's compiler puts in place of a linear layer. For float32 it is about twice as fast as the
# BLAS behind `torch.mm` on processors that MKL does not favour; on those that it does, of few rows it takes a third
# longer. It has no gradient.
ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
REORDERS = ONEDNN and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, turned: Tensor | None = None) -> Tensor:
    """x (N, D), weight (V, D), bias (V,) -> (N, V): x W' + b, without a gradient.

    `turned` (D, V) is W' as it lies in memory, where that is at hand: with it MKL takes two thirds of the time for few
    rows.
    """
    if x.device.type == "cpu" and x.dtype == torch.bfloat16:
        return nn.functional.linear(filled(x), weight, bias)[: len(x)]
    if x.device.type == "cpu" and x.dtype == torch.float32:
        if ONEDNN and not FAVOURED:
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        if turned is not None:
            return torch.mm(x, turned) if bias is None else torch.addmm(bias, x, turned)
    return nn.functional.linear(x, weight, bias)


def outer(x: Tensor, y: Tensor) -> Tensor:
    """x (N, V), y (N, D) -> (V, D): x' y, without a gradient."""
    if x.device.type == "cpu" and x.dtype == torch.bfloat16:
        return filled(x).t() @ filled(y)
    return product(x.t(), y.t())


def product_into(out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
    """Write `product` to out (N, V), whose rows may lie apart, and which may be of a wider number format."""
    if out.dtype != x.dtype or (x.device.type == "cpu" and not FAVOURED):
        out.copy_(product(x, weight, bias))
    elif bias is None:
        torch.mm(x, weight.t(), out=out)
    else:
        torch.addmm(bias, x, weight.t(), out=out)


def add_product(total: Tensor, x: Tensor, weight: Tensor) -> None:
    """Add `product` to the total (N, V), which may be of a wider number format. Rows are taken as they are."""
    if total.dtype != x.dtype:
        total.add_(nn.functional.linear(x, weight))
    elif x.device.type == "cpu" and not FAVOURED:
        total.add_(product(x, weight))
    else:
        total.addmm_(x, weight.t())


class Laid:
    """A weight (V, D) laid out once for many products with so many rows, on a CPU, without a gradient."""

    def __init__(self, weight: Tensor, rows: int) -> None:
        self.packed = REORDERS and not (FAVOURED and weight.dtype == torch.float32)
        """Whether oneDNN has laid it out; otherwise it is turned."""
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), rows)
        else:
            self.weight = weight.t().contiguous()

    def add(self, total: Tensor, x: Tensor) -> None:
        """Add x W', x (rows, D), to the total (rows, V), which may be of a wider number format."""
        add_laid(total, x, self.weight, self.packed)


def add_laid(total: Tensor, x: Tensor, weight: Tensor, packed: bool) -> None:
    """`Laid.add` as a function, of what a `Laid` has; also TorchScript."""
    if packed:
        none: list[int | float | complex | None] = []  # as TorchScript wants to know
        total.add_(torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", none, ""))
    elif total.dtype == x.dtype:
        total.addmm_(x, weight)
    else:
        total.add_(x @ weight)


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


def linear(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)` by the fastest way; a layer that stands in for a linear one does as it does."""
    if without_gradient(x) and type(layer) is nn.Linear:
        return product(x, layer.weight, layer.bias)
    return evenly(layer, x)


def evenly(layer: nn.Module, x: Tensor) -> Tensor:
    """`layer(x)`, x (..., D), of rows that are filled up (`room.filled`) where the layer is a linear one."""
    if type(layer) is not nn.Linear or not _compiled(x):
        return layer(x)
    rows = x.flatten(0, -2).bfloat16()
    return layer(filled(rows))[: len(rows)].unflatten(0, x.shape[:-1])


def batched(x: Tensor, y: Tensor) -> Tensor:
    """x @ y, (..., N, D) and (..., D, V), whose shape hardly comes twice: those are not worth a kernel of their own."""
    if not _compiled(x):
        return x @ y
    with torch.autocast("cpu", enabled=False):
        return (x.float() @ y.float()).bfloat16()


def _compiled(x: Tensor) -> bool:
    """Whether a product of x is in bfloat16 and on a CPU, which compiles a kernel for its shape."""
    cast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x.device.type == "cpu" and (cast or x.dtype == torch.bfloat16)


MINUS_ONE = torch.tensor(-1.0)
"""A tensor because torch makes one of a number at each use, which takes as long as a small sum."""


def tanh(x: Tensor) -> Tensor:
    """tanh(x), by 2 sigmoid(2 x) - 1, to within rounding, where torch's own takes seven times as long as its sigmoid.

    For float32: numbers of fewer digits lose too many where x is small.
    """
    if FAVOURED:
        return x.tanh()
    return torch.add(MINUS_ONE, (x + x).sigmoid_(), alpha=2)
