"""The word types of a text as numbers: vocabulary ids, characters, letter shape, pretrained vectors.

A text is long, its vocabulary is short: everything that depends on a word alone is computed once a type, and a text
is then an array of type numbers. Reading a corpus this way needs no Python per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import field_validator

from seqtext.config import Config
from seqtext.data import arrays
from seqtext.data.tokenizer import Tokenizer, TokenizerConfig
from seqtext.data.vectors import Cover, Vectors, open_vectors
from seqtext.errors import RunError
from seqtext.files import read_json, write_json

if TYPE_CHECKING:
    from datasets import Dataset

SHAPES = ("other", "lower", "Title", "UPPER", "miXed", "number", "partly-number", "punctuation")
"""The letter shapes of a word, by their number."""


class WordsConfig(Config):
    """How words become ids, characters and vectors."""

    lowercase: bool = True
    """Look words up lower-cased; their case still shows in characters and letter shapes."""
    fold_digits: bool = True
    """Look words up with every digit as 0."""
    min_frequency: int = 1
    """Training words rarer than this share the id of unknown words."""
    max_size: int | None = None
    """Keep only this many entries: the most frequent training words, and two for padding and unknown words."""
    vectors: str | None = None
    """Pretrained vectors: "glove-6b-50d" (the `glove` extra) or a GloVe, word2vec or fastText file, also .gz."""
    max_characters: int = 32
    """Characters read of a word; of a longer one its first and last halves."""

    @field_validator("max_characters", "min_frequency")
    @classmethod
    def _positive(cls, value: int) -> int:
        if value < 1:
            raise ValueError(f"must be at least 1, got {value}")
        return value

    @field_validator("max_size")
    @classmethod
    def _has_room(cls, value: int | None) -> int | None:
        if value is not None and value < 3:
            raise ValueError(f"must be at least 3, two entries being for padding and unknown words, got {value}")
        return value


class Types(NamedTuple):
    """What is known of N word types, row by row."""

    ids: np.ndarray
    """(N,) int64: ids in the training vocabulary; 1 for a word unknown there."""
    characters: np.ndarray
    """(N, L) int32: character ids, padded with 0."""
    shapes: np.ndarray
    """(N,) int64: letter shape, an index into `SHAPES`."""
    vectors: np.ndarray | None
    """(N, P) float32: pretrained vectors, zero for a word they lack."""
    pretrained: np.ndarray
    """(N,) bool: whether the vectors know the word."""


class Text(NamedTuple):
    """Sentences as runs of word-type numbers."""

    codes: np.ndarray
    """(M,) int32: the type of every token, all sentences end to end."""
    starts: np.ndarray
    """(S,) int64: where each sentence begins in `codes`."""
    lengths: np.ndarray
    """(S,) int64: tokens of each sentence."""
    words: pa.Array
    """(N,) string: the types themselves."""


def column(dataset: Dataset, name: str) -> pa.ChunkedArray:
    """A column of a dataset as Arrow, in the dataset's order."""
    if dataset._indices is not None:
        dataset = dataset.flatten_indices()
    return dataset.data.column(name)


def types_of(tokens: pa.ChunkedArray | pa.Array) -> Text:
    """Sentences (a column of lists of strings) as type numbers and their types, in order of first appearance."""
    chunks = tokens.chunks if isinstance(tokens, pa.ChunkedArray) else [tokens]
    chunks = [chunk for chunk in chunks if len(chunk)]
    lengths = [arrays.numbers(pc.list_value_length(chunk)) for chunk in chunks]
    flat = pa.chunked_array([chunk.flatten() for chunk in chunks], type=pa.string())
    encoded = flat.dictionary_encode().unify_dictionaries()
    codes = [arrays.numbers(chunk.indices) for chunk in encoded.chunks]
    length = np.concatenate(lengths).astype(np.int64) if lengths else np.zeros(0, np.int64)
    return Text(
        codes=np.concatenate(codes).astype(np.int32) if codes else np.zeros(0, np.int32),
        starts=np.concatenate([[0], np.cumsum(length)[:-1]]).astype(np.int64) if len(length) else length,
        lengths=length,
        words=encoded.chunk(0).dictionary if encoded.num_chunks else arrays.texts([]),
    )


