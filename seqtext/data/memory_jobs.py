"""Synthetic jobs that need nothing but memory, generated from a seed: the adding problem, copying, nested brackets.

A job is one class here and one member of `Job`. An example is a list of words, the positions at which something is
asked, the answer there, and for how many steps what is asked has been kept in mind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from pydantic import Field

from seqtext.config import Config
from seqtext.data.cache import Write, cached, code, fingerprint
from seqtext.data.sources import SPLIT_NAMES, SourceData, Split
from seqtext.errors import DataError

if TYPE_CHECKING:
    import datasets

ROWS = 1000
"""Examples that are written at a time."""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PAIRS = ("()", "[]", "{}", "<>")


class Asked(NamedTuple):
    """What an example asks for, question by question."""

    positions: list[int]
    """After which step each answer is due."""
    answers: list[str]
    distances: list[int]
    """Steps since the model has read what it needs for the answer, the first of it."""


class JobConfig(Config):
    """What a job has: `name`, the size of its examples, and these."""

    @property
    def inputs(self) -> int:
        """Features of a step."""
        raise NotImplementedError

    @property
    def outputs(self) -> list[str]:
        """The answers there are; none where an answer is a number."""
        raise NotImplementedError

    def make(self, random: np.random.Generator) -> list[str]:
        """The words of an example."""
        raise NotImplementedError

    def complete(self, words: Sequence[str]) -> list[str]:
        """The words that the model reads of those that a person gives."""
        return list(words)

    def ask(self, words: Sequence[str]) -> Asked:
        """What is asked of an example. Raises `DataError` for what is none of this job."""
        raise NotImplementedError

    def features(self, types: Sequence[str]) -> np.ndarray:
        """(N, inputs) float32 of N words. Raises `DataError` for one that this job does not have."""
        raise NotImplementedError


class Adding(JobConfig):
    """The adding problem (Hochreiter & Schmidhuber 1997, section 5.4, as Le 2015 has it): numbers, two of them marked
    by a star, one in each half; at the end their sum is asked."""

    name: Literal["adding"] = "adding"
    length: int = Field(default=100, ge=2)
    """Steps of a sequence."""

    @property
    def inputs(self) -> int:
        return 2

    @property
    def outputs(self) -> list[str]:
        return []

    def make(self, random: np.random.Generator) -> list[str]:
        words = [f"{value:.4f}" for value in random.random(self.length)]
        for start, end in ((0, self.length // 2), (self.length // 2, self.length)):
            words[random.integers(start, end)] += "*"
        return words

    def ask(self, words: Sequence[str]) -> Asked:
        marked = [place for place, word in enumerate(words) if word.endswith("*")]
        if len(marked) != 2:
            raise DataError(f"{len(marked)} numbers with a star (0.25*), expected 2: those to add")
        numbers = [_number(words[place]) for place in marked]
        return Asked([len(words) - 1], [f"{sum(numbers):.4f}"], [len(words) - 1 - marked[0]])

    def features(self, types: Sequence[str]) -> np.ndarray:
        """A step's number, and whether it is marked."""
        rows = [(_number(word), word.endswith("*")) for word in types]
        return np.array(rows, np.float32).reshape(-1, self.inputs)


class Copy(JobConfig):
    """Copying after a pause (Hochreiter & Schmidhuber 1997; Arjovsky 2016, section 5.1): symbols, then blanks, then a
    sign (>) on which the symbols are asked in their order."""

    name: Literal["copy"] = "copy"
    length: int = Field(default=20, ge=1)
    """Steps between the last symbol and the first that is asked."""
    items: int = Field(default=10, ge=1)
    """Symbols to copy."""
    symbols: int = Field(default=8, ge=2, le=len(LETTERS))
    """Different symbols."""

    @property
    def inputs(self) -> int:
        return self.symbols + 2

    @property
    def outputs(self) -> list[str]:
        return list(LETTERS[: self.symbols])

    def make(self, random: np.random.Generator) -> list[str]:
        symbols = [LETTERS[number] for number in random.integers(0, self.symbols, self.items)]
        return self.complete([*symbols, *["_"] * (self.length - 1), ">"])

    def complete(self, words: Sequence[str]) -> list[str]:
        """Blanks after the sign, one for each symbol, where they are not there."""
        if words and words[-1] == ">":
            return [*words, *["_"] * sum(word in self.outputs for word in words)]
        return list(words)

    def ask(self, words: Sequence[str]) -> Asked:
        symbols = [place for place, word in enumerate(words) if word not in ("_", ">")]
        count, sign = len(symbols), len(words) - len(symbols) - 1
        if not count or sign < count or list(words[sign:]) != [">", *["_"] * count] or ">" in words[:sign]:
            raise DataError("expected symbols to copy, blanks (_) after them, and at the end the sign >: a b _ _ >")
        distances = [sign + 1 + number - place for number, place in enumerate(symbols)]
        return Asked(list(range(sign + 1, len(words))), [words[place] for place in symbols], distances)

    def features(self, types: Sequence[str]) -> np.ndarray:
        return _one_hot(types, [*self.outputs, "_", ">"])


