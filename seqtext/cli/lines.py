"""Text that commands read a line at a time, from files or from standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path


def check_files(names: Sequence[str]) -> None:
    """Raises `DataError` for a file that is not there: before those before it have been answered. `-` is stdin."""
    from seqtext.errors import DataError

    for name in names:
        if name != "-" and not Path(name).exists():
            raise DataError("no such file", path=name)


def lines_of(*names: str) -> Iterator[str]:
    """The lines of files, and of standard input for `-`, as they come. Raises `DataError` naming file and line."""
    from seqtext.data.text import open_text, text_lines

    for name in names:
        lines = text_lines(sys.stdin.buffer, "standard input") if name == "-" else open_text(name)
        for _, line in lines:
            yield line
