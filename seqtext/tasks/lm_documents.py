"""Language models of documents with a label each, which may tell what to write: one-to-many.

Documents stand apart: each is read from its own beginning, from the zero state or that of its label, and ends with an
`<eos>`. Documents of like length lie side by side in a batch, which is read window by window, the state carried over;
so every token is scored with all of its document before it, and with nothing of others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch

from seqtext.data.corpus import is_pretokenized
from seqtext.data.lexicon import column
from seqtext.data.stream import encode_stream, fit_tokenizer
from seqtext.data.tokenizer import Tokenizer
from seqtext.errors import InputError
from seqtext.files import read_json, write_json
from seqtext.metrics import perplexity
from seqtext.metrics.perplexity import LineScore
from seqtext.nn.language_model import LanguageModel, LanguageModelConfig
from seqtext.task import Adapted, Predicted, Table
from seqtext.tasks.lm import Line, Lm, LmData
from seqtext.tasks.lm_batches import Batch, Lines, alone
from seqtext.tasks.words import number_labels

if TYPE_CHECKING:
    from datasets import Dataset


class DocumentLm(Lm):
    """The language modelling task where `data.label_field` is given."""

    metric: ClassVar[str] = "perplexity per token, document ends counted, each document from its own beginning"
    options: ClassVar[frozenset[str]] = frozenset({"label"})
    apart: ClassVar[bool] = True

    def __init__(self, data: LmData, tokenizer: Tokenizer, *, pretokenized: bool, names: Sequence[str]) -> None:
        """`names` are the labels."""
        super().__init__(data, tokenizer, pretokenized=pretokenized)
        self.names = list(names)

    @classmethod
    def fit(cls, data: LmData, train: Dataset) -> DocumentLm:
        pretokenized = is_pretokenized(data, train)
        tokenizer = fit_tokenizer(train, data.tokenizer, pretokenized=pretokenized)
        return cls(
            data, tokenizer, pretokenized=pretokenized, names=sorted(column(train, "label").unique().to_pylist())
        )

    @classmethod
    def load(cls, folder: Path, data: LmData) -> DocumentLm:
        facts = read_json(folder / "text.json", check=lambda value: isinstance(value, dict) and "pretokenized" in value)
        names = read_json(folder / "labels.json", check=_are_labels)
        tokenizer = Tokenizer.load(folder / "tokenizer.json")
        return cls(data, tokenizer, pretokenized=bool(facts["pretokenized"]), names=names)

    def save(self, folder: Path) -> None:
        super().save(folder)
        write_json(folder / "labels.json", self.names)

    def build(self, model: LanguageModelConfig) -> LanguageModel:
        return LanguageModel(model, self.tokenizer.size, labels=len(self.names))

    def encode(self, dataset: Dataset) -> Lines:  # type: ignore[override]
        stream = encode_stream(dataset, self.tokenizer, pretokenized=self.pretokenized)
        labels = column(dataset, "label").combine_chunks().dictionary_encode()
        codes, found = labels.indices.to_numpy(zero_copy_only=False), labels.dictionary.to_pylist()
        return Lines(stream, number_labels(codes, found, self.names, place=lambda row: f"document {row + 1}"))

    def batches(  # type: ignore[override]
        self,
        encoded: Lines,
        *,
        tokens: int,
        shuffle: np.random.Generator | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        window = self.data.window
        return alone(encoded, eos=self.eos, tokens=tokens, window=window, shuffle=shuffle, rank=rank, world=world)

    def predict(self, module: LanguageModel, batch: Batch, carry: Any = None, *, label: str | None = None) -> Predicted:
        """As `Lm.predict`; with `label` as if all documents had this one, which texts without labels need."""
        if label is not None or batch.labels is None:
            number = self.label(module, label)
            labels = None if number is None else torch.full(batch.inputs.shape[:1], number, device=batch.inputs.device)
            batch = batch._replace(labels=labels)
        return super().predict(module, batch, carry)

    def label(self, module: LanguageModel, name: str | None) -> int | None:
        there = f"its labels: {', '.join(self.names)}"
        if module.conditioning is None:
            if name is not None:
                raise InputError(f'--label {name}: this language model reads no label (model.condition = "none")')
            return None
        if name is None:
            raise InputError(f"this language model is conditioned on a label: give one by --label; {there}")
        if name not in self.names:
            raise InputError(f"--label {name}: this language model knows no such label; {there}")
        return self.names.index(name)

    def adapt(self, *given: Any, **options: Any) -> Adapted:
        raise InputError("--dynamic and --cache read one text in its order, and the documents of this run stand apart")

    def record(self, example: Line | Mapping[str, Any], prediction: LineScore) -> dict[str, Any]:
        record = super().record(example, prediction)
        return record if isinstance(example, Line) else record | {"label": example["label"]}

    def score(self, predictions: Sequence[LineScore], dataset: Dataset) -> dict[str, float]:
        found = {
            f"perplexity/{name}": score.perplexity for name, (_, score) in self._sums(predictions, dataset).items()
        }
        return super().score(predictions, dataset) | found

    def tables(self, predictions: Sequence[LineScore], dataset: Dataset) -> list[Table]:
        rows = [
            [name, f"{count:,}", f"{score.targets:,}", f"{score.perplexity:.2f}"]
            for name, (count, score) in self._sums(predictions, dataset).items()
        ]
        by_label = Table("Documents by label", ["label", "documents", "tokens", "perplexity"], rows)
        return [*super().tables(predictions, dataset), by_label]

    def _sums(self, predictions: Sequence[LineScore], dataset: Dataset) -> dict[str, tuple[int, LineScore]]:
        """Documents and what they sum up to, for each label that the dataset has."""
        labels = column(dataset, "label").to_pylist()
        found: dict[str, tuple[int, LineScore]] = {}
        for name in self.names:
            scores = [score for label, score in zip(labels, predictions) if label == name]
            if scores:
                found[name] = len(scores), perplexity.total(scores)
        return found

    def describe(self, splits: Mapping[str, Dataset], encoded: Mapping[str, Lines]) -> list[tuple[str, str]]:  # type: ignore[override]
        facts = super().describe(splits, {split: part.stream for split, part in encoded.items()})
        for split, part in encoded.items():
            assert part.labels is not None
            shares = np.bincount(part.labels, minlength=len(self.names)) / max(1, len(part))
            balance = ", ".join(f"{name} {share:.1%}" for name, share in zip(self.names, shares))
            facts.append((f"{split} labels", f"{len(self.names)}: {balance}"))
        return facts


def _are_labels(names: Any) -> bool:
    """Whether this is what `save` wrote of the labels."""
    return (
        isinstance(names, list) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names) > 0
    )
