"""The contract between a job and the rest of the house: read this file first.

A task knows its data, its model, its loss and its score. It knows nothing of optimizers, devices, checkpoints or the
command line; `training.loop.fit` trains any task, `api` saves and loads it, and `cli` shows it. A new task is one
class with these methods in `tasks/` and one line in `TASKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.data.sources import Split
from seqtext.nn.side_by_side import side_by_side

if TYPE_CHECKING:
    from datasets import Dataset

    from seqtext.draw import LabelledTree


class Goal(NamedTuple):
    """What model selection watches: a key of `score` and which way is better."""

    key: str
    mode: Literal["max", "min"]

    def better(self, new: float, old: float | None) -> bool:
        """Whether `new` beats `old`; any score beats none, and a NaN beats nothing."""
        if old is None:
            return new == new
        return new > old if self.mode == "max" else new < old


class Loss(NamedTuple):
    """A batch's loss, summed, never averaged: the loop divides once, by the count over all ranks and micro-batches."""

    total: Tensor
    """() summed over targets."""
    count: Tensor  # type: ignore[assignment]
    """() number of targets."""
    carry: Any = None
    """Recurrent state handed to the next batch (truncated back-propagation through time): a tensor, or tuples of them.
    The loop detaches it."""
    rate: float = 1.0
    """Factor on the learning rate of this batch's step, where batches differ in how much they should weigh."""


class Features(NamedTuple):
    """What a linear read-out of a batch reads, and what it should give."""

    inputs: Tensor
    """(N, F)."""
    targets: Tensor
    """(N,) int64: the class of each."""
    carry: Any = None
    """Recurrent state handed to the next batch, as in `Loss`."""
    weights: Tensor | None = None
    """(N,): how much each counts; None for all alike."""


class Predicted(NamedTuple):
    """What a task predicts for a batch."""

    predictions: list[Any]
    """One for each of `batch.rows`, in that order. Those of a row that several batches share add up (`+`)."""
    carry: Any = None
    """Recurrent state handed to the next batch, as in `Loss`."""


class Table(NamedTuple):
    """A table for people to read."""

    title: str
    header: list[str]
    rows: list[list[str]]


class Batch(Protocol):
    """A named tuple of tensors. `to_device` moves all of it but `lengths` and `rows`, which stay on the CPU."""

    @property
    def rows(self) -> Tensor:
        """(B,) int64, CPU: the index of each example in the encoded data, to give results back in input order."""

    @property
    def lengths(self) -> Tensor:
        """(B,) int64, CPU: real tokens of each example."""


