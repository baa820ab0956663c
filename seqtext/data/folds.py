"""Stratified, seeded cuts of labelled examples: k folds for cross-validation, shares held out (Kohavi 1995, "A Study
of Cross-Validation and Bootstrap for Accuracy Estimation and Model Selection").

Every example gets a random number; sorted by class and then by number, a class is a run that is dealt out in turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seqtext.errors import DataError


def assign(
    codes: Sequence[int] | np.ndarray, k: int, seed: int, *, names: Sequence[str] = (), path: str | Path | None = None
) -> np.ndarray:
    """The fold of each example, (N,) int64 from 0 to k - 1, for class numbers `codes` (N,).

    The folds' sizes differ by at most one, and so do the numbers of examples of any one class in them. Raises
    `DataError` for a class of fewer than k examples; `names` (by number) and `path` are for its message.
    """
    if k < 2:
        raise ValueError(f"at least 2 folds, got {k}")
    order, counts = _order(codes, seed)
    for number in np.flatnonzero((counts > 0) & (counts < k)).tolist():
        name = repr(names[number]) if names else str(number)
        count = f"{counts[number]} example" + ("s" if counts[number] > 1 else "")
        raise DataError(f"class {name} has {count}, fewer than the {k} folds; expected one a fold at least", path=path)
    folds = np.empty(len(order), dtype=np.int64)
    # A class goes on where the one before it stopped, so that no fold gets the odd example of every class.
    folds[order] = np.arange(len(order)) % k
    return folds


def hold_out(codes: Sequence[int] | np.ndarray, shares: Sequence[float], seed: int) -> np.ndarray:
    """The part of each example, (N,) int64: 0 for what stays, i + 1 for what `shares[i]` of the whole takes.

    Of each class a part takes its share to within one example, of the whole to within half of one, but never the last
    example that stays. The shares add up to less than 1.
    """
    if min(shares, default=0.0) < 0 or sum(shares) >= 1:
        raise ValueError(f"shares must be at least 0 and add up to less than 1, got {list(shares)}")
    order, counts = _order(codes, seed)
    starts = np.cumsum(counts) - counts  # (C,)
    sorted_parts = np.zeros(len(order), dtype=np.int64)
    place = np.arange(len(order)) - np.repeat(starts, counts)  # of an example within its class
    taken = np.zeros_like(counts)
    for number, share in enumerate(shares, start=1):
        # Rounding the running total, not each class, keeps the sum right however small the classes are.
        upto = np.floor(np.cumsum(counts) * share + 0.5).astype(np.int64)
        quota = np.minimum(np.diff(upto, prepend=0), np.maximum(counts - 1 - taken, 0))
        first, last = np.repeat(taken, counts), np.repeat(taken + quota, counts)
        sorted_parts[(place >= first) & (place < last)] = number
        taken = taken + quota
    parts = np.empty_like(sorted_parts)
    parts[order] = sorted_parts
    return parts


def _order(codes: Sequence[int] | np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Examples sorted by class and within it at random (N,), and the size of each class (C,)."""
    numbers = np.asarray(codes, dtype=np.int64)
    # RandomState is NumPy's one generator whose stream is promised never to change.
    keys = np.random.RandomState(seed % 2**32).random_sample(len(numbers))
    return np.lexsort((keys, numbers)), np.bincount(numbers)
