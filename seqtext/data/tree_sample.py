"""Synthetic reviews as trees, shipped with the package, every node with a label from 0 to 4 that its parts decide.

A polar word has a value from -2 to 2 and any other word 0; `compose` tells the value of a node from those of its two
children and from one word. "not" turns the sign and leaves a strength of 1 ("not very good", "not superb": -1; "not
bad": 1), "very" adds 1 to the strength, "fairly" leaves 1 of it, "whether" leaves nothing; of two sides with "but"
between them the second counts with a strength of 1, and beside an "although" part the main one counts whole. Elsewhere
values add up, to 2 at most, so that a neutral part changes nothing. The label is the value plus 2.

A bag of words cannot solve them: the review is about as often on the side of a polar word in it as on the other, and
order decides ("really not good" is 0, "not really good" 1). A fifth of the pairs of a word that acts and a polar word,
and of polar words on the two sides of a "but", told by a checksum, never meet in a training tree; all words do. No
sentence is in two splits. The reviews look like those of films and are none: scores on them say that the tool works,
and nothing about real text.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from seqtext.data.brackets import Tree
from seqtext.data.sample_words import Split

SIZES: dict[Split, int] = {"train": 4000, "valid": 500, "test": 500}
HELD: dict[int, Split] = {8: "valid", 9: "test"}
"""Whose a sentence may be, by the last digit of its checksum; all others are training's."""
SHORTEST, LONGEST = 3, 25
"""Words of a review."""
TRIES = 20
"""Draws of two sides that do not go together, before the whole review is given up."""

# Words by kind and value; no word is in two places, and none of those that may follow "a" asks for "an".
WORDS: dict[str, dict[int, str]] = {
    "adj": {
        2: "wonderful superb brilliant terrific marvelous magnificent",
        1: "good funny clever charming fresh touching witty likable",
        -1: "bad dull thin expensive stale clumsy predictable messy",
        -2: "dreadful terrible horrible pathetic ghastly wretched",
    },
    "love": {2: "adore cherish", 1: "like enjoy admire", -1: "dislike resent regret", -2: "hate loathe"},
    "loved": {
        2: "adored cherished",
        1: "liked enjoyed admired",
        -1: "disliked resented regretted",
        -2: "hated loathed",
    },
}
VALUES = {word: value for kind in WORDS.values() for value, words in kind.items() for word in words.split()}
NEGATORS = frozenset(["not", "never", "hardly", "barely", "no", "nobody", "doubt", "far"])
INTENSIFIERS = frozenset(["very", "really", "truly", "simply"])
QUESTIONS = frozenset(["whether", "if"])
DOWNTONERS = frozenset(["fairly", "somewhat", "rather", "mildly"])
CONTRASTS = frozenset(["but", "yet"])
CONCESSIONS = frozenset(["although", "though"])
ACTING = NEGATORS | INTENSIFIERS | DOWNTONERS | QUESTIONS

