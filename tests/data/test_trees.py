"""Forests: brackets to rows in level order and back, labels and shapes as asked, cuts, and every fault by its place."""

import gzip
import re
from collections import Counter

import nltk
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nltk.corpus.reader import BracketParseCorpusReader, PlaintextCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from seqtext.config import parse
from seqtext.data import trees
from seqtext.data.brackets import read_trees
from seqtext.data.sources import MissingSplit, with_source
from seqtext.data.tree_sample import tree_sample
from seqtext.data.trees import TreesData, read_forest
from seqtext.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def own_cache(cache_folder):
    return cache_folder


def read(split="train", **options):
    return list(read_forest(TreesData(**options), split))


def written(row):
    """Brackets of a row, from the deepest level up; "?" for no label."""
    texts = []
    below = []
    nodes = list(zip(row["labels"], row["arities"], row["starts"], row["ends"], row["depths"]))
    for depth in range(row["depths"][-1], -1, -1):
        waiting = iter(below)
        level = [node for node in nodes if node[4] == depth]
        texts = [(label, [next(waiting) for _ in range(arity)], start) for label, arity, start, _, _ in level]
        assert next(waiting, None) is None
        below = [f"({label or '?'} {' '.join(inside) or row['tokens'][start]})" for label, inside, start in texts]
    assert nodes[0][2:] == (0, len(row["tokens"]), 0) and len(below) == 1
    return below[0]


def brackets(*args, **options):
    return [written(row) for row in read(*args, **options)]


def message(path, split="train", **options):
    """What is said of a file, without the path; nothing is left in the cache."""
    with pytest.raises(DataError) as raised:
        read(split, **{split: str(path)}, **options)
    assert str(raised.value).startswith(f"{path}:")
    assert not list(path.parent.parent.glob("cache/*"))
    return str(raised.value).removeprefix(f"{path}:").strip()


LABEL = st.sampled_from(["0", "1", "2", "3", "4"])
WORD = st.sampled_from(["a", "can't", "Zoë", "8\u00a01", "3"])
BINARY_TREES = st.recursive(
    st.builds("({} {})".format, LABEL, WORD),
    lambda below: st.builds("({} {} {})".format, LABEL, below, below),
    max_leaves=12,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(BINARY_TREES, min_size=1, max_size=6), st.sampled_from(["\n", "\n\n", " "]), st.integers(2, 9))
def test_whatever_is_written_is_read_back(put, monkeypatch, texts, between, held):
    monkeypatch.setattr(trees, "BATCH_NODES", held)
    texts = [*texts, "(1 (2 a) (3 b))"]
    assert brackets(train=str(put(between.join(texts), "train.txt"))) == texts


def test_a_row_by_hand(put):
    dataset = read_forest(TreesData(train=str(put("( (3 (2 Not) (1 (4 -LRB-) (0 b\\/c) (x d))) )", "a.ptb"))), "train")
    assert dataset.cache_files and list(dataset) == [
        {
            "tokens": ["Not", "(", "b/c", "d"],
            "labels": ["3", "2", "1", "4", "", "0", "x"],
            "arities": [2, 0, 2, 0, 2, 0, 0],
            "starts": [0, 0, 1, 1, 2, 2, 3],
            "ends": [4, 1, 4, 2, 4, 3, 4],
            "depths": [0, 1, 1, 2, 2, 3, 3],
        }
    ]
    assert dataset.info.description == "brackets, 6 labels, binarized to the right"


TREE = "(4 (2 (2 a)) (S (3 b) (1 c) (0 (4 d) (2 e))))"


@pytest.mark.parametrize(
    ("options", "expected", "about"),
    [
        ({}, "(4 (2 a) (S (3 b) (? (1 c) (0 (4 d) (2 e)))))", "6 labels, binarized to the right"),
        ({"binarize": "left"}, "(4 (2 a) (S (? (3 b) (1 c)) (0 (4 d) (2 e))))", "6 labels, binarized to the left"),
        ({"binarize": "none"}, "(4 (2 a) (S (3 b) (1 c) (0 (4 d) (2 e))))", "6 labels"),
        ({"structure": "left"}, "(4 (? (? (? (2 a) (3 b)) (1 c)) (4 d)) (2 e))", "4 labels, left-branching"),
        ({"structure": "right"}, "(4 (2 a) (S (3 b) (? (1 c) (0 (4 d) (2 e)))))", "6 labels, right-branching"),
        ({"structure": "balanced"}, "(4 (? (? (2 a) (3 b)) (1 c)) (0 (4 d) (2 e)))", "5 labels, balanced"),
        ({"labels": "none"}, "(? (? a) (? (? b) (? (? c) (? (? d) (? e)))))", "no labels, binarized to the right"),
    ],
)
def test_shapes(put, options, expected, about):
    data = TreesData(train=str(put(TREE, "train.txt")), **options)
    dataset = read_forest(data, "train")
    assert [written(row) for row in dataset] == [expected]
    assert dataset.info.description == f"brackets, {about}"


