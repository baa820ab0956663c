"""Translated sentences: from wherever they are to rows of source and target in the Arrow cache, filtered and counted.

A row is a sentence and its translation as they are written, but for the spaces at their ends. Reading streams: a batch
of pairs is in memory at a time, and for `drop_duplicates` a digest of 8 bytes a pair, some 100 MB for a million.
`swapped` tells whether two splits have their sides the other way round, by scripts and by frequent words.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from seqtext.data.cache import Write, cached, code, fingerprint
from seqtext.data.parallel_files import Pair, Reader, open_reader, pair_files
from seqtext.data.sources import SPLIT_NAMES, SourceData, Split
from seqtext.data.text import refuse_nul
from seqtext.errors import DataError

if TYPE_CHECKING:
    import datasets

BATCH_PAIRS = 5_000
BATCH_CHARACTERS = 4_000_000
"""A batch of rows ends at whichever comes first."""
LEFT_OUT = "left out: "
"""What stands in a split's description before what its filters left out."""
LOOKED_AT = 2_000
"""Rows of a split that tell whether its sides are swapped."""
LOOKED_IN = 1_000
"""Characters of a row that are looked at."""
FEWEST_LETTERS = 50
FEWEST_WORDS = 200
"""Of each side, below which nothing is said of swapped sides."""
SCRIPTS_APART = 0.6
"""Of 2: how much more alike the scripts of crossed sides must be than those of the same sides."""
WORDS_APART = 0.3
"""The same of the words."""

Language = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]


class ParallelData(SourceData):
    """Sentences and their translations: where they are, how they read, and which are left out.

    The filters of length, ratio and duplicates are for training data alone: validation and test data stay whole, so
    that scores on them compare with those of others.
    """

    source_language: Language = "en"
    """Language to translate from: what its files end in (train.en or train.en.gz), and its key where pairs are held by
    language."""
    target_language: Language = "de"
    """Language to translate to, likewise (train.de)."""
    format: Literal["auto", "text", "tsv", "jsonl"] = "auto"
    """How files read: `text` is a file for each language, with as many lines; data.train and the like then name the
    two without their suffix, or either one. TSV and JSON lines hold both sides. `auto` looks for two files, then goes
    by the name, then by the first line."""
    source_field: str = "source"
    """Key or column of the source: in JSON lines and hub datasets, which may have `translation` by language instead,
    and in the header of TSV. A TSV file whose first row has neither of the two names is read without a header, by its
    first two columns, unless a name is given here; a header of the two languages will do."""
    target_field: str = "target"
    """Key or column of the target, likewise."""
    max_length: int | None = Field(default=None, ge=1)
    """Train without pairs of which a side has more words than this (words are what stands between spaces)."""
    max_ratio: float | None = Field(default=None, ge=1.0)
    """Train without pairs whose longer side has more than this many times the words of the shorter."""
    drop_duplicates: bool = False
    """Train on the first of equal pairs only."""
    empty: Literal["error", "drop"] = "error"
    """What to do with a pair of which a side is empty: say where it is, or leave it out, of every split."""

    @model_validator(mode="after")
    def _sensible(self) -> ParallelData:
        if self.source_language == self.target_language:
            raise ValueError(f"source_language and target_language are both {self.source_language!r}; they must differ")
        if self.source_field == self.target_field:
            raise ValueError(f"source_field and target_field are both {self.source_field!r}; they must differ")
        return self

    @property
    def languages(self) -> tuple[str, str]:
        """Of source and target."""
        return self.source_language, self.target_language

    def absolute(self) -> Self:
        data = super().absolute()
        update: dict[str, Any] = {}
        for split in SPLIT_NAMES:
            given: str | None = getattr(self, split)
            if given and pair_files(self, path := Path(given).expanduser()):  # need not be a file itself
                update[split] = str(path.absolute())
        return data.model_copy(update=update)


