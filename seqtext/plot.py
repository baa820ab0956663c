"""Pictures by matplotlib, the extra "plot": how they are drawn and written, and heat-maps of attention.

In a heat-map a column is as wide as its token is written, so that all labels are upright and none lies on another. The
colours are those of cividis, which look alike to people with and without a deficiency of colour vision (Nuñez et al.
2018, "Optimizing colormaps with consideration for color vision deficiency to enable accurate interpretation of
scientific data").
"""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqtext.errors import InputError
from seqtext.files import write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
SHOWN = 100
"""Tokens of either side, at most: a larger picture nobody can look at."""
POINTS = 9
"""Size of the letters."""
LETTER, LINE = 0.085, 0.22
"""Inches of a letter's width, and of a row's height."""
MARGIN = 0.8
"""Inches around, for the names of the sides and the scale."""
INK = "#010203"
"""Stands for the colour of the text around a picture that is part of a page."""
LIGHT_OR_DARK = (
    "svg { color: #1b1b1b; background: #fff; } "
    "@media (prefers-color-scheme: dark) { svg { color: #e8e8e8; background: #16181c; } }"
)


def check_plot(what: str = "--plot") -> None:
    """Raises `InputError` where nothing can be drawn here: before anything is computed."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise InputError(f'{what} needs matplotlib: pip install "seqtext[plot]"') from None


def check_picture(file: Path, what: str = "--plot") -> None:
    """Raises `InputError` where a picture cannot be written to `file`: before anything is computed."""
    check_plot(what)
    if file.suffix.removeprefix(".") not in FORMATS:
        raise InputError(f"{what} {file}: expected a name that ends in {' or '.join(f'.{one}' for one in FORMATS)}")
    if not file.absolute().parent.is_dir():
        raise InputError(f"{what} {file}: no such folder: {file.parent}")


@contextmanager
def drawing(ink: str = "black") -> Iterator[None]:
    """The settings that pictures are drawn with; text and lines around what is shown are in the colour `ink`."""
    from matplotlib import rc_context

    names = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "xtick.labelcolor")
    inks = dict.fromkeys((*names, "ytick.labelcolor", "grid.color", "axes.titlecolor"), ink)
    # Text stays text in an SVG, and the same picture is the same file.
    fixed: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "seqtext", "font.size": POINTS}
    with rc_context(fixed | inks), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of letters that the font lacks; it draws boxes for them
        yield


def save(draw: Callable[[], Figure], path: Path) -> None:
    """Write a picture; the suffix of the file, png or svg, says how. Raises `InputError` where that cannot be.

    An SVG is dark on light, or light on dark for who asks their system for that.
    """
    try:
        if path.suffix != ".svg":
            with drawing():
                draw().savefig(path, dpi=120)
            return
        with drawing(INK):
            text = _svg(draw())
        write_text(path, re.sub(r"(<svg\b[^>]*>)", rf"\1\n <style>{LIGHT_OR_DARK}</style>", text, count=1))
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from None


def _svg(figure: Figure) -> str:
    """A picture drawn with `INK`, in the colour of the text around it."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return file.getvalue().replace(INK, "currentColor")


def inline(figure: Figure, *, title: str, number: int) -> str:
    """A picture drawn with `INK` as an element of a page, which has its name, in the colour of the text around it.

    `number` keeps its ids apart from those of other pictures of the page.
    """
    text = _svg(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="f{number}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#f{number}-", text)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


def heat_map(source: Sequence[str], target: Sequence[str], weights: Sequence[Sequence[float]], path: Path) -> None:
    """Draw weights (T, S) of T target tokens on S source tokens; the suffix of the file, png or svg, says how.

    The source runs along the top, the target down the side. Of either the first 100 tokens are drawn. Raises
    `InputError` where there is no matplotlib, or the file cannot be written.
    """
    check_plot()
    save(lambda: attention_figure(source, target, weights), path)


def attention_figure(source: Sequence[str], target: Sequence[str], weights: Sequence[Sequence[float]]) -> Figure:
    """The picture of `heat_map`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns, rows = source[:SHOWN], target[:SHOWN]
    widths = [LETTER * (_width(token) + 1.5) for token in columns]
    edges = [0.0, *accumulate(widths)]
    side = LETTER * (max(map(_width, [*rows, _counted("target", target)])) + 2)
    size = (side + edges[-1] + 2 * MARGIN, LINE * len(rows) + MARGIN)
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    left, bottom = (side + MARGIN * 0.6) / size[0], MARGIN / 4 / size[1]
    axes = figure.add_axes((left, bottom, edges[-1] / size[0], LINE * len(rows) / size[1]))
    drawn = [list(row[:SHOWN]) for row in weights[:SHOWN]]
    mesh = axes.pcolormesh(edges, range(len(rows) + 1), drawn, cmap="cividis", vmin=0.0, vmax=1.0)
    # Tokens are no formulas, whatever dollar signs they have.
    labels: dict[str, Any] = {"fontsize": POINTS, "parse_math": False}
    centres = [(start + end) / 2 for start, end in pairwise(edges)]
    axes.set_xticks(centres, [plain(token) for token in columns], **labels)
    axes.set_yticks([row + 0.5 for row in range(len(rows))], [plain(token) for token in rows], **labels)
    axes.invert_yaxis()
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.xaxis.set_label_position("top")
    axes.set_xlabel(_counted("source", source), fontsize=POINTS)
    corner: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "fontsize": POINTS}
    axes.annotate(_counted("target", target), (0, 1), (-4, 4), ha="right", **corner)
    beside = figure.add_axes((left + (edges[-1] + 0.12) / size[0], bottom, 0.12 / size[0], axes.get_position().height))
    figure.colorbar(mesh, cax=beside).ax.tick_params(labelsize=POINTS - 2)
    return figure


def _width(token: str) -> int:
    """Letters that a token is as wide as."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in token)


def plain(token: str) -> str:
    """A token without letters that cannot be drawn or end a line."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in token)


def _counted(side: str, tokens: Sequence[str]) -> str:
    return side if len(tokens) <= SHOWN else f"{side}: the first {SHOWN} of {len(tokens):,} tokens"
