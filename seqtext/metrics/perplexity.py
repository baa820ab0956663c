"""Perplexity and bits per character, from summed negative log-probabilities.

Perplexity is exp(nll / targets), per token, line ends counted as tokens (Mikolov et al. 2010). Bits per character are
nll / ln 2 / characters, line ends counted as characters, and so compare models of different units on the same text;
but a word that a model only knows as `<unk>` costs it less than spelling the word would, so that the figure of a word
model is a lower bound where there are unknown words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LineScore:
    """What a model gives a line, or a part of one: those of a line that was scored in parts add up."""

    nll: float = 0.0
    """Negative log-probability of the targets, summed, in nats."""
    targets: int = 0
    """Tokens that were predicted, the line end among them."""
    unknown: int = 0
    """Those of them that have no entry of their own."""

    def __add__(self, other: LineScore) -> LineScore:
        return LineScore(self.nll + other.nll, self.targets + other.targets, self.unknown + other.unknown)

    @property
    def perplexity(self) -> float:
        """Per token; infinite where it is beyond what a float holds, not a number without a target."""
        if not self.targets:
            return math.nan
        try:
            return math.exp(self.nll / self.targets)
        except OverflowError:
            return math.inf


def score(lines: Iterable[LineScore], characters: int) -> dict[str, float]:
    """Scores of a whole text, `characters` long with its line ends: of all tokens together, no mean over lines.

    `perplexity` and `nll` (nats) are per token, `targets` and `unknown` are numbers of tokens. Raises `ValueError`
    where nothing was scored.
    """
    whole = total(lines)
    if not whole.targets or characters < 1:
        raise ValueError(f"nothing was scored: {whole.targets} targets, {characters} characters")
    return {
        "perplexity": whole.perplexity,
        "bits_per_character": whole.nll / math.log(2) / characters,
        "nll": whole.nll / whole.targets,
        "targets": float(whole.targets),
        "unknown": float(whole.unknown),
    }


def total(lines: Iterable[LineScore]) -> LineScore:
    """What lines sum up to, in whatever order they come: by fsum, which does not depend on it."""
    lines = list(lines)
    return LineScore(
        math.fsum(line.nll for line in lines),
        sum(line.targets for line in lines),
        sum(line.unknown for line in lines),
    )
