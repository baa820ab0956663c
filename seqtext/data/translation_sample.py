"""A synthetic parallel corpus shipped with the package: English and German sentences from one synchronous grammar.

A clause is drawn once, as who does what to whom, and written in either language. German asks for what English does not
show: gender and case of articles and adjectives ("den alten Mann", "dem alten Mann"), objects in the dative, the finite
verb second, whatever comes first, and last in a subordinate clause, infinitives, participles and separable prefixes at
the end ("macht ... zu"), `kein` for "no", capital nouns. Each English sentence has one German one, and the reverse.

A sentence belongs to one split by its checksum, whatever the seed. A fifth of the pairs of an adjective and its noun
and of a verb and its object, told by another checksum, never meet in a training sentence; the words of valid and test
all do. Good scores on it say that the tool works, and little about real text.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Literal, NamedTuple, TypeVar

from seqtext.data.sample_words import FIXED, KNOWN, Split
from seqtext.data.translation_words import (
    COUNTS,
    DATIVE,
    DETERMINERS,
    DIGITS,
    GIVING,
    MONTHS,
    NOUNS,
    PLURAL,
    PRONOUNS,
    SAYING,
    SINGULAR,
    TIMES,
    TOWNS,
    WEEKDAYS,
    Modal,
    Verb,
    adjectives,
    entries,
    modals,
    verbs,
)

SIZES: dict[Split, int] = {"train": 4000, "valid": 400, "test": 400}

CASES = ("nominative", "accusative", "dative")
# By gender, and last the plural.
ENDINGS = {"nominative": "er e es e", "accusative": "en e es e", "dative": "em er em en"}
DEFINITE = {"nominative": "der die das die", "accusative": "den die das die", "dative": "dem der dem den"}
T = TypeVar("T")
Pair = tuple[str, str]  # English and German; or an adjective or verb and its noun
Order = Literal["statement", "question", "subordinate"]


class Phrase(NamedTuple):
    """A noun with what goes before it, a name or a pronoun."""

    english: str
    german: tuple[str, str, str]
    """In each of `CASES`."""
    plural: bool
    definite: bool
    noun: str
    adjective: str = ""


class Clause(NamedTuple):
    subject: Phrase
    verb: Verb
    modal: Modal | None
    perfect: bool
    negated: bool
    objects: tuple[Phrase, ...]
    time: Pair | None
    place: Pair | None
    front: Literal["", "time", "place"]
    """What comes first in a statement, if not the subject."""
    pairs: frozenset[Pair]
    """Of adjective and noun, of verb and object."""


def translation_sample(split: Split, *, size: int | None = None, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences as (English, German); `size` is 4000, 400 and 400 by default.

    The same arguments give the same sentences on every machine, and a smaller size a prefix of a larger one. No
    sentence is in two splits. Those of valid and test have only words, in upper or lower case as they are there, that
    the default number of training sentences of the same seed has. Raises `ValueError` for an unknown split.
    """
    if split not in SIZES:
        raise ValueError(f"no split {split!r} in the sample; it has {', '.join(SIZES)}")
    rng = random.Random(f"translation {split} {seed}")
    return [_pair(split, seed, rng) for _ in range(SIZES[split] if size is None else size)]


def _pair(split: Split, seed: int, rng: random.Random) -> Pair:
    while True:
        english, german, pairs = _sentence(rng)
        number = zlib.crc32(english.encode()) % 10
        if split != ("valid" if number == 0 else "test" if number == 1 else "train"):
            continue
        if split == "train" and not any(map(_kept_apart, pairs)):
            return english, german
        if split != "train" and _words(english, german) <= _known(seed):
            return english, german


@cache
def _kept_apart(pair: Pair) -> bool:
    return zlib.crc32(" ".join(pair).encode()) % 5 == 0


@lru_cache(maxsize=4)
def _known(seed: int) -> frozenset[Pair]:
    return frozenset().union(*(_words(*pair) for pair in translation_sample("train", seed=seed)))


def _words(english: str, german: str) -> frozenset[Pair]:
    """The words of a pair of sentences, each with its language."""
    found = (("en", english), ("de", german))
    return frozenset((language, word) for language, text in found for word in re.findall(r"\w+", text))


def _choose(items: Sequence[T], rng: random.Random) -> T:
    """One item, each as likely. Of `rng`, `random()` alone is promised to be the same in every Python."""
    return items[int(len(items) * rng.random())]


