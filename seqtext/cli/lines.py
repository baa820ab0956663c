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


def lines_of(*names: str, nul: bool = True) -> Iterator[str]:
    """The lines of files, and of standard input for `-`, as they come. Raises `DataError` naming file and line.

    Without `nul`, one that has a NUL character is refused.
    """
    for _, _, line in placed_lines(*names, nul=nul):
        yield line


def placed_lines(*names: str, nul: bool = True) -> Iterator[tuple[str, int, str]]:
    """As `lines_of`, each with the name of its file and its number there, from 1."""
    from seqtext.data.text import open_text, refuse_nul, text_lines

    for name in names:
        place = "standard input" if name == "-" else name
        for number, line in text_lines(sys.stdin.buffer, place) if name == "-" else open_text(name):
            if not nul:
                refuse_nul(line, path=place, line=number)
            yield place, number, line


def prompted(lines: Iterator[str]) -> Iterator[str]:
    """The lines that a person types, with a prompt on stderr for each."""
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        try:
            line = next(lines)
        except StopIteration:
            print(file=sys.stderr)
            return
        yield line
