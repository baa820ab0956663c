"""BLEU as Papineni et al. 2002 write it ("BLEU: a Method for Automatic Evaluation of Machine Translation", section 2):
over lists of words, up to four at a time, without smoothing, 0 to 1."""

from __future__ import annotations

import math
from collections.abc import Sequence

Words = Sequence[str]


def ngrams(words: Words, n: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + n]) for start in range(len(words) - n + 1)]


def precision(candidates: Sequence[Words], references: Sequence[Sequence[Words]], n: int) -> float:
    """p_n (2.1.1): n-grams of all candidates, each clipped at its largest count in any one reference, over all."""
    clipped = total = 0
    for candidate, alternatives in zip(candidates, references, strict=True):
        found = ngrams(candidate, n)
        total += len(found)
        for ngram in set(found):
            clipped += min(found.count(ngram), max(ngrams(words, n).count(ngram) for words in alternatives))
    return clipped / total


def brevity_penalty(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """BP (2.2.2): 1 where c > r, else exp(1 - r / c); r adds up each sentence's best match length, ties the shorter."""
    c = sum(map(len, candidates))
    r = 0
    for candidate, alternatives in zip(candidates, references, strict=True):
        r += min(map(len, alternatives), key=lambda length: (abs(length - len(candidate)), length))
    return 1.0 if c > r else math.exp(1 - r / c)


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """BP * exp(sum of w_n log p_n), w_n = 1/4 (2.3); `references` has the alternatives of each candidate."""
    logs = [math.log(precision(candidates, references, n)) for n in range(1, 5)]
    return brevity_penalty(candidates, references) * math.exp(sum(logs) / 4)
