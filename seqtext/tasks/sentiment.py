"""Sentiment, or any other one label for a whole text; the models are those of `nn.classifier`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from pydantic import Field
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.data import arrays
from seqtext.data.batching import bucketed
from seqtext.data.classification import ClassificationData, read_classification
from seqtext.data.lexicon import Lexicon, Text, Types, column, types_of
from seqtext.data.sentences import split_text
from seqtext.errors import DataError
from seqtext.files import read_json, write_json
from seqtext.metrics import classification
from seqtext.nn.classifier import Classifier, ClassifierConfig, Windows
from seqtext.task import Features, Goal, Listing, Loss, Predicted, Split, Table
from seqtext.tasks.long_text import Cut, Rule, cut_texts, long_fact
from seqtext.tasks.words import (
    Sentence,
    WordsData,
    build_embedding,
    gather_words,
    number_labels,
    size_fact,
    word_facts,
)

if TYPE_CHECKING:
    from datasets import Dataset

WIDEST = 20
"""Classes of a confusion matrix that still fits on a screen."""


class SentimentData(WordsData, ClassificationData):
    """[data] of a classifier."""

    max_tokens: int = Field(default=400, ge=1)
    """Tokens that are read of a text at once; `long` says what is done about longer ones."""
    long: Rule = "head"
    """Of a text longer than `max_tokens`: read its first tokens (head), the first and last halves of as many
    (head-tail), or all of it in windows of equal length, whose scores are averaged (windows)."""


class Batch(NamedTuple):
    """B texts."""

    rows: Tensor
    """(B,) int64, CPU."""
    lengths: Tensor
    """(B,) int64, CPU: words that are read of each text."""
    windows: Windows
    labels: Tensor | None
    """(B,) int64."""


@dataclass(frozen=True)
class Encoded:
    """A split as arrays: what `batches` cuts."""

    text: Text
    """The texts, whole."""
    cut: Cut
    """What is read of them."""
    types: Types
    labels: np.ndarray | None
    """(S,) int64: the class of each text."""

    def __len__(self) -> int:
        return len(self.text.lengths)


class Prediction(NamedTuple):
    """The most probable class of a text, and the probability of each, in the order of the task's `names`."""

    label: str
    probabilities: tuple[float, ...]


