"""Where hypotheses look: the coverage of the source, alignments, and attention itself, kept while a search runs.

The coverage penalty is that of Wu et al. 2016, "Google's Neural Machine Translation System", equation 14: with p_ij
the attention of target token j to source token i, beta * sum_i log(min(sum_j p_ij, 1)), added to the score. It is 0
where all of the source was looked at, and below 0 otherwise.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from seqtext.errors import InputError
from seqtext.search.decoder import Decoder

State = TypeVar("State")


class AttendingDecoder(Decoder[State], Protocol[State]):
    """A decoder that tells where it looks."""

    def attention(self, state: State) -> Tensor | None:
        """(N, S): how the step that led to this state weighed the source, 0 at padding, 1 in all; None without any.

        What was given out does not change in later steps.
        """

    def real(self, memory: Any) -> Tensor:
        """(B, S) bool: where a source has a token; padding stands behind it."""


def attention_of(decoder: Decoder[Any], state: Any) -> Tensor | None:
    """The attention (N, S) of the step that led to this state; None where the model has none."""
    look = getattr(decoder, "attention", None)
    return None if look is None else look(state)


def coverage_penalty(covered: Tensor, real: Tensor) -> Tensor:
    """covered (N, S), the sums of attention, and real (N, S) -> (N,): equation 14 at beta = 1.

    A token with no attention at all counts as one with the least that a float32 can tell from none.
    """
    least = torch.finfo(torch.float32).tiny
    return covered.clamp(least, 1.0).log().masked_fill(~real, 0.0).sum(1)


class Watch:
    """The attention of all hypotheses of a search, step by step; its rows are moved along with theirs."""

    def __init__(self, decoder: Decoder[Any], count: int, *, cover: bool, align: bool, attention: bool) -> None:
        """Of a search for `count` sentences, and what is wanted of it."""
        self.decoder: Any = decoder
        self.real: Tensor | None = None
        """(b, S) of the sentences still searched for."""
        self.lengths: list[int] = []
        """S of all, without padding."""
        self.cover, self.align, self.attention = cover, align, attention
        self.before: Tensor | None = None
        """(N, S): the sum of all attention up to the step before."""
        self.covered: Tensor | None = None
        """(N, S): the same with the last step."""
        # Of every step: its attention (N, S), where it was highest, and which of the rows of the step before each of
        # its rows goes on from. What is wanted of it is traced back at the end, and nothing is copied till then.
        self.weights: list[Tensor] = []
        self.highest: list[list[int]] = []
        self.origins: list[list[int]] = [list(range(count))]

    def look(self, state: Any, memory: Any) -> None:
        """Take in the attention of a step. Raises `InputError` where the decoder has none."""
        weights = attention_of(self.decoder, state)
        if weights is None:
            raise InputError(
                "a coverage penalty, alignments and attention weights need a model with attention; this has none"
            )
        if self.real is None:
            self.real = self.decoder.real(memory)
            self.lengths = self.real.sum(1).tolist()
        if self.cover:
            self.before = torch.zeros_like(weights, dtype=torch.float32) if self.covered is None else self.covered
            self.covered = self.before + weights
        if self.align:
            self.highest.append(weights.argmax(1).tolist())
        if self.attention:
            self.weights.append(weights)

    def move(self, rows: Tensor, alive: Tensor | None) -> None:
        """Row m of the next step goes on from row `rows[m]` (M,) of this; `alive` are the sentences that go on."""
        if self.align or self.attention:
            self.origins.append(rows.tolist())
        if self.covered is not None:
            self.covered = self.covered[rows]
        if alive is not None:
            assert self.real is not None
            self.real = self.real[alive]

    def penalty(self, rows: Tensor, at: Tensor, *, before: bool = False) -> Tensor:
        """(M,) coverage penalties of these rows (M,), which belong to the sentences `at` (M,); or those `before`."""
        covered = self.before if before else self.covered
        assert covered is not None and self.real is not None
        return coverage_penalty(covered[rows], self.real[at])

    def trace(self, sentence: int, step: int, row: int) -> tuple[list[int] | None, Tensor | None]:
        """Of the hypothesis in this row after a step: where its attention was highest (step,), and (step, S) itself."""
        if not (self.align or self.attention):
            return None, None
        rows = []
        for origins in reversed(self.origins[:step]):
            rows.append(row)
            row = origins[row]
        rows.reverse()
        alignment = [highest[at] for highest, at in zip(self.highest, rows)] if self.align else None
        if not self.attention:
            return alignment, None
        length = self.lengths[sentence]
        if not rows:
            return alignment, torch.zeros(0, length, device=self.weights[0].device)
        return alignment, torch.stack([weights[at, :length] for weights, at in zip(self.weights, rows)])
