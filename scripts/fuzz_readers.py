"""Fuzzing the readers of data: how damaged files are made, and what reads them, beneath the data cache."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import tiny
from fuzz_inputs import damaged

from seqtext.config import parse


class Target(NamedTuple):
    """A part that reads what others wrote."""

    make: Callable[[random.Random], Any]
    """An input."""
    use: Callable[[Any], None]
    """Raises whatever comes of it."""


class File(NamedTuple):
    """What a file of data holds, what its name ends in, and the number of the settings it is read by."""

    data: bytes
    suffix: str
    settings: int


Written = Mapping[str, Sequence[Any]]


def _files(
    scratch: Path, seeds: Mapping[str, Sequence[bytes]], settings: Sequence[Any], read: Callable[[Path, Any], object]
) -> Target:
    """A reader of files: `seeds` by the suffix of the name, and the settings that it may have."""
    everything = [seed for some in seeds.values() for seed in some]

    def make(rng: random.Random) -> File:
        suffix = rng.choice(list(seeds))
        mixed = rng.random() < 0.1
        return File(damaged(everything if mixed else seeds[suffix], rng), suffix, rng.randrange(len(settings)))

    def use(given: File) -> None:
        path = scratch / f"train{given.suffix}"
        path.write_bytes(given.data)
        read(path, settings[given.settings])

    return Target(make, use)


def _keep(strings: Sequence[str]) -> Callable[[Written], None]:
    """A stand-in for the writing of the cache: Arrow arrays as there, kept nowhere."""
    import pyarrow as pa

    text, lists, numbers = pa.string(), pa.list_(pa.string()), pa.list_(pa.int32())

    def write(columns: Written) -> None:
        for name, values in columns.items():
            pa.array(values, text if name in strings else lists if name in ("tokens", "tags", "labels") else numbers)

    return write


def _small(task: str) -> bytes:
    return tiny.FILES[task][1]("train", 6).encode()


def _lines(records: Sequence[Any]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


# Readers of data


def tagging(scratch: Path) -> Target:
    from seqtext.data import tagging as room
    from seqtext.data import tagging_files

    conll = [
        _small("ner"),
        b"-DOCSTART- -X- O O\n\nEU NNP I-NP I-ORG\nrejects VBZ I-VP O\nGerman JJ I-NP I-MISC\n\nPeter NNP I-NP I-PER\n",
        b"# id 1\na\tB-X\nb\tL-X\n\nc\tU-Y\n",
        "Caf\u00e9 S-LOC\n10\u00a0000 O\n\nx B\ny I\n".encode(),
    ]
    tokens = _lines([{"tokens": ["Ann", "sees", "Rome"], "tags": ["B-PER", "O", "B-LOC"]}, {"tokens": [], "tags": []}])
    texts = [
        {"text": 'Ann sees "New York".', "entities": [{"start": 0, "end": 3, "label": "PER"}, [10, 18, "LOC"]]},
        {"text": "In \u00c5rhus it's 5 o'clock.", "entities": [{"start": 3, "end": 8, "label": "LOC"}]},
    ]
    seeds = {".conll": conll, ".jsonl": [tokens, _lines(texts)], ".txt": conll}
    given: list[dict[str, Any]] = [
        {},
        {"misaligned": "expand"},
        {"separator": "\t", "comment": "#"},
        {"token_column": -2, "scheme": "IOB2"},
        {"scheme": "IO", "format": "conll"},
        {"format": "jsonl"},
        {"input_scheme": "BIOES", "scheme": "IOB1"},
    ]

    def read(path: Path, data: Any) -> None:
        scheme = None if data.input_scheme == "auto" else data.input_scheme
        reader = tagging_files._file_reader(path, data)
        room._build(reader, reader.known or scheme, bool(scheme) and not reader.known, data.scheme, _keep(()))

    return _files(scratch, seeds, [parse(room.TaggingData, values, source="fuzz") for values in given], read)


def classification(scratch: Path) -> Target:
    from seqtext.data import classification as room
    from seqtext.data import classification_files

    csv = 'text,label\n"Good, very ""good""",pos\nBad.,neg\n"two\nlines",pos\n'
    tsv = "id\ttext\tlabel\n1\tGood film\t4\n2\tBad one\t0\n3\tSo so\t2\n"
    trees = _small("tree-sentiment")
    seeds = {
        ".csv": [csv.encode(), csv.replace(",", ";").encode()],
        ".tsv": [tsv.encode()],
        ".jsonl": [_small("sentiment"), _lines([{"text": "a", "label": 1}, {"text": "b", "label": False}])],
        ".trees": [trees],
        ".txt": [csv.encode(), tsv.encode(), trees],
    }
    given: list[dict[str, Any]] = [
        {},
        {"quotes": False},
        {"labels": "binary"},
        {"separator": ";"},
        {"hold_out": 0.2},
        {"folds": 2, "fold": 1, "pretokenized": True},
        {"format": "trees", "phrases": True},
    ]

    def read(path: Path, data: Any) -> None:
        reader = classification_files._file_reader(path, data)
        missing: tuple[Any, ...] = ("valid", "test") if data.hold_out or data.folds else ()
        cut = room.Cut("train", missing) if missing else None
        room._build(reader, data, "train", cut, _keep(("text", "label")))

    return _files(scratch, seeds, [parse(room.ClassificationData, values, source="fuzz") for values in given], read)


