"""Every form that labelled texts come in, read to one: CSV, TSV, JSON lines, Parquet, a folder a class, bracketed
trees, hub datasets, NLTK's categorised corpora and the sample, a row at a time.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seqtext.data import sources
from seqtext.data.brackets import Tree, read_trees
from seqtext.data.cache import code
from seqtext.data.records import SHOWN, missing, open_records, string, suffix_of, unexpected
from seqtext.data.sources import MissingSplit, Split
from seqtext.data.text import first_line, open_bytes, open_text
from seqtext.errors import DataError

if TYPE_CHECKING:
    from seqtext.data.classification import ClassificationData

SUFFIXES = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".ptb": "trees",
    ".mrg": "trees",
    ".trees": "trees",
}
TEXT_SUFFIXES = (".txt", ".txt.gz")
NO_CLASS = ("unsup",)
"""Folders beside the classes' that hold texts of no class: aclImdb has one of unlabelled reviews."""


class Row(NamedTuple):
    place: str | Path
    """What messages call the file."""
    line: int
    """The first line of the row, or its number where there are no lines; from 1."""
    text: str
    label: str
    tree: Tree | None = None


class Reader(NamedTuple):
    """One source of rows, ready to be read as often as needed."""

    place: str | Path
    format: str
    """`csv`, `tsv`, `jsonl`, `parquet`, `folder`, `trees`, `hub`, `nltk` or `sample`."""
    read: Callable[[], Iterator[Row]]
    paths: Sequence[Path]
    """The files that its content depends on."""
    settings: Mapping[str, Any] = {}
    """What else its content depends on."""


def open_reader(data: ClassificationData, split: Split) -> Reader:
    """What reads a split as the source has it. Raises `MissingSplit` where the source has no such split."""
    folder = _class_folder(data, split)
    if folder is not None:
        return _folder_reader(folder)
    match sources.locate(data, split):
        case sources.Hub() as hub:
            return _hub_reader(hub, data, split)
        case sources.Nltk() as nltk:
            return _nltk_reader(nltk, split)
        case sources.Sample():
            paths = code("sentiment_sample", "samples", "sample_words")
            return Reader("sample", "sample", partial(_sample, split), paths, {"split": split})
        case path:
            return _file_reader(path, data)


def _file_reader(path: Path, data: ClassificationData) -> Reader:
    form = _format(path) if data.format == "auto" else data.format
    if form == "trees":
        return Reader(path, form, partial(_trees, path), [path])
    settings: dict[str, Any] = {"fields": [data.text_field, data.label_field]}
    if form == "jsonl" or form == "parquet":
        return Reader(path, form, partial(_records, path, form, data), [path], settings)
    separator = data.separator or ("\t" if form == "tsv" else ",")
    settings |= {"separator": separator, "quotes": data.quotes}
    return Reader(path, form, partial(_csv, path, data, separator), [path], settings)


def _format(path: Path) -> str:
    """How a file reads: by the end of its name, or else by its first line."""
    if known := SUFFIXES.get(suffix_of(path)):
        return known
    with open_bytes(path) as file:
        if file.read(4) == b"PAR1":
            return "parquet"
    line = first_line(path)
    if line is None:
        raise DataError("no row: the file is empty or blank", path=path)
    starts = {"(": "trees", "{": "jsonl"}
    form = starts.get(line.lstrip()[0]) or ("tsv" if "\t" in line else "csv" if "," in line else None)
    if form is None:
        message = f"cannot tell how this file reads from its name and its first line, {line[:SHOWN]!r}"
        raise DataError(f'{message}; set data.format to "csv", "tsv", "jsonl", "parquet" or "trees"', path=path)
    return form


def _row(text: Any, label: Any, place: str | Path, line: int, data: ClassificationData) -> Row:
    """A checked row. Raises `DataError` unless there is a text and a label."""
    if text is None or not string(text, data.text_field, place, line).strip():
        raise DataError(f"empty text ({data.text_field!r})", path=place, line=line)
    if isinstance(label, bool):
        label = str(label).lower()
    elif label is None or (isinstance(label, str) and not label.strip()):
        raise DataError(f"no label ({data.label_field!r} is empty)", path=place, line=line)
    elif not isinstance(label, str | int):
        raise unexpected(label, data.label_field, "a string or a whole number", place, line)
    return Row(place, line, text, str(label).strip())


def _fields(data: ClassificationData) -> dict[str, str]:
    return {"text_field": data.text_field, "label_field": data.label_field}


def _records(path: Path, form: str, data: ClassificationData) -> Iterator[Row]:
    for number, (text, label) in open_records(path, form, _fields(data)):
        yield _row(text, label, path, number, data)


# CSV and TSV


def _csv(path: Path, data: ClassificationData, separator: str) -> Iterator[Row]:
    quoting: Any = {} if data.quotes else {"quoting": csv.QUOTE_NONE}
    lines = (line + "\n" for _, line in open_text(path))
    reader = csv.reader(lines, delimiter=separator, strict=True, **quoting)
    header: list[str] = []
    first = start = text = label = 0
    while True:
        start = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            message = f"{error}; a field in double quotes must end with one, and quotes within it are doubled"
            hint = "; if quotes are plain characters here, set data.quotes = false" if data.quotes else ""
            raise DataError(message + hint, path=path, line=start) from None
        if row is None:
            return
        if not row:  # a blank line
            continue
        if not header:
            header, first = row, start
            text, label = _columns(header, path, start, data, separator)
            continue
        if len(row) != len(header):
            columns = f"{len(row)} column" + ("" if len(row) == 1 else "s")
            expected = f"expected {len(header)} as in the header (line {first})"
            hint = f"a text with {separator!r} in it stands in double quotes"
            raise DataError(f"found {columns}, {expected}; {hint}", path=path, line=start)
        yield _row(row[text], row[label], path, start, data)


