"""Scores of sentiment on the constituents of trees, and of the bracketing of predicted trees.

The four figures of Socher et al. 2013, "Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank",
table 1: accuracy over all classes and over two, at the roots and at all nodes, leaves and roots among them. Two-class
figures leave out what is neutral in gold, and decide from the same probabilities: positive where the classes above the
middle of the scale have more of them together than those below it. For the classes 0 to 4 that is p(3) + p(4) against
p(0) + p(1). A node without a gold label counts nowhere.

Beside them stand the subsets of the paper's section on model analysis, read off the gold trees by the rules here:

- "X but Y". X is the largest constituent that ends where "but" begins, with punctuation between the two passed over, Y
  the largest that begins after it, Z the lowest one over both "but" and Y. A case is a "but" within a sentence whose X
  and Y differ in their gold class; it is right where X, Y and Z all have the right class. The paper counts 131 cases in
  its test split and does not say how it found them; these rules find 230, with X or Y of a single word among them.
- Negation. In Z = [A B], B is the last child of Z and A the one or two words before it, the last of them a negator:
  [not [good]], [[does n't] [work]]. A negated positive is a positive B in a negative Z, right where B is taken for
  positive and Z for negative. A negated negative is a negative B in a Z of a higher class, not always a positive one,
  right where the mean of the scale under the probabilities is higher at Z than at B. The paper has pairs of whole
  sentences, with and without a negation, made for that purpose, 21 of them positive ones, and asks of the negative ones
  whether the activation of what is not negative rises; here both members of a pair are nodes of one tree.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from seqtext.metrics.entities import Counts

SCALES = (
    ("negative", "positive"),
    ("negative", "neutral", "positive"),
    ("very negative", "negative", "neutral", "positive", "very positive"),
)
"""Names of classes that have an order, beside the whole numbers from 0."""
EDGES = (10, 20, 30, 40)
"""Lengths of sentences in words at which the next bucket begins."""
NEGATORS = frozenset(
    {"not", "no", "never", "neither", "nor", "none", "nothing", "nobody", "nowhere", "without", "cannot"}
)
NEGATORS |= {"hardly", "barely", "scarcely", "least"}
"""Words that negate, beside those in "n't". "Least" is an example of the paper's."""
TITLES = {
    "root": "root",
    "nodes": "all nodes",
    "binary_root": "root, two classes",
    "binary_nodes": "all nodes, two classes",
    "but": "X but Y",
    "negated_positive": "negated positive",
    "negated_negative": "negated negative",
}


class Share(NamedTuple):
    """How many of a number of cases are right."""

    correct: int
    total: int

    @property
    def accuracy(self) -> float:
        return self.correct / self.total if self.total else 0.0


class Row(NamedTuple):
    """One line of the table: a fraction from 0 to 1, then numbers of cases."""

    name: str
    accuracy: float
    correct: int
    total: int


class Bucket(NamedTuple):
    """The sentences of a range of lengths in words, both ends included; `longest` None is no end."""

    shortest: int
    longest: int | None
    sentences: int
    root: Share
    nodes: Share


@dataclass(frozen=True)
class Constituents:
    """The scores of the nodes of a set of trees, and of those by the length of their sentence, shortest first.

    What has no meaning for the set of classes, which has no order, is None.
    """

    labels: tuple[str, ...]
    root: Share
    nodes: Share
    binary_root: Share | None
    binary_nodes: Share | None
    but: Share | None
    negated_positive: Share | None
    negated_negative: Share | None
    lengths: tuple[Bucket, ...]

    @property
    def settings(self) -> str:
        """What the scores are, to print beside them."""
        scores = f"accuracy over {len(self.labels)} classes at roots and at all labelled nodes, leaves included"
        if self.binary_root is None:
            return scores
        return f"{scores}; two classes: neutral gold left out, p(above the middle) > p(below it) is positive"

    def flat(self) -> dict[str, float]:
        """Every score that has a case, by name, for metrics files: `root`, `nodes`, `binary_root`, ..."""
        return {name: share.accuracy for name, share in self._shares().items()}

    def table(self) -> list[Row]:
        """A row a score that has a case, in the order of `flat`."""
        return [Row(TITLES[name], share.accuracy, *share) for name, share in self._shares().items()]

    def _shares(self) -> dict[str, Share]:
        shares = ((name, getattr(self, name)) for name in TITLES)
        return {name: share for name, share in shares if share is not None and share.total}


class Flat(NamedTuple):
    """N nodes of B sentences of W words, end to end; nodes in level order, siblings side by side."""

    sentence: np.ndarray
    """(N,) the sentence of each node."""
    roots: np.ndarray
    """(B + 1,) the first node of each sentence, then N."""
    words: np.ndarray
    """(B + 1,) the first word of each sentence, then W."""
    tokens: list[str]
    """(W,) lower-cased, with straight apostrophes."""
    arities: np.ndarray
    """(N,) children of each node; 0 for leaves."""
    starts: np.ndarray
    """(N,) the first word of each node in its sentence."""
    ends: np.ndarray
    """(N,) the word after the last word of each node in its sentence."""


