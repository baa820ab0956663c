"""Entity-level precision, recall and F1, equal to conlleval's on any pair of tag sequences, well formed or not.

An entity is correct when its first word, last word and type all agree (Tjong Kim Sang & De Meulder 2003). Spans are
read by `seqtext.data.labels.spans`, so a sequence no scheme would write still has the entities conlleval sees in it.
Beside that stand the strict score, of well-formed spans only (seqeval's strict mode), the number of predicted sequences
that are not well formed, and the score apart for entities of known words and for those with an unknown word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, TypeVar

from seqtext.data.labels import Span, read_tag, spans, well_formed

Entity: TypeAlias = tuple[int, Span]  # number of the sentence, and where in it
Key = TypeVar("Key", str, bool)


class Counts(NamedTuple):
    """How many entities are in the gold tags, in the predicted tags, and in both. A ratio with nothing below is 0."""

    gold: int = 0
    predicted: int = 0
    correct: int = 0

    @property
    def precision(self) -> float:
        return self.correct / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.correct / self.gold if self.gold else 0.0

    @property
    def f1(self) -> float:
        return 2 * self.correct / (self.gold + self.predicted) if self.correct else 0.0


class Row(NamedTuple):
    """One line of the table: fractions from 0 to 1, then numbers of entities."""

    name: str
    precision: float
    recall: float
    f1: float
    gold: int
    predicted: int
    correct: int


@dataclass(frozen=True)
class Entities:
    """The scores of a set of sentences; `precision`, `recall` and `f1` are micro-averaged over types, 0 to 1.

    `types` has every type of either side, sorted. `seen` counts the entities all of whose words are known, `unseen`
    those with at least one word that is not: their gold numbers, predicted numbers and correct numbers each add up to
    those of `total`. Both are None where no words were given. `invalid` of the `sentences` predicted sequences are not
    well formed under the scheme.
    """

    scheme: str
    total: Counts
    types: Mapping[str, Counts]
    strict: Counts
    seen: Counts | None
    unseen: Counts | None
    sentences: int
    invalid: int
    tokens: int
    correct_tokens: int

    @property
    def precision(self) -> float:
        return self.total.precision

    @property
    def recall(self) -> float:
        return self.total.recall

    @property
    def f1(self) -> float:
        return self.total.f1

    @property
    def accuracy(self) -> float:
        """Fraction of the tokens whose tag is right, `O` included."""
        return self.correct_tokens / self.tokens if self.tokens else 0.0

    @property
    def settings(self) -> str:
        """What the score is, to print beside it."""
        return f"conlleval, micro F1, scheme {self.scheme}"

    def flat(self) -> dict[str, float]:
        """Every score by name, for metrics files: `f1`, `strict_f1`, `seen_f1`, `f1/PER`, ..."""
        values: dict[str, float] = {}
        for prefix, counts in (
            ("", self.total),
            ("strict_", self.strict),
            ("seen_", self.seen),
            ("unseen_", self.unseen),
        ):
            if counts is not None:
                values[f"{prefix}precision"] = counts.precision
                values[f"{prefix}recall"] = counts.recall
                values[f"{prefix}f1"] = counts.f1
        values["accuracy"] = self.accuracy
        values["invalid"] = self.invalid
        for kind, counts in self.types.items():
            values[f"precision/{kind}"] = counts.precision
            values[f"recall/{kind}"] = counts.recall
            values[f"f1/{kind}"] = counts.f1
        return values

    def table(self) -> list[Row]:
        """A row a type, then the total, the strict score and, where words were given, the split by known words."""
        named = [*self.types.items(), ("all", self.total), ("all, strict", self.strict)]
        if self.seen is not None and self.unseen is not None:
            named += [("all words in training", self.seen), ("a word not in training", self.unseen)]
        return [Row(name, counts.precision, counts.recall, counts.f1, *counts) for name, counts in named]


def score(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    *,
    scheme: str,
    tokens: Sequence[Sequence[str]] | None = None,
    known_words: Collection[str] | Callable[[str], bool] | None = None,
) -> Entities:
    """Score predicted against gold tags, one sequence a sentence, both in `scheme`.

    With `tokens` (the words) and `known_words` (those of the training data, or a function that tells), also the scores
    of seen and unseen entities: recall over the gold entities of that kind, precision over the predicted ones.

    Raises `ValueError` where the two sides differ in length, and `TagError` for a tag with an unknown prefix.
    """
    if (tokens is None) != (known_words is None):
        raise ValueError("tokens and known_words go together: give both or neither")
    _same_lengths(gold, predicted, "predicted tags")

    true: set[Entity] = set()
    found: set[Entity] = set()
    strictly_true: set[Entity] = set()
    strictly_found: set[Entity] = set()
    invalid = right = 0
    for sentence, (gold_tags, tags) in enumerate(zip(gold, predicted, strict=True)):
        right += sum(a == b or read_tag(a, scheme) == read_tag(b, scheme) for a, b in zip(gold_tags, tags))
        for span in spans(gold_tags, scheme):
            true.add((sentence, span))
            if well_formed(gold_tags, span, scheme):
                strictly_true.add((sentence, span))
        valid = True
        for span in spans(tags, scheme):
            found.add((sentence, span))
            if well_formed(tags, span, scheme):
                strictly_found.add((sentence, span))
            else:
                valid = False
        invalid += not valid

    seen = unseen = None
    if tokens is not None and known_words is not None:
        _same_lengths(gold, tokens, "tokens")
        words, known = tokens, _membership(known_words)
        by_words = _counts(
            true, found, lambda entity: all(map(known, words[entity[0]][entity[1].start : entity[1].end]))
        )
        seen, unseen = by_words.get(True, Counts()), by_words.get(False, Counts())
    types = _counts(true, found, lambda entity: entity[1].type)
    return Entities(
        scheme=scheme,
        total=Counts(len(true), len(found), len(true & found)),
        types={kind: types[kind] for kind in sorted(types)},
        strict=Counts(len(strictly_true), len(strictly_found), len(strictly_true & strictly_found)),
        seen=seen,
        unseen=unseen,
        sentences=len(gold),
        invalid=invalid,
        tokens=sum(map(len, gold)),
        correct_tokens=right,
    )


def _counts(true: set[Entity], found: set[Entity], key: Callable[[Entity], Key]) -> dict[Key, Counts]:
    """The entities of each kind, where `key` tells the kind."""
    columns = [Counter(map(key, entities)) for entities in (true, found, true & found)]
    return {kind: Counts(*(column[kind] for column in columns)) for kind in columns[0].keys() | columns[1].keys()}


def _membership(words: Collection[str] | Callable[[str], bool]) -> Callable[[str], bool]:
    if callable(words):
        return words
    return (words if isinstance(words, Set | Mapping) else frozenset(words)).__contains__


def _same_lengths(gold: Sequence[Sequence[str]], other: Sequence[Sequence[str]], what: str) -> None:
    if len(gold) != len(other):
        raise ValueError(f"{len(gold)} gold sentences, but {len(other)} of {what}")
    for sentence, (a, b) in enumerate(zip(gold, other, strict=True)):
        if len(a) != len(b):
            raise ValueError(f"sentence {sentence}, counted from 0: {len(a)} gold tags, but {len(b)} {what}")
