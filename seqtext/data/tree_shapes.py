"""What is done to the shape of a tree: traces cut out, unary chains collapsed, nodes binarised, other bracketings of
the same words; and trees in level order, the form that forests are computed in.

Every function takes a `Tree` in post-order and gives a new one, or the same where there is nothing to do. None
recurses, so that a chain of ten thousand nodes is a tree like any other.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from seqtext.data.brackets import Tree

Side = Literal["left", "right"]
Shape = Literal["left", "right", "balanced"]


class Levels(NamedTuple):
    """N nodes breadth first: by depth, the root first; within a depth from left to right.

    The children of a depth's nodes are, in order, all nodes of the next depth; so arities alone tell the structure, and
    the children of a node stand side by side.
    """

    labels: list[str]
    """(N,) "" where a node has none."""
    arities: list[int]
    """(N,) number of children; 0 for a node that holds one word itself."""
    starts: list[int]
    """(N,) the first word of each node."""
    ends: list[int]
    """(N,) the word after the last word of each node."""
    depths: list[int]
    """(N,) from 0 at the root, never falling."""


def level_order(tree: Tree) -> Levels:
    """The nodes of a tree in level order."""
    children = tree.children
    level = [len(children) - 1]
    order: list[int] = []
    depths: list[int] = []
    while level:
        depths += [depths[-1] + 1 if depths else 0] * len(level)
        order += level
        level = [child for node in level for child in children[node]]
    return Levels(
        labels=[tree.labels[node] for node in order],
        arities=[len(children[node]) for node in order],
        starts=[tree.starts[node] for node in order],
        ends=[tree.ends[node] for node in order],
        depths=depths,
    )


def prune(tree: Tree, label: str) -> Tree | None:
    """Without the words whose own node has this label, and without the nodes that this leaves empty.

    For the Treebank's traces, `(NP-SBJ (-NONE- *T*-1))`. None where no word is left.
    """
    if label not in tree.labels:
        return tree
    new = Tree([], [], [], [], [])
    moved: list[int] = []  # the new number of each node, -1 where it is gone
    for node, children in enumerate(tree.children):
        below = tuple([moved[child] for child in children if moved[child] >= 0])
        if below:
            moved.append(_append(new, tree.labels[node], below))
        elif children or tree.labels[node] == label:
            moved.append(-1)
        else:
            moved.append(_append_leaf(new, tree.labels[node], tree.leaves[tree.starts[node]]))
    return new if new.labels else None


def collapse(tree: Tree) -> Tree:
    """Without unary chains: a node of a single child becomes one with it.

    What is left of a chain has the label of its highest node that has one, so that `( (S (NP (NN dogs))))` is
    `(S dogs)`.
    """
    if not any(len(children) == 1 for children in tree.children):
        return tree
    new = Tree(tree.leaves, [], [], [], [])
    moved: list[int] = []
    for node, (label, children) in enumerate(zip(tree.labels, tree.children)):
        if len(children) == 1:
            moved.append(moved[children[0]])
            if label:
                new.labels[moved[node]] = label
        else:
            moved.append(len(new.labels))
            _copy(tree, node, new, tuple([moved[child] for child in children]))
    return new


def binarize(tree: Tree, side: Side) -> Tree:
    """With at most two children a node: those of more are parted by new nodes without label.

    `right` parts the first child from the rest, `(X a b c)` to `(X a (b c))`; `left` the last, to `(X (a b) c)`. No
    child counts as head.
    """
    if all(len(children) <= 2 for children in tree.children):
        return tree
    new = Tree(tree.leaves, [], [], [], [])
    moved: list[int] = []
    # The siblings to the left of a node that ends a left-branching part, which must come right after it.
    before = {
        child: children[0]
        for children in tree.children
        if side == "left" and len(children) > 2
        for child in children[1:-1]
    }
    for node, children in enumerate(tree.children):
        below = [moved[child] for child in children]
        if len(below) > 2:
            if side == "left":
                below = [moved[children[-2]], below[-1]]
            while len(below) > 2:
                last = below.pop()
                below[-1] = _append(new, "", (below[-1], last))
        moved.append(len(new.labels))
        _copy(tree, node, new, tuple(below))
        if node in before:
            # From here on the node stands for itself and all its siblings to the left.
            left = moved[before[node]]
            moved[before[node]] = moved[node] = _append(new, "", (left, moved[node]))
    return new


def reshape(tree: Tree, shape: Shape) -> Tree:
    """The same words under another, binary bracketing.

    `left` is `(((a b) c) d)`, `right` is `(a (b (c d)))`, `balanced` halves every span, the odd word to the left. A
    span has the label that the tree has for the same words (the highest one of a unary chain), as the root and the
    leaves always do; other spans have none.
    """
    labels: dict[tuple[int, int], str] = {}
    for label, start, end in zip(tree.labels, tree.starts, tree.ends):
        if label:
            labels[start, end] = label
    # A node, then its right part, then its left part: post-order backwards.
    spans: list[tuple[int, int]] = []
    todo = [(0, len(tree.leaves))]
    while todo:
        start, end = todo.pop()
        spans.append((start, end))
        if end - start > 1:
            middle = {"left": end - 1, "right": start + 1, "balanced": (start + end + 1) // 2}[shape]
            todo += [(start, middle), (middle, end)]
    new = Tree(tree.leaves, [], [], [], [])
    waiting: list[int] = []  # nodes whose parent has not come yet
    for start, end in reversed(spans):
        children: tuple[int, ...] = ()
        if end - start > 1:
            right, left = waiting.pop(), waiting.pop()
            children = (left, right)
        waiting.append(len(new.labels))
        new.labels.append(labels.get((start, end), ""))
        new.starts.append(start)
        new.ends.append(end)
        new.children.append(children)
    return new


def _append(new: Tree, label: str, children: tuple[int, ...]) -> int:
    """Append a node above `children`, and return its number."""
    new.labels.append(label)
    new.starts.append(new.starts[children[0]])
    new.ends.append(new.ends[children[-1]])
    new.children.append(children)
    return len(new.labels) - 1


def _append_leaf(new: Tree, label: str, word: str) -> int:
    new.leaves.append(word)
    new.labels.append(label)
    new.starts.append(len(new.leaves) - 1)
    new.ends.append(len(new.leaves))
    new.children.append(())
    return len(new.labels) - 1


def _copy(tree: Tree, node: int, new: Tree, children: tuple[int, ...]) -> None:
    """Append a node of `tree` over the same words, with these children."""
    new.labels.append(tree.labels[node])
    new.starts.append(tree.starts[node])
    new.ends.append(tree.ends[node])
    new.children.append(children)