def polarities(labels: Sequence[str]) -> tuple[float, ...] | None:
    """Where each class stands from -1, most negative, to 1; None where the classes have no order that is known.

    Known are the whole numbers 0 to C - 1, the lowest the most negative, and `SCALES`, whatever order `labels` has.
    """
    steps = len(labels) - 1
    for scale in (*SCALES, tuple(map(str, range(len(labels))))):
        if steps and sorted(scale) == sorted(labels):
            return tuple(2 * scale.index(label) / steps - 1 for label in labels)
    return None


def score(
    gold: Sequence[Sequence[str]],
    probabilities: Sequence[Any],
    labels: Sequence[str],
    *,
    tokens: Sequence[Sequence[str]],
    arities: Sequence[Sequence[int]],
    starts: Sequence[Sequence[int]],
    ends: Sequence[Sequence[int]],
    edges: Sequence[int] = EDGES,
) -> Constituents:
    """Score the nodes of B trees in level order: by depth, the root first, and from left to right within a depth.

    `gold` has a label a node, "" where there is none, and `probabilities` an array-like (nodes, C) a tree, its columns
    in the order of `labels` (C,); the likeliest class is the predicted one. `arities` counts the children of each node,
    `starts` and `ends` tell its words, of which `tokens` has those of each sentence. Every one of `edges` is the least
    number of words of a bucket.

    Raises `ValueError` where no node is labelled, sizes differ, or a label is not one of `labels`.
    """
    flat = _flatten(gold, tokens=tokens, arities=arities, starts=starts, ends=ends)
    chances = _chances(probabilities, flat.roots, len(labels))  # (N, C)
    places = {label: place for place, label in enumerate(labels)} | {"": -1}
    try:
        true = np.array([places[label] for label in chain.from_iterable(gold)], dtype=np.int64)  # (N,)
    except KeyError as error:
        raise ValueError(f"label {error.args[0]!r} is not one of {', '.join(labels)}") from None
    labelled = true >= 0
    if not labelled.any():
        raise ValueError("no labelled node to score")
    right = chances.argmax(1) == true
    root = np.zeros(len(true), dtype=bool)
    root[flat.roots[:-1]] = True
    shares: dict[str, Any] = dict.fromkeys(TITLES)
    shares |= {"root": _share(right, root & labelled), "nodes": _share(right, labelled)}

    scale = polarities(labels)
    if scale is not None:
        place = np.array(scale)
        gold_place = np.where(labelled, place[true], np.nan)  # (N,); comparisons with nan are false
        below, above = chances[:, place < 0].sum(1), chances[:, place > 0].sum(1)
        positive = above > below
        sided = (gold_place < 0) | (gold_place > 0)
        same_side = positive == (gold_place > 0)
        shares |= {"binary_root": _share(same_side, root & sided), "binary_nodes": _share(same_side, sided)}

        x, y, z = contrasts(flat).T
        cases = labelled[x] & labelled[y] & labelled[z] & (true[x] != true[y])
        shares["but"] = _share(right[x] & right[y] & right[z], cases)

        inner, whole = negations(flat).T
        reversed_ = (gold_place[inner] > 0) & (gold_place[whole] < 0)
        shares["negated_positive"] = _share(positive[inner] & ~positive[whole], reversed_)
        mean = (chances * place).sum(1)
        raised = (gold_place[inner] < 0) & (gold_place[whole] > gold_place[inner])
        shares["negated_negative"] = _share(mean[whole] > mean[inner], raised)
    return Constituents(labels=tuple(labels), lengths=tuple(_buckets(flat, right, labelled, root, edges)), **shares)


def contrasts(flat: Flat) -> np.ndarray:
    """(cases, 3) the nodes X, Y and Z of each "but" within a sentence."""
    found = []
    for word in (number for number, token in enumerate(flat.tokens) if token == "but"):
        sentence = int(np.searchsorted(flat.words, word, side="right")) - 1
        nodes = slice(*flat.roots[sentence : sentence + 2])
        starts, ends = flat.starts[nodes], flat.ends[nodes]
        but = word - flat.words[sentence]
        # In level order the first of a chain of nodes is the largest, the last the lowest.
        after = np.flatnonzero(starts == but + 1)
        x, before = None, but
        while x is None and before > 0:
            x = np.flatnonzero(ends == before)[0]
            if ends[x] - starts[x] == 1 and not any(map(str.isalnum, flat.tokens[flat.words[sentence] + before - 1])):
                x, before = None, before - 1
        if x is not None and len(after):
            z = np.flatnonzero((starts <= but) & (ends >= ends[after[0]]))[-1]
            found.append((x + nodes.start, after[0] + nodes.start, z + nodes.start))
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def negations(flat: Flat) -> np.ndarray:
    """(cases, 2) the nodes B and Z of each negation."""
    if not flat.tokens:
        return np.zeros((0, 2), dtype=np.int64)
    negator = np.array([token in NEGATORS or token.endswith("n't") for token in flat.tokens])
    whole = np.flatnonzero(flat.arities >= 2)
    # The children of the nodes of a tree are, in order, all its nodes but the root.
    through = np.cumsum(flat.arities)[whole] + flat.sentence[whole]
    last = through
    before = flat.starts[last] - flat.starts[whole]
    where = flat.words[flat.sentence[whole]] + flat.starts[last] - 1
    cases = (before >= 1) & (before <= 2) & negator[where]
    return np.stack([last[cases], whole[cases]], axis=1)