def read_parallel(data: ParallelData, split: Split) -> datasets.Dataset:
    """The pairs of a split, memory-mapped: `source` and `target`, strings.

    `dataset.info.description` says how it was read and what was left out. Raises `MissingSplit` where there is no such
    split, and `DataError` with file and line for all that does not read as it should, an empty side, and a split
    without a pair.
    """
    import pyarrow as pa

    reader = open_reader(data, split)
    filters: dict[str, Any] = {"empty": data.empty}
    if split == "train":
        filters |= {"length": data.max_length, "ratio": data.max_ratio, "duplicates": data.drop_duplicates}
    settings = {"format": reader.format, "filters": filters, **reader.settings}
    dataset, facts = cached(
        fingerprint([*reader.paths, *code("parallel*", "records", "text")], settings),
        schema=pa.schema([("source", pa.string()), ("target", pa.string())]),
        build=partial(_build, reader, data, split),
        kind="parallel",
    )
    about = f"{reader.format} {data.source_language}-{data.target_language}"
    left_out = _left_out(facts["left_out"], data, split)
    dataset.info.description = about + (f"; {LEFT_OUT}{left_out}" if left_out else "")
    return dataset


def filtered(dataset: datasets.Dataset) -> str:
    """How many pairs each filter left out of a split that `read_parallel` gave; empty where there is no filter."""
    return str(dataset.info.description).partition(LEFT_OUT)[2]


def _left_out(counts: Mapping[str, int], data: ParallelData, split: Split) -> str:
    """How many pairs each filter of this split left out."""
    training = split == "train"
    reasons = {
        "empty": ("with an empty side", data.empty == "drop"),
        "length": (f"longer than {data.max_length} words", training and data.max_length is not None),
        "ratio": (f"of a length ratio over {data.max_ratio}", training and data.max_ratio is not None),
        "duplicate": ("duplicate" if counts.get("duplicate") == 1 else "duplicates", training and data.drop_duplicates),
    }
    return ", ".join(f"{counts.get(name, 0):,} {what}" for name, (what, filters) in reasons.items() if filters)


def _build(reader: Reader, data: ParallelData, split: Split, write: Write) -> dict[str, Any]:
    left_out: Counter[str] = Counter()
    sources: list[str] = []
    targets: list[str] = []
    count = held = 0
    for source, target in _kept(reader, data, split, left_out):
        sources.append(source)
        targets.append(target)
        held += len(source) + len(target)
        count += 1
        if len(sources) == BATCH_PAIRS or held >= BATCH_CHARACTERS:
            write({"source": sources, "target": targets})
            sources, targets, held = [], [], 0
    if sources:
        write({"source": sources, "target": targets})
    if not count:
        counts = _left_out(left_out, data, split) if left_out else ""
        message = f"no pair is left; left out: {counts}" if counts else "no text: it is empty or blank"
        raise DataError(message, path=reader.places[0])
    return {"pairs": count, "left_out": dict(left_out)}


def _kept(reader: Reader, data: ParallelData, split: Split, left_out: Counter[str]) -> Iterator[tuple[str, str]]:
    """Checked and stripped pairs that no filter leaves out; those are counted by the first that does."""
    seen: set[bytes] = set()
    training = split == "train"
    for pair in reader.read():
        source, target = (_checked(text, pair, place) for text, place in zip(pair[1:], reader.places, strict=True))
        if not (source and target):
            if data.empty == "error":
                raise _empty(reader, data, pair)
            left_out["empty"] += 1
            continue
        if training:
            shorter, longer = sorted((len(source.split()), len(target.split())))
            if data.max_length is not None and longer > data.max_length:
                left_out["length"] += 1
                continue
            if data.max_ratio is not None and longer > data.max_ratio * shorter:
                left_out["ratio"] += 1
                continue
            if data.drop_duplicates:
                digest = blake2b(f"{source}\0{target}".encode(), digest_size=8).digest()
                if digest in seen:
                    left_out["duplicate"] += 1
                    continue
                seen.add(digest)
        yield source, target


def _checked(text: str, pair: Pair, place: str | Path) -> str:
    refuse_nul(text, path=place, line=pair.line)
    return text.strip()


