"""Searches over all ways to go on, in plain Python: every sequence for itself, read from its beginning each time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

Chances = Callable[[tuple[int, ...]], Sequence[float]]
"""Log-probabilities of the next token after the tokens so far."""
Looks = Callable[[tuple[int, ...]], Sequence[float]]
"""Attention to every source token when the next token after the tokens so far is chosen."""


class Candidate(NamedTuple):
    score: float
    tokens: tuple[int, ...]
    """Without the end token."""
    log_probability: float
    ended: bool


class Rules(NamedTuple):
    """What sequences there are and how they rank."""

    end: int
    max_length: int
    """With the end token."""
    min_length: int = 0
    """Without it."""
    forbidden: tuple[int, ...] = ()
    block: int | None = None
    penalty: Callable[[int], float] = lambda length: 1.0
    prefix: tuple[int, ...] = ()
    """What all sequences begin with, whatever the other rules say."""
    beta: float = 0.0
    looks: Looks = lambda tokens: ()

    def allows(self, tokens: tuple[int, ...], token: int) -> bool:
        if len(tokens) < len(self.prefix):
            return token == self.prefix[len(tokens)]
        if token in self.forbidden or (token == self.end and len(tokens) < self.min_length):
            return False
        if self.block is None or token == self.end:
            return True
        grown, n = (*tokens, token), self.block
        return grown[-n:] not in {grown[i : i + n] for i in range(len(grown) - n)}

    def candidate(self, tokens: tuple[int, ...], total: float, ended: bool) -> Candidate:
        steps = len(tokens) + ended
        score = total / self.penalty(steps) if steps else 0.0
        if self.beta:
            covered = [sum(column) for column in zip(*(self.looks(tokens[:step]) for step in range(steps)))]
            score += self.beta * sum(math.log(min(mass, 1.0)) for mass in covered)
        return Candidate(score, tokens, total, ended)


def exhaustive(chances: Chances, rules: Rules) -> list[Candidate]:
    """Every sequence that ends, or is cut at the maximum length, best first; without any, the longest there are."""
    found = []
    waiting: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for tokens, total in waiting:
        for token, chance in enumerate(chances(tokens)):
            if not rules.allows(tokens, token):
                continue
            if token == rules.end:
                found.append(rules.candidate(tokens, total + chance, True))
            elif len(tokens) + 1 == rules.max_length:
                found.append(rules.candidate((*tokens, token), total + chance, False))
            else:
                waiting.append(((*tokens, token), total + chance))
    if not found:
        longest = len(waiting[-1][0])
        found = [rules.candidate(tokens, total, False) for tokens, total in waiting if len(tokens) == longest]
    return sorted(found, key=lambda candidate: -candidate.score)


def plain_beam(chances: Chances, rules: Rules, size: int, *, early: bool = False) -> list[Candidate]:
    """All that a beam of `size` ends with when it goes on to the maximum length, best first.

    With `early`, it goes on until `size` have ended.
    """
    found = []
    beam: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for length in range(1, rules.max_length + 1):
        if not beam or (early and len(found) >= size):
            break
        grown = [
            (total + chance, tokens, token)
            for tokens, total in beam
            for token, chance in enumerate(chances(tokens))
            if rules.allows(tokens, token) and chance > -math.inf
        ]
        if not (grown or found):  # nothing can go on
            found = [rules.candidate(tokens, total, False) for tokens, total in beam]
        grown.sort(key=lambda item: -item[0])
        found += [rules.candidate(tokens, total, True) for total, tokens, token in grown[:size] if token == rules.end]
        beam = [((*tokens, token), total) for total, tokens, token in grown if token != rules.end][:size]
        if length == rules.max_length:
            found += [rules.candidate(tokens, total, False) for tokens, total in beam]
    return sorted(found, key=lambda candidate: -candidate.score)
