"""Words back to running text, by the rules of NLTK's Treebank detokeniser and a few of our own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import Any

BRACKETS = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}"}
# Stand-ins for words that NLTK's rules would glue to both neighbours. Half a surrogate pair is in no text.
DASH, ELLIPSIS = "\ud800", "\ud801"
STAND_INS = {"--": DASH, "...": ELLIPSIS}
AFTERWARDS = [
    (re.compile(f" ?{ELLIPSIS}"), "..."),
    (re.compile(DASH), "--"),
    (re.compile(r"(?<=\w) \(\)"), "()"),  # empty brackets are those of a function
    # Typographic quotation marks, which the rules that split a text know and NLTK's detokeniser does not.
    (re.compile(r"(?<=\w) ’ (?=(?:s|t|d|m|ll|re|ve)\b)", re.IGNORECASE), "’"),
    (re.compile(r"([“‘]) "), r"\1"),
    (re.compile(r" ([”’])"), r"\1"),
]


def detokenize(words: Sequence[str]) -> str:
    """Words as the Treebank splits them, as a line of text: no space before a comma, "do n't" as "don't".

    Straight quotation marks open and close in turn. What the words do not tell (whether a space stood before a bracket
    or a dash) is as it mostly is in prose: `--` stands apart, `...` does not from the word before it.
    """
    written: list[str] = []
    opened = False
    for word in words:
        if word == '"':
            word = "''" if opened else "``"
            opened = not opened
        written.append(BRACKETS.get(word.upper()) or STAND_INS.get(word, word))
    text: str = _treebank().detokenize(written)
    for pattern, replacement in AFTERWARDS:
        text = pattern.sub(replacement, text)
    return text


@cache
def _treebank() -> Any:
    from nltk.tokenize.treebank import TreebankWordDetokenizer

    return TreebankWordDetokenizer()
