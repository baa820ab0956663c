"""A corpus as one long run of token ids on disk, and the contiguous windows that a language model reads it by.

Every line ends with an `<eos>` (the convention of the Penn Treebank; Mikolov et al. 2010). The ids are written once to
the Arrow cache and memory-mapped, so that peak memory does not grow with the corpus. Windows are those of truncated
back-propagation through time: the text is cut into parallel streams, and each window goes on where the last one ended.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqtext.data import arrays
from seqtext.data.cache import Write, cached, code, fingerprint
from seqtext.data.lexicon import column
from seqtext.data.sentences import split_spaces, split_text
from seqtext.data.tokenizer import PAD, UNKNOWN, Tokenizer, TokenizerConfig
from seqtext.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

EOS = "<eos>"
BATCH = 10_000
"""Lines encoded at a time."""
AT_ONCE = 32
"""Windows that are read at a time."""
UNSCORED = -1
"""The target, and the line, of a position that is not scored: a warm-up or padding."""


def words_of(text: str, *, pretokenized: bool) -> list[str]:
    """The words of a line: what stands between spaces, or what the Treebank's rules find in each of its sentences."""
    return [word for word, _, _ in (split_spaces(text) if pretokenized else split_text(text))]


def fit_tokenizer(dataset: Dataset, config: TokenizerConfig, *, pretokenized: bool) -> Tokenizer:
    """The entries of a training text (column `text`), `<eos>` among the special ones; the text is streamed.

    Raises `DataError` where the unit is "unigram" and there is no text.
    """
    if config.unit in ("bpe", "unigram"):
        texts = chain.from_iterable(lines.to_pylist() for lines in _batches(dataset))
        return Tokenizer.train(texts, config, specials=(EOS,))
    counts: Counter[str] = Counter()
    for lines in _batches(dataset):
        if config.unit == "char":
            counts.update(chain.from_iterable(lines.to_pylist()))
        elif pretokenized:
            found = pc.value_counts(_split(lines).flatten())
            words, times = found.field("values").to_pylist(), found.field("counts").to_pylist()
            counts.update(dict(zip(words, times)))
        else:
            for line in lines.to_pylist():
                counts.update(words_of(line, pretokenized=False))
    return Tokenizer.train_words(counts, config, specials=(EOS,))


def line_characters(dataset: Dataset) -> np.ndarray:
    """(S,) int64: characters of each line of the column `text`, the line end counted as one."""
    sizes = pc.utf8_length(column(dataset, "text")).to_numpy()
    return sizes.astype(np.int64) + 1


class Stream:
    """The token ids of a text, lines end to end, each with its `<eos>`; `len` is its number of lines."""

    def __init__(self, chunks: Iterable[pa.ListArray], *, eos: int, unknown: int, characters: int) -> None:
        """`chunks` hold the ids of each line, list<int32>; they are viewed, not copied."""
        self.eos = eos
        """The id of `<eos>`."""
        self.unknown = unknown
        """Tokens that have no entry of their own."""
        self.characters = characters
        """Characters of the text, each line end counted as one."""
        self._ends: list[np.ndarray] = []  # of each chunk: where its lines end, counted from the chunk's first token
        self._ids: list[np.ndarray] = []
        for chunk in chunks:
            bounds = arrays.numbers(chunk.offsets)
            self._ids.append(arrays.numbers(chunk.values)[bounds[0] : bounds[-1]])
            self._ends.append(bounds[1:] - bounds[0] if bounds[0] else bounds[1:])
        self._first_tokens = np.cumsum([0, *map(len, self._ids)])  # of each chunk, and what would be the next
        self._first_lines = np.cumsum([0, *map(len, self._ends)])
        self.tokens = int(self._first_tokens[-1])
        """All tokens, `<eos>` included."""

    def __len__(self) -> int:
        return int(self._first_lines[-1])

    def slice(self, first: int, last: int) -> np.ndarray:
        """Ids (last - first,) int32 of the tokens from `first` up to `last`: a view where one chunk holds them."""
        parts = [self._ids[chunk][start:end] for chunk, start, end in self._parts(first, last)]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.int32), *parts])

    def lines(self, first: int, last: int) -> np.ndarray:
        """(last - first,) int64: the line, from 0, of each token from `first` up to `last`."""
        found = [
            self._first_lines[chunk] + np.searchsorted(self._ends[chunk], np.arange(start, end), side="right")
            for chunk, start, end in self._parts(first, last)
        ]
        return np.concatenate([np.empty(0, np.int64), *found])

    def line(self, number: int) -> np.ndarray:
        """Ids of one line, int32, its `<eos>` included."""
        if not 0 <= number < len(self):
            raise IndexError(f"line {number} of {len(self)}")
        chunk = int(np.searchsorted(self._first_lines, number, side="right")) - 1
        row, ends = number - int(self._first_lines[chunk]), self._ends[chunk]
        return self._ids[chunk][ends[row - 1] if row else 0 : ends[row]]

    def _parts(self, first: int, last: int) -> Iterator[tuple[int, int, int]]:
        """Chunk, and start and end within it, of the tokens from `first` up to `last`."""
        if not 0 <= first <= last <= self.tokens:
            raise IndexError(f"tokens {first} to {last} of {self.tokens}")
        chunk = int(np.searchsorted(self._first_tokens, first, side="right")) - 1
        while first < last:
            begin, end = self._first_tokens[chunk : chunk + 2].tolist()
            if first < end:
                yield chunk, first - begin, min(last, end) - begin
                first = min(last, end)
            chunk += 1


