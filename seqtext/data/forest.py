"""Trees as arrays, and a batch of them as a schedule: what is computed together, level by level from the deepest up.

Of every tree the nodes stand in level order: by depth, the root first, and within a depth from left to right. So the
children of the inner nodes of a level are, in order, all nodes of the next one, and the number of children of each
node says all of a tree's shape. The nodes of a batch that have the same depth are computed together: there are as many
steps as the deepest tree has levels, however many nodes and trees there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Trees(NamedTuple):
    """S trees of N nodes in all, each tree's in level order, one after the other."""

    arities: np.ndarray
    """(N,) int32: children of each node, 0 for a leaf."""
    depths: np.ndarray
    """(N,) int32: steps from the root."""
    words: np.ndarray
    """(N,) int32: the first word of each node in its sentence; of a leaf, its word."""
    ends: np.ndarray
    """(N,) int32: the word after the last one of each node."""
    sizes: np.ndarray
    """(S,) int64: nodes of each tree; 0 where there is a sentence without a tree."""
    starts: np.ndarray
    """(S,) int64: where each tree begins."""


def planted(columns: Sequence[np.ndarray], sizes: np.ndarray) -> Trees:
    """Trees of `sizes` (S,) nodes, of their `arities`, `depths`, `words` and `ends` (N,)."""
    arities, depths, words, ends = columns
    return Trees(arities, depths, words, ends, sizes, np.cumsum(sizes) - sizes)


class Schedule(NamedTuple):
    """B trees of N nodes, M of them leaves, in the order of computing: the deepest level first, the roots last.

    Within a level nodes stand tree by tree, in level order.
    """

    nodes: np.ndarray
    """(N,) int64: which of the trees' nodes each is."""
    trees: np.ndarray
    """(N,) int64: the tree of each, from 0."""
    leaves: np.ndarray
    """(M,) int64: the words of the leaves, as positions in (B, T) flattened."""
    weave: np.ndarray
    """(N,) int64: where each node of a level is among its inner nodes followed by its leaves."""
    unweave: np.ndarray
    """(N,) int64: the way back: where in its level each of the inner nodes, then each of the leaves stands."""
    owners: np.ndarray
    """(N - B,) int64: the parent of each node but the roots, as its place among the inner nodes of the level above."""
    levels: tuple[tuple[int, int], ...]
    """Nodes of each level, and how many of them are inner nodes."""


def ranges(starts: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """(sum of sizes,) int64: starts[0], starts[0] + 1, ... for `sizes[0]` numbers, then those from starts[1], ..."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - sizes), sizes)


def schedule(trees: Trees, rows: np.ndarray, *, time: int) -> Schedule:
    """The schedule of the trees `rows` (B,), whose sentences are the rows of a batch (B, T) with T = `time`."""
    sizes = trees.sizes[rows]
    nodes = ranges(trees.starts[rows], sizes)
    owner = np.repeat(np.arange(len(rows)), sizes)
    depths = trees.depths[nodes]
    deepest = int(depths.max(initial=0))
    # A stable sort of small numbers is a radix sort: linear in the number of nodes.
    order = np.argsort((deepest - depths).astype(np.int32 if deepest > 30_000 else np.int16), kind="stable")
    nodes, owner = nodes[order], owner[order]
    level = deepest - depths[order]
    arities = trees.arities[nodes]
    inner = arities > 0
    counts = np.bincount(level, minlength=deepest + 1)
    inners = np.bincount(level[inner], minlength=deepest + 1)
    first = np.cumsum(counts) - counts
    before = np.cumsum(inner) - inner  # inner nodes that stand before each node
    rank = before - before[first][level] if len(nodes) else before  # ... in its own level
    place = np.arange(len(nodes)) - first[level]
    leaf = ~inner
    return Schedule(
        nodes=nodes,
        trees=owner,
        leaves=owner[leaf] * time + trees.words[nodes[leaf]],
        weave=np.where(inner, rank, inners[level] + place - rank),
        unweave=place[np.argsort(2 * level + leaf, kind="stable")],
        owners=np.repeat(rank[inner], arities[inner]),
        levels=tuple(zip(counts.tolist(), inners.tolist())),
    )


def chosen(trees: Trees, rows: np.ndarray) -> Trees:
    """The trees `rows` (B,) alone."""
    sizes = trees.sizes[rows]
    nodes = ranges(trees.starts[rows], sizes)
    return planted([trees.arities[nodes], trees.depths[nodes], trees.words[nodes], trees.ends[nodes]], sizes)


def completed(trees: Trees, others: Trees) -> Trees:
    """The same trees, with those of `others` in place of the ones that have no node."""
    moved = others._replace(starts=others.starts + len(trees.arities))
    both = Trees._make(np.concatenate(columns) for columns in zip(trees, moved))
    count = len(trees.sizes)
    return chosen(both, np.arange(count) + np.where(trees.sizes == 0, count, 0))
