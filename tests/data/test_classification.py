"""Readers of labelled texts: every form to the same rows, cuts that keep training and test apart, every fault told."""

import csv
import gzip
import io
import json
import re
from collections import Counter
from pathlib import Path

import datasets
import nltk
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nltk.corpus.reader import CategorizedPlaintextCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from seqtext.config import parse
from seqtext.data import classification
from seqtext.data.classification import ClassificationData, read_classification
from seqtext.data.sentiment_sample import sentiment_sample
from seqtext.data.sources import MissingSplit, with_source
from seqtext.errors import ConfigError, DataError

ROWS = [
    ("I can't say it was bad. Go!", ["I", "ca", "n't", "say", "it", "was", "bad", ".", "Go", "!"], "pos"),
    ('"Dull," they said,\nand left', ['"', "Dull", ",", '"', "they", "said", ",", "and", "left"], "neg"),
    ("So-so\there", ["So-so", "here"], "pos"),
]
CSV = (
    'id,text,label\n1,I can\'t say it was bad. Go!,pos\n\n2,"""Dull,"" they said,\nand left", neg \n3,So-so\there,pos\n'
)


@pytest.fixture(autouse=True)
def own_cache(cache_folder):
    return cache_folder


@pytest.fixture
def put(put):
    return lambda content, name="train.csv": put(content, name)


def rows(path: Path, split="train", **options):
    return read(split, **{split: str(path)}, **options)


def read(split="train", **options):
    return [
        (row["text"], row["tokens"], row["label"]) for row in read_classification(ClassificationData(**options), split)
    ]


def message(path: Path, **options) -> str:
    """What is said of a file, without the path it begins with; nothing is left in the cache."""
    with pytest.raises(DataError) as raised:
        rows(path, **options)
    assert str(raised.value).startswith(f"{path}:")
    assert not list(path.parent.parent.glob("cache/*"))
    return str(raised.value).removeprefix(f"{path}:").strip()


def lines(*records) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


# CSV and TSV


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("b.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("c.csv.gz", gzip.compress(CSV.encode(), mtime=0)),
        ("train", CSV),  # known by its first line
    ],
)
def test_csv(put, name, content):
    data = ClassificationData(train=str(put(content, name)))
    dataset = read_classification(data, "train")
    assert [tuple(row.values()) for row in dataset] == ROWS
    assert dataset.info.description == "csv, 2 classes" and dataset.cache_files


def test_tsv_and_other_separators(put):
    options = {"text_field": "review", "label_field": "stars"}
    tokens = [("Go, go", ["Go", ",", "go"], "5"), ('"x" y', ['"', "x", '"', "y"], "1")]
    assert rows(put('stars\treview\n5\tGo, go\n1\t"""x"" y"\n', "a.tsv"), **options) == tokens
    assert rows(put('stars;review\n5;Go, go\n1;"""x"" y"\n'), separator=";", **options) == tokens
    # As many corpora have it: a quote is a character like any other.
    assert rows(put('stars\treview\n5\tGo, go\n1\t"x" y\n', "b.tsv"), quotes=False, **options) == tokens


TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), max_size=12
) | st.sampled_from(['a "b"', "a,b", "a\nb", "a\tb\n\n", '"'])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(TEXTS, st.sampled_from(["x", "y,", '"z'])), min_size=1, max_size=7), st.sampled_from([",", "\t"])
)
def test_whatever_is_written_is_read_back(put, monkeypatch, written, separator):
    monkeypatch.setattr(classification, "BATCH", 2)
    written = [(f"a{text}b", label) for text, label in [*written, ("1", "x"), ("2", "w")]]
    file = io.StringIO()
    csv.writer(file, delimiter=separator, lineterminator="\n").writerows([("text", "label"), *written])
    expected = [(text, label) for text, label in written]
    forms = [
        rows(put(file.getvalue(), "a.tsv" if separator == "\t" else "a.csv")),
        rows(put(lines(*({"text": text, "label": label} for text, label in written)), "a.jsonl")),
    ]
    pq.write_table(
        pa.table(dict(zip(("text", "label"), map(list, zip(*written))))), put(b"", "a.parquet"), row_group_size=3
    )
    forms.append(rows(put("", "x").parent / "a.parquet"))
    for found in forms:
        assert [(text, label) for text, _, label in found] == expected
        assert [tokens for _, tokens, _ in found] == [tokens for _, tokens, _ in forms[0]]


