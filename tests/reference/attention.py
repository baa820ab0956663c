"""Attention by the equations of the papers: one query, position by position, from the matrices of a module."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from seqtext.nn.attention import (
    AdditiveAttention,
    Attention,
    DotAttention,
    GeneralAttention,
    MultiHeadAttention,
    ScaledAttention,
)


def softmax(scores: list[Tensor]) -> list[Tensor]:
    total = sum(score.exp() for score in scores)
    return [score.exp() / total for score in scores]


def mean(weights: list[Tensor], values: list[Tensor]) -> Tensor:
    return torch.stack([weight * value for weight, value in zip(weights, values)]).sum(0)


def attend(module: Attention, query: Tensor, values: list[Tensor], covered: Tensor) -> tuple[Tensor, list[Tensor]]:
    """One query (H,), the states (M,) of a source, how much of each was attended to before -> context, weights."""
    if isinstance(module, MultiHeadAttention):
        return heads(module, query, values)
    scores = []
    for place, value in enumerate(values):
        if isinstance(module, AdditiveAttention):
            # Bahdanau 2015, A.1.2: v' tanh(W s + U h); See 2017, eq. 11: v' tanh(W h + V s + w c + b).
            inner = module.query.weight @ query + module.query.bias + module.key.weight @ value
            if module.coverage is not None:
                inner = inner + module.coverage.weight[:, 0] * covered[place]
            scores.append(module.score.weight[0] @ inner.tanh())
        elif isinstance(module, DotAttention):
            scores.append(query @ value)  # Luong 2015, eq. 8
        elif isinstance(module, GeneralAttention):
            scores.append(query @ (module.key.weight @ value))  # the same
        elif isinstance(module, ScaledAttention):
            one, other = module.query.weight @ query + module.query.bias, module.key.weight @ value
            scores.append(one @ other / math.sqrt(len(one)))  # Vaswani 2017, eq. 1
        else:
            raise NotImplementedError(f"say here by which equation a {type(module).__name__} scores")
    weights = softmax(scores)
    return mean(weights, values), weights


def heads(module: MultiHeadAttention, query: Tensor, values: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Vaswani 2017, section 3.2.2: each head has rows of its own in the three matrices; the weights are their mean."""
    found, seen = [], []
    size = module.query.out_features // module.heads
    for head in range(module.heads):
        rows = slice(head * size, (head + 1) * size)
        one = module.query.weight[rows] @ query + module.query.bias[rows]
        scores = [one @ (module.key.weight[rows] @ value) / math.sqrt(size) for value in values]
        weights = softmax(scores)
        found.append(mean(weights, [module.value.weight[rows] @ value for value in values]))
        seen.append(weights)
    return module.output.weight @ torch.cat(found), [torch.stack(column).mean() for column in zip(*seen)]
