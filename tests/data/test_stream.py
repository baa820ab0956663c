"""A text as one run of ids, and its windows, against slow versions written out token by token."""

from __future__ import annotations

import math

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.data import stream as streams
from seqtext.data.corpus import CorpusData, read_corpus
from seqtext.data.stream import (
    UNSCORED,
    Stream,
    Windows,
    encode_lines,
    encode_stream,
    fit_tokenizer,
    line_characters,
    words_of,
)
from seqtext.data.tokenizer import UNKNOWN, Tokenizer, TokenizerConfig
from seqtext.errors import DataError

EOS = 2
TEXT = ["The cat sat. It's 9 o'clock.", "", "the  dog,\u00a0too", " <unk> <eos> the İ 9 "]
UNITS = [("word", None), ("char", None), ("bpe", 40), ("unigram", 40)]


def dataset_of(texts: list[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": texts}, features=datasets.Features({"text": datasets.Value("string")}))


def ids_of(line: str, tokenizer: Tokenizer, pretokenized: bool) -> list[int]:
    """The slow version: one line by itself, through `encode`."""
    if tokenizer.unit == "word":
        return [*tokenizer.encode_words(words_of(line, pretokenized=pretokenized)), EOS]
    return [*tokenizer.encode(line).ids, EOS]


def rows(stream: Stream) -> list[list[int]]:
    return [stream.line(number).tolist() for number in range(len(stream))]


# Encoding


@pytest.mark.parametrize("pretokenized", [True, False])
@pytest.mark.parametrize(("unit", "size"), UNITS)
def test_ids_are_those_of_each_line_by_itself(unit, size, pretokenized, monkeypatch):
    monkeypatch.setattr(streams, "BATCH", 3)  # more than one chunk
    config = TokenizerConfig(unit=unit, max_size=size, lowercase=True, fold_digits=True)
    dataset = dataset_of(TEXT)
    tokenizer = fit_tokenizer(dataset.select([0, 1, 2]), config, pretokenized=pretokenized)
    assert tokenizer.id("<eos>") == EOS
    expected = [ids_of(line, tokenizer, pretokenized) for line in TEXT]
    flat = [id for line in expected for id in line]
    for found in (
        encode_stream(dataset, tokenizer, pretokenized=pretokenized),
        encode_lines(TEXT, tokenizer, pretokenized=pretokenized),
    ):
        assert rows(found) == expected
        assert (len(found), found.tokens, found.eos) == (4, len(flat), EOS)
        assert found.slice(0, found.tokens).tolist() == flat and found.slice(0, 0).dtype == np.int32
        assert found.unknown == flat.count(UNKNOWN)
        assert found.characters == sum(map(len, TEXT)) + 4
    assert line_characters(dataset).tolist() == [len(line) + 1 for line in TEXT]


def test_what_words_are_and_that_special_entries_never_come_from_text():
    raw, spaced = ([words_of(line, pretokenized=option) for line in TEXT] for option in (False, True))
    # Inner full stops are words, as the text is parted into sentences first.
    assert raw[0] == ["The", "cat", "sat", ".", "It", "'s", "9", "o'clock", "."]
    assert spaced[0] == ["The", "cat", "sat.", "It's", "9", "o'clock."]
    assert spaced[2:] == [["the", "dog,", "too"], ["<unk>", "<eos>", "the", "İ", "9"]]
    stream = encode_lines(TEXT[3:], Tokenizer.train(["the"], TokenizerConfig(), specials=["<eos>"]), pretokenized=True)
    assert rows(stream) == [[UNKNOWN, UNKNOWN, 3, UNKNOWN, UNKNOWN, EOS]] and stream.unknown == 4


@given(st.lists(st.text("ab <>unk\t\u2003", max_size=12), max_size=8), st.sampled_from(["word", "char"]), st.booleans())
def test_any_lines(texts, unit, pretokenized):
    config = TokenizerConfig(unit=unit, min_frequency=2)
    tokenizer = fit_tokenizer(dataset_of(texts), config, pretokenized=pretokenized)
    counted = " ".join(" ".join(words_of(line, pretokenized=pretokenized)) for line in texts).split()
    if unit == "word":
        assert {tokenizer.token(id) for id in range(3, tokenizer.size)} == {
            word for word in counted if counted.count(word) > 1 and word != "<unk>"
        }
    found = encode_lines(texts, tokenizer, pretokenized=pretokenized)
    assert rows(found) == [ids_of(line, tokenizer, pretokenized) for line in texts]


def test_space_at_the_end_of_a_line_whatever_lies_beyond_it_in_memory():
    lines = pa.Array.from_buffers(
        pa.string(), 1, [None, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"a \xff")]
    )
    tokenizer = Tokenizer.train(["a"], TokenizerConfig(), specials=["<eos>"])
    assert streams._encode(lines, tokenizer, True)[0].to_pylist() == [[3, EOS]]


@pytest.mark.parametrize(("unit", "size"), UNITS)
def test_no_lines(unit, size):
    tokenizer = Tokenizer.train(["a b"], TokenizerConfig(unit=unit, max_size=size), specials=["<eos>"])
    none, blank = (encode_lines(lines, tokenizer, pretokenized=True) for lines in ([], ["", " "]))
    assert (len(none), none.tokens, none.characters) == (0, 0, 0) and none.slice(0, 0).tolist() == []
    space = [tokenizer.id(" ")] if unit == "char" else []
    assert rows(blank) == [[EOS], [*space, EOS]]


def test_a_corpus_is_encoded_once_and_another_tokenizer_encodes_it_anew(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQTEXT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "train.txt").write_text("a b a\nb c\n")
    dataset = read_corpus(CorpusData(train=str(tmp_path / "train.txt")), "train")
    tokenizer = fit_tokenizer(dataset, TokenizerConfig(), pretokenized=True)
    first = encode_stream(dataset, tokenizer, pretokenized=True)
    tokenizer.save(tmp_path / "tokenizer.json")
    with monkeypatch.context() as patch:
        patch.setattr(streams, "_build", lambda *_: pytest.fail("encoded again"))
        again = encode_stream(dataset, Tokenizer.load(tmp_path / "tokenizer.json"), pretokenized=True)
    assert rows(first) == rows(again) == [[3, 4, 3, 2], [4, 5, 2]]
    assert (again.tokens, again.unknown, again.characters) == (7, 0, 10)
    small = fit_tokenizer(dataset, TokenizerConfig(max_size=4), pretokenized=True)
    assert rows(encode_stream(dataset, small, pretokenized=True)) == [[3, 1, 3, 2], [1, 1, 2]]
    assert rows(encode_stream(dataset.select([1]), tokenizer, pretokenized=True)) == [[4, 5, 2]]
    # The cache file of a stream is mapped, not read: a slice within a chunk is a view of it.
    assert not again.slice(1, 3).flags.owndata and not again.slice(1, 3).flags.writeable


# Reading


@st.composite
def texts(draw, min_tokens: int = 0):
    """A stream of random lines in random chunks, and the lines; a line's ids tell the line and the place in it."""
    chunks = draw(st.lists(st.lists(st.integers(1, 6), max_size=5), max_size=5))
    if sum(map(sum, chunks)) < min_tokens:
        chunks.append([draw(st.integers(min_tokens, 9))])
    lines, arrays = [], []
    for chunk in chunks:
        here = [
            [100 * (len(lines) + row) + place for place in range(1, size)] + [EOS] for row, size in enumerate(chunk)
        ]
        lines += here
        padded = pa.array([[7, 7], *here], pa.list_(pa.int32()))
        arrays.append(padded.slice(1))  # one whose offsets do not begin at 0
    characters = sum(map(len, lines))
    return Stream(arrays, eos=EOS, unknown=0, characters=characters), lines


@given(texts(), st.data())
def test_slices_and_line_numbers(given_text, data):
    stream, lines = given_text
    flat = [id for line in lines for id in line]
    numbers = [number for number, line in enumerate(lines) for _ in line]
    first = data.draw(st.integers(0, len(flat)))
    last = data.draw(st.integers(first, len(flat)))
    assert stream.slice(first, last).tolist() == flat[first:last]
    assert stream.lines(first, last).tolist() == numbers[first:last]
    assert rows(stream) == lines and (len(stream), stream.tokens) == (len(lines), len(flat))
    for wrong in (lambda: stream.slice(first, len(flat) + 1), lambda: stream.lines(-1, last)):
        with pytest.raises(IndexError, match=f"of {len(flat)}"):
            wrong()
    with pytest.raises(IndexError, match=f"line {len(lines)} of {len(lines)}"):
        stream.line(len(lines))


# Windows

OPTIONS = {"streams": st.integers(1, 6), "window": st.integers(1, 8)}


@given(texts(min_tokens=1), st.fixed_dictionaries({**OPTIONS, "warm_up": st.integers(0, 9)}))
def test_evaluation_scores_every_token_once_after_its_context(given_text, options):
    stream, lines = given_text
    flat = [id for line in lines for id in line]
    numbers = [number for number, line in enumerate(lines) for _ in line]
    windows = Windows(stream, mode="eval", **options)
    found = list(windows)
    assert len(found) == len(windows) and [window.first for window in found] == [True] + [False] * (len(found) - 1)
    assert windows.targets == len(flat)
    assert windows.streams == max(1, min(options["streams"], len(flat) // options["window"]))
    assert all(window.inputs.shape[1] <= options["window"] for window in found)
    inputs, targets, owners = (np.concatenate([window[part] for window in found], axis=1) for part in range(3))
    scored = targets != UNSCORED
    assert targets[scored].tolist() == flat and owners[scored].tolist() == numbers  # stream after stream
    assert ((owners == UNSCORED) == ~scored).all()
    sizes = scored.sum(1)
    assert sizes.max() - sizes.min() <= 1
    # By the slow version: what each stream reads, from `warm_up` tokens before its own to its last.
    ends = np.cumsum(sizes)
    for row, (begin, end) in enumerate(zip(ends - sizes, ends)):
        start = max(0, begin - options["warm_up"])
        assert inputs[row, : end - start].tolist() == [EOS, *flat][start:end]
        assert scored[row].tolist() == [start + step >= begin and start + step < end for step in range(scored.shape[1])]


@given(texts(min_tokens=1), st.integers(1, 8))
def test_evaluation_by_one_stream_is_exact(given_text, window):
    stream, lines = given_text
    flat = [id for line in lines for id in line]
    found = list(Windows(stream, mode="eval", streams=1, window=window, warm_up=5))
    assert [id for part in found for id in part.inputs[0].tolist()] == [EOS, *flat][:-1]
    assert [id for part in found for id in part.targets[0].tolist()] == flat


@given(texts(min_tokens=1), st.fixed_dictionaries(OPTIONS), st.none() | st.integers(0, 9))
def test_training_windows_continue_one_another(given_text, options, seed):
    stream, lines = given_text
    flat = [id for line in lines for id in line]
    if len(flat) - len(lines) < 2:
        with pytest.raises(DataError, match=r"a text of (one|no) token, line ends apart"):
            Windows(stream, mode="train", **options)
        return
    generator = None if seed is None else np.random.default_rng(seed)
    windows = Windows(stream, mode="train", generator=generator, **options)
    found = list(windows)
    assert len(found) == len(windows) and [window.first for window in found] == [True] + [False] * (len(found) - 1)
    inputs, targets = (np.concatenate([window[part] for window in found], axis=1) for part in range(2))
    count = windows.streams
    size = len(flat) // count
    assert count == max(1, min(options["streams"], len(flat) // options["window"]))
    assert targets.flatten().tolist() == flat[: count * size] and windows.targets == count * size
    assert inputs.flatten().tolist() == [EOS, *flat][: count * size]
    assert found[0].lines is None
    if seed is None:
        lengths = [window.inputs.shape[1] for window in found]
        assert lengths == [min(options["window"], size - start) for start in range(0, size, options["window"])]
    else:
        same = Windows(stream, mode="train", generator=np.random.default_rng(seed), **options)
        assert same.bounds.tolist() == windows.bounds.tolist()


@given(texts(min_tokens=4), st.sampled_from(["train", "eval"]), st.fixed_dictionaries(OPTIONS), st.integers(1, 4))
def test_ranks_share_the_streams(given_text, mode, options, world):
    stream, lines = given_text
    if mode == "train" and stream.tokens - len(lines) < 2:
        return
    options["warm_up"] = 3

    def cut(**share):
        return Windows(stream, mode=mode, generator=np.random.default_rng(1), **options, **share)

    whole, shares = list(cut()), [cut(rank=rank, world=world) for rank in range(world)]
    assert {len(share) for share in shares} == {len(whole)}  # or one process would wait for ever
    assert {share.targets for share in shares} == {cut().targets}
    for window, *parts in zip(whole, *shares, strict=True):
        for rank, part in enumerate(parts):
            assert part.inputs.tolist() == window.inputs[rank::world].tolist()
            assert part.targets.tolist() == window.targets[rank::world].tolist()
            assert mode == "train" or part.lines.tolist() == window.lines[rank::world].tolist()


def plain(tokens: int) -> Stream:
    return Stream([pa.array([list(range(tokens))], pa.list_(pa.int32()))], eos=EOS, unknown=0, characters=tokens)


def test_random_lengths_are_those_of_the_paper():
    windows = Windows(plain(700_000), mode="train", streams=1, window=70, generator=np.random.default_rng(0))
    lengths = np.diff(windows.bounds)[:-1]
    assert windows.bounds[-1] == 700_000
    assert lengths.min() >= 5 and lengths.max() <= 80
    halved = lengths < 52
    # A proportion and a mean of some 10,000 draws, within four of their standard errors.
    assert abs(halved.mean() - 0.05) < 4 * math.sqrt(0.05 * 0.95 / len(lengths))
    # Real numbers are cut to whole ones, half a step less on average; few are beyond the bound.
    assert abs(lengths[~halved].mean() - 69.5) < 0.3 and abs(lengths[halved].mean() - 34.5) < 4 * 5 / math.sqrt(500)
    assert abs(lengths[halved].std() - 5) < 0.8
    other = Windows(plain(700_000), mode="train", streams=1, window=70, generator=np.random.default_rng(1))
    assert other.bounds.tolist() != windows.bounds.tolist()


def test_texts_of_too_few_tokens():
    def tried(lines, **options):
        tokenizer = Tokenizer.train(["a"], TokenizerConfig(), specials=["<eos>"])
        return Windows(encode_lines(lines, tokenizer, pretokenized=True), streams=4, window=3, **options)

    said = "line ends apart: a language model needs at least two to learn from"
    with pytest.raises(DataError, match=f"^a text of one token, {said}$"):
        tried(["a"], mode="train")
    with pytest.raises(DataError, match=f"^a text of no token, {said}$"):
        tried(["", ""], mode="train")
    with pytest.raises(DataError, match=r"^a text of no token: there is nothing to score$"):
        tried([], mode="eval")
    assert [window.targets.tolist() for window in tried(["a"], mode="eval")] == [[[3, EOS]]]
    assert [window.targets.tolist() for window in tried(["a", "a"], mode="train")] == [[[3, EOS, 3]], [[EOS]]]
    with pytest.raises(ValueError, match="streams 0 and window 3 must be at least 1"):
        Windows(plain(9), mode="eval", streams=0, window=3)
