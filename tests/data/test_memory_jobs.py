"""Generated jobs: what is asked is answered as an independent reading of the sequence says; bad input is named."""

from __future__ import annotations

import re

import numpy as np
import pytest

from seqtext.config import parse
from seqtext.data.memory_jobs import Adding, Brackets, Copy, MemoryData, read_memory
from seqtext.errors import ConfigError, DataError

JOBS = [Adding(length=30), Copy(length=7, items=9, symbols=5), Brackets(length=60, kinds=3, depth=5)]


def added(words):
    marked = [place for place, word in enumerate(words) if "*" in word]
    assert len(words) == 30 and len(marked) == 2 and marked[0] < 15 <= marked[1]
    return [(29, sum(float(words[place].strip("*")) for place in marked), 29 - marked[0])]


def copied(words):
    text = "".join(words)
    match = re.fullmatch(r"([a-e]{9})_{6}>_{9}", text)
    assert match
    return [(16 + number, symbol, 16) for number, symbol in enumerate(match[1])]


def closed(words):
    """What must close next, by taking away pairs that stand side by side until none is left."""
    for end in range(1, len(words) + 1):
        text = "".join(words[:end])
        while (shorter := re.sub(r"(\(|\[|\{)([.]*)(\)|\]|\})", _pair, text)) != text:
            text = shorter
        opened = [place for place, word in enumerate(text) if word != "."]
        assert 1 <= len(opened) <= 5
        yield end - 1, {"(": ")", "[": "]", "{": "}"}[text[opened[-1]]], end - 1 - opened[-1]


def _pair(match):
    assert match[1] + match[3] in ("()", "[]", "{}")
    return "." * len(match[0])


@pytest.mark.parametrize(("job", "read"), [*zip(JOBS, (added, copied, closed))], ids=["adding", "copy", "brackets"])
def test_what_is_asked_is_what_another_reading_says(job, read, tmp_path, monkeypatch):
    monkeypatch.setenv("SEQTEXT_CACHE", str(tmp_path))
    data = MemoryData(job=job, examples=1500, held_out=40)
    train, valid = (read_memory(data, split) for split in ("train", "valid"))
    assert (len(train), len(valid)) == (1500, 40)
    for row in train.select(range(200)):
        found = list(zip(row["positions"], row["answers"], row["distances"], strict=True))
        expected = list(read(row["tokens"]))
        assert [(place, distance) for place, _, distance in found] == [(p, d) for p, _, d in expected]
        for (_, answer, _), (_, right, _) in zip(found, expected):
            assert answer == right if isinstance(right, str) else float(answer) == pytest.approx(right, abs=1e-4)
        assert job.complete([word for word in row["tokens"]]) == row["tokens"]
    assert len({" ".join(row) for row in train["tokens"]} & {" ".join(row) for row in valid["tokens"]}) == 0
    assert read_memory(data.model_copy(update={"seed": 2}), "train")["tokens"] != train["tokens"]


def test_the_examples_are_as_hard_as_they_are_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQTEXT_CACHE", str(tmp_path))
    sums = read_memory(MemoryData(job=Adding(length=20), examples=4000), "train")["answers"]
    assert np.square([float(row[0]) - 1.0 for row in sums]).mean() == pytest.approx(1 / 6, rel=0.05)
    brackets = read_memory(MemoryData(job=Brackets(length=100, kinds=2)), "train")
    answers = [answer for row in brackets["answers"] for answer in row]
    assert answers.count(")") / len(answers) == pytest.approx(0.5, abs=0.02)
    distances = [distance for row in brackets["distances"] for distance in row]
    assert np.mean(np.array(distances) >= 20) > 0.1


def test_blanks_to_answer_on_may_be_left_out():
    job = Copy(items=3)
    assert job.complete(["a", "b", "_", ">"]) == ["a", "b", "_", ">", "_", "_"]
    assert job.ask(["a", "b", "_", ">", "_", "_"]) == ([4, 5], ["a", "b"], [4, 4])


@pytest.mark.parametrize(
    ("job", "words", "message"),
    [
        (Adding(), "0.5 0.25*", "1 numbers with a star (0.25*), expected 2: those to add"),
        (Adding(), "0.5 two", "'two': expected a number from 0 to 1, with a star (0.25*) where it is to be added"),
        (Adding(), "1.5* 0.5*", "'1.5*': expected a number from 0 to 1, with a star (0.25*) where it is to be added"),
        (Adding(), "nan* 0.5*", "'nan*': expected a number from 0 to 1, with a star (0.25*) where it is to be added"),
        (Copy(symbols=2), "a c _ >", "'c' is no symbol of this job; its symbols: a b _ >"),
        (Copy(), "a b _", "expected symbols to copy, blanks (_) after them, and at the end the sign >: a b _ _ >"),
        (Copy(), "_ >", "expected symbols to copy, blanks (_) after them, and at the end the sign >: a b _ _ >"),
        (Brackets(), "( [ )", "step 3: ')' is no bracket that can stand there"),
        (Brackets(), ")", "step 1: ')' is no bracket that can stand there"),
        (Brackets(), "( {", "'{' is no symbol of this job; its symbols: ( ) [ ]"),
    ],
)
def test_what_is_no_example_is_told(job, words, message):
    words = words.split()
    with pytest.raises(DataError) as caught:
        job.features(words)
        job.ask(job.complete(words))
    assert str(caught.value) == message


def test_a_setting_of_another_job_and_other_sources_are_told(tmp_path):
    with pytest.raises(ConfigError) as caught:
        parse(MemoryData, {"job": {"name": "adding", "items": 3}}, source="mine.toml", prefix="data")
    assert caught.value.faults == ["data.job.items: unknown key; known keys here: length, name"]
    for data, place in (
        (MemoryData(source="nltk:treebank"), "nltk:treebank"),
        (MemoryData(valid="dev.txt"), "dev.txt"),
    ):
        with pytest.raises(DataError) as caught:
            read_memory(data, "train")
        told = "the examples of the task memory are generated; it reads no files ([data.job])"
        assert str(caught.value) == f"{place}: {told}"
