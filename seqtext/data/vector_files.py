"""Reading files of word vectors: GloVe, word2vec (text and binary) and fastText `.vec`, plain or gzipped.

Text is a word and its values on each line, in word2vec's and fastText's case after a line "count dimensions". Binary,
as word2vec.c writes it, is that first line and then, for each word, its bytes, a space and little-endian float32
values. A file is read in blocks, so that memory stays bounded. Arrow parses a block of text; where it finds anything
unusual, the block is read again line by line, which allows words with spaces (glove.840B) and names the faulty line.
"""

from __future__ import annotations

from codecs import BOM_UTF8
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import pyarrow as pa
from pyarrow import csv

from seqtext.data.text import open_bytes
from seqtext.errors import DataError

BLOCK_SIZE = 1 << 22
"""Bytes read at once."""
LONGEST_LINE = 1 << 20
"""Bytes; a longer line or word means that the file holds something else."""
MOST_VALUES = 100_000
"""Of a vector; a first line that says more means the same."""
MOST_DIGITS = 15
"""Of the numbers of a first line."""
LARGEST = float(np.finfo(np.float32).max)


class Block(NamedTuple):
    """Some consecutive words of a file."""

    words: pa.Array
    """(N,) string."""
    values: np.ndarray
    """(N, D) float32."""


class _Layout(NamedTuple):
    """How the lines of a text file are made up."""

    path: str | Path
    dim: int
    separator: bytes
    trailing: bool
    """Whether lines end in a separator, as word2vec's and fastText's do."""


def read_blocks(path: str | Path) -> Iterator[Block]:
    """The words and vectors of a file in its own order, duplicates included; the format is told from the content.

    Raises `DataError` with file and line where a line has another number of values than the first, a value is not a
    finite number or a word is not UTF-8, and with the file where it holds no vectors or fewer or more than its first
    line says.
    """
    with open_bytes(path) as file:
        first = file.readline(LONGEST_LINE).removeprefix(BOM_UTF8)
        if not first.strip():
            raise DataError("no word vectors; a word and its values are expected on line 1", path=path, line=1)
        if len(first) == LONGEST_LINE:
            raise DataError("not a file of word vectors: its first line is over 1 MB long", path=path, line=1)
        header = first.split()
        if len(header) != 2 or not all(field.isdigit() for field in header):
            yield from _read_text(path, file, first, dim=0, line=1)
            return
        if max(map(len, header)) > MOST_DIGITS or int(header[1]) > MOST_VALUES:
            shown = first[:60].decode("ascii").strip()
            message = f"{shown!r} is no count of words and of at most {MOST_VALUES:,} values of each"
            raise DataError(message, path=path, line=1)
        count, dim = map(int, header)
        if count == 0 or dim == 0:
            raise DataError("no word vectors: the first line says so", path=path, line=1)
        head = file.read(BLOCK_SIZE)
        blocks = (
            _read_binary(path, file, head, count, dim) if _is_binary(head, dim) else _read_text(path, file, head, dim)
        )
        found = 0
        for block in blocks:
            found += len(block.words)
            yield block
        if found != count:
            raise DataError(f"{found} words, but the first line says {count}; is the file cut?", path=path)


def _is_binary(head: bytes, dim: int) -> bool:
    """Whether the first word's values are raw floats; these hardly ever consist of printable characters alone."""
    values = head[head.find(b" ") + 1 :][: 4 * dim]
    return any(byte > 126 or (byte < 32 and byte not in b"\t\r\n") for byte in values)


def _read_binary(path: str | Path, file: IO[bytes], data: bytes, count: int, dim: int) -> Iterator[Block]:
    """At most `count` words; fewer where the file ends before."""
    size, found = 4 * dim, 0
    while found < count:
        words, values, point = [], [], 0
        while found < count:
            space = data.find(b" ", point)
            if space - point > LONGEST_LINE or (space < 0 and len(data) - point > LONGEST_LINE):
                raise DataError(f"word {found + 1} is over 1 MB long; is this a word2vec file?", path=path)
            if space < 0 or space + 1 + size > len(data):
                break
            try:
                # Some writers end each vector with a line end, which then stands before the next word.
                words.append(data[point:space].lstrip(b"\n").decode("utf-8"))
            except UnicodeDecodeError:
                raise DataError(f"word {found + 1} is not UTF-8: {data[point:space]!r}", path=path) from None
            values.append(data[space + 1 : space + 1 + size])
            point = space + 1 + size
            found += 1
        if words:
            block = np.frombuffer(b"".join(values), dtype="<f4").reshape(len(words), dim)
            broken = np.flatnonzero(~np.isfinite(block).all(axis=1))
            if len(broken):
                raise DataError(f"the vector of {words[broken[0]]!r} holds a value that is not finite", path=path)
            yield Block(pa.array(words, pa.string()), block)
        more = file.read(BLOCK_SIZE)
        if not more:
            return
        data = data[point:] + more