class Sentiment:
    """The task of labelling whole texts."""

    name: ClassVar[str] = "sentiment"
    metric: ClassVar[str] = "accuracy over texts; log-loss in nats; top-label calibration error over 15 bins"
    empty: ClassVar[Prediction] = Prediction("", ())
    options: ClassVar[frozenset[str]] = frozenset()
    carries: ClassVar[bool] = False
    Data: ClassVar[type[Config]] = SentimentData
    Model: ClassVar[type[Config]] = ClassifierConfig
    goal: ClassVar[Goal] = Goal("accuracy", "max")

    def __init__(self, lexicon: Lexicon, counts: Mapping[str, int], data: SentimentData) -> None:
        """`counts` are the classes, in their order, and how many training texts each has."""
        self.lexicon, self.counts, self.data = lexicon, dict(counts), data
        self.names = list(counts)

    @classmethod
    def read(cls, data: SentimentData, split: Split) -> Dataset:
        return read_classification(data, split)

    @classmethod
    def fit(cls, data: SentimentData, train: Dataset) -> Sentiment:
        found = {item["values"]: item["counts"] for item in column(train, "label").value_counts().to_pylist()}
        # Ratings by their size; anything else in alphabetical order.
        names = sorted(found, key=int) if all(name.isdecimal() for name in found) else sorted(found)
        lexicon = Lexicon.fit(types_of(column(train, "tokens")), data.words)
        return cls(lexicon, {name: found[name] for name in names}, data)

    @classmethod
    def load(cls, folder: Path, data: SentimentData) -> Sentiment:
        facts = read_json(folder / "labels.json", check=_are_labels)
        return cls(Lexicon.load(folder, data.words), dict(zip(facts["names"], facts["counts"])), data)

    def save(self, folder: Path) -> None:
        self.lexicon.save(folder)
        write_json(folder / "labels.json", {"names": self.names, "counts": list(self.counts.values())})

    def build(self, model: ClassifierConfig) -> Classifier:
        weights = None
        if model.class_weights == "balanced":
            counts = torch.tensor([float(count) for count in self.counts.values()])
            weights = counts.sum() / (len(counts) * counts)
        return Classifier(
            build_embedding(model.embedding, self.lexicon),
            model,
            classes=len(self.names),
            max_tokens=self.data.max_tokens,
            class_weights=weights,
        )

    def encode(self, dataset: Dataset) -> Encoded:
        labels = column(dataset, "label").combine_chunks().dictionary_encode()
        numbers = number_labels(
            labels.indices.to_numpy(zero_copy_only=False),
            labels.dictionary.to_pylist(),
            self.names,
            place=lambda row: f"example {row + 1}",
        )
        return self._encode(column(dataset, "tokens"), numbers)

    def prepare(self, text: str, *, pretokenized: bool = False) -> Sentence:
        return Sentence.read(text, split=split_text, pretokenized=pretokenized)

    def inputs(self, examples: Sequence[Sentence]) -> Encoded:
        return self._encode(arrays.words([example.words for example in examples]), None)

    def _encode(self, tokens: pa.ChunkedArray | pa.Array, labels: np.ndarray | None) -> Encoded:
        text = types_of(tokens)
        if (empty := np.flatnonzero(text.lengths == 0)).size:
            raise DataError(f"example {empty[0] + 1}: a text without a word")
        cut = cut_texts(text, max_tokens=self.data.max_tokens, rule=self.data.long)
        return Encoded(text, cut, self.lexicon.encode(text.words), labels)

    def batches(
        self,
        encoded: Encoded,
        *,
        tokens: int,
        shuffle: np.random.Generator | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        cut = encoded.cut
        for rows in bucketed(cut.costs, tokens=tokens, shuffle=shuffle, rank=rank, world=world):
            numbers, owner = cut.gather(rows)
            windows = Windows(
                gather_words(cut.windows, encoded.types, numbers),
                torch.from_numpy(cut.windows.lengths[numbers]),
                torch.from_numpy(owner),
            )
            labels = None if encoded.labels is None else torch.from_numpy(encoded.labels[rows])
            yield Batch(torch.from_numpy(rows), torch.from_numpy(cut.read[rows]), windows, labels)

    def loss(self, module: Classifier, batch: Batch, carry: Any = None) -> Loss:
        assert batch.labels is not None
        logits = module(batch.windows, len(batch.rows))
        losses = nn.functional.cross_entropy(logits, batch.labels, reduction="none")  # (B,)
        if module.class_weights is not None:
            losses = losses * module.class_weights[batch.labels]
        return Loss(losses.sum(), torch.tensor(len(batch.rows)))

    def features(self, module: Classifier, batch: Batch, carry: Any = None) -> Features:
        assert batch.labels is not None
        labels = batch.labels[batch.windows.owner]
        weights = None if module.class_weights is None else module.class_weights[labels]
        return Features(module.features(batch.windows), labels, weights=weights)

    def predict(self, module: Classifier, batch: Batch, carry: Any = None) -> Predicted:
        chances = module(batch.windows, len(batch.rows)).softmax(-1)  # (B, C)
        best = chances.argmax(-1).tolist()
        return Predicted([Prediction(self.names[k], tuple(row)) for k, row in zip(best, chances.tolist())])

    def score(self, predictions: Sequence[Prediction], dataset: Dataset) -> dict[str, float]:
        return self._classification(predictions, dataset).flat()

    def tables(self, predictions: Sequence[Prediction], dataset: Dataset) -> list[Table]:
        found = self._classification(predictions, dataset)
        header = ["class", "precision", "recall", "F1", "gold", "predicted", "correct"]
        rows = [
            [row.name, *(f"{100 * value:.2f}" for value in row[1:4]), *(f"{value:,}" for value in row[4:])]
            for row in found.table()
        ]
        figures = [
            ("accuracy", f"{100 * found.accuracy:.2f}"),
            ("macro F1", f"{100 * found.macro_f1:.2f}"),
            ("weighted F1", f"{100 * found.weighted_f1:.2f}"),
            ("log-loss", f"{found.log_loss:.4f}"),
            ("calibration error", f"{found.ece:.4f}"),
        ]
        overall = Table("All classes", [name for name, _ in figures], [[value for _, value in figures]])
        return [overall, Table("Classes", header, rows), _confusions(found)]

    def _classification(self, predictions: Sequence[Prediction], dataset: Dataset) -> classification.Classification:
        return classification.score(
            column(dataset, "label").to_pylist(),
            [prediction.label for prediction in predictions],
            np.array([prediction.probabilities for prediction in predictions]),
            self.names,
        )

    def worst(self, predictions: Sequence[Prediction], dataset: Dataset, *, count: int = 50) -> list[dict[str, Any]]:
        """At most `count` texts that were labelled wrongly, those with the highest probability of being right first."""
        gold = column(dataset, "label").to_pylist()
        wrong = [row for row, prediction in enumerate(predictions) if prediction.label != gold[row]]
        wrong.sort(key=lambda row: -max(predictions[row].probabilities))
        texts = column(dataset, "text").take(pa.array(wrong[:count], pa.int64())).to_pylist()
        return [
            {
                "example": row + 1,
                "gold": gold[row],
                "predicted": predictions[row].label,
                "probability": round(max(predictions[row].probabilities), 6),
                "text": text,
            }
            for row, text in zip(wrong, texts)
        ]

    def listings(self, predictions: Sequence[Prediction], dataset: Dataset, *, count: int) -> list[Listing]:
        found = self.worst(predictions, dataset, count=count)
        return [Listing("errors", "that it is most confidently wrong about", found)]

    def show(self, example: Sentence, prediction: Prediction) -> str:
        """Label, its probability and the text, with tabs between them; nothing for a text without a word."""
        if not prediction.probabilities:
            return ""
        return f"{prediction.label}\t{max(prediction.probabilities):.4f}\t{' '.join(example.text.split())}"

    def record(self, example: Sentence | Mapping[str, Any], prediction: Prediction) -> dict[str, Any]:
        if isinstance(example, Sentence):
            result: dict[str, Any] = {"text": example.text}
            length = len(example)
        else:  # a row of a dataset
            result = {"text": example["text"], "gold": example["label"]}
            length = len(example["tokens"])
        result["label"] = prediction.label or None
        result["probabilities"] = {name: round(p, 6) for name, p in zip(self.names, prediction.probabilities)}
        if length > self.data.max_tokens and self.data.long != "windows":
            result["cut"] = {"tokens": length, "read": self.data.max_tokens, "rule": self.data.long}
        return result

    def warnings(self, splits: Mapping[Split, Dataset]) -> list[str]:
        """Where texts are not read whole."""
        facts = []
        for split, dataset in splits.items():
            lengths = pc.list_value_length(column(dataset, "tokens")).to_numpy()
            if self.data.long != "windows" and (lengths > self.data.max_tokens).any():
                rule = long_fact(lengths, max_tokens=self.data.max_tokens, rule=self.data.long)
                facts.append(f"{split}: {rule}")
        return facts

    def cut(self, example: Sentence) -> str | None:
        if len(example) <= self.data.max_tokens or self.data.long == "windows":
            return None
        return f'{self.data.max_tokens} of {len(example)} tokens are read (data.long = "{self.data.long}")'

    def describe(self, splits: Mapping[str, Dataset], encoded: Mapping[str, Encoded]) -> list[tuple[str, str]]:
        facts = []
        for split, part in encoded.items():
            facts.append((split, size_fact(part.text.lengths, splits[split].info.description, unit="texts")))
        for split, part in encoded.items():
            lengths, data = part.text.lengths, self.data
            facts.append((f"{split} long", long_fact(lengths, max_tokens=data.max_tokens, rule=data.long)))
        for split, part in encoded.items():
            assert part.labels is not None
            shares = np.bincount(part.labels, minlength=len(self.names)) / max(1, len(part))
            balance = ", ".join(f"{name} {share:.1%}" for name, share in zip(self.names, shares))
            facts.append((f"{split} labels", f"{len(self.names)}: {balance}"))
        return facts + word_facts(self.lexicon, {split: part.text for split, part in encoded.items()})


def _confusions(found: classification.Classification) -> Table:
    """The confusion matrix; where it has too many columns to read, its largest entries off the diagonal."""
    names, matrix = found.labels, found.confusion
    if len(names) <= WIDEST:
        rows = [[name, *(f"{count:,}" for count in row)] for name, row in zip(names, matrix)]
        return Table("Confusion (a row a gold class, a column a predicted one)", ["", *names], rows)
    wrong = [(n, a, b) for a, row in zip(names, matrix) for b, n in zip(names, row) if n and a != b]
    wrong.sort(key=lambda entry: -entry[0])
    rows = [[gold, predicted, f"{count:,}"] for count, gold, predicted in wrong[:WIDEST]]
    return Table(f"Confusion (the {len(rows)} most frequent)", ["gold", "predicted", "texts"], rows)


def _are_labels(facts: Any) -> bool:
    """Whether this is what `save` wrote of the classes."""
    if not isinstance(facts, dict):
        return False
    names, counts = facts.get("names"), facts.get("counts")
    return (
        isinstance(names, list)
        and isinstance(counts, list)
        and len(names) == len(counts) == len(set(map(str, names))) > 0
        and all(isinstance(name, str) for name in names)
        and all(isinstance(count, int) and count > 0 for count in counts)
    )
