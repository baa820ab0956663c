"""What a translator says of a sentence, and its evaluation for people to read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from seqtext.data.detokenize import detokenize
from seqtext.data.pairs import END, texts_of
from seqtext.data.tokenizer import SPECIALS, UNKNOWN, Tokenizer
from seqtext.metrics.bootstrap import SEED, compare
from seqtext.metrics.translation import by_length, quality, sentence_chrf, tokenization_warning
from seqtext.search.beam import Hypothesis
from seqtext.task import Comparison, Table

if TYPE_CHECKING:
    from datasets import Dataset


SAMPLES = 1000
"""Resamples of a comparison."""


class Candidate(NamedTuple):
    """A translation and how good the model takes it to be."""

    text: str
    score: float
    """What it was ranked by: its log-probability, length and coverage accounted for."""
    log_probability: float
    """In nats."""


class Attention(NamedTuple):
    """What each token of a translation looked at."""

    source: list[str]
    target: list[str]
    weights: list[list[float]]
    """A row a target token, a column a source token."""


class Translation(NamedTuple):
    """What is predicted for a sentence."""

    candidates: tuple[Candidate, ...] = ()
    """Best first; none where only a reference was scored."""
    nll: float = 0.0
    """Of the reference, where there is one, in nats."""
    targets: int = 0
    """Tokens of the reference, `</s>` among them."""
    unknown: int = 0
    """Of these, those that the vocabulary does not have."""
    attention: Attention | None = None
    """Of the best one, where it was asked for."""

    @property
    def text(self) -> str:
        """The best translation."""
        return self.candidates[0].text if self.candidates else ""

    @property
    def chance(self) -> dict[str, Any]:
        """How probable the reference is, as a JSON object; a sentence without a word has 0 tokens."""
        return {
            "log_probability": 0.0 - self.nll,  # not -0.0
            "perplexity": perplexity([self]) if self.targets else None,
            "tokens": self.targets,
            "unknown": self.unknown,
        }


def perplexity(predictions: Sequence[Translation]) -> float:
    """Of the references, per token."""
    total = sum(prediction.nll for prediction in predictions)
    return math.exp(min(total / max(1, sum(prediction.targets for prediction in predictions)), 700.0))


def one_line(text: str) -> str:
    """A text without line ends, which a model that writes bytes can write too."""
    return re.sub(r"[\r\n]+", " ", text)


def spans_of(text: str, tokenizer: Tokenizer) -> list[str]:
    """What of a source's text each of its tokens stands for; nothing for the `</s>`."""
    return [*(text[start:end] for start, end in tokenizer.encode(text).offsets), ""]


def written(
    tokens: Sequence[int], tokenizer: Tokenizer, alignment: Sequence[int] | None = None, spans: Sequence[str] = ()
) -> str:
    """The text of a target's tokens; with `alignment`, an unknown one is written as the span that it is aligned with.

    Luong et al. 2015, "Addressing the Rare Word Problem in Neural Machine Translation": names are copied so.
    """
    copied = {} if alignment is None else {i: spans[alignment[i]] for i, id in enumerate(tokens) if id == UNKNOWN}
    if tokenizer.unit == "word":
        words = [copied.get(i, tokenizer.token(id)) for i, id in enumerate(tokens)]
        return detokenize([word for word in words if word])
    text, parts, end = tokenizer.decode(tokens), [], 0
    for i, span in copied.items():
        start = len(tokenizer.decode(tokens[:i]))
        parts += [text[end:start], span]
        end = start + len(SPECIALS[UNKNOWN])
    return "".join([*parts, text[end:]])


def looked_at(source: list[int], hypothesis: Hypothesis, ours: Tokenizer, theirs: Tokenizer) -> Attention | None:
    """The attention of a hypothesis to a source's tokens, which may be padded; None where there is none."""
    if hypothesis.attention is None:
        return None
    length = source.index(END) + 1
    ids = [*hypothesis.tokens, END][: len(hypothesis.attention)]
    return Attention(
        [ours.token(id) for id in source[:length]],
        [theirs.token(id) for id in ids],
        [[round(weight, 4) for weight in row[:length]] for row in hypothesis.attention.tolist()],
    )


def signatures() -> str:
    """What sacreBLEU's scores against one reference are."""
    return quality(["-"], ["-"]).settings


def tables(predictions: Sequence[Translation], dataset: Dataset) -> list[Table]:
    """All scores with their signatures, and BLEU by the length of the source."""
    sources, references = list(texts_of(dataset, "source")), list(texts_of(dataset, "target"))
    texts = [prediction.text for prediction in predictions]
    found = quality(texts, references)
    rows = [[row.name, f"{row.score:.2f}", row.signature] for row in found.table()]
    rows += [
        ["perplexity", f"{perplexity(predictions):.2f}", "of the references, per token"],
        ["length ratio", f"{found.length_ratio:.3f}", f"brevity penalty {found.brevity_penalty:.3f}"],
    ]
    if warning := tokenization_warning(texts, references):
        rows.append(["WARNING", "", warning])
    return [Table("Translations", ["", "score", "how"], rows), length_table(sources, texts, references)]


def length_table(sources: Sequence[str], texts: Sequence[str], references: Sequence[str]) -> Table:
    """BLEU by the length of the source."""
    buckets = [
        [
            f"{one.shortest} to {one.longest}" if one.longest is not None else f"{one.shortest} or more",
            f"{one.sentences:,}",
            f"{one.bleu:.2f}",
            f"{one.length_ratio:.3f}",
        ]
        for one in by_length(sources, texts, references)
    ]
    return Table("By length of the source", ["words", "sentences", "BLEU", "length ratio"], buckets)


def comparison(baseline: Sequence[Translation], predictions: Sequence[Translation], dataset: Dataset) -> Comparison:
    """Paired bootstrap resampling: is a difference of the scores more than chance?"""
    found = compare(
        [prediction.text for prediction in baseline],
        [prediction.text for prediction in predictions],
        list(texts_of(dataset, "target")),
        samples=SAMPLES,
    )
    rows = [
        [
            row.metric,
            f"{row.baseline:.2f}",
            f"{row.system:.2f}",
            f"{row.difference:+.2f}",
            f"{row.low:+.2f} to {row.high:+.2f}",
            f"{row.p:.4f}",
            f"{row.wins:.1%}",
            row.signature,
        ]
        for row in found
    ]
    title = f"Paired bootstrap ({SAMPLES:,} resamples, seed {SEED}; p as sacreBLEU's; of TER, less is better)"
    header = ["", "baseline", "this", "difference", "95% interval", "p", "better in", "how"]
    records = [row._asdict() | {"difference": row.difference} for row in found]
    return Comparison(Table(title, header, rows), records)


def extremes(
    predictions: Sequence[Translation], dataset: Dataset, *, count: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """At most `count` sentences with the highest chrF2, best first, and with the lowest, as JSON objects."""
    sources, references = list(texts_of(dataset, "source")), list(texts_of(dataset, "target"))
    texts = [prediction.text for prediction in predictions]
    chrf = sentence_chrf(texts, references)
    order = sorted(range(len(texts)), key=lambda row: -chrf[row])

    def records(rows: list[int]) -> list[dict[str, Any]]:
        return [
            {
                "example": row + 1,
                "chrf2": round(chrf[row], 2),
                "source": sources[row],
                "translation": texts[row],
                "reference": references[row],
            }
            for row in rows
        ]

    return records(order[:count]), records(order[::-1][:count])