def _read_text(path: str | Path, file: IO[bytes], head: bytes, dim: int, line: int = 2) -> Iterator[Block]:
    """The lines of `head` and of the rest of the file, the first of them numbered `line`; `dim` 0: not known yet."""
    layout = None
    rest = head
    while True:
        more = file.read(BLOCK_SIZE)
        data = rest + more
        # Whole lines only, but for the last line of a file, which need not end.
        end = data.rfind(b"\n") + 1 if more else len(data)
        if end == 0 and len(data) > LONGEST_LINE:
            raise DataError("a line of over 1 MB; is this a file of word vectors?", path=path, line=line)
        block, rest = data[:end], data[end:]
        if block and not block.isspace():
            layout = layout or _layout(path, block, dim, line)
            yield _parse_fast(block, layout) or _parse_lines(block, layout, line)
        line += block.count(b"\n")
        if not more:
            return


def _layout(path: str | Path, block: bytes, dim: int, line: int) -> _Layout:
    first = block.lstrip(b"\r\n").split(b"\n", 1)[0].rstrip(b"\r")
    separator = b"\t" if b"\t" in first else b" "
    if not dim:
        fields = first.rstrip(b" \t").split(separator)
        while dim < len(fields) - 1 and _number(fields[-dim - 1]) is not None:
            dim += 1
        if not dim:
            shown = first[:60].decode("utf-8", "replace")
            raise DataError(f"not a word and its values: {shown!r}", path=path, line=line)
    return _Layout(path, dim, separator, first.endswith(separator))


def _parse_fast(block: bytes, layout: _Layout) -> Block | None:
    """The block by Arrow; None where any line is not exactly a word without spaces and its finite values."""
    names = ["word", *(str(column) for column in range(layout.dim)), *(["end"] if layout.trailing else [])]
    try:
        table = csv.read_csv(
            pa.BufferReader(block),
            read_options=csv.ReadOptions(column_names=names, block_size=len(block) + 1),
            parse_options=csv.ParseOptions(delimiter=layout.separator.decode(), quote_char=False),
            convert_options=csv.ConvertOptions(
                column_types={name: pa.float32() for name in names[1 : layout.dim + 1]} | {"word": pa.string()},
                include_columns=names[: layout.dim + 1],
                null_values=[],
            ),
        )
    except pa.ArrowInvalid:
        return None
    values = np.empty((len(table), layout.dim), dtype=np.float32)
    for column in range(layout.dim):
        values[:, column] = table.column(column + 1).to_numpy()
    return Block(table.column(0).combine_chunks(), values) if np.isfinite(values).all() else None


def _parse_lines(block: bytes, layout: _Layout, line: int) -> Block:
    """The block line by line, the first of them numbered `line`."""
    words, values = [], []
    for number, text in enumerate(block.split(b"\n"), start=line):
        if not text.strip():
            continue
        word, row = _parse_line(text, layout, number)
        words.append(word)
        values.append(row)
    return Block(pa.array(words, pa.string()), np.array(values, dtype=np.float32).reshape(len(words), layout.dim))


def _parse_line(line: bytes, layout: _Layout, number: int) -> tuple[str, list[float]]:
    path, dim = layout.path, layout.dim
    fields = line.rstrip(b" \t\r").split(layout.separator)
    found = len(fields) - 1
    # One field too many is a word with a space, unless it is a number and so a value too many.
    if found < dim or (found > dim and _number(fields[-dim - 1]) is not None):
        raise DataError(f"{found} values after the word, expected {dim} as on the first line", path=path, line=number)
    row = []
    for place, field in enumerate(fields[-dim:], start=1):
        value = _number(field)
        if value is None:
            shown = field.decode("utf-8", "replace")
            raise DataError(f"value {place} of {dim} is {shown!r}, not a finite number", path=path, line=number)
        row.append(value)
    word = b" ".join(fields[:-dim]).strip(b" ")
    try:
        return word.decode("utf-8"), row
    except UnicodeDecodeError as error:
        byte = f"byte 0x{word[error.start]:02x} at byte {error.start + 1} of the line"
        raise DataError(f"{byte} is not UTF-8; convert the file to UTF-8", path=path, line=number) from None


def _number(field: bytes) -> float | None:
    """The value of a field; None where it is not a finite number, as float32 holds them."""
    try:
        value = float(field)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST and b"_" not in field else None
