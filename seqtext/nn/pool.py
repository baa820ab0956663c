"""Pooling: the states of a text as one vector, over real positions only.

Last state, maximum (Collobert 2011), mean, the p-norm between the two (Lp pooling, Sermanet 2012), additive attention
(Bahdanau 2015; over a text without a query, Yang 2016, eq. 5-7), or all states side by side up to a fixed length.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.products import linear


class States(NamedTuple):
    """What an encoder hands on for each position of each text."""

    values: Tensor
    """(B, T, H); arbitrary but finite at padded positions."""
    lengths: Tensor
    """(B,) int64, CPU: positions that are real, at least one."""

    def real(self) -> Tensor:
        """(B, T, 1) bool."""
        steps = torch.arange(self.values.size(1), device=self.values.device)
        return (steps < self._ends()).unsqueeze(2)

    def _ends(self) -> Tensor:
        """(B, 1) int64, beside the values."""
        return self.lengths.to(self.values.device, non_blocking=True).unsqueeze(1)


class LastConfig(Config):
    """The state of the last word; where a text was read in both directions, each direction's own last one."""

    name: Literal["last"] = "last"


class MaxConfig(Config):
    """The largest value of each feature."""

    name: Literal["max"] = "max"


class MeanConfig(Config):
    """The mean of each feature."""

    name: Literal["mean"] = "mean"


class LpConfig(Config):
    """The p-norm of each feature, as a mean over positions: (mean |x|^p)^(1/p)."""

    name: Literal["lp"] = "lp"
    p: float = Field(default=2.0, ge=1.0)
    """The power: 1 is the mean of sizes, and the larger it is, the nearer to their maximum."""


class AttentionConfig(Config):
    """A mean whose weights are learned: softmax over positions of v tanh(W x + b)."""

    name: Literal["attention"] = "attention"
    size: int = Field(default=100, ge=1)
    """Features of the hidden layer that the weights are read from."""


class FlattenConfig(Config):
    """All states side by side, with zeros up to those of a text of `data.max_tokens`."""

    name: Literal["flatten"] = "flatten"


PoolConfig = LastConfig | MaxConfig | MeanConfig | LpConfig | AttentionConfig | FlattenConfig


class Last(nn.Module):
    """The last state, or both ends: the forward half at the last word, the backward half at the first."""

    def __init__(self, size: int, *, directions: int) -> None:
        super().__init__()
        self.output_size, self.directions = size, directions

    def forward(self, states: States) -> Tensor:
        """(B, T, H) -> (B, H)."""
        values = states.values
        last = (states._ends() - 1).clamp(min=0).unsqueeze(2)  # (B, 1, 1)
        ends = values.gather(1, last.expand(-1, 1, values.size(2))).squeeze(1)
        if self.directions == 1:
            return ends
        half = values.size(2) // 2
        return torch.cat([ends[:, :half], values[:, 0, half:]], dim=1)


class Max(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.output_size = size

    def forward(self, states: States) -> Tensor:
        """(B, T, H) -> (B, H)."""
        return states.values.masked_fill(~states.real(), -torch.inf).max(1).values


class Mean(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.output_size = size

    def forward(self, states: States) -> Tensor:
        """(B, T, H) -> (B, H)."""
        return states.values.masked_fill(~states.real(), 0.0).sum(1) / states._ends()


class Lp(nn.Module):
    def __init__(self, size: int, *, p: float) -> None:
        super().__init__()
        self.output_size, self.p = size, p

    def forward(self, states: States) -> Tensor:
        """(B, T, H) -> (B, H)."""
        powers = states.values.masked_fill(~states.real(), 0.0).abs().pow(self.p)
        # The root has no gradient at zero, which is where a feature cut off by relu stands in every state.
        return (powers.sum(1) / states._ends()).clamp(min=1e-24).pow(1.0 / self.p)


class Attention(nn.Module):
    def __init__(self, size: int, *, hidden_size: int) -> None:
        super().__init__()
        self.output_size = size
        self.hidden = nn.Linear(size, hidden_size)
        self.score = nn.Linear(hidden_size, 1, bias=False)

    def forward(self, states: States) -> Tensor:
        """(B, T, H) -> (B, H)."""
        return (self.weights(states) * states.values.masked_fill(~states.real(), 0.0)).sum(1)

    def weights(self, states: States) -> Tensor:
        """(B, T, H) -> (B, T, 1): what of each text is looked at, 1 in all, 0 at padded positions."""
        scores = linear(self.score, linear(self.hidden, states.values).tanh())
        return scores.masked_fill(~states.real(), -torch.inf).softmax(1)


class Flatten(nn.Module):
    def __init__(self, size: int, *, length: int) -> None:
        super().__init__()
        self.output_size, self.length = size * length, length

    def forward(self, states: States) -> Tensor:
        """(B, T, H) -> (B, length * H)."""
        values = states.values.masked_fill(~states.real(), 0.0)[:, : self.length]
        return nn.functional.pad(values, (0, 0, 0, self.length - values.size(1))).flatten(1)


class Pool(nn.Module):
    """One way to pool, for each of an encoder's outputs, and the results side by side."""

    def __init__(self, config: PoolConfig, sizes: Sequence[int], *, lengths: Sequence[int], directions: int) -> None:
        """`sizes` are the features of each output, `lengths` its positions for the longest text there may be."""
        super().__init__()
        self.parts = nn.ModuleList()
        self.output_size = 0
        for size, length in zip(sizes, lengths, strict=True):
            part: Last | Max | Mean | Lp | Attention | Flatten
            if isinstance(config, LastConfig):
                part = Last(size, directions=directions)
            elif isinstance(config, MaxConfig):
                part = Max(size)
            elif isinstance(config, MeanConfig):
                part = Mean(size)
            elif isinstance(config, LpConfig):
                part = Lp(size, p=config.p)
            elif isinstance(config, AttentionConfig):
                part = Attention(size, hidden_size=config.size)
            else:
                part = Flatten(size, length=length)
            self.parts.append(part)
            self.output_size += part.output_size

    def forward(self, outputs: Sequence[States]) -> Tensor:
        """Each of (B, T, H) -> (B, output_size)."""
        return torch.cat([part(states) for part, states in zip(self.parts, outputs, strict=True)], dim=1)
