"""Synthetic reviews shipped with the package, in which no word tells the sentiment: a negation or a turn decides.

"The plot isn't dull." is positive, "The plot isn't clever." negative, and of two statements with "but" between them the
second counts. The grammar is written once, from the side of the class: `<fair-...>` is a word on its side, `<foul-...>`
one of the other side, and they change places for the other class, so that both classes have the same sentences with
their polar words exchanged. Statements are weighted so that a polar word is about as frequent in either class: a bag
of words stays near chance, pairs of words ("isn't dull") tell more, and whoever reads in order can be right always.

A fifth of the pairs of a negating word and a polar word, told by a checksum, never meet in a training sentence. The
reviews look like those of films and are none: scores on them say that the tool works, and nothing about real text.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Iterator, Sequence
from functools import cache

from seqtext.data.sample_words import Split, choose
from seqtext.data.samples import expand

SIZES: dict[Split, int] = {"train": 2000, "valid": 400, "test": 400}
LABELS = ("negative", "positive")

# Polar words by kind: those that praise and those that blame, in the same number; none asks for "an".
POLAR = {
    "adj": (
        "good great clever funny charming moving fresh gripping brilliant lovely witty touching polished superb "
        "delightful sharp warm sincere thrilling memorable",
        "bad poor stupid boring dull tedious stale clumsy dreadful sloppy lame hollow messy terrible "
        "painful flat cold phony tiresome forgettable",
    ),
    "noun": (
        "masterpiece triumph delight joy gem treat pleasure success",
        "disaster failure mess bore mistake disappointment chore flop",
    ),
    "past": ("loved enjoyed admired adored", "hated disliked despised loathed"),
    "verb": ("love enjoy admire adore", "hate dislike despise loathe"),
}
SIDE = {
    word: (kind, place) for kind, sides in POLAR.items() for side in sides for place, word in enumerate(side.split())
}
"""Kind and place of a polar word: its opposite has the same."""
NEGATIONS = frozenset(
    ["isn't", "not", "never", "hardly", "anything", "far", "didn't", "can't", "nobody", "won't", "doubt", "wrong", "no"]
)

STATEMENTS = {
    # The polar word is on the side of the statement.
    "plain": """
        4* <subject> is <degree> <fair-adj>
        2* <subject> is <fair-adj>
        2* <subject> is a <fair-noun>
        2* I <fair-past> <object>
        1* I found <object> <degree> <fair-adj>
        1* it has <degree> <fair-adj> <parts>
        1* you will <fair-verb> it
        1* this is a <fair-adj> <work>
    """,
    # The polar word is on the other side.
    "negated": """
        3* <subject> isn't <foul-adj>
        2* <subject> is not <degree> <foul-adj>
        2* <subject> is never <foul-adj>
        1* <subject> is hardly a <foul-noun>
        1* <subject> is hardly <foul-adj>
        1* <subject> is anything but <foul-adj>
        1* <subject> is far from <foul-adj>
        2* I didn't <foul-verb> <object>
        1* I can't say that <subject> is <degree> <foul-adj>
        1* nobody could call <object> <foul-adj>
        1* you won't <foul-verb> it
        1* I doubt that <subject> is a <foul-noun>
        1* this is no <foul-noun>
        1* it has no <foul-adj> <parts>
    """,
    "statement": "1* <plain>\n1* <negated>",
}
REVIEW = {
    "review": """
        5* <plain> .
        6* <negated> .
        5* <contrast> .
        3* <shift> .
        3* <aside> . <statement> .
        2* <statement> . <aside> .
        1* <statement> and <statement> .
    """,
    # Of two statements that disagree one counts.
    "contrast": """
        3* <other-statement> , but <statement>
        2* although <other-statement> , <statement>
        1* <other-statement> , yet <statement>
        1* <statement> , even though <other-statement>
    """,
    "shift": """
        I expected a <foul-noun> and got a <fair-noun>
        it starts as a <foul-noun> and ends as a <fair-noun>
        <critic> was wrong to call <object> <foul-adj>
        <critic> called <object> <fair-adj> , and rightly so
        the trailer is <foul-adj> , the film is not
        the trailer is <foul-adj> , the film is <fair-adj>
    """,
    "aside": """
        I saw it <when>
        <critic> told me about it
        it runs for two hours
        it opens <when>
        <critic> came with me
        the <work> is set in <place>
    """,
    "subject": "4* the <part>\n2* it\n1* this <work>",
    "object": "3* the <part>\n3* it\n1* this <work>",
    "part": "film\nmovie\nstory\nplot\nscript\nacting\ncast\nmusic\nending\ndialogue\ncamera work\nfirst half\nlead",
    "parts": "scenes\njokes\nsongs\nlines\ncharacters\nideas\nmoments",
    "work": "film\nmovie\npicture\ncomedy\nthriller\ndrama",
    "degree": "very\nreally\nso\nquite\nrather\ntruly\noften\nsimply",
    "critic": "my brother\nmy wife\na friend\nthe critic\nmy boss\nthe man next to me",
    "when": "last night\non Friday\nin Paris\nwith friends\non a plane\nthis week",
    "place": "Rome\nthe desert\na small town\nthe past\nspace",
}


@cache
def _grammar(label: str) -> dict[str, str]:
    """The productions of a class's reviews."""
    exchange = {"fair": "foul", "foul": "fair", "plain": "other-plain", "negated": "other-negated"}
    grammar = REVIEW | STATEMENTS
    for symbol, text in STATEMENTS.items():
        grammar[f"other-{symbol}"] = re.sub(r"(?<=<)(fair|foul|plain|negated)", lambda name: exchange[name[0]], text)
    for kind, sides in POLAR.items():
        fair, foul = reversed(sides) if label == "negative" else sides
        grammar |= {f"fair-{kind}": "\n".join(fair.split()), f"foul-{kind}": "\n".join(foul.split())}
    return grammar


def sentiment_sample(split: Split, *, size: int | None = None, seed: int = 0) -> Iterator[tuple[str, str]]:
    """Reviews as (text, "negative" or "positive"); `size` is 2000, 400 and 400 by default.

    The same arguments give the same reviews on every machine, and a smaller size a prefix of a larger one. Raises
    `ValueError` for an unknown split.
    """
    if split not in SIZES:
        raise ValueError(f"no split {split!r} in the sample; it has {', '.join(SIZES)}")
    rng = random.Random(f"sentiment {split} {seed}")
    return (_review(split, rng) for _ in range(SIZES[split] if size is None else size))


def _review(split: Split, rng: random.Random) -> tuple[str, str]:
    label = choose(LABELS, rng)
    while True:
        pieces = list(expand(_grammar(label), "review", split, rng))
        if split != "train" or not unseen(pieces):
            return _written(pieces), label


def unseen(words: Sequence[str]) -> bool:
    """Whether a negating and a polar word of a review never meet in training; opposites share their lot."""
    polar = [SIDE[word] for word in words if word in SIDE]
    return any(_kept_apart(word, *each) for word in words if word in NEGATIONS for each in polar)


@cache
def _kept_apart(negation: str, kind: str, place: int) -> bool:
    return zlib.crc32(f"{negation} {kind} {place}".encode()) % 5 == 0


def _written(pieces: Sequence[str]) -> str:
    """Words as a person writes them: no space before a mark, a capital after a full stop."""
    text = re.sub(r" (?=[.,])", "", " ".join(pieces))
    return re.sub(r"(?:^|(?<=\. ))[a-z]", lambda letter: letter[0].upper(), text)
