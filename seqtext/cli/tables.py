"""Figures, and tables on stdout: drawn for a terminal, tab-separated for a pipe."""

from __future__ import annotations

import sys
from collections.abc import Sequence

TWO_DECIMALS = ("perplexity", "bleu", "chrf2", "ter", "bleu_lowercased")


def figure(key: str, value: float) -> str:
    """A score as text: a perplexity, and points of 100, to two decimals; what lies between 0 and 1 to four."""
    return f"{value:.2f}" if key in TWO_DECIMALS else f"{value:.4f}"


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print one table; columns after the first stand to the right."""
    if not sys.stdout.isatty():
        print(title)
        for row in [header, *rows]:
            print("\t".join(row))
        return
    import rich.table
    from rich.console import Console

    drawn = rich.table.Table(title=title, title_justify="left")
    for i, name in enumerate(header):
        drawn.add_column(name, justify="left" if i == 0 else "right")
    for row in rows:
        drawn.add_row(*row)
    Console().print(drawn)
