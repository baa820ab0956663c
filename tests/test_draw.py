"""Drawn trees: what stands in every row and at every node, colours by class, and nothing of a word taken as code."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from io import StringIO
from itertools import pairwise

import pytest

from seqtext.draw import LabelledTree, columns, html, shades, svg, terminal, wants_colour

FIVE = list("01234")
SVG = "{http://www.w3.org/2000/svg}"
CODE = re.compile(r"\x1b\[[0-9;]*m")


def certain(label, share=0.8, classes=FIVE):
    rest = (1 - share) / (len(classes) - 1)
    return [share if label == name else rest for name in classes]


def tree(words=("The", "<b>&", "is", "bad"), labels="1023210", **options):
    """[[The <b>&] [is bad]]"""
    return LabelledTree(
        words=words,
        labels=list(labels),
        probabilities=[certain(label) for label in labels],
        arities=[2, 2, 2, 0, 0, 0, 0],
        starts=[0, 0, 2, 0, 1, 2, 3],
        ends=[4, 2, 4, 1, 2, 3, 4],
        classes=FIVE,
    )._replace(**options)


def chain(depth, label="3"):
    """[w0 [w1 [... wN]]]"""
    size = 2 * depth + 1
    return LabelledTree(
        words=[f"w{word}" for word in range(depth + 1)],
        labels=[label] * size,
        probabilities=[certain(label)] * size,
        arities=[2, *[0, 2] * (depth - 1), 0, 0],
        starts=[0, *(start for word in range(depth) for start in (word, word + 1))],
        ends=[depth + 1, *(end for word in range(depth) for end in (word + 1, depth + 1))],
        classes=FIVE,
    )


def test_rows_of_the_terminal():
    assert terminal(tree(), colour=False) == (
        " 1  80%  The <b>& is bad\n"
        "├─ 0  80%  The <b>&\n"
        "│ ├─ 3  80%  The\n"
        "│ └─ 2  80%  <b>&\n"
        "└─ 2  80%  is bad\n"
        "  ├─ 1  80%  is\n"
        "  └─ 0  80%  bad\n"
    )


def test_colours_of_the_terminal():
    single = tree(["x"], "0", arities=[0], starts=[0], ends=[1])
    rows = {
        label: terminal(single._replace(labels=[label], probabilities=[certain(label)]), colour=True) for label in FIVE
    }
    # Black on orange-red, black on light orange, nothing, black on light blue, white on blue.
    codes = {label: CODE.findall(row.partition("x")[0]) for label, row in rows.items()}
    assert codes == {
        "0": ["\x1b[38;5;16;48;5;202m", "\x1b[0m", "\x1b[1m"],
        "1": ["\x1b[38;5;16;48;5;215m", "\x1b[0m", "\x1b[1m"],
        "2": ["\x1b[1m"],
        "3": ["\x1b[38;5;16;48;5;75m", "\x1b[0m", "\x1b[1m"],
        "4": ["\x1b[38;5;231;48;5;26m", "\x1b[0m", "\x1b[1m"],
    }
    assert CODE.sub("", terminal(tree(), colour=True)) == terminal(tree(), colour=False)


def test_colours_of_classes():
    assert shades(["positive", "neutral", "negative"]) == {"positive": 26, "neutral": None, "negative": 202}
    assert list(shades(list("0123456")).values()) == [202, 215, 223, None, 153, 75, 26]
    names = shades(["NP", "VP", "S"])
    assert None not in names.values() and len(set(names.values())) == 3
    assert len(shades([f"class {place}" for place in range(30)])) == 30


def luminance(colour):
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))


@pytest.mark.parametrize("classes", [list("0123456"), [f"c{place}" for place in range(8)]])
def test_labels_can_be_read_on_their_colour(classes):
    for label in classes:
        chances = [certain(label, classes=classes)]
        single = tree(["x"], [label], probabilities=chances, arities=[0], starts=[0], ends=[1], classes=classes)
        group = ET.fromstring(svg(single)).find(f"{SVG}g")
        fill, ink = group.find(f"{SVG}rect").get("fill"), group.find(f"{SVG}text").get("class")
        if fill is not None:
            light, dark = sorted([luminance(fill), {"on-dark": 1.0, "on-light": 0.0}[ink]], reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.2, 1.4.3


def test_rows_are_cut_to_the_width():
    words = ["犬猫", "naïve", "cafe\u0301s", "x" * 200]
    for width in (40, 57, 80):
        rows = terminal(tree(words), colour=False, width=width).splitlines()
        assert max(map(columns, rows)) == width
        assert rows[0].endswith("…") and "x…" in rows[-1]
    assert columns("犬猫") == 4 and columns("cafe\u0301s") == 5
    assert max(map(columns, terminal(tree(words), colour=False, width=3).splitlines())) == 40
    assert terminal(tree(words), colour=False, width=300).splitlines()[0] == f" 1  80%  {' '.join(words)}"
    letters = chain(60)._replace(words=["a"] * 61)
    assert terminal(letters, colour=False, width=80).splitlines()[0] == " 3  80%  " + "a " * 35 + "…"
    long = [f"label {place} of many letters" for place in range(3)]
    wide = tree(labels=[long[1]] * 7, probabilities=[[0.1, 0.7, 0.2]] * 7, classes=long)
    assert terminal(wide, colour=False, width=40).splitlines()[4] == "└─ label 1 of many…  70%  is bad"


def test_deep_trees():
    rows = terminal(chain(200), colour=False, width=80).splitlines()
    assert len(rows) == 401 and max(map(columns, rows)) <= 80
    assert rows[0].startswith(" 3  80%  w0 w1 w2") and rows[2].startswith("└─ 3  80%  w1 w2")
    assert rows[39:43] == [
        f"{'  ' * 19}├─ 3  80%  w19",
        f"{'  ' * 19}└─ 3  80%  w20 w21 w22 w23 w24 w25 w26 w2…",
        f"   21⋯{'  ' * 16}├─ 3  80%  w20",
        f"   21⋯{'  ' * 16}└─ 3  80%  w21 w22 w23 w24 w25 w26 w27 w2…",
    ]
    assert rows[-1].split() == ["200⋯", "└─", "3", "80%", "w200"]
    assert len(terminal(chain(5000), colour=True)) < 5000 * 2 * 200
    deep = ET.fromstring(svg(chain(5000)))
    assert len(deep.findall(f"{SVG}g")) == 10001


def test_words_are_no_codes():
    evil = ["\x1b[31mred", "a\nb\t\u00a0c", "\u202eright", "\ud800\x00"]
    drawn = terminal(tree(evil), colour=False)
    assert drawn.count("\n") == 7 and "\ufffd[31mred a b  c \ufffdright \ufffd\ufffd\n" in drawn
    assert not set("\x1b\t\u202e\x00") & set(drawn)
    for page in (svg(tree(evil)), html([tree(evil)], title="</title><script>\x1b")):
        page.encode("utf-8")
        assert "\ufffd[31mred" in "".join(ET.fromstring(page).itertext())
        assert "<script" not in page
    named = ['<i>"0"', "'1'&"]
    drawn = tree(labels=[named[0]] * 7, probabilities=[[0.9, 0.1]] * 7, classes=named)
    root = ET.fromstring(html([drawn]))
    assert root.find(".//span").text == named[0] and root.find(".//i") is None
    assert root.find(f".//{SVG}title").text == "The <b>& is bad\n<i>\"0\": 90.0%\n'1'&: 10.0%"


def test_nodes_of_the_picture():
    root = ET.fromstring(svg(tree()))
    groups = root.findall(f"{SVG}g")
    assert [group.find(f"{SVG}text").text for group in groups] == list("1023210")
    assert [group.find(f"{SVG}rect").get("fill") for group in groups] == [
        "#ffaf5f", "#ff5f00", None, "#5fafff", None, "#ffaf5f", "#ff5f00"
    ]  # fmt: skip
    assert [group.find(f"{SVG}rect").get("class") for group in groups].count("plain") == 2
    assert [group.findall(f"{SVG}text")[1].text for group in groups[3:]] == ["The", "<b>&", "is", "bad"]
    assert groups[1].find(f"{SVG}title").text == "The <b>&\n0: 80.0%\n1: 5.0%\n2: 5.0%\n3: 5.0%\n4: 5.0%"
    assert "prefers-color-scheme: dark" in root.find(f"{SVG}style").text


def box(group):
    x, y, width, height = (float(group.find(f"{SVG}rect").get(name)) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height


def test_places_in_the_picture():
    """Words in a row, apart; nodes over their words, apart; lines from every node to its children; all in the frame."""
    for drawn in (tree(["a", "w" * 30, ",", "犬猫犬猫犬猫"]), chain(40), tree(["a"] * 4)):
        root = ET.fromstring(svg(drawn))
        groups = root.findall(f"{SVG}g")
        boxes = [box(group) for group in groups]
        leaves = sorted((node for node, arity in enumerate(drawn.arities) if not arity), key=drawn.starts.__getitem__)
        written = [groups[node].findall(f"{SVG}text")[1] for node in leaves]
        assert len({text.get("y") for text in written}) == 1
        middles = [float(text.get("x")) for text in written]
        halves = [4 * columns(word) for word in drawn.words]  # letters of 14 points are some 8 wide
        assert all(
            a + half < b - other for (a, b), (half, other) in zip(pairwise(middles), pairwise(halves), strict=True)
        )
        for one, a in enumerate(boxes):
            assert min(a) >= 0 and a[2] <= float(root.get("width")) and a[3] <= float(root.get("height"))
            assert middles[drawn.starts[one]] <= (a[0] + a[2]) / 2 + 0.1
            assert (a[0] + a[2]) / 2 <= middles[drawn.ends[one] - 1] + 0.1
            for b in boxes[:one]:
                assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
        lines = re.findall(r"M(\S+) (\S+)H(\S+)V([^M]+)", root.find(f"{SVG}path").get("d"))
        centres = [((x + right) / 2, (y + bottom) / 2) for x, y, right, bottom in boxes]
        children, expected = iter(centres[1:]), []
        for parent, arity in enumerate(drawn.arities):
            below = [next(children) for _ in range(arity)]
            expected += [(*centres[parent], *child) for child in below]
            if below:
                assert centres[parent][0] == pytest.approx((below[0][0] + below[-1][0]) / 2, abs=0.11)
                assert centres[parent][1] < min(y for _, y in below)
        assert [pytest.approx(tuple(map(float, line)), abs=0.11) for line in lines] == expected


def test_the_page():
    page = html([tree(), tree(["a", "b", "c", "d"])], title="A & B")
    root = ET.fromstring(page)
    assert root.find("head/title").text == root.find("body/h1").text == "A & B"
    assert [[p.text or p.find("span").text for p in figure.iter("p")] for figure in root.iter("figure")] == [
        ["The <b>& is bad", "1"],
        ["a b c d", "1"],
    ]
    assert [span.tail for span in root.iter("span")] == ["80.0%", "80.0%"]
    assert len(root.findall(f".//{SVG}svg")) == 2 and page.count("prefers-color-scheme: dark") == 2
    outside = re.sub(r'xmlns="[^"]*"', "", page)
    assert not re.search(r"https?:|src=|href=|url\(|@import", outside)
    assert ET.fromstring(html([])).find("body/figure") is None


@pytest.mark.parametrize(
    ("terminal_", "variables", "expected"),
    [
        (True, {}, True),
        (False, {}, False),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"NO_COLOR": ""}, True),
        (True, {"TERM": "dumb"}, False),
    ],
)
def test_when_there_are_colours(monkeypatch, terminal_, variables, expected):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = StringIO()
    stream.isatty = lambda: terminal_
    assert wants_colour(stream) is expected