def pad(text: Text, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """(B, T) of per-token `values` (M,) for the sentences `rows`; padding repeats a sentence's last token."""
    lengths = text.lengths[rows]
    steps = np.minimum(np.arange(lengths.max(initial=1)), lengths[:, None] - 1)
    return values[text.starts[rows][:, None] + steps]


class Lexicon:
    """Turns word types into numbers: what a run remembers of the words it was trained on."""

    def __init__(self, words: Tokenizer, characters: Tokenizer, config: WordsConfig) -> None:
        self.words, self.characters, self.config = words, characters, config
        self.rare_from: int | None = None
        """The first id of the words seen once in training; known only to a lexicon that was just fitted."""
        self.pretrained: np.ndarray | None = None
        """(V,) bool: the ids of training words that have a pretrained vector; known as `rare_from` is."""
        self.expected: tuple[Path, str] | None = None
        """Of a loaded lexicon: the file that says so, and the fingerprint of the vectors it was trained with."""
        self._vectors: Vectors | None = None

    @classmethod
    def fit(cls, text: Text, config: WordsConfig) -> Lexicon:
        """Learn the vocabulary and the characters of a training text."""
        counts = np.bincount(text.codes, minlength=len(text.words)).tolist()
        words = text.words.to_pylist()
        characters: dict[str, int] = {}
        for word, count in zip(words, counts):
            for character in word:
                characters[character] = characters.get(character, 0) + count
        settings = TokenizerConfig(
            unit="word",
            lowercase=config.lowercase,
            fold_digits=config.fold_digits,
            min_frequency=config.min_frequency,
            max_size=config.max_size,
        )
        tokenizer = Tokenizer.train_words(dict(zip(words, counts)), settings)
        lexicon = cls(tokenizer, Tokenizer.train_words(characters, TokenizerConfig(unit="char")), config)
        # Ids fall with frequency, so the words seen once are the last ones.
        ids = np.asarray(tokenizer.encode_words(words), dtype=np.int64)
        seen = np.bincount(ids, weights=counts, minlength=tokenizer.size)
        lexicon.rare_from = 2 + int((seen[2:] > 1).sum())
        if lexicon.vectors is not None:
            # By the words themselves: folded digits may have a vector where the folded form has none.
            lexicon.pretrained = np.zeros(tokenizer.size, bool)
            lexicon.pretrained[ids[lexicon.vectors.rows(text.words) >= 0]] = True
            lexicon.pretrained[:2] = False
        return lexicon

    @property
    def vectors(self) -> Vectors | None:
        """The pretrained vectors, opened on first use; they stay in their own file, not in the run."""
        if self._vectors is None and self.config.vectors:
            self._vectors = open_vectors(self.config.vectors)
            if self.expected and self.expected[1] != self._vectors.fingerprint:
                raise RunError(
                    f"{self.expected[0]}: this run was trained with other vectors than "
                    f"{self.config.vectors} holds now; put the same ones there, or train anew"
                )
        return self._vectors

    @property
    def vector_size(self) -> int:
        """Dimensions of the pretrained vectors; 0 where there are none."""
        return self.vectors.dim if self.vectors else 0

    def encode(self, words: pa.Array) -> Types:
        """Numbers for word types (N,)."""
        listed: Sequence[str] = words.to_pylist()
        ids = np.asarray(self.words.encode_words(listed), dtype=np.int64)
        characters, _ = self.characters.encode_chars(listed, self.config.max_characters)
        if self.vectors is None:
            return Types(ids, characters, shapes(words), None, np.zeros(len(listed), bool))
        rows = self.vectors.rows(words)
        return Types(ids, characters, shapes(words), self.vectors.take(rows), rows >= 0)

    def cover(self, text: Text) -> tuple[float, Cover | None]:
        """The share of running words in the vocabulary, and what the vectors know of the text."""
        counts = np.bincount(text.codes, minlength=len(text.words))
        ids = np.asarray(self.words.encode_words(text.words.to_pylist()), dtype=np.int64)
        known = float(counts[ids != 1].sum() / max(1, counts.sum()))
        return known, self.vectors.cover(text.words.to_pylist(), counts) if self.vectors else None

    def save(self, folder: Path) -> None:
        self.words.save(folder / "tokenizer.json")
        self.characters.save(folder / "characters.json")
        if self.vectors is not None:
            facts = {"name": self.vectors.name, "size": self.vectors.dim, "fingerprint": self.vectors.fingerprint}
            write_json(folder / "vectors.json", facts)

    @classmethod
    def load(cls, folder: Path, config: WordsConfig) -> Lexicon:
        """Raises `RunError` naming the file that is missing or damaged."""
        words, characters = (Tokenizer.load(folder / f"{name}.json") for name in ("tokenizer", "characters"))
        lexicon = cls(words, characters, config)
        if config.vectors:
            path = folder / "vectors.json"
            facts = read_json(path, check=lambda value: isinstance(value, dict) and "fingerprint" in value)
            lexicon.expected = path, facts["fingerprint"]
        return lexicon


def shapes(words: pa.Array) -> np.ndarray:
    """(N,) int64: the letter shape of each word, an index into `SHAPES`."""

    def where(mask: pa.Array) -> np.ndarray:
        return arrays.numbers(mask.cast(pa.uint8())).astype(bool)

    result = np.zeros(len(words), np.int64)
    if len(words) == 0:
        return result
    digits = where(pc.match_substring_regex(words, r"\pN"))
    letters = where(pc.match_substring_regex(words, r"\pL"))
    upper = where(pc.match_substring_regex(words, r"\p{Lu}"))
    result[letters & upper] = 4
    result[where(pc.utf8_is_lower(words))] = 1
    result[where(pc.match_substring_regex(words, r"^\p{Lu}[^\p{Lu}]*$"))] = 2
    result[where(pc.match_substring_regex(words, r"^[^\p{Ll}]*\p{Lu}[^\p{Ll}]*$")) & (_size(words) > 1)] = 3
    result[digits & letters] = 6
    result[digits & ~letters] = 5
    result[~digits & ~letters] = 7
    return result


def _size(words: pa.Array) -> np.ndarray:
    return arrays.numbers(pc.utf8_length(words))
