"""Attention of a decoder to the states of a source: a weight for each position, and the mean they make.

    keys = attention.keys(values (B, S, M))                             once a sentence
    attention(queries (B, T, H), values, keys, real (B, S)) -> context (B, T, M), weights (B, T, S)

The scores of a query q and a value m, with the names they go by in recipes:

    additive    v' tanh(W q + U m)          (Bahdanau 2015, appendix A.1.2)
    dot         q' m                        (Luong 2015, eq. 8)
    general     q' W m                      (Luong 2015, eq. 8)
    scaled      (W q)' (U m) / sqrt(d)      (Vaswani 2017, eq. 1)
    multihead   the same in several subspaces, each with its own weights (Vaswani 2017, section 3.2.2)

The queries of one sentence stand side by side, be they its time steps in training or its hypotheses in a beam: its keys
are read once for all of them.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.products import batched, linear

CHUNK = 1 << 24
"""Numbers of a hidden layer that exist at a time without a gradient, at most: 64 MB, however long source and target."""


class Additive(Config):
    """A hidden layer over query and state."""

    name: Literal["additive"] = "additive"
    size: int = Field(default=256, ge=1)
    """Features of the hidden layer."""
    coverage: bool = False
    """Let the hidden layer see how much attention a position had so far (Tu 2016; See 2017, eq. 11), step by step."""


class Dot(Config):
    """The product of query and state, which must have the same size."""

    name: Literal["dot"] = "dot"


class General(Config):
    """The bilinear product of query and state."""

    name: Literal["general"] = "general"


class Scaled(Config):
    """The product of projections of query and state, over the square root of their size."""

    name: Literal["scaled"] = "scaled"
    size: int = Field(default=256, ge=1)
    """Features of the projections."""


class MultiHead(Config):
    """Several attentions over projections of query and state, side by side."""

    name: Literal["multihead"] = "multihead"
    heads: int = Field(default=4, ge=1)
    """How many."""
    size: int = Field(default=64, ge=1)
    """Features of the projections of each."""


AttentionConfig = Additive | Dot | General | Scaled | MultiHead


class Attention(nn.Module):
    """Base: weights from scores, and the mean of the values under them."""

    covering = False
    """Whether scores depend on the attention of earlier steps."""

    def keys(self, values: Tensor) -> Tensor:
        """values (B, S, M) -> (B, S, A): what queries are compared with."""
        return values

    def scores(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        """queries (B, T, H), keys (B, S, A), coverage (B, T, S) -> (B, T, S)."""
        raise NotImplementedError

    def forward(
        self, queries: Tensor, values: Tensor, keys: Tensor, real: Tensor, coverage: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """queries (B, T, H), values (B, S, M), keys (B, S, A), real (B, S) -> context (B, T, M), weights (B, T, S).

        `coverage` (B, T, S) is the sum of the weights of earlier steps, for attention that reads it. Padded positions
        have the weight 0.
        """
        scores = self.scores(queries, keys, coverage).masked_fill(~real.unsqueeze(1), -math.inf)
        weights = scores.softmax(-1)
        return batched(weights.to(values.dtype), values), weights


class AdditiveAttention(Attention):
    def __init__(self, query_size: int, value_size: int, *, size: int, coverage: bool) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, size)
        self.key = nn.Linear(value_size, size, bias=False)
        self.score = nn.Linear(size, 1, bias=False)
        self.covering = coverage
        self.coverage = nn.Linear(1, size, bias=False) if coverage else None

    def keys(self, values: Tensor) -> Tensor:
        return linear(self.key, values)

    def scores(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        queries = linear(self.query, queries)
        if torch.is_grad_enabled():  # all of it is kept for the backward pass anyway
            return self._compare(queries, keys, coverage)
        steps = max(1, CHUNK // max(1, keys.numel()))
        covered = [None] * queries.size(1) if coverage is None else coverage.split(steps, dim=1)
        parts = [self._compare(part, keys, seen) for part, seen in zip(queries.split(steps, dim=1), covered)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _compare(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        """queries (B, T, A), keys (B, S, A), coverage (B, T, S) -> (B, T, S)."""
        hidden = queries.unsqueeze(2) + keys.unsqueeze(1)  # (B, T, S, A)
        if self.coverage is not None and coverage is not None:
            hidden = hidden + self.coverage(coverage.unsqueeze(3))
        return linear(self.score, hidden.tanh()).squeeze(3)


class DotAttention(Attention):
    def __init__(self, query_size: int, value_size: int) -> None:
        """Raises `ValueError` where the sizes differ."""
        super().__init__()
        if query_size != value_size:
            raise ValueError(
                f"'dot' compares states of one size; the decoder's have {query_size} features and the encoder's "
                f"{value_size}: choose 'general', or sizes that are the same"
            )

    def scores(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        return batched(queries, keys.transpose(1, 2))


class GeneralAttention(Attention):
    def __init__(self, query_size: int, value_size: int) -> None:
        super().__init__()
        self.key = nn.Linear(value_size, query_size, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        return linear(self.key, values)

    def scores(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        return batched(queries, keys.transpose(1, 2))


class ScaledAttention(Attention):
    def __init__(self, query_size: int, value_size: int, *, size: int) -> None:
        super().__init__()
        self.query = nn.Linear(query_size, size)
        self.key = nn.Linear(value_size, size, bias=False)
        self.factor = size**-0.5

    def keys(self, values: Tensor) -> Tensor:
        return linear(self.key, values)

    def scores(self, queries: Tensor, keys: Tensor, coverage: Tensor | None) -> Tensor:
        return batched(linear(self.query, queries) * self.factor, keys.transpose(1, 2))


class MultiHeadAttention(ScaledAttention):
    """Its weights, where they are asked for, are the mean over heads."""

    def __init__(self, query_size: int, value_size: int, *, heads: int, size: int) -> None:
        super().__init__(query_size, value_size, size=heads * size)
        self.heads, self.factor = heads, size**-0.5
        self.value = nn.Linear(value_size, heads * size, bias=False)
        self.output = nn.Linear(heads * size, value_size, bias=False)

    def keys(self, values: Tensor) -> Tensor:
        """(B, S, 2 A): keys, and the values as the heads mix them."""
        return torch.cat([linear(self.key, values), linear(self.value, values)], dim=2)

    def forward(
        self, queries: Tensor, values: Tensor, keys: Tensor, real: Tensor, coverage: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        keys, parts = map(self._split, keys.chunk(2, dim=2))  # (B, heads, S, A)
        asked = self._split(linear(self.query, queries) * self.factor)
        scores = batched(asked, keys.transpose(2, 3))  # (B, heads, T, S)
        weights = scores.masked_fill(~real[:, None, None], -math.inf).softmax(-1)
        mixed = batched(weights.to(parts.dtype), parts).transpose(1, 2).flatten(2)  # (B, T, heads * A)
        return linear(self.output, mixed), weights.mean(1)

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, heads * A) -> (B, heads, T, A)."""
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)


def build_attention(query_size: int, value_size: int, config: AttentionConfig) -> Attention:
    """The attention of `config`. Raises `ValueError` where sizes do not suit it."""
    if isinstance(config, Additive):
        return AdditiveAttention(query_size, value_size, size=config.size, coverage=config.coverage)
    if isinstance(config, Dot):
        return DotAttention(query_size, value_size)
    if isinstance(config, General):
        return GeneralAttention(query_size, value_size)
    if isinstance(config, Scaled):
        return ScaledAttention(query_size, value_size, size=config.size)
    return MultiHeadAttention(query_size, value_size, heads=config.heads, size=config.size)