@pytest.mark.parametrize(
    ("content", "options", "expected"),
    [
        (CSV, {"label_field": "stars"}, "1: no column 'stars' (data.label_field); found: id, text, label; the first "),
        ("Nice,pos\nBad,neg\n", {}, "1: no column 'text' (data.text_field) and no column 'label' (data.label_"),
        ("text;label\na;b\n", {}, "1: found 1 column, 'text;label'; if columns are parted by ';', set data.separator "),
        ("text,labels\na,b\n", {}, "1: no column 'label' (data.label_field); found: text, labels; the first row must "
         "name the columns; did you mean 'labels'?"),
        ("text,text,label\n", {}, "1: 2 columns are called 'text'"),
        (CSV + "4,so, so,pos\n", {}, "7: found 4 columns, expected 3 as in the header (line 1); a text with ','"),
        (CSV + "4\n", {}, "7: found 1 column, expected 3 as in the header (line 1)"),
        (CSV + '4," ",pos\n', {}, "7: empty text ('text')"),
        (CSV + "4,ok, \n", {}, "7: no label ('label' is empty)"),
        (CSV + "4,<br />,pos\n", {}, "7: no word in the text '<br />'"),
        (CSV + '4,"open,pos\n5,x,neg\n', {}, "7: unexpected end of data; a field in double quotes must end with one, "
         "and quotes within it are doubled; if quotes are plain characters here, set data.quotes = false"),
        (CSV + '4,"a" b,pos\n', {}, "7: ',' expected after '\"'; a field in double quotes must end with one"),
        (CSV.encode() + b"4,\xff,pos\n", {}, "7: byte 0xff at byte 3 of the line is not UTF-8; convert the file to "),
        ("id,text,label\n1,a,x\n2,b,x\n", {}, "all 2 examples have the label 'x'; at least two classes are needed"),
        ("id,text,label\n", {}, "no row in it"),
        ("", {}, "no row in it"),
        (CSV, {"labels": "binary"}, "2: label 'pos', but data.labels = \"binary\" needs labels from 0 to 4: 0 and 1"),
        (CSV, {"phrases": True}, "data.phrases = true needs trees, and this is csv"),
    ],
)  # fmt: skip
def test_faults_of_csv(put, content, options, expected):
    said = message(put(content), **options)
    assert said[: len(expected)] == expected


def test_a_file_of_no_known_form(put):
    said = "cannot tell how this file reads from its name and its first line, 'Some text'; set data.format to \"csv\", "
    assert message(put("Some text\n", "train.txt")).startswith(said)
    assert message(put("\n", "train.txt")) == "no row: the file is empty or blank"
    with pytest.raises(DataError, match=re.escape("gone.csv: no such file (data.train)")):
        rows(Path("gone.csv"))


def test_a_label_column_of_text_is_noticed(put, monkeypatch):
    monkeypatch.setattr(classification, "MOST_CLASSES", 3)
    path = put("text,label\n" + "".join(f"a,b{n}\n" for n in range(4)))
    assert message(path) == "more than 3 different labels: is data.label_field = 'label' right?"


# JSON lines, Parquet, the hub


