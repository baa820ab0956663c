"""What is read of a text longer than a model takes: its head, its head and tail, or all of it in windows.

Each rule turns the arrays of a split into those of the windows that are read, one or more a text, without a loop over
texts or tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from seqtext.data.lexicon import Text

Rule = Literal["head", "head-tail", "windows"]


class Cut(NamedTuple):
    """A split of S texts as W windows of at most `max_tokens` tokens."""

    windows: Text
    """The windows, text by text."""
    first: np.ndarray
    """(S,) int64: each text's first window."""
    counts: np.ndarray
    """(S,) int64: how many windows a text has, at least one."""
    read: np.ndarray
    """(S,) int64: tokens that are read of each text."""
    costs: np.ndarray
    """(S,) int64: padded tokens that a text takes at most in a batch of texts of no larger cost."""

    def gather(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The windows (W,) of the texts `rows` (B,), and for each window its text's place in `rows`."""
        counts = self.counts[rows]
        owner = np.repeat(np.arange(len(rows)), counts)
        within = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return np.repeat(self.first[rows], counts) + within, owner


def cut_texts(text: Text, *, max_tokens: int, rule: Rule) -> Cut:
    """What is read of each text.

    "head" is the first `max_tokens`; "head-tail" the first and the last half of as many, the first the larger one;
    "windows" is all, in as few windows of at most `max_tokens` as there can be, of lengths that differ by one at most.
    """
    count = len(text.lengths)
    if rule == "windows":
        windows, counts = _windows(text, max_tokens)
        costs = np.where(counts > 1, counts * max_tokens, text.lengths)
        return Cut(windows, np.cumsum(counts) - counts, counts, text.lengths, costs)
    read = np.minimum(text.lengths, max_tokens)
    windows = text._replace(lengths=read) if rule == "head" else _head_and_tail(text, read, (max_tokens + 1) // 2)
    return Cut(windows, np.arange(count), np.ones(count, np.int64), read, read)


def long_fact(lengths: Sequence[int] | np.ndarray, *, max_tokens: int, rule: Rule) -> str:
    """How many texts are longer than `max_tokens`, and what is done about them."""
    long = int((np.asarray(lengths) > max_tokens).sum())
    if not long:
        return f"none is longer than data.max_tokens = {max_tokens}"
    head = (max_tokens + 1) // 2
    done = {
        "head": f"only their first {max_tokens} tokens are read",
        "head-tail": f"only their first {head} and last {max_tokens - head} tokens are read",
        "windows": f"they are read in windows of at most {max_tokens} tokens, whose scores are averaged",
    }
    share = f"{long:,} of {len(lengths):,} ({long / len(lengths):.1%}) are longer than data.max_tokens = {max_tokens}"
    return f'{share}: {done[rule]} (data.long = "{rule}")'


def _windows(text: Text, max_tokens: int) -> tuple[Text, np.ndarray]:
    counts = np.maximum(1, -(-text.lengths // max_tokens))
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # (W,)
    lengths, parts = np.repeat(text.lengths, counts), np.repeat(counts, counts)
    begins, ends = lengths * within // parts, lengths * (within + 1) // parts
    return text._replace(starts=np.repeat(text.starts, counts) + begins, lengths=ends - begins), counts


def _head_and_tail(text: Text, read: np.ndarray, head: int) -> Text:
    if (read == text.lengths).all():
        return text
    starts = np.cumsum(read) - read
    within = np.arange(read.sum()) - np.repeat(starts, read)  # (M',): places in what is read of a text
    skipped = np.where(within >= head, np.repeat(text.lengths - read, read), 0)
    return text._replace(codes=text.codes[np.repeat(text.starts, read) + within + skipped], starts=starts, lengths=read)