def corpus(scratch: Path) -> Target:
    from seqtext.data import corpus as room

    text = _small("lm")
    seeds = {
        ".txt": [text, b"the cat , it says , <unk> .\n\n= A title =\n\nand so on .\n"],
        ".jsonl": [_lines([{"text": "One line."}, {"text": "Two\nlines", "id": 3}])],
        ".text": [text, text.replace(b"\n", b"\r\n"), ("word " * 30_000).encode()],
    }

    def read(path: Path, data: Any) -> None:
        room._build(room._file_reader(path, data), data.blank_lines, _keep(("text",)))

    given = [parse(room.CorpusData, {"blank_lines": blank}, source="fuzz") for blank in (False, True)]
    return _files(scratch, seeds, given, read)


def parallel(scratch: Path) -> Target:
    from seqtext.data import parallel as room
    from seqtext.data import parallel_files

    pair = {"source": "Hello.", "target": "Hallo."}
    both = {"translation": {"en": "A dog runs.", "de": "Ein Hund rennt."}, "id": 1}
    sides = "A dog.\nTwo men.\n\nEnd\n"
    seeds = {
        ".tsv": [_small("translation"), b"en\tde\tid\nA\tB\t1\nC\tD\t2\n", b"A dog.\tEin Hund.\nA cat.\tEine Katze.\n"],
        ".jsonl": [_lines([pair, {**pair, "note": None}]), _lines([both, both])],
        ".txt": [b"A\tB\n", _lines([pair])],
        ".en": [sides.encode(), sides.replace("\n", "\r\n").encode()],
    }
    given: list[dict[str, Any]] = [
        {},
        {"empty": "drop", "max_length": 20, "max_ratio": 3.0, "drop_duplicates": True},
        {"source_field": "en", "target_field": "de"},
    ]

    def read(path: Path, data: Any) -> None:
        if path.suffix == ".en":
            other = path.with_suffix(".de")
            other.write_text(sides, encoding="utf-8")
            reader = parallel_files._text_reader((path, other))
        else:
            reader = parallel_files._file_reader(path, data)
        room._build(reader, data, "train", _keep(("source", "target")))

    settings = [
        parse(room.ParallelData, {"source_language": "en", "target_language": "de", **values}, source="fuzz")
        for values in given
    ]
    return _files(scratch, seeds, settings, read)


def trees(scratch: Path) -> Target:
    from functools import partial

    from seqtext.data import tree_files
    from seqtext.data import trees as room

    penn = b"( (S (NP-SBJ-1 (DT The) (NN cat)) (VP (VBD sat) (NP (-NONE- *T*-1))) (. .)) )\n((A b))\n"
    seeds = {".trees": [_small("tree-sentiment"), b"(a (b (c (d e)))) (2 x)\n(3 -LRB-)\n"], ".mrg": [penn]}
    given: list[dict[str, Any]] = [
        {},
        {"scale": 5},
        {"labels": "binary"},
        {"labels": "none", "structure": "balanced"},
        {"binarize": "none"},
        {"structure": "left", "hold_out": 0.2},
    ]

    def read(path: Path, data: Any) -> None:
        penn = path.suffix == ".mrg"
        reader = tree_files.Reader(path, "brackets", partial(tree_files._file, path, penn), [path], {})
        parts: tuple[Any, ...] = ("train", "valid", "test") if data.hold_out else ()
        room._build(reader, data, "train", parts, _keep(()))

    return _files(scratch, seeds, [parse(room.TreesData, values, source="fuzz") for values in given], read)


def vectors(scratch: Path) -> Target:
    import numpy as np

    from seqtext.data.vector_files import read_blocks

    text = b"the 0.1 -0.2 0.3\nof 1e-3 2 3\n, 0 0 0\nNew York 1 2 3\n"
    binary = b"3 4\n" + b"".join(
        word + b" " + np.arange(4, dtype="<f4").tobytes() + b"\n" for word in (b"a", b"bc", b"d")
    )
    seeds = {
        ".txt": [text, b"4 3\n" + text, text.replace(b" ", b"\t")],
        ".bin": [binary],
        ".vec": [b"2 2 \na 1 2 \nb 3 4 \n"],
    }

    def read(path: Path, _: None) -> None:
        for block in read_blocks(path):
            if len(block.words) != len(block.values) or not np.isfinite(block.values).all():
                raise AssertionError("words and finite values of different numbers")

    return _files(scratch, seeds, [None], read)
