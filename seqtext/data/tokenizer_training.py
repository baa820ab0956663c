"""What a tokenizer is trained by, and its training: entries counted, pieces learned by BPE or by the unigram model.

The papers are named in `tokenizer`; the training of pieces is the `tokenizers` library's.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import model_validator

from seqtext.config import Config
from seqtext.errors import DataError

if TYPE_CHECKING:
    import tokenizers

PAD, UNKNOWN = 0, 1
"""Ids of `<pad>` and `<unk>` in every tokenizer."""
SPECIALS = ("<pad>", "<unk>")
BYTES = {f"<0x{byte:02X}>": byte for byte in range(256)}
"""The entries that bytes are written as, and the bytes."""
SURROGATE = re.compile("[\ud800-\udfff]")


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
    which keeps every character of its training text and refuses a number too small for that."""
    byte_fallback: bool = False
    """For bpe and unigram: write a character that has no entry as its UTF-8 bytes, <0x00> to <0xFF>, so that no text is
    unknown and decoding gives any text back. The 256 entries count towards max_size."""

    @model_validator(mode="after")
    def _sensible(self) -> TokenizerConfig:
        if self.min_frequency < 1:
            raise ValueError(f"min_frequency must be at least 1, got {self.min_frequency}")
        if self.byte_fallback and self.unit not in ("bpe", "unigram"):
            only = "byte_fallback is read for the units 'bpe' and 'unigram' only"
            raise ValueError(f"{only}, and unit is {self.unit!r}: set data.tokenizer.byte_fallback=false")
        fewest = len(SPECIALS) + (len(BYTES) if self.byte_fallback else 0) + 1
        if self.max_size is not None and self.max_size < fewest:
            why = f" with byte_fallback, which takes {len(BYTES)}" if self.byte_fallback else ""
            raise ValueError(f"max_size must be at least {fewest}{why}, got {self.max_size}")
        if self.unit in ("bpe", "unigram") and self.max_size is None:
            raise ValueError(f"max_size must be given for the unit {self.unit!r}, for example 8000")
        if self.unit == "unigram" and self.min_frequency != 1:
            raise ValueError("min_frequency is not read for the unit 'unigram', max_size alone decides: set it to 1")
        return self


def encodable(text: str) -> str:
    """The text with lone surrogates, which no encoding has, replaced; as long as before, so that offsets hold."""
    return text if text.isascii() else SURROGATE.sub("\ufffd", text)


def _normalisers(config: TokenizerConfig) -> list[Any]:
    from tokenizers import Regex, normalizers

    lowercase = [normalizers.Lowercase()] if config.lowercase else []
    digits = [normalizers.Replace(Regex(r"\p{Nd}"), "0")] if config.fold_digits else []
    return [*lowercase, *digits]