NEUTRAL = "(2 (2 (3 (1 bad) (4 fine))))\n(1 (2 so) (0 it))\n(2 nil)\n(3 (1 no) (2 (4 yes) (2 .)))\n"


def test_binary_labels_and_trees_of_a_neutral_root(put, tmp_path):
    put(NEUTRAL, "train.txt")
    put(NEUTRAL, "dev.txt")
    options = {"source": str(tmp_path / "d"), "labels": "binary", "scale": 5}
    polar = [
        "(negative (? so) (negative it))",
        "(positive (negative no) (? (positive yes) (? .)))",
    ]
    assert brackets(**options) == ["(? (negative bad) (positive fine))", polar[0], "(? nil)", polar[1]]
    assert brackets("valid", **options) == polar
    abouts = [read_forest(TreesData(**options), split).info.description for split in ("train", "valid")]
    shape = "brackets, 2 labels, binarized to the right; "
    assert abouts == [shape + "2 trees of a neutral root", shape + "left out: 2 trees of a neutral root"]
    said = message(put("(2 a)\n(2 b)", "x/test.txt"), "test", labels="binary")
    assert said == 'data.labels = "binary" leaves no tree for test: the root of all 2 is neutral'


@pytest.mark.parametrize(
    ("text", "options", "expected"),
    [
        ("(1 a)\n (2 (3 b)", {}, '2: column 2: the tree that begins here never ends: 1 bracket is not closed'),
        ("(1 a)\n (1 b))", {}, '2: column 7: ")" closes nothing: one bracket too many'),
        ("(1 (2 b) ())", {}, "1: column 10: empty node; expected (label word) or (label (label word) ...)"),
        ("(1 a)\n(2 (3))", {}, "2: column 4: node '3' has no word and no node in it; expected (label word) or"),
        ("(1 a)\n\n(2 (3 b)\n  (5 c))", {"scale": 5}, "4: column 4: label '5'; expected a whole number from 0 to 4 "
         "(data.scale)"),
        ("(1 a) (03\n (1 b) (1 c))", {"scale": 5}, "1: column 8: label '03'; expected a whole number from 0 to 4"),
        ("(1 (? b) (1 a))", {"scale": 2, "labels": "none"}, "1: column 5: label '?'; expected a whole number from 0 "
         "to 1 (data.scale)"),
        ("(1 a)\n((2 b) (1 c)) (0 d)", {}, "2: column 1: the root of this tree has no label; expected one, as in (3"),
        ("(1 a)\n(1 b) ( (\n(2 b) (1 c)))", {}, "2: column 7: the root of this tree has no label; expected one, as"),
        ("(1 (NP b))", {"labels": "binary"}, "1: column 5: label 'NP', but data.labels = \"binary\" needs labels from "
         "0 to 4: 0 and 1 are negative"),
        ("(1 a)\n(1 b)", {}, "all nodes have the label '1'; at least two are needed, or data.labels = \"none\""),
        ("(2 a)", {"labels": "binary"}, 'no node has a label; at least two are needed, or data.labels = "none"'),
        ("\n \n", {}, "no tree: it is empty or blank; expected (label (label word) ...)"),
        ("label text\n", {}, "1: column 1: found 'label' outside of brackets; expected (label word) or"),
        (b"(1 a)\n(2 \xff)", {}, "2: byte 0xff at byte 4 of the line is not UTF-8"),
    ],
)  # fmt: skip
def test_faults(put, text, options, expected):
    said = message(put(text, "train.txt"), **options)
    assert said[: len(expected)] == expected


def test_what_is_no_fault(put):
    text = "( (1 (a b)) )\n((2 b) (1 c))"
    assert brackets(train=str(put(text, "train.txt")), labels="none", binarize="none") == ["(? b)", "(? (? b) (? c))"]
    path = str(put("((1 a) (0 b))", "test.txt"))  # without a label where none is wanted, and on a scale
    assert brackets("test", test=path, labels="none", scale=2) == ["(? (? a) (? b))"]


