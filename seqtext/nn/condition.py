"""A label that tells a recurrent net what to write: one-to-many, as the context of a decoder without attention.

condition = "initial"   the states of all layers begin as functions of the label (Sutskever 2014; Vinyals 2015)
condition = "input"     the label's vector is an extra input at every step (Mikolov & Zweig 2012)
condition = "both"      both (Cho 2014)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from seqtext.nn.cells import State
from seqtext.nn.products import linear

Condition = Literal["none", "initial", "input", "both"]


class Conditioning(nn.Module):
    """A vector for each label, and the states that it begins."""

    def __init__(self, labels: int, size: int, condition: Condition, sizes: Sequence[tuple[int, ...]]) -> None:
        """`sizes` are the features of each part of each layer's state."""
        super().__init__()
        self.sizes = list(sizes)
        self.vectors = nn.Embedding(labels, size)
        self.read = condition in ("input", "both")
        """Whether the label's vector is a part of every step's input."""
        starts = condition in ("initial", "both")
        self.bridge = nn.Linear(size, sum(map(sum, self.sizes))) if starts else None

    def start(self, labels: Tensor) -> list[State] | None:
        """labels (B,) int64 -> the state of each layer before the first step; None is the zero state."""
        if self.bridge is None:
            return None
        vectors = self.vectors(labels)
        # In one number format with the states that follow: autocast would make the first of another.
        begun = linear(self.bridge, vectors).tanh().to(vectors.dtype)
        parts = iter(begun.split([n for layer in self.sizes for n in layer], 1))
        return [tuple(next(parts) for _ in layer) for layer in self.sizes]

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (B, T, D), labels (B,) -> (B, T, D) or, where every step reads the label, (B, T, D + size)."""
        if not self.read:
            return x
        return torch.cat([x, self.vectors(labels).to(x.dtype).unsqueeze(1).expand(-1, x.size(1), -1)], dim=2)
