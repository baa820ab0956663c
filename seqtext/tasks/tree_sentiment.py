"""Sentiment, or any other labels, of every constituent of a sentence; the models are those of `nn.tree_classifier`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pydantic import model_validator
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.data import arrays
from seqtext.data.batching import bucketed
from seqtext.data.forest import Trees, chosen, completed, ranges
from seqtext.data.lexicon import Lexicon, Text, Types, column, types_of
from seqtext.data.sentences import split_text
from seqtext.data.trees import TreesData, read_forest
from seqtext.draw import LabelledTree
from seqtext.errors import InputError
from seqtext.files import read_json, write_json
from seqtext.metrics import trees as metrics
from seqtext.nn.embedding import Words
from seqtext.nn.span_parser import Spans
from seqtext.nn.tree import Forest
from seqtext.nn.tree_classifier import TreeClassifier, TreeClassifierConfig
from seqtext.task import Goal, Listing, Loss, Predicted, Split, Table, to_device
from seqtext.tasks.parsed import (
    Parsed,
    TreeSentence,
    as_parsed,
    bracketing,
    bracketing_table,
    check_suited,
    constituent_tables,
    forest_of,
    given_trees,
    in_brackets,
    label_column,
    long_sentences,
    parse,
    read_sentence,
    scheduled,
    shape_fact,
    spans_of,
)
from seqtext.tasks.words import WordsData, build_embedding, gather_words, number_labels, size_fact, word_facts

if TYPE_CHECKING:
    from datasets import Dataset

GOALS = {
    "root": Goal("root", "max"),
    "nodes": Goal("nodes", "max"),
    "binary_root": Goal("binary_root", "max"),
    "bracketing": Goal("bracketing", "max"),
}


class TreeSentimentData(WordsData, TreesData):
    """[data] of a classifier of constituents."""

    goal: Literal["root", "nodes", "binary_root", "bracketing"] = "root"
    """Which score on the validation data picks the weights that are kept: accuracy at roots, at all nodes, of two
    classes at roots; or the parser's F1."""

    @model_validator(mode="after")
    def _something_to_score(self) -> TreeSentimentData:
        if self.labels == "none" and self.goal != "bracketing":
            raise ValueError(f'labels = "none" leaves the parser alone: goal must be "bracketing", got "{self.goal}"')
        return self


class Batch(NamedTuple):
    """B sentences."""

    rows: Tensor
    """(B,) int64, CPU."""
    lengths: Tensor
    """(B,) int64, CPU: words of each."""
    words: Words
    trees: Trees
    """Their trees, as arrays; a sentence without one has no nodes."""
    forest: Forest | None
    """The same to compute with; None where a sentence has no tree."""
    labels: Tensor | None
    """(N,) int64: the class of each node of the forest, -1 for none."""
    gold: Spans | None
    """The constituents that a parser learns from, CPU."""


@dataclass(frozen=True)
class Encoded:
    """A split as arrays: what `batches` cuts."""

    text: Text
    types: Types
    trees: Trees
    labels: np.ndarray | None
    """(N,) int64: the class of each node, -1 for none."""

    def __len__(self) -> int:
        return len(self.text.lengths)


class Prediction(NamedTuple):
    """The classes of a sentence and of its constituents."""

    label: str
    """The most probable class of the whole."""
    nodes: Parsed
    """The tree it was read by, and what was found of each node."""
    own: Parsed | None = None
    """Where the tree was given and there is a parser, the same by the parser's tree; in evaluation only."""