def _columns(header: list[str], path: Path, line: int, data: ClassificationData, separator: str) -> tuple[int, int]:
    """Where text and label stand in a row."""
    if problem := missing(_fields(data), header, "column", hint="the first row must name the columns"):
        others = [other for other in ",;\t|" if other != separator and len(header) == 1 and other in header[0]]
        if others:
            advice = f"if columns are parted by {others[0]!r}, set data.separator to it"
            problem = f"found 1 column, {header[0][:SHOWN]!r}; {advice}"
        raise DataError(problem, path=path, line=line)
    for field in _fields(data).values():
        if header.count(field) > 1:
            raise DataError(f"{header.count(field)} columns are called {field!r}", path=path, line=line)
    return header.index(data.text_field), header.index(data.label_field)


# A folder a class


def _class_folder(data: ClassificationData, split: Split) -> Path | None:
    """The folder whose subfolders are the classes of `split`; None where the source is no such folder."""
    if data.format not in ("auto", "folder"):
        return None
    given: str | None = getattr(data, split)
    if given is not None:
        folder = Path(given).expanduser()
        return folder if folder.is_dir() else None
    folder = Path(data.source).expanduser()
    if data.source == "sample" or not folder.is_dir():
        return None
    if data.format == "auto" and sources.splits_in(folder):
        return None
    named = {path: sources.split_of(path.name) for path in _subfolders(folder)}
    found = [path for path, name in named.items() if name == split and _classes(path)]
    there = ", ".join(path.name for path in named) or "none"
    if len(found) > 1:
        several = ", ".join(path.name for path in found)
        raise DataError(f"several folders for {split}: {several}; name one by data.{split}", path=folder)
    if found:
        return found[0]
    if not any(name and _classes(path) for path, name in named.items()):
        if not _classes(folder):
            return None
        if split == "train":  # SOURCE/CLASS/*.txt: all of it is training data
            return folder
    raise MissingSplit(f"no folder of {split} texts; it would be called {split}; found: {there}", path=folder)


def _subfolders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] not in "._"]


def _classes(folder: Path) -> list[Path]:
    """Subfolders that are classes: those with text files in them, but for `NO_CLASS`."""
    return [path for path in _subfolders(folder) if path.name not in NO_CLASS and any(_texts(path))]


def _texts(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.name.endswith(TEXT_SUFFIXES) and path.name[0] not in "._")


def _folder_reader(folder: Path) -> Reader:
    classes = {path.name: sorted(_texts(path)) for path in _classes(folder)}
    if not classes:
        raise DataError(
            "no class here; expected a folder a class with .txt files in it, such as pos/1.txt", path=folder
        )
    settings = {"classes": {name: len(files) for name, files in classes.items()}}
    files = [file for files in classes.values() for file in files]

    def read() -> Iterator[Row]:
        for name, files in classes.items():
            for path in files:
                text = "\n".join(line for _, line in open_text(path))
                if not text.strip():
                    raise DataError("empty text", path=path)
                yield Row(path, 1, text, name)

    return Reader(folder, "folder", read, files, settings)


# Other sources


def _trees(path: Path) -> Iterator[Row]:
    for line, tree in read_trees(path):
        root = len(tree.labels) - 1
        while (
            not tree.labels[root] and len(tree.children[root]) == 1
        ):  # the Treebank's outermost bracket, `( (S ...) )`
            root = tree.children[root][0]
        if not tree.labels[root]:
            raise DataError(
                "the root of this tree has no label; expected one, as in (3 (2 So) ...)", path=path, line=line
            )
        yield Row(path, line, " ".join(tree.leaves), tree.labels[root], tree)


def _sample(split: Split) -> Iterator[Row]:
    from seqtext.data.sentiment_sample import sentiment_sample

    return (Row("sample", line, *row) for line, row in enumerate(sentiment_sample(split), start=1))


def _hub_reader(hub: sources.Hub, data: ClassificationData, split: Split) -> Reader:
    fields = list(_fields(data).values())
    dataset = sources.load_hub(hub, split)
    place = f"hub:{hub.name}"
    sources.check_fields(dataset, _fields(data), place=place)

    def read() -> Iterator[Row]:
        for row, (text, label) in enumerate(sources.hub_rows(dataset, fields), start=1):
            yield _row(text, label, place, row, data)

    paths, settings = sources.hub_origin(dataset, fields)
    return Reader(place, "hub", read, paths, settings)


def _nltk_reader(source: sources.Nltk, split: Split) -> Reader:
    """A corpus whose files have categories, such as movie_reviews: it is training data as a whole."""
    corpus, place, ids = sources.open_nltk(source)
    if not hasattr(corpus, "categories") or not hasattr(corpus, "raw"):
        raise DataError("the files of this corpus have no categories; those of movie_reviews do", path=place)
    ours = sources.unsplit_files(source, ids, split, place=place)

    def read() -> Iterator[Row]:
        for name in ours:
            labels = corpus.categories(name)
            if len(labels) != 1:
                found = f"found {len(labels)} categories, expected 1: {', '.join(labels)}"
                raise DataError(found, path=f"{place}: {name}")
            try:
                text = corpus.raw(name)
            except ValueError as error:  # What NLTK's readers raise for text they cannot decode.
                raise DataError(str(error), path=f"{place}: {name}") from None
            if not text.strip():
                raise DataError("empty text", path=f"{place}: {name}")
            yield Row(f"{place}: {name}", 1, text, labels[0])

    labels = [corpus.categories(name) for name in ours]
    return Reader(place, "nltk", read, sources.nltk_files(corpus, ours), {"files": ours, "labels": labels})
