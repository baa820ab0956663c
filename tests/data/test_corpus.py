"""Readers of running text: every form to the same lines, every fault told by its place, and the sample is prose."""

import gzip
import json
import re
from pathlib import Path

import datasets
import nltk
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.corpus.reader import BracketParseCorpusReader, PlaintextCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from seqtext.config import parse
from seqtext.data import corpus
from seqtext.data.corpus import CorpusData, is_pretokenized, is_tokenized, open_corpus, read_corpus
from seqtext.data.corpus_sample import paragraphs, prose
from seqtext.data.sources import MissingSplit
from seqtext.data.stream import encode_stream, fit_tokenizer
from seqtext.errors import ConfigError, DataError

TEXT = "\n  Once upon a time,\tthere was 1 cat. \n\n \nIt sat.\n"
LINES = ["Once upon a time,\tthere was 1 cat.", "It sat."]


@pytest.fixture(autouse=True)
def own_cache(cache_folder):
    return cache_folder


@pytest.fixture
def put(put):
    return lambda content, name="train.txt": put(content, name)


def lines(path: Path, **options):
    return read_corpus(CorpusData(train=str(path), **options), "train")["text"][:]


def message(path: Path, **options) -> str:
    """What is said of a file, without the path it begins with; nothing is left in the cache."""
    with pytest.raises(DataError) as raised:
        lines(path, **options)
    assert str(raised.value).startswith(f"{path}:")
    assert not list(path.parent.parent.glob("cache/*"))
    return str(raised.value).removeprefix(f"{path}:").strip()


# Files


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", TEXT),
        ("b", TEXT.replace("\n", "\r\n")),
        ("c.txt", "\ufeff" + TEXT.strip()),
        ("d.txt.gz", gzip.compress(TEXT.encode(), mtime=0)),
        ("e.jsonl", "".join(json.dumps({"id": 1, "text": line}) + "\n\n" for line in TEXT.split("\n"))),
        ("f.JSON.gz", gzip.compress(json.dumps({"text": TEXT.replace("\n", "\r\n")}).encode(), mtime=0)),
    ],
)
def test_the_same_lines_however_it_is_written(put, name, content):
    assert lines(put(content, name)) == LINES


def test_blank_lines_may_be_kept(put):
    kept = ["", LINES[0], "", "", LINES[1]]
    assert lines(put(TEXT), blank_lines=True) == kept
    assert lines(put(json.dumps({"text": TEXT}), "a.jsonl"), blank_lines=True) == kept


def test_other_unicode_separators_stay_inside_a_line(put):
    assert lines(put("a\u2028b\u00a0c\x0cd\n")) == ["a\u2028b\u00a0c\x0cd"]


def test_parquet(put, tmp_path):
    path = put(b"", "train.parquet")
    pq.write_table(pa.table({"n": [1, 2], "body": ["Once\nupon", "a time"]}), path, row_group_size=1)
    assert lines(path, text_field="body") == ["Once", "upon", "a time"]
    assert message_of(path) == "no column 'text' (data.text_field); found: n, body"
    pq.write_table(pa.table({"text": ["a", None]}), path)
    assert message_of(path) == "2: 'text' holds nothing, expected a string"
    path.write_bytes(b"PAR1 of a sort")
    assert message_of(path).startswith("not a Parquet file, or a damaged one: ")


def message_of(path: Path) -> str:
    with pytest.raises(DataError) as raised:
        lines(path)
    return str(raised.value).removeprefix(f"{path}:").strip()


def test_a_format_may_be_stated(put):
    assert lines(put('{"text": "a b"}\n', "train.txt"), format="jsonl") == ["a b"]
    assert lines(put('{"text": "a b"}\n', "train.json"), format="text") == ['{"text": "a b"}']


