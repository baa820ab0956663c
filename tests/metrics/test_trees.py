"""Scores of trees against their definitions worked out node by node on nested tuples, and cases worked by hand."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.metrics.trees import Bucket, Row, bracketing_f1, polarities, score

FIVE = list("01234")
WORDS = ["but", "But", "not", "doesn\u2019t", "n't", ",", "--", "good", "bad", "film", "is"]
RIGHT = {"0": (0.7, 0.1, 0.1, 0.1, 0.0), "1": (0.1, 0.6, 0.1, 0.1, 0.1), "2": (0.1, 0.1, 0.5, 0.2, 0.1)}
RIGHT |= {"3": RIGHT["1"][::-1], "4": RIGHT["0"][::-1]}


class Node(NamedTuple):
    """A node of an oracle's tree: `inside` is its word or its children."""

    label: str
    chances: tuple
    inside: object

    @property
    def children(self):
        return () if isinstance(self.inside, str) else self.inside

    @property
    def best(self):
        return FIVE[self.chances.index(max(self.chances))]


CHANCES = st.lists(st.integers(0, 4), min_size=5, max_size=5).filter(any)
CHANCES = CHANCES.map(lambda row: tuple(number / sum(row) for number in row))
LABELS = st.sampled_from(["", *FIVE, *FIVE])
LEAVES = st.builds(Node, LABELS, CHANCES, st.sampled_from(WORDS))
TREES = st.recursive(
    LEAVES,
    lambda below: st.builds(Node, LABELS, CHANCES, st.lists(below, min_size=2, max_size=3).map(tuple)),
    max_leaves=9,
)


def read(text):
    """A tree from `(3 (2 not) ...)`, predicted as it is; `3/1` is labelled 3 and taken for 1, `-` not labelled."""
    stack = [[]]
    for piece in text.replace("(", " ( ").replace(")", " ) ").split():
        if piece == "(":
            stack.append([])
        elif piece == ")":
            (label, *inside) = stack.pop()
            gold, _, predicted = label.partition("/")
            inside = inside[0] if isinstance(inside[0], str) else tuple(inside)
            stack[-1].append(Node(gold.strip("-"), RIGHT[predicted or gold.replace("-", "2")], inside))
        else:
            stack[-1].append(piece)
    return stack[0][0]


def spans(tree):
    """[(node, start, end)] in level order."""

    def placed(node, start):
        end, below = start, []
        for child in node.children:
            below.append(placed(child, end))
            end = below[-1][2]
        return node, start, end if below else start + 1, below

    found, queue = [], deque([placed(tree, 0)])
    while queue:
        node, start, end, below = queue.popleft()
        found.append((node, start, end))
        queue.extend(below)
    return found


def words(tree):
    return [tree.inside] if not tree.children else [word for child in tree.children for word in words(child)]


def scored(trees, **options):
    nodes = [spans(tree) for tree in trees]
    return score(
        [[node.label for node, _, _ in part] for part in nodes],
        [np.array([node.chances for node, _, _ in part], dtype=np.float32) for part in nodes],
        FIVE,
        tokens=[words(tree) for tree in trees],
        arities=[[len(node.children) for node, _, _ in part] for part in nodes],
        starts=[[start for _, start, _ in part] for part in nodes],
        ends=[[end for _, _, end in part] for part in nodes],
        **options,
    )


def positive(node):
    chances = np.array(node.chances, dtype=np.float32).astype(float)
    return chances[3] + chances[4] > chances[0] + chances[1]


def mean(node):
    return (np.array(node.chances, dtype=np.float32).astype(float) * np.linspace(-1, 1, 5)).sum()


def side(label):
    return "" if label in ("", "2") else label > "2"


def by_definition(trees):
    """{name: [right or not of each case]}, node by node."""
    cases = {name: [] for name in ("root", "nodes", "binary_root", "binary_nodes", "but", "positive", "negative")}
    for tree in trees:
        placed, tokens = spans(tree), [word.lower() for word in words(tree)]
        for number, (node, start, end) in enumerate(placed):
            kinds = ("root", "nodes") if number == 0 else ("nodes",)
            for kind in kinds:
                if node.label:
                    cases[kind].append(node.best == node.label)
                if side(node.label) != "":
                    cases["binary_" + kind].append(positive(node) == side(node.label))
            if node.children:
                last = node.children[-1]
                width = end - start - len(words(last))
                if width > 2 or tokens[start + width - 1] not in ("not", "n't", "doesn\u2019t"):
                    continue
                if side(last.label) is True and side(node.label) is False:
                    cases["positive"].append(bool(positive(last) and not positive(node)))
                if side(last.label) is False and node.label > last.label:
                    cases["negative"].append(bool(mean(node) > mean(last)))
        for but in (number for number, token in enumerate(tokens) if token == "but"):
            left = [entry for entry in placed if entry[2] == but]
            stop = but
            while left and max(end - start for _, start, end in left) == 1 and tokens[stop - 1] in (",", "--"):
                stop -= 1
                left = [entry for entry in placed if entry[2] == stop]
            right = [entry for entry in placed if entry[1] == but + 1]
            if not left or not right:
                continue
            x, y = (max(some, key=lambda entry: entry[2] - entry[1]) for some in (left, right))
            z = min(
                (entry for entry in placed if entry[1] <= but and entry[2] >= y[2]),
                key=lambda entry: entry[2] - entry[1],
            )
            three = [entry[0] for entry in (x, y, z)]
            if all(node.label for node in three) and three[0].label != three[1].label:
                cases["but"].append(all(node.best == node.label for node in three))
    return cases