class TreeSentiment:
    """The task of labelling all constituents of sentences."""

    name: ClassVar[str] = "tree-sentiment"
    metric: str = "accuracy over the classes at roots and at all labelled nodes, leaves included"
    empty: ClassVar[Prediction] = Prediction("", Parsed((), (), (), ()))
    options: ClassVar[frozenset[str]] = frozenset()
    carries: ClassVar[bool] = False
    Data: ClassVar[type[Config]] = TreeSentimentData
    Model: ClassVar[type[Config]] = TreeClassifierConfig
    goal: Goal = GOALS["root"]

    def __init__(self, lexicon: Lexicon, names: Sequence[str], data: TreeSentimentData) -> None:
        """`names` are the classes, in their order."""
        self.lexicon, self.names, self.data = lexicon, list(names), data
        self.goal = GOALS[data.goal]
        if not self.names:
            self.metric = "unlabelled bracketing, all sentences together"

    @classmethod
    def read(cls, data: TreeSentimentData, split: Split) -> Dataset:
        return read_forest(data, split)

    @classmethod
    def fit(cls, data: TreeSentimentData, train: Dataset) -> TreeSentiment:
        found = set(label_column(train).dictionary.to_pylist()) - {""}
        names = sorted(found, key=int) if all(name.isdecimal() for name in found) else sorted(found)
        return cls(Lexicon.fit(types_of(column(train, "tokens")), data.words), names, data)

    @classmethod
    def load(cls, folder: Path, data: TreeSentimentData) -> TreeSentiment:
        names = read_json(folder / "labels.json", check=_are_names)
        return cls(Lexicon.load(folder, data.words), names, data)

    def save(self, folder: Path) -> None:
        self.lexicon.save(folder)
        write_json(folder / "labels.json", self.names)

    def build(self, model: TreeClassifierConfig) -> TreeClassifier:
        """Raises `InputError` where model and data do not suit each other."""
        check_suited(self.data, model, self.names, self.goal)
        return TreeClassifier(build_embedding(model.embedding, self.lexicon), model, classes=len(self.names))

    def encode(self, dataset: Dataset) -> Encoded:
        trees, labels = given_trees(dataset), label_column(dataset)
        found = labels.dictionary.to_pylist()
        codes = number_labels(
            labels.indices.to_numpy(zero_copy_only=False),
            found,
            [*self.names, ""],
            place=lambda node: f"tree {np.searchsorted(trees.starts, node, side='right')}",
        )
        text = types_of(column(dataset, "tokens"))
        return Encoded(text, self.lexicon.encode(text.words), trees, np.where(codes < len(self.names), codes, -1))

    def prepare(self, text: str, *, pretokenized: bool = False, trees: bool = True) -> TreeSentence:
        """A line that begins with a bracket is a tree, unless `trees` is False; other text is split into words.

        Raises `DataError` for a tree that does not read, with the column.
        """
        return read_sentence(text, self.data, split=split_text, pretokenized=pretokenized, trees=trees)

    def inputs(self, examples: Sequence[TreeSentence]) -> Encoded:
        text = types_of(arrays.words([example.words for example in examples]))
        return Encoded(text, self.lexicon.encode(text.words), forest_of(examples), None)

    def batches(
        self,
        encoded: Encoded,
        *,
        tokens: int,
        shuffle: np.random.Generator | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        for rows in bucketed(encoded.text.lengths, tokens=tokens, shuffle=shuffle, rank=rank, world=world):
            yield self.batch(encoded, rows)

    def batch(self, encoded: Encoded, rows: np.ndarray) -> Batch:
        """The batch of the sentences `rows` (B,)."""
        words = gather_words(encoded.text, encoded.types, rows)
        lengths = torch.from_numpy(encoded.text.lengths[rows])
        trees = chosen(encoded.trees, rows)
        forest, nodes = (None, None) if (trees.sizes == 0).any() else scheduled(trees, words.positions.size(1))
        labels = gold = None
        if encoded.labels is not None and nodes is not None:
            of_nodes = encoded.labels[ranges(encoded.trees.starts[rows], trees.sizes)]
            labels, gold = torch.from_numpy(of_nodes[nodes]), spans_of(trees)
        return Batch(torch.from_numpy(rows), lengths, words, trees, forest, labels, gold)

    def loss(self, module: TreeClassifier, batch: Batch, carry: Any = None) -> Loss:
        assert batch.labels is not None and batch.forest is not None and batch.gold is not None
        weights, x = module.weights, module.embed(batch.words)
        total, count = x.new_zeros(()), torch.zeros(())
        if self.names:
            logits = module(x, batch.lengths, batch.forest)  # (N, C)
            losses = nn.functional.cross_entropy(logits, batch.labels, reduction="none", ignore_index=-1)  # (N,)
            labelled, roots = batch.labels >= 0, len(batch.rows)
            total = weights.nodes * losses[:-roots].sum() + weights.root * losses[-roots:].sum()
            count = weights.nodes * labelled[:-roots].sum() + weights.root * labelled[-roots:].sum()
        if module.parser is not None and weights.parser:
            cost, words = module.parser.loss(x if module.parser.tune else x.detach(), batch.lengths, batch.gold)
            total = total + weights.parser * cost
            count = count if self.names and (weights.root or weights.nodes) else words
        return Loss(total, count)

    def predict(self, module: TreeClassifier, batch: Batch, carry: Any = None) -> Predicted:
        """Sentences without a tree get the parser's. Raises `InputError` where there is none."""
        x = module.embed(batch.words)
        parsed = None
        if batch.forest is None or (batch.labels is not None and module.parser is not None):
            parsed = parse(module, x, batch.lengths)
        trees = batch.trees
        if batch.forest is None:
            assert parsed is not None
            trees = completed(trees, parsed)
        nodes = self._parsed(module, x, batch.lengths, trees)
        if batch.forest is None or parsed is None:
            return Predicted([Prediction(self._label(each), each) for each in nodes])
        own = self._parsed(module, x, batch.lengths, parsed)
        return Predicted([Prediction(self._label(each), each, other) for each, other in zip(nodes, own)])

    def _parsed(self, module: TreeClassifier, x: Tensor, lengths: Tensor, trees: Trees) -> list[Parsed]:
        """What the module finds of each tree, x (B, T, E) being the vectors of its words."""
        chances = torch.empty(len(trees.arities), len(self.names))
        if self.names:
            forest, nodes = scheduled(trees, x.size(1))
            # From the order of computing to that of the trees.
            chances[torch.from_numpy(nodes)] = module(x, lengths, to_device(forest, x.device)).softmax(-1).cpu()
        return as_parsed(trees, chances.numpy())

    def _label(self, found: Parsed) -> str:
        return self.names[int(np.argmax(found.probabilities[0]))] if self.names else ""

    def score(self, predictions: Sequence[Prediction], dataset: Dataset) -> dict[str, float]:
        scores: dict[str, float] = {}
        if self.names:
            scores |= self._constituents(predictions, dataset).flat()
        if _own(predictions):
            scores["bracketing"] = bracketing(predictions, dataset).f1
            if self.names:
                scores |= self._by_own_trees(predictions, dataset)
        return scores

    def _constituents(self, predictions: Sequence[Prediction], dataset: Dataset) -> metrics.Constituents:
        return metrics.score(
            column(dataset, "labels").to_pylist(),
            [prediction.nodes.probabilities for prediction in predictions],
            self.names,
            **{name: column(dataset, name).to_pylist() for name in ("tokens", "arities", "starts", "ends")},
        )

    def _by_own_trees(self, predictions: Sequence[Prediction], dataset: Dataset) -> dict[str, float]:
        """Accuracy at the roots where the parser's trees are read instead of the given ones."""
        own = [prediction.own for prediction in predictions]
        gold = [labels[0] for labels in column(dataset, "labels").to_pylist()]
        roots = [each.probabilities[:1] for each in own if each is not None]
        found = metrics.score(
            [[label] for label in gold],
            roots,
            self.names,
            tokens=[["x"]] * len(gold),
            arities=[[0]] * len(gold),
            starts=[[0]] * len(gold),
            ends=[[1]] * len(gold),
        ).flat()
        return {f"parsed_{name}": found[name] for name in ("root", "binary_root") if name in found}

    def tables(self, predictions: Sequence[Prediction], dataset: Dataset) -> list[Table]:
        tables = []
        if self.names:
            found = self._constituents(predictions, dataset)
            tables += constituent_tables(found, self._by_own_trees(predictions, dataset) if _own(predictions) else {})
        if _own(predictions):
            tables.append(bracketing_table(predictions, dataset))
        return tables

    def listings(self, predictions: Sequence[Prediction], dataset: Dataset, *, count: int) -> list[Listing]:
        if not self.names:
            return []
        gold = [labels[0] for labels in column(dataset, "labels").to_pylist()]
        wrong = [row for row, each in enumerate(predictions) if gold[row] and each.label != gold[row]]
        wrong.sort(key=lambda row: -max(predictions[row].nodes.probabilities[0]))
        tokens = column(dataset, "tokens").take(pa.array(wrong[:count], pa.int64())).to_pylist()
        found = [
            {
                "example": row + 1,
                "gold": gold[row],
                "predicted": predictions[row].label,
                "probability": round(max(predictions[row].nodes.probabilities[0]), 6),
                "text": " ".join(words),
            }
            for row, words in zip(wrong, tokens)
        ]
        return [Listing("errors", "whose root it is most confidently wrong about", found)]

    def labelled(self, example: TreeSentence, prediction: Prediction) -> LabelledTree:
        if not self.names:
            raise InputError('this run learned no labels (data.labels = "none"), so that there is nothing to draw')
        nodes = prediction.nodes
        return LabelledTree(
            words=example.words,
            labels=[self.names[int(np.argmax(chances))] for chances in nodes.probabilities],
            probabilities=nodes.probabilities,
            arities=nodes.arities,
            starts=nodes.starts,
            ends=nodes.ends,
            classes=self.names,
        )

    def show(self, example: TreeSentence, prediction: Prediction) -> str:
        """Label of the whole, its probability and the text, with tabs between; nothing for a text without a word.

        Of a run without labels, the tree in brackets.
        """
        if not prediction.nodes.arities:
            return ""
        if not self.names:
            return in_brackets(example.words, prediction.nodes)
        return f"{prediction.label}\t{max(prediction.nodes.probabilities[0]):.4f}\t{' '.join(example.words)}"

    def record(self, example: TreeSentence | Mapping[str, Any], prediction: Prediction) -> dict[str, Any]:
        nodes = prediction.nodes
        if isinstance(example, TreeSentence):
            result: dict[str, Any] = {"text": example.text, "tokens": example.words}
            if example.offsets:  # plain text, of which these are the places of its words, in characters
                result["offsets"] = [list(offset) for offset in example.offsets]
        else:  # a row of a dataset
            result = {"tokens": example["tokens"], "gold": example["labels"][0] or None}
        result["label"] = prediction.label or None
        if self.names and nodes.arities:
            result["probabilities"] = self._named(nodes.probabilities[0])
        columns = (nodes.starts, nodes.ends, nodes.arities, nodes.probabilities)
        result["nodes"] = [self._node(*node) for node in zip(*columns)]
        return result

    def _node(self, start: int, end: int, children: int, chances: Sequence[float]) -> dict[str, Any]:
        span: dict[str, Any] = {"start": start, "end": end, "children": children}
        if chances:
            span |= {"label": self.names[int(np.argmax(chances))], "probabilities": self._named(chances)}
        return span

    def _named(self, chances: Sequence[float]) -> dict[str, float]:
        return {name: round(chance, 6) for name, chance in zip(self.names, chances)}

    def warnings(self, splits: Mapping[Split, Dataset]) -> list[str]:
        """Where a parser would take very long."""
        return long_sentences(splits)

    def describe(self, splits: Mapping[str, Dataset], encoded: Mapping[str, Encoded]) -> list[tuple[str, str]]:
        facts = []
        for split, part in encoded.items():
            facts.append((split, size_fact(part.text.lengths, splits[split].info.description, unit="trees")))
        for split, part in encoded.items():
            facts.append((f"{split} shape", shape_fact(part.trees)))
        for split, part in encoded.items():
            assert part.labels is not None
            known = part.labels[part.labels >= 0]
            shares = np.bincount(known, minlength=len(self.names)) / max(1, len(known))
            balance = ", ".join(f"{name} {share:.1%}" for name, share in zip(self.names, shares))
            facts.append((f"{split} labels", f"{len(known):,} of {len(part.labels):,} nodes: {balance or 'none'}"))
        return facts + word_facts(self.lexicon, {split: part.text for split, part in encoded.items()})


def _own(predictions: Sequence[Prediction]) -> bool:
    """Whether these have trees of a parser beside the given ones."""
    return bool(predictions) and predictions[0].own is not None


def _are_names(names: Any) -> bool:
    return isinstance(names, list) and all(isinstance(name, str) for name in names)