class Brackets(JobConfig):
    """Nested brackets (Dyck words: Chomsky & Schuetzenberger 1963; of bounded depth, Hewitt 2020): after every step at
    which a bracket is open, the one that must close next is asked."""

    name: Literal["brackets"] = "brackets"
    length: int = Field(default=100, ge=2)
    """Steps of a sequence."""
    kinds: int = Field(default=2, ge=2, le=len(PAIRS))
    """Kinds of brackets."""
    depth: int = Field(default=8, ge=2)
    """Brackets that are open at a time, at most. The first one stays open."""

    @property
    def inputs(self) -> int:
        return 2 * self.kinds

    @property
    def outputs(self) -> list[str]:
        return [pair[1] for pair in PAIRS[: self.kinds]]

    def make(self, random: np.random.Generator) -> list[str]:
        kinds, coins = random.integers(0, self.kinds, self.length).tolist(), random.random(self.length).tolist()
        words: list[str] = []
        stack: list[int] = []
        for kind, coin in zip(kinds, coins):
            if len(stack) < 2 or (len(stack) < self.depth and coin < 0.5):
                stack.append(kind)
                words.append(PAIRS[kind][0])
            else:
                words.append(PAIRS[stack.pop()][1])
        return words

    def ask(self, words: Sequence[str]) -> Asked:
        closes = {pair[0]: pair[1] for pair in PAIRS[: self.kinds]}
        stack: list[int] = []
        found = Asked([], [], [])
        for place, word in enumerate(words):
            if word in closes:
                stack.append(place)
            elif not stack or word != closes[words[stack.pop()]]:
                raise DataError(f"step {place + 1}: {word!r} is no bracket that can stand there")
            if stack:
                found.positions.append(place)
                found.answers.append(closes[words[stack[-1]]])
                found.distances.append(place - stack[-1])
        return found

    def features(self, types: Sequence[str]) -> np.ndarray:
        return _one_hot(types, list("".join(PAIRS[: self.kinds])))


Job = Adding | Copy | Brackets


class MemoryData(SourceData):
    """Which job, and how much of it. Examples are generated: `source` is always "sample"."""

    job: Job = Field(default=Copy(), discriminator="name")
    """What is to be remembered: `adding`, `copy` or `brackets`."""
    examples: int = Field(default=1000, ge=1)
    """Examples to train on."""
    held_out: int = Field(default=200, ge=1)
    """Examples to validate on, and as many to test on."""
    seed: int = Field(default=1, ge=0)
    """Seed of all examples, which has nothing to do with that of training."""


def read_memory(data: MemoryData, split: Split) -> datasets.Dataset:
    """The examples of a split: `tokens` (strings), and of each question `positions`, `answers` and `distances`.

    Raises `DataError` where the data should come from somewhere else.
    """
    given = (
        [data.source] if data.source != "sample" else [path for name in SPLIT_NAMES if (path := getattr(data, name))]
    )
    if given:
        raise DataError("the examples of the task memory are generated; it reads no files ([data.job])", path=given[0])
    import pyarrow as pa

    settings = {"split": split, **data.model_dump(include={"job", "seed"})}
    count = data.examples if split == "train" else data.held_out
    numbers, strings = pa.list_(pa.int32()), pa.list_(pa.string())
    columns = {"tokens": strings, "positions": numbers, "answers": strings, "distances": numbers}

    def build(write: Write) -> dict[str, int]:
        random = np.random.default_rng([data.seed, list(SPLIT_NAMES).index(split)])
        for start in range(0, count, ROWS):
            rows = list(_examples(data.job, random, min(ROWS, count - start)))
            write({name: [row[name] for row in rows] for name in columns})
        return {"examples": count}

    key = fingerprint(code("memory_jobs"), settings | {"count": count})
    dataset, _ = cached(key, schema=pa.schema(columns), build=build, kind="memory")
    dataset.info.description = data.job.name
    return dataset


def _examples(job: Job, random: np.random.Generator, count: int) -> Iterator[dict[str, list[str] | list[int]]]:
    for _ in range(count):
        words = job.make(random)
        yield {"tokens": words, **job.ask(words)._asdict()}


def _number(word: str) -> float:
    """The number of a step of the adding problem."""
    try:
        value = float(word.removesuffix("*"))
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise DataError(f"{word!r}: expected a number from 0 to 1, with a star (0.25*) where it is to be added")
    return value


def _one_hot(types: Sequence[str], known: Sequence[str]) -> np.ndarray:
    """(N, len(known)) float32. Raises `DataError` naming what is not known."""
    table = {symbol: number for number, symbol in enumerate(known)}
    if unknown := [word for word in types if word not in table]:
        raise DataError(f"{unknown[0]!r} is no symbol of this job; its symbols: {' '.join(known)}")
    return np.eye(len(known), dtype=np.float32)[[table[word] for word in types]].reshape(-1, len(known))
