"""Opening text: UTF-8, plain or gzipped, one line at a time, with the place of whatever does not read."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from seqtext.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"
SPACES = re.compile("[ \t]+")
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


@contextmanager
def open_bytes(path: str | Path, *, unzip: bool = True) -> Iterator[IO[bytes]]:
    """The bytes of a file; gzipped content is unpacked, whatever the file is called, unless `unzip` is false.

    Raises `DataError` naming the file where it is missing, a folder, unreadable, a damaged gzip file, or none though it
    is called .gz.
    """
    try:
        raw = Path(path).open("rb")  # noqa: SIM115
    except FileNotFoundError:
        raise DataError("no such file", path=path) from None
    except IsADirectoryError:
        raise DataError("this is a folder; a file is expected", path=path) from None
    except OSError as error:
        raise DataError(f"this file cannot be read: {error.strerror}", path=path) from None
    with raw:
        # A peek, not a seek: the path may be a pipe.
        start = raw.peek(2)[:2]
        if unzip and start and start != GZIP_MAGIC and str(path).lower().endswith(".gz"):
            raise DataError("not gzip, though its name ends in .gz; rename it if it is plain", path=path)
        if not unzip or start != GZIP_MAGIC:
            yield raw
            return
        try:
            with gzip.GzipFile(fileobj=raw) as unzipped:
                yield unzipped  # type: ignore[misc]
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"damaged gzip file: {error}", path=path) from None


def open_text(path: str | Path) -> Iterator[tuple[int, str]]:
    """Each line of a UTF-8 text file with its number from 1, without its line end (LF or CRLF) and byte order mark.

    Only LF and CRLF end a line, so that other Unicode separators stay inside the text. Nothing is opened before the
    first line is asked for. Raises `DataError` as `open_bytes` does and, where bytes are not UTF-8, with the file, the
    line, the byte's value and its position in the line.
    """
    with open_bytes(path) as lines:
        yield from text_lines(lines, path)


def text_lines(lines: Iterable[bytes], place: str | Path) -> Iterator[tuple[int, str]]:
    """As `open_text`, for bytes that are open already, such as those of standard input; `place` is for messages."""
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            found = _undecodable(line, error.start, first=number == 1)
            raise DataError(found, path=place, line=number) from None
        if number == 1:
            text = text.removeprefix("\ufeff")
        yield number, text.rstrip("\r\n")


def _undecodable(line: bytes, start: int, *, first: bool) -> str:
    if first and line[:2] in UTF16_BOMS:
        return "this file is UTF-16; convert it to UTF-8"
    return f"byte 0x{line[start]:02x} at byte {start + 1} of the line is not UTF-8; convert the file to UTF-8"


def refuse_nul(text: str, *, path: str | Path | None = None, line: int | None = None, what: str = "sentence") -> None:
    """Raises `DataError` where there is a NUL character, which no text has: some programs end a text there."""
    if "\0" in text:
        message = f"a NUL character at {text.index(chr(0)) + 1} of the {what}; this is no text, or it is UTF-16"
        raise DataError(message, path=path, line=line)


def first_line(path: str | Path) -> str | None:
    """The first line that is not blank, or None where there is none."""
    return next((line for _, line in open_text(path) if line.strip()), None)


def open_columns(
    path: str | Path, *, separator: str | None = None, comment: str = ""
) -> Iterator[tuple[int, list[str]]]:
    """Line number and columns of each line, none for a blank line; lines that begin with `comment` are left out.

    Columns are parted by `separator`, or by any run of spaces and tabs. Raises `DataError` as `open_text` does.
    """
    for number, line in open_text(path):
        if comment and line.startswith(comment):
            continue
        if separator is not None:
            yield number, line.split(separator) if line.strip() else []
        elif line.isascii():
            yield number, line.split()
        else:  # str.split would also split at the no-break spaces that stand within tokens, as in 10 000
            yield number, SPACES.split(line.strip(" \t"))


def open_json(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and object of each line of a JSON lines file that is not blank.

    Raises `DataError` with file and line where a line is not one JSON object, and as `open_text` does.
    """
    for number, line in open_text(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            if "\\u" in line:
                json.dumps(record, ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            message = f"not valid JSON: {error.msg} at character {error.pos + 1}"
            raise DataError(message, path=path, line=number) from None
        except UnicodeEncodeError:
            raise DataError("a \\u escape is half of a surrogate pair, no character", path=path, line=number) from None
        except (ValueError, RecursionError) as error:
            raise DataError(f"not valid JSON: {error}", path=path, line=number) from None
        if not isinstance(record, dict):
            found = "an array" if isinstance(record, list) else "a single value"
            raise DataError(f"found {found}, expected one JSON object a line", path=path, line=number)
        yield number, record
