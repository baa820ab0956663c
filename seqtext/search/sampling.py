"""Drawing tokens one after another: temperature, top-k and nucleus sampling, and greedy choice.

Top-k keeps the k most probable tokens (Fan et al. 2018, "Hierarchical Neural Story Generation"); the nucleus, or
top-p, the fewest whose probability reaches p (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration",
equations 2 and 3). Both come after the temperature, top-k first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqtext.errors import InputError
from seqtext.search.decoder import Decoder, forbid, select_memory, widened

COLDEST, HOTTEST = 1e-30, 1e30
"""Temperatures beyond act as these, at which float32 has the most probable token alone, or all tokens the same."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How a token is chosen. Raises `InputError` naming the flag and what it may be."""

    greedy: bool = False
    """The most probable token, always."""
    temperature: float = 1.0
    """Logits are divided by this: below 1 the probable becomes more probable, above 1 less."""
    top_k: int | None = None
    """Draw from the k most probable tokens; those as probable as the k-th stay too."""
    top_p: float | None = None
    """Draw from the fewest most probable tokens that have this probability together."""

    def __post_init__(self) -> None:
        if not 0.0 < self.temperature < math.inf:
            raise InputError(
                f"--temperature {self.temperature:g}: expected a number above 0; "
                "--greedy takes the most probable token every time"
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"--top-k {self.top_k}: expected a whole number, 1 or more")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise InputError(f"--top-p {self.top_p:g}: expected a number above 0 and at most 1")
        if self.greedy and (self.temperature, self.top_k, self.top_p) != (1.0, None, None):
            raise InputError("--greedy draws nothing: --temperature, --top-k and --top-p have no effect beside it")


def temper(logits: Tensor, temperature: float) -> Tensor:
    """Logits (N, V) over the temperature, moved so that the largest is 0: nothing overflows, however cold."""
    return (logits - logits.amax(-1, keepdim=True)) / min(max(temperature, COLDEST), HOTTEST)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Logits (N, V) with all below the k-th largest of a row at -inf."""
    if k >= logits.size(-1):
        return logits
    least = logits.topk(k).values[:, -1:]
    return logits.masked_fill(logits < least, -math.inf)


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Logits (N, V) with all outside the nucleus at -inf: a token stays where those before it have less than p."""
    if p == 1.0:
        return logits
    ordered, places = logits.sort(descending=True, stable=True)
    chances = ordered.softmax(-1)
    before = chances.cumsum(-1, dtype=torch.float64) - chances
    return logits.masked_fill(torch.empty_like(before, dtype=torch.bool).scatter_(1, places, before >= p), -math.inf)


def choose(logits: Tensor, settings: Sampling, points: Tensor | None) -> Tensor:
    """One token (N,) for each row of logits (N, V); `points` (N,) float64 in [0, 1) are the draws.

    A row's draw is a point on the line that its tokens' probabilities divide (inverse transform sampling): so a row's
    token depends on its own logits and point alone. Greedy choice needs no points.
    """
    if settings.greedy:
        return logits.argmax(-1)
    assert points is not None
    logits = temper(logits, settings.temperature)
    if settings.top_k is not None:
        logits = keep_top_k(logits, settings.top_k)
    if settings.top_p is not None:
        logits = keep_top_p(logits, settings.top_p)
    ends = logits.softmax(-1).cumsum(-1, dtype=torch.float64)  # (N, V): where each token's stretch ends
    return torch.searchsorted(ends, points.unsqueeze(1) * ends[:, -1:], right=True).squeeze(1)


class Draw(NamedTuple):
    """The next token of the n rows still drawn for."""

    rows: list[int]
    """Which of the N rows at the start, in order."""
    tokens: Tensor
    """(n,) int64."""
    log_probabilities: Tensor
    """(n,) of the tokens under the model itself, in nats: before temperature, filters and what is forbidden."""


class Sampler:
    """N rows that grow by a token a draw; rows that are ended leave the batch."""

    def __init__(
        self,
        decoder: Decoder[Any],
        state: Any,
        last_tokens: Tensor,
        *,
        settings: Sampling,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
        forbidden: Sequence[int] = (),
        memory: Any = None,
    ) -> None:
        """A state of N rows, the last token (N,) of each, which the state has not read; a memory of B rows or None.

        For n samples of each source, N is n * B, and those of one source stand together.

        `generator` is one of the CPU, whatever the device, so that the same seed draws the same on all of them, or one
        for each row; None is torch's own.
        """
        self.decoder, self.state, self.tokens, self.memory = decoder, state, last_tokens, memory
        self.settings, self.generator = settings, generator
        self.forbidden = torch.tensor(forbidden, dtype=torch.int64, device=last_tokens.device)
        self.count = len(last_tokens)
        self.rows = list(range(self.count))

    @torch.inference_mode()
    def draw(self) -> Draw:
        """The next token of every row left. There must be one."""
        output, self.state = self.decoder.step(self.tokens, self.state, self.memory)
        logits = widened(self.decoder.scores(output))
        total = logits.logsumexp(-1)
        forbid(logits, self.forbidden)
        points = None
        if not self.settings.greedy:
            points = self._points().to(logits.device)
        self.tokens = choose(logits, self.settings, points)
        return Draw(self.rows, self.tokens, logits.gather(1, self.tokens.unsqueeze(1)).squeeze(1) - total)

    def _points(self) -> Tensor:
        """(n,) in [0, 1): the draws of the rows left."""
        if isinstance(self.generator, Sequence):
            drawn = [torch.rand(1, generator=self.generator[row], dtype=torch.float64) for row in self.rows]
            return torch.cat(drawn)
        # One for every row there was, that no row's draws depend on when others end.
        return torch.rand(self.count, generator=self.generator, dtype=torch.float64)[self.rows]

    @torch.inference_mode()
    def end(self, rows: Iterable[int]) -> None:
        """Draw no more for these of the N rows."""
        ended = set(rows)
        kept = [place for place, row in enumerate(self.rows) if row not in ended]
        if len(kept) == len(self.rows):
            return
        count, self.rows = len(self.rows), [self.rows[place] for place in kept]
        places = torch.tensor(kept, dtype=torch.int64, device=self.tokens.device)
        self.tokens = self.tokens[places]
        self.state = self.decoder.reorder(self.state, places)
        self.memory = select_memory(self.memory, places, count)


def sample(
    decoder: Decoder[Any],
    state: Any,
    last_tokens: Tensor,
    *,
    settings: Sampling,
    max_tokens: int,
    stop: Sequence[int] = (),
    forbidden: Sequence[int] = (),
    generator: torch.Generator | None = None,
    memory: Any = None,
) -> Iterator[Tensor]:
    """The next tokens (N,) of N rows, step by step as they are drawn; -1 for a row that has ended.

    A row ends with the first of the `stop` tokens, which is given out too, or after `max_tokens`. The state, the last
    tokens and the memory are those of `Sampler`.
    """
    sampler = Sampler(
        decoder, state, last_tokens, settings=settings, generator=generator, forbidden=forbidden, memory=memory
    )
    for _ in range(max_tokens):
        if not sampler.rows:
            return
        drawn = sampler.draw()
        tokens = torch.full_like(last_tokens, -1)
        tokens[drawn.rows] = drawn.tokens
        sampler.end(row for row, token in zip(drawn.rows, drawn.tokens.tolist()) if token in stop)
        yield tokens