def encode_stream(dataset: Dataset, tokenizer: Tokenizer, *, pretokenized: bool) -> Stream:
    """The text of a dataset (column `text`) as ids, written to the Arrow cache unless they are there already.

    Words are split as `words_of` says; characters and pieces do not depend on `pretokenized`. Needs a tokenizer with
    `<eos>`, such as that of `fit_tokenizer`.
    """
    settings = {
        "dataset": dataset._fingerprint,
        "tokenizer": hashlib.blake2b(tokenizer.to_json().encode()).hexdigest(),
        "pretokenized": pretokenized if tokenizer.unit == "word" else None,
        "libraries": [importlib.metadata.version(name) for name in ("nltk", "tokenizers")],
    }
    found = cached(
        fingerprint(code("stream", "sentences", "tokenizer*"), settings),
        schema=pa.schema([("ids", pa.list_(pa.int32()))]),
        build=partial(_build, dataset, tokenizer, pretokenized),
        kind="stream",
    )
    return Stream(found.dataset.data.column("ids").chunks, eos=tokenizer.id(EOS), **found.facts)


def encode_lines(texts: Sequence[str], tokenizer: Tokenizer, *, pretokenized: bool) -> Stream:
    """As `encode_stream`, for a few lines, in memory."""
    lines = arrays.texts(texts)
    chunk, unknown = _encode(lines, tokenizer, pretokenized)
    return Stream([chunk], eos=tokenizer.id(EOS), unknown=unknown, characters=_characters(lines))


def _batches(dataset: Dataset) -> Iterator[pa.Array]:
    """The lines of a dataset, some thousands at a time."""
    for chunk in column(dataset, "text").chunks:
        for first in range(0, len(chunk), BATCH):
            yield chunk.slice(first, BATCH).cast(pa.string())


def _build(dataset: Dataset, tokenizer: Tokenizer, pretokenized: bool, write: Write) -> Mapping[str, Any]:
    facts = {"unknown": 0, "characters": 0}
    for lines in _batches(dataset):
        chunk, unknown = _encode(lines, tokenizer, pretokenized)
        write({"ids": chunk})
        facts["unknown"] += unknown
        facts["characters"] += _characters(lines)
    return facts


def _characters(lines: pa.Array) -> int:
    return int(pc.sum(pc.utf8_length(lines)).as_py() or 0) + len(lines)


def _encode(lines: pa.Array, tokenizer: Tokenizer, pretokenized: bool) -> tuple[pa.ListArray, int]:
    """The ids of lines with an `<eos>` each, and how many of them are unknown."""
    if tokenizer.unit != "word":
        ids, lengths = tokenizer.encode_flat(lines.to_pylist())
    elif pretokenized:
        ids, lengths = _between_spaces(lines, tokenizer)
    else:
        words = [words_of(line, pretokenized=False) for line in lines.to_pylist()]
        ids = np.array(tokenizer.encode_words(list(chain.from_iterable(words))), np.int32)
        lengths = np.fromiter(map(len, words), np.int64, count=len(words))
    unknown = int((ids == UNKNOWN).sum())
    ends = np.cumsum(lengths)
    ids = np.insert(ids, ends, tokenizer.id(EOS))
    return arrays.lists(ids, lengths + 1), unknown


def _split(lines: pa.Array) -> pa.ListArray:
    """What stands between spaces, line by line; a line without a word has one word of no letters.

    Trimmed first: to see where white space ends, Arrow (26 does) reads one character on, and so at the end of a line
    it finds no space where what lies beyond the text in memory happens to be no UTF-8.
    """
    return pc.utf8_split_whitespace(pc.utf8_trim_whitespace(lines))


