"""Bracketed trees against nltk's reader on random ones, and every fault told by line and column."""

import gzip
import re

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.data.brackets import Tree, parse_trees, read_trees, unescape
from seqtext.errors import DataError


def parse(text):
    return list(parse_trees(enumerate(text.splitlines(), start=1), "t"))


def flat(tree):
    """nltk's tree as ours, by recursion: post-order, with a node for each word that has siblings."""
    ours = Tree([], [], [], [], [])

    def add(label, start, children):
        ours.labels.append(label)
        ours.starts.append(start)
        ours.ends.append(len(ours.leaves))
        ours.children.append(children)
        return len(ours.labels) - 1

    def visit(node):
        start = len(ours.leaves)
        if isinstance(node, str) or [type(child) for child in node] == [str]:
            label, word = ("", node) if isinstance(node, str) else (node.label(), node[0])
            ours.leaves.append(unescape(word))
            return add(label, start, ())
        return add(node.label(), start, tuple([visit(child) for child in node]))

    visit(tree)
    return ours


WORD = st.sampled_from(["a", "can't", "-LRB-", "-", "1\\/2", "-LRB-x", "\\*", "Zoë", "8\u00a01", "[", "3"])
LABEL = st.sampled_from(["3", "NP", "S-TPC-1", "-NONE-", "0\u00a0"])
TREES = st.recursive(
    st.builds(nltk.Tree, LABEL, st.lists(WORD, min_size=1, max_size=1)),
    lambda below: (
        st.builds(nltk.Tree, LABEL | st.just(""), st.lists(below, min_size=1, max_size=3))
        | st.builds(nltk.Tree, LABEL, st.lists(below | WORD, min_size=1, max_size=3))
    ),
    max_leaves=12,
)


@given(st.lists(TREES, max_size=4), st.sampled_from([10, 1000]), st.sampled_from(["\n", " ", "", "\n\n"]))
def test_equals_nltk_however_it_is_laid_out(trees, margin, between):
    written = [tree.pformat(margin=margin) for tree in trees]
    found = parse(between.join(written))
    # nltk parts words at no-break spaces too, so it builds the trees here and does not read them.
    assert [tree for _, tree in found] == [flat(tree) for tree in trees]
    if between == "\n\n":
        lines = [1 + sum(text.count("\n") + 2 for text in written[:n]) for n in range(len(written))]
        assert [line for line, _ in found] == lines
    ascii_only = [text for text in written if "\u00a0" not in text]
    assert [flat(nltk.Tree.fromstring(text)) for text in ascii_only] == [
        tree for text in ascii_only for _, tree in parse(text)
    ]


def test_a_tree_by_hand():
    found = parse("( (3 (2 Not)\n(3 (2 -LRB-) good\\*ish (2\n1\\/2))) )")
    assert found == [
        (
            1,
            Tree(
                leaves=["Not", "(", "good*ish", "1/2"],
                labels=["2", "2", "", "2", "3", "3", ""],
                starts=[0, 1, 2, 3, 1, 0, 0],
                ends=[1, 2, 3, 4, 4, 4, 4],
                children=[(), (), (), (), (1, 2, 3), (0, 4), (5,)],
            ),
        )
    ]


def test_files_are_streamed_plain_or_gzipped(tmp_path):
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress(b"(1 a) (2 b)\n\n(3\n c)\n(4 d"))
    trees = read_trees(path)
    assert [(line, tree.labels, tree.leaves) for line, tree in (next(trees), next(trees), next(trees))] == [
        (1, ["1"], ["a"]),
        (1, ["2"], ["b"]),
        (3, ["3"], ["c"]),
    ]
    with pytest.raises(DataError, match=re.escape(f"{path}:5: column 1: the tree that begins here never ends")):
        next(trees)


def test_a_deep_tree_needs_no_recursion():
    deep = 5000
    ((_, tree),) = parse("(1 " * deep + "(2 x)" + " (3 y))" * deep)
    assert len(tree.labels) == 2 * deep + 1 and tree.children[-1] == (2 * deep - 2, 2 * deep - 1)
    assert (tree.starts[-1], tree.ends[-1]) == (0, deep + 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("(1 a)\n(2 (3 b)", '2: column 1: the tree that begins here never ends: 1 bracket is not closed; expected ")"'),
        ("(2 (3 b\n\n", '1: column 1: the tree that begins here never ends: 2 brackets are not closed; expected ")"'),
        ("(1 a)\n (1 b))", '2: column 7: ")" closes nothing: one bracket too many'),
        ("(1 (2 b) ())", "1: column 10: empty node; expected (label word) or (label (label word) ...)"),
        ("(1\n (NP ) (2 b))", "2: column 2: node 'NP' has no word and no node in it; expected (label word) or"),
        ("(1)", "1: column 1: node '1' has no word and no node in it"),
        ("(1 a) so (2 b)", "1: column 7: found 'so' outside of brackets; expected (label word) or (label"),
    ],
)
def test_faults(text, said):
    with pytest.raises(DataError) as raised:
        parse(text)
    assert str(raised.value)[: len(said) + 2] == f"t:{said}"
