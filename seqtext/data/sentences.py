"""Words of raw text of any length: it is parted into sentences first, since the Treebank's rules expect one at a time.

A sentence ends at a line break (HTML's `<br />` is one), and after a full stop, exclamation or question mark, with any
closing quotes and brackets, that white space follows. A full stop that belongs to its word ends no sentence: of an
abbreviation in the list below, of a single letter ("J. Smith"; but "I." ends one), of a word with a full stop inside
("U.S.", "e.g."), and of "No." and the like before a digit. So "It was bad. I left." has "bad" and "." as words of their
own. Where the rule errs, a full stop is a word or part of one that it should not be; no text is ever lost.
"""

from __future__ import annotations

import re

from seqtext.data.tokenizer import NOT_SPACE, split_words

LINE_BREAK = re.compile(r"<br\s*/?>|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]+", re.IGNORECASE)
STOP = re.compile(r"[.!?][\"'”’»)\]}]*(?=\s)")
LETTERS = re.compile(r"(?:[^\W\d_]{1,3}\.)+[^\W\d_]{1,3}")
LONGEST = 12
"""Characters before a full stop that are looked at: no word that keeps its full stop is longer."""
ABBREVIATIONS = frozenset(
    "mr mrs ms dr prof st sr jr messrs mme mlle rev hon gen col capt lt sgt cmdr adm gov sen rep pres "  # noqa: SIM905
    "vs etc inc ltd co corp bros dept est approx ca cf al ave blvd mt ft "
    "jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thur thurs fri".split()
)
BEFORE_NUMBERS = frozenset("no nos p pp vol vols fig figs ch sec art op".split())  # noqa: SIM905


def split_text(text: str) -> list[tuple[str, int, int]]:
    """Words of a raw text, each with where it starts and ends (in characters): `text[start:end]` is the word itself."""
    words = []
    for start, end in sentence_spans(text):
        words += [(word, start + first, start + last) for word, first, last in split_words(text[start:end])]
    return words


def split_spaces(text: str) -> list[tuple[str, int, int]]:
    """As `split_text`, for text that is tokenised already: its words are what stands between spaces."""
    return [(found.group(), found.start(), found.end()) for found in NOT_SPACE.finditer(text)]


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Where each sentence of a text starts and ends (in characters); between them are white space and `<br />`."""
    spans = []
    start = 0
    for end, following in [*((found.start(), found.end()) for found in LINE_BREAK.finditer(text)), (len(text), -1)]:
        for found in STOP.finditer(text, start, end):
            if not (text[found.start()] == "." and _keeps_stop(text, found.start(), found.end())):
                spans.append((start, found.end()))
                start = found.end()
        spans.append((start, end))
        start = following
    return [(start, end) for start, end in spans if text[start:end].strip()]


def _keeps_stop(text: str, stop: int, end: int) -> bool:
    """Whether the full stop at `stop` belongs to the word before it; `end` is where its closing quotes end."""
    before = text[max(0, stop - LONGEST) : stop]
    if not before or before[-1].isspace():
        return False
    word = before.split()[-1].lstrip("\"'“‘«([{").lower()
    if word in BEFORE_NUMBERS:
        return text[end : end + 4].lstrip()[:1].isdigit()
    return word in ABBREVIATIONS or (len(word) == 1 and word.isalpha() and word != "i") or bool(LETTERS.fullmatch(word))
