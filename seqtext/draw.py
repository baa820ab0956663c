"""Trees whose every node has a label and probabilities, drawn in the terminal, as SVG, and as a page of HTML.

Classes that have an order (`metrics.trees.polarities`) are coloured by it: orange to red below the middle, blue above,
stronger towards the ends, and plain in the middle. Other classes have colours after Okabe & Ito 2008, "Color Universal
Design", by their place. Both can be told apart with the usual deficiencies of colour vision. Terminal and pages have
the same colours, of the 256 that terminals know, each with ink that is read well on it whatever is behind the tree.

Words and labels are somebody's text: nothing of them reaches a terminal or a page as code. No function recurses, and
all take time in proportion to the nodes, so that a tree may be as deep as it has words.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Sequence
from html import escape
from itertools import accumulate
from math import ceil
from typing import NamedTuple, TextIO

from seqtext.metrics.trees import polarities

BELOW, ABOVE = (223, 215, 202), (153, 75, 26)
"""Colours of classes below and above the middle of their scale, from near it to far."""
PLACES = (214, 117, 36, 227, 25, 166, 175, 145)
"""Colours of classes without an order: near to Okabe and Ito's, with grey for their black."""
STEPS = (0, 95, 135, 175, 215, 255)
"""Red, green or blue in the colours 16 to 231 of a terminal."""
NARROWEST = 40
"""Columns that `terminal` takes at least."""
LABEL, WORD = 16, 40
"""Columns of a label, and of a word in a picture, at most."""
PHRASE, CLASSES = 80, 12
"""Columns of a tooltip's phrase at most, and classes of which it tells the probability."""
LETTER, GAP, STEP, PILL, MARGIN = 8.4, 14.0, 38.0, 22.0, 16.0
"""Pixels: a letter of a word (at 14 points), between words, from level to level, height of a node, around the tree."""

STYLE = """
.tree { background: #fff; font: 14px system-ui, sans-serif; }
.tree text { fill: #1b1b1b; text-anchor: middle; }
.tree .edge { fill: none; stroke: #999; }
.tree .plain { fill: #eee; stroke: #999; }
@media (prefers-color-scheme: dark) {
  .tree { background: #16181c; }
  .tree text { fill: #e8e8e8; }
  .tree .edge { stroke: #777; }
  .tree .plain { fill: #33363c; stroke: #777; }
}
.tree .on-light { fill: #000; }
.tree .on-dark { fill: #fff; }
"""
PAGE = """
:root { color-scheme: light dark; }
body { margin: 2rem; background: #fff; color: #1b1b1b; font: 16px/1.5 system-ui, sans-serif; }
figure { margin: 0 0 3rem; overflow-x: auto; }
figcaption { position: sticky; left: 0; max-width: 60rem; }
.key { display: inline-block; padding: 0 .6em; margin-right: .4em; border-radius: .7em; border: 1px solid #999; }
@media (prefers-color-scheme: dark) { body { background: #16181c; color: #e8e8e8; } }
"""


class LabelledTree(NamedTuple):
    """N nodes over M words, in level order: by depth, the root first, and from left to right within a depth."""

    words: Sequence[str]
    """(M,)"""
    labels: Sequence[str]
    """(N,) the class of each node, one of `classes`."""
    probabilities: Sequence[Sequence[float]]
    """(N, C) of all classes."""
    arities: Sequence[int]
    """(N,) children of each node; 0 for the M leaves, which hold a word each."""
    starts: Sequence[int]
    """(N,) the first word of each node."""
    ends: Sequence[int]
    """(N,) the word after the last word of each node."""
    classes: Sequence[str]
    """(C,)"""

    @property
    def first_children(self) -> list[int]:
        """(N,) the first child of each node; its other children follow. Without a meaning for leaves."""
        return list(accumulate(self.arities, initial=1))[:-1]


