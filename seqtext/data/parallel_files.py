"""Every form that translated sentences come in, read to one: two files by their language suffixes, TSV, JSON lines, hub
datasets and the sample, a pair at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seqtext.data import sources
from seqtext.data.cache import code
from seqtext.data.records import JSON_SUFFIXES, instead, missing, string, suffix_of
from seqtext.data.sources import MissingSplit, Split
from seqtext.data.text import first_line, open_json, open_text
from seqtext.errors import DataError

if TYPE_CHECKING:
    from seqtext.data.parallel import ParallelData

FORMATS = {"tsv": (".tsv",), "jsonl": JSON_SUFFIXES}
"""Suffixes of the files that hold both sides."""
NAMES = {"tsv": "TSV file", "jsonl": "JSON lines file"}
BOTH = "translation"
"""The column of hub datasets, and the key of JSON lines, that holds both sides by language."""


class Pair(NamedTuple):
    line: int
    """Number of the line or row, from 1."""
    source: str
    target: str


class Reader(NamedTuple):
    """One split, ready to be read as often as needed."""

    places: tuple[str | Path, str | Path]
    """What messages call the file of each side: the same one twice where a file holds both."""
    format: str
    """`text files`, `TSV file`, `JSON lines file`, `hub dataset` or `sample`."""
    read: Callable[[], Iterator[Pair]]
    paths: Sequence[Path]
    """The files that its content depends on."""
    settings: Mapping[str, Any] = {}
    """What else its content depends on."""


def open_reader(data: ParallelData, split: Split) -> Reader:
    """What reads a split. Raises `MissingSplit` where there is none, `DataError` where there is half of one."""
    given: str | None = getattr(data, split)
    if given is not None:
        return _named(data, split, Path(given).expanduser())
    folder = Path(data.source).expanduser()
    if data.source != "sample" and folder.is_dir():
        return _in_folder(data, split, folder)
    if pair_files(data, folder):
        given = f'name them by their split: data.{split} = "{data.source}"'
        raise DataError(f"data.source is a folder, and this is the name of two files; {given}", path=data.source)
    if data.source != "sample" and ":" not in data.source and not folder.exists():
        raise DataError(f"no such folder; {_expected(data)}; {sources.SOURCE_FORMS}", path=data.source)
    match sources.locate(data, split):
        case sources.Hub() as hub:
            return _hub_reader(hub, data, split)
        case sources.Nltk() as nltk:
            message = "no corpus of NLTK is read as translations; put the sentences in two files, or in one as TSV"
            raise DataError(message, path=f"nltk:{nltk.corpus}")
        case sources.Sample():
            return _sample_reader(data, split)
        case path:
            return _file_reader(path, data)


def _expected(data: ParallelData) -> str:
    """The files of a folder of pairs."""
    names = [f"{split}.{language}" for split in ("train", "valid", "test") for language in data.languages]
    return f"expected one with {', '.join(names[:-1])} and {names[-1]}, plain or .gz"


# Finding files


def pair_files(data: ParallelData, path: Path) -> tuple[Path, Path] | None:
    """The files of both sides that `path` names: either one, or their name without its suffix. None unless both are."""
    one, other = (_side(_stem(data, path), language) for language in data.languages)
    return (one, other) if one and other else None


def _stem(data: ParallelData, path: Path) -> Path:
    """The path without the suffix of either language."""
    name = path.name.removesuffix(".gz")
    stems = [name.removesuffix(f".{language}") for language in data.languages if name.endswith(f".{language}")]
    return path.with_name(stems[0]) if stems and stems[0] else path


def _side(stem: Path, language: str) -> Path | None:
    paths = [Path(f"{stem}.{language}{packed}") for packed in ("", ".gz")]
    return next((path for path in paths if path.is_file()), None)


def _named(data: ParallelData, split: Split, path: Path) -> Reader:
    """A split that is named by itself: one file, or two by their common name or by either's."""
    if data.format in ("auto", "text") and not path.is_dir():
        if both := pair_files(data, path):
            return _text_reader(both)
        stem = _stem(data, path)
        if data.format == "text" or stem != path or not path.exists():
            # Of a third language, such as train.fr, the others of its name are of interest.
            beside = stem if _beside(stem) else stem.with_suffix("")
            if pair_files(data, beside):
                one, other = data.languages
                message = f"this is of neither language: it ends in neither .{one} (data.source_language)"
                raise DataError(f"{message} nor .{other} (data.target_language)", path=path)
            raise _no_side(data, beside, _languages(_beside(beside)), key=f" (data.{split})")
    located = sources.locate(data, split)
    assert isinstance(located, Path)  # since it is named
    return _file_reader(located, data)


