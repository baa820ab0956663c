"""What the task of trees reads and gives: sentences with their trees, columns of a treebank as arrays, what was found
of a tree's nodes, and the tables of an evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from seqtext.data.brackets import Tree, parse_trees
from seqtext.data.forest import Trees, planted, schedule
from seqtext.data.lexicon import column
from seqtext.data.tree_shapes import Levels, Shape, level_order, reshape
from seqtext.data.trees import TreesData, shape
from seqtext.errors import DataError, InputError
from seqtext.metrics import trees as metrics
from seqtext.metrics.entities import Counts
from seqtext.nn.cky import bracketing as cky_trees
from seqtext.nn.span_parser import Spans
from seqtext.nn.tree import Forest
from seqtext.nn.tree_cells import TREE_CELLS
from seqtext.nn.tree_classifier import TreeClassifier, TreeClassifierConfig
from seqtext.task import Goal, Table
from seqtext.tasks.words import Sentence, Split

if TYPE_CHECKING:
    from datasets import Dataset

LONG = 400
"""Words of a sentence that are worth a warning."""
BASELINES: tuple[Shape, ...] = ("left", "right", "balanced")


class Parsed(NamedTuple):
    """A tree of N nodes in level order, and the probabilities of the classes of each."""

    arities: tuple[int, ...]
    """(N,) children of each node, 0 for a leaf."""
    starts: tuple[int, ...]
    """(N,) the first word of each."""
    ends: tuple[int, ...]
    """(N,) the word after the last word of each."""
    probabilities: tuple[tuple[float, ...], ...]
    """(N, C)"""


@dataclass(frozen=True)
class TreeSentence(Sentence):
    """A sentence, with its tree where that was given."""

    levels: Levels | None = None


def read_sentence(text: str, data: TreesData, *, split: Split, pretokenized: bool, trees: bool) -> TreeSentence:
    """Brackets, where `trees` is set and the text begins with one, or else plain text.

    A tree is brought into the shape that `data` wants. Plain text has a tree where `data` gives all sentences trees
    of the same shape. Raises `DataError` for brackets that do not read.
    """
    if trees and text.lstrip().startswith("("):
        try:
            found = [tree for _, tree in parse_trees([(1, text)], None)]
        except DataError as error:
            raise DataError(f"{error}; what begins with a bracket is read as a tree") from None
        if len(found) != 1:
            raise DataError(f"{len(found)} trees in a line; expected one")
        tree = shape(found[0], data)
        return TreeSentence(text, tree.leaves, [], level_order(tree))
    sentence = Sentence.read(text, split=split, pretokenized=pretokenized)
    levels = None
    if data.structure != "gold" and sentence.words:
        levels = level_order(reshape(_flat(sentence.words), data.structure))
    return TreeSentence(sentence.text, sentence.words, sentence.offsets, levels)


def _flat(words: list[str]) -> Tree:
    """Words with no tree over them yet."""
    places = list(range(len(words)))
    return Tree(words, [""] * len(words), places, [place + 1 for place in places], [()] * len(words))


def forest_of(examples: Sequence[TreeSentence]) -> Trees:
    """The trees of sentences; of one without, no node."""
    none = Levels([], [], [], [], [])
    levels = [example.levels or none for example in examples]
    sizes = np.array([len(each.arities) for each in levels], np.int64)
    names = ("arities", "depths", "starts", "ends")
    return planted([np.array([x for each in levels for x in getattr(each, name)], np.int32) for name in names], sizes)


def given_trees(dataset: Dataset) -> Trees:
    """The trees of a split."""
    columns = [column(dataset, name) for name in ("arities", "depths", "starts", "ends")]
    sizes = pc.list_value_length(columns[0]).to_numpy().astype(np.int64)
    return planted([pc.list_flatten(each).to_numpy() for each in columns], sizes)


def scheduled(trees: Trees, time: int) -> tuple[Forest, np.ndarray]:
    """All of `trees` to compute with, and which node each is there; their words are in rows of T = `time`."""
    found = schedule(trees, np.arange(len(trees.sizes)), time=time)
    columns = (found.leaves, found.weave, found.unweave, found.owners, found.trees)
    leaves, weave, unweave, owners, tree = map(torch.from_numpy, columns)
    return Forest(leaves, weave, unweave, owners, tree, found.levels), found.nodes


def spans_of(trees: Trees) -> Spans:
    """The constituents of `trees`."""
    inner = trees.arities > 0
    rows = np.repeat(np.arange(len(trees.sizes)), trees.sizes)[inner]
    columns = (rows, trees.words[inner].astype(np.int64), trees.ends[inner].astype(np.int64))
    return Spans(*(torch.from_numpy(column) for column in columns))


def label_column(dataset: Dataset) -> pa.DictionaryArray:
    """(N,) the labels of all nodes of a split, end to end."""
    flat = pc.list_flatten(column(dataset, "labels"))
    return flat.combine_chunks().dictionary_encode() if isinstance(flat, pa.ChunkedArray) else flat.dictionary_encode()


def as_parsed(trees: Trees, chances: np.ndarray) -> list[Parsed]:
    """Each of `trees` with the probabilities of its nodes, of `chances` (N, C)."""
    columns: list[Any] = [column.tolist() for column in (trees.arities, trees.words, trees.ends)]
    columns.append(list(map(tuple, chances.tolist())))
    ends = [*trees.starts.tolist(), len(trees.arities)]
    return [Parsed(*(tuple(column[first:last]) for column in columns)) for first, last in pairwise(ends)]


def parse(module: TreeClassifier, x: Tensor, lengths: Tensor) -> Trees:
    """The parser's trees of sentences x (B, T, E). Raises `InputError` where there is none."""
    if module.parser is None:
        given = 'this run has no parser (model.parser.name = "none"), so that it needs trees'
        raise InputError(f"{given}, as (3 (2 So) (3 good)); a line of them begins with a bracket")
    found = cky_trees(module.parser.parse(x, lengths), lengths)
    columns = (found.arities, found.depths, found.starts, found.ends)
    return planted([column.numpy() for column in columns], found.sizes.numpy())


