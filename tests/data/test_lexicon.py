"""Word types as numbers, against plain Python on ragged text in any chunks; what a lexicon learns, keeps and covers."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqtext.config import Config, parse
from seqtext.data.lexicon import SHAPES, Lexicon, Text, WordsConfig, column, pad, shapes, types_of
from seqtext.errors import ConfigError, RunError

WORDS = st.sampled_from(["a", "A", "b", "B1", "b2", "c", "é", "日本", "x" * 40, "<unk>"])
SENTENCES = st.lists(st.lists(WORDS, max_size=6), max_size=12)
STRINGS = pa.list_(pa.string())


def spelled(text: Text) -> list[list[str]]:
    """The sentences that a text stands for."""
    words = text.words.to_pylist()
    return [[words[code] for code in text.codes[s : s + n]] for s, n in zip(text.starts, text.lengths)]


def check_types(text: Text, sentences: list[list[str]]) -> None:
    assert spelled(text) == sentences
    assert text.words.to_pylist() == list(dict.fromkeys(word for sentence in sentences for word in sentence))


@given(SENTENCES, st.lists(st.integers(0, 12), max_size=4), st.integers(0, 3))
def test_types_of_any_text_in_any_chunks(sentences: list[list[str]], cuts: list[int], skip: int) -> None:
    check_types(types_of(pa.array(sentences, STRINGS)), sentences)
    edges = sorted({0, len(sentences), *(min(cut, len(sentences)) for cut in cuts)})
    chunks = [pa.array(sentences[a:b], STRINGS) for a, b in pairwise(edges)]
    chunked = pa.chunked_array([pa.array([], STRINGS), *chunks], STRINGS)
    check_types(types_of(chunked), sentences)
    # A slice shares the buffers of what it was cut from, so its offsets do not begin at zero.
    check_types(types_of(chunked.slice(skip, 5)), sentences[skip : skip + 5])
    check_types(types_of(pa.array(sentences, STRINGS)[skip:]), sentences[skip:])


@settings(max_examples=30)
@given(SENTENCES.filter(any), st.randoms(use_true_random=False))
def test_a_selected_dataset_is_read_in_its_own_order(sentences: list[list[str]], random: object) -> None:
    dataset = datasets.Dataset.from_dict({"tokens": sentences})
    rows = random.choices(range(len(sentences)), k=5)  # type: ignore[attr-defined]
    check_types(types_of(column(dataset.select(rows), "tokens")), [sentences[row] for row in rows])
    part = range(len(sentences) // 3, len(sentences))  # contiguous: a slice, with no indices
    check_types(types_of(column(dataset.select(part), "tokens")), [sentences[row] for row in part])


@given(SENTENCES.filter(any), st.data())
def test_pad_takes_values_of_the_rows_and_repeats_the_last(sentences: list[list[str]], data: st.DataObject) -> None:
    text = types_of(pa.array(sentences, STRINGS))
    full = [row for row, sentence in enumerate(sentences) if sentence]
    rows = data.draw(st.lists(st.sampled_from(full), min_size=1, max_size=6))
    longest = max(len(sentences[row]) for row in rows)
    expected = [sentences[row] + sentences[row][-1:] * (longest - len(sentences[row])) for row in rows]
    padded = pad(text, np.array(rows), text.codes)
    assert [[text.words[code].as_py() for code in row] for row in padded.tolist()] == expected


def test_no_row_at_all_pads_to_an_empty_batch() -> None:
    text = types_of(pa.array([["a", "b"], ["c"]], STRINGS))
    assert pad(text, np.array([], dtype=np.int64), text.codes).shape == (0, 1)


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ("lower", "a the naïve straße 's co-op e.g."),
        ("Title", "A The Émile É Berlin's Mid-way"),
        ("UPPER", "EU U.S. ÉU AT&T O'NEILL"),
        ("miXed", "iPhone McDonald aB 'Tis x-Ray PhD"),
        ("number", "1 1996 3.5 -0.5 1,000 ٣ ½ 50%"),
        ("partly-number", "3rd B52 1990s T2 日1"),
        ("punctuation", '. -- " ... $ %'),
        ("other", "日本 ال"),
    ],
)
def test_letter_shapes(shape: str, words: str) -> None:
    assert [SHAPES[number] for number in shapes(pa.array(words.split()))] == [shape] * len(words.split())


def test_letter_shapes_of_no_words() -> None:
    assert shapes(pa.array([], pa.string())).tolist() == []


def normal(word: str, config: WordsConfig) -> str:
    word = word.lower() if config.lowercase else word
    return re.sub(r"\d", "0", word) if config.fold_digits else word


CONFIGS = st.builds(
    WordsConfig,
    lowercase=st.booleans(),
    fold_digits=st.booleans(),
    min_frequency=st.integers(1, 3),
    max_size=st.none() | st.integers(3, 6),
)


@given(SENTENCES, SENTENCES, CONFIGS)
def test_what_a_lexicon_learns(train: list[list[str]], later: list[list[str]], config: WordsConfig) -> None:
    counts = Counter(normal(word, config) for sentence in train for word in sentence)
    del counts["<unk>"]  # no word of a text is a special entry
    kept = sorted((w for w in counts if counts[w] >= config.min_frequency), key=lambda word: (-counts[word], word))
    kept = kept[: None if config.max_size is None else config.max_size - 2]
    ids = {word: number for number, word in enumerate(kept, 2)}

    lexicon = Lexicon.fit(types_of(pa.array(train, STRINGS)), config)
    assert [lexicon.words.token(number) for number in range(2, lexicon.words.size)] == kept
    assert lexicon.rare_from is not None
    for word, number in ids.items():
        assert (number >= lexicon.rare_from) == (counts[word] == 1)

    text = types_of(pa.array(later, STRINGS))
    found = lexicon.encode(text.words)
    words = text.words.to_pylist()
    assert found.ids.tolist() == [ids.get(normal(word, config), 1) for word in words]
    assert found.vectors is None and not found.pretrained.any()
    letters = {letter for sentence in train for word in sentence for letter in word}
    for word, row in zip(words, found.characters):
        read = word if len(word) <= 32 else word[:16] + word[-16:]
        assert [lexicon.characters.token(id) for id in row[row != 0]] == [c if c in letters else "<unk>" for c in read]

    running = [normal(word, config) for sentence in later for word in sentence]
    known, cover = lexicon.cover(text)
    assert known == pytest.approx(sum(word in ids for word in running) / max(1, len(running))) and cover is None


TRAIN = [["The", "cat", "saw", "the", "dog", "42"], ["Cat", "!", "x" * 40]]


def test_a_saved_lexicon_reads_as_before_but_for_what_only_training_needs(tmp_path: Path) -> None:
    config = WordsConfig(max_characters=8)
    lexicon = Lexicon.fit(types_of(pa.array(TRAIN, STRINGS)), config)
    lexicon.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["characters.json", "tokenizer.json"]
    again = Lexicon.load(tmp_path, config)
    words = pa.array(["THE", "cat", "17", "cow", "dog!", "xxxxxxxxxxxx", "é", "", "<pad>"])
    for one, other in zip(lexicon.encode(words), again.encode(words)):
        np.testing.assert_array_equal(one, other)
    assert lexicon.encode(words).characters.shape == (9, 8)
    assert (lexicon.rare_from, again.rare_from) == (4, None)
    (tmp_path / "characters.json").unlink()
    with pytest.raises(RunError, match=r"characters.json: no such file; a saved tokenizer is expected"):
        Lexicon.load(tmp_path, config)


def test_vectors_are_looked_up_by_the_word_itself_known_to_training_or_not(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2\ncat 3 4\nCow 5 6\n00 7 8\n")
    lexicon = Lexicon.fit(types_of(pa.array(TRAIN, STRINGS)), WordsConfig(vectors=str(path)))
    assert lexicon.vector_size == 2
    text = types_of(pa.array([["The", "Cow", "cow", "42"], ["dog", "The", "emu"]], STRINGS))
    found = lexicon.encode(text.words)
    assert text.words.to_pylist() == ["The", "Cow", "cow", "42", "dog", "emu"]
    assert found.vectors is not None
    assert found.vectors.tolist() == [[1, 2], [5, 6], [0, 0], [7, 8], [0, 0], [0, 0]]
    assert found.pretrained.tolist() == [True, True, False, True, False, False]
    assert (found.ids == 1).tolist() == [False, True, True, False, False, True]
    known, cover = lexicon.cover(text)
    assert cover is not None
    assert (
        known == pytest.approx(4 / 7) and cover.tokens == pytest.approx(4 / 7) and cover.types == pytest.approx(3 / 6)
    )


def test_a_run_knows_its_vectors_again(tmp_path: Path) -> None:
    path = tmp_path / "vectors.txt"
    path.write_text("the 1 2\ncat 3 4\n")
    config = WordsConfig(vectors=str(path))
    Lexicon.fit(types_of(pa.array(TRAIN, STRINGS)), config).save(tmp_path)
    assert Lexicon.load(tmp_path, config).vector_size == 2
    path.write_text("the 1 2\ncat 3 5\n")
    with pytest.raises(
        RunError, match=r"vectors.json: this run was trained with other vectors than .*vectors.txt holds"
    ):
        Lexicon.load(tmp_path, config).encode(pa.array(["the"]))
    (tmp_path / "vectors.json").unlink()
    with pytest.raises(RunError, match=r"vectors.json: missing; the run folder is not complete"):
        Lexicon.load(tmp_path, config)


class Data(Config):
    words: WordsConfig = WordsConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_size": 1}, "max_size: must be at least 3, two entries being for padding and unknown words, got 1"),
        ({"max_size": 2}, "max_size: must be at least 3, two entries being for padding and unknown words, got 2"),
        ({"min_frequency": 0}, "min_frequency: must be at least 1, got 0"),
        ({"max_characters": 0}, "max_characters: must be at least 1, got 0"),
    ],
)
def test_what_a_recipe_may_not_say(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^recipe.toml: 1 fault\n  data.words.{re.escape(message)}$"):
        parse(Data, {"words": values}, source="recipe.toml", prefix="data")
