"""Batches of rows by a budget of padded tokens, so that every batch costs about the same time and memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np


def bucketed(
    lengths: np.ndarray,
    *,
    tokens: int,
    shuffle: np.random.Generator | None = None,
    noise: float = 0.1,
    widest: int | None = None,
    rank: int = 0,
    world: int = 1,
) -> Iterator[np.ndarray]:
    """Row numbers (B,) of each batch, rows of like length together, at most `tokens` padded positions a batch.

    `lengths` (N,) are in tokens. A row longer than the budget is a batch of its own. Where rows are
    read `widest` positions at a time, no more than these count for the budget. With `shuffle` the rows are sorted by
    their length times a random factor in [1 - noise, 1 + noise], ties broken at random, and the batches come in random
    order: another cut every epoch at little padding. With several processes, each takes every `world`-th row of the
    same batches, so that all see equally many batches and together do what one would; of a batch of fewer rows than
    `world`, some processes get an empty share.
    """
    count = len(lengths)
    if shuffle is None:
        order = np.argsort(lengths, kind="stable")
    else:
        jitter = 1.0 + noise * (2.0 * shuffle.random(count) - 1.0)
        # Without a constant the noise would never mix rows of length one with any other.
        order = np.argsort((lengths + 0.5) * jitter, kind="stable")
    ordered = np.asarray(lengths)[order]
    starts = _cuts(ordered if widest is None else ordered.clip(max=widest), tokens)
    batches = list(pairwise(starts))
    turns = range(len(batches)) if shuffle is None else shuffle.permutation(len(batches))
    for turn in turns:
        first, last = batches[turn]
        yield order[first + rank : last : world]


def _cuts(lengths: np.ndarray, tokens: int) -> list[int]:
    """Where batches begin and end in nearly sorted `lengths`, cut greedily under the budget."""
    cuts, first = [0], 0
    while first < len(lengths):
        # A batch has at most `tokens` rows, and at least one.
        window = lengths[first : first + max(1, tokens)]
        cost = np.maximum.accumulate(window) * np.arange(1, len(window) + 1)
        first += max(1, int(np.searchsorted(cost, tokens, side="right")))
        cuts.append(first)
    return cuts