def in_brackets(words: Sequence[str], nodes: Parsed) -> str:
    """A tree in Treebank brackets, every node an X; as deep as it may be."""
    children = list(accumulate(nodes.arities, initial=1))  # the first child of each node; the others follow
    pieces: list[str] = []
    todo: list[int | None] = [0]
    while todo:
        node = todo.pop()
        if node is None:
            pieces.append(")")
        elif nodes.arities[node]:
            pieces.append(" (X" if pieces else "(X")
            todo += [None, *range(children[node + 1] - 1, children[node] - 1, -1)]
        else:
            word = words[nodes.starts[node]].replace("(", "-LRB-").replace(")", "-RRB-")
            pieces.append(f"{' ' * bool(pieces)}(X {word})")
    return "".join(pieces)


def shape_fact(trees: Trees) -> str:
    """How many nodes and levels the trees of a split have."""
    inner = trees.arities[trees.arities > 0]
    heights = np.maximum.reduceat(trees.depths, trees.starts) if len(trees.sizes) else np.zeros(1, int)
    levels = f"height median {np.median(heights):.0f}, most {heights.max()}"
    return f"{len(trees.arities):,} nodes, up to {inner.max(initial=0)} children each; {levels}"


def check_suited(data: TreesData, model: TreeClassifierConfig, names: Sequence[str], goal: Goal) -> None:
    """Raises `InputError` where a model cannot be what `data`, with the classes `names`, and `goal` ask for."""
    if data.binarize == "none" and data.structure == "gold" and TREE_CELLS[model.cell.name].binary:
        wide = ", ".join(name for name, cell in TREE_CELLS.items() if not cell.binary)
        raise InputError(
            f'data.binarize = "none" keeps nodes of more than two children, and model.cell.name = "{model.cell.name}" '
            f'takes two: set data.binarize = "right" or "left", or model.cell.name = "{wide}"'
        )
    parsing = model.parser.name != "none"
    if goal.key == "bracketing" and not parsing:
        raise InputError('data.goal = "bracketing" needs a parser, and model.parser.name = "none"')
    if goal.key == "binary_root" and metrics.polarities(names) is None:
        known = f"the whole numbers from 0, or names such as {', '.join(metrics.SCALES[0])}"
        raise InputError(f'data.goal = "binary_root" needs an order of classes ({known}); found: {", ".join(names)}')
    weights = model.loss
    if not ((parsing and weights.parser) or (names and (weights.root or weights.nodes))):
        given = f'data.labels = "{data.labels}", model.parser.name = "{model.parser.name}"'
        weighed = f"model.loss of root {weights.root:g}, nodes {weights.nodes:g}, parser {weights.parser:g}"
        raise InputError(f"nothing is left to learn: {given}, {weighed}")


