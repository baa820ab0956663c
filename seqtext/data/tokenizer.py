"""Text to numbers and back: words, characters, BPE and unigram pieces, trained here and saved as `tokenizer.json`.

A thin layer on the `tokenizers` library, whose own file format this is. Raw text is split into words by NLTK's
Treebank rules (no download); pieces are learned by byte-pair encoding (Sennrich et al. 2016, "Neural Machine
Translation of Rare Words with Subword Units") or the unigram model (Kudo 2018, "Subword Regularization"), with a
word's leading space written as "▁" (Kudo & Richardson 2018, "SentencePiece") so that decoding restores the spacing.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from seqtext.data.tokenizer_training import (
    BYTES,
    PAD,
    SPECIALS,
    UNKNOWN,
    TokenizerConfig,
    count_entries,
    encodable,
    is_ours,
    learn_pieces,
)
from seqtext.errors import RunError

if TYPE_CHECKING:
    import tokenizers

MEMO_SIZE = 50_000
"""Words whose id is remembered, nearly all that are met often: some 5 MB at worst, however long the stream of text."""
LONGEST_PIECE = 1000
"""Characters of a piece of the unigram model; training makes none over 16, and the library fails on very long ones."""
NOT_SPACE = re.compile(r"\S+")


class Encoding(NamedTuple):
    """A text as entries; `text[start:end]` is the part of the raw text that an entry stands for."""

    ids: list[int]
    tokens: list[str]
    """The entries themselves: normalised, and `<unk>` for what is unknown."""
    offsets: list[tuple[int, int]]
    """(start, end) in characters. A "▁" that stands only for a space is empty. Of a character written as bytes, the
    first byte stands for all of it, and the others are empty."""


class Tokenizer:
    """Entries numbered from 0: `<pad>`, `<unk>`, any other special ones, then the learned ones."""

    def __init__(self, library: tokenizers.Tokenizer) -> None:
        from tokenizers import pre_tokenizers

        # What a user's text says is never a special entry, even where it reads "</s>". The file does not keep this.
        library.encode_special_tokens = True
        self._library = library
        self._normaliser = library.normalizer
        self._vocabulary: dict[str, int] = library.get_vocab(with_added_tokens=True)
        self._tokens = sorted(self._vocabulary, key=self._vocabulary.__getitem__)
        self._specials = {str(entry.content) for entry in library.get_added_tokens_decoder().values()}
        self._silent = {self._vocabulary[entry] for entry in self._specials} - {UNKNOWN}
        self._word_ids = _WordIds(self)
        by_characters = isinstance(library.pre_tokenizer, pre_tokenizers.Split)
        self.unit = {"BPE": "bpe", "Unigram": "unigram", "WordLevel": "char" if by_characters else "word"}.get(
            type(library.model).__name__, ""
        )

    @classmethod
    def train(cls, texts: Iterable[str], config: TokenizerConfig, *, specials: Sequence[str] = ()) -> Tokenizer:
        """Learn from raw texts; `specials` are entries beside `<pad>` and `<unk>`, for example `<s>` and `</s>`.

        Words and characters are numbered by falling frequency, then alphabetically. Raises `DataError` where there is
        no text and the unit is "unigram".
        """
        if config.unit in ("bpe", "unigram"):
            return cls(learn_pieces(map(encodable, texts), config, [*SPECIALS, *specials]))
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(text if config.unit == "char" else [word for word, _, _ in split_words(text)])
        return cls.train_words(counts, config, specials=specials)

    @classmethod
    def train_words(
        cls, counts: Mapping[str, int], config: TokenizerConfig, *, specials: Sequence[str] = ()
    ) -> Tokenizer:
        """Learn from words already split, each with its count, or from the characters or pieces within them."""
        if config.unit in ("bpe", "unigram"):
            words = chain.from_iterable(repeat(encodable(word), count) for word, count in counts.items())
            return cls(learn_pieces(words, config, [*SPECIALS, *specials]))
        return cls(count_entries(counts, config, [*SPECIALS, *specials]))

    @property
    def size(self) -> int:
        """Number of entries, the special ones included."""
        return len(self._tokens)

    @property
    def specials(self) -> list[str]:
        """The special entries, in the order of their ids."""
        return sorted(self._specials, key=self._vocabulary.__getitem__)

    def token(self, id: int) -> str:
        """The entry of an id. Raises `IndexError` where there is none."""
        return self._tokens[id]

    def id(self, token: str) -> int:
        """The id of an entry, special or not, as it is written. Raises `KeyError` where there is none."""
        return self._vocabulary[token]

    def __contains__(self, word: str) -> bool:
        """Whether a word, once normalised, has an entry of its own; special entries are no words."""
        return self._word_ids[word] != UNKNOWN

    def encode_words(self, words: Sequence[str]) -> list[int]:
        """One id a word, `UNKNOWN` for a word without an entry. Needs the unit "word"."""
        self._need("word")
        return list(map(self._word_ids.__getitem__, words))

    def encode_chars(self, words: Sequence[str], max_length: int) -> tuple[np.ndarray, np.ndarray]:
        """Characters of words: ids (N, L) int32, padded with 0, and lengths (N,) int64. Needs the unit "char".

        L is the longest word's length, at least 1 and at most `max_length`. Of a longer word the first half (the larger
        one) and the last half are kept, since beginnings and endings tell most about a word.
        """
        self._need("char")
        if max_length < 1:
            raise ValueError(f"max_length must be at least 1, got {max_length}")
        known, full = self._characters(words)
        characters = np.append(known, np.int32(PAD))  # (M + 1,)
        lengths = np.minimum(full, max_length)
        steps = np.arange(max(1, lengths.max(initial=1)))  # (L,)
        starts = np.cumsum(full) - full  # (N,)
        # In a word that is cut, the steps of the last half jump over its middle.
        skipped = np.where(steps >= (max_length + 1) // 2, (full - lengths)[:, None], 0)  # (N, L)
        where = np.where(steps < lengths[:, None], starts[:, None] + steps + skipped, len(known))
        return characters[where], lengths

    def encode_flat(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Raw texts end to end: ids (M,) int32, and entries of each text (N,) int64. Not for the unit "word".

        The ids of `encode_batch` at a fraction of its time: no entries and no offsets are made.
        """
        if self.unit == "char":
            return self._characters(texts)
        if self.unit == "word":
            raise ValueError("words are split and encoded by encode_words")
        found = self._library.encode_batch_fast([encodable(text) for text in texts], add_special_tokens=False)
        ids = [one.ids for one in found]
        return np.fromiter(chain.from_iterable(ids), np.int32), np.fromiter(map(len, ids), np.int64, count=len(ids))

    def encode(self, text: str) -> Encoding:
        """The entries of a raw text with their offsets; special entries other than `<unk>` never come from text."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
        """As `encode`, for many texts."""
        if self.unit == "word":
            return [self._encode_as_words(text) for text in texts]
        encodings = []
        found = self._library.encode_batch([encodable(text) for text in texts], add_special_tokens=False)
        for text, one in zip(texts, found):
            ids = one.ids
            tokens = [self._tokens[id] for id in ids]
            encodings.append(
                Encoding(ids, tokens, one.offsets if self.unit == "char" else _trim(text, tokens, one.offsets))
            )
        return encodings

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids: words joined by spaces, characters and pieces by nothing. Only `<unk>` shows of specials.

        With `byte_fallback`, the text that `encode` was given, but for runs of space, of which "▁" (U+2581) is one, and
        for what the settings fold; bytes that are no UTF-8 show as U+FFFD each.
        """
        shown = [int(entry) for entry in ids if int(entry) not in self._silent]
        return self._library.decode(shown, skip_special_tokens=False)

    def to_json(self, *, pretty: bool = False) -> str:
        """All that it has learned: what `save` writes."""
        return self._library.to_str(pretty=pretty)

    def save(self, path: str | Path) -> None:
        """Write `tokenizer.json`, which `tokenizers.Tokenizer.from_file` reads as well."""
        Path(path).write_text(self.to_json(pretty=True), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Tokenizer:
        """Raises `RunError` naming the file where it is missing, damaged or not one of these tokenizers."""
        import tokenizers

        try:
            text = Path(path).read_text(encoding="utf-8")
        except FileNotFoundError:
            raise RunError(f"{path}: no such file; a saved tokenizer is expected") from None
        except OSError as error:
            raise RunError(f"{path}: this file cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise RunError(f"{path}: damaged, or not a tokenizer file: not UTF-8") from None
        try:
            model = json.loads(text)["model"]
            if model["type"] == "Unigram" and any(len(piece) > LONGEST_PIECE for piece, _ in model["vocab"]):
                raise ValueError(f"a piece is longer than {LONGEST_PIECE:,} characters")
            library = tokenizers.Tokenizer.from_str(text)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # the library raises nothing narrower, and its panics are no `Exception`
            raise RunError(f"{path}: damaged, or not a tokenizer file: {error}") from None
        found = cls(library)
        if tuple(found._tokens[: len(SPECIALS)]) != SPECIALS or not found.unit:
            raise RunError(f"{path}: not a tokenizer of seqtext: its first entries must be <pad> and <unk>")
        if [found._vocabulary[token] for token in found._tokens] != list(range(found.size)):
            raise RunError(f"{path}: damaged: its entries are not numbered from 0 to {found.size - 1}")
        if not is_ours(library, found.unit) or (found.unit == "unigram" and model.get("unk_id") != UNKNOWN):
            raise RunError(f"{path}: not a tokenizer of seqtext: it reads or writes text in another way")
        return found

    def _need(self, unit: str) -> None:
        if self.unit != unit:
            raise ValueError(f"this needs a tokenizer of the unit {unit!r}; this one's is {self.unit!r}")

    def _characters(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Characters of normalised texts end to end: ids (M,) int32, and characters of each text (N,) int64."""
        forms = [self._normalise(text) for text in texts]
        points = np.frombuffer("".join(forms).encode("utf-32-le"), dtype=np.uint32)
        distinct, inverse = np.unique(points, return_inverse=True)
        known = [self._vocabulary.get(chr(point), UNKNOWN) for point in distinct.tolist()]
        return np.array(known, np.int32)[inverse], np.fromiter(map(len, forms), np.int64, count=len(forms))

    def _normalise(self, word: str) -> str:
        word = encodable(word)
        return self._normaliser.normalize_str(word) if self._normaliser else word

    def _encode_as_words(self, text: str) -> Encoding:
        words = split_words(text)
        ids = self.encode_words([word for word, _, _ in words])
        return Encoding(ids, [self._tokens[id] for id in ids], [(start, end) for _, start, end in words])


class _WordIds(dict[str, int]):
    """Raw word -> id, filled in as words are met: a normaliser costs a microsecond, a dictionary a twentieth of it."""

    def __init__(self, owner: Tokenizer) -> None:
        self._owner = owner

    def __missing__(self, word: str) -> int:
        form = self._owner._normalise(word)
        found = UNKNOWN if form in self._owner._specials else self._owner._vocabulary.get(form, UNKNOWN)
        if len(self) < MEMO_SIZE:
            self[word] = found
        return found


def split_words(text: str) -> list[tuple[str, int, int]]:
    """Words of a raw sentence by NLTK's Treebank rules, each with where it starts and ends (in characters).

    `text[start:end]` is always the word itself: quotes stay as they are written. The rules expect one sentence: only
    the last full stop of the text is split off. Where they fail on a text (none is known to), its words are what stands
    between spaces.
    """
    words = []
    point = 0
    try:
        for token in _treebank().tokenize(text):
            while text[point].isspace():
                point += 1
            end = point + len(token)
            if not text.startswith(token, point):
                end = point + _quote_length(text, point, token)
            words.append((text[point:end], point, end))
            point = end
        if not text[point:].strip():
            return words
    except (ValueError, IndexError, TimeoutError):
        pass
    return [(found.group(), found.start(), found.end()) for found in NOT_SPACE.finditer(text)]


def _quote_length(text: str, point: int, token: str) -> int:
    """Length in the raw text of a quote that the rules rewrote: they turn " and '' into `` or ''."""
    if token in ("``", "''"):
        if text[point] == '"':
            return 1
        if text.startswith("''", point):
            return 2
    raise ValueError(f"{token!r} is not at {point} in the text")


@cache
def _treebank() -> Any:
    from nltk.tokenize.destructive import NLTKWordTokenizer

    return NLTKWordTokenizer()


def _trim(text: str, tokens: list[str], offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets of pieces without the space that "▁" stands for, and of each byte."""
    trimmed = []
    point, run = 0, None
    for token, (start, end) in zip(tokens, offsets):
        if (byte := BYTES.get(token)) is not None:
            # The library gives every byte the place of its character, or of all the characters written as bytes.
            point, run = point if run == (start, end) else start, (start, end)
            first = point
            if byte & 0b1100_0000 != 0b1000_0000:  # begins a character
                point = min(point + 1, end)
            # Python's spaces are a few more than the library's, and those are trimmed everywhere.
            trimmed.append((point if text[first:point].isspace() else first, point))
            continue
        run = None
        while start < end and text[start].isspace():
            start += 1
        # The library gives the "▁" put before a text the place of the text's first character.
        trimmed.append((start, start if token == "▁" else end))
    return trimmed
