"""Heat-maps of attention: every label as it is, upright and apart from the others; large ones are cut."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from seqtext.errors import InputError
from seqtext.plot import heat_map

pytest.importorskip("matplotlib")
SOURCE = ["▁The", "▁$cat_sees$", "▁a", "▁Donaudampfschifffahrt", "犬", "</s>"]
TARGET = ["▁Die", "▁Katze", "$^$", "</s>"]
WEIGHTS = [[(row + column) % 6 / 15 for column in range(6)] for row in range(4)]


def labels(file: Path) -> list[tuple[str, float, float, str]]:
    """Text, x, y and transformation of all texts of a picture, in order."""
    pattern = r'<text style="[^"]*"(?: x="([^"]+)" y="([^"]+)")? transform="([^"]+)">([^<]*)</text>'
    found = re.findall(pattern, file.read_text(encoding="utf-8"))
    return [(text, float(x or "nan"), float(y or "nan"), transform) for x, y, transform, text in found]


def test_every_token_is_written_upright_and_beside_the_others(tmp_path: Path) -> None:
    heat_map(SOURCE, TARGET, WEIGHTS, tmp_path / "1.svg")
    drawn = labels(tmp_path / "1.svg")
    texts = [text.replace("&lt;", "<").replace("&gt;", ">") for text, *_ in drawn]
    assert texts[:6] == SOURCE and [text for text in texts if text in TARGET[:3]] == TARGET[:3]
    assert {"source", "target"} <= set(texts)
    assert all(re.match(r"rotate\(-0 |translate\([^)]*\)$", transform) for *_, transform in drawn)
    places = [x for _, x, _, _ in drawn[:6]]
    letters = [len(token) + token.count("犬") for token in SOURCE]
    for place, after, size, following in zip(places, places[1:], letters, letters[1:]):
        assert after - place > 0.6 * 9 * (size + following) / 2  # centres; letters of 9 points are some 0.6 of it wide
    heat_map(SOURCE, TARGET, WEIGHTS, tmp_path / "2.svg")
    assert (tmp_path / "2.svg").read_bytes() == (tmp_path / "1.svg").read_bytes()


def test_a_large_picture_is_cut_and_says_so(tmp_path: Path) -> None:
    heat_map([f"{n}" for n in range(5000)], [f"t{n}" for n in range(150)], [[0.0] * 5000] * 150, tmp_path / "1.svg")
    texts = [text for text, *_ in labels(tmp_path / "1.svg")]
    assert "source: the first 100 of 5,000 tokens" in texts and "target: the first 100 of 150 tokens" in texts
    assert "99" in texts and "t99" in texts and "100" not in texts and "t100" not in texts
    heat_map(["a"], ["b"], [[1.0]], tmp_path / "1.png")
    assert (tmp_path / "1.png").read_bytes().startswith(b"\x89PNG")


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        heat_map(["a"], ["b"], [[1.0]], tmp_path / "no" / "1.png")
    assert str(raised.value) == f"{tmp_path / 'no' / '1.png'}: cannot be written: No such file or directory"