# Productions, one a line, `3*` before a line giving it three times the weight; brackets are those of the tree.
GRAMMAR = {
    "review": """
        6* (<clause> .)
        1* <clause>
        4* (((<clause> ,) (<contrast> <clause>)) .)
        4* (((<concession> <clause>) (, <clause>)) .)
        1* (((<clause> ,) (and <clause>)) .)
        1* ((<clause> (and <aside>)) .)
    """,
    "clause": """
        7* ((the <part>) (<is> <quality>))
        2* (it (<is> <quality>))
        2* ((this <work>) (is (a (<simple> <work>))))
        3* (I (<loved> <object>))
        1* (I (<love> <object>))
        1* (I (<stress> (<love> <object>)))
        2* (I (did (not (<love> <object>))))
        1* (I (did (not (<stress> (<love> <object>)))))
        1* (I (<stress> (did (not (<love> <object>)))))
        1* (I (<stress> (<loved> <object>)))
        2* (it (has (no (<simple> <parts>))))
        2* (it (has (<simple> <parts>)))
        1* (I (doubt (that <clause>)))
        1* (nobody (<claims> (that <clause>)))
        4* (I (<ask> (<whether> <clause>)))
        1* (it (is (not (true (that <clause>)))))
        5* <aside>
    """,
    "quality": """
        4* <simple>
        4* (<negative> <simple>)
        1* (far (from <adj>))
        1* (not ((at all) <adj>))
        2* (<stress> (not <simple>))
        2* (<simple> (<contrast> <simple>))
        1* (<simple> (and <simple>))
    """,
    "simple": "3* <adj>\n2* (<intensifier> <adj>)\n1* (<downtoner> <adj>)",
    "aside": """
        (I (saw (it <when>)))
        (it (opened <when>))
        ((the <work>) (is (set (in <place>))))
        ((the <part>) (was (made (in <place>))))
        (it (runs (for (<few> hours))))
        (<critic> (came (with me)))
    """,
    "negative": "4* not\n1* never\n1* hardly\n1* barely",
    "claims": "says\nclaims\nthinks",
    "ask": "wonder\nforget",
    "whether": "2* whether\n1* if",
    "contrast": "2* but\n1* yet",
    "concession": "although\nthough",
    "stress": "really\ntruly\nsimply",
    "intensifier": "2* very\n3* <stress>",
    "downtoner": "fairly\nsomewhat\nrather\nmildly",
    "is": "3* is\n1* was\n1* seems",
    "object": "2* it\n2* (the <part>)\n1* (this <work>)",
    "part": "film\nmovie\nstory\nplot\nscript\nacting\ncast\nmusic\nending\ndialogue\n(first half)\n(camera work)",
    "parts": "scenes\njokes\nsongs\nlines\ncharacters\nideas\nmoments",
    "work": "film\nmovie\npicture\ncomedy\nthriller\ndrama",
    "critic": "(my brother)\n(my wife)\n(a friend)\n(the critic)\n(my boss)",
    "few": "two\nthree",
    "when": "(last night)\n(on Friday)\n(with friends)\n(on (a plane))\n(this week)",
    "place": "Rome\nParis\n(the desert)\n((a small) town)\nspace",
}

Shape = str | tuple["Shape", "Shape"]
"""A word, or a symbol in angle brackets, or two shapes side by side."""


class Part(NamedTuple):
    """What `compose` sees of a node."""

    value: int
    """From -2 to 2."""
    word: str = ""
    """The word that it is, where it is one."""
    first: str = ""
    """The word that is its left child, where that is one."""
    parts: tuple[Part, ...] = ()
    """Its children."""


def compose(left: Part, right: Part) -> int:
    """The value of a node from its two children."""
    sign = (right.value > 0) - (right.value < 0)
    if left.word in NEGATORS:
        return -sign
    if left.word in INTENSIFIERS:
        return sign * min(2, abs(right.value) + 1)
    if left.word in QUESTIONS:
        return 0
    if left.word in DOWNTONERS or right.first in CONTRASTS:
        return sign
    if left.first in CONCESSIONS:
        return right.value
    return max(-2, min(2, left.value + right.value))


def tree_sample(split: Split, *, size: int | None = None, seed: int = 0) -> Iterator[Tree]:
    """Binary trees of 3 to 25 words, every node labelled "0" to "4"; `size` is 4000, 500 and 500 by default.

    The same arguments give the same trees on every machine, and a smaller size a prefix of a larger one. Raises
    `ValueError` for an unknown split.
    """
    if split not in SIZES:
        raise ValueError(f"no split {split!r} in the sample; it has {', '.join(SIZES)}")
    rng = random.Random(f"trees {split} {seed}")
    met: set[str] = set()
    return (_review(split, rng, met) for _ in range(SIZES[split] if size is None else size))


