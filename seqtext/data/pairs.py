"""The two sides of a parallel text as tokens, and batches of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from seqtext.data.tokenizer import Tokenizer, split_words

if TYPE_CHECKING:
    from datasets import Dataset

START, END = 2, 3
"""Ids of `<s>` and `</s>`: a target is read from the one on and written up to the other; a source ends with it too."""
MARKS = ("<s>", "</s>")
AT_ONCE = 10_000
"""Sentences that are read or encoded at a time."""


class Side(NamedTuple):
    """The sentences of one language, end to end."""

    ids: np.ndarray
    """(M,) int32."""
    lengths: np.ndarray
    """(N,) int64."""
    starts: np.ndarray
    """(N,) int64: where each begins."""

    def padded(self, rows: np.ndarray, *, fill: int, room: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Sentences (B, T) int64 with `</s>` behind each and `fill` behind that, and tokens (B,), `</s>` among them."""
        lengths = self.lengths[rows]
        steps = np.arange(int(lengths.max(initial=0)) + room)  # (T,)
        real = steps < lengths[:, None]
        where = np.where(real, self.starts[rows][:, None] + steps, 0)
        ids = self.ids[where] if len(self.ids) else np.zeros(where.shape, np.int32)
        ids = np.where(real, ids, fill).astype(np.int64)
        ids[np.arange(len(rows)), lengths] = END
        return ids, lengths + 1


def texts_of(dataset: Dataset, side: str) -> Iterator[str]:
    """One side of a split, in order, read in batches."""
    for batch in dataset.select_columns([side]).with_format(None).iter(batch_size=AT_ONCE):
        yield from batch[side]


def encode_side(texts: Iterable[str], tokenizer: Tokenizer) -> Side:
    """Sentences as tokens, some thousands at a time."""
    ids: list[np.ndarray] = [np.zeros(0, np.int32)]
    lengths: list[np.ndarray] = [np.zeros(0, np.int64)]
    texts = iter(texts)
    while part := list(islice(texts, AT_ONCE)):
        if tokenizer.unit == "word":
            lines = [tokenizer.encode_words([word for word, _, _ in split_words(text)]) for text in part]
            found = np.fromiter(chain.from_iterable(lines), np.int32), np.fromiter(map(len, lines), np.int64)
        else:
            found = tokenizer.encode_flat(part)
        ids.append(found[0])
        lengths.append(found[1])
    counts = np.concatenate(lengths)
    return Side(np.concatenate(ids), counts, np.cumsum(counts) - counts)