def test_too_many_labels_are_noticed(put, monkeypatch):
    monkeypatch.setattr(trees, "MOST_LABELS", 2)
    assert message(put("(a b) (c d) (e f)", "train.txt")) == "more than 2 different labels: is this a treebank?"


def test_schema():
    with pytest.raises(ConfigError, match=re.escape('labels = "binary" reads the labels 0 to 4, so scale must be 5')):
        parse(TreesData, {"labels": "binary", "scale": 3}, source="r.toml", prefix="data")


# Cuts


def test_holding_out(put):
    text = "".join(f"({n % 3 + 1} (1 a{n}) (3 b))\n" for n in range(60))
    path = str(put(text, "all.txt"))
    parts = [read(split, train=path, hold_out=0.1) for split in ("train", "valid", "test")]
    roots = [Counter(row["labels"][0] for row in part) for part in parts]
    assert roots == [{"1": 16, "2": 16, "3": 16}, {"1": 2, "2": 2, "3": 2}, {"1": 2, "2": 2, "3": 2}]
    words = [[row["tokens"][0] for row in part] for part in parts]
    assert sorted(word for part in words for word in part) == sorted(f"a{n}" for n in range(60))
    assert all(part == sorted(part, key=lambda word: int(word[1:])) for part in words)
    assert [row["tokens"][0] for row in read("valid", train=path, hold_out=0.1, hold_out_seed=1)] != words[1]
    data = TreesData(train=path, hold_out=0.1)
    assert read_forest(data, "valid").info.description.endswith(", cut from the training data")
    assert data.part("valid") == "valid (hold_out 0.1, hold_out_seed 0)" and TreesData().part("valid") == "valid"
    assert len(read_forest(with_source(data, path, "test"), "test")) == 60
    # A neutral root is of no use in validation, and its nodes are in training.
    parts = [read(split, train=path, hold_out=0.1, labels="binary") for split in ("train", "valid", "test")]
    assert [Counter(row["labels"][0] for row in part) for part in parts] == [
        {"negative": 16, "": 20, "positive": 16},
        *[{"negative": 2, "positive": 2}] * 2,
    ]
    own = str(put("(1 c)", "own.txt"))
    assert [len(read(split, train=path, valid=own, hold_out=0.1)) for split in ("train", "valid", "test")] == [54, 1, 6]


def test_cuts_that_cannot_be_made(put):
    path = str(put("(1 a) (2 b)", "few.txt"))
    with pytest.raises(DataError, match=r"few\.txt: data\.hold_out = 0\.1 leaves no tree for valid; there are too few"):
        read("valid", train=path, hold_out=0.1)
    with pytest.raises(MissingSplit, match=r"data\.valid is not; data\.hold_out = 0\.1 takes a tenth of the training "):
        read("valid", train=path)


# Sources

PENN = """
( (S (NP-SBJ-1 (NNP Mr.) (NNP|NN Vinken)) (VP (VBZ is) (S=2 (NP-SBJ (-NONE- *-1)) (ADJP|NP (JJ old)))) (. .)) )
( (NP (-NONE- *)) )
( (FRAG (-LRB- -LRB-) (PRP$ my)) )
"""
CLEAN = [
    "(S (NP (NNP Mr.) (NNP Vinken)) (VP (VBZ is) (S old)) (. .))",
    "(FRAG (-LRB- () (PRP$ my))",
]


def test_the_penn_treebank_by_file_name(put):
    assert brackets(train=str(put(PENN, "train.mrg")), binarize="none") == CLEAN
    assert brackets(train=str(put(gzip.compress(PENN.encode()), "train.mrg.gz")), binarize="none") == CLEAN
    plain = brackets(train=str(put(PENN, "train.ptb")), binarize="none")
    assert plain[0].startswith("(S (NP-SBJ-1 (") and plain[1] == "(NP *)" and len(plain) == 3


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A folder in NLTK's form of treebank, in place of the corpora of the machine."""
    folder = tmp_path / "nltk" / "corpora" / "treebank" / "combined"
    folder.mkdir(parents=True)
    for number in range(10):
        (folder / f"wsj_000{number}.mrg").write_text(PENN.replace("my", f"m{number}"))
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path / "nltk")])
    loader = LazyCorpusLoader("treebank/combined", BracketParseCorpusReader, r"wsj_.*\.mrg")
    monkeypatch.setattr(nltk.corpus, "treebank", loader)
    return folder


