"""Tokenizers: entries and their order, normalisation, offsets on any text, saving and loading, splitting words."""

import json
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from nltk.tokenize.treebank import TreebankWordTokenizer

from seqtext.config import parse
from seqtext.data import tokenizer as module
from seqtext.data.tokenizer import Tokenizer, TokenizerConfig, split_words
from seqtext.errors import ConfigError, DataError, RunError

TEXTS = [
    "The lower house, it's said, wouldn't pay $3.88 in 1999.",
    "The newest and the widest house isn't lower.",
    "\"Widest,\" she said: 'lower the house (now)!'",
    "École naïve, 日本 – 42 houses…",
]
SIZES = {"bpe": 120, "unigram": 90}
UNITS = ("word", "char", "bpe", "unigram")
CONVERTED = st.sampled_from(
    ['"', "''", "``", "'", "`", "n't ", "can", "not", "...", "--", "\u00a0", "\x1c", "\u2028", "(", "."]
)
TEXT = st.lists(st.one_of(st.text(max_size=8), CONVERTED, st.sampled_from(["Lower", " house", " "])), max_size=8).map(
    "".join
)


def make(unit, specials=(), **settings) -> Tokenizer:
    return Tokenizer.train(TEXTS, TokenizerConfig(unit=unit, max_size=SIZES.get(unit), **settings), specials=specials)


MADE = {unit: make(unit) for unit in UNITS}
FOLDED = {unit: make(unit, lowercase=True, fold_digits=True) for unit in UNITS}


def entries(tokenizer) -> list[str]:
    return [tokenizer.token(id) for id in range(tokenizer.size)]


def test_entries_come_by_falling_frequency_then_alphabetically():
    counts = {"b": 2, "a": 2, "rare": 1, "often": 9, "<s>": 5, "<pad>": 7, "Often": 1}
    words = Tokenizer.train_words(counts, TokenizerConfig(), specials=["<s>", "</s>"])
    assert entries(words) == ["<pad>", "<unk>", "<s>", "</s>", "often", "a", "b", "Often", "rare"]
    assert entries(Tokenizer.train_words(counts, TokenizerConfig(min_frequency=2))) == [
        "<pad>",
        "<unk>",
        "often",
        "<s>",
        "a",
        "b",
    ]
    assert entries(Tokenizer.train_words(counts, TokenizerConfig(max_size=4))) == ["<pad>", "<unk>", "often", "<s>"]
    assert entries(Tokenizer.train_words(counts, TokenizerConfig(lowercase=True, min_frequency=3)))[2:] == [
        "often",
        "<s>",
    ]
    chars = Tokenizer.train_words({"ab": 3, "b": 1, "zc": 1}, TokenizerConfig(unit="char"))
    assert entries(chars) == ["<pad>", "<unk>", "b", "a", "c", "z"]
    assert [words.id(token) for token in entries(words)] == list(range(words.size))
    assert "often" in words and "seldom" not in words and "</s>" not in words


def test_words_are_normalised_by_the_settings_and_specials_never_come_from_text():
    words = Tokenizer.train_words(
        {"Hello": 1, "B52": 2, "Straße": 1}, TokenizerConfig(lowercase=True, fold_digits=True)
    )
    assert entries(words)[2:] == ["b00", "hello", "straße"]
    assert words.encode_words(["HELLO", "b17", "B٣٤", "b1", "STRASSE", "hello "]) == [3, 2, 2, 1, 1, 1]
    marked = Tokenizer.train_words({"a": 1}, TokenizerConfig(), specials=["</s>"])
    assert marked.encode_words(["a", "<pad>", "<unk>", "</s>", "", "\ud800"]) == [3, 1, 1, 1, 1, 1]
    for unit in UNITS:
        ids = make(unit, specials=["</s>"]).encode("the <pad> </s> house </s>").ids
        assert ids and not {0, 2} & set(ids)


@pytest.mark.parametrize("unit", UNITS)
@given(text=TEXT)
def test_offsets_name_the_raw_text_of_each_entry(unit, text):
    for made in (MADE[unit], FOLDED[unit]):
        ids, tokens, offsets = made.encode(text)
        assert tokens == [made.token(id) for id in ids] and len(ids) == len(offsets)
        assert all(0 <= start <= end <= len(text) for start, end in offsets)
        assert all(before[0] <= after[0] for before, after in pairwise(offsets))
    _, tokens, offsets = MADE[unit].encode(text)
    parts = [text[start:end] for start, end in offsets]
    assert "".join("".join(parts).split()) == "".join(text.split())  # each character once, but for spaces
    assert unit != "char" or "".join(parts) == text
    assert all(token in ("<unk>", "▁" + part, part, "▁") for token, part in zip(tokens, parts))
    assert MADE[unit].encode_batch(["x", text])[1] == MADE[unit].encode(text)


