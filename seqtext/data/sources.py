"""Where data comes from: a folder whose files name their splits, single files, a `datasets` hub name, an NLTK corpus,
or the embedded sample. Every task finds its splits here; how a file reads is the business of its own module.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self, TypeVar

from seqtext.config import Config
from seqtext.data.cache import quiet_datasets
from seqtext.data.records import missing
from seqtext.errors import DataError

if TYPE_CHECKING:
    import datasets

Split = Literal["train", "valid", "test"]

SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training"),
    "valid": ("valid", "dev", "validation", "val", "testa"),
    "test": ("test", "testb"),
}
SPLIT_OF_NAME = {name: split for split, names in SPLIT_NAMES.items() for name in names}
SOURCE_FORMS = 'a source is a folder, "sample", "hub:org/name" or "nltk:corpus"'
LISTED = 10
"""File names that an error message lists."""


class SourceData(Config):
    """The part of a recipe's `[data]` that says where the splits are."""

    source: str = "sample"
    """Where the data is: a folder whose files name their splits (train.*, valid.* or dev.*, test.*, also within a name
    as in eng.testa, plain or .gz), `hub:org/name[:config]`, `hub:FOLDER` saved by `datasets`, `nltk:corpus[:prefix]`,
    or `sample`, which needs no file: synthetic, but for lm, which has the documentation that Python brings."""
    train: str | None = None
    """A file to train on, instead of the one that `source` has."""
    valid: str | None = None
    """A file to validate on, instead of the one that `source` has."""
    test: str | None = None
    """A file to test on, instead of the one that `source` has."""

    learned: ClassVar[frozenset[str]] = frozenset()
    """Keys that tell nothing of how files read, only what training makes of them."""

    def absolute(self) -> Self:
        """A copy whose paths hold from any folder: what a run keeps."""
        hub, colon, rest = self.source.partition(":")
        if colon and hub == "hub":
            source = f"hub:{absolute_path(rest)}"
        else:
            source = self.source if self.source == "sample" else absolute_path(self.source)
        update: dict[str, Any] = {"source": source}
        update |= {name: absolute_path(given) for name in SPLIT_NAMES if (given := getattr(self, name))}
        return self.model_copy(update=update)

    def uncut(self) -> Self:
        """A copy that takes splits as the source has them: schemas that cut their own override it."""
        return self

    def part(self, split: Split) -> str:
        """What a split is called where a score is told; schemas that cut their own add how."""
        return split


def absolute_path(given: str) -> str:
    """The whole path of a file or folder that is there; anything else (the name of a hub's dataset, say) as it is."""
    path = Path(given).expanduser()
    return str(path.absolute()) if path.exists() else given


D = TypeVar("D", bound=SourceData)


class MissingSplit(DataError):
    """The source is there, and has no such split."""


class Hub(NamedTuple):
    """A dataset of the `datasets` hub, or a folder written by its `save_to_disk`."""

    name: str
    config: str | None


class Nltk(NamedTuple):
    """A corpus of NLTK, and the prefix of the file names that are wanted."""

    corpus: str
    prefix: str


class Sample(NamedTuple):
    """Data that needs no file: synthetic, or for language models the documentation that ships with Python."""


Source = Path | Hub | Nltk | Sample


def locate(data: SourceData, split: Split, *, extension: str | None = None) -> Source:
    """What holds `split` of `data`: a file that exists, or another source by name (not opened yet).

    `extension` picks among the files of a folder, for formats of several files a split: `train.de` and `train.en`.
    Raises `MissingSplit` where a folder has no such file, `DataError` where the source does not exist.
    """
    given: str | None = getattr(data, split)
    if given is not None:
        return _file(given, key=f"data.{split}")
    kind, colon, rest = data.source.partition(":")
    if colon and kind == "hub":
        return _hub(rest)
    if colon and kind == "nltk":
        corpus, _, prefix = rest.partition(":")
        return Nltk(corpus, prefix)
    if data.source == "sample":
        named = [name for name in SPLIT_NAMES if getattr(data, name) is not None]
        if named:  # The sample never completes a person's own data: its scores would mean nothing.
            raise MissingSplit(f"no {split} file: data.{named[0]} is given and data.{split} is not")
        return Sample()
    folder = Path(data.source).expanduser()
    if folder.is_file():
        message = f'data.source is a folder, and this is a file; name it by its split: data.{split} = "{data.source}"'
        raise DataError(message, path=data.source)
    return split_file(folder, split, extension=extension)


def has(split: Split, read: Callable[[Split], object]) -> bool:
    """Whether `read` finds data for `split`: not where it raises `MissingSplit`."""
    try:
        read(split)
    except MissingSplit:
        return False
    return True


def held_parts(split: Split, hold_out: float, read: Callable[[Split], object]) -> tuple[Split, ...]:
    """The parts that the training data is cut in, in their order, where `split` is one of them; else none.

    With a share to `hold_out`, these are training data and the splits that `read` finds no data for.
    """
    held: tuple[Split, ...] = ("valid", "test")
    missing = [other for other in held if hold_out and not has(other, read)]
    return ("train", *missing) if missing and split in ("train", *missing) else ()


