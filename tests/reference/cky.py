"""The best bracketing by enumeration: every binary tree over a few words, in plain Python."""

from __future__ import annotations

import functools
from collections.abc import Sequence

Span = tuple[int, int]
Tree = frozenset[Span]
"""The spans of two words or more of a binary tree."""


@functools.cache
def trees(start: int, end: int) -> tuple[Tree, ...]:
    """All binary trees over the words from `start` to `end` - 1; of one word there is one, without spans."""
    if end - start < 2:
        return (frozenset(),)
    return tuple(
        left | right | {(start, end)}
        for middle in range(start + 1, end)
        for left in trees(start, middle)
        for right in trees(middle, end)
    )


def score(tree: Tree, scores: Sequence[Sequence[float]]) -> float:
    """Sum of `scores` [start][end] over the spans of a tree."""
    return sum(scores[start][end] for start, end in tree)


def crosses(a: Span, b: Span) -> bool:
    """Whether two spans share words and neither holds the other."""
    return a[0] < b[0] < a[1] < b[1] or b[0] < a[0] < b[1] < a[1]


def crossings(tree: Tree, gold: Sequence[Span]) -> int:
    """How many spans of a tree cross one of `gold`."""
    return sum(any(crosses(span, other) for other in gold) for span in tree)


def hinge(scores: Sequence[Sequence[float]], gold: Sequence[Span], length: int, *, margin: float) -> float:
    """By how much the best tree, with `margin` for each crossing, beats the best of those that cross nothing."""
    every = trees(0, length)
    right = max(score(tree, scores) for tree in every if not crossings(tree, gold))
    return max(score(tree, scores) + margin * crossings(tree, gold) for tree in every) - right