def test_a_folder_whose_files_name_their_splits(put):
    put("one\n", "ptb.train.txt")
    put("two\n", "ptb.valid.txt")
    folder = str(put(gzip.compress(b"three\n"), "ptb.test.txt.gz").parent)
    found = [read_corpus(CorpusData(source=folder), split)["text"][:] for split in ("train", "valid", "test")]
    assert found == [["one"], ["two"], ["three"]]


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [
        ("", "a.txt", "no text: it is empty or blank"),
        (" \n\t\n\r\n", "a.txt", "no text: it is empty or blank"),
        ("a\nb\0c\n", "a.txt", "2: a NUL character at 2 of the line; this is no text, or it is UTF-16"),
        (b"a\nb\nc\xe9t\xe9\n", "a.txt", "3: byte 0xe9 at byte 2 of the line is not UTF-8; convert the file to UTF-8"),
        (b"\xff\xfea\0", "a.txt", "1: this file is UTF-16; convert it to UTF-8"),
        ('{"text": "a"}\n{"body": "b", "n": 1}', "a.jsonl", "2: no key 'text' (data.text_field); found: body, n"),
        ('{"text": "a"}\n\n{"text": 3}', "a.jsonl", "3: 'text' holds int 3, expected a string"),
        ('{"text": "a\\u0000"}', "a.jsonl", "1: a NUL character at 2 of the line; this is no text, or it is"),
        ('["a"]', "a.json", "1: found an array, expected one JSON object a line"),
    ],
)
def test_faults_of_files(put, content, name, expected):
    assert message(put(content, name)).startswith(expected)


def test_only_blank_lines_are_no_text_even_where_they_are_kept(put):
    assert message(put("\n\n"), blank_lines=True) == "no text: it is empty or blank"


@given(st.text("ab \u00a0", max_size=60))
def test_a_long_line_is_cut_at_spaces_and_nothing_is_lost(text):
    line = text.strip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "LONGEST", 7)
        pieces = list(corpus._short(line)) if line else []
    assert all(0 < len(piece) <= 7 and piece == piece.strip() for piece in pieces)
    assert re.sub(r"\s", "", "".join(pieces)) == re.sub(r"\s", "", text)
    if re.fullmatch(r"(\w{1,7} )*\w{1,7}", line):  # no word is cut that need not be
        assert " ".join(pieces) == line


def test_long_lines_and_bounded_batches(put, monkeypatch):
    monkeypatch.setattr(corpus, "LONGEST", 10)
    monkeypatch.setattr(corpus, "BATCH_LINES", 3)
    monkeypatch.setattr(corpus, "BATCH_CHARACTERS", 12)
    dataset, facts = open_corpus(CorpusData(train=str(put("one two three four\na\nb\nc\nd\n"))), "train")
    assert dataset["text"][:] == ["one two", "three four", "a", "b", "c", "d"]
    # By characters, by lines, and what is left.
    assert [len(batch) for batch in dataset.data.column("text").chunks] == [2, 3, 1]
    assert facts[:3] == ("text", 6, 17 + 4 + 6)


# Already tokenised or not


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mr. <unk> is chairman of <unk> n.v. the dutch publishing group", True),
        ("Rolls-Royce , he said , is n't a unit of Rolls ( U.S. ) .\n`` Yes ! '' said Mr. Vinken ?!", True),
        ('Rolls-Royce, he said, isn\'t a unit of Rolls (U.S.).\n"Yes!" said Mr. Vinken.', False),
        ("Bonjour ! Comment allez-vous ? Bien, merci ; et vous, madame ?", False),
        ("anarchism originated as a term of abuse first used against early radicals", False),
        ("no line ends with a mark\nbut this one does.", False),
        ("no line ends with a mark\nbut this one does .", True),
        ("", False),
    ],
)
def test_is_tokenized(text, expected):
    assert is_tokenized(text.split("\n")) is expected


def test_a_few_marks_that_do_not_stand_apart_change_nothing():
    tokenized = ["Well , yes ."] * 19
    assert is_tokenized([*tokenized, "1) 2)"]) and not is_tokenized([*tokenized, "1) 2) 3)"])


def test_only_the_first_lines_are_looked_at():
    assert not is_tokenized(["a, b"] + ["c"] * (corpus.LOOKED_AT - 1) + ["<unk>"])
    assert is_tokenized(["a, b"] + ["c"] * (corpus.LOOKED_AT - 2) + ["<unk>"])


def test_the_training_text_decides_for_all_splits(put):
    put("Well , yes .\n")
    folder = str(put("Well, no.\n", "valid.txt").parent)
    for option, expected in {"auto": True, "yes": True, "no": False}.items():
        data = CorpusData(source=folder, pretokenized=option)
        train, valid = (open_corpus(data, split) for split in ("train", "valid"))
        assert train.facts.pretokenized is valid.facts.pretokenized is is_pretokenized(data, train.dataset) is expected
        said = "text, already tokenised" if expected else "text, raw text"
        assert train.dataset.info.description == valid.dataset.info.description == said
    alone = CorpusData(valid=str(Path(folder, "valid.txt")))  # no training text: by itself
    assert not open_corpus(alone, "valid").facts.pretokenized