def with_source(data: D, source: str, split: Split) -> D:
    """A copy of `data` that reads from `source` alone, uncut; where `source` is a file, it is the file of `split`."""
    update: dict[str, Any] = {name: None for name in SPLIT_NAMES}
    if Path(source).expanduser().is_file():
        update |= {"source": "sample", split: source}
    else:
        update["source"] = source
    return data.uncut().model_copy(update=update)


def reading_keys(schema: type[SourceData]) -> list[str]:
    """The keys of a task's data that say how files read: those of the schema in this package that it builds on."""
    package = __name__.rpartition(".")[0]
    bases = (base for base in schema.__mro__ if issubclass(base, SourceData))
    reader = next(base for base in bases if base.__module__.startswith(f"{package}."))
    return [key for key in reader.model_fields if key not in reader.learned]


def split_of(name: str) -> Split | None:
    """The split that a file or split name tells: `eng.testa` is valid, `train.conll.gz` train, `test2016.de` test.

    Case does not count, and any part between punctuation may name the split. None for a name that tells none or two.
    """
    parts = re.split(r"[^a-z0-9]+", name.lower())
    found = {SPLIT_OF_NAME[part.rstrip("0123456789")] for part in parts if part.rstrip("0123456789") in SPLIT_OF_NAME}
    return found.pop() if len(found) == 1 else None


def splits_in(folder: str | Path, *, extension: str | None = None) -> dict[Split, Path]:
    """The file of each split that a folder has. Raises `DataError` as `split_file` does, but not for missing splits."""
    files = _files(Path(folder), extension)
    found = {split: [file for file in files if split_of(file.name) == split] for split in SPLIT_NAMES}
    return {split: _only(split, paths, Path(folder)) for split, paths in found.items() if paths}


def split_file(folder: str | Path, split: Split, *, extension: str | None = None) -> Path:
    """The one file of `split` in `folder`. Raises `DataError` where there are several, `MissingSplit` for none."""
    folder = Path(folder)
    files = _files(folder, extension)
    found = [file for file in files if split_of(file.name) == split]
    if found:
        return _only(split, found, folder)
    names = ", ".join(SPLIT_NAMES[split])
    ending = f" and end in .{extension} or .{extension}.gz" if extension else ""
    there = _listed(file.name for file in files) or "no file"
    message = f"no {split} file here: its name must have one of {names} in it{ending}; found: {there}"
    if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
        message += f'; `datasets` saved this folder: write source = "hub:{folder}"'
    raise MissingSplit(message, path=folder)


def _files(folder: Path, extension: str | None) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"no such {'file' if folder.suffix else 'folder'}; {SOURCE_FORMS}", path=folder)
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    files = [path for path in files if not path.name.startswith(".") and not path.name.endswith("~")]
    if extension is None:
        return files
    return [path for path in files if path.name.removesuffix(".gz").endswith(f".{extension}")]


def _only(split: Split, paths: list[Path], folder: Path) -> Path:
    if len(paths) == 1:
        return paths[0]
    several = _listed(path.name for path in paths)
    raise DataError(f"several files for {split}: {several}; name one by data.{split}", path=folder)


def _file(given: str, *, key: str) -> Path:
    path = Path(given).expanduser()
    if path.is_file():
        return path
    problem = "this is a folder; a file is expected" if path.is_dir() else "no such file"
    if path.exists() and not path.is_dir():
        problem = "not a regular file, and data is read more than once; save it as a file first"
    raise DataError(f"{problem} ({key})", path=given)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _hub(rest: str) -> Hub:
    folder = Path(rest).expanduser()
    if folder.is_dir():
        return Hub(str(folder), None)
    if rest.startswith(("/", ".", "~")):
        raise DataError("no such folder", path=f"hub:{rest}")
    name, _, config = rest.partition(":")
    if not name:
        raise DataError(f'a hub name is missing after "hub:"; {SOURCE_FORMS}')
    return Hub(name, config or None)


def load_hub(hub: Hub, split: Split) -> datasets.Dataset:
    """One split of a hub dataset, downloaded unless it is here already, or of a folder written by `save_to_disk`.

    A saved single `Dataset` holds the split that it is named for, or train. Raises `MissingSplit`; `DataError` with
    what the `datasets` package says where it cannot load it.
    """
    package = quiet_datasets()
    folder = Path(hub.name)
    place = f"hub:{hub.name}" + (f":{hub.config}" if hub.config else "")
    try:
        if (folder / "dataset_dict.json").exists() or (folder / "state.json").exists():
            loaded = package.load_from_disk(str(folder))
        else:
            loaded = package.load_dataset(hub.name, hub.config)
    except Exception as error:  # The package raises whatever its file system, network and format libraries raise.
        raise DataError(f"cannot be loaded: {type(error).__name__}: {error}", path=place) from error
    if isinstance(loaded, package.Dataset):
        loaded = {str(loaded.split or "train"): loaded}
    found = [split] if split in loaded else [name for name in loaded if split_of(name) == split]
    if len(found) == 1:
        return loaded[found[0]]
    if found:
        raise DataError(f"several splits for {split}: {', '.join(found)}", path=place)
    there, names = ", ".join(loaded) or "none", ", ".join(SPLIT_NAMES[split])
    raise MissingSplit(f"no {split} split; it would be called one of {names}; found: {there}", path=place)


