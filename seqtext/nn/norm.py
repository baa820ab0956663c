"""Normalisation of one vector an example: over its features or over the batch."""

from __future__ import annotations

from torch import Tensor, nn


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation (Ioffe & Szegedy 2015) that takes batches of any size.

    A batch of one has no variance, and a process may get an empty share of a batch: these go through the running
    statistics, in training too.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x (B, D) -> (B, D)."""
        if x.size(0) > 1 or not self.training:
            return super().forward(x)
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def build_norm(name: str, size: int) -> nn.Module:
    """ "none", "batch" or "layer" (Ba 2016), over (B, size)."""
    if name == "batch":
        return BatchNorm(size)
    return nn.LayerNorm(size) if name == "layer" else nn.Identity()
