"""The English prose that ships with every CPython, the topics of its `help()`, as a text to model without a download.

`pydoc_data.topics` holds some 80 chapters of the language reference as plain text. What is kept of them is prose, by
simple rules; what a chapter repeats of another is left out, so that no split holds a line of another. The text is that
of the Python that runs: other versions of Python have slightly other texts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cache

from seqtext.data.sources import Split

SEED = 4
"""Chosen so that valid and test get about a tenth of the text each."""
BULLET = re.compile(r"(?:[*•-]|\d+\.|\[\d+\])\s+")
FOOTNOTE = re.compile(r"\s*\[\d+\]")
EMPHASIS = re.compile(r"(?<!\w)(\*\*?)(?=[^\s*])([^*]+?)(?<=[^\s*])\1(?!\w)")
PROSE = re.compile(r"""["(]*[A-Z].*[.?!:][)"]*""")
CODE = re.compile(r"::=|>>>|Traceback \(|\|\s*$|[-=+*~]{4}")
STRAIGHT = str.maketrans("“”‘’", "\"\"''")
LEAST_WORDS = 5
LEAST_LETTERS = 0.75
"""The share of letters and spaces among the characters of prose; code and tables have less."""


def corpus_sample(split: Split) -> Iterator[str]:
    """The paragraphs of a split, one a line: about 80% of the chapters in train, 10% each in valid and test."""
    from pydoc_data.topics import topics

    for name, paragraph in paragraphs(topics):
        if split_of_topic(name) == split:
            yield paragraph


@cache
def sample_fingerprint() -> str:
    """Changes with the text that this Python ships."""
    from pydoc_data.topics import topics

    return hashlib.blake2b("\0".join(f"{name}\0{topics[name]}" for name in sorted(topics)).encode()).hexdigest()


def split_of_topic(name: str) -> Split:
    """The split of a whole chapter, by a seeded hash of its name."""
    drawn = int.from_bytes(hashlib.blake2b(f"{SEED}:{name}".encode(), digest_size=4).digest(), "big") / 2**32
    return "train" if drawn < 0.8 else "valid" if drawn < 0.9 else "test"


def paragraphs(topics: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Name of the chapter and paragraph, by the order of names; a paragraph that was there before is left out."""
    seen: set[str] = set()
    for name in sorted(topics):
        for block in re.split(r"\n[ \t]*\n", topics[name]):
            paragraph = prose(block)
            if paragraph is not None and paragraph not in seen:
                seen.add(paragraph)
                yield name, paragraph


def prose(block: str) -> str | None:
    """A block between blank lines as one line, or None where it is no prose.

    Prose begins with a capital letter and ends with a mark that ends sentences (or a colon), is `LEAST_WORDS` long, for
    the most part letters, not indented within, and has nothing of a grammar, a prompt, a table or an underline in it.
    The sign before an item of a list, the term before its indented explanation, references to footnotes and the
    asterisks of emphasis go; quotation marks and apostrophes are written straight.
    """
    lines = block.rstrip().split("\n")
    first = lines[0].lstrip()
    unmarked = BULLET.sub("", first, count=1) if BULLET.match(first) else first
    indents = [len(line) - len(line.lstrip()) for line in lines]
    if unmarked == first and len(lines) > 1 and indents[1] > indents[0]:
        lines, indents = lines[1:], indents[1:]
    else:
        lines[0] = unmarked
    if len(set(indents[1:])) > 1:
        return None
    text = " ".join(" ".join(lines).split()).translate(STRAIGHT)
    text = FOOTNOTE.sub("", EMPHASIS.sub(r"\2", text))
    letters = sum(character.isalpha() or character == " " for character in text)
    if not PROSE.fullmatch(text) or CODE.search(text) or len(text.split()) < LEAST_WORDS:
        return None
    return text if letters >= LEAST_LETTERS * len(text) else None
