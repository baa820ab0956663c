"""The best binary bracketing of a sentence under a score for each span (Cocke-Kasami-Younger).

    best(s, e) = score(s, e) + max over s < m < e of best(s, m) + best(m, e),        0 for a single word

The chart is filled by span length: all spans of one length, of all sentences, by one group of tensor operations. Every
span is kept twice, under its start and under its end, each ordered by length: so the left parts of a span, short to
long, and its right parts, long to short, are two contiguous slices, and the splits of it their sum.

Shapes: B batch, T words, N spans. A span (s, e) holds the words s to e - 1. Padding trails and holds any values.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Bracketing(NamedTuple):
    """The nodes of B trees, one tree after another, each in level order; int64 on the CPU.

    Level order is by depth and, within a depth, from left to right: the children of a level's inner nodes are, in
    order, all nodes of the next. A tree over n words has 2 n - 1 nodes, N in all.
    """

    arities: Tensor
    """(N,) children of each node: 2, or 0 for a single word."""
    starts: Tensor
    """(N,) the first word of each node."""
    ends: Tensor
    """(N,) the word after the last word of each node."""
    depths: Tensor
    """(N,) steps from the root."""
    sizes: Tensor
    """(B,) nodes of each tree."""

    @property
    def rows(self) -> Tensor:
        """(N,) the tree of each node."""
        return torch.arange(len(self.sizes)).repeat_interleave(self.sizes)


@torch.no_grad()
def cky(scores: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Score (B,) of the best bracketing of each sentence, and the best split (B, T, T+1) int64 of every span.

    `scores` (B, T, T+1): [b, s, e] for the span (s, e); those of single words do not count, and what is not a span of
    its sentence is not read. `lengths` (B,). A span that no bracketing may have has the score -inf. Of equal splits,
    the one with the shortest left part. Works in O(T^3) operations, T groups of them, and O(T^2) memory. Raises
    `ValueError` for shapes that do not fit.
    """
    batch, time = scores.shape[:2]
    if scores.shape != (batch, time, time + 1):
        raise ValueError(f"scores: shape {tuple(scores.shape)}, expected (batch, time, time + 1)")
    if lengths.shape != (batch,):
        raise ValueError(f"lengths: shape {tuple(lengths.shape)}, expected ({batch},)")
    lengths = lengths.to(scores.device, non_blocking=True)
    scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
    by_start = scores.new_zeros(batch, time + 1, time + 1)  # [b, s, n]: the best of the n words from s on
    by_end = scores.new_zeros(batch, time + 1, time + 1)  # [b, e, T - n]: the best of the n words up to e
    splits = lengths.new_zeros(scores.shape)
    starts = torch.arange(time, device=scores.device)
    for size in range(2, time + 1):
        spans = time + 1 - size
        parts = by_start[:, :spans, 1:size] + by_end[:, size:, spans:time]  # (B, spans, size - 1)
        best, split = parts.max(-1)
        best += scores.diagonal(size, 1, 2)
        by_start[:, :spans, size] = best
        by_end[:, size:, spans - 1] = best
        splits.diagonal(size, 1, 2).copy_(split + (starts[:spans] + 1))
    return by_start[torch.arange(batch, device=scores.device), 0, lengths], splits


def bracketing(splits: Tensor, lengths: Tensor) -> Bracketing:
    """The trees that `splits` (B, T, T+1), as from `cky`, make of sentences of `lengths` (B,) words.

    Built from the roots down, a depth of all trees at a time. A sentence of one word is a single leaf.
    """
    splits, lengths = splits.cpu(), lengths.cpu()
    rows = lengths.nonzero().squeeze(1)
    starts, ends = torch.zeros_like(rows), lengths[rows]
    levels: list[tuple[Tensor, ...]] = []
    while len(rows):
        inner = ends - starts > 1
        levels.append((rows, 2 * inner, starts, ends, torch.full_like(rows, len(levels))))
        rows, starts, ends = rows[inner], starts[inner], ends[inner]
        middle = splits[rows, starts, ends]
        rows = rows.repeat_interleave(2)
        starts, ends = torch.stack([starts, middle], 1).flatten(), torch.stack([middle, ends], 1).flatten()
    columns = [torch.cat(column) for column in zip(*levels)] if levels else [rows] * 5
    order = columns[0].argsort(stable=True)
    arities, starts, ends, depths = (column[order] for column in columns[1:])
    return Bracketing(arities, starts, ends, depths, (2 * lengths - 1).clamp(min=0))