def test_a_text_is_read_once_and_again_when_it_changes(put, cache_folder, monkeypatch):
    path = put("a\n")
    first = read_corpus(CorpusData(train=str(path)), "train")
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "_build", lambda *_: pytest.fail("read again"))
        again = read_corpus(CorpusData(train=str(path), pretokenized="yes"), "train")
    assert first._fingerprint == again._fingerprint and len(list(cache_folder.iterdir())) == 1
    path.write_text("b\n")
    assert lines(path) == ["b"]


# Parts that are held out


def cut(path: Path, **options) -> dict[str, list[str]]:
    data = CorpusData(**options) if path.is_dir() else CorpusData(train=str(path), **options)
    return {split: read_corpus(data, split)["text"][:] for split in ("train", "valid", "test")}


@pytest.mark.parametrize(("share", "held"), [(0.1, 2), (0.2, 5), (0.34, 8), (0.499, 11)])
def test_the_last_lines_are_held_out_in_order(put, monkeypatch, share, held):
    monkeypatch.setattr(corpus, "BATCH_LINES", 4)  # parts begin and end within chunks
    text = [f"line {number} ." for number in range(23)]
    parts = cut(put("\n\n".join(text)), hold_out=share)
    assert parts == {"train": text[: -2 * held], "valid": text[-2 * held : -held], "test": text[-held:]}


def test_a_part_is_a_view_and_reads_as_a_file_of_its_own(put, cache_folder, monkeypatch):
    monkeypatch.setattr(corpus, "BATCH_LINES", 4)
    text = ["Raw text, here."] * 3 + ["Café"] * 5 + ["Well , yes ."] * 4
    data = CorpusData(train=str(put("\n".join(text))), hold_out=0.25)
    found = {split: open_corpus(data, split) for split in ("train", "valid", "test")}
    assert len(list(cache_folder.iterdir())) == 1
    assert len({part.facts.fingerprint for part in found.values()} | {open_corpus(data.uncut(), "train")[1][-1]}) == 4
    tokenizer = fit_tokenizer(found["train"].dataset, data.tokenizer, pretokenized=False)
    for split, lines in (("train", text[:6]), ("valid", text[6:9]), ("test", text[9:])):
        dataset, facts = found[split]
        alone = open_corpus(CorpusData(train=str(put("\n".join(lines), f"{split}.txt"))), "train")
        assert dataset["text"][:] == lines and dataset._fingerprint == facts.fingerprint != alone.facts.fingerprint
        assert facts[:3] == alone.facts[:3]
        assert not facts.pretokenized  # as the training part shows, whatever the end of the text is like
        assert dataset.info.description == "text, raw text, cut from the training text"
        streams = [encode_stream(rows, tokenizer, pretokenized=False) for rows in (dataset, alone.dataset)]
        assert streams[0].characters == streams[1].characters
        assert streams[0].slice(0, streams[0].tokens).tolist() == streams[1].slice(0, streams[1].tokens).tolist()


def test_only_what_the_source_lacks_is_held_out(put):
    text = [f"line {number}" for number in range(10)]
    put("\n".join(text))
    folder = put("other", "valid.txt").parent
    assert cut(folder, source=str(folder), hold_out=0.2) == {"train": text[:8], "valid": ["other"], "test": text[8:]}
    data = CorpusData(source=str(folder), hold_out=0.2)
    parts = ["train (hold_out 0.2)", "valid", "test (hold_out 0.2)"]
    assert [data.part(split) for split in ("train", "valid", "test")] == parts
    put("another", "test.txt")
    assert cut(folder, source=str(folder), hold_out=0.2) == {"train": text, "valid": ["other"], "test": ["another"]}
    assert data.part("train") == "train" and data.uncut().hold_out == 0


def test_what_cannot_be_held_out_is_told(put):
    path = put("\n".join("abcd"))
    for share, none in ((0.1, "valid: the text has 4 lines"), (0.49, "train: the text has 4 lines")):
        with pytest.raises(DataError) as raised:
            cut(path, hold_out=share)
        assert str(raised.value) == f"{path}: data.hold_out = {share} leaves nothing for {none}"
    advice = "data.train is given and data.valid is not; data.hold_out = 0.1 takes the last tenth of the training text"
    with pytest.raises(MissingSplit, match=re.escape(advice)):
        read_corpus(CorpusData(train=str(path)), "valid")


# Other sources