def _in_folder(data: ParallelData, split: Split, folder: Path) -> Reader:
    """A split of a folder: two files by their language, or one by its format, or one of another name."""
    if data.format in ("auto", "text"):
        one, other = (_locate(data, split, language) for language in data.languages)
        if one and other:
            if _stem(data, one) != _stem(data, other):
                message = f"the files of {split} have different names, {one.name} and {other.name}"
                raise DataError(f"{message}; name those that belong together by data.{split}", path=folder)
            return _text_reader((one, other))
        files = [file for file in sorted(folder.iterdir()) if sources.split_of(file.name) == split]
        if found := one or other:
            raise _no_side(data, _stem(data, found), _languages(files))
    forms = FORMATS if data.format == "auto" else {data.format: FORMATS.get(data.format, ())}
    wholes = [_locate(data, split, suffix[1:]) for suffixes in forms.values() for suffix in suffixes]
    found_wholes = [path for path in wholes if path]
    if len(found_wholes) == 1:
        return _file_reader(found_wholes[0], data)
    if data.format in ("auto", "text") and not found_wholes:
        languages = _languages(files)
        if languages and (data.format == "text" or len(languages) > 1):
            raise _no_side(data, folder / Path(files[0].name.removesuffix(".gz")).stem, languages)
        if data.format == "text":
            sources.split_file(folder, split, extension=data.source_language)
    located = sources.locate(data, split)
    assert isinstance(located, Path)  # since the source is a folder
    return _file_reader(located, data)


def _locate(data: ParallelData, split: Split, extension: str) -> Path | None:
    try:
        return sources.split_file(Path(data.source).expanduser(), split, extension=extension)
    except MissingSplit:
        return None


def _languages(files: Iterable[Path]) -> list[str]:
    """The suffixes of these files, but for those of formats that hold both sides."""
    suffixes = [Path(file.name.removesuffix(".gz")).suffix for file in files if file.is_file()]
    formats = {suffix for found in FORMATS.values() for suffix in found}
    return [suffix[1:] for suffix in dict.fromkeys(suffixes) if suffix and suffix not in formats]


def _beside(stem: Path) -> list[Path]:
    """The files of this name whatever their suffix."""
    around = sorted(stem.parent.iterdir()) if stem.parent.is_dir() else []
    return [file for file in around if file.name.startswith(f"{stem.name}.")]


def _no_side(data: ParallelData, stem: Path, there: Sequence[str], *, key: str = "") -> DataError:
    """Of a pair of which a file is not there; `there` are the languages that are."""
    names = {"data.source_language": data.source_language, "data.target_language": data.target_language}
    lacking = {name: language for name, language in names.items() if not _side(stem, language)}
    files = " and no ".join(f"{stem.name}.{language} ({name})" for name, language in lacking.items())
    message = f"no file {files}, plain or .gz{key}; {instead(there, lacking.values(), 'languages here')}"
    return DataError(message, path=stem.parent)


# Files


def _text_reader(sides: tuple[Path, Path]) -> Reader:
    return Reader(sides, "text files", partial(_lines, *sides), sides)


def _lines(source: Path, target: Path) -> Iterator[Pair]:
    """Both files, line by line. Raises `DataError` where one ends before the other."""
    number = 1
    lines, others = open_text(source), open_text(target)
    while True:
        line, other = next(lines, None), next(others, None)
        if line is None and other is None:
            return
        if line is None or other is None:
            longer, shorter, rest = (target, source, others) if line is None else (source, target, lines)
            length = number + sum(1 for _ in rest)
            counts = f"{length} line{'s' * (length != 1)} here and {number - 1} in {shorter}"
            raise DataError(f"no partner for this line: {counts}; expected as many", path=longer, line=number)
        yield Pair(number, line[1], other[1])
        number += 1


def _file_reader(path: Path, data: ParallelData) -> Reader:
    form = _format(path, data) if data.format == "auto" else data.format
    settings = {"fields": [data.source_field, data.target_field], "languages": list(data.languages)}
    read = partial(_tsv if form == "tsv" else _json, path, data)
    return Reader((path, path), NAMES[form], read, [path], settings)


def _format(path: Path, data: ParallelData) -> str:
    """How a file of both sides reads: by the end of its name, or else by its first line."""
    suffix = suffix_of(path)
    for form, suffixes in FORMATS.items():
        if suffix in suffixes:
            return form
    line = first_line(path)
    if line is None:
        raise DataError("no text: it is empty or blank", path=path)
    if "\t" in line or line.lstrip().startswith("{"):
        return "tsv" if "\t" in line else "jsonl"
    one, other = data.languages
    expected = f"expected two files that end in .{one} and .{other}, or one in TSV (.tsv) or JSON lines (.jsonl)"
    there = instead(_languages(_beside(path.with_suffix(""))), data.languages, "languages here")
    raise DataError(f"cannot tell how this file reads; {expected}; {there}", path=path)


