"""A linear read-out that estimates probabilities, as ridge regression on classes gives it.

The regression of indicators y_c on features x has E[y_c | x] = p(c | x) for its target, so that W x + b estimates
probabilities themselves and no logits (Hastie, Tibshirani & Friedman 2009, section 4.2). As an estimate may be
negative, or zero for what does happen, each is raised to a floor, a share of how frequent the class is; all are then
divided by their sum.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from seqtext.nn.softmax import Softmax


class Readout(Softmax):
    """p(c | x) = max(W x + b, floor)_c / sum; with the face of a softmax. It is solved for, not trained."""

    floor: Tensor

    def __init__(self, input_size: int, classes: int) -> None:
        super().__init__(input_size, classes)
        nn.init.zeros_(self.weight)
        self.requires_grad_(False)
        self.register_buffer("floor", torch.full((classes,), 1.0 / classes))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., F) -> log max(W x + b, floor) (..., C) float32: logits, a softmax of which are the probabilities."""
        with torch.autocast(x.device.type, enabled=False):
            scores = nn.functional.linear(x.to(self.weight.dtype), self.weight, self.bias).float()
            return scores.maximum(self.floor.float()).log()

    def logits(self, hidden: Tensor) -> Tensor:
        return self(hidden)

    def writer(self) -> Callable[[Tensor, Tensor], object]:
        return lambda out, hidden: out.copy_(self(hidden))

    def loss(self, hidden: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """hidden (N, F), targets (N,) int64 with -1 where there is none -> () summed loss, without a gradient."""
        return self.nll(hidden, targets).sum()


def readout_of(module: nn.Module) -> Readout | None:
    """The read-out of a module that has one."""
    return next((part for part in module.modules() if isinstance(part, Readout)), None)


def build_output(input_size: int, classes: int, encoder: object) -> nn.Linear | Readout:
    """What reads classes from the states of an encoder: solved for where its `readout` says so."""
    ridge = getattr(encoder, "readout", "softmax") == "ridge"
    return Readout(input_size, classes) if ridge else nn.Linear(input_size, classes)
