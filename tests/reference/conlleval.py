"""conlleval, tag by tag: the oracle of the entity scores (Tjong Kim Sang & Buchholz 2000).

One pass over the corpus as one stream of tags, sentences set apart by O. For each pair of neighbouring tags two tables
say whether a chunk ended between them and whether one began. A chunk counts as correct when it began on both sides at
one place with one type, and ended on both sides at one place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

# Pairs "previous tag, tag" of the Perl program; beside these, a change of type ends and begins a chunk.
ENDS = frozenset(["BB", "BO", "IB", "IO", "EE", "EI", "EO"])
BEGINS = frozenset(["BB", "IB", "OB", "OI", "OE", "EE", "EI"])
# What later versions add, for the Perl program has no S, and no rule for a B right after an E.
LATER_ENDS = ENDS | frozenset(["BS", "IS", "EB", "ES", "SB", "SI", "SE", "SS", "SO"])
LATER_BEGINS = BEGINS | frozenset(["OS", "BS", "IS", "EB", "ES", "SB", "SI", "SE", "SS"])


class Result(NamedTuple):
    """Chunks by type, and tags."""

    gold: Counter[str]
    predicted: Counter[str]
    correct: Counter[str]
    tags: int
    correct_tags: int


def conlleval(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]], *, original: bool = False) -> Result:
    """Count as conlleval does; `original` takes the tables of the Perl program, which are meant for B, I and O."""
    ends, begins = (ENDS, BEGINS) if original else (LATER_ENDS, LATER_BEGINS)
    in_gold: Counter[str] = Counter()
    in_predicted: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    tags = correct_tags = 0
    agreeing = False  # inside a chunk that has so far been the same on both sides
    last_gold = last_predicted = ("O", "")
    for gold_sentence, predicted_sentence in zip(gold, predicted, strict=True):
        pairs = list(zip(gold_sentence, predicted_sentence, strict=True))
        for place, (gold_tag, predicted_tag) in enumerate([*pairs, ("O", "O")]):
            now_gold, now_predicted = _split(gold_tag), _split(predicted_tag)
            gold_ended = _ended(last_gold, now_gold, ends)
            predicted_ended = _ended(last_predicted, now_predicted, ends)
            gold_began = _began(last_gold, now_gold, begins)
            predicted_began = _began(last_predicted, now_predicted, begins)

            if agreeing:
                if gold_ended and predicted_ended and last_gold[1] == last_predicted[1]:
                    agreeing = False
                    correct[last_gold[1]] += 1
                elif gold_ended != predicted_ended or now_gold[1] != now_predicted[1]:
                    agreeing = False
            if gold_began and predicted_began and now_gold[1] == now_predicted[1]:
                agreeing = True
            if gold_began:
                in_gold[now_gold[1]] += 1
            if predicted_began:
                in_predicted[now_predicted[1]] += 1
            if place < len(pairs):
                tags += 1
                correct_tags += now_gold == now_predicted
            last_gold, last_predicted = now_gold, now_predicted
    return Result(in_gold, in_predicted, correct, tags, correct_tags)


def _split(tag: str) -> tuple[str, str]:
    prefix, _, kind = tag.partition("-")
    return prefix, kind


def _ended(last: tuple[str, str], now: tuple[str, str], table: frozenset[str]) -> bool:
    return last[0] + now[0] in table or (last[0] != "O" and last[1] != now[1])


def _began(last: tuple[str, str], now: tuple[str, str], table: frozenset[str]) -> bool:
    return last[0] + now[0] in table or (now[0] != "O" and last[1] != now[1])
