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
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from pydantic import model_validator

from seqtext.config import Config
from seqtext.errors import DataError, RunError

if TYPE_CHECKING:
    import tokenizers

PAD, UNKNOWN = 0, 1
"""Ids of `<pad>` and `<unk>` in every tokenizer."""
SPECIALS = ("<pad>", "<unk>")
MEMO_SIZE = 1_000_000
"""Words whose id is remembered: some 100 MB at worst, however long the stream of text."""
SURROGATE = re.compile("[\ud800-\udfff]")
NOT_SPACE = re.compile(r"\S+")


class TokenizerConfig(Config):
    """What a tokenizer's entries are, and which it keeps."""

    unit: Literal["word", "char", "bpe", "unigram"] = "word"
    """What one entry is: a word, a character, or a piece learned by BPE or by the unigram model."""
    lowercase: bool = False
    """Read everything lower-cased."""
    fold_digits: bool = False
    """Read every digit as 0."""
    min_frequency: int = 1
    """Leave out words or characters rarer than this; for BPE, pairs rarer than this are not merged."""
    max_size: int | None = None
    """Keep at most this many entries, the special ones included: the most frequent. Required for bpe and for unigram,
    which keeps every character of its training text whatever the number."""

    @model_validator(mode="after")
    def _sensible(self) -> TokenizerConfig:
        if self.min_frequency < 1:
            raise ValueError(f"min_frequency must be at least 1, got {self.min_frequency}")
        if self.max_size is not None and self.max_size <= len(SPECIALS):
            raise ValueError(f"max_size must be at least {len(SPECIALS) + 1}, got {self.max_size}")
        if self.unit in ("bpe", "unigram") and self.max_size is None:
            raise ValueError(f"max_size must be given for the unit {self.unit!r}, for example 8000")
        if self.unit == "unigram" and self.min_frequency != 1:
            raise ValueError("min_frequency is not read for the unit 'unigram'; max_size alone decides")
        return self


class Encoding(NamedTuple):
    """A text as entries; `text[start:end]` is the part of the raw text that an entry stands for."""

    ids: list[int]
    tokens: list[str]
    """The entries themselves: normalised, and `<unk>` for what is unknown."""
    offsets: list[tuple[int, int]]
    """(start, end) in characters. A "▁" that stands only for a space is empty."""


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
            return cls(_learn_pieces(map(_encodable, texts), config, [*SPECIALS, *specials]))
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
            words = chain.from_iterable(repeat(_encodable(word), count) for word, count in counts.items())
            return cls(_learn_pieces(words, config, [*SPECIALS, *specials]))
        return cls(_count_entries(counts, config, [*SPECIALS, *specials]))

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
        found = self._library.encode_batch_fast([_encodable(text) for text in texts], add_special_tokens=False)
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
        found = self._library.encode_batch([_encodable(text) for text in texts], add_special_tokens=False)
        for text, one in zip(texts, found):
            ids = one.ids
            tokens = [self._tokens[id] for id in ids]
            encodings.append(
                Encoding(ids, tokens, one.offsets if self.unit == "char" else _trim(text, tokens, one.offsets))
            )
        return encodings

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids: words joined by spaces, characters and pieces by nothing. Only `<unk>` shows of specials."""
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
            library = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing narrower
            raise RunError(f"{path}: damaged, or not a tokenizer file: {error}") from None
        found = cls(library)
        if tuple(found._tokens[: len(SPECIALS)]) != SPECIALS or not found.unit:
            raise RunError(f"{path}: not a tokenizer of seqtext: its first entries must be <pad> and <unk>")
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
        word = _encodable(word)
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


def _encodable(text: str) -> str:
    """The text with lone surrogates, which no encoding has, replaced; as long as before, so that offsets hold."""
    return text if text.isascii() else SURROGATE.sub("\ufffd", text)


def _trim(text: str, tokens: list[str], offsets: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Offsets of pieces without the space that "▁" stands for."""
    trimmed = []
    for token, (start, end) in zip(tokens, offsets):
        while start < end and text[start].isspace():
            start += 1
        # The library gives the "▁" put before a text the place of the text's first character.
        trimmed.append((start, start if token == "▁" else end))
    return trimmed


