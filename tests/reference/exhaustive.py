"""Searches over all ways to go on, in plain Python: every sequence for itself, read from its beginning each time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

Chances = Callable[[tuple[int, ...]], Sequence[float]]
"""Log-probabilities of the next token after the tokens so far."""


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

    def allows(self, tokens: tuple[int, ...], token: int) -> bool:
        if token in self.forbidden or (token == self.end and len(tokens) < self.min_length):
            return False
        if self.block is None or token == self.end:
            return True
        grown, n = (*tokens, token), self.block
        return grown[-n:] not in {grown[i : i + n] for i in range(len(grown) - n)}

    def candidate(self, tokens: tuple[int, ...], total: float, ended: bool) -> Candidate:
        return Candidate(total / self.penalty(len(tokens) + ended), tokens, total, ended)


def exhaustive(chances: Chances, rules: Rules) -> list[Candidate]:
    """Every sequence that ends, or is cut at the maximum length, best first."""
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
    return sorted(found, key=lambda candidate: -candidate.score)


def plain_beam(chances: Chances, rules: Rules, size: int) -> list[Candidate]:
    """All that a beam of `size` ends with when it always goes on to the maximum length, best first."""
    found = []
    beam: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for length in range(1, rules.max_length + 1):
        grown = [
            (total + chance, tokens, token)
            for tokens, total in beam
            for token, chance in enumerate(chances(tokens))
            if rules.allows(tokens, token) and chance > -math.inf
        ]
        grown.sort(key=lambda item: -item[0])
        found += [rules.candidate(tokens, total, True) for total, tokens, token in grown[:size] if token == rules.end]
        beam = [((*tokens, token), total) for total, tokens, token in grown if token != rules.end][:size]
        if length == rules.max_length:
            found += [rules.candidate(tokens, total, False) for tokens, total in beam]
    return sorted(found, key=lambda candidate: -candidate.score)
