"""Language modelling: the probability of every next token, of words, characters or pieces.

A text is read as one long run of tokens, in windows that go on where the last ones ended: the state is carried over
from window to window, in training and in evaluation, and gradients stop at a window's beginning (truncated
back-propagation through time). Lines that have nothing to do with each other are scored each from the zero state;
documents with labels (`tasks.lm_documents`) are learned so as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from seqtext.config import Config
from seqtext.data.corpus import CorpusData, is_pretokenized, read_corpus
from seqtext.data.detokenize import detokenize
from seqtext.data.stream import (
    EOS,
    Stream,
    Windows,
    encode_lines,
    encode_stream,
    fit_tokenizer,
    line_characters,
    words_of,
)
from seqtext.data.tokenizer import UNKNOWN, Tokenizer
from seqtext.errors import InputError
from seqtext.files import read_json, write_json
from seqtext.metrics import perplexity
from seqtext.metrics.perplexity import LineScore
from seqtext.nn.cells import State
from seqtext.nn.language_model import LanguageModel, LanguageModelConfig
from seqtext.nn.reservoir import Echo
from seqtext.search.decoder import select
from seqtext.task import Adapted, Adapting, Features, Goal, Loss, Passing, Predicted, Split, Table
from seqtext.tasks import lm_adapt
from seqtext.tasks.lm_batches import Batch, Batches, Lines, alone

if TYPE_CHECKING:
    from datasets import Dataset

EVALUATED = 2048
"""Tokens of each parallel stream of an evaluation, at least: beyond some dozens, more streams are no faster."""
WARM_UP = 128
"""Tokens that a stream of an evaluation has read, unscored, before its first: so it is hardly worse off than if it had
been read from the beginning of the text."""

CACHED = 1 << 22
"""Pairs of a step and what a cache has for it that exist at a time, at most: 16 MB for each tensor of them."""


class LmData(CorpusData):
    """[data] of a language model."""

    window: int = Field(default=35, ge=1)
    """Steps of a window: so far back gradients reach. A batch has `train.batch_tokens` / `window` parallel streams."""
    random_windows: bool = False
    """Draw the length of each training window around `window`, the learning rate with it (Merity 2018, section 4.1)."""

    @model_validator(mode="after")
    def _windows(self) -> LmData:
        if self.random_windows and self.label_field is not None:
            raise ValueError("random_windows: documents (label_field) begin at their own beginnings; leave it out")
        return self


@dataclass(frozen=True)
class Line:
    """A line of text, and how many tokens its words are."""

    text: str
    words: int
    pretokenized: bool

    def __len__(self) -> int:
        return self.words


class LmDecoder:
    """A language model as the searches use it."""

    def __init__(self, module: LanguageModel, vocabulary: int, label: int | None = None) -> None:
        """`label` is the number of the one that the module is conditioned on, if it is."""
        self.module, self.size, self.label = module, vocabulary, label

    def start(self, memory: Any) -> None:
        """The zero state, or that of the label."""
        return None

    def step(self, tokens: Tensor, state: list[State] | None, memory: Any) -> tuple[Tensor, list[State]]:
        labels = None if self.label is None else torch.full_like(tokens, self.label)
        return self.module.step(tokens, state, labels)

    def scores(self, output: Tensor) -> Tensor:
        return self.module.softmax.log_probabilities(output)

    def reorder(self, state: list[State] | None, rows: Tensor) -> list[State] | None:
        return select(state, rows)


class Lm:
    """The language modelling task."""

    name: ClassVar[str] = "lm"
    metric: ClassVar[str] = "perplexity per token, line ends counted, state carried over the whole text"
    empty: ClassVar[LineScore] = LineScore()
    options: ClassVar[frozenset[str]] = frozenset()
    carries: ClassVar[bool] = True
    apart: ClassVar[bool] = False
    Data: ClassVar[type[Config]] = LmData
    Model: ClassVar[type[Config]] = LanguageModelConfig
    goal: ClassVar[Goal] = Goal("perplexity", "min")

    def __init__(self, data: LmData, tokenizer: Tokenizer, *, pretokenized: bool) -> None:
        self.data, self.tokenizer, self.pretokenized = data, tokenizer, pretokenized
        self.eos = tokenizer.id(EOS)

    @classmethod
    def read(cls, data: LmData, split: Split) -> Dataset:
        return read_corpus(data, split)

    @classmethod
    def fit(cls, data: LmData, train: Dataset) -> Lm:
        if cls is Lm and data.label_field is not None:
            from seqtext.tasks.lm_documents import DocumentLm

            return DocumentLm.fit(data, train)
        pretokenized = is_pretokenized(data, train)
        return cls(data, fit_tokenizer(train, data.tokenizer, pretokenized=pretokenized), pretokenized=pretokenized)

    @classmethod
    def load(cls, folder: Path, data: LmData) -> Lm:
        if cls is Lm and data.label_field is not None:
            from seqtext.tasks.lm_documents import DocumentLm

            return DocumentLm.load(folder, data)
        facts = read_json(folder / "text.json", check=lambda value: isinstance(value, dict) and "pretokenized" in value)
        return cls(data, Tokenizer.load(folder / "tokenizer.json"), pretokenized=bool(facts["pretokenized"]))

    def save(self, folder: Path) -> None:
        self.tokenizer.save(folder / "tokenizer.json")
        write_json(folder / "text.json", {"pretokenized": self.pretokenized})

    def build(self, model: LanguageModelConfig) -> LanguageModel:
        return LanguageModel(model, self.tokenizer.size)

    def encode(self, dataset: Dataset) -> Stream:
        return encode_stream(dataset, self.tokenizer, pretokenized=self.pretokenized)

    def prepare(self, text: str, *, pretokenized: bool = False) -> Line:
        as_is = pretokenized or self.pretokenized
        words = len(text) if self.tokenizer.unit == "char" else len(words_of(text, pretokenized=as_is))
        return Line(text, words, as_is)

    def inputs(self, examples: Sequence[Line]) -> Lines:
        as_is = all(example.pretokenized for example in examples)
        return Lines(encode_lines([example.text for example in examples], self.tokenizer, pretokenized=as_is))

    def batches(
        self,
        encoded: Stream | Lines,
        *,
        tokens: int,
        shuffle: np.random.Generator | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> Iterable[Batch]:
        """Windows of a text; with `shuffle` for training: not in another order, but perhaps of other lengths.

        An evaluation has streams of at least `EVALUATED` tokens, each warmed up on the `WARM_UP` before it.
        """
        if isinstance(encoded, Lines):
            return alone(encoded, eos=self.eos, tokens=tokens, shuffle=shuffle, rank=rank, world=world)
        window = self.data.window
        if shuffle is None:
            return evaluation(encoded, tokens=tokens, window=window, rank=rank, world=world)
        streams = max(1, tokens // window)
        lengths = shuffle if self.data.random_windows else None
        windows = Windows(
            encoded, mode="train", streams=streams, window=window, generator=lengths, rank=rank, world=world
        )
        return Batches(windows, window)

    def loss(self, module: LanguageModel, batch: Batch, carry: Any = None) -> Loss:
        hidden = module(batch.inputs, None if batch.first else carry, batch.labels)
        total, count = module.loss(hidden, batch.targets)
        return Loss(total, count, hidden.carry, batch.rate)

    def features(self, module: LanguageModel, batch: Batch, carry: Any = None) -> Features:
        hidden = module(batch.inputs, None if batch.first else carry, batch.labels)
        real = batch.targets >= 0
        return Features(hidden.outputs[real], batch.targets[real], hidden.carry)

    def predict(self, module: LanguageModel, batch: Batch, carry: Any = None) -> Predicted:
        """For each of `rows`, what this batch gives it."""
        assert batch.lines is not None
        hidden = module(batch.inputs, None if batch.first else carry, batch.labels)
        losses = module.nll(hidden, batch.targets)
        return Predicted(line_scores(losses, batch), hidden.carry)

    def adapt(
        self,
        module: LanguageModel,
        encoded: Stream,
        how: Adapting,
        text: Callable[[Split], Stream],
        *,
        tokens: int,
        device: torch.device,
        listen: Callable[[Passing], None] = lambda passing: None,
    ) -> Adapted:
        """`tasks.lm_adapt`: dynamic evaluation and the neural cache. What learns reads the text as one stream."""
        if how.dynamic and isinstance(module.encoder, Echo):
            raise InputError("--dynamic: an echo state network learns nothing from what it reads; --cache goes with it")
        adapter = lm_adapt.Adapter(module, device, evaluation, self.data.window, tokens, listen)
        chosen, rms = adapter.choose(how, text)
        results = [LineScore()] * len(encoded)
        with closing(adapter.losses(encoded, chosen, rms)) as windows:
            for batch, losses in windows:
                for row, score in zip(batch.rows.tolist(), line_scores(losses, batch)):
                    results[row] += score
        return Adapted(results, lm_adapt.facts(chosen, how), lm_adapt.summary(chosen, how))

    def show(self, example: Line, prediction: LineScore) -> str:
        """The log-probability of the line in nats, a tab, and the line."""
        return f"{0.0 - prediction.nll:.4f}\t{example.text}"  # not -0.0

    def record(self, example: Line | Mapping[str, Any], prediction: LineScore) -> dict[str, Any]:
        text = example.text if isinstance(example, Line) else example["text"]
        scored = prediction.targets > 0
        return {
            "text": text,
            "log_probability": 0.0 - prediction.nll,
            "perplexity": prediction.perplexity if scored else None,
            "tokens": prediction.targets,
            "unknown": prediction.unknown,
        }

    def score(self, predictions: Sequence[LineScore], dataset: Dataset) -> dict[str, float]:
        return perplexity.score(predictions, int(line_characters(dataset).sum()))

    def tables(self, predictions: Sequence[LineScore], dataset: Dataset) -> list[Table]:
        found = self.score(predictions, dataset)
        share = found["unknown"] / found["targets"]
        rows = [
            ["perplexity per token", f"{found['perplexity']:.2f}"],
            ["bits per character", f"{found['bits_per_character']:.4f}"],
            ["nats per token", f"{found['nll']:.4f}"],
            ["tokens, line ends counted", f"{found['targets']:,.0f}"],
            ["unknown tokens", f"{found['unknown']:,.0f} ({share:.2%})"],
        ]
        return [Table(f"Language model of {self.tokenizer.unit}s", ["", "value"], rows)]

    def describe(self, splits: Mapping[str, Dataset], encoded: Mapping[str, Stream]) -> list[tuple[str, str]]:
        facts = []
        for split, part in encoded.items():
            size = f"{len(part):,} lines, {part.tokens:,} tokens with line ends, {part.characters:,} characters"
            unknown = f"{part.unknown:,} unknown ({part.unknown / part.tokens:.2%})"
            facts.append((split, f"{size}; {unknown} ({splits[split].info.description})"))
        entries = f"{self.tokenizer.size:,} {self.tokenizer.unit}s, <pad>, <unk> and {EOS} among them"
        if self.tokenizer.size > 100_000:
            entries += '; so many are faster with model.softmax.name = "adaptive" and model.tied = false'
        facts.append(("vocabulary", entries))
        return facts

    # What the searches ask for.

    def prompt(self, texts: Sequence[str]) -> list[list[int]]:
        stream = encode_lines(texts, self.tokenizer, pretokenized=self.pretokenized)
        return [stream.line(number)[:-1].tolist() for number in range(len(stream))]

    def detokenize(self, ids: Sequence[int]) -> str:
        if self.tokenizer.unit == "word":
            return detokenize([self.tokenizer.token(id) for id in ids])
        return self.tokenizer.decode(ids)

    def decoder(self, module: LanguageModel, *, label: str | None = None) -> LmDecoder:
        return LmDecoder(module, self.tokenizer.size, self.label(module, label))

    def label(self, module: LanguageModel, name: str | None) -> int | None:
        """The number of the label that `module` should be conditioned on; None where it reads none.

        Raises `InputError` for a label that there is not, and where one is missing or not read.
        """
        if name is not None:
            raise InputError(f"--label {name}: this language model was trained without labels (data.label_field)")
        return None


def evaluation(text: Stream, *, tokens: int, window: int, kept: int = 0, rank: int = 0, world: int = 1) -> Batches:
    """The batches of an evaluation, of at most `tokens`. Each stream is warmed up on `WARM_UP` tokens and on `kept`
    more, those that a cache should hold at its first; it is as much longer, for the work to be worth its while."""
    streams = max(1, min(tokens // window, text.tokens // max(EVALUATED, 4 * kept)))
    if kept:
        streams = min(streams, max(1, CACHED // (window * (window + kept))))
    warm_up = WARM_UP + kept
    return Batches(
        Windows(text, mode="eval", streams=streams, window=window, warm_up=warm_up, rank=rank, world=world), window
    )


def line_scores(losses: Tensor, batch: Batch) -> list[LineScore]:
    """losses (B, T) of a batch's targets, 0 where there is none -> what each of its lines has in it."""
    assert batch.lines is not None
    places, count = batch.lines.flatten(), len(batch.rows)
    real = (batch.targets >= 0).flatten()
    unknown = (batch.targets == UNKNOWN).flatten()
    columns = torch.stack([losses.flatten().double(), real.double(), unknown.double()], dim=1)  # (B * T, 3)
    sums = columns.new_zeros(count, 3).index_add_(0, places, columns)
    return [LineScore(nll, int(targets), int(unknown)) for nll, targets, unknown in sums.tolist()]