def _empty(reader: Reader, data: ParallelData, pair: Pair) -> DataError:
    side = 0 if not pair.source.strip() else 1
    name = ("source", "target")[side]
    both = " and target" if not (pair.source + pair.target).strip() else ""
    message = f'empty {name}{both}; expected a sentence on each side; data.empty = "drop" leaves such pairs out'
    return DataError(message, path=reader.places[side], line=pair.line)


# Sides the other way round


def swapped(train: datasets.Dataset, other: datasets.Dataset) -> str | None:
    """A warning where the sides of `other` are likely swapped against those of `train`; None where they are not.

    By the scripts of the letters, and where they agree by the words: of either, shares of source and target of `other`
    are compared with those of the same sides of `train` and with those of the crossed sides. The first `LOOKED_AT`
    rows tell; of few letters or words nothing is said.
    """
    ours, theirs = (_sides(dataset) for dataset in (train, other))
    scripts = [[_scripts(text) for text in sides] for sides in (ours, theirs)]
    advice = "are data.source_language and data.target_language, or the files, the wrong way round?"
    counts = [count.total() for sides in scripts for count in sides]
    if min(counts) >= FEWEST_LETTERS and _crossed(scripts, SCRIPTS_APART):
        names = [max(count, key=count.__getitem__).title() for sides in scripts for count in sides]
        found = f"the source is mostly {names[2]} and the target {names[3]}"
        return f"the sides look swapped: {found}, in the training data {names[0]} and {names[1]}; {advice}"
    words = [[Counter(re.findall(r"\w+", text.lower())) for text in sides] for sides in (ours, theirs)]
    if min(count.total() for sides in words for count in sides) >= FEWEST_WORDS and _crossed(words, WORDS_APART):
        said = [", ".join(word for word, _ in count.most_common(5)) for count in (words[1][0], words[0][1])]
        found = f"frequent words of the source ({said[0]}) are those of the target in the training data ({said[1]})"
        return f"the sides look swapped: {found}; {advice}"
    return None


def doubts_of_other(
    ours: ParallelData, data: ParallelData, dataset: datasets.Dataset, train: Callable[[], datasets.Dataset]
) -> list[str]:
    """Doubts about other data than the training data `ours`, which `train` reads.

    Languages may have other names there (`eng` for `en`), which is told. Raises `DataError` where they are the same two
    the other way round.
    """
    (source, target), (other, another) = ours.languages, data.languages
    if (other, another) == (target, source):
        given = f'data.source_language is "{other}" and data.target_language "{another}"'
        raise DataError(f"{given}: this run translates from {source} to {target}; leave both out")
    doubts = []
    if (other, another) != (source, target):
        doubts.append(f"the data are {other}-{another}, and this run translates from {source} to {target}")
    with suppress(DataError):  # the training data may not be there any more
        doubts += [found] if (found := swapped(train(), dataset)) else []
    return doubts


def _sides(dataset: datasets.Dataset) -> tuple[str, str]:
    """The first rows of source and of target, each in one text."""
    rows = dataset[:LOOKED_AT]
    source, target = ("\n".join(text[:LOOKED_IN] for text in rows[side]) for side in ("source", "target"))
    return source, target


def _scripts(text: str) -> Counter[str]:
    """Letters by script, which is the first word of a letter's Unicode name."""
    scripts: Counter[str] = Counter()
    for letter, count in Counter(text).items():
        if name := _script(letter):
            scripts[name] += count
    return scripts


@cache
def _script(letter: str) -> str:
    name = unicodedata.name(letter, "").partition(" ")[0] if letter.isalpha() else ""
    return "Han" if name == "CJK" else name


def _crossed(counts: list[list[Counter[str]]], apart: float) -> bool:
    """Whether crossed sides are clearly alike and same sides are not, each pair of them; counts by split and side."""
    (source, target), (their_source, their_target) = counts
    same = _alike(source, their_source), _alike(target, their_target)
    crossed = _alike(source, their_target), _alike(target, their_source)
    return min(crossed) > max(same) and sum(crossed) - sum(same) >= apart


def _alike(one: Counter[str], other: Counter[str]) -> float:
    """From 0 to 1: what two distributions share."""
    totals = one.total(), other.total()
    return sum(min(count / totals[0], other[name] / totals[1]) for name, count in one.items())