def _tsv(path: Path, data: ParallelData) -> Iterator[Pair]:
    """Columns by the header, or else the first two; a quote is a plain character, and blank lines are passed over."""
    width = first = source = target = 0
    for number, line in open_text(path):
        if not line.strip(" "):
            continue
        columns = line.split("\t")
        if not width:
            width, first = len(columns), number
            header = _header(columns, path, number, data)
            source, target = header or (0, 1)
            if header:
                continue
        if len(columns) != width or width < 2:
            expected = f"expected {width} as in line {first}" if width > 1 else "expected two, parted by a tab"
            found = f"{len(columns)} column{'s' * (len(columns) != 1)}"
            raise DataError(f"found {found}, {expected}", path=path, line=number)
        yield Pair(number, columns[source], columns[target])


def _header(columns: Sequence[str], path: Path, line: int, data: ParallelData) -> tuple[int, int] | None:
    """Where the sides stand by this first row; None if it is no header."""
    names = [column.strip() for column in columns]
    fields = _fields(data)
    for sides in (tuple(fields.values()), data.languages):
        if all(names.count(side) == 1 for side in sides):
            return names.index(sides[0]), names.index(sides[1])
    lacking = {key: field for key, field in fields.items() if names.count(field) != 1}
    if len(lacking) < 2 or any(field != type(data).model_fields[key].default for key, field in fields.items()):
        wanted = " and one ".join(f"{field!r} (data.{key})" for key, field in lacking.items())
        message = f"the first row must name the columns: expected one {wanted}"
        raise DataError(f"{message}; {instead(names, lacking.values())}", path=path, line=line)
    return None


def _json(path: Path, data: ParallelData) -> Iterator[Pair]:
    fields = _fields(data)
    names = list(fields.values())
    hint = f'"{BOTH}" with both languages will do too'
    for number, record in open_json(path):
        problem = missing(fields, record, "key", hint=hint)
        if problem is None:
            yield _pair(names, [record[name] for name in names], path, number)
        elif isinstance(both := record.get(BOTH), dict):
            yield _translation(both, data, path, number)
        else:
            raise DataError(problem, path=path, line=number)


def _fields(data: ParallelData) -> dict[str, str]:
    return {"source_field": data.source_field, "target_field": data.target_field}


def _translation(both: Mapping[str, Any], data: ParallelData, place: str | Path, line: int) -> Pair:
    """The pair of an object that holds both sides by language."""
    languages = {"source_language": data.source_language, "target_language": data.target_language}
    if problem := missing(languages, both, "language"):
        raise DataError(f'"{BOTH}" has {problem}', path=place, line=line)
    return _pair(data.languages, [both[language] for language in data.languages], place, line)


def _pair(names: Sequence[str], values: Sequence[Any], place: str | Path, line: int) -> Pair:
    """Two values, which messages call by these names. An empty side is checked where filters may leave it out."""
    sides = ("" if value is None else string(value, name, place, line) for name, value in zip(names, values))
    return Pair(line, *sides)


# Other sources


def _hub_reader(hub: sources.Hub, data: ParallelData, split: Split) -> Reader:
    dataset = sources.load_hub(hub, split)
    place = f"hub:{hub.name}"
    fields = [data.source_field, data.target_field]
    if BOTH in dataset.column_names and not all(field in dataset.column_names for field in fields):
        fields = [BOTH]
    else:
        sources.check_fields(dataset, _fields(data), place=place)

    def read() -> Iterator[Pair]:
        for row, values in enumerate(sources.hub_rows(dataset, fields), start=1):
            if len(values) == 1 and not isinstance(values[0], dict):
                raise DataError(f'"{BOTH}" holds no text by language', path=place, line=row)
            yield _pair(fields, values, place, row) if len(values) == 2 else _translation(values[0], data, place, row)

    paths, settings = sources.hub_origin(dataset, fields)
    return Reader((place, place), "hub dataset", read, paths, {**settings, "languages": list(data.languages)})


def _sample_reader(data: ParallelData, split: Split) -> Reader:
    if {*data.languages} != {"en", "de"}:
        given = f'data.source_language is "{data.source_language}" and data.target_language "{data.target_language}"'
        raise DataError(f'has English ("en") and German ("de"); {given}', path="sample")

    def read() -> Iterator[Pair]:
        from seqtext.data.translation_sample import translation_sample

        for line, (english, german) in enumerate(translation_sample(split), start=1):
            yield Pair(line, *((english, german) if data.source_language == "en" else (german, english)))

    paths = code("translation_sample", "translation_words", "sample_words")
    return Reader(("sample", "sample"), "sample", read, paths, {"split": split, "languages": list(data.languages)})