def test_nltk_treebank(corpus):
    found = brackets(source="nltk:treebank", binarize="none")
    assert len(found) == 20 and found[:2] == [CLEAN[0], CLEAN[1].replace("my", "m0")]
    assert read_forest(TreesData(source="nltk:treebank"), "train").info.description == (
        "nltk, 9 labels, binarized to the right"
    )
    assert len(brackets(source="nltk:treebank:wsj_0004", labels="none")) == 2
    options = {"source": "nltk:treebank", "hold_out": 0.2, "binarize": "none"}
    parts = [brackets(split, **options) for split in ("train", "valid", "test")]
    assert list(map(len, parts)) == [12, 4, 4] and sorted(row for part in parts for row in part) == sorted(found)
    said = "nltk:treebank: this corpus is not split: no test data; data.hold_out = 0.1 takes a tenth of the training "
    with pytest.raises(MissingSplit, match=re.escape(said)):
        read("test", source="nltk:treebank")
    with pytest.raises(DataError, match=re.escape("nltk:treebank:x: no file of this corpus has a name that begins")):
        read(source="nltk:treebank:x")
    (corpus / "wsj_0007.mrg").write_text("\n( (S (NN a))")
    with pytest.raises(DataError, match=re.escape("nltk:treebank: wsj_0007.mrg:2: column 1: the tree that begins")):
        read(source="nltk:treebank")
    with pytest.raises(DataError, match=re.escape("wsj_0000.mrg:2: column 4: label 'S'; expected a whole number from")):
        read(source="nltk:treebank", scale=5)


def test_sources_that_do_not_do(tmp_path, corpus, monkeypatch):
    monkeypatch.setattr(nltk.corpus, "texts", PlaintextCorpusReader(str(corpus), ".*"), raising=False)
    with pytest.raises(DataError, match=r"^nltk:texts: this corpus has no bracketed trees; treebank has$"):
        read(source="nltk:texts")
    with pytest.raises(DataError, match=r"^hub:a/b: trees are not read from hub datasets; save them in brackets$"):
        read(source="hub:a/b")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    loader = LazyCorpusLoader("treebank/combined", BracketParseCorpusReader, r"wsj_.*\.mrg")
    monkeypatch.setattr(nltk.corpus, "treebank", loader)
    with pytest.raises(DataError, match=r"not downloaded; to download it: python -m nltk\.downloader treebank$"):
        read(source="nltk:treebank")


def test_the_sample():
    rows = read("valid")
    expected = list(tree_sample("valid"))
    assert [row["tokens"] for row in rows] == [tree.leaves for tree in expected]
    assert [row["labels"][0] for row in rows] == [tree.labels[-1] for tree in expected]
    assert read_forest(TreesData(), "valid").info.description == "sample, 5 labels, binarized to the right"
    assert 400 < len(read("valid", labels="binary", scale=5)) < 500
    with pytest.raises(
        DataError, match=r"^sample:\d+: label '\d'; expected a whole number from 0 to 2 \(data\.scale\)$"
    ):
        read("valid", scale=3)


# The cache


def test_what_changes_the_rows_changes_the_cache_and_nothing_else_does(put, cache_folder, monkeypatch):
    path = put(TREE, "train.txt")
    first = read(train=str(path))
    monkeypatch.setattr(trees, "level_order", None)  # read from the cache alone
    assert read(train=str(put(TREE, "moved.txt"))) == first
    monkeypatch.undo()
    monkeypatch.setenv("SEQTEXT_CACHE", str(cache_folder))
    for options in ({"binarize": "left"}, {"binarize": "none"}, {"structure": "left"}, {"labels": "none"}):
        before = set(cache_folder.glob("trees-*"))
        read(train=str(path), **options)
        assert len(set(cache_folder.glob("trees-*")) - before) == 1


def test_deep_trees(put):
    deep = 10_000
    path = put("(1 (0 y)\n" * deep + "(2 x)" + ")" * deep, "train.txt")
    (row,) = read(train=str(path))
    assert row["depths"][-1] == deep and len(row["labels"]) == 2 * deep + 1
    assert next(read_trees(path))[1].leaves == row["tokens"]