@pytest.mark.parametrize("unit", UNITS)
def test_decoding_gives_the_text_back(unit):
    for text in TEXTS:
        ids = MADE[unit].encode(f"  {text}" if unit in SIZES else text).ids
        expected = " ".join(word for word, _, _ in split_words(text)) if unit == "word" else text
        assert 1 not in ids and MADE[unit].decode(ids) == expected
        assert MADE[unit].decode(np.array([*ids, 0, 0])) == expected
    spoken = Tokenizer.train_words({"a": 2, "b": 1}, TokenizerConfig(), specials=["<s>", "</s>"])
    assert spoken.decode([2, 4, 1, 5, 3, 0]) == "a <unk> b"


@pytest.mark.parametrize("unit", UNITS)
def test_saved_and_loaded_it_is_the_same(tmp_path, unit):
    made = make(unit, specials=["<s>"], lowercase=True, fold_digits=True)
    made.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (loaded.unit, entries(loaded)) == (unit, entries(made))
    for text in [*TEXTS, "UNSEEN words <s> 77"]:
        assert loaded.encode(text) == made.encode(text)
        assert loaded.decode([2, *loaded.encode(text).ids]) == made.decode(made.encode(text).ids)
    # The library reads the file by itself, and for words split by spaces gives the same ids.
    alone = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    if unit == "word":
        words = ["the", "LOWER", "house", "77", "xyz"]
        assert alone.encode(" ".join(words)).ids == loaded.encode_words(words)


@pytest.mark.parametrize("unit", UNITS)
def test_training_gives_the_same_file_in_another_process(tmp_path, unit):
    make(unit).save(tmp_path / "here.json")
    code = (
        "import sys; from seqtext.data.tokenizer import Tokenizer, TokenizerConfig as C;"
        "Tokenizer.train(sys.argv[4:], C(unit=sys.argv[1], max_size=int(sys.argv[2]) or None)).save(sys.argv[3])"
    )
    there = tmp_path / "there.json"
    subprocess.run([sys.executable, "-c", code, unit, str(SIZES.get(unit, 0)), str(there), *TEXTS], check=True)
    assert there.read_text() == (tmp_path / "here.json").read_text()


BYTES_SIZE = {"bpe": 376, "unigram": 346}
BYTEWISE = {
    unit: Tokenizer.train(TEXTS, TokenizerConfig(unit=unit, max_size=size, byte_fallback=True), specials=["</s>"])
    for unit, size in BYTES_SIZE.items()
}
TYPED = st.sampled_from(
    ["<0x41>", "</s>", "<unk>", "house", " ", "▁", "🙂", "👩‍👩‍👧", "漢字", "a\u0301", "\0", "\x1c", "\ufffd", "x"]
)
ANY = st.lists(st.one_of(st.text(max_size=6), TYPED), max_size=8).map("".join)


@pytest.mark.parametrize("unit", BYTES_SIZE)
@given(text=ANY)
def test_with_bytes_no_text_is_unknown_and_any_text_comes_back(unit, text):
    made = BYTEWISE[unit]
    ids, tokens, offsets = made.encode(text)
    assert not {0, 1, 2} & set(ids) and made.encode_flat([text])[0].tolist() == ids
    assert made.decode(ids).split() == text.replace("▁", " ").split()
    assert all(0 <= start <= end <= len(text) for start, end in offsets)
    assert all(before[1] <= after[0] for before, after in pairwise(offsets))
    parts = [text[start:end] for start, end in offsets]
    spaceless = "".join(text.replace("▁", " ").split())
    assert "".join("".join(parts).replace("▁", " ").split()) == spaceless  # each character once
    for token, part in zip(tokens, parts):
        if re.fullmatch("<0x..>", token):  # the first byte of a character stands for it
            rest = token[3] in "89AB" or token in ("<0x1C>", "<0x1D>", "<0x1E>", "<0x1F>")  # or a space to Python
            assert part == "" if rest else part.encode()[0] == int(token[3:5], 16)