def long_sentences(splits: Mapping[Any, Dataset]) -> list[str]:
    """A warning for each split with a sentence of more than `LONG` words."""
    found = []
    for split, dataset in splits.items():
        longest = pc.max(pc.list_value_length(column(dataset, "tokens"))).as_py()
        if longest > LONG:
            cost = "the time that a parser takes grows with the third power of that"
            found.append(f"{split}: a sentence of {longest:,} words; {cost}; model.parser.name=none leaves it out")
    return found


def bracketing(predictions: Sequence[Any], dataset: Dataset) -> Counts:
    """How the spans of the parser's trees (`own` of each prediction) compare with those of the given trees."""
    gold, lengths = _spans(dataset)
    return metrics.bracketing_f1(gold, [list(zip(each.own.starts, each.own.ends)) for each in predictions], lengths)


def _spans(dataset: Dataset) -> tuple[list[list[tuple[int, int]]], list[int]]:
    """The spans of the given trees, and the words of each sentence."""
    starts, ends = (column(dataset, name).to_pylist() for name in ("starts", "ends"))
    return [list(zip(*pair)) for pair in zip(starts, ends)], [end[0] for end in ends]


def bracketing_table(predictions: Sequence[Any], dataset: Dataset) -> Table:
    """The parser's F1 beside those of trees of one shape for all sentences."""
    gold, lengths = _spans(dataset)
    rows = [["the parser", _percent(bracketing(predictions, dataset).f1)]]
    for baseline in BASELINES:
        trees = [level_order(reshape(_flat([""] * length), baseline)) for length in lengths]
        found = metrics.bracketing_f1(gold, [list(zip(each.starts, each.ends)) for each in trees], lengths)
        rows.append([f"all {baseline}" + ("" if baseline == "balanced" else "-branching"), _percent(found.f1)])
    return Table("Unlabelled bracketing (two words or more, whole sentences left out)", ["trees", "F1"], rows)


def constituent_tables(found: metrics.Constituents, parsed: dict[str, float]) -> list[Table]:
    """Accuracies, and the same by length of the sentence; `parsed` has those by the parser's trees."""
    rows = [[row.name, _percent(row.accuracy), f"{row.correct:,}", f"{row.total:,}"] for row in found.table()]
    for name, value in parsed.items():
        rows.append([f"{metrics.TITLES[name.removeprefix('parsed_')]}, by the parser's trees", _percent(value), "", ""])
    lengths = [
        [
            f"{bucket.shortest} to {bucket.longest}" if bucket.longest else f"{bucket.shortest} or more",
            f"{bucket.sentences:,}",
            _percent(bucket.root.accuracy),
            _percent(bucket.nodes.accuracy),
        ]
        for bucket in found.lengths
    ]
    return [
        Table("Accuracy", ["of", "accuracy", "correct", "cases"], rows),
        Table("By length of the sentence", ["words", "sentences", "root", "all nodes"], lengths),
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"