def _normalisers(config: TokenizerConfig) -> list[Any]:
    from tokenizers import Regex, normalizers

    lowercase = [normalizers.Lowercase()] if config.lowercase else []
    digits = [normalizers.Replace(Regex(r"\p{Nd}"), "0")] if config.fold_digits else []
    return [*lowercase, *digits]


def _count_entries(counts: Mapping[str, int], config: TokenizerConfig, specials: list[str]) -> tokenizers.Tokenizer:
    """A word-level or character tokenizer of the entries frequent enough."""
    import tokenizers
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers

    steps = _normalisers(config)
    normalise = normalizers.Sequence(steps).normalize_str
    totals: Counter[str] = Counter()
    for word, count in counts.items():
        form = normalise(_encodable(word))
        for entry in form if config.unit == "char" else [form]:
            totals[entry] += count
    kept = [entry for entry, count in totals.items() if count >= config.min_frequency and entry not in ("", *specials)]
    kept.sort(key=lambda entry: (-totals[entry], entry))
    if config.max_size is not None:
        kept = kept[: max(0, config.max_size - len(specials))]
    vocabulary = {entry: id for id, entry in enumerate([*specials, *kept])}
    library = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIALS[UNKNOWN]))
    library.add_special_tokens(specials)
    if steps:
        library.normalizer = normalizers.Sequence(steps)
    if config.unit == "char":
        library.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        library.decoder = decoders.Fuse()
    else:
        library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return library


def _learn_pieces(texts: Iterable[str], config: TokenizerConfig, specials: list[str]) -> tokenizers.Tokenizer:
    """A BPE or unigram tokenizer; runs of space count as one, and punctuation is never merged with letters."""
    import tokenizers
    from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

    size = config.max_size or 0
    trainer: Any
    if config.unit == "bpe":
        library = tokenizers.Tokenizer(models.BPE(unk_token=SPECIALS[UNKNOWN], fuse_unk=True))
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=config.min_frequency,
            limit_alphabet=max(0, size - len(specials)),
            initial_alphabet=["▁"],
            special_tokens=specials,
            show_progress=False,
        )
    else:
        library = tokenizers.Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=size,
            unk_token=SPECIALS[UNKNOWN],
            initial_alphabet=["▁"],
            special_tokens=specials,
            show_progress=False,
        )
    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    library.normalizer = normalizers.Sequence([*spaces, *_normalisers(config)])
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
    library.decoder = decoders.Metaspace()
    library.train_from_iterator(texts, trainer)
    if config.unit == "unigram":
        _settle(library, specials)
    return library


def _settle(library: tokenizers.Tokenizer, specials: list[str]) -> None:
    """Make a trained unigram model the same every time.

    The library walks hash tables that are seeded anew in each process. So scores differ in the 11th decimal, and the
    characters it adds, that every word can be written, get the lowest score and up in steps of 0.0001, whichever comes
    first. Here these share the lowest score, the others are rounded, and ties are in alphabetical order.
    """
    from tokenizers import models

    learned = json.loads(library.to_str())["model"]["vocab"]
    if any(score is None for _, score in learned):  # JSON's null: not a number
        raise DataError("there is no text to learn pieces from")
    pieces = [(piece, score) for piece, score in learned if piece not in specials]
    lowest = min(score for _, score in pieces)
    added = lowest + 0.0001 * sum(len(piece) == 1 for piece, _ in pieces)
    pieces = [(piece, round(lowest if len(piece) == 1 and score < added else score, 4)) for piece, score in pieces]
    pieces.sort(key=lambda entry: (-entry[1], entry[0]))
    library.model = models.Unigram([*((entry, 0.0) for entry in specials), *pieces], UNKNOWN, False)