@pytest.mark.parametrize("unit", BYTES_SIZE)
def test_bytes_are_entries_after_the_special_ones_and_are_saved(tmp_path, unit):
    made = BYTEWISE[unit]
    assert entries(made)[:259] == ["<pad>", "<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    assert made.size <= BYTES_SIZE[unit] and made.unit == unit
    # What has an entry is encoded as it would be without bytes, in a model that has as many other entries.
    plain = Tokenizer.train(TEXTS, TokenizerConfig(unit=unit, max_size=BYTES_SIZE[unit] - 256), specials=["</s>"])
    for text in TEXTS:
        assert made.encode(text)[1:] == plain.encode(text)[1:]
    made.save(tmp_path / "tokenizer.json")
    loaded = Tokenizer.load(tmp_path / "tokenizer.json")
    assert loaded.encode("漢 x") == made.encode("漢 x") and loaded.decode(made.encode("漢 x").ids) == "漢 x"
    # Half of a character that a model might write, and a piece after it.
    halves = [made.id("▁"), made.id("<0xE6>"), made.id("<0xBC>"), made.id("e")]
    assert made.decode(halves) == "\ufffd\ufffde"


def test_pieces_keep_to_the_size_and_never_mix_punctuation_with_letters():
    assert MADE["bpe"].size <= 120
    assert make("bpe", min_frequency=2).size < MADE["bpe"].size
    for unit in SIZES:
        pieces = [piece.lstrip("▁") for piece in entries(MADE[unit])[2:]]
        assert any(len(piece) > 2 for piece in pieces)
        assert all(piece.isalnum() or len(piece) <= 1 for piece in pieces)
    words = Tokenizer.train_words({"lower": 5, "lowest": 4}, TokenizerConfig(unit="bpe", max_size=16))
    assert "▁lowe" in entries(words)


@given(words=st.lists(st.text("abcdéİ日Ab\n 12", max_size=9), max_size=6), longest=st.integers(1, 7))
def test_characters_of_words_are_those_of_encode(words, longest):
    for made in (MADE["char"], FOLDED["char"]):
        ids, lengths = made.encode_chars(words, longest)
        assert ids.dtype == np.int32 and ids.shape == (len(words), max([1, *lengths]))
        for word, row, length in zip(words, ids, lengths):
            full = made.encode(word).ids
            head, tail = (longest + 1) // 2, longest // 2
            kept = full if len(full) <= longest else full[:head] + full[len(full) - tail :]
            assert row[:length].tolist() == kept and not row[length:].any()


def test_a_tokenizer_of_another_unit_says_so():
    with pytest.raises(ValueError, match="needs a tokenizer of the unit 'word'; this one's is 'bpe'"):
        MADE["bpe"].encode_words(["the"])
    with pytest.raises(ValueError, match="needs a tokenizer of the unit 'char'; this one's is 'word'"):
        MADE["word"].encode_chars(["the"], 5)
    with pytest.raises(DataError, match="there is no text to learn pieces from"):
        Tokenizer.train([" "], TokenizerConfig(unit="unigram", max_size=9))


@pytest.mark.parametrize(("size", "byte_fallback"), [(3, False), (7, False), (263, True)])
def test_a_unigram_model_without_room_for_the_characters_is_refused(size, byte_fallback):
    config = TokenizerConfig(unit="unigram", max_size=size, byte_fallback=byte_fallback)
    needed = 264 if byte_fallback else 8  # <pad>, <unk>, <s>, </s>, the space, a, b and ,
    message = (
        f"max_size = {size} is too small for the unit 'unigram' and this text, whose characters and special entries "
        f"are {needed}: set data.tokenizer.max_size to more"
    )
    with pytest.raises(DataError, match=f"^{message}$"):
        Tokenizer.train(["a b", "aa, bb"], config, specials=["<s>", "</s>"])
    enough = config.model_copy(update={"max_size": needed})
    made = Tokenizer.train(["a b", "aa, bb"], enough, specials=["<s>", "</s>"])
    assert made.decode(made.encode("b, a").ids) == "b, a" and len({made.id(entry) for entry in "ab,▁"}) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"unit": "bpe"}, "max_size must be given for the unit 'bpe', for example 8000"),
        ({"unit": "unigram", "max_size": 50, "min_frequency": 2}, "min_frequency is not read for the unit 'unigram'"),
        ({"max_size": 2}, "max_size must be at least 3, got 2"),
        ({"min_frequency": 0}, "min_frequency must be at least 1, got 0"),
        (
            {"byte_fallback": True},
            "byte_fallback is read for the units 'bpe' and 'unigram' only, and unit is 'word': "
            "set data.tokenizer.byte_fallback=false",
        ),
        (
            {"unit": "bpe", "max_size": 258, "byte_fallback": True},
            "max_size must be at least 259 with byte_fallback, which takes 256, got 258",
        ),
        ({"unit": "words"}, "unit: expected 'word', 'char', 'bpe' or 'unigram', got 'words'"),
    ],
)
def test_settings_that_make_no_sense(settings, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse(TokenizerConfig, settings, source="recipe.toml")


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    path = tmp_path / "tokenizer.json"
    with pytest.raises(RunError, match=re.escape(f"{path}: no such file; a saved tokenizer is expected")):
        Tokenizer.load(path)
    MADE["word"].save(path)
    whole = path.read_text()
    for content in (whole[: len(whole) // 2], "", "{}", '{"weights": []}', "\udcff"):
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
        with pytest.raises(RunError, match=re.escape(f"{path}: damaged, or not a tokenizer file: ")):
            Tokenizer.load(path)
    for unit, damage, message in (
        ("unigram", {"model": {"vocab": [["a" * 1001, 0.0]]}}, "a piece is longer than 1,000 characters"),
        ("unigram", {"model": {"unk_id": None}}, "it reads or writes text in another way"),
        ("bpe", {"model": {"dropout": 0.5}}, "it reads or writes text in another way"),
        ("bpe", {"normalizer": None}, "it reads or writes text in another way"),
        ("word", {"decoder": {"type": "Fuse"}}, "it reads or writes text in another way"),
        ("char", {"truncation": {"max_length": 2, "strategy": "LongestFirst", "stride": 0}}, "it reads or writes "),
    ):
        MADE[unit].save(path)
        state = json.loads(path.read_text())
        for part, value in damage.items():
            state[part] = {**state[part], **value} if part == "model" else value
        path.write_text(json.dumps(state))
        with pytest.raises(RunError, match=re.escape(message)):
            Tokenizer.load(path)
    state = json.loads(whole)
    state["model"]["vocab"]["the"] = 99
    path.write_text(json.dumps(state))
    with pytest.raises(RunError, match=re.escape(f"{path}: damaged: its entries are not numbered from 0 to ")):
        Tokenizer.load(path)
    state["added_tokens"] = []
    state["model"]["vocab"] = {"a": 0, "b": 1}
    path.write_text(json.dumps(state))
    with pytest.raises(
        RunError, match=re.escape(f"{path}: not a tokenizer of seqtext: its first entries must be <pad>")
    ):
        Tokenizer.load(path)


@given(text=st.one_of(TEXT, st.text()))
def test_words_are_where_they_say_and_cover_the_text(text):
    words = split_words(text)
    assert all(word == text[start:end] and word and not re.search(r"\s", word) for word, start, end in words)
    assert "".join(word for word, _, _ in words) == "".join(text.split())


@given(text=TEXT)
def test_words_are_those_of_the_rules_on_any_text(text):
    rules = module._treebank().tokenize(text)
    words = [word for word, _, _ in split_words(text)]
    assert len(words) == len(rules)
    assert all(word == rule or (word in ('"', "''") and rule in ("``", "''")) for word, rule in zip(words, rules))


@pytest.mark.parametrize(
    "sentence",
    [
        "Good muffins cost $3.88 in New York.",
        "They'll save and invest more, won't they?",
        "The dog's bone (an old one) isn't here; it can't be gone!",
        "Shares of A.B.C. Corp. fell 3,000 points -- 5% -- to 10:30 today...",
        "I'm gonna say it: he'd've cannot @home #1 & more.",
    ],
)
def test_ordinary_sentences_split_as_the_treebank_does(sentence):
    assert [word for word, _, _ in split_words(sentence)] == TreebankWordTokenizer().tokenize(sentence)


def test_quotes_stay_as_they_are_written():
    text = "He said, \"it's ``fine''\" ('really')."
    assert [word for word, _, _ in split_words(text)] == [
        *["He", "said", ",", '"', "it", "'s", "``", "fine", "''", '"', "(", "'", "really", "'", ")", "."]
    ]


def test_where_the_rules_fail_words_stand_between_spaces(monkeypatch):
    class Broken:
        def tokenize(self, text):
            return ["other", "words"]

    monkeypatch.setattr(module, "_treebank", Broken)
    assert split_words(" one, two ") == [("one,", 1, 5), ("two", 6, 9)]