def _between_spaces(lines: pa.Array, tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Ids (M,) int32 and words of each line (S,) int64, without Python per word: each type is looked up once."""
    split = _split(lines)
    lengths = arrays.numbers(pc.list_value_length(split)).astype(np.int64)
    words = split.flatten().dictionary_encode()
    types = words.dictionary.to_pylist()
    table = np.array([UNSCORED if not word else id for word, id in zip(types, tokenizer.encode_words(types))], np.int32)
    ids = table[arrays.numbers(words.indices)]
    real = ids != UNSCORED
    if not real.all():
        counts = np.concatenate([[0], np.cumsum(real)])
        ends = np.cumsum(lengths)
        lengths = counts[ends] - counts[ends - lengths]
        ids = ids[real]
    return ids, lengths


class Window(NamedTuple):
    """T steps of b streams."""

    inputs: np.ndarray
    """(b, T) int64: the token before each target; `<eos>` before the first of the text."""
    targets: np.ndarray
    """(b, T) int64: the tokens to predict; -1 where none is scored."""
    lines: np.ndarray | None
    """(b, T) int64: the line of each target, -1 where none is scored; None in training."""
    first: bool
    """Whether it is the first window of the pass, which no state is carried into."""


class Windows:
    """The windows of one pass over a text; `len` is their number, the same on every rank, and nothing is read for it.

    In training ("train"), N tokens are cut into B contiguous streams of N // B; the rest, fewer than B tokens, is left
    out. A stream's first input is the token before it. With a `generator` the windows are of random lengths: around T
    with probability 0.95, else around T / 2, normal with a standard deviation of 5, at least 5 and at most T + 10
    (Merity et al. 2018, "Regularizing and Optimizing LSTM Language Models", section 5; the upper bound is ours).

    In evaluation ("eval") every token is scored exactly once. The streams are as even as can be; each but the first is
    warmed up on up to `warm_up` tokens before it, which are not scored, so that the state it starts from has seen some
    context. With one stream the evaluation is exact, the state being carried from the first token to the last. Where
    streams end before others, padding is not scored.

    B is `streams`, fewer where the text is so short that a stream would not fill a `window`. Of the streams, a rank
    takes every `world`-th; where there are fewer streams than ranks, some get windows of none.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        mode: Literal["train", "eval"],
        streams: int,
        window: int,
        generator: np.random.Generator | None = None,
        warm_up: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        """Raises `DataError` for a text of a single token, line ends apart, in training; of none in evaluation."""
        if streams < 1 or window < 1 or warm_up < 0:
            raise ValueError(f"streams {streams} and window {window} must be at least 1, and warm_up {warm_up} not < 0")
        tokens = stream.tokens
        if mode == "train" and tokens - len(stream) < 2:
            amount = "one token" if tokens > len(stream) else "no token"
            raise DataError(f"a text of {amount}, line ends apart: a language model needs at least two to learn from")
        if tokens == 0:
            raise DataError("a text of no token: there is nothing to score")
        self.stream, self.mode = stream, mode
        self.streams = max(1, min(streams, tokens // window))
        """B: the streams of all ranks together."""
        if mode == "train":
            cuts = np.arange(self.streams + 1) * (tokens // self.streams)
            warm_up = 0
        else:
            cuts = np.arange(self.streams + 1) * tokens // self.streams
        self.targets = int(cuts[-1])
        """Tokens that are scored, on all ranks together."""
        share = np.arange(self.streams)[rank::world]
        self._scored = cuts[share]
        self._ends = cuts[share + 1]
        warm = np.minimum(warm_up, cuts[:-1])
        self._begins = self._scored - warm[share]
        steps = int((np.diff(cuts) + warm).max())
        lengths = _random_lengths(steps, window, generator) if mode == "train" and generator is not None else None
        regular = np.append(np.arange(0, steps, window), steps)
        self.bounds = regular if lengths is None else np.concatenate([[0], np.cumsum(lengths)])
        """(windows + 1,) int64: where windows begin and end, in steps from the beginning of the streams."""

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __iter__(self) -> Iterator[Window]:
        # Many windows are read at once: a stream's tokens lie together, and Python takes as long for few as for many.
        for group in range(0, len(self), AT_ONCE):
            bounds = self.bounds[group : group + AT_ONCE + 1].tolist()
            whole = self._window(bounds[0], bounds[-1])
            for first, last in pairwise(bounds):
                part = np.s_[:, first - bounds[0] : last - bounds[0]]
                lines = None if whole.lines is None else whole.lines[part].copy()
                yield Window(whole.inputs[part].copy(), whole.targets[part].copy(), lines, first == 0)

    def _window(self, first: int, last: int) -> Window:
        steps = last - first
        block = np.full((len(self._begins), steps + 1), PAD, np.int64)  # inputs, and one more step of targets
        lines = None if self.mode == "train" else np.full((len(block), steps), UNSCORED, np.int64)
        for row, (begin, end) in enumerate(zip(self._begins.tolist(), self._ends.tolist())):
            start, stop = begin + first, min(begin + last, end)
            if start >= stop:
                continue
            block[row, 0] = self.stream.slice(start - 1, start)[0] if start else self.stream.eos
            block[row, 1 : 1 + stop - start] = self.stream.slice(start, stop)
            if lines is not None:
                lines[row, : stop - start] = self.stream.lines(start, stop)
        targets = block[:, 1:].copy()
        if lines is not None:
            places = self._begins[:, None] + np.arange(first, last)  # (b, T)
            unscored = (places < self._scored[:, None]) | (places >= self._ends[:, None])
            targets[unscored] = lines[unscored] = UNSCORED
        return Window(block[:, :-1], targets, lines, first == 0)


def _random_lengths(steps: int, window: int, generator: np.random.Generator) -> np.ndarray:
    """Lengths of windows, int64, that add up to `steps`; the last one is what is left."""
    lengths = array("q")
    left = steps
    while left:
        mean = window if generator.random() < 0.95 else window / 2
        drawn = int(min(max(5, generator.normal(mean, 5)), window + 10))
        lengths.append(min(drawn, left))
        left -= lengths[-1]
    return np.array(lengths)