@given(st.lists(TREES, min_size=1, max_size=5))
def test_equals_the_definitions(trees):
    cases = by_definition(trees)
    if not cases["nodes"]:
        with pytest.raises(ValueError, match="no labelled node to score"):
            scored(trees)
        return
    found = scored(trees)
    names = ["root", "nodes", "binary_root", "binary_nodes", "but", "negated_positive", "negated_negative"]
    expected = dict(zip(names, cases.values()))
    assert found.flat() == {name: pytest.approx(np.mean(some)) for name, some in expected.items() if some}
    assert [row[2:] for row in found.table()] == [(sum(some), len(some)) for some in expected.values() if some]


def test_the_four_figures_by_hand():
    trees = [
        read("(4/3 (2 It) (4 (2 is) (3 good)))"),
        read("(2/1 (1/0 Bad) (- film))"),
        read("(0/4 awful)"),
    ]
    found = scored(trees)
    # The roots are taken for 3, 1 and 4. A neutral one has no side; the last word of the second tree has no label.
    assert found.table()[:4] == [
        Row("root", 0.0, 0, 3),
        Row("all nodes", 4 / 8, 4, 8),
        Row("root, two classes", 1 / 2, 1, 2),
        Row("all nodes, two classes", 4 / 5, 4, 5),
    ]
    assert list(found.flat()) == ["root", "nodes", "binary_root", "binary_nodes"]
    assert found.settings.startswith("accuracy over 5 classes at roots and at all labelled nodes, leaves included; two")


def test_two_classes_are_decided_by_all_of_a_side_and_not_by_the_likeliest_class():
    likeliest_negative = (0.4, 0.0, 0.1, 0.25, 0.25)
    found = scored([Node("4", likeliest_negative, "fine")])
    assert found.root == (0, 1) and found.binary_root == (1, 1)
    assert scored([Node("1", (0.5, 0.0, 0.0, 0.25, 0.25), "tie")]).binary_root == (1, 1)


BUT = "(3 (3 (1{x} (1 slow) (2 ,)) (2 but)) (4{y} (4 wonderful)(2 film)))"
RIGHT_BUT = "(2/1 (1 (2 slow) (1 part)) (2 (2 ,) (3{z} (2 but) (3 wonderful))))"


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        (BUT.format(x="", y=""), (1, 1)),
        (BUT.format(x="/2", y=""), (0, 1)),
        (BUT.format(x="", y="/3"), (0, 1)),
        (BUT.format(x="", y="").replace("(3 (3", "(3/2 (3"), (0, 1)),
        (BUT.format(x="", y="").replace("(3 (3", "(3 (3/0"), (1, 1)),  # [X but] is none of the three
        (RIGHT_BUT.format(z=""), (1, 1)),  # the comma is passed over, and Z is [but Y], not the root
        (RIGHT_BUT.format(z="/4"), (0, 1)),
        (BUT.format(x="", y="").replace("(4 (4 w", "(1 (4 w"), (0, 0)),  # X and Y of the same class
        (BUT.format(x="", y="").replace("(4 (4 w", "(- (4 w"), (0, 0)),
        ("(2 (2 But) (3 (3 good)(2 film)))", (0, 0)),
        ("(3 (3 good) (2 but))", (0, 0)),
        ("(3 (2 ,) (3 (2 but) (3 good)))", (0, 0)),
        ("(3 (1 poor) (2 but) (3 good))", (1, 1)),  # siblings
    ],
)
def test_x_but_y(text, counts):
    assert scored([read(text)]).but == counts


@pytest.mark.parametrize(
    ("text", "fell", "rose"),
    [
        ("(1 (2 not) (3 good))", (1, 1), (0, 0)),
        ("(1/3 (2 not) (3 good))", (0, 1), (0, 0)),
        ("(1 (2 not) (3/1 good))", (0, 1), (0, 0)),
        ("(0 (2 (2 Does) (2 N'T)) (4 (3 work) (3 well)))", (1, 1), (0, 0)),
        ("(1 (2 does) (1 (2 n't) (3 work)))", (1, 1), (0, 0)),  # once, though "does" is before "n't work"
        ("(1 (2 this) (2 is) (2 not) (3 good))", (0, 0), (0, 0)),  # three words before the last child
        ("(1 (2 not) (2 a) (3 success))", (0, 0), (0, 0)),  # the negator is not beside the last child
        ("(2 (2 not) (3 good))", (0, 0), (0, 0)),
        ("(2 (2 not) (1 bad))", (0, 0), (1, 1)),
        ("(2/0 (2 not) (1 bad))", (0, 0), (0, 1)),
        ("(1 (2 never) (0 awful))", (0, 0), (1, 1)),
        ("(1 (2 not) (1 bad))", (0, 0), (0, 0)),
        ("(3 (2 can\u2019t) (0 fail))", (0, 0), (1, 1)),
        ("(3 (2 very) (0 awful))", (0, 0), (0, 0)),
    ],
)
def test_negation(text, fell, rose):
    found = scored([read("(2 none)"), read(text)])  # places in the second tree, not the first
    assert (found.negated_positive, found.negated_negative) == (fell, rose)


