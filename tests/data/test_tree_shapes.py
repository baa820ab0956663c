"""Shapes of trees against nltk's transforms and against plain recursion, on random trees and on very deep ones."""

import nltk
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.data.brackets import Tree, parse_trees, top_label
from seqtext.data.tree_shapes import binarize, collapse, level_order, prune, reshape

LABEL = st.sampled_from(["3", "NP", "S", "VP"])
LEAVES = st.builds(nltk.Tree, LABEL | st.just("-NONE-") | st.just("?"), st.lists(LABEL, min_size=1, max_size=1))
TREES = st.recursive(
    LEAVES,
    lambda below: st.builds(nltk.Tree, LABEL | st.just("?"), st.lists(below, min_size=1, max_size=5)),
    max_leaves=14,
)


def ours(tree):
    """nltk's tree as ours, by recursion: post-order, "?" standing for no label."""
    found = Tree([], [], [], [], [])

    def add(node):
        start = len(found.leaves)
        below = () if isinstance(node[0], str) else tuple([add(child) for child in node])
        if not below:
            found.leaves.append(node[0])
        for column, value in zip(found[1:], (node.label().replace("?", ""), start, len(found.leaves), below)):
            column.append(value)
        return len(found.labels) - 1

    add(tree)
    return found


def one(text):
    ((_, tree),) = parse_trees([(1, text)], "t")
    return tree


def written(tree, node=-1):
    """Brackets, by recursion."""
    inside = " ".join(written(tree, child) for child in tree.children[node]) or tree.leaves[tree.starts[node]]
    return f"({tree.labels[node] or '?'} {inside})"


@given(TREES)
def test_unary_chains_collapse_as_in_nltk(tree):
    expected = tree.copy(deep=True)
    expected.collapse_unary(collapsePOS=True, collapseRoot=True, joinChar="+")
    for node in expected.subtrees():
        node.set_label(next((part for part in node.label().split("+") if part != "?"), "?"))
    found = collapse(ours(tree))
    assert found == ours(expected)
    assert found.labels[-1] == top_label(ours(tree))


@given(TREES, st.sampled_from(["left", "right"]))
def test_binary_trees_are_those_of_nltk(tree, side):
    expected = tree.copy(deep=True)
    expected.chomsky_normal_form(factor=side, childChar="|")
    for node in expected.subtrees(lambda node: "|<" in node.label()):
        node.set_label("?")
    assert binarize(ours(tree), side) == ours(expected)


@given(TREES)
def test_pruning_against_recursion(tree):
    def kept(node):
        if isinstance(node[0], str):
            return None if node.label() == "-NONE-" else node
        below = [child for child in map(kept, node) if child is not None]
        return nltk.Tree(node.label(), below) if below else None

    expected = kept(tree)
    assert prune(ours(tree), "-NONE-") == (None if expected is None else ours(expected))


@given(TREES)
def test_level_order_against_recursion(tree):
    rows = []

    def visit(node, depth, start):
        end = start
        row = (depth, len(rows))  # sorted by depth and then in pre-order, which goes from left to right
        rows.append(row)
        inner = not isinstance(node[0], str)
        for child in node if inner else ():
            end = visit(child, depth + 1, end)
        end = end if inner else start + 1
        rows[row[1]] = (*row, node.label().replace("?", ""), len(node) if inner else 0, start, end)
        return end

    visit(tree, 0, 0)
    found = level_order(ours(tree))
    rows.sort()
    assert list(zip(found.depths, *found[:4])) == [(row[0], *row[2:]) for row in rows]


@given(TREES)
def test_arities_alone_tell_the_structure(tree):
    levels = level_order(ours(tree))
    first = 1  # the children of all nodes, in order, are all nodes but the root
    for arity, start, end in zip(levels.arities, levels.starts, levels.ends):
        edges = [*levels.starts[first : first + arity], end]
        assert edges == [start, *levels.ends[first : first + arity]] if arity else end == start + 1
        first += arity
    assert first == len(levels.labels)


@given(TREES, st.sampled_from(["left", "right", "balanced"]))
def test_other_bracketings_against_recursion(tree, shape):
    gold = {}
    for node in tree.subtrees():
        node.set_label(node.label().replace("?", ""))

    def spans(node, start):
        end = start
        if isinstance(node[0], str):
            end = start + 1
        else:
            for child in node:
                end = spans(child, end)
        if node.label():
            gold[start, end] = node.label()  # the highest of a chain comes last
        return end

    size = spans(tree, 0)
    words = tree.leaves()

    def build(start, end):
        label = gold.get((start, end), "?")
        if end - start == 1:
            return f"({label} {words[start]})"
        middle = {"left": end - 1, "right": start + 1, "balanced": start + (end - start + 1) // 2}[shape]
        return f"({label} {build(start, middle)} {build(middle, end)})"

    found = reshape(ours(tree), shape)
    assert written(found) == build(0, size)
    assert found == ours(nltk.Tree.fromstring(build(0, size)))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tree: binarize(tree, "right"), "(4 (2 a) (? (3 b) (? (1 c) (? (0 d) (2 e)))))"),
        (lambda tree: binarize(tree, "left"), "(4 (? (? (? (2 a) (3 b)) (1 c)) (0 d)) (2 e))"),
        (lambda tree: reshape(tree, "balanced"), "(4 (? (? (2 a) (3 b)) (1 c)) (? (0 d) (2 e)))"),
        (lambda tree: prune(tree, "0"), "(4 (2 a) (3 b) (1 c) (2 e))"),
    ],
)
def test_by_hand(change, expected):
    assert written(change(one("(4 (2 a) (3 b) (1 c) (0 d) (2 e))"))) == expected


def test_a_span_keeps_its_label_under_another_bracketing():
    tree = one("(4 (3 (2 a) (1 b)) (0 (2 c) (3 (4 d) (2 e))))")
    assert written(reshape(tree, "left")) == "(4 (? (? (3 (2 a) (1 b)) (2 c)) (4 d)) (2 e))"
    assert written(reshape(tree, "right")) == "(4 (2 a) (? (1 b) (0 (2 c) (3 (4 d) (2 e)))))"


DEEP = 10_000


def test_deep_trees_need_no_recursion():
    chain = one("(1 " * DEEP + "(2 x)" + ")" * DEEP)
    assert collapse(chain) == Tree(["x"], ["1"], [0], [1], [()])
    branching = one("(1 (3 y) (3 z) " * DEEP + "(2 x)" + ")" * DEEP)
    for side in ("left", "right"):
        found = binarize(branching, side)
        levels = level_order(found)
        assert max(levels.arities) == 2 and len(levels.labels) == 2 * (2 * DEEP + 1) - 1
        assert max(levels.depths) == (DEEP + 1 if side == "left" else 2 * DEEP)
    pruned = prune(branching, "3")
    assert len(pruned.labels) == DEEP + 1 and pruned.leaves == ["x"]
    assert max(level_order(reshape(branching, "left")).depths) == 2 * DEEP
    assert max(level_order(reshape(branching, "balanced")).depths) == (2 * DEEP).bit_length()


@given(TREES)
def test_what_has_nothing_to_change_stays(tree):
    whole = collapse(ours(tree))
    binary = binarize(whole, "left")
    assert collapse(whole) is whole and binarize(binary, "right") is binary and prune(whole, "x") is whole
