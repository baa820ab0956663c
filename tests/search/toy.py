"""A decoder small enough to enumerate, whose scores depend on all that was read: a recurrence with random weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from seqtext.search.decoder import select


class Parts(NamedTuple):
    """A nested state, as real models have."""

    hidden: tuple[Tensor, Tensor]
    """(N, H) states and (N,) tokens read so far."""
    nothing: None = None


class Toy:
    """h' = tanh(W h + embedding of the token + the memory's row); scores = output of h', moved by a constant a row."""

    def __init__(self, size: int, *, seed: int = 0, hidden: int = 5, scale: float = 2.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.size, self.hidden = size, hidden
        self.embedding, self.output, self.recurrent = (
            scale * torch.randn(n, hidden, generator=generator, dtype=torch.float64) for n in (size, size, hidden)
        )
        self.batches: list[int] = []
        """N of every step taken."""

    def memory(self, rows: int, *, seed: int = 0) -> tuple[Tensor]:
        generator = torch.Generator().manual_seed(seed)
        return (torch.randn(rows, self.hidden, generator=generator, dtype=torch.float64),)

    def start(self, memory: tuple[Tensor] | None) -> Parts:
        rows = 1 if memory is None else len(memory[0])
        return Parts((torch.zeros(rows, self.hidden, dtype=torch.float64), torch.zeros(rows)))

    def step(self, tokens: Tensor, state: Parts, memory: tuple[Tensor] | None) -> tuple[Tensor, Parts]:
        hidden, read = state.hidden
        assert len(tokens) == len(hidden) == len(read)
        assert torch.equal(read, read[:1].expand(len(read))), "rows have read different numbers of tokens"
        self.batches.append(len(tokens))
        x = self.embedding[tokens]
        if memory is not None:
            assert len(tokens) % len(memory[0]) == 0
            x = x + memory[0].repeat_interleave(len(tokens) // len(memory[0]), 0)
        hidden = torch.tanh(hidden @ self.recurrent.T + x)
        return hidden, Parts((hidden, read + 1))

    def scores(self, output: Tensor) -> Tensor:
        # No constant of a row may matter: scores are logits.
        return output @ self.output.T + 10.0 * output[:, :1]

    def reorder(self, state: Parts, rows: Tensor) -> Parts:
        return select(state, rows)

    def log_probabilities(self, tokens: list[int], memory: tuple[Tensor] | None = None) -> Tensor:
        """(V,) of the token after `tokens`, read from the start."""
        state = self.start(memory)
        for token in tokens:
            output, state = self.step(torch.tensor([token]), state, memory)
        return self.scores(output)[0].log_softmax(0)


class Source(NamedTuple):
    """What an attending toy looks at."""

    first: Tensor
    """(B, H): what every step reads."""
    keys: Tensor
    """(B, S, H)."""
    real: Tensor
    """(B, S) bool."""

    def row(self, row: int) -> Source:
        """One source alone, without padding."""
        length = int(self.real[row].sum())
        return Source(self.first[row : row + 1], *(part[row : row + 1, :length] for part in (self.keys, self.real)))


class Looking(NamedTuple):
    """The state of an attending toy."""

    parts: Parts
    weights: Tensor | None
    """(N, S): of the last step."""


class AttendingToy(Toy):
    """A toy that weighs the positions of a source by the products of its state with their keys."""

    def source(self, lengths: list[int], *, seed: int = 0) -> Source:
        """Random sources of these lengths, padded with what must not be looked at."""
        generator = torch.Generator().manual_seed(seed)
        keys = 2.0 * torch.randn(len(lengths), max(lengths), self.hidden, generator=generator, dtype=torch.float64)
        real = torch.arange(max(lengths)) < torch.tensor(lengths).unsqueeze(1)
        return Source(*self.memory(len(lengths), seed=seed), keys, real)

    def start(self, memory: Source) -> Looking:
        return Looking(super().start(memory), None)

    def step(self, tokens: Tensor, state: Looking, memory: Source) -> tuple[Tensor, Looking]:
        output, parts = super().step(tokens, state.parts, memory)
        queries = parts.hidden[0].view(len(memory.real), -1, self.hidden)
        weights = queries @ memory.keys.transpose(1, 2)  # (B, N / B, S)
        weights = weights.masked_fill(~memory.real.unsqueeze(1), -torch.inf).softmax(-1)
        return output, Looking(parts, weights.flatten(0, 1))

    def attention(self, state: Looking) -> Tensor | None:
        return state.weights

    def real(self, memory: Source) -> Tensor:
        return memory.real

    def look(self, tokens: list[int], memory: Source) -> Tensor:
        """(S,) of the step that read the last of `tokens`."""
        state = self.start(memory)
        for token in tokens:
            _, state = self.step(torch.tensor([token]), state, memory)
        assert state.weights is not None
        return state.weights[0]
