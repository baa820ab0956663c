"""The words of a batch, from the types of a text: what every task that reads words hands to its embedding."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from seqtext.data.lexicon import Text, Types, pad
from seqtext.nn.embedding import Words

SHARES = (0.5, 0.8, 0.95)
"""Where the types of a batch, sorted by their number of characters, are parted into blocks."""


def gather_words(text: Text, types: Types, rows: np.ndarray) -> Words:
    """The sentences `rows` (B,) of a text as positions and types, each type once."""
    codes = pad(text, rows, text.codes)  # (B, T); without a row where a process has no share of the batch
    here, positions = np.unique(codes, return_inverse=True)
    # Short words first: a block is only as wide as its own longest word, and few words are long.
    lengths = (types.characters[here] != 0).sum(1)
    order = np.argsort(lengths, kind="stable")
    here, rank = here[order], np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Words(
        positions=torch.from_numpy(rank[positions.reshape(codes.shape)]),
        ids=torch.from_numpy(types.ids[here]),
        characters=_blocks(types.characters[here], lengths[order]),
        shapes=torch.from_numpy(types.shapes[here]),
        vectors=None if types.vectors is None else torch.from_numpy(types.vectors[here]),
        pretrained=torch.from_numpy(types.pretrained[here]),
    )


def _blocks(characters: np.ndarray, lengths: np.ndarray) -> tuple[Tensor, ...]:
    """Character ids (U, L) of words sorted by length, as blocks each of its own width."""
    count = len(lengths)
    cuts = sorted({0, count, *(int(share * count) for share in SHARES)}) if count else [0, 0]
    parts = pairwise(cuts)
    return tuple(
        torch.from_numpy(characters[first:last, : max(1, lengths[first:last].max(initial=0))].astype(np.int64))
        for first, last in parts
    )
