"""Sides of a parallel text: every sentence between its marks, in the order asked for, however they are cut."""

from __future__ import annotations

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.data import pairs
from seqtext.data.pairs import END, MARKS, START, Side, encode_side, texts_of
from seqtext.data.tokenizer import Tokenizer, TokenizerConfig

TEXTS = ["A dog runs.", "He said: yes!", "dogs", "He runs, and the dog runs.", "naïve – 42 dogs…"]
UNITS = ("word", "char", "bpe")


def make(unit: str) -> Tokenizer:
    more = {"max_size": 300, "byte_fallback": True} if unit == "bpe" else {}
    return Tokenizer.train(TEXTS, TokenizerConfig(unit=unit, **more), specials=MARKS)


MADE = {unit: make(unit) for unit in UNITS}


def side(sentences: list[list[int]]) -> Side:
    lengths = np.array([len(sentence) for sentence in sentences], np.int64)
    ids = np.array([id for sentence in sentences for id in sentence], np.int32)
    return Side(ids, lengths, np.cumsum(lengths) - lengths)


SENTENCES = st.lists(st.lists(st.integers(4, 99), max_size=6), max_size=6).map(lambda found: [*found, [7]])


@given(SENTENCES, st.data(), st.sampled_from([-1, 0]))
def test_sentences_stand_padded_with_their_end_in_the_order_asked_for(sentences, data, fill):
    rows = data.draw(st.lists(st.integers(0, len(sentences) - 1), max_size=8))
    ids, lengths = side(sentences).padded(np.array(rows, np.int64), fill=fill)
    wanted = [[*sentences[row], END] for row in rows]
    width = max(map(len, wanted), default=1)
    assert ids.tolist() == [sentence + [fill] * (width - len(sentence)) for sentence in wanted]
    assert lengths.tolist() == [len(sentence) for sentence in wanted]
    assert ids.dtype == lengths.dtype == np.int64 and ids.shape == (len(rows), width)


def test_of_nothing_but_empty_sentences_the_ends_remain():
    ids, lengths = side([[], []]).padded(np.array([1, 0, 1]), fill=-1)
    assert ids.tolist() == [[END]] * 3 and lengths.tolist() == [1, 1, 1]


def test_an_empty_sentence_may_be_the_last():
    ids, lengths = side([[5, 6], []]).padded(np.array([1, 0]), fill=0)
    assert ids.tolist() == [[END, 0, 0], [5, 6, END]] and lengths.tolist() == [1, 3]


@pytest.mark.parametrize("unit", UNITS)
def test_texts_are_encoded_each_for_itself_in_parts_or_at_once(unit, monkeypatch):
    tokenizer = MADE[unit]
    texts = [*TEXTS, "", "unseen wörds <s> </s>", *TEXTS[::-1]]
    whole = encode_side(iter(texts), tokenizer)
    assert whole.ids.dtype == np.int32 and whole.lengths.dtype == whole.starts.dtype == np.int64
    alone = [tokenizer.encode(text).ids for text in texts]
    assert [whole.ids[start : start + length].tolist() for start, length in zip(whole.starts, whole.lengths)] == alone
    assert whole.lengths.sum() == len(whole.ids) and not {START, END} & set(whole.ids.tolist())
    for size in (1, 3, len(texts)):
        monkeypatch.setattr(pairs, "AT_ONCE", size)
        for one, other in zip(encode_side(iter(texts), tokenizer), whole):
            assert np.array_equal(one, other)
    none = encode_side([], tokenizer)
    assert [len(part) for part in none] == [0, 0, 0]


def test_the_marks_have_the_ids_that_they_go_by():
    assert all([tokenizer.id(mark) for mark in MARKS] == [START, END] for tokenizer in MADE.values())


def test_one_side_of_a_dataset_is_read_in_order_whatever_its_format(monkeypatch):
    monkeypatch.setattr(pairs, "AT_ONCE", 2)
    dataset = datasets.Dataset.from_dict({"source": list("abcde"), "target": list("ABCDE")})
    assert list(texts_of(dataset, "target")) == list("ABCDE")
    assert list(texts_of(dataset.with_format("numpy").select([3, 1]), "source")) == ["d", "b"]
