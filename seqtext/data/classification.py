"""Labelled texts: from wherever they are to rows of text, tokens and label in the Arrow cache.

Where a corpus has no validation or test data, a seeded, stratified share of the training data is held out, or one of k
folds is the test data. What a text is in is decided on its label alone, in a pass of its own that keeps 4 bytes an
example; texts are then read, split into words and written a batch at a time, so that memory does not grow with the
corpus.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from array import array
from collections import Counter
from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from seqtext.data import folds
from seqtext.data.brackets import Tree
from seqtext.data.cache import Write, cached, code, fingerprint
from seqtext.data.classification_files import Reader, Row, open_reader
from seqtext.data.sentences import split_spaces, split_text
from seqtext.data.sources import MissingSplit, SourceData, Split, has
from seqtext.errors import DataError

if TYPE_CHECKING:
    import datasets

BATCH = 1000
"""Texts in memory at a time."""
MOST_CLASSES = 10_000
FOLD_VALID = 0.1
"""Share of a fold's training data that validates, where there is no other validation data."""
BINARY: dict[str, str | None] = {"0": "negative", "1": "negative", "2": None, "3": "positive", "4": "positive"}
PARTS: tuple[Split, ...] = ("train", "valid", "test")


class ClassificationData(SourceData):
    """Labelled texts: where they are, how they read, and how they are cut."""

    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "folder", "trees"] = "auto"
    """How files read; `auto` looks at the file. CSV and TSV have a header; `folder` is a folder of .txt files a class,
    as SPLIT/CLASS/*.txt (CLASS `unsup` is skipped); `trees` are in Treebank brackets, the root's label the class."""
    text_field: str = "text"
    """The column or key of the text."""
    label_field: str = "label"
    """The column or key of the label; labels are text or whole numbers."""
    separator: str | None = None
    """What stands between columns; by default a comma in CSV and a tab in TSV."""
    quotes: bool = True
    """CSV and TSV: fields in double quotes may hold separators and line ends; false: a quote is a plain character."""
    labels: Literal["all", "binary"] = "all"
    """`all` takes labels as they are; `binary` makes 0 and 1 negative, 3 and 4 positive, and leaves out 2."""
    phrases: bool = False
    """Trees: train on every labelled constituent too, each text once a label. Validation and test data stay whole."""
    pretokenized: bool = False
    """Texts are tokenised already: words are what stands between spaces. (The words of trees always are.)"""
    hold_out: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Share of the training data held out, stratified, for validation where there is no other data for it, and as much
    again for test."""
    folds: int = Field(default=0, ge=0)
    """Cut the training data in this many stratified folds, one of them the test data."""
    fold: int = Field(default=0, ge=0)
    """Which fold is the test data, from 1. The rest is training data but for what validates: the source's validation
    data, or else a stratified tenth (or `hold_out`) of the rest."""
    fold_seed: int = 0
    """Seed of the cuts, of folds and of what is held out."""

    @model_validator(mode="after")
    def _sensible(self) -> ClassificationData:
        if self.folds == 1 or self.fold > self.folds or bool(self.fold) != bool(self.folds):
            given = f"got folds = {self.folds} and fold = {self.fold}"
            raise ValueError(f"folds is 2 or more with fold from 1 to folds, or both are 0; {given}")
        if self.folds and self.test is not None:
            raise ValueError("test is not read with folds: a fold of the training data is the test data")
        if self.separator is not None and (len(self.separator) != 1 or self.separator in '"\r\n'):
            raise ValueError(f"separator must be one character, no quote and no line end, got {self.separator!r}")
        return self

    def uncut(self) -> Self:
        return self.model_copy(update={"hold_out": 0.0, "folds": 0, "fold": 0})

    def part(self, split: Split) -> str:
        if not _cut(self, split):
            return split
        how = f"fold {self.fold} of {self.folds}" if self.folds else f"hold_out {self.hold_out}"
        return f"{split} ({how}, fold_seed {self.fold_seed})"


class Cut(NamedTuple):
    """The part of the training data that is a split, where `missing` are the splits that have no data of their own."""

    split: Split
    missing: tuple[Split, ...]


def read_classification(data: ClassificationData, split: Split) -> datasets.Dataset:
    """The examples of a split, memory-mapped: `text` and `label`, strings, and `tokens`, a list of strings.

    `dataset.info.description` says how it was read ("csv, 3 classes"). Raises `DataError` for all that does not read as
    it should, for a split without an example, and for training data of a single class; `MissingSplit` where there is
    no such split and none is cut from the training data.
    """
    cut = _cut(data, split)
    try:
        reader = open_reader(data, "train" if cut else split)
    except MissingSplit as error:
        if split == "train":
            raise
        advice = "data.hold_out = 0.1 takes a tenth of the training data for it, data.folds cuts it in folds"
        raise MissingSplit(f"{error}; {advice}") from None
    phrases = data.phrases and split == "train"  # others stay whole, and may be of another format
    if phrases and reader.format != "trees":
        raise DataError(f"data.phrases = true needs trees, and this is {reader.format}", path=reader.place)
    settings = {
        "format": reader.format,
        "labels": data.labels,
        "phrases": phrases,
        "pretokenized": data.pretokenized,
        "several": split == "train",
        "cut": cut and [*cut, data.hold_out, data.folds, data.fold, data.fold_seed],
        "nltk": importlib.metadata.version("nltk"),
        **reader.settings,
    }
    modules = ("classification*", "brackets", "folds", "records", "sentences", "tokenizer*", "text")

    import pyarrow as pa

    strings = pa.list_(pa.string())
    dataset, facts = cached(
        fingerprint([*reader.paths, *code(*modules)], settings),
        schema=pa.schema([("text", pa.string()), ("tokens", strings), ("label", pa.string())]),
        build=partial(_build, reader, data, split, cut),
        kind="classification",
    )
    about = [reader.format, f"{facts['classes']} class" + ("" if facts["classes"] == 1 else "es")]
    if phrases:
        about.append("with phrases")
    if cut:
        about.append(f"fold {data.fold} of {data.folds}" if data.folds else "cut from the training data")
    dataset.info.description = ", ".join(about)
    return dataset


def _cut(data: ClassificationData, split: Split) -> Cut | None:
    """How `split` is cut from the training data; None where it is read as it is."""
    if not data.folds and not data.hold_out:
        return None
    read = partial(open_reader, data)
    missing: list[Split] = [] if has("valid", read) else ["valid"]
    if data.folds or not has("test", read):
        missing.append("test")
    return Cut(split, tuple(missing)) if split in missing or (split == "train" and missing) else None


def _build(reader: Reader, data: ClassificationData, split: Split, cut: Cut | None, write: Write) -> dict[str, int]:
    parts = _parts(reader, data, cut) if cut else None
    examples = _examples(reader, data, split, parts)
    classes: Counter[str] = Counter()
    count = 0
    while batch := list(itertools.islice(examples, BATCH)):
        texts, tokens, labels = (list(column) for column in zip(*batch, strict=True))
        write({"text": texts, "tokens": tokens, "label": labels})
        classes.update(labels)
        count += len(batch)
        if len(classes) > MOST_CLASSES:
            found = f"more than {MOST_CLASSES:,} different labels: is data.label_field = {data.label_field!r} right?"
            raise DataError(found, path=reader.place)
    if not count:
        _nothing(reader, data, split, cut)
    if split == "train" and len(classes) == 1:
        every = f"all {count:,} examples have" if count > 1 else "the one example has"
        raise DataError(
            f"{every} the label {next(iter(classes))!r}; at least two classes are needed", path=reader.place
        )
    return {"classes": len(classes), "examples": count}


def _nothing(reader: Reader, data: ClassificationData, split: Split, cut: Cut | None) -> None:
    """Raises `DataError` for a split without an example."""
    for row in reader.read():
        if cut:
            share = f"data.hold_out = {data.hold_out}" if data.hold_out else f"data.folds = {data.folds}"
            raise DataError(f"{share} leaves no example for {split}; there are too few", path=reader.place)
        message = f'data.labels = "binary" leaves no example; the first label is {row.label!r}'
        raise DataError(message, path=reader.place)
    raise DataError("no row in it", path=reader.place)


def _label(label: str, row: Row, data: ClassificationData) -> str | None:
    """The class that a label stands for; None for a neutral one that is left out."""
    if data.labels == "all":
        return label
    if label not in BINARY:
        rule = "labels from 0 to 4: 0 and 1 are negative, 3 and 4 positive, and 2 is left out"
        raise DataError(f'label {label!r}, but data.labels = "binary" needs {rule}', path=row.place, line=row.line)
    return BINARY[label]


def _parts(reader: Reader, data: ClassificationData, cut: Cut) -> np.ndarray:
    """(N,) the number in `PARTS` of the split that each example belongs to."""
    numbers: dict[str, int] = {}
    codes = array("i")
    for row in reader.read():
        label = _label(row.label, row, data)
        if label is not None:
            codes.append(numbers.setdefault(label, len(numbers)))
    classes = np.frombuffer(codes, dtype=np.intc) if codes else np.zeros(0, np.intc)
    if not data.folds:
        shares = [data.hold_out] * len(cut.missing)
        numbers_of_parts = np.array([0, *(PARTS.index(split) for split in cut.missing)])
        return numbers_of_parts[folds.hold_out(classes, shares, data.fold_seed)]
    found = folds.assign(classes, data.folds, data.fold_seed, names=list(numbers), path=reader.place)
    parts = np.where(found == data.fold - 1, PARTS.index("test"), PARTS.index("train"))
    if "valid" in cut.missing:
        rest = np.flatnonzero(parts == PARTS.index("train"))
        held = folds.hold_out(classes[rest], [data.hold_out or FOLD_VALID], data.fold_seed)
        parts[rest[held == 1]] = PARTS.index("valid")
    return parts


def _examples(
    reader: Reader, data: ClassificationData, split: Split, parts: np.ndarray | None
) -> Iterator[tuple[str, list[str], str]]:
    """Text, tokens and label of each example of a split, phrases after the tree that they are in."""
    seen: set[bytes] = set()
    number = 0
    wanted = PARTS.index(split)
    for row in reader.read():
        label = _label(row.label, row, data)
        if label is not None:
            number += 1
            if parts is not None and parts[number - 1] != wanted:
                continue
            tokens = row.tree.leaves if row.tree else _words(row, data)
            yield row.text, tokens, label
        if data.phrases and split == "train" and row.tree:
            # A neutral tree that `binary` leaves out still has phrases that are not neutral.
            if label is not None:
                _is_new(row.text, label, seen)
            yield from _phrases(row, row.tree, data, seen)


def _words(row: Row, data: ClassificationData) -> list[str]:
    words = [word for word, _, _ in (split_spaces if data.pretokenized else split_text)(row.text)]
    if not words:
        raise DataError(f"no word in the text {row.text[:40]!r}", path=row.place, line=row.line)
    return words


def _phrases(row: Row, tree: Tree, data: ClassificationData, seen: set[bytes]) -> Iterator[tuple[str, list[str], str]]:
    """The labelled constituents below the root whose text has not yet been met with their label.

    Each once in the whole of the training data, as the phrase-level versions of SST have them (Kim 2014; SST-2 of
    GLUE); with every occurrence, half of the examples would be single common words. What was met is kept as 8-byte
    digests, some 100 MB for a million phrases.
    """
    for given, start, end in zip(tree.labels[:-1], tree.starts, tree.ends):
        label = _label(given, row, data) if given else None
        if label is not None:
            tokens = tree.leaves[start:end]
            text = " ".join(tokens)
            if _is_new(text, label, seen):
                yield text, tokens, label


def _is_new(text: str, label: str, seen: set[bytes]) -> bool:
    digest = blake2b(f"{label}\t{text}".encode(), digest_size=8).digest()
    if digest in seen:
        return False
    seen.add(digest)
    return True
