"""What the tasks that read words share: the schema of words, raw text as words, the words of a batch, facts of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self

import numpy as np
import torch
from torch import Tensor

from seqtext.data.lexicon import SHAPES, Lexicon, Text, Types, WordsConfig, pad
from seqtext.data.sentences import split_spaces
from seqtext.data.sources import SourceData, absolute_path
from seqtext.data.tokenizer import split_words
from seqtext.errors import DataError
from seqtext.nn.embedding import EmbeddingConfig, WordEmbedding, Words

SHARES = (0.5, 0.8, 0.95)
"""Where the types of a batch, sorted by their number of characters, are parted into blocks."""

Split = Callable[[str], list[tuple[str, int, int]]]
"""Raw text to its words, each with where it starts and ends (in characters)."""


class WordsData(SourceData):
    """The part of `[data]` that says how words become numbers."""

    words: WordsConfig = WordsConfig()
    """How words become numbers."""

    def absolute(self) -> Self:
        vectors = self.words.vectors and absolute_path(self.words.vectors)
        return super().absolute().model_copy(update={"words": self.words.model_copy(update={"vectors": vectors})})


@dataclass(frozen=True)
class Sentence:
    """Raw text with its words and where they stand in it."""

    text: str
    words: list[str]
    offsets: list[tuple[int, int]]

    @classmethod
    def read(cls, text: str, *, split: Split = split_words, pretokenized: bool = False) -> Sentence:
        """The words that `split` finds, or, with `pretokenized`, those between spaces."""
        pieces = split_spaces(text) if pretokenized else split(text)
        return cls(text, [word for word, _, _ in pieces], [(start, end) for _, start, end in pieces])

    def __len__(self) -> int:
        return len(self.words)


def build_embedding(config: EmbeddingConfig, lexicon: Lexicon) -> WordEmbedding:
    """The untrained embedding for the words of `lexicon`."""
    return WordEmbedding(
        config,
        vocabulary=lexicon.words.size,
        characters=lexicon.characters.size,
        shapes=len(SHAPES),
        vector_size=lexicon.vector_size,
        pretrained=None if lexicon.pretrained is None else torch.from_numpy(lexicon.pretrained),
        rare_from=lexicon.rare_from,
    )


def number_labels(
    codes: np.ndarray, found: Sequence[str], known: Sequence[str], *, place: Callable[[int], str]
) -> np.ndarray:
    """(M,) int64: labels given as `codes` (M,) into the distinct names `found`, as indices of the names `known`.

    Raises `DataError` for the first name that is not known, with `place` of its position in `codes`.
    """
    numbers = {name: number for number, name in enumerate(known)}
    for code, name in enumerate(found):
        if name not in numbers:
            raise DataError(
                f"{place(int(np.flatnonzero(codes == code)[0]))}: label '{name}' was never seen in training; "
                f"the labels of the training data are {', '.join(filter(None, known))}"
            )
    return np.array([numbers[name] for name in found], dtype=np.int64)[codes]


def size_fact(lengths: np.ndarray, description: str, *, unit: str) -> str:
    """How many examples (`unit`) and tokens a split has, and how long they are."""
    middle, high = np.percentile(lengths, [50, 95]).astype(int)
    sizes = f"{len(lengths):,} {unit}, {lengths.sum():,} tokens"
    return f"{sizes}; length median {middle}, 95% {high}, longest {lengths.max()} ({description})"


def word_facts(lexicon: Lexicon, texts: Mapping[str, Text]) -> list[tuple[str, str]]:
    """The size of the vocabulary, and how much of each split it and the pretrained vectors cover."""
    facts = [("vocabulary", f"{lexicon.words.size:,} words, {lexicon.characters.size} characters")]
    for split, text in texts.items():
        known, cover = lexicon.cover(text)
        line = f"vocabulary covers {known:.1%} of words"
        if cover is not None:
            line += f", {lexicon.config.vectors} {cover.tokens:.1%} ({cover.types:.1%} of types)"
        facts.append((f"{split} cover", line))
    return facts


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