def wants_colour(stream: TextIO) -> bool:
    """Whether text for this stream may have colours: a terminal, and NO_COLOR (https://no-color.org) is not set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def shades(classes: Sequence[str]) -> dict[str, int | None]:
    """The number of each class's colour among a terminal's; None is plain."""
    scale = polarities(classes)
    if scale is None:
        return {label: PLACES[place % len(PLACES)] for place, label in enumerate(classes)}
    colours: dict[str, int | None] = {}
    for label, polarity in zip(classes, scale):
        ramp = ABOVE if polarity > 0 else BELOW
        colours[label] = ramp[ceil(abs(polarity) * len(ramp)) - 1] if polarity else None
    return colours


def terminal(tree: LabelledTree, *, colour: bool, width: int = 100) -> str:
    """The tree on its side, a row a node: lines from its parent, label, probability and words.

    Rows have at most `width` columns, or 40 where that is less: words are cut, and of the lines of a deep node the last
    ones are drawn, after its depth. Without `colour` there is no escape code in it.
    """
    width = max(width, NARROWEST)
    limit = width // 4 * 2  # half the row; a level takes 2 columns
    colours = shades(tree.classes)
    names = {label: cut(plain(label), LABEL) for label in tree.classes}
    widest = max(map(columns, names.values()))
    firsts = tree.first_children
    places = {label: place for place, label in enumerate(tree.classes)}
    rows = []
    # A node, its depth, what stands before its first line, and before those of its children.
    stack: list[tuple[int, int, str, str]] = [(0, 0, "", "")]
    while stack:
        node, depth, before, below = stack.pop()
        label = tree.labels[node]
        if 2 * depth > limit:
            before = f"{depth}⋯".rjust(6) + before[6 - limit :]
        share = f"{tree.probabilities[node][places[label]]:.0%}"
        chip = f" {' ' * (widest - columns(names[label]))}{names[label]} {share:>4} "
        room = max(width - len(before) - columns(chip) - 1, 4)
        phrase = _phrase(tree, node, room)
        if colour:
            chip = _paint(chip, colours[label])
            phrase = phrase if tree.arities[node] else f"\x1b[1m{phrase}\x1b[0m"
        rows.append(f"{before}{chip} {phrase}\n")
        below = below[-limit:]
        last = firsts[node] + tree.arities[node] - 1
        for child in range(last, firsts[node] - 1, -1):
            turn, beside = ("└─", "  ") if child == last else ("├─", "│ ")
            stack.append((child, depth + 1, below + turn, below + beside))
    return "".join(rows)


def svg(tree: LabelledTree) -> str:
    """The tree from the root down to its words in a row, as an SVG file; pointing at a node tells its probabilities."""
    return _figure(tree, style=f"<style>{STYLE}</style>")


def html(trees: Iterable[LabelledTree], *, title: str = "Trees") -> str:
    """A page of trees as `svg` draws them, each under its sentence; it needs no other file."""
    parts = [
        '<!DOCTYPE html>\n<html><head><meta charset="utf-8"/>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f"<title>{safe(title)}</title><style>{PAGE}{STYLE}</style></head><body><h1>{safe(title)}</h1>\n"
    ]
    for tree in trees:
        places = {label: place for place, label in enumerate(tree.classes)}
        root = f"{tree.probabilities[0][places[tree.labels[0]]]:.1%}"
        parts.append(
            f'<figure><figcaption><p dir="auto">{safe(" ".join(tree.words))}</p>'
            f"<p>{_key(tree.labels[0], shades(tree.classes)[tree.labels[0]])}{root}</p></figcaption>"
            f"{_figure(tree, style='')}</figure>\n"
        )
    return "".join([*parts, "</body></html>\n"])


def columns(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(map(_cells, text))


def _cells(letter: str) -> int:
    if unicodedata.category(letter) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def plain(text: str) -> str:
    """The text without anything that moves the cursor, turns the direction of writing or is not allowed in XML."""
    joiners = "\u200c\u200d"
    letters = (" " if a.isspace() else a if a.isprintable() or a in joiners else "\ufffd" for a in text)
    return "".join(letters)


def safe(text: str) -> str:
    return escape(plain(text))


def cut(text: str, room: int) -> str:
    """The text, or as much of its beginning as leaves a column for "…"."""
    if columns(text) <= room:
        return text
    ends = accumulate(map(_cells, text))
    return text[: sum(end < room for end in ends)] + "…"


def _phrase(tree: LabelledTree, node: int, room: int) -> str:
    """The words of a node, cut to `room` columns."""
    # A word and its space take a column at least: more words than that need not be looked at.
    words = tree.words[tree.starts[node] : min(tree.ends[node], tree.starts[node] + room + 1)]
    return cut(" ".join(plain(word[: 4 * room]) for word in words), room)


def _rgb(colour: int) -> tuple[int, int, int]:
    red, rest = divmod(colour - 16, 36)
    return STEPS[red], STEPS[rest // 6], STEPS[rest % 6]


def _dark(colour: int) -> bool:
    """Whether white is read better on it than black: by relative luminance, WCAG 2.2."""
    parts = [part / 255 for part in _rgb(colour)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.05


def _hex(colour: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*_rgb(colour))


def _paint(text: str, colour: int | None) -> str:
    """The text on a colour of 256, in black or white, for a terminal."""
    return text if colour is None else f"\x1b[38;5;{231 if _dark(colour) else 16};48;5;{colour}m{text}\x1b[0m"


def _key(label: str, colour: int | None) -> str:
    """The label on its colour, for a page."""
    style = "" if colour is None else f' style="background:{_hex(colour)};color:{"#fff" if _dark(colour) else "#000"}"'
    return f'<span class="key"{style}>{safe(label)}</span>'


def _figure(tree: LabelledTree, *, style: str) -> str:
    """The element `svg`. A node's level is its height over the words, so that these stand in one row."""
    colours = shades(tree.classes)
    names = {label: cut(plain(label), LABEL) for label in tree.classes}
    pill = max(PILL, 10 + LETTER * max(columns(names[label]) for label in set(tree.labels)))
    texts = [cut(plain(word), WORD) for word in tree.words]
    widths = [max(pill, LETTER * columns(text)) + GAP for text in texts]
    edges = list(accumulate(widths, initial=MARGIN))
    firsts, size = tree.first_children, len(tree.labels)
    across, height = [0.0] * size, [0] * size
    for node in reversed(range(size)):  # children come after their parent
        first, last = firsts[node], firsts[node] + tree.arities[node] - 1
        if tree.arities[node]:
            across[node] = (across[first] + across[last]) / 2
            height[node] = 1 + max(height[first : last + 1])
        else:
            word = tree.starts[node]
            across[node] = edges[word] + widths[word] / 2
    down = [MARGIN + PILL / 2 + STEP * (height[0] - level) for level in height]

    # Lines turn at right angles: down from a child's place only nodes of that child are met.
    lines = "".join(
        f"M{across[node]:.1f} {down[node]:.1f}H{across[child]:.1f}V{down[child]:.1f}"
        for node in range(size)
        for child in range(firsts[node], firsts[node] + tree.arities[node])
    )
    parts = [f'<path class="edge" d="{lines}"/>'] if lines else []
    for node, label in enumerate(tree.labels):
        x, y, colour = across[node], down[node], colours[label]
        fill = 'class="plain"' if colour is None else f'fill="{_hex(colour)}"'
        ink = "" if colour is None else f' class="{"on-dark" if _dark(colour) else "on-light"}"'
        parts.append(
            f"<g><title>{escape(_tooltip(tree, node))}</title>"
            f'<rect {fill} x="{x - pill / 2:.1f}" y="{y - PILL / 2:.1f}" width="{pill:.1f}" height="{PILL:g}"'
            f' rx="{PILL / 2:g}"/><text{ink} x="{x:.1f}" y="{y + 5:.1f}">{escape(names[label])}</text>'
        )
        if not tree.arities[node]:
            parts.append(f'<text x="{x:.1f}" y="{y + PILL / 2 + 18:.1f}">{escape(texts[tree.starts[node]])}</text>')
        parts.append("</g>\n")
    right, bottom = edges[-1] + MARGIN, down[0] + STEP * height[0] + PILL / 2 + 26 + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tree" role="img" aria-label="{safe(" ".join(tree.words))}"'
        f' width="{right:.0f}" height="{bottom:.0f}" viewBox="0 0 {right:.0f} {bottom:.0f}">{style}'
        f"{''.join(parts)}</svg>\n"
    )


def _tooltip(tree: LabelledTree, node: int) -> str:
    """The words of a node, then its likeliest classes with their probabilities, in the order of the classes."""
    chances = tree.probabilities[node]
    likeliest = sorted(range(len(chances)), key=lambda place: -chances[place])[:CLASSES]
    shares = [f"{plain(tree.classes[place])}: {chances[place]:.1%}" for place in sorted(likeliest)]
    return "\n".join([_phrase(tree, node, PHRASE), *shares])
