"""Numbers as shades of a terminal's characters: a row a token, a column a unit."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from seqtext.draw import columns, cut, plain

BLOCKS = " ░▒▓█"
RAMP = (17, 60, 243, 144, 179, 227)
"""Of the 256 colours of a terminal, those near cividis, from dark to light."""
LABEL = 20
"""Columns of a token, at most."""


def shade(value: float, low: float, high: float, *, colour: bool) -> str:
    """A character that is the fuller, or the lighter, the nearer a value is to `high`."""
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    if colour:
        return f"\x1b[48;5;{RAMP[min(len(RAMP) - 1, int(share * len(RAMP)))]}m \x1b[0m"
    return BLOCKS[min(len(BLOCKS) - 1, int(share * len(BLOCKS)))]


def label(token: str, width: int) -> str:
    """A token in so many columns, to the right, without anything that moves the cursor."""
    shown = cut(plain(token), width)
    return " " * (width - columns(shown)) + shown


def label_width(tokens: Sequence[str]) -> int:
    return min(LABEL, max((columns(token) for token in tokens), default=1))


def terminal_width() -> int:
    return shutil.get_terminal_size((100, 24)).columns
