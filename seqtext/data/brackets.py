"""Trees in Penn Treebank brackets, `(3 (2 Not) (3 (2 at) (2 all)))`, read one at a time from files of any size.

A tree becomes flat lists over its nodes in post-order (children before their parent, the root last), the form that
array code wants and that needs no recursion however deep a tree is. What counts as label, word and escape is as in
`nltk.Tree.fromstring` and the Treebank's readers; unlike there, only ASCII white space parts words, since treebanks
have words with a no-break space in them (`8\u00a01\\/2`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from seqtext.data.text import open_text, refuse_nul
from seqtext.errors import DataError

BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
"""How the Treebank writes words that are brackets."""
ESCAPE = re.compile(r"\\([/*])")
# A whole `(label word)` is one piece, since most nodes are such; else a bracket, or a label or word by itself.
PIECE = re.compile(r"\(\s*([^()\s]+)\s+([^()\s]+)\s*\)|([()])|([^()\s]+)", re.ASCII)
FORM = "expected (label word) or (label (label word) ...)"

Check = Callable[[str], str]
"""What is wrong with a label, or "" where nothing is. It is asked once of each that is written, and of "" where a root
has no label, nor has its single child."""


class Tree(NamedTuple):
    """N nodes in post-order over M words; node N - 1 is the root."""

    leaves: list[str]
    """(M,) the words, without escapes."""
    labels: list[str]
    """(N,) the label of each node, "" where it has none."""
    starts: list[int]
    """(N,) the first word of each node."""
    ends: list[int]
    """(N,) the word after the last word of each node."""
    children: list[tuple[int, ...]]
    """(N,) the nodes below each node, from left to right; () for a node that holds one word itself."""


class Open:
    """A node whose closing bracket has not come yet."""

    __slots__ = ("children", "column", "label", "line", "start", "word")

    def __init__(self, line: int, column: int, start: int) -> None:
        self.line, self.column, self.start = line, column, start
        self.label: str | None = None
        self.children: list[int] = []
        self.word: int | None = None  # a word of its own that no node holds yet


def read_trees(path: str | Path, *, check: Check | None = None) -> Iterator[tuple[int, Tree]]:
    """Each tree of a file (plain or .gz) with the line it begins on; a line may have several, a tree take several.

    A bracket may have no label: `( (S ...) )`. A word with siblings, as in `(NP the (NN dog))`, gets an unlabelled node
    of its own. Raises `DataError` with file, line and column for brackets that do not match, a node without a word,
    text outside of brackets, and a label that `check` finds wrong; and as `open_text` does.
    """
    return parse_trees(open_text(path), path, check=check)


def parse_trees(
    lines: Iterable[tuple[int, str]], place: str | Path | None, *, check: Check | None = None
) -> Iterator[tuple[int, Tree]]:
    """As `read_trees`, for numbered lines that are open already; `place` is for messages."""
    stack: list[Open] = []
    tree = Tree([], [], [], [], [])
    first = 0
    held: set[str] = set()  # labels that nothing is wrong with

    def hold(label: str, line: int, column: int) -> None:
        """Raise for a wrong label."""
        assert check is not None
        if fault := check(label):
            raise DataError(f"column {column}: {fault}", path=place, line=line)
        held.add(label)

    def add(label: str, start: int, children: tuple[int, ...]) -> int:
        """Append a node that ends at the last word so far, and return its number."""
        tree.labels.append(label)
        tree.starts.append(start)
        tree.ends.append(len(tree.leaves))
        tree.children.append(children)
        return len(tree.labels) - 1

    def settle(node: Open) -> None:
        """Give a word that turns out to have siblings a node of its own."""
        if node.word is not None:
            node.children.append(add("", node.word, ()))
            node.word = None

    for number, line in lines:
        refuse_nul(line, path=place, line=number, what="line")
        for piece in PIECE.finditer(line):
            kind = piece.lastindex
            if kind == 4 and not stack:
                found = f"column {piece.start() + 1}: found {piece[4][:40]!r} outside of brackets; {FORM}"
                raise DataError(found, path=place, line=number)
            if kind == 4:
                node = stack[-1]
                if node.label is None and not node.children:
                    node.label = piece[4]
                    if check is not None and node.label not in held:
                        hold(node.label, number, piece.start() + 1)
                else:
                    settle(node)
                    node.word = len(tree.leaves)
                    tree.leaves.append(unescape(piece[4]))
                continue
            if kind == 2 or piece[3] == "(":
                if stack:
                    settle(stack[-1])
                else:
                    first = number
                start = len(tree.leaves)
                if kind == 3:
                    stack.append(Open(number, piece.start() + 1, start))
                    continue
                if check is not None and piece[1] not in held:
                    hold(piece[1], number, piece.start(1) + 1)
                tree.leaves.append(unescape(piece[2]))
                added = add(piece[1], start, ())
            else:
                if not stack:
                    found = f'column {piece.start() + 1}: ")" closes nothing: one bracket too many'
                    raise DataError(found, path=place, line=number)
                node = stack.pop()
                if node.children:
                    settle(node)
                elif node.word is None:
                    raise DataError(_empty(node), path=place, line=node.line)
                added = add(node.label or "", node.start, tuple(node.children))
                if not stack and check is not None and not (node.label or "" in held or top_label(tree)):
                    hold("", node.line, node.column)
            if stack:
                stack[-1].children.append(added)
            else:
                yield first, tree
                tree = Tree([], [], [], [], [])
    if stack:
        count = f"{len(stack)} brackets are" if len(stack) > 1 else "1 bracket is"
        found = f'column {stack[0].column}: the tree that begins here never ends: {count} not closed; expected ")"'
        raise DataError(found, path=place, line=stack[0].line)


def top_label(tree: Tree) -> str:
    """The label of the root, or of the node below it where a root without label has but one; "" where all lack it."""
    node = len(tree.labels) - 1
    while not tree.labels[node] and len(tree.children[node]) == 1:  # the Treebank's outermost bracket, `( (S ...) )`
        node = tree.children[node][0]
    return tree.labels[node]


def _empty(node: Open) -> str:
    what = f"node {node.label[:40]!r} has no word and no node in it" if node.label else "empty node"
    return f"column {node.column}: {what}; {FORM}"


def unescape(word: str) -> str:
    """The word that a leaf stands for: `-LRB-` is "(", `1\\/2` is "1/2"."""
    if word[0] == "-" and word in BRACKETS:
        return BRACKETS[word]
    return ESCAPE.sub(r"\1", word) if "\\" in word else word
