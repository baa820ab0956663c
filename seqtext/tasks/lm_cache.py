"""The neural cache: words that came lately are more probable, the more so where the model's state was alike.

Grave, Joulin & Usunier 2017, "Improving neural language models with a continuous cache", equations 3 to 5. The cache
before step t holds the last N pairs (h_i, x_{i+1}) of a state and the word that came next, and

    p_cache(w) ~ sum_i 1[w = x_{i+1}] exp(theta h_t . h_i)        p(w) = (1 - lambda) p_vocab(w) + lambda p_cache(w)

The states h are those that words are predicted from (`Hidden.outputs`): the last layer's, after the projection where
there is one. Before the first pair, p is p_vocab. Nothing is learned, and nothing is looked up token by token: a window
is scored by two products of matrices, whatever lies in the cache of each of its steps by a mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

THETAS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0)
"""The grid of theta; 0 is a cache that counts words alone (Kuhn & De Mori 1990)."""
WEIGHTS = (0.0, 0.01, 0.02, 0.05, 0.07, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)
"""The grid of lambda; 0 is no cache."""


@dataclass(frozen=True, kw_only=True)
class Cache:
    """Settings of a neural cache."""

    size: int
    """N: pairs it holds."""
    theta: float = 0.3
    """How much more a state counts for being alike; 0 or more."""
    weight: float = 0.1
    """lambda: the cache's share of the probability, in [0, 1)."""

    def __str__(self) -> str:
        return f"neural cache of {self.size:,} pairs (theta {self.theta:g}, lambda {self.weight:g})"

    def facts(self) -> dict[str, float]:
        return {"size": self.size, "theta": self.theta, "lambda": self.weight}


class History(NamedTuple):
    """What is carried from window to window: the last n steps, n <= N."""

    states: Tensor
    """(B, n, E)."""
    tokens: Tensor
    """(B, n) int64: the tokens read at those steps; so the word after a step is the token of the next one."""


def log_cached(
    outputs: Tensor, inputs: Tensor, targets: Tensor, history: History | None, *, size: int, thetas: Sequence[float]
) -> tuple[Tensor, History]:
    """log p_cache of the targets for each theta (G, B, T), NaN where the cache is empty; and the history after it all.

    outputs (B, T, E); inputs (B, T) int64, the tokens that were read; targets (B, T) int64, -1 where there is none.
    The words of the cache are taken from `inputs`, so that those of a warm-up, which are no targets, are in it too.
    Computed in float32 at least, under autocast as well.
    """
    states, tokens = outputs, inputs
    if history is not None:
        states, tokens = torch.cat([history.states, outputs], 1), torch.cat([history.tokens, inputs], 1)
    kept = History(states[:, -size:], tokens[:, -size:])
    number = torch.promote_types(outputs.dtype, torch.float32)
    steps = torch.arange(states.size(1), device=outputs.device)
    now, pairs = steps[-inputs.size(1) :, None], steps[:-1]
    seen = (pairs < now) & (pairs >= now - size)  # (T, K)
    with torch.autocast(outputs.device.type, enabled=False):
        alike = outputs.to(number) @ states[:, :-1].to(number).transpose(1, 2)  # (B, T, K)
    if not seen.size(1):
        return alike.new_full((len(thetas), *targets.shape), torch.nan), kept
    top = alike.masked_fill(~seen, -torch.inf).amax(2, keepdim=True)
    alike = (alike - top).masked_fill(~seen, 0.0)
    match = (tokens[:, None, 1:] == targets[:, :, None]).to(number)
    mask = seen.to(number)
    found = []
    for theta in thetas:
        chances = torch.exp(alike * theta).mul_(mask)
        total = chances.sum(2)
        found.append(chances.mul_(match).sum(2).log_() - total.log_())  # NaN where nothing is seen: log 0 - log 0
    return torch.stack(found), kept


def mixed(nll: Tensor, cached: Tensor, weights: Sequence[float]) -> Tensor:
    """nll (B, T) of the model, `cached` (G, B, T) -> (L, G, B, T) loss of the mixture for each lambda.

    What `nll` has at positions without a target must be ignored: it is not 0 there any more.
    """
    cached = torch.where(cached.isnan(), -nll, cached)
    weight = torch.tensor(weights, dtype=cached.dtype, device=cached.device).view(-1, 1, 1, 1)
    return torch.logaddexp(torch.log1p(-weight) - nll, weight.log() + cached).neg_()
