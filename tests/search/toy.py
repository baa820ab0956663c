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
        # No constant of a row may matter: scores are logits.
        return hidden @ self.output.T + 10.0 * hidden[:, :1], Parts((hidden, read + 1))

    def reorder(self, state: Parts, rows: Tensor) -> Parts:
        return select(state, rows)

    def log_probabilities(self, tokens: list[int], memory: tuple[Tensor] | None = None) -> Tensor:
        """(V,) of the token after `tokens`, read from the start."""
        state = self.start(memory)
        for token in tokens:
            scores, state = self.step(torch.tensor([token]), state, memory)
        return scores[0].log_softmax(0)