def test_hub_datasets(tmp_path):
    split = datasets.Dataset.from_dict({"text": ["", " = Title = \n", "One .\nTwo .\n"], "n": [1, 2, 3]})
    datasets.DatasetDict({"train": split}).save_to_disk(tmp_path / "hub")
    data = CorpusData(source=f"hub:{tmp_path / 'hub'}")
    dataset, facts = open_corpus(data, "train")
    assert dataset["text"][:] == ["= Title =", "One .", "Two ."] and facts.format == "hub"
    with pytest.raises(DataError, match=re.escape("no column 'body' (data.text_field); found: text, n")):
        read_corpus(data.model_copy(update={"text_field": "body"}), "train")
    with pytest.raises(DataError, match=r"hub:1: 'n' holds int 1, expected a string"):
        read_corpus(data.model_copy(update={"text_field": "n"}), "train")


def test_nltk_corpora(tmp_path, monkeypatch):
    folder = tmp_path / "nltk" / "corpora" / "treebank"
    folder.mkdir(parents=True)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])
    for suffix, reader, content, expected in [
        ("txt", PlaintextCorpusReader, "It sat, it ran.\r\n\r\nYes.\r\n", ["It sat, it ran.", "Yes."]),
        ("mrg", BracketParseCorpusReader, "(S (NP It) (VP sat) (. .))\n(S (UH Yes) (. .))\n", ["It sat .", "Yes ."]),
    ]:
        (folder / f"train.{suffix}").write_bytes(content.encode())
        loader = LazyCorpusLoader("treebank", reader, rf".*\.{suffix}", encoding="utf-8")
        monkeypatch.setattr(nltk.corpus, "treebank", loader)
        assert read_corpus(CorpusData(source="nltk:treebank"), "train")["text"][:] == expected


def test_the_schema_says_every_fault():
    with pytest.raises(ConfigError) as raised:
        values = {"textfield": "a", "pretokenized": True, "tokenizer": {"unit": "bpe"}}
        parse(CorpusData, values, source="r.toml", prefix="data")
    assert raised.value.faults == [
        "data.pretokenized: expected 'auto', 'yes' or 'no', got True",
        "data.tokenizer: max_size must be given for the unit 'bpe', for example 8000",
        "data.textfield: unknown key; did you mean 'text_field'?",
    ]
    assert all(field.description for field in CorpusData.model_fields.values())


# The sample


def test_the_sample():
    splits = {split: open_corpus(CorpusData(), split) for split in ("train", "valid", "test")}
    texts = {split: found.dataset["text"][:] for split, found in splits.items()}
    every = [line for found in texts.values() for line in found]
    assert len(every) == len(set(every))  # nothing of one split is in another
    sizes = {split: sum(map(len, found)) for split, found in texts.items()}
    assert sum(sizes.values()) > 150_000
    assert min(sizes["valid"], sizes["test"]) > 0.04 * sum(sizes.values())
    assert sizes["train"] > 0.7 * sum(sizes.values())
    common = sum(" the " in line for line in every) / len(every)
    assert common > 0.6 and not any(">>>" in line or "::=" in line or "+---" in line for line in every)
    assert not splits["train"].facts.pretokenized


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        (
            "Blocks are joined\nto *one* line of **some five**\nwords.",
            "Blocks are joined to one line of some five words.",
        ),
        ("   The “indented” ones, as\n   Python’s are, too.", 'The "indented" ones, as Python\'s are, too.'),
        ('* "Items" of a list, whose\n  lines hang.  [2]', '"Items" of a list, whose lines hang.'),
        ("2. If it has a number, it\n   is dropped:", "If it has a number, it is dropped:"),
        ("object.__a__(self)\n   Called when it must be called.", "Called when it must be called."),
        ("Too short. Only four.", None),
        ("Heading of some words or other\n******************************", None),
        ("   class A:\n       def f(self):\n           return 1.", None),
        ("   for x in y:\n       print(x, 2 ** 3)", None),
        ('   Stmt ::= "a" | "b" or some other words.', None),
        (">>> Print is what it says here.", None),
        ("| Operator of a table     | What it is for and how.   |", None),
        ("No mark ends these words of ours", None),
        ("lower case begins some other kind of line.", None),
        ("A = (1, 2, 3) + [4, 5] * {6: 7} - 8.", None),
    ],
)
def test_what_counts_as_prose(block, expected):
    assert prose(block) == expected


def test_a_paragraph_belongs_to_the_first_chapter_that_has_it():
    one, other = "This is said in two chapters.", "This is said in one of them."
    topics = {"b": f"{other}\n \n{one}\n", "a": f"x = 1\n\n{one}\n\n{one}"}
    assert list(paragraphs(topics)) == [("a", one), ("b", other)]
