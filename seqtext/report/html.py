"""The pieces that a report's page is made of. All text that comes in is somebody's: it is escaped here.

The page needs no other file and no script, and has light and dark colours by what the reader's system prefers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from seqtext import draw

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1b1b; --soft: #5c5f66; --line: #d5d7db; --panel: #f5f6f8;
  --heat: 0, 114, 178; }
@media (prefers-color-scheme: dark) { :root { --paper: #16181c; --ink: #e8e8e8; --soft: #a4a8b0; --line: #3a3e46;
  --panel: #1f2228; --heat: 20, 120, 190; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 72rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.5rem 0 .6rem; padding-top: .6rem; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
p { max-width: 50rem; margin: .4rem 0; }
.soft, figcaption, caption { color: var(--soft); font-size: .9rem; }
nav ul { padding-left: 1.2rem; columns: 18rem; column-gap: 2.5rem; }
nav li { overflow-wrap: anywhere; break-inside: avoid; }
a { color: inherit; }
.wide { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { text-align: right; padding: .25rem .7rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child, .text { text-align: left; }
thead th { border-bottom: 2px solid var(--line); font-weight: 600; }
th:first-child, td { white-space: nowrap; }
td.long { white-space: normal; overflow-wrap: anywhere; min-width: 8rem; }
figure { margin: .8rem 0; overflow-x: auto; }
figure > svg { max-width: 100%; height: auto; }
figure.whole > svg { max-width: none; }
@media (max-width: 40rem) { th, td { padding: .25rem .4rem; } }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); gap: 0 1.5rem; }
.text-line { margin: .35rem 0; padding: .35rem .6rem; background: var(--panel); border-radius: .4rem; max-width: none;
  overflow-wrap: anywhere; line-height: 1.9; }
.text-line > b { font-weight: 600; font-size: .8rem; color: var(--soft); margin-right: .5rem; display: inline-block;
  min-width: 3.2rem; }
mark { background: none; color: inherit; padding: .05em .3em; border: 2px solid; border-radius: .4em; }
mark small { margin-left: .35em; font-weight: 600; }
.heat { padding: .08em .12em; border-radius: .2em; }
pre { background: var(--panel); padding: .8rem; overflow-x: auto; border-radius: .4rem; font-size: .85rem;
  white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: .6rem 0; } summary { cursor: pointer; }
"""
INKS = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
"""Edges of highlighted spans, after Okabe & Ito 2008; each has its type written beside it as well."""


SHORT = 24
"""Letters of a cell up to which it stands on one line, so that no word of it is broken."""


class Section(NamedTuple):
    """A part of the page."""

    title: str
    body: str


def safe(text: object) -> str:
    """Text for a page, without letters that turn the direction of writing or cannot be shown."""
    return draw.safe(str(text))


def paragraph(text: str, *, soft: bool = False) -> str:
    return f"<p{' class=soft' if soft else ''}>{safe(text)}</p>\n"


def table(
    header: Sequence[str], rows: Iterable[Sequence[object]], *, caption: str = "", texts: Sequence[int] = ()
) -> str:
    """A table; columns after the first stand to the right, but for those of `texts`, of which long ones are broken."""
    rows = list(rows)
    long = {place for place in texts if any(len(str(row[place])) > SHORT for row in rows)}

    def cells(row: Sequence[object], tag: str) -> str:
        written = []
        for place, value in enumerate(row):
            kind = f' class="text{" long" if place in long else ""}"' if place in texts else ""
            scope = ' scope="col"' if tag == "th" else ""
            written.append(f"<{tag}{scope}{kind}{' dir=auto' if kind else ''}>{safe(value)}</{tag}>")
        return "<tr>" + "".join(written) + "</tr>\n"

    top = f"<caption>{safe(caption)}</caption>" if caption else ""
    body = "".join(cells(row, "td") for row in rows)
    return f'<div class="wide"><table>{top}<thead>{cells(header, "th")}</thead><tbody>{body}</tbody></table></div>\n'


def matrix(names: Sequence[str], counts: Sequence[Sequence[int]], *, caption: str) -> str:
    """A confusion matrix, each cell shaded by its share of its row, a gold class."""
    head = "".join(f'<th scope="col">{safe(name)}</th>' for name in names)
    rows = []
    for name, row in zip(names, counts):
        most = max(1, sum(row))
        cells = "".join(
            f'<td style="background: rgba(var(--heat), {0.6 * count / most:.3f})">{count:,}</td>' for count in row
        )
        rows.append(f'<tr><th scope="row">{safe(name)}</th>{cells}</tr>\n')
    return (
        f'<div class="wide"><table><caption>{safe(caption)}</caption><thead><tr><th scope="col">gold \\ found</th>'
        f"{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>\n"
    )


def figure(svg: str, *, caption: str = "", kind: Literal["whole"] | None = None) -> str:
    """A picture as wide as the page at most; `whole` ones keep their size and scroll."""
    under = f"<figcaption dir=auto>{safe(caption)}</figcaption>" if caption else ""
    shape = f' class="{kind}"' if kind else ""
    return f"<figure{shape}>{svg}{under}</figure>\n"


def line(name: str, inside: str) -> str:
    """A line of text that was marked up already, with a name before it."""
    return f'<p class="text-line" dir="auto"><b>{safe(name)}</b>{inside}</p>\n'


def spans_marked(words: Sequence[str], found: Iterable[tuple[int, int, str]], kinds: Sequence[str]) -> str:
    """Words, with the spans (start, end, type) in frames."""
    written = list(map(safe, words))
    for start, end, kind in found:
        colour = INKS[kinds.index(kind) % len(INKS)]
        written[start] = f'<mark style="border-color: {colour}">{written[start]}'
        written[end - 1] += f"<small>{safe(kind)}</small></mark>"
    return " ".join(written)


def heated(words: Sequence[str], weights: Sequence[float], *, unit: str = "") -> str:
    """Words, each the stronger coloured the larger its weight; pointing at one tells it."""
    most = max(weights, default=0.0) or 1.0
    return " ".join(
        f'<span class="heat" title="{weight:.3g}{safe(unit)}" style="background: rgba(var(--heat), '
        f'{0.75 * max(0.0, weight) / most:.3f})">{safe(word)}</span>'
        for word, weight in zip(words, weights)
    )


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole page, with a list of what is on it."""
    links = "".join(f'<li><a href="#s{number}">{safe(one.title)}</a></li>' for number, one in enumerate(sections))
    bodies = "".join(
        f'<section aria-labelledby="s{number}"><h2 id="s{number}">{safe(one.title)}</h2>\n{one.body}</section>\n'
        for number, one in enumerate(sections)
    )
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{safe(title)}</title><style>{STYLE}</style></head>\n'
        f'<body><header><h1>{safe(title)}</h1>\n{lead}</header>\n<nav aria-label="Sections"><ul>{links}</ul></nav>\n'
        f"<main>\n{bodies}</main>\n</body></html>\n"
    )
