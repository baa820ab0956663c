"""Dropout whose mask is shared along an axis: over time (locked, Gal & Ghahramani 2016) or over features (words)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def keep_mask(shape: tuple[int, ...], keep: float, like: Tensor) -> Tensor:
    """A mask of ones with chance `keep`, and zeros: by `rand`, five times as fast on a CPU as `bernoulli_`."""
    return torch.rand(shape, device=like.device).lt_(keep).to(like.dtype)


class LockedDropout(nn.Module):
    """Variational dropout: one mask a sequence, the same at every time step (Gal & Ghahramani 2016, eq. 8)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D); the mask is (B, 1, D), scaled by 1 / (1 - p)."""
        if not self.training or self.p == 0.0:
            return x
        return x * self.mask(x, x.size(2))

    def mask(self, like: Tensor, size: int) -> Tensor:
        """A mask (B, 1, size) for rows like those of `like`: what `forward` multiplies by."""
        shape = like.size(0), 1, size
        if not self.training or self.p == 0.0:
            return like.new_ones(shape)
        keep = 1.0 - self.p
        return keep_mask(shape, keep, like).div_(keep)

    def extra_repr(self) -> str:
        return f"p={self.p}"


class WordDropout(nn.Module):
    """Drops whole words: all features of a position at once, so that the model learns to lean on the context.

    Not rescaled: what is dropped is a word, and the words that stay should look as they do at prediction.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T, D); the mask is (B, T, 1)."""
        if not self.training or self.p == 0.0:
            return x
        return x * keep_mask((x.size(0), x.size(1), 1), 1.0 - self.p, x)

    def extra_repr(self) -> str:
        return f"p={self.p}"