def bracketing_f1(
    gold: Sequence[Iterable[tuple[int, int]]],
    predicted: Sequence[Iterable[tuple[int, int]]],
    lengths: Sequence[int],
) -> Counts:
    """Unlabelled bracketing of B sentences of `lengths` words, micro-averaged: `f1`, `precision`, `recall`, counts.

    Spans are (first word, word after the last). Those of one word and those of a whole sentence are right in any tree
    and are left out; one that is there twice, as in a unary chain, counts once. Raises `ValueError` where the sides do
    not have as many sentences.
    """
    if not len(gold) == len(predicted) == len(lengths):
        raise ValueError(f"{len(gold)} gold trees, {len(predicted)} predicted, {len(lengths)} lengths")
    counts = np.zeros(3, dtype=np.int64)
    for one, other, length in zip(gold, predicted, lengths):
        true, found = ({(start, end) for start, end in spans if 2 <= end - start < length} for spans in (one, other))
        counts += len(true), len(found), len(true & found)
    return Counts(*counts.tolist())


def _share(right: np.ndarray, cases: np.ndarray) -> Share:
    return Share(int((right & cases).sum()), int(cases.sum()))


def _buckets(
    flat: Flat, right: np.ndarray, labelled: np.ndarray, root: np.ndarray, edges: Sequence[int]
) -> Iterable[Bucket]:
    """The scores by sentence length, without ranges that have no sentence."""
    starts = [1, *edges]
    if any(after <= before for before, after in zip(starts, edges)):
        raise ValueError(f"edges {list(edges)}: expected numbers from 2, each larger than the one before")
    bucket = np.searchsorted(edges, np.diff(flat.words), side="right")  # (B,)
    for number, start in enumerate(starts):
        if (bucket == number).any():
            inside = (bucket == number)[flat.sentence] & labelled
            longest = starts[number + 1] - 1 if number < len(edges) else None
            shares = _share(right, inside & root), _share(right, inside)
            yield Bucket(start, longest, int((bucket == number).sum()), *shares)


def _flatten(
    gold: Sequence[Sequence[str]],
    *,
    tokens: Sequence[Sequence[str]],
    arities: Sequence[Sequence[int]],
    starts: Sequence[Sequence[int]],
    ends: Sequence[Sequence[int]],
) -> Flat:
    sizes = np.array([len(labels) for labels in gold], dtype=np.int64)
    columns = []
    for name, column in (("arities", arities), ("starts", starts), ("ends", ends)):
        if [len(values) for values in column] != sizes.tolist():
            raise ValueError(f"{name} are not of the same trees as the gold labels: other numbers of nodes")
        columns.append(np.fromiter(chain.from_iterable(column), dtype=np.int64))
    if len(tokens) != len(gold):
        raise ValueError(f"{len(gold)} trees, but tokens of {len(tokens)} sentences")
    sentence = np.repeat(np.arange(len(gold)), sizes)
    children = np.bincount(sentence, weights=columns[0], minlength=len(gold))
    wrong = np.flatnonzero(children != sizes - 1)
    if len(wrong):
        where = f"tree {wrong[0]}, counted from 0"
        raise ValueError(f"{where}: {sizes[wrong[0]]} nodes, but arities that add up to {int(children[wrong[0]])}")
    words = [word.lower().replace("\u2019", "'") for word in chain.from_iterable(tokens)]
    return Flat(sentence, _offsets(sizes), _offsets([len(line) for line in tokens]), words, *columns)


def _offsets(sizes: Sequence[int] | np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])


def _chances(probabilities: Sequence[Any], roots: np.ndarray, classes: int) -> np.ndarray:
    """(N, C) float64, of arrays (nodes, C)."""
    rows = [np.asarray(row, dtype=np.float64) for row in probabilities]
    shapes = [row.shape for row in rows]
    expected = [(int(size), classes) for size in np.diff(roots)]
    if shapes != expected:
        if len(shapes) != len(expected):
            raise ValueError(f"{len(expected)} trees, but probabilities of {len(shapes)}")
        where = next(number for number, pair in enumerate(zip(shapes, expected)) if pair[0] != pair[1])
        found = f"probabilities of shape {shapes[where]}, expected {expected[where]}"
        raise ValueError(f"tree {where}, counted from 0: {found}")
    return np.concatenate([np.zeros((0, classes)), *rows])