def _sentence(rng: random.Random) -> tuple[str, str, frozenset[Pair]]:
    """One sentence in English and in German, and the pairs of words in it."""
    kind = _choose(("plain",) * 6 + ("question", "that", "that", "because", "because", "cause first"), rng)
    clause = _clause(rng, question=kind == "question")
    mark = "."
    english, german, pairs = _english(clause, "statement"), _german(clause, "statement"), clause.pairs
    if kind == "question":
        english, german, mark = _english(clause, "question"), _german(clause, "question"), "?"
    elif kind == "that":
        speaker = _subject(rng, but=clause.subject.noun)
        says, say, sagt, sagen = _choose(entries(SAYING), rng)
        plain = clause._replace(front="")
        english = f"{speaker.english} {say if speaker.plural else says} that {_english(plain, 'subordinate')}"
        german = f"{speaker.german[0]} {sagen if speaker.plural else sagt}, dass {_german(plain, 'subordinate')}"
        pairs |= _pairs_of(speaker)
    elif kind != "plain":
        reason = _clause(rng)._replace(front="")
        pairs |= reason.pairs
        why, warum = f"because {_english(reason, 'subordinate')}", f"weil {_german(reason, 'subordinate')}"
        if kind == "because":
            english, german = f"{english} {why}", f"{german}, {warum}"
        else:  # The clause is the first part of the sentence, and the verb the second.
            plain = clause._replace(front="")
            english, german = f"{why}, {_english(plain, 'statement')}", f"{warum}, {_german(plain, 'question')}"
    return english[0].upper() + english[1:] + mark, german[0].upper() + german[1:] + mark, pairs


# What is said


def _clause(rng: random.Random, *, question: bool = False) -> Clause:
    subject = _subject(rng)
    kinds, verb = _choose(verbs(), rng)
    objects: list[Phrase] = []
    if verb.infinitive in GIVING:
        objects.append(_noun_phrase(("person",), rng, but=subject.noun))
    if "person" in kinds and rng.random() < 0.15:
        objects.append(_name(rng, but=subject.noun))
    else:
        objects.append(_noun_phrase(kinds, rng, but=subject.noun, negative=rng.random() < 0.12))
    pairs = {(verb.infinitive, phrase.noun) for phrase in objects if not _is_name(phrase)}
    pairs = pairs.union(*map(_pairs_of, (subject, *objects)))
    time = _time(rng) if rng.random() < 0.3 else None
    negated = not question and rng.random() < 0.3 and all(phrase.definite for phrase in (subject, *objects))
    place = None
    if not negated and rng.random() < 0.25:
        place, more = _place(rng)
        pairs |= more
    front: Literal["", "time", "place"] = ""
    if rng.random() < 0.5:
        front = "time" if time else "place" if place else ""
    mode = rng.random()
    return Clause(
        subject=subject,
        verb=verb,
        modal=_choose(modals(), rng) if mode < 0.3 else None,
        perfect=mode > 0.7,
        negated=negated,
        objects=tuple(objects),
        time=time,
        place=place,
        front=front,
        pairs=frozenset(pairs),
    )


def _subject(rng: random.Random, *, but: str = "") -> Phrase:
    kind = rng.random()
    if kind < 0.2:
        return _name(rng, but=but)
    if kind < 0.4:
        english, german, number = _choose(entries(PRONOUNS), rng)
        return Phrase(english, (german, german, german), number == "plural", True, "")
    return _noun_phrase(("person",), rng, but=but)


def _name(rng: random.Random, *, but: str) -> Phrase:
    name = _choose([name for name in KNOWN["knownfirst"].split() if name != but], rng)
    return Phrase(name, (name, name, name), False, True, name)


def _is_name(phrase: Phrase) -> bool:
    return phrase.noun[0].isupper()


def _noun_phrase(kinds: Sequence[str], rng: random.Random, *, but: str = "", negative: bool = False) -> Phrase:
    """A noun of one of these kinds, other than `but`, with "no" before it if it is `negative`."""
    kind = _choose(kinds, rng)
    noun = _choose([noun for noun in entries(NOUNS[kind]) if noun[0] != but], rng)
    plural = rng.random() < 0.35
    adjective: Sequence[str] = ("", "")
    if rng.random() < 0.4:
        adjective = _choose(adjectives(kind), rng)
    determiner = "no" if negative else _choose(PLURAL if plural else SINGULAR, rng)
    if determiner == "number":
        count = _choose([*zip(FIXED["count"].split(), COUNTS.split(), strict=True), *zip(DIGITS, DIGITS)], rng)
        english, german, definite = *count, False
    elif determiner == "none":
        english, german, definite = "", "", False
    else:
        one, more, german, definite = DETERMINERS[determiner]
        english = more if plural else one
    if english == "a" and (adjective[0] or noun[0])[0] in "aeiou":
        english = "an"
    words = [english, adjective[0], noun[1] if plural else noun[0]]
    forms = tuple(_declined(german, adjective[1], noun[2:], plural, case) for case in CASES)
    return Phrase(" ".join(filter(None, words)), forms, plural, definite, noun[0], adjective[0])  # type: ignore[arg-type]


