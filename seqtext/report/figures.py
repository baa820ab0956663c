"""The pictures of reports and inspections, as matplotlib figures; `plot` writes them.

Lines have the colours of Okabe & Ito 2008, "Color Universal Design", that are read on white and on black, and differ
in their strokes too; surfaces have those of cividis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from seqtext.inspecting.gates import Gated
from seqtext.inspecting.gradients import Carried
from seqtext.plot import LINE, POINTS, SHOWN, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
STROKES = ("-", "--", "-.", ":")
SMALLEST = 1e-30
"""What is less is drawn as this, on a scale of powers of ten."""
WIDEST, BESIDE = 10.0, 0.9
"""Inches that the heat-maps of gates may take side by side, and those beside the columns of each."""
UNITS = 40
"""Units of a gate that are drawn, at most: those whose state varies most."""
Curve = tuple[Sequence[float], Sequence[float]]
"""The steps of a line, and its values."""


def line_figure(
    lines: Mapping[str, Curve], *, x: str, y: str, log: bool = False, limit: tuple[str, float] | None = None
) -> Figure:
    """A line for each name; with `limit`, a level to compare them with."""
    figure, (axes,) = _panels(1, width=4.0, height=2.7)
    for number, (name, (steps, values)) in enumerate(lines.items()):
        marker = "o" if len(steps) <= 20 else None
        size = 3 if len(steps) > 1 else 6  # a run that ended where others only began
        axes.plot(steps, values, label=plain(name), marker=marker, markersize=size, **_stroke(number))
    if limit is not None:
        axes.axhline(limit[1], linestyle=":", linewidth=1, color="#888888", label=limit[0])
    _finish(axes, x=x, y=y, log=log)
    return figure


def gradient_figure(found: Sequence[Carried]) -> Figure:
    """Norms of gradients against how many steps back they were carried, before and after clipping, and the largest
    singular values of the Jacobians."""
    figure, (left, right) = _panels(2, width=6.0, height=4.0)
    for number, one in enumerate(found):
        stroke, back = _stroke(number) | {"linestyle": "-"}, range(len(one.norms))
        left.plot(back, _seen(one.norms), label=plain(one.name), **stroke)
        if one.clipped != one.norms:
            left.plot(back, _seen(one.clipped), **stroke | {"linestyle": ":", "label": f"{plain(one.name)}, clipped"})
        marker = "o" if len(one.singular) == 1 else None
        right.plot(range(1, len(one.singular) + 1), _seen(one.singular), label=plain(one.name), marker=marker, **stroke)
    right.axhline(1.0, color="#888888", linewidth=0.8)
    _finish(left, x="steps back, k", y="norm of d L(t) / d s(t-k)", log=True)
    _finish(right, x="steps, k", y="largest singular value of d s(t) / d s(t-k)", log=True)
    return figure


def gate_figure(found: Sequence[Gated]) -> Figure:
    """Heat-maps for each cell: its gates and its state, a column a token, a row a unit; as many side by side as the
    width `WIDEST` has room for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tokens = min(SHOWN, max(len(one.tokens) for one in found))
    column = min(LINE, (WIDEST - BESIDE) / tokens)
    wide, high = max(2.4, column * tokens + BESIDE), 3.4
    most = min(max(len(one.gates) for one in found), max(1, int(WIDEST / wide)))
    rows = [-(-len(one.gates) // most) for one in found]
    figure = Figure(figsize=(wide * most, high * sum(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(sum(rows), most, squeeze=False)
    letters = min(POINTS - 1, 72 * column)
    for one, count, end in zip(found, rows, accumulate(rows)):
        units = one.liveliest(UNITS)
        places = grid[end - count : end].flatten()
        for axes in places[len(one.gates) :]:
            axes.set_visible(False)
        for axes, (name, values) in zip(places, one.gates.items()):
            low, top = scale_of(name, float(values.abs().max()))
            shown = values[:SHOWN, units].T.tolist()
            mesh = axes.pcolormesh(shown, cmap="cividis", vmin=low, vmax=top)
            axes.invert_yaxis()
            labels: dict[str, Any] = {"fontsize": letters, "parse_math": False, "rotation": 90}
            axes.set_xticks([place + 0.5 for place in range(len(shown[0]))], map(plain, one.tokens[:SHOWN]), **labels)
            axes.set_yticks([])
            axes.tick_params(length=0)
            axes.set_title(name, fontsize=POINTS + 1)
            figure.colorbar(mesh, ax=axes).ax.tick_params(labelsize=POINTS - 2)
        places[0].set_ylabel(f"{one.name} ({one.cell}): {len(units)} units", fontsize=POINTS)
    return figure


def scale_of(gate: str, largest: float) -> tuple[float, float]:
    """The ends of the scale that the values of a gate, or of a member of a state, are shown on."""
    if gate.startswith(("candidate", "state")):
        return (-1.0, 1.0) if largest <= 1.0 else (-largest, largest)
    return (-max(largest, 1e-6), max(largest, 1e-6)) if gate.startswith("memory") else (0.0, 1.0)


def _panels(count: int, *, width: float, height: float) -> tuple[Figure, Sequence[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, count, squeeze=False)[0]


def _stroke(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": STROKES[number // len(COLOURS) % len(STROKES)],
        "linewidth": 1.6,
    }


def _finish(axes: Any, *, x: str, y: str, log: bool) -> None:
    from matplotlib.ticker import MaxNLocator

    if log:
        axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.2, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    legend = axes.legend(frameon=False, fontsize=POINTS - 1)
    for text in legend.get_texts():
        text.set_parse_math(False)


def _seen(values: Sequence[float]) -> list[float]:
    return [max(value, SMALLEST) for value in values]
