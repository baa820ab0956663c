"""Few shapes: what sizes are filled up to where each costs a recording of a GPU or a kernel compiled for a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEAST = 32
"""Rows of which a product in bfloat16 takes about as long as one of fewer: it reads the weights."""


def room(count: int, *, least: int = 8) -> int:
    """What a size is filled up to: a multiple of `least`, above it one of four to eight sizes from a power of 2 to the
    next."""
    step = max(least, 2 ** (count.bit_length() - 3))
    return -(-count // step) * step


def filled(x: Tensor) -> Tensor:
    """x (N, ...), with rows of zeros behind it where a product over its rows would have a kernel compiled for them.

    In bfloat16 a CPU has one for each shape, which takes longer to compile than to run, and keeps only the last ones.
    """
    if x.device.type != "cpu" or x.dtype != torch.bfloat16 or len(x) < 2:
        return x
    more = room(len(x), least=LEAST) - len(x)
    return nn.functional.pad(x, [0, 0] * (x.dim() - 1) + [0, more]) if more else x