def _declined(determiner: str, adjective: str, noun: Sequence[str], plural: bool, case: str) -> str:
    """A German noun phrase in one case; `noun` is gender, singular, plural and maybe the weak form."""
    gender, singular, several, *weak = noun
    column = 3 if plural else "mfn".index(gender)
    strong = ENDINGS[case].split()[column]
    ending = "e" if not plural and (case == "nominative" or (case == "accusative" and gender != "m")) else "en"
    if determiner == "der":
        article = DEFINITE[case].split()[column]
    elif determiner in ("dies", "jed"):
        article = determiner + strong
    elif determiner in ("ein", "mein", "kein"):
        bare = ending == "e" and gender != "f"  # "ein alter Mann", "ein altes Haus": the adjective shows the gender
        article, ending = (determiner, strong) if bare else (determiner + strong, ending)
    else:  # a number or nothing, as in "zwei alte Männer"
        article, ending = determiner, strong
    form = several if plural else (weak[0] if weak and case != "nominative" else singular)
    if plural and case == "dative" and form[-1] not in "ns":
        form += "n"
    return " ".join(filter(None, [article, adjective and adjective + ending, form]))


def _time(rng: random.Random) -> Pair:
    kind = rng.random()
    if kind < 0.5:
        english, german = _choose(entries(TIMES), rng)
        return english, german
    if kind < 0.7:
        english, german = _choose([*zip(FIXED["weekday"].split(), WEEKDAYS.split(), strict=True)], rng)
        return f"on {english}", f"am {german}"
    if kind < 0.85:
        english, german = _choose([*zip(FIXED["month"].split(), MONTHS.split(), strict=True)], rng)
        return f"in {english}", f"im {german}"
    year = _choose([str(year) for year in range(1995, 2010)], rng)
    return f"in {year}", f"im Jahr {year}"


def _place(rng: random.Random) -> tuple[Pair, frozenset[Pair]]:
    if rng.random() < 0.4:
        town = _choose(KNOWN["knowntown"].split(), rng)
        stadt = next((german for english, german in entries(TOWNS) if english == town), town)
        return (f"in {town}", f"in {stadt}"), frozenset()
    phrase = _noun_phrase(("place",), rng)
    return (f"in {phrase.english}", re.sub(r"^in dem ", "im ", f"in {phrase.german[2]}")), _pairs_of(phrase)


def _pairs_of(phrase: Phrase) -> frozenset[Pair]:
    return frozenset([(phrase.adjective, phrase.noun)] if phrase.adjective else [])


# How it is said


def _english(clause: Clause, order: Order) -> str:
    verb, modal, plural = clause.verb, clause.modal, clause.subject.plural
    helper, rest = "", verb.infinitive if plural else verb.third
    base = verb.infinitive
    if modal and modal.third.endswith(" to"):
        rest, base = f"{modal.infinitive if plural else modal.third} {base}", f"{modal.infinitive} {base}"
    elif modal:
        helper, rest = modal.infinitive, base
    elif clause.perfect:
        helper, rest = "have" if plural else "has", verb.participle
    if not helper and (clause.negated or order == "question"):
        helper, rest = "do" if plural else "does", base
    if clause.negated:
        helper = modal.negation if modal and modal.negation != "-" else f"{helper} not"
    front = getattr(clause, clause.front)[0] if clause.front and order == "statement" else ""
    subject = clause.subject.english
    head = [helper, subject] if order == "question" else [front, subject, helper]
    tail = [pair[0] for pair in (clause.place, clause.time) if pair and pair[0] != front]
    return " ".join(filter(None, [*head, rest, *(phrase.english for phrase in clause.objects), *tail]))


def _german(clause: Clause, order: Order) -> str:
    verb, modal, plural = clause.verb, clause.modal, clause.subject.plural
    prefix, _, stem = verb.german_infinitive.rpartition("|")
    finite, final = stem if plural else verb.german_third, prefix
    if modal:
        finite = modal[3 + plural + 2 * clause.negated]
        final = prefix + stem
    elif clause.perfect:
        finite, final = "haben" if plural else "hat", verb.german_participle
    front = getattr(clause, clause.front)[1] if clause.front and order == "statement" else ""
    time, place = (pair[1] if pair and pair[1] != front else "" for pair in (clause.time, clause.place))
    cases = [2, 1] if len(clause.objects) == 2 else [2 if verb.infinitive in DATIVE else 1]
    objects = [phrase.german[case] for phrase, case in zip(clause.objects, cases, strict=True)]
    middle = [time, *objects, place, "nicht" if clause.negated else ""]
    subject = clause.subject.german[0]
    if order == "subordinate":
        end = [final, finite] if modal or clause.perfect else [final + finite]
        words = [subject, *middle, *end]
    elif order == "question" or front:
        words = [front, finite, subject, *middle, final]
    else:
        words = [subject, finite, *middle, final]
    return " ".join(filter(None, words))