class Task(Protocol):
    """Everything about a job but the insides of its module and the loop."""

    name: ClassVar[str]
    metric: ClassVar[str]
    """How `score` is computed, in one line: what a figure carries with it."""
    empty: ClassVar[Any]
    """The prediction for an input without a word."""
    options: ClassVar[frozenset[str]]
    """The keyword options of its `predict`."""
    carries: ClassVar[bool]
    """Whether a batch goes on from the one before, with its `carry`; else its `predict` runs in several threads."""
    Data: ClassVar[type[Config]]
    Model: ClassVar[type[Config]]
    goal: ClassVar[Goal]

    @classmethod
    def read(cls, data: Any, split: Split) -> Dataset:
        """One split as a memory-mapped `datasets.Dataset`. Raises `DataError` naming file and line."""

    @classmethod
    def fit(cls, data: Any, train: Dataset) -> Task:
        """Learn tokenizer and labels from the training split."""

    @classmethod
    def load(cls, folder: Path, data: Any) -> Task:
        """The task saved in a run folder. Raises `RunError` naming the file that is missing or damaged."""

    def save(self, folder: Path) -> None:
        """Write what `fit` learned."""

    def build(self, model: Any) -> nn.Module:
        """The untrained module for this task's labels and vocabulary."""

    def encode(self, dataset: Dataset) -> Sized:
        """Numbers for a split, once: what `batches` cuts. Raises `DataError` for a label unknown to `fit`."""

    def prepare(self, text: str, *, pretokenized: bool = False) -> Sized:
        """A raw input as `inputs` takes it; its length is in tokens, and 0 where there is no word."""

    def inputs(self, examples: Sequence[Any]) -> Sized:
        """Numbers for prepared inputs, none of them empty; they have no labels."""

    def batches(
        self, encoded: Any, *, tokens: int, shuffle: np.random.Generator | None = None, rank: int = 0, world: int = 1
    ) -> Iterable[Any]:
        """Cut `encoded` into batches of at most `tokens` padded tokens, in another order for every `shuffle`.

        What is `Sized` as well tells its number of batches without being gone through.
        """

    def loss(self, module: nn.Module, batch: Any, carry: Any = None) -> Loss:
        """The summed loss of a batch and its number of targets."""

    def predict(self, module: nn.Module, batch: Any, carry: Any = None) -> Predicted:
        """Predictions for `batch.rows`. A task adds its own keyword options, and names them in `options`."""

    def show(self, example: Any, prediction: Any) -> str:
        """A prepared input and its prediction as one line of text."""

    def record(self, example: Any, prediction: Any) -> dict[str, Any]:
        """A prepared input, or a row of a dataset, and its prediction as a JSON object."""

    def score(self, predictions: Sequence[Any], dataset: Dataset) -> dict[str, float]:
        """Named scores of the predictions, in the order of `dataset`; `goal.key` is among them."""

    def tables(self, predictions: Sequence[Any], dataset: Dataset) -> list[Table]:
        """The evaluation for people to read."""

    def describe(self, splits: Mapping[str, Dataset], encoded: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Facts about the data for `seqtext check`: sizes, lengths, labels, vocabulary and vector cover."""


class Adapting(NamedTuple):
    """How an evaluation should adapt to the text that it scores."""

    dynamic: bool = False
    """Learn from it, window by window."""
    cache: int = 0
    """Make the words of so many steps back more probable; 0 for none."""
    tune: bool = False
    """Choose the settings of both on the validation split, instead of the default ones."""


class Passing(NamedTuple):
    """How far one of the passes of such an evaluation is."""

    what: str
    done: int
    total: int
    """Windows."""
    perplexity: float | None
    """Of what it has scored so far; None where it scores nothing."""


class Adapted(NamedTuple):
    """What such an evaluation gives."""

    predictions: list[Any]
    """As those of `predict_all`."""
    settings: dict[str, Any]
    """What it was done with, as a JSON object."""
    summary: str
    """The same as a line."""


@runtime_checkable
class AdaptingTask(Protocol):
    """What a task has besides where its evaluation can adapt."""

    def adapt(
        self,
        module: Any,
        encoded: Any,
        how: Adapting,
        text: Callable[[Split], Any],
        *,
        tokens: int,
        device: torch.device,
        listen: Callable[[Passing], None] = ...,
    ) -> Adapted:
        """Predictions for an encoded split; the module is left as it was.

        `text` gives the encoded training and validation splits, which settings are drawn from; batches have at most
        `tokens` where their number does not matter.
        """


class Listing(NamedTuple):
    """Examples that an evaluation lists."""

    name: str
    """What the list is called; its file in the run folder is `name`.jsonl."""
    what: str
    """Which examples these are, as a clause: "that it is most confidently wrong about"."""
    examples: list[dict[str, Any]]
    """As JSON objects."""


@runtime_checkable
class ListingTask(Protocol):
    """What a task has besides where its evaluation can list examples that it does very well or badly on."""

    def listings(self, predictions: Sequence[Any], dataset: Dataset, *, count: int) -> list[Listing]:
        """Lists of at most `count` examples each; the first is of those that it does worst on, worst first."""


class Comparison(NamedTuple):
    """How two runs differ on the same data, and whether that is chance."""

    table: Table
    records: list[dict[str, Any]]
    """The same as JSON objects, one a score."""


@runtime_checkable
class ComparingTask(Protocol):
    """What a task has besides where it can tell whether one run is better than another by more than chance."""

    def compare(self, baseline: Sequence[Any], predictions: Sequence[Any], dataset: Dataset) -> Comparison:
        """The predictions of two runs for the same data."""


@runtime_checkable
class TranslatingTask(Protocol):
    """What a task has besides where it turns a text into another."""

    def searched(self, options: Mapping[str, Any], *, attention_flag: str = "--attention") -> str:
        """How it predicts with these options of `predict`, in one line. Raises `InputError` for what cannot be."""

    def check_other(self, data: Any, dataset: Dataset, train: Callable[[], Dataset]) -> list[str]:
        """Doubts about evaluation on a split of other data than the run's own, whose training split `train` reads.

        Raises `InputError` for data of the run's languages the other way round.
        """

    def prepare_pair(self, text: str, target: str) -> Sized:
        """As `prepare`, for a text and what it should become, for `predict` to score."""

    def scored(self, example: Any, prediction: Any) -> dict[str, Any]:
        """What `prepare_pair` made, and how probable the target is, as a JSON object."""

    def unlike(self, other: Any) -> str | None:
        """What keeps a run of the task `other` from predicting together with one of this, if anything."""

    def together(self, modules: Sequence[nn.Module]) -> nn.Module:
        """Several runs' modules as one, for `predict`."""


@runtime_checkable
class ReadingTask(Protocol):
    """What a task has besides where a linear read-out of its module can be solved for."""

    def features(self, module: nn.Module, batch: Any, carry: Any = None) -> Features:
        """What the read-out reads of a batch; in training with dropout, as in `loss`."""


@runtime_checkable
class WarningTask(Protocol):
    """What a task has besides where it can tell that data is not what it should be, though it can be trained on."""

    def warnings(self, splits: Mapping[Split, Dataset]) -> list[str]:
        """A sentence for each doubt about these splits, which may be all or one."""


@runtime_checkable
class FilteringTask(Protocol):
    """What a task has besides where its data may be filtered."""

    def filtered(self, splits: Mapping[Split, Dataset]) -> dict[Split, str]:
        """How many examples each filter left out, in words, for the splits that have filters."""


@runtime_checkable
class DrawingTask(Protocol):
    """What a task has besides where a prediction is a tree."""

    def prepare(self, text: str, *, pretokenized: bool = False, trees: bool = True) -> Sized:
        """As that of any task; without `trees`, what begins with a bracket is text as well."""

    def labelled(self, example: Any, prediction: Any) -> LabelledTree:
        """A prepared input and its prediction as a tree to draw. Raises `InputError` where nothing labels it."""


@runtime_checkable
class CuttingTask(Protocol):
    """What a task has besides where it may not read all of an input."""

    def cut(self, example: Any) -> str | None:
        """What is read of a prepared input instead of all of it, in words; None where all is."""


ON_CPU = ("rows", "lengths", "gold")
"""Fields of a batch that are read by Python, not by a module's kernels: a GPU would have to be waited for."""


def to_device(batch: Any, device: torch.device) -> Any:
    """Copy a batch to `device`, but for what stays on the CPU: the fields `ON_CPU`.

    To a GPU through pinned memory, so that nothing waits for the copy but what is computed from it.
    """
    if isinstance(batch, Tensor):
        if device.type == "cuda" and batch.device.type == "cpu":
            batch = batch.pin_memory()
        return batch.to(device, non_blocking=True)
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        moved = {
            name: value if name in ON_CPU else to_device(value, device) for name, value in zip(batch._fields, batch)
        }
        return type(batch)(**moved)
    if isinstance(batch, tuple):
        return tuple(to_device(part, device) for part in batch)
    return batch


def predict_all(
    task: Task, module: nn.Module, encoded: Sized, batches: Iterable[Any], device: torch.device, **options: Any
) -> list[Any]:
    """Predictions for every example of `encoded`, in its order, with the module in evaluation mode.

    `options` are those of the task's `predict`. On a processor several batches are predicted side by side, unless a
    task's batches go on from each other.
    """
    results: list[Any] = [None] * len(encoded)
    training = module.training

    def predict(batch: Any) -> tuple[Any, Predicted]:
        return batch, task.predict(module, batch, **options)

    def in_turn() -> Iterator[tuple[Any, Predicted]]:
        carry = None
        for batch in batches:
            found = task.predict(module, to_device(batch, device), carry, **options)
            carry = found.carry
            yield batch, found

    module.eval()
    try:
        with torch.inference_mode():
            alone = task.carries or device.type != "cpu"
            for batch, found in in_turn() if alone else side_by_side(predict, batches):
                for row, prediction in zip(batch.rows.tolist(), found.predictions):
                    results[row] = prediction if results[row] is None else results[row] + prediction
    finally:
        module.train(training)
    return results