def outfit(library: tokenizers.Tokenizer, config: TokenizerConfig) -> None:
    """Give a tokenizer what stands around its model: how text is normalised, cut and put together again."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers

    steps = _normalisers(config)
    if config.unit == "char":
        library.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        library.decoder = decoders.Fuse()
    elif config.unit == "word":
        library.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    else:
        steps = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), *steps]
        library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()])
        library.decoder = decoders.Metaspace()
        if config.byte_fallback:  # in this order, for the bytes of "▁" are no space
            library.decoder = decoders.Sequence([decoders.Metaspace(), decoders.ByteFallback(), decoders.Fuse()])
    if steps:
        library.normalizer = normalizers.Sequence(steps)


def is_ours(library: tokenizers.Tokenizer, unit: str) -> bool:
    """Whether a loaded tokenizer of this unit has an outfit of ours, which can read any text; another may fail on some.

    A damaged file can hold a normaliser, say, by which the library ends in a panic.
    """
    if library.truncation or library.padding or library.post_processor or getattr(library.model, "dropout", None):
        return False
    if unit != "unigram" and library.model.unk_token != SPECIALS[UNKNOWN]:
        return False
    if unit == "bpe" and (library.model.continuing_subword_prefix or library.model.end_of_word_suffix):
        return False
    return _parts(library) in _known_parts(unit)


@cache
def _known_parts(unit: str) -> list[list[bytes]]:
    import tokenizers
    from tokenizers import models

    found = []
    for lowercase, fold_digits, byte_fallback in itertools.product((False, True), repeat=3):
        if unit in ("bpe", "unigram") or not byte_fallback:
            sizes = {"max_size": 1000} if unit in ("bpe", "unigram") else {}
            values = {"unit": unit, "lowercase": lowercase, "fold_digits": fold_digits, "byte_fallback": byte_fallback}
            library = tokenizers.Tokenizer(models.WordLevel({}, unk_token=SPECIALS[UNKNOWN]))
            outfit(library, TokenizerConfig.model_validate(values | sizes))
            found.append(_parts(library))
    return found


def _parts(library: tokenizers.Tokenizer) -> list[bytes]:
    """The outfit as the library writes it."""
    parts = (library.normalizer, library.pre_tokenizer, library.decoder)
    return [b"" if part is None else part.__getstate__() for part in parts]


def count_entries(counts: Mapping[str, int], config: TokenizerConfig, specials: list[str]) -> tokenizers.Tokenizer:
    """A word-level or character tokenizer of the entries frequent enough."""
    import tokenizers
    from tokenizers import models, normalizers

    normalise = normalizers.Sequence(_normalisers(config)).normalize_str
    totals: Counter[str] = Counter()
    for word, count in counts.items():
        form = normalise(encodable(word))
        for entry in form if config.unit == "char" else [form]:
            totals[entry] += count
    kept = [entry for entry, count in totals.items() if count >= config.min_frequency and entry not in ("", *specials)]
    kept.sort(key=lambda entry: (-totals[entry], entry))
    if config.max_size is not None:
        kept = kept[: max(0, config.max_size - len(specials))]
    vocabulary = {entry: id for id, entry in enumerate([*specials, *kept])}
    library = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIALS[UNKNOWN]))
    library.add_special_tokens(specials)
    outfit(library, config)
    return library


def learn_pieces(texts: Iterable[str], config: TokenizerConfig, specials: list[str]) -> tokenizers.Tokenizer:
    """A BPE or unigram tokenizer; runs of space count as one, and punctuation is never merged with letters.

    So no text is ever read as the entry of a byte: what a user types as <0x41> is cut at < and >.
    """
    import tokenizers
    from tokenizers import models, trainers

    size = (config.max_size or 0) - (len(BYTES) if config.byte_fallback else 0)
    trainer: Any
    if config.unit == "bpe":
        library = tokenizers.Tokenizer(models.BPE(unk_token=SPECIALS[UNKNOWN], fuse_unk=True))
        trainer = trainers.BpeTrainer(
            vocab_size=size,
            min_frequency=config.min_frequency,
            limit_alphabet=max(int(config.byte_fallback), size - len(specials)),  # the "▁" has no bytes
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
    outfit(library, config)
    if config.unit == "unigram":
        texts = _with_room(texts, library.normalizer.normalize_str, config, len(specials))
    library.train_from_iterator(texts, trainer)
    if config.unit == "unigram":
        _settle(library, specials, byte_fallback=config.byte_fallback)
    elif config.byte_fallback:
        _add_bytes(library, specials)
    return library


def _with_room(
    texts: Iterable[str], normalise: Callable[[str], str], config: TokenizerConfig, specials: int
) -> Iterator[str]:
    """The texts; then raises `DataError` where their characters are too many, with which the library never ends."""
    characters = {"▁"}
    for text in texts:
        characters.update(normalise(text))
        yield text
    needed = len(characters - {" "}) + specials + (len(BYTES) if config.byte_fallback else 0)
    if config.max_size is not None and config.max_size < needed:
        raise DataError(
            f"max_size = {config.max_size} is too small for the unit 'unigram' and this text, whose characters and "
            f"special entries are {needed}: set data.tokenizer.max_size to more"
        )


def _add_bytes(library: tokenizers.Tokenizer, specials: list[str]) -> None:
    """Give a trained BPE model the entries of bytes, after the special ones."""
    from tokenizers import models

    model = json.loads(library.to_str())["model"]
    learned = sorted(model["vocab"], key=model["vocab"].__getitem__)
    entries = [*specials, *BYTES, *(entry for entry in learned if entry not in specials)]
    library.model = models.BPE(
        {entry: id for id, entry in enumerate(entries)},
        [tuple(pair) for pair in model["merges"]],
        unk_token=SPECIALS[UNKNOWN],
        fuse_unk=True,
        byte_fallback=True,
    )


def _settle(library: tokenizers.Tokenizer, specials: list[str], *, byte_fallback: bool) -> None:
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
    fixed = [*specials, *(BYTES if byte_fallback else ())]
    library.model = models.Unigram([*((entry, 0.0) for entry in fixed), *pieces], UNKNOWN, byte_fallback)
