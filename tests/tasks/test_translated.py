"""How a translation is written from its tokens: unknown ones are copied, and a line stays a line."""

from __future__ import annotations

from typing import Any

import pytest

from seqtext.data.pairs import MARKS
from seqtext.data.tokenizer import UNKNOWN, Tokenizer, TokenizerConfig
from seqtext.tasks.translated import one_line, spans_of, written

TEXTS = ["Der Hund sieht <unk> und den Mann.", "Ein Hund."]


def tokenizer(unit: Any, **settings: Any) -> Tokenizer:
    return Tokenizer.train(TEXTS, TokenizerConfig(unit=unit, **settings), specials=MARKS)


def test_spans_are_what_the_tokens_stand_for() -> None:
    assert spans_of('Zoë, "Mann" ', tokenizer("word")) == ["Zoë", ",", '"', "Mann", '"', ""]
    assert spans_of("Zöe", tokenizer("char")) == ["Z", "ö", "e", ""]


@pytest.mark.parametrize(
    ("unit", "settings", "source", "target", "unknown", "expected"),
    [
        ("word", {}, "Zoë sees Igel, too.", "Igel sieht den Zebra.", {0: 2, 3: 0}, "Igel sieht den Zoë."),
        ("word", {}, "Igel too.", "Igel sieht.", {0: 3}, "sieht."),  # it looked at the end of the source
        ("char", {}, "Zoö", "Dör Q", {1: 2, 4: 0}, "Dör Z"),
        # What a text says is no unknown token, even where it reads like one.
        ("bpe", {"max_size": 60}, "QX", "Der <unk> Q Hund", {6: 1}, "Der <unk> QX Hund"),
    ],
)
def test_unknown_tokens_are_written_as_the_span_they_look_at(
    unit: str, settings: Any, source: str, target: str, unknown: dict[int, int], expected: str
) -> None:
    found = tokenizer(unit, **settings)
    ids = found.encode(target).ids
    places = [place for place, id in enumerate(ids) if id == UNKNOWN]
    assert places == list(unknown)
    alignment = [unknown.get(place, 0) for place in range(len(ids))]
    assert written(ids, found, alignment, spans_of(source, found)) == expected
    shown = written(ids, found)
    assert shown.count("<unk>") == target.count("<unk>") + len(unknown)


def test_a_text_is_one_line() -> None:
    assert one_line("a\r\nb\n\nc\u2028d") == "a b c\u2028d"