def _review(split: Split, rng: random.Random, met: set[str]) -> Tree:
    """One review of a split, of a sentence that was not `met` yet."""
    while True:
        root = _drawn("<review>", rng)
        if root is None:
            continue
        tree = _tree(root)
        if not SHORTEST <= len(tree.leaves) <= LONGEST:
            continue
        polar = [word for word in tree.leaves if word in VALUES]
        if len(set(polar)) < len(polar):
            continue
        sentence = " ".join(tree.leaves)
        if sentence in met or HELD.get(zlib.crc32(sentence.encode()) % 10, "train") != split:
            continue
        if split != "train" or not unseen(tree):
            met.add(sentence)
            tree.leaves[0] = tree.leaves[0].capitalize()
            return tree


@cache
def _productions(symbol: str) -> list[Shape]:
    if symbol in WORDS:  # either side as likely, then a strength, then a word
        return [f"<{symbol} {value}>" for value in WORDS[symbol]]
    kind, _, value = symbol.partition(" ")
    if value:
        return list(WORDS[kind][int(value)].split())
    lines: list[Shape] = []
    for line in GRAMMAR[symbol].strip().splitlines():
        weight, star, body = line.strip().partition("* ")
        lines += [_parsed(body)] * int(weight) if star else [_parsed(line.strip())]
    return lines


def _parsed(text: str) -> Shape:
    """`(the <part>)` as ("the", "<part>")."""
    stack: list[list[Shape]] = [[]]
    for piece in text.replace("(", " ( ").replace(")", " ) ").split():
        if piece == "(":
            stack.append([])
        elif piece == ")":
            left, right = stack.pop()
            stack[-1].append((left, right))
        else:
            stack[-1].append(piece)
    return stack[0][0]


def _drawn(shape: Shape, rng: random.Random) -> Part | None:
    """A shape with its symbols expanded; None where no sensible pair was found in a few tries."""
    if isinstance(shape, str):
        if shape[0] == "<":
            lines = _productions(shape[1:-1])
            return _drawn(lines[int(len(lines) * rng.random())], rng)
        return Part(VALUES.get(shape, 0), word=shape)
    for _ in range(TRIES):
        left = _drawn(shape[0], rng)
        right = left and _drawn(shape[1], rng)
        if left and right and _sensible(left, right):
            return Part(compose(left, right), first=left.word, parts=(left, right))
    return None


def _sensible(left: Part, right: Part) -> bool:
    """Whether sides disagree where "but" or "although" joins them, and nowhere else."""
    turn = right.first in CONTRASTS or left.first in CONCESSIONS
    return turn == (left.value * right.value < 0)


def _tree(root: Part) -> Tree:
    tree = Tree([], [], [], [], [])

    def add(part: Part) -> int:
        start = len(tree.leaves)
        children = tuple([add(below) for below in part.parts])
        if not children:
            tree.leaves.append(part.word)
        tree.labels.append(str(part.value + 2))
        tree.starts.append(start)
        tree.ends.append(len(tree.leaves))
        tree.children.append(children)
        return len(tree.labels) - 1

    add(root)
    return tree


def unseen(tree: Tree) -> bool:
    """Whether two words of a tree act on each other that never do in training."""
    for children in tree.children:
        if children:
            left, right = children
            sides = [{word.lower() for word in tree.leaves[tree.starts[n] : tree.ends[n]]} for n in children]
            if _first(tree, right) in CONTRASTS or _first(tree, left) in CONCESSIONS:
                acting = sides[0] & VALUES.keys()
            else:
                acting = sides[0] & ACTING if not tree.children[left] else set()
            if any(_kept_apart(one, other) for one in acting for other in sides[1] & VALUES.keys()):
                return True
    return False


def _first(tree: Tree, node: int) -> str:
    """The word that is a node's left child, if one is."""
    children = tree.children[node]
    return tree.leaves[tree.starts[node]].lower() if children and not tree.children[children[0]] else ""


@cache
def _kept_apart(acting: str, polar: str) -> bool:
    return zlib.crc32(f"{acting} {polar}".encode()) % 5 == 0
