"""Jobs that need nothing but memory (`data.memory_jobs`): what a recurrent cell can keep in mind, and for how long.

The steps of a sequence go straight into the recurrent layers, a symbol as a one-hot vector, and a linear layer reads
the answers from their states.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.data import arrays
from seqtext.data.batching import bucketed
from seqtext.data.lexicon import Text, column, pad, types_of
from seqtext.data.memory_jobs import JobConfig, MemoryData, read_memory
from seqtext.nn.products import evenly
from seqtext.nn.rnn import ForwardConfig, Recurrent
from seqtext.task import Goal, Loss, Predicted, Split, Table
from seqtext.tasks.words import size_fact

if TYPE_CHECKING:
    from datasets import Dataset

TOLERANCE = 0.04
"""An answer that is a number is right where it is nearer than this (Hochreiter & Schmidhuber 1997, section 5.4)."""
FAR = 20
"""Steps from which on something is long ago."""
BOUNDS = (0, 1, 5, 10, FAR, 50, 100, 200)
"""Steps at which the bins of a table begin."""


class MemoryModel(Config):
    """[model] of the memory jobs."""

    encoder: ForwardConfig = ForwardConfig()
    """What reads the sequence."""


class Batch(NamedTuple):
    """B sequences of at most T steps, with at most Q questions each."""

    rows: Tensor
    """(B,) int64, CPU."""
    lengths: Tensor
    """(B,) int64, CPU."""
    inputs: Tensor
    """(B, T, F) float32."""
    positions: Tensor
    """(B, Q) int64: after which step each answer is due."""
    asked: Tensor
    """(B, Q) bool: True for a question, False for padding."""
    answers: Tensor | None
    """(B, Q) float32 numbers, or int64 numbers of answers; padded with any."""


@dataclass(frozen=True)
class Encoded:
    """A split as arrays: what `batches` cuts."""

    text: Text
    features: np.ndarray
    """(N, F) float32: of each word type."""
    positions: np.ndarray
    """(A,) int64: of all questions, sequence by sequence."""
    starts: np.ndarray
    """(S + 1,) int64: where those of each sequence begin in `positions`."""
    answers: np.ndarray | None
    """(A,) float32 or int64."""

    def __len__(self) -> int:
        return len(self.text.lengths)


@dataclass(frozen=True)
class Example:
    """A sequence that a person gives."""

    text: str
    words: list[str]
    """As the model reads them."""
    positions: list[int]

    def __len__(self) -> int:
        return len(self.words)


class Prediction(NamedTuple):
    """The answers to a sequence's questions: symbols, each with its probability, or numbers."""

    answers: tuple[Any, ...]
    probabilities: tuple[float, ...]


class Reader(nn.Module):
    """Recurrent layers, and a score for each answer (or the one number that is asked for) after some steps."""

    def __init__(self, inputs: int, outputs: int, config: MemoryModel) -> None:
        super().__init__()
        self.encoder = Recurrent(inputs, config.encoder)
        self.output = nn.Linear(self.encoder.output_size, outputs)

    def forward(self, inputs: Tensor, lengths: Tensor, positions: Tensor) -> Tensor:
        """inputs (B, T, F), lengths (B,) on the CPU, positions (B, Q) -> (B, Q, C), float32."""
        states, _ = self.encoder(inputs, lengths, with_state=False)
        asked = states.gather(1, positions.unsqueeze(2).expand(-1, -1, states.size(2)))
        return evenly(self.output, asked).float()


