"""Named-entity tagging: a bidirectional recurrent tagger with a CRF (Lample 2016; Ma & Hovy 2016)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.data import arrays
from seqtext.data.batching import bucketed
from seqtext.data.labels import Labels, allowed_transitions, continues, spans
from seqtext.data.lexicon import Lexicon, Text, Types, column, pad, types_of
from seqtext.data.tagging import TaggingData, read_tagging
from seqtext.errors import DataError
from seqtext.metrics import entities
from seqtext.nn.crf import CRF
from seqtext.nn.dropout import LockedDropout
from seqtext.nn.embedding import EmbeddingConfig, WordEmbedding, Words
from seqtext.nn.encoders import StackConfig, build_stack
from seqtext.nn.jordan import LabelFeedback, LabelRecurrence, Recurrence
from seqtext.nn.products import evenly
from seqtext.nn.readout import build_output
from seqtext.nn.reservoir import Echo, ReservoirConfig
from seqtext.nn.rnn import RecurrentConfig
from seqtext.task import Features, Goal, Loss, Predicted, Split, Table
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


class NerData(WordsData, TaggingData):
    """[data] of a tagger."""


class NerModel(Config):
    """[model] of a tagger."""

    embedding: EmbeddingConfig = EmbeddingConfig()
    """What a word's vector is made of."""
    encoder: StackConfig = RecurrentConfig()
    """What reads the sentence: recurrent layers or, by its `name`, a reservoir (esn) or nothing but words (none)."""
    recurrence: Recurrence = "hidden"
    """What goes from word to word: hidden states, those of the encoder (hidden), or above it the label before (output;
    Jordan 1986), or that and a hidden state beside it (both)."""
    feedback: LabelFeedback = LabelFeedback()
    """The layers that read the label before, where one is read."""
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Locked dropout on the states that the labels are read from."""
    head: Literal["crf", "softmax"] = "crf"
    """Labels chosen together (CRF) or each by itself (softmax)."""

    @model_validator(mode="after")
    def _check(self) -> NerModel:
        if self.recurrence == "hidden" and self.feedback != LabelFeedback():
            raise ValueError('feedback: no label is fed back with recurrence = "hidden"; set "output" or "both"')
        if self.recurrence != "hidden" and self.head == "crf":
            told = "a CRF weighs whole taggings, and the labels fed back are of one alone"
            raise ValueError(f'head: {told}: set head = "softmax" with recurrence = "{self.recurrence}"')
        if isinstance(self.encoder, ReservoirConfig) and self.encoder.readout == "ridge" and self.head == "crf":
            raise ValueError('head: a CRF is learned, and readout = "ridge" is solved for: set head = "softmax"')
        return self


class Batch(NamedTuple):
    """B sentences of at most T words."""

    rows: Tensor
    """(B,) int64, CPU."""
    lengths: Tensor
    """(B,) int64, CPU."""
    words: Words
    labels: Tensor | None
    """(B, T) int64; padding repeats the last label."""


@dataclass(frozen=True)
class Encoded:
    """A split as arrays: what `batches` cuts."""

    text: Text
    types: Types
    labels: np.ndarray | None
    """(M,) int64: the label of every token."""

    def __len__(self) -> int:
        return len(self.text.lengths)


class Entity(NamedTuple):
    """A tagged span of words, `end` exclusive, with the marginal probability of exactly this span."""

    start: int
    end: int
    type: str
    confidence: float | None


class Prediction(NamedTuple):
    """The tags of a sentence, and what else was asked for."""

    tags: list[str]
    entities: list[Entity]
    alternatives: list[tuple[list[str], float]]
    """The k best taggings with their probabilities, best first; empty where they were not asked for."""


class Tagger(nn.Module):
    """Embedding, recurrent encoder, and a score for each label at each word."""

    def __init__(self, embedding: WordEmbedding, config: NerModel, labels: Labels) -> None:
        super().__init__()
        self.embedding = embedding
        self.encoder = build_stack(embedding.output_size, config.encoder)
        if isinstance(self.encoder, Echo):
            embedding.requires_grad_(False)  # no gradient comes back through a reservoir
        self.dropout = LockedDropout(config.dropout)
        size = self.encoder.output_size
        self.feedback: LabelRecurrence | None = None
        if config.recurrence != "hidden":
            self.feedback = LabelRecurrence(size, len(labels.names), config.feedback, config.recurrence)
            size = self.feedback.output_size
        self.output = build_output(size, len(labels.names), config.encoder)
        self.crf: CRF | None = None
        if config.head == "crf":
            start, transitions, end = allowed_transitions(labels.names, labels.scheme or "BIOES")
            self.crf = CRF(len(labels.names), start_allowed=start, transitions_allowed=transitions, end_allowed=end)

    def features(self, words: Words, lengths: Tensor) -> Tensor:
        """words of (B, T) positions, lengths (B,) on the CPU -> (B, T, F): what labels are read from."""
        states, _ = self.encoder(self.embedding(words), lengths, with_state=False)
        return self.dropout(states)

    def forward(self, words: Words, lengths: Tensor, labels: Tensor | None = None) -> Tensor:
        """words of (B, T) positions, lengths (B,) on the CPU -> logits (B, T, C), float32.

        Where labels are fed back they are `labels` (B, T), as in training, or without these the best ones so far.
        """
        states = self.features(words, lengths)
        if self.feedback is not None:
            return self.feedback(states, self.output, labels)
        return evenly(self.output, states).float()


class Ner:
    """The tagging task."""

    name: ClassVar[str] = "ner"
    metric: ClassVar[str] = "entity F1 as conlleval counts, micro-averaged over types"
    empty: ClassVar[Prediction] = Prediction([], [], [])
    options: ClassVar[frozenset[str]] = frozenset({"confidence", "nbest"})
    carries: ClassVar[bool] = False
    Data: ClassVar[type[Config]] = NerData
    Model: ClassVar[type[Config]] = NerModel
    goal: ClassVar[Goal] = Goal("f1", "max")

    def __init__(self, lexicon: Lexicon, labels: Labels) -> None:
        self.lexicon, self.labels = lexicon, labels
        self.scheme = labels.scheme or "BIOES"
        self.names = np.array(labels.names, dtype=object)

    @classmethod
    def read(cls, data: NerData, split: Split) -> Dataset:
        return read_tagging(data, split)

    @classmethod
    def fit(cls, data: NerData, train: Dataset) -> Ner:
        tags = pa.chunked_array([c.flatten() for c in column(train, "tags").chunks], type=pa.string())
        labels = Labels.fit([tags.unique().to_pylist()], scheme=data.scheme)
        return cls(Lexicon.fit(types_of(column(train, "tokens")), data.words), labels)

    @classmethod
    def load(cls, folder: Path, data: NerData) -> Ner:
        return cls(Lexicon.load(folder, data.words), Labels.load(folder / "labels.json"))

    def save(self, folder: Path) -> None:
        self.lexicon.save(folder)
        self.labels.save(folder / "labels.json")

    def build(self, model: NerModel) -> Tagger:
        return Tagger(build_embedding(model.embedding, self.lexicon), model, self.labels)

    def encode(self, dataset: Dataset) -> Encoded:
        encoded = self._encode(column(dataset, "tokens"))
        tags = types_of(column(dataset, "tags"))

        def place(token: int) -> str:
            return f"sentence {int(np.searchsorted(tags.starts, token, side='right'))}"

        labels = number_labels(tags.codes, tags.words.to_pylist(), self.labels.names, place=place)
        return Encoded(encoded.text, encoded.types, labels)

    def prepare(self, text: str, *, pretokenized: bool = False) -> Sentence:
        return Sentence.read(text, pretokenized=pretokenized)

    def inputs(self, examples: Sequence[Sentence]) -> Encoded:
        return self._encode(arrays.words([example.words for example in examples]))

    def _encode(self, tokens: pa.ChunkedArray | pa.Array) -> Encoded:
        text = types_of(tokens)
        return Encoded(text, self.lexicon.encode(text.words), None)

    def batches(
        self,
        encoded: Encoded,
        *,
        tokens: int,
        shuffle: np.random.Generator | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        text, types = encoded.text, encoded.types
        for rows in bucketed(text.lengths, tokens=tokens, shuffle=shuffle, rank=rank, world=world):
            words = gather_words(text, types, rows)
            labels = None if encoded.labels is None else torch.from_numpy(pad(text, rows, encoded.labels))
            yield Batch(torch.from_numpy(rows), torch.from_numpy(text.lengths[rows]), words, labels)

    def loss(self, module: Tagger, batch: Batch, carry: Any = None) -> Loss:
        assert batch.labels is not None
        logits = module(batch.words, batch.lengths, batch.labels)
        if module.crf is not None:
            total = module.crf.nll(logits, batch.labels, batch.lengths).sum()
        else:
            losses = nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), reduction="none")
            total = losses[_real(batch, losses.device).flatten()].sum()
        return Loss(total, batch.lengths.sum())

    def features(self, module: Tagger, batch: Batch, carry: Any = None) -> Features:
        assert batch.labels is not None
        states = module.features(batch.words, batch.lengths)
        real = _real(batch, states.device)
        return Features(states[real], batch.labels[real])

    def predict(
        self, module: Tagger, batch: Batch, carry: Any = None, *, confidence: bool = False, nbest: int = 1
    ) -> Predicted:
        """Tags, with `confidence` each entity's marginal probability, with `nbest` > 1 the k best taggings."""
        logits = module(batch.words, batch.lengths)
        paths = module.crf.viterbi(logits, batch.lengths)[1] if module.crf is not None else logits.argmax(-1)
        tags = self._tags(paths, batch.lengths)
        found = [[Entity(*span, None) for span in spans(each, self.scheme)] for each in tags]
        if confidence:
            found = self._confident(module, logits, batch, paths, found)
        alternatives = self._nbest(module, logits, batch, nbest) if nbest > 1 else [[] for _ in tags]
        return Predicted([Prediction(*each) for each in zip(tags, found, alternatives)])

    def score(self, predictions: Sequence[Prediction], dataset: Dataset) -> dict[str, float]:
        return self._entities(predictions, dataset).flat()

    def tables(self, predictions: Sequence[Prediction], dataset: Dataset) -> list[Table]:
        found = self._entities(predictions, dataset)
        header = ["type", "precision", "recall", "F1", "gold", "predicted", "correct"]
        rows = [
            [row.name, *(f"{100 * value:.2f}" for value in row[1:4]), *(f"{value:,}" for value in row[4:])]
            for row in found.table()
        ]
        note = f"{found.invalid:,} of {found.sentences:,} predicted sequences break the rules of {found.scheme}"
        return [Table(f"Entities ({note})", header, rows)]

    def show(self, example: Sentence, prediction: Prediction) -> str:
        """The sentence with its entities in brackets: [PER Angela Merkel] flew from [LOC Berlin] ."""
        words = list(example.words)
        for entity in prediction.entities:
            words[entity.start] = f"[{entity.type} {words[entity.start]}"
            words[entity.end - 1] += "]"
        return " ".join(words)

    def record(self, example: Sentence | Mapping[str, Any], prediction: Prediction) -> dict[str, Any]:
        if not isinstance(example, Sentence):  # a row of a dataset
            return {"tokens": example["tokens"], "gold": example["tags"], "tags": prediction.tags}
        found = []
        for entity in prediction.entities:
            start, end = example.offsets[entity.start][0], example.offsets[entity.end - 1][1]
            place = {"start": start, "end": end, "label": entity.type, "text": example.text[start:end]}
            found.append(place | ({} if entity.confidence is None else {"confidence": round(entity.confidence, 4)}))
        result: dict[str, Any] = {"text": example.text, "tokens": example.words, "tags": prediction.tags}
        result["entities"] = found
        if prediction.alternatives:
            ranked = [{"tags": tags, "probability": round(chance, 6)} for tags, chance in prediction.alternatives]
            result["nbest"] = ranked
        return result

    def _entities(self, predictions: Sequence[Prediction], dataset: Dataset) -> entities.Entities:
        return entities.score(
            column(dataset, "tags").to_pylist(),
            [prediction.tags for prediction in predictions],
            scheme=self.scheme,
            tokens=column(dataset, "tokens").to_pylist(),
            known_words=self.lexicon.words.__contains__,
        )

    def describe(self, splits: Mapping[str, Dataset], encoded: Mapping[str, Encoded]) -> list[tuple[str, str]]:
        facts = []
        for split, part in encoded.items():
            facts.append((split, size_fact(part.text.lengths, splits[split].info.description, unit="sentences")))
        facts.append(("labels", f"{len(self.labels.names)}: {', '.join(self.labels.names)}"))
        return facts + word_facts(self.lexicon, {split: part.text for split, part in encoded.items()})

    def _tags(self, paths: Tensor, lengths: Tensor) -> list[list[str]]:
        named = self.names[paths.clamp(min=0).cpu().numpy()]  # (B, T) of str
        return [row[:length].tolist() for row, length in zip(named, lengths.tolist())]

    def _confident(
        self, module: Tagger, logits: Tensor, batch: Batch, paths: Tensor, found: list[list[Entity]]
    ) -> list[list[Entity]]:
        flat = [(row, entity) for row, each in enumerate(found) for entity in each]
        if not flat:
            return found
        rows = torch.tensor([row for row, _ in flat], device=logits.device)
        starts = torch.tensor([entity.start for _, entity in flat], device=logits.device)
        ends = torch.tensor([entity.end for _, entity in flat], device=logits.device)
        if module.crf is not None:
            follows = torch.tensor(continues(self.labels.names, self.scheme), device=logits.device)
            chances = module.crf.span_probabilities(logits, batch.lengths, paths, rows, starts, ends, follows)
        else:
            # Independent labels: the product of the probabilities of a span's labels.
            best = logits.log_softmax(-1).gather(2, paths.unsqueeze(2)).squeeze(2)
            sums = nn.functional.pad(best.cumsum(1), (1, 0))
            chances = (sums[rows, ends] - sums[rows, starts]).exp()
        result: list[list[Entity]] = [[] for _ in found]
        for (row, entity), chance in zip(flat, chances.tolist()):
            result[row].append(entity._replace(confidence=chance))
        return result

    def _nbest(self, module: Tagger, logits: Tensor, batch: Batch, nbest: int) -> list[list[tuple[list[str], float]]]:
        if module.crf is None:
            raise DataError("--nbest needs a model with head = 'crf'; this run was trained with head = 'softmax'")
        scores, paths = module.crf.kbest(logits, batch.lengths, nbest)
        chances = (scores - module.crf.log_partition(logits, batch.lengths).unsqueeze(1)).exp()
        columns = [self._tags(paths[:, k], batch.lengths) for k in range(paths.size(1))]
        return [
            [(tags, chance) for tags, chance in zip(ranked, row) if chance > 0.0]
            for ranked, row in zip(zip(*columns), chances.tolist())
        ]


def _real(batch: Batch, device: torch.device) -> Tensor:
    """(B, T) bool: True at real tokens."""
    steps = torch.arange(batch.words.positions.size(1), device=device)
    return steps < batch.lengths.to(device).unsqueeze(1)