def test_less_negative_need_not_be_less_often_negative():
    inside = Node("2", RIGHT["2"], "not"), Node("0", (0.7, 0.1, 0.2, 0, 0), "awful")
    assert scored([Node("1", (0.1, 0.8, 0.1, 0, 0), inside)]).negated_negative == (1, 1)


def test_lengths():
    trees = [read("(3 a)"), read("(3/2 (3 a) (2 b))"), read("(- (2 a) (- b))"), read("(1 b)")]
    trees.append(read("(4 (3 (3 a) (3 b)) (3 (3 c) (3/4 d)))"))
    assert scored(trees, edges=(2, 3, 4)).lengths == (
        Bucket(1, 1, 2, (2, 2), (2, 2)),
        Bucket(2, 2, 2, (0, 1), (3, 4)),
        Bucket(4, None, 1, (1, 1), (6, 7)),
    )
    assert [(bucket.shortest, bucket.longest) for bucket in scored(trees).lengths] == [(1, 9)]
    with pytest.raises(ValueError, match="each larger than the one before"):
        scored(trees, edges=(3, 3))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (list("01234"), (-1, -0.5, 0, 0.5, 1)),
        (list("2104"), None),
        (list("120"), (0, 1, -1)),
        (["positive", "negative"], (1, -1)),
        (["neutral", "negative", "positive"], (0, -1, 1)),
        (["NP", "VP"], None),
        (["0"], None),
    ],
)
def test_polarities(labels, expected):
    assert polarities(labels) == expected


def test_other_classes():
    plain = {"arities": [[2, 0, 0]], "starts": [[0, 0, 1]], "ends": [[2, 1, 2]], "tokens": [["not", "good"]]}
    gold, chances = [["b", "", "a"]], [[[0.4, 0.6], [1, 0], [0.1, 0.9]]]
    found = score(gold, chances, ["a", "b"], **plain)
    assert found.flat() == {"root": 1.0, "nodes": 0.5} and found.but is None and "two" not in found.settings
    sides = {"a": "positive", "b": "negative", "": ""}
    found = score([[sides[label] for label in gold[0]]], chances, ["positive", "negative"], **plain)
    assert found.flat() == {
        "root": 1.0, "nodes": 0.5, "binary_root": 1.0, "binary_nodes": 0.5, "negated_positive": 0.0
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"gold": [["", ""]]}, "no labelled node to score"),
        ({"gold": []}, "arities are not of the same trees as the gold labels: other numbers of nodes"),
        ({"gold": [["x", "a"]]}, "label 'x' is not one of a, b"),
        ({"ends": [[1]]}, "ends are not of the same trees as the gold labels: other numbers of nodes"),
        ({"arities": [[2, 0]]}, "tree 0, counted from 0: 2 nodes, but arities that add up to 2"),
        ({"tokens": []}, "1 trees, but tokens of 0 sentences"),
        ({"probabilities": []}, "1 trees, but probabilities of 0"),
        ({"probabilities": [[[1.0], [1.0]]]}, "tree 0, counted from 0: probabilities of shape (2, 1), expected (2, 2)"),
    ],
)
def test_what_cannot_be_scored(change, said):
    given_ = {
        "gold": [["a", "b"]], "probabilities": [[[1, 0], [0, 1]]], "labels": ["a", "b"],
        "tokens": [["w"]], "arities": [[1, 0]], "starts": [[0, 0]], "ends": [[1, 1]],
    }  # fmt: skip
    with pytest.raises(ValueError) as raised:
        score(**(given_ | change))
    assert str(raised.value) == said


def test_bracketing():
    gold = [
        [(0, 4), (0, 2), (2, 4), (0, 1), (1, 2), (2, 3), (3, 4)],
        [(0, 2), (0, 1), (1, 2)],
        [(0, 3), (1, 3), (1, 3)],
    ]
    predicted = [[(0, 4), (1, 4), (2, 4), (0, 1)], [(0, 2)], [(1, 3)]]
    found = bracketing_f1([iter(spans) for spans in gold], predicted, [4, 2, 3])
    assert found == (3, 3, 2) and found.f1 == pytest.approx(2 / 3)
    assert bracketing_f1([[(0, 3), (0, 2)]], [[(1, 3), (0, 3)]], [3]).f1 == 0.0
    # Micro: the small tree weighs little.
    many = [(0, end) for end in range(2, 11)]
    assert bracketing_f1([many, [(0, 2)]], [many, [(1, 3)]], [10, 3]).recall == pytest.approx(8 / 9)
    with pytest.raises(ValueError, match="2 gold trees, 1 predicted, 2 lengths"):
        bracketing_f1([[], []], [[]], [1, 1])
