"""What the searches ask of a model: one step for a batch of hypotheses, and its state by rows.

The searches know nothing else of a model. Whatever keeps to this contract (a language model, a translator, several
runs as one) is decoded by all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

State = TypeVar("State")


class Decoder(Protocol[State]):
    """Scores the next token of N hypotheses, given a state that holds all they have read.

    The memory is what a hypothesis looks at beside its own tokens, such as an encoded source; it is handed through as
    it came, with B rows on the first dimension of all its tensors. N is always a multiple of B, and those of one row
    stand together: row n of the tokens belongs to row n // (N / B) of the memory. Attention thus reads the keys of a
    sentence once for all its hypotheses, and nothing is copied. A model without a source has None for a memory.
    """

    size: int
    """V, the entries of the vocabulary."""

    def start(self, memory: Any) -> State:
        """The state before the first token, one row for each of the memory; one row where the memory is None."""

    def step(self, tokens: Tensor, state: State, memory: Any) -> tuple[Any, State]:
        """tokens (N,) int64, the state of N rows -> what `scores` reads of N rows, the state after `tokens`.

        What it reads is a tensor with its rows on the first dimension, or tuples of such.
        """

    def scores(self, output: Any) -> Tensor:
        """Any n rows of the output of a step -> scores (n, V) of the next token, each row's by itself.

        The scores are logits: log-probabilities up to a constant for each row, so log-probabilities will do as well.
        They are the caller's, who may write into them. A search asks for some rows at a time: the scores of a whole
        batch over a vocabulary never exist at once.
        """

    def reorder(self, state: State, rows: Tensor) -> State:
        """The state whose row m is row `rows[m]` of `state`; rows (M,) int64 may repeat and leave out."""


def select(state: Any, rows: Tensor | slice) -> Any:
    """`reorder` for states made of tensors with their rows on the first dimension, None, and tuples or lists of these.

    A slice of rows is a view of them. Raises `TypeError` for anything else.
    """
    if state is None:
        return None
    if isinstance(state, Tensor):
        return state[rows] if isinstance(rows, slice) else state.index_select(0, rows)
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        return type(state)(*(select(part, rows) for part in state))
    if isinstance(state, (tuple, list)):
        return type(state)(select(part, rows) for part in state)
    raise TypeError(f"a state of {type(state).__name__}: expected tensors, None, and tuples or lists of these")


def rows_of(memory: Any) -> int | None:
    """B, the rows of a memory's tensors; None where there is no tensor."""
    if isinstance(memory, Tensor):
        return memory.size(0)
    parts = memory if isinstance(memory, (tuple, list)) else ()
    return next((rows for rows in map(rows_of, parts) if rows is not None), None)


def select_memory(memory: Any, rows: Tensor, count: int) -> Any:
    """The memory, of B rows, for the hypotheses `rows` (M,), in order, of `count`, a multiple of B.

    A row of it serves several as before where all sources keep as many; otherwise each hypothesis gets its own.
    """
    size = rows_of(memory)
    if size is None or not len(rows):
        return select(memory, rows)
    sources = torch.div(rows, count // size, rounding_mode="floor")
    kept, counts = sources.unique_consecutive(return_counts=True)
    return select(memory, kept if bool((counts == counts[0]).all()) else sources)


def forbid(scores: Tensor, tokens: Tensor) -> None:
    """Take `tokens` (K,) out of scores (N, V), in place."""
    if len(tokens):
        scores.index_fill_(1, tokens, -torch.inf)


SCORES = 1 << 20
"""Scores that a search has at a time, at most, beyond those of one row: few enough to stay in a processor's cache."""


def pieces(count: int, width: int, size: int) -> Iterator[slice]:
    """`count` sentences of `width` rows with `size` scores each, cut into as many as are scored at a time."""
    step = max(1, SCORES // (width * size))
    for first in range(0, count, step):
        yield slice(first, min(first + step, count))


def log_probabilities(scores: Tensor) -> Tensor:
    """Scores (N, V) as log-probabilities (N, V), in float32 at least."""
    return widened(scores).log_softmax(-1)


def widened(scores: Tensor) -> Tensor:
    """The scores in float32 at least: sums over a large vocabulary need it."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))
