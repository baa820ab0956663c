"""Translation: a text in one language to a text in another, by the encoder-decoder of `nn.seq2seq`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.data.batching import bucketed
from seqtext.data.pairs import END, MARKS, START, Side, encode_side, texts_of
from seqtext.data.parallel import ParallelData, doubts_of_other, filtered, read_parallel, swapped
from seqtext.data.text import refuse_nul
from seqtext.data.tokenizer import PAD, UNKNOWN, Tokenizer, TokenizerConfig
from seqtext.errors import InputError
from seqtext.metrics.translation import quality
from seqtext.nn.seq2seq import Seq2Seq, Seq2SeqConfig
from seqtext.search.beam import Hypothesis
from seqtext.search.decoding import Decoding, decode
from seqtext.task import Comparison, Goal, Listing, Loss, Predicted, Split, Table
from seqtext.tasks.translated import (
    Candidate,
    Translation,
    comparison,
    extremes,
    looked_at,
    one_line,
    perplexity,
    signatures,
    spans_of,
    tables,
    written,
)
from seqtext.tasks.translator import Several, decoder_of, reference_losses

if TYPE_CHECKING:
    from datasets import Dataset

GOALS: dict[str, Goal] = {
    "bleu": Goal("bleu", "max"),
    "chrf2": Goal("chrf2", "max"),
    "perplexity": Goal("perplexity", "min"),
}


class TranslationData(ParallelData):
    """[data] of a translator."""

    tokenizer: TokenizerConfig = TokenizerConfig(unit="bpe", max_size=8000, byte_fallback=True)
    """What the entries of either side are: words, characters or pieces."""
    joint: bool = True
    """Learn one vocabulary from both sides, or one for each."""
    goal: Literal["bleu", "chrf2", "perplexity"] = "bleu"
    """The score of the validation part that tells which weights are best, and when to stop early: of its translations,
    or the perplexity of its references."""


class TranslationModel(Seq2SeqConfig):
    """[model] of a translator."""

    search: Decoding = Decoding()
    """How translations are found, where a command does not say otherwise."""


class Batch(NamedTuple):
    """B sentences."""

    rows: Tensor
    """(B,) int64, CPU."""
    lengths: Tensor
    """(B,) int64, CPU: tokens of each source, `</s>` among them."""
    source: Tensor
    """(B, S) int64."""
    inputs: Tensor | None
    """(B, T) int64: what the decoder reads, from `<s>` on."""
    targets: Tensor | None
    """(B, T) int64: what it should write, up to `</s>`; -1 where there is nothing."""
    texts: Callable[[], Sequence[str]]
    """Reads the B sources as they were given."""


@dataclass(frozen=True)
class Encoded:
    """A split as arrays: what `batches` cuts."""

    source: Side
    target: Side | None
    texts: Callable[[np.ndarray], Sequence[str]]
    """Sources as they were given, of rows (B,) int64."""

    def __len__(self) -> int:
        return len(self.source.lengths)


@dataclass(frozen=True)
class Sentence:
    """A text to translate; its length is in words, as `bool` of it tells whether there is any."""

    text: str
    target: str | None = None
    """A translation of it, where that is to be scored."""

    def __len__(self) -> int:
        return len(self.text.split())


class TranslationTask:
    """The task of translating sentences."""

    name: ClassVar[str] = "translation"
    empty: ClassVar[Translation] = Translation()
    options: ClassVar[frozenset[str]] = frozenset(Decoding.model_fields) | {
        "prefix",
        "attention",
        "replace_unknown",
        "forced",
    }
    carries: ClassVar[bool] = False
    Data: ClassVar[type[Config]] = TranslationData
    Model: ClassVar[type[Config]] = TranslationModel

    def __init__(self, data: TranslationData, source: Tokenizer, target: Tokenizer) -> None:
        """The same tokenizer for both sides where they are joint."""
        self.data, self.source, self.target = data, source, target
        self.goal = GOALS[data.goal]
        self.search = Decoding()
        self.attends = True

    @property
    def metric(self) -> str:
        return f"{signatures()}; perplexity of the references per token"

    @classmethod
    def read(cls, data: TranslationData, split: Split) -> Dataset:
        return read_parallel(data, split)

    @classmethod
    def fit(cls, data: TranslationData, train: Dataset) -> TranslationTask:
        if data.joint:
            both = chain(texts_of(train, "source"), texts_of(train, "target"))
            tokenizer = Tokenizer.train(both, data.tokenizer, specials=MARKS)
            return cls(data, tokenizer, tokenizer)
        sides = [
            Tokenizer.train(texts_of(train, side), data.tokenizer, specials=MARKS) for side in ("source", "target")
        ]
        return cls(data, *sides)

    @classmethod
    def load(cls, folder: Path, data: TranslationData) -> TranslationTask:
        if data.joint:
            tokenizer = Tokenizer.load(folder / "tokenizer.json")
            return cls(data, tokenizer, tokenizer)
        return cls(data, Tokenizer.load(folder / "source.json"), Tokenizer.load(folder / "target.json"))

    def save(self, folder: Path) -> None:
        if self.data.joint:
            self.source.save(folder / "tokenizer.json")
        else:
            self.source.save(folder / "source.json")
            self.target.save(folder / "target.json")

    def build(self, model: TranslationModel) -> Seq2Seq:
        self.search, self.attends = model.search, model.decoder.context == "attention"
        return Seq2Seq(model, self.source.size, self.target.size, joint=self.data.joint)

    def encode(self, dataset: Dataset) -> Encoded:
        source, target = (
            encode_side(texts_of(dataset, side), tokenizer)
            for side, tokenizer in (("source", self.source), ("target", self.target))
        )
        column = dataset.select_columns(["source"]).with_format(None)
        return Encoded(source, target, lambda rows: column[rows.tolist()]["source"])

    def prepare(self, text: str, *, pretokenized: bool = False) -> Sentence:
        """Raises `InputError` for a NUL character, as training data has none, and for `pretokenized`."""
        if pretokenized:
            raise InputError("--pretokenized: a translator reads plain text as it is written; leave this out")
        refuse_nul(text)
        return Sentence(text)

    def prepare_pair(self, text: str, target: str) -> Sentence:
        refuse_nul(text)
        refuse_nul(target)
        return Sentence(text, target)

    def inputs(self, examples: Sequence[Sentence]) -> Encoded:
        """Numbers of sentences; of their targets as well, where they all have one."""
        targets = [example.target for example in examples if example.target is not None]
        texts = [example.text for example in examples]
        target = encode_side(targets, self.target) if len(targets) == len(examples) else None
        return Encoded(encode_side(texts, self.source), target, lambda rows: [texts[row] for row in rows.tolist()])

    def batches(
        self,
        encoded: Encoded,
        *,
        tokens: int,
        shuffle: np.random.Generator | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> Iterator[Batch]:
        """Sentences of like length together; a sentence costs the tokens of its longer side."""
        costs = encoded.source.lengths + 1
        if encoded.target is not None:
            costs = np.maximum(costs, encoded.target.lengths + 1)
        for rows in bucketed(costs, tokens=tokens, shuffle=shuffle, rank=rank, world=world):
            source, lengths = encoded.source.padded(rows, fill=PAD)
            inputs = targets = None
            if encoded.target is not None:
                wanted, _ = encoded.target.padded(rows, fill=-1)
                given = np.full_like(wanted, START)
                given[:, 1:] = np.maximum(wanted[:, :-1], PAD)
                inputs, targets = torch.from_numpy(given), torch.from_numpy(wanted)
            numbers, counts, ids = map(torch.from_numpy, (rows, lengths, source))
            yield Batch(numbers, counts, ids, inputs, targets, partial(encoded.texts, rows))

    def loss(self, module: Seq2Seq, batch: Batch, carry: Any = None) -> Loss:
        assert batch.inputs is not None and batch.targets is not None
        total, count = module.loss(module(batch.source, batch.lengths, batch.inputs), batch.targets)
        return Loss(total, count)

    def predict(
        self,
        module: Seq2Seq | Several,
        batch: Batch,
        carry: Any = None,
        *,
        prefix: str = "",
        attention: bool = False,
        replace_unknown: bool = False,
        forced: bool = False,
        **search: Any,
    ) -> Predicted:
        """Translations of `batch.rows`, and the loss of their references where there are any.

        `prefix` is what all translations begin with; they may go on with its last word. `attention` gives that of the
        best translations, `replace_unknown` puts for an unknown token what of the source's text it looked at; with
        `forced` nothing is translated. The rest are fields of `Decoding`.
        """
        count = len(batch.rows)
        losses, sizes, unknown = [0.0] * count, [0] * count, [0] * count
        if batch.targets is not None:
            assert batch.inputs is not None
            nll = reference_losses(module, batch.source, batch.lengths, batch.inputs, batch.targets)
            losses, sizes = nll.double().sum(1).tolist(), (batch.targets >= 0).sum(1).tolist()
            unknown = (batch.targets == UNKNOWN).sum(1).tolist()
        found: list[list[Hypothesis]] = [[] for _ in range(count)]
        if not forced:
            found = decode(
                decoder_of(module),
                module.encode(batch.source, batch.lengths),
                batch.lengths,
                self.search.with_options(search),
                start=START,
                eos=END,
                forbidden=(PAD, START) if replace_unknown else (PAD, START, UNKNOWN),
                sources=batch.source,
                device=batch.source.device,
                prefix=batch.source.new_tensor([self._prefix(prefix)] * count) if prefix else None,
                align=replace_unknown,
                attention=attention,
            )
        spans = [spans_of(text, self.source) for text in batch.texts()] if replace_unknown else [[]] * count
        results = []
        for row, (hypotheses, loss, size, lacking) in enumerate(zip(found, losses, sizes, unknown)):
            candidates = tuple(
                Candidate(written(one.tokens, self.target, one.alignment, spans[row]), one.score, one.log_probability)
                for one in hypotheses
            )
            seen = None
            if attention and hypotheses:
                seen = looked_at(batch.source[row].tolist(), hypotheses[0], self.source, self.target)
            results.append(Translation(candidates, loss, size, lacking, seen))
        return Predicted(results)

    def _prefix(self, text: str) -> list[int]:
        """Its tokens. Raises `InputError` where one is unknown."""
        found = self.target.encode(text)
        if UNKNOWN in found.ids:
            unknown = ", ".join(repr(text[a:b]) for id, (a, b) in zip(found.ids, found.offsets) if id == UNKNOWN)
            raise InputError(f"--prefix {text}: the model has no token for {unknown}")
        return found.ids

    def searched(self, options: Mapping[str, Any], *, attention_flag: str = "--attention") -> str:
        """How translations are found with these options of `predict`. Raises `InputError` naming the flag at fault."""
        search = self.search.with_options({key: options[key] for key in options if key in Decoding.model_fields})
        looking = {attention_flag: options.get("attention"), "--replace-unknown": options.get("replace_unknown")}
        wanted = [flag for flag, given in looking.items() if given]
        if search.coverage_penalty:
            wanted.append("--coverage-penalty")
        if wanted and not self.attends:
            raise InputError(f"{', '.join(wanted)}: this needs a model with attention, and this one has none")
        prefix = options.get("prefix") or ""
        if search.sample and (wanted or prefix):
            named = ", ".join([*wanted, "--prefix"] if prefix else wanted)
            raise InputError(f"{named}: this needs a beam; leave out --sample")
        if (count := len(self._prefix(prefix))) > search.max_length:
            raise InputError(f"--prefix {prefix}: {count} tokens, more than --max-length {search.max_length}")
        return search.summary

    def unlike(self, other: TranslationTask) -> str | None:
        """What keeps a run of the task `other` from translating together with one of this, if anything."""
        sides = {
            "source vocabulary": (self.source, other.source),
            "target vocabulary": (self.target, other.target),
        }
        differing = [what for what, (one, two) in sides.items() if one.to_json() != two.to_json()]
        if self.data.languages != other.data.languages:
            differing = ["pair of languages"]
        return f"they must have the same {' and '.join(differing)}" if differing else None

    def together(self, modules: Sequence[nn.Module]) -> Several:
        return Several(modules)

    def show(self, example: Sentence, prediction: Translation) -> str:
        return one_line(prediction.text)

    def scored(self, example: Sentence, prediction: Translation) -> dict[str, Any]:
        return {"source": example.text, "target": example.target, **prediction.chance}

    def record(self, example: Sentence | Mapping[str, Any], prediction: Translation) -> dict[str, Any]:
        if isinstance(example, Sentence):
            result: dict[str, Any] = {"source": example.text}
            reference = example.target
        else:  # a row of a dataset
            result, reference = {"source": example["source"]}, example["target"]
        if reference is not None:
            result["reference"] = {"text": reference, **prediction.chance}
        if prediction.candidates:
            best, *others = prediction.candidates
            result |= {"translation": best.text, "score": best.score, "log_probability": best.log_probability}
            if others:
                result["nbest"] = [one._asdict() for one in prediction.candidates]
        elif reference is None:  # a line without a word
            result |= {"translation": "", "score": None, "log_probability": None}
        if prediction.attention is not None:
            result["attention"] = prediction.attention._asdict()
        return result

    def score(self, predictions: Sequence[Translation], dataset: Dataset) -> dict[str, float]:
        found = quality([one.text for one in predictions], list(texts_of(dataset, "target")))
        return found.flat() | {"perplexity": perplexity(predictions)}

    def tables(self, predictions: Sequence[Translation], dataset: Dataset) -> list[Table]:
        return tables(predictions, dataset)

    def listings(self, predictions: Sequence[Translation], dataset: Dataset, *, count: int) -> list[Listing]:
        best, worst = extremes(predictions, dataset, count=count)
        return [Listing("worst", "with the lowest chrF2", worst), Listing("best", "with the highest chrF2", best)]

    def compare(
        self, baseline: Sequence[Translation], predictions: Sequence[Translation], dataset: Dataset
    ) -> Comparison:
        return comparison(baseline, predictions, dataset)

    def filtered(self, splits: Mapping[Split, Dataset]) -> dict[Split, str]:
        return {split: found for split, dataset in splits.items() if (found := filtered(dataset))}

    def check_other(self, data: TranslationData, dataset: Dataset, train: Callable[[], Dataset]) -> list[str]:
        return doubts_of_other(self.data, data, dataset, train)

    def warnings(self, splits: Mapping[Split, Dataset]) -> list[str]:
        """Where sides are swapped between training and another split."""
        if "train" not in splits:
            return []
        found = {split: swapped(splits["train"], dataset) for split, dataset in splits.items() if split != "train"}
        return [f"{split}: {warning}" for split, warning in found.items() if warning]

    def describe(self, splits: Mapping[Split, Dataset], encoded: Mapping[Split, Encoded]) -> list[tuple[str, str]]:
        facts: list[tuple[str, str]] = []
        for split, part in encoded.items():
            assert part.target is not None
            sides = zip(self.data.languages, (part.source, part.target))
            sizes = ", ".join(
                f"{language} {side.lengths.sum():,} tokens (longest {side.lengths.max()})" for language, side in sides
            )
            facts.append((split, f"{len(part):,} pairs: {sizes}; {splits[split].info.description}"))
        facts += [("warning", warning) for warning in self.warnings(splits)]
        entries = f"{self.source.size:,} {self.source.unit} entries"
        if not self.data.joint:
            entries = f"{entries} for the source, {self.target.size:,} for the target"
        facts.append(("vocabulary", entries + (" for both sides" if self.data.joint else "")))
        for split, part in encoded.items():
            assert part.target is not None
            unknown = int((part.source.ids == UNKNOWN).sum()), int((part.target.ids == UNKNOWN).sum())
            facts.append((f"{split} unknown", f"{unknown[0]:,} source tokens, {unknown[1]:,} target tokens"))
        return facts