class Memory:
    """The task of remembering."""

    name: ClassVar[str] = "memory"
    metric: ClassVar[str] = f"share of right answers (numbers: nearer than {TOLERANCE}); squared error of numbers"
    empty: ClassVar[Prediction] = Prediction((), ())
    options: ClassVar[frozenset[str]] = frozenset()
    carries: ClassVar[bool] = False
    Data: ClassVar[type[Config]] = MemoryData
    Model: ClassVar[type[Config]] = MemoryModel
    goal: ClassVar[Goal] = Goal("accuracy", "max")

    def __init__(self, job: JobConfig) -> None:
        self.job = job
        self.names = job.outputs

    @classmethod
    def read(cls, data: MemoryData, split: Split) -> Dataset:
        return read_memory(data, split)

    @classmethod
    def fit(cls, data: MemoryData, train: Dataset) -> Memory:
        return cls(data.job)

    @classmethod
    def load(cls, folder: Path, data: MemoryData) -> Memory:
        return cls(data.job)

    def save(self, folder: Path) -> None:
        """Nothing is learned from the data: the recipe says it all."""

    def build(self, model: MemoryModel) -> Reader:
        return Reader(self.job.inputs, len(self.names) or 1, model)

    def encode(self, dataset: Dataset) -> Encoded:
        places, answers = _flat(dataset, "positions").to_numpy(), types_of(column(dataset, "answers"))
        encoded = self._encode(column(dataset, "tokens"), places.astype(np.int64), answers.lengths)
        if self.names:
            numbers = {name: number for number, name in enumerate(self.names)}
            values = np.array([numbers[answer] for answer in answers.words.to_pylist()], np.int64)
        else:
            values = np.array([float(answer) for answer in answers.words.to_pylist()], np.float32)
        return replace(encoded, answers=values[answers.codes])

    def prepare(self, text: str, *, pretokenized: bool = False) -> Example:
        words = text.split()
        if not words:
            return Example(text, [], [])
        self.job.features(words)  # an unknown word is told before what is wrong with their order
        words = self.job.complete(words)
        return Example(text, words, self.job.ask(words).positions)

    def inputs(self, examples: Sequence[Example]) -> Encoded:
        counts = np.array([len(example.positions) for example in examples], np.int64)
        places = np.array([place for example in examples for place in example.positions], np.int64)
        return self._encode(arrays.words([example.words for example in examples]), places, counts)

    def _encode(self, tokens: pa.ChunkedArray | pa.Array, positions: np.ndarray, counts: np.ndarray) -> Encoded:
        text = types_of(tokens)
        features = self.job.features(text.words.to_pylist())
        return Encoded(text, features, positions, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), None)

    def batches(
        self,
        encoded: Encoded,
        *,
        tokens: int,
        shuffle: np.random.Generator | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        text = encoded.text
        for rows in bucketed(text.lengths, tokens=tokens, shuffle=shuffle, rank=rank, world=world):
            counts = encoded.starts[rows + 1] - encoded.starts[rows]
            steps = np.arange(counts.max(initial=0))
            asked = steps < counts[:, None]  # (B, Q)
            places = np.where(asked, encoded.starts[rows][:, None] + steps, 0)
            answers = None if encoded.answers is None else torch.from_numpy(encoded.answers[places])
            yield Batch(
                torch.from_numpy(rows),
                torch.from_numpy(text.lengths[rows]),
                torch.from_numpy(encoded.features[pad(text, rows, text.codes)]),
                torch.from_numpy(np.where(asked, encoded.positions[places], 0) if len(encoded.positions) else places),
                torch.from_numpy(asked),
                answers,
            )

    def loss(self, module: Reader, batch: Batch, carry: Any = None) -> Loss:
        assert batch.answers is not None
        found = module(batch.inputs, batch.lengths, batch.positions)
        if self.names:
            losses = nn.functional.cross_entropy(found.flatten(0, 1), batch.answers.flatten(), reduction="none")
        else:
            losses = (found.squeeze(2) - batch.answers).square().flatten()
        return Loss(losses.masked_fill(~batch.asked.flatten(), 0.0).sum(), batch.asked.sum())

    def predict(self, module: Reader, batch: Batch, carry: Any = None) -> Predicted:
        found = module(batch.inputs, batch.lengths, batch.positions)
        counts = batch.asked.sum(1).tolist()
        if not self.names:
            rows = found.squeeze(2).tolist()
            return Predicted([Prediction(tuple(row[:count]), ()) for row, count in zip(rows, counts)])
        chances, best = (part.tolist() for part in found.softmax(-1).max(-1))
        return Predicted(
            [
                Prediction(tuple(self.names[k] for k in numbers[:count]), tuple(row[:count]))
                for numbers, row, count in zip(best, chances, counts)
            ]
        )

    def score(self, predictions: Sequence[Prediction], dataset: Dataset) -> dict[str, float]:
        """Shares of right answers, of all and of those about what is `FAR` steps back or more, and of sequences with
        right answers only; of numbers also the mean squared error, and that of always giving their expected value."""
        right, distances = self.right(predictions, dataset)
        whole = np.array([row.all() for row in np.split(right, np.cumsum(_counts(dataset))[:-1])])
        scores = {"accuracy": float(right.mean()) if len(right) else 0.0, "whole": float(whole.mean())}
        if (far := distances >= FAR).any():
            scores["far_accuracy"] = float(right[far].mean())
        if not self.names:
            gold, given = self._numbers(predictions, dataset)
            scores |= {"mse": float(np.square(gold - given).mean()), "chance_mse": float(np.square(gold - 1.0).mean())}
        return scores

    def tables(self, predictions: Sequence[Prediction], dataset: Dataset) -> list[Table]:
        right, distances = self.right(predictions, dataset)
        scores = self.score(predictions, dataset)
        rows = []
        for low, high in zip(BOUNDS, (*BOUNDS[1:], None)):
            inside = (distances >= low) & (distances < (np.inf if high is None else high))
            if inside.any():
                steps = f"{low} and more" if high is None else str(low) if high == low + 1 else f"{low} to {high - 1}"
                rows.append([steps, f"{100 * right[inside].mean():.2f}", f"{inside.sum():,}"])
        chance = f"chance {100 / len(self.names):.2f}" if self.names else "a sum of two numbers"
        overall = [["right answers", f"{100 * scores['accuracy']:.2f}"], ["all right", f"{100 * scores['whole']:.2f}"]]
        if not self.names:
            overall += [["squared error", f"{scores['mse']:.5f}"], ["of always 1", f"{scores['chance_mse']:.5f}"]]
        return [
            Table(f"Answers ({chance})", ["", "score"], overall),
            Table("By the steps since what is asked was read", ["steps", "right", "answers"], rows),
        ]

    def show(self, example: Example, prediction: Prediction) -> str:
        """The answers and the sequence, with a tab between them; nothing for a line without a word."""
        if not len(example):
            return ""
        return f"{' '.join(map(_shown, prediction.answers))}\t{' '.join(example.text.split())}"

    def record(self, example: Example | Mapping[str, Any], prediction: Prediction) -> dict[str, Any]:
        if isinstance(example, Example):
            result: dict[str, Any] = {"text": example.text, "positions": example.positions}
        else:  # a row of a dataset
            result = {
                "text": " ".join(example["tokens"]),
                "positions": example["positions"],
                "gold": example["answers"],
            }
        result["answers"] = [_shown(answer) for answer in prediction.answers]
        return result | ({"probabilities": [round(p, 6) for p in prediction.probabilities]} if self.names else {})

    def describe(self, splits: Mapping[str, Dataset], encoded: Mapping[str, Encoded]) -> list[tuple[str, str]]:
        facts = []
        for split, part in encoded.items():
            facts.append((split, size_fact(part.text.lengths, splits[split].info.description, unit="sequences")))
        for split, dataset in splits.items():
            distances = _flat(dataset, "distances").to_numpy()
            steps = f"{np.median(distances):.0f} steps (median) after it was read, {distances.max()} at most"
            facts.append((f"{split} asked", f"{len(distances):,} answers, {steps}"))
        return facts

    def right(self, predictions: Sequence[Prediction], dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """(A,) bool: which answers are right; (A,) int: the steps since what is asked was read."""
        distances = _flat(dataset, "distances").to_numpy()
        if not self.names:
            gold, given = self._numbers(predictions, dataset)
            return np.abs(gold - given) < TOLERANCE, distances
        answers = _flat(dataset, "answers").to_pylist()
        found = [answer for prediction in predictions for answer in prediction.answers]
        return np.array([one == other for one, other in zip(answers, found, strict=True)], bool), distances

    def _numbers(self, predictions: Sequence[Prediction], dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """(A,) float64 each: the right answers, and those given."""
        gold = _flat(dataset, "answers").to_pylist()
        given = [answer for prediction in predictions for answer in prediction.answers]
        return np.array([float(answer) for answer in gold]), np.array(given, np.float64)


def _flat(dataset: Dataset, name: str) -> pa.Array:
    """(A,) a column of lists, all of them end to end."""
    return column(dataset, name).combine_chunks().flatten()


def _counts(dataset: Dataset) -> np.ndarray:
    """(S,) questions of each sequence."""
    return types_of(column(dataset, "answers")).lengths


def _shown(answer: Any) -> str:
    return answer if isinstance(answer, str) else f"{answer:.4f}"