def check_fields(dataset: datasets.Dataset, fields: Mapping[str, str], *, place: str) -> None:
    """Raises `DataError` for columns that a hub dataset lacks; `fields` maps keys of `[data]` to columns."""
    if problem := missing(fields, dataset.column_names, "column"):
        raise DataError(problem, path=place)


def hub_rows(dataset: datasets.Dataset, fields: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """The values of `fields`, row by row; class labels by their names, None where a number has no name (-1)."""
    names = [_class_names(dataset, field) for field in fields]

    def named(value: Any, names: dict[int, str] | None) -> Any:
        if names is None:
            return value
        return [names.get(item) for item in value] if isinstance(value, list) else names.get(value)

    for batch in dataset.select_columns(list(fields)).with_format(None).iter(batch_size=1000):
        for values in zip(*(batch[field] for field in fields), strict=True):
            yield tuple(map(named, values, names))


def hub_origin(dataset: datasets.Dataset, fields: Sequence[str]) -> tuple[list[Path], dict[str, Any]]:
    """The files and the settings that the rows of `hub_rows` depend on: what `fingerprint` takes."""
    paths = [Path(file["filename"]) for file in dataset.cache_files]
    names = [_class_names(dataset, field) for field in fields]
    return paths, {"fields": list(fields), "names": names, "dataset": None if paths else dataset._fingerprint}


def _class_names(dataset: datasets.Dataset, field: str) -> dict[int, str] | None:
    """Names by number where a column holds class labels or lists of them: they are stored apart from the rows."""
    feature = dataset.features[field]
    names = getattr(getattr(feature, "feature", feature), "names", None)
    return None if names is None else dict(enumerate(names))


def open_nltk(source: Nltk) -> tuple[Any, str, list[str]]:
    """The NLTK corpus reader, what messages call it, and all its file ids, of whatever prefix.

    Raises `DataError` where NLTK knows no such corpus, or it is not downloaded, saying the command.
    """
    import nltk.corpus

    place = f"nltk:{source.corpus}" + (f":{source.prefix}" if source.prefix else "")
    corpus = getattr(nltk.corpus, source.corpus, None) if not source.corpus.startswith("_") else None
    if not hasattr(type(corpus), "fileids") and type(corpus).__name__ != "LazyCorpusLoader":
        raise DataError("NLTK has no corpus of this name", path=place)
    assert corpus is not None
    try:
        return corpus, place, [str(name) for name in corpus.fileids()]
    except LookupError:
        command = f"python -m nltk.downloader {source.corpus}"
        raise DataError(f"this corpus is not downloaded; to download it: {command}", path=place) from None


def unsplit_files(source: Nltk, ids: Sequence[str], split: Split, *, place: str) -> list[str]:
    """The file ids that `source` wants of a corpus without splits, which is training data as a whole.

    Raises `MissingSplit` for any other split, `DataError` where the prefix leaves no file.
    """
    if split != "train":
        raise MissingSplit(f"this corpus is not split: no {split} data", path=place)
    ours = [name for name in ids if name.startswith(source.prefix)]
    if not ours:
        raise DataError(f"no file of this corpus has a name that begins with {source.prefix!r}", path=place)
    return ours


def nltk_files(corpus: Any, ids: Sequence[str]) -> list[Path]:
    """The files on disk that hold these files of an NLTK corpus, each once: many may share one archive."""
    files = [getattr(getattr(path, "zipfile", None), "filename", path) for path in corpus.abspaths(list(ids))]
    return [Path(file) for file in dict.fromkeys(map(str, files))]


def load_nltk(source: Nltk, split: Split) -> tuple[Any, str, list[Path]]:
    """The NLTK corpus reader, the file id of `split` in it, and the files on disk that hold it (a file or an archive).

    Raises `MissingSplit`, and `DataError` as `open_nltk` does.
    """
    corpus, place, ids = open_nltk(source)
    ours = [name for name in ids if name.startswith(source.prefix)]
    found = [name for name in ours if split_of(PurePosixPath(name).name) == split]
    if len(found) == 1:
        return corpus, found[0], nltk_files(corpus, found)
    if found:
        message = f"several files for {split}: {_listed(found)}; pick by prefix, such as nltk:{source.corpus}:"
        raise DataError(message + re.split(r"\W", found[0])[0], path=place)
    there, names = _listed(ours or ids), ", ".join(SPLIT_NAMES[split])
    raise MissingSplit(f"no {split} file; its name would have one of {names} in it; found: {there}", path=place)
