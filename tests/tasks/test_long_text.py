"""What is read of long texts, against the same rules over plain lists."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.data.lexicon import Text, types_of
from seqtext.tasks.long_text import cut_texts, long_fact


def text_of(lengths: list[int]) -> tuple[Text, list[list[str]]]:
    """Texts of the given lengths whose words say which text and place they are of."""
    texts = [[f"{row}:{place}" for place in range(length)] for row, length in enumerate(lengths)]
    return types_of(pa.array(texts, pa.list_(pa.string()))), texts


def words(text: Text) -> list[list[str]]:
    names = text.words.to_pylist()
    return [
        [names[code] for code in text.codes[start : start + length]]
        for start, length in zip(text.starts.tolist(), text.lengths.tolist())
    ]


LENGTHS = st.lists(st.integers(1, 25), min_size=1, max_size=8)


@given(LENGTHS, st.integers(1, 9))
def test_head_and_tail(lengths: list[int], limit: int) -> None:
    text, texts = text_of(lengths)
    before, after = (limit + 1) // 2, limit // 2
    expected = {
        "head": [words[:limit] for words in texts],
        "head-tail": [
            words if len(words) <= limit else words[:before] + words[len(words) - after :] for words in texts
        ],
    }
    for rule in ("head", "head-tail"):
        cut = cut_texts(text, max_tokens=limit, rule=rule)
        assert words(cut.windows) == expected[rule]
        assert cut.read.tolist() == cut.costs.tolist() == [min(length, limit) for length in lengths]
        order = np.arange(len(lengths))[::-1]
        numbers, owner = cut.gather(order)
        assert numbers.tolist() == order.tolist() and owner.tolist() == list(range(len(lengths)))


@given(LENGTHS, st.integers(1, 9), st.randoms())
def test_windows_are_few_even_and_all_of_the_text(lengths: list[int], limit: int, random: object) -> None:
    text, texts = text_of(lengths)
    cut = cut_texts(text, max_tokens=limit, rule="windows")
    rows = np.array(random.choices(range(len(lengths)), k=4))  # type: ignore[attr-defined]
    numbers, owner = cut.gather(rows)
    found = words(cut.windows)
    for place, row in enumerate(rows.tolist()):
        mine = [found[number] for number in numbers[owner == place]]
        assert [word for window in mine for word in window] == texts[row]
        sizes = [len(window) for window in mine]
        assert len(sizes) == -(-lengths[row] // limit) and max(sizes) <= limit and max(sizes) - min(sizes) <= 1
    assert cut.read.tolist() == lengths
    padded = len(numbers) * cut.windows.lengths[numbers].max()
    assert padded <= len(rows) * cut.costs[rows].max()  # what the budget of a batch relies on


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("head", 'only their first 5 tokens are read (data.long = "head")'),
        ("head-tail", 'only their first 3 and last 2 tokens are read (data.long = "head-tail")'),
        ("windows", "they are read in windows of at most 5 tokens, whose scores are averaged "),
    ],
)
def test_how_many_are_cut_is_said(rule: str, expected: str) -> None:
    start = "2 of 4 (50.0%) are longer than data.max_tokens = 5: "
    assert long_fact([5, 6, 1, 700], max_tokens=5, rule=rule).startswith(start + expected)
    assert long_fact([5, 1], max_tokens=5, rule=rule) == "none is longer than data.max_tokens = 5"