def test_json_labels(put):
    records = [{"text": "a b", "label": label, "n": 1} for label in ("x ", 3, True)]
    path = put(lines(*records), "a.json")
    assert rows(path) == [("a b", ["a", "b"], label) for label in ("x", "3", "true")]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"text": "a"}, "2: no key 'label' (data.label_field); found: text"),
        ({"label": "a", "body": "b"}, "2: no key 'text' (data.text_field); found: label, body"),
        ({"text": "a", "label": None}, "2: no label ('label' is empty)"),
        ({"text": None, "label": 1}, "2: empty text ('text')"),
        ({"text": ["a"], "label": 1}, "2: 'text' holds list ['a'], expected a string"),
        ({"text": "a", "label": 0.5}, "2: 'label' holds float 0.5, expected a string or a whole number"),
        ([], "2: found an array, expected one JSON object a line"),
    ],
)
def test_faults_of_json(put, record, expected):
    assert message(put(lines({"text": "ok", "label": "y"}, record), "a.jsonl")) == expected


def test_parquet_and_hub_datasets_know_the_names_of_labels(put, tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    whole = datasets.Dataset.from_dict({"text": ["fine", "poor"], "label": [1, 0]}, features=features)
    expected = [("fine", ["fine"], "pos"), ("poor", ["poor"], "neg")]
    path = put(b"", "a.parquet")
    whole.to_parquet(path)
    assert rows(path) == expected
    datasets.DatasetDict(train=whole, test=whole).save_to_disk(tmp_path / "hub")
    assert read("test", source=f"hub:{tmp_path / 'hub'}") == expected
    with pytest.raises(DataError, match=re.escape("no column 'stars' (data.label_field); found: text, label")):
        read(source=f"hub:{tmp_path / 'hub'}", label_field="stars")
    unnamed = whole.cast_column("label", datasets.Value("int64"))
    unnamed.to_parquet(path)
    assert [label for _, _, label in rows(path)] == ["1", "0"]


def test_faults_of_parquet(put):
    path = put(b"PAR1 no", "train.parquet")
    assert message(path).startswith("not a Parquet file, or a damaged one: ")
    pq.write_table(pa.table({"text": ["a", "b"], "n": [1, None]}), path)
    assert message(path) == "no column 'label' (data.label_field); found: text, n"
    assert message(path, label_field="n", format="parquet") == "2: no label ('n' is empty)"


# A folder a class


@pytest.fixture
def imdb(put, tmp_path):
    for split in ("train", "test"):
        for name, text in (("neg", "Bad.<br /><br />Go"), ("pos", "Good")):
            for number in (10, 2, 7, 33, 1):
                put(f"{text}\n{number}", f"imdb/{split}/{name}/{number}.txt")
        put("?", f"imdb/{split}/urls_pos.txt")
    put("unknown", "imdb/train/unsup/0.txt")
    put("notes", "imdb/README")
    return tmp_path / "d" / "imdb"


def test_a_folder_a_class(imdb):
    expected = [("Bad.<br /><br />Go\n10", ["Bad", ".", "Go", "10"], "neg"), ("Good\n2", ["Good", "2"], "pos")]
    for found in (
        read(source=str(imdb)),
        read("test", source=str(imdb)),
        read(train=str(imdb / "train"), format="folder"),
    ):
        assert len(found) == 10 and [found[1], found[7]] == expected
        assert [tokens[-1] for _, tokens, _ in found] == ["1", "10", "2", "33", "7"] * 2  # by the names of the files
    with pytest.raises(
        MissingSplit, match=r"imdb: no folder of valid texts; .* found: test, train; data.hold_out = 0.1 "
    ):
        read("valid", source=str(imdb))
    # Classes without splits are training data as a whole.
    options = {"source": str(imdb / "test"), "folds": 2, "fold": 1}
    parts = [row for split in ("train", "valid", "test") for row in read(split, **options)]
    assert sorted(parts) == sorted(read("test", source=str(imdb)))


def test_faults_of_folders(imdb, put):
    put(b"a\n\xe4", "imdb/train/pos/3.txt")
    with pytest.raises(DataError, match=r"imdb/train/pos/3\.txt:2: byte 0xe4 at byte 1 of the line is not UTF-8"):
        read(source=str(imdb))
    put(" \n", "imdb/train/pos/3.txt")
    with pytest.raises(DataError, match=r"imdb/train/pos/3\.txt: empty text"):
        read(source=str(imdb))
    with pytest.raises(DataError, match=r"pos: no class here; expected a folder a class with .txt files"):
        read(train=str(imdb / "train" / "pos"))
    put("text,label\n", "imdb/test.csv")  # a file named for a split goes before folders
    with pytest.raises(MissingSplit, match="no train file here"):
        read(source=str(imdb))
    with pytest.raises(DataError, match=r"pos: no train file here"):
        read(source=str(imdb / "train" / "pos"))


# Trees

TREES = """\
(4 (2 It) (4 (2 is) (3 (3 good) (2 .))))
( (1 (2 Not) (3 good)) )
(2 (2 So) (0 bad))

(0 (2 -LRB-) (0
  bad))
(3 (3 good) (2 .))
"""


def test_trees(put):
    path = put(TREES, "train.txt")
    assert rows(path) == [
        ("It is good .", ["It", "is", "good", "."], "4"),
        ("Not good", ["Not", "good"], "1"),
        ("So bad", ["So", "bad"], "2"),
        ("( bad", ["(", "bad"], "0"),
        ("good .", ["good", "."], "3"),
    ]
    assert [(text, label) for text, _, label in rows(path, labels="binary")] == [
        ("It is good .", "positive"),
        ("Not good", "negative"),
        ("( bad", "negative"),
        ("good .", "positive"),
    ]


def test_phrases_are_for_training_alone(put):
    path = put(TREES, "train.txt")
    found = [(text, label) for text, _, label in rows(path, phrases=True)]
    assert found == [
        *[
            ("It is good .", "4"),
            ("It", "2"),
            ("is", "2"),
            ("good", "3"),
            (".", "2"),
            ("good .", "3"),
            ("is good .", "4"),
        ],
        *[("Not good", "1"), ("Not", "2")],
        *[("So bad", "2"), ("So", "2"), ("bad", "0")],
        *[("( bad", "0"), ("(", "2")],
        ("good .", "3"),  # a phrase that was met already stays where it is an example of its own
    ]
    found = [(text, label) for text, _, label in rows(path, phrases=True, labels="binary")]
    assert found == [
        *[("It is good .", "positive"), ("good", "positive"), ("good .", "positive"), ("is good .", "positive")],
        ("Not good", "negative"),
        ("bad", "negative"),  # from a neutral tree, which is left out itself
        ("( bad", "negative"),
        ("good .", "positive"),
    ]
    assert len(rows(path, "test", phrases=True)) == 5


def test_phrases_of_held_out_trees_are_not_trained_on(put):
    trees = "".join(f"({n % 2} (2 w{n}) (3 (3 u{n}) (2 v{n})))\n" for n in range(40))
    options = {"train": str(put(trees, "train.txt")), "phrases": True, "folds": 4, "fold": 3}
    parts = {split: read(split, **options) for split in ("train", "valid", "test")}
    words = {split: {word for _, tokens, _ in part for word in tokens} for split, part in parts.items()}
    assert [len(parts[split]) for split in ("train", "valid", "test")] == [27 * 5, 3, 10]
    assert sum(map(len, words.values())) == len(set().union(*words.values())) == 120


def test_faults_of_trees(put):
    said = message(put("(1 a)\n((2 a) (3 b))\n", "train.txt"))
    assert said == "2: the root of this tree has no label; expected one, as in (3 (2 So) ...)"
    assert message(put("(1 a)\n(2 (3))\n", "train.txt")).startswith(
        "2: column 4: node '3' has no word and no node in it"
    )
    said = message(put("(2 a)\n(2 (3 b))\n", "train.txt"), labels="binary")
    assert said == "data.labels = \"binary\" leaves no example; the first label is '2'"


# Cuts


@pytest.fixture
def reviews(put):
    """100 rows of three classes, 60 a, 30 b and 10 c, in one file."""
    names = "a" * 60 + "b" * 30 + "c" * 10
    return str(put("text,label\n" + "".join(f"t{n},{name}\n" for n, name in enumerate(names)), "all.csv"))


def labels(part):
    return Counter(label for _, _, label in part)


def test_holding_out(reviews, put):
    parts = [read(split, train=reviews, hold_out=0.1) for split in ("train", "valid", "test")]
    assert [labels(part) for part in parts] == [
        {"a": 48, "b": 24, "c": 8},
        {"a": 6, "b": 3, "c": 1},
        {"a": 6, "b": 3, "c": 1},
    ]
    assert len({text for part in parts for text, _, _ in part}) == 100
    assert all(part == sorted(part, key=lambda row: int(row[0][1:])) for part in parts)  # in the order of the file
    assert read("valid", train=reviews, hold_out=0.1, fold_seed=1) != parts[1]
    dataset = read_classification(ClassificationData(train=reviews, hold_out=0.1), "valid")
    assert dataset.info.description == "csv, 3 classes, cut from the training data"
    # Only what has no data of its own is cut out.
    own = str(put("text,label\nx,a\n", "own.csv"))
    parts = [read(split, train=reviews, test=own, hold_out=0.1) for split in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [90, 10, 1]
    parts = [read(split, train=reviews, valid=own, test=own, hold_out=0.1) for split in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [100, 1, 1]


def test_folds(reviews, put):
    tests = [read("test", train=reviews, folds=4, fold=fold) for fold in (1, 2, 3, 4)]
    assert sorted([row for part in tests for row in part]) == sorted(read(train=reviews))
    assert all(labels(part)["a"] == 15 and 7 <= labels(part)["b"] <= 8 for part in tests)
    options = {"train": reviews, "folds": 4, "fold": 2}
    train, valid = (read(split, **options) for split in ("train", "valid"))
    assert sorted(train + valid + tests[1]) == sorted(read(train=reviews))
    assert labels(valid) in ({"a": 5, "b": 2, "c": 1}, {"a": 4, "b": 2, "c": 1}, {"a": 4, "b": 2, "c": 2})
    assert len(read("valid", **options, hold_out=0.4)) == 30
    own = str(put("text,label\nx,a\n", "own.csv"))
    assert len(read("valid", **options, valid=own)) == 1 and len(read("train", **options, valid=own)) == 75
    dataset = read_classification(ClassificationData(**options), "test")
    assert dataset.info.description == "csv, 3 classes, fold 2 of 4"


def test_other_data_to_evaluate_on_is_taken_whole(reviews):
    data = with_source(ClassificationData(source="x", folds=4, fold=1), reviews, "test")
    assert len(read_classification(data, "test")) == 100


def test_cuts_that_cannot_be_made(reviews, put):
    with pytest.raises(DataError, match=r"all\.csv: class 'c' has 10 examples, fewer than the 11 folds"):
        read(train=reviews, folds=11, fold=1)
    with pytest.raises(
        DataError, match=r"all\.csv: data\.hold_out = 0\.001 leaves no example for valid; there are too few"
    ):
        read("valid", train=reviews, hold_out=0.001)
    with pytest.raises(
        MissingSplit, match=r"data\.train is given and data\.valid is not; data\.hold_out = 0\.1 takes a "
    ):
        read("valid", train=reviews)


# Other sources


def test_the_sample():
    expected = list(sentiment_sample("valid"))
    dataset = read_classification(ClassificationData(), "valid")
    assert [(row["text"], row["label"]) for row in dataset] == expected
    assert dataset.info.description == "sample, 2 classes"
    assert all(row["tokens"][-1] == "." for row in dataset)


def test_pretokenized_text_is_left_alone(put):
    path = put("text,label\nI can't go. no,a\nx,b\n")
    assert rows(path, pretokenized=True)[0][1] == ["I", "can't", "go.", "no"]
    assert rows(path)[0][1] == ["I", "ca", "n't", "go", ".", "no"]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    folder = tmp_path / "nltk" / "corpora" / "movie_reviews"
    for name in ("neg", "pos"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            (folder / name / f"cv{number}.txt").write_text(f"plot {number} is {name} . \nyes . \n")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])
    loader = LazyCorpusLoader(
        "movie_reviews",
        CategorizedPlaintextCorpusReader,
        r"(?!\.).*\.txt",
        cat_pattern=r"(neg|pos)/.*",
        encoding="utf-8",
    )
    monkeypatch.setattr(nltk.corpus, "movie_reviews", loader)
    return folder


def test_nltk_corpora(corpus):
    found = read(source="nltk:movie_reviews")
    assert found[4] == ("plot 0 is pos . \nyes . \n", ["plot", "0", "is", "pos", ".", "yes", "."], "pos")
    assert labels(found) == {"neg": 4, "pos": 4}
    assert labels(read("test", source="nltk:movie_reviews", hold_out=0.25)) == {"neg": 1, "pos": 1}
    said = "nltk:movie_reviews: this corpus is not split: no valid data; data.hold_out = 0.1 takes a tenth of the "
    with pytest.raises(MissingSplit, match=re.escape(said)):
        read("valid", source="nltk:movie_reviews")
    with pytest.raises(DataError, match="all 4 examples have the label 'pos'"):
        read(source="nltk:movie_reviews:pos")
    (corpus / "neg" / "cv1.txt").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"^nltk:movie_reviews: neg/cv1\.txt: .*can't decode byte 0xff"):
        read(source="nltk:movie_reviews")


def test_nltk_corpora_that_do_not_do(tmp_path, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    loader = LazyCorpusLoader("movie_reviews", CategorizedPlaintextCorpusReader, r".*", cat_pattern=r"(neg|pos)/.*")
    monkeypatch.setattr(nltk.corpus, "movie_reviews", loader)
    with pytest.raises(DataError, match=r"not downloaded; to download it: python -m nltk\.downloader movie_reviews$"):
        read(source="nltk:movie_reviews")


# The cache and the schema


def test_what_changes_the_rows_changes_the_cache_and_nothing_else_does(put, cache_folder):
    path = put(TREES, "train.txt")
    rows(path)
    rows(put(TREES, "moved.txt"))
    assert len(list(cache_folder.glob("classification-*"))) == 1
    for options in ({"labels": "binary"}, {"phrases": True}, {"hold_out": 0.2}, {"hold_out": 0.2, "fold_seed": 1}):
        before = set(cache_folder.glob("*"))
        rows(path, **options)
        assert len(set(cache_folder.glob("*")) - before) == 1, options
    assert rows(put(TREES.replace("So", "Very"), "train.txt")) != rows(put(TREES, "train.txt"))


def test_the_schema_says_every_fault():
    def faults(**values):
        with pytest.raises(ConfigError) as raised:
            parse(ClassificationData, values, source="r.toml", prefix="data")
        return raised.value.faults

    assert faults(formt="csv", labels="two", hold_out=0.5) == [
        "data.labels: expected 'all' or 'binary', got 'two'",
        "data.hold_out: expected less than 0.5, got 0.5",
        "data.formt: unknown key; did you mean 'format'?",
    ]
    both = "data: folds is 2 or more with fold from 1 to folds, or both are 0; got folds = "
    assert [faults(folds=folds, fold=fold) for folds, fold in ((5, 0), (5, 6), (0, 1), (1, 1))] == [
        [f"{both}5 and fold = 0"],
        [f"{both}5 and fold = 6"],
        [f"{both}0 and fold = 1"],
        [f"{both}1 and fold = 1"],
    ]
    assert faults(folds=2, fold=1, test="t.csv") == [
        "data: test is not read with folds: a fold of the training data is the test data"
    ]
    assert faults(separator="||")[0].startswith("data: separator must be one character, no quote and no line end, got")
    assert all(field.description for field in ClassificationData.model_fields.values())
