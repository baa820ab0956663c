"""Beam search, batched over sentences: the K best hypotheses of every sentence grow together, a token a step.

A hypothesis ends when its `<eos>` is among the K best continuations of its sentence, or at the maximum length. Ended
ones are ranked by log-probability over a penalty for their length n (in tokens, `<eos>` counted): n ** alpha, the
average at alpha = 1; or ((5 + n) / 6) ** alpha (Wu et al. 2016, "Google's Neural Machine Translation System",
equation 14). A sentence whose search is over leaves the batch.

The search of a sentence is over when nothing better can come: when its n-th best ended hypothesis (n of the n-best
asked for) ranks at least as high as the best open one would if it went on for nothing to the maximum length. Since
log-probabilities only fall, and the penalty only grows with the length, no hypothesis still open could rank higher
(Huang et al. 2017, "When to Finish? Optimal Beam Search for Neural Text Generation"). With `early`, it is also over
once K hypotheses have ended, which is faster where alpha is large, and may miss a better one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from seqtext.errors import InputError
from seqtext.search.decoder import Decoder, forbid, select, widened

Length = TypeVar("Length", float, Tensor)


@dataclass(frozen=True, kw_only=True)
class Beam:
    """How to search. Raises `InputError` naming the flag and what it may be."""

    size: int = 5
    """K, hypotheses kept of each sentence. One is greedy search where no length is penalised, or with `early`."""
    nbest: int = 1
    """Hypotheses to give back of each sentence, at most K."""
    length_penalty: Literal["average", "wu"] = "average"
    """What the log-probability is divided by: n ** alpha, or ((5 + n) / 6) ** alpha."""
    alpha: float = 0.0
    """How much length counts; at 0 the most probable hypothesis ranks first, however short."""
    block_ngrams: int | None = None
    """Let no sequence of this many tokens occur twice in a hypothesis."""
    early: bool = False
    """Stop at K ended hypotheses, even if a better one could come."""

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"--beam {self.size}: expected a whole number, 1 or more")
        if not 1 <= self.nbest <= self.size:
            raise InputError(f"--nbest {self.nbest}: expected 1 to {self.size}, the size of the beam")
        if self.length_penalty not in ("average", "wu"):
            raise InputError(f"--length-penalty {self.length_penalty}: expected average or wu")
        if not 0.0 <= self.alpha < math.inf:
            raise InputError(f"--alpha {self.alpha:g}: expected a number, 0 or more")
        if self.block_ngrams is not None and self.block_ngrams < 1:
            raise InputError(f"--block-ngrams {self.block_ngrams}: expected a whole number, 1 or more")

    def penalty(self, length: Length) -> Length:
        """What the log-probability of a hypothesis of so many tokens is divided by."""
        return length**self.alpha if self.length_penalty == "average" else ((5.0 + length) / 6.0) ** self.alpha


class Hypothesis(NamedTuple):
    """A way to go on, and how good it is."""

    tokens: list[int]
    """Without the `<eos>`."""
    score: float
    """What it is ranked by: `log_probability` over the penalty for its length."""
    log_probability: float
    """Of all its tokens, the `<eos>` among them, under the model itself, in nats."""
    ended: bool
    """Whether an `<eos>` came; otherwise it was cut at the maximum length."""


@torch.inference_mode()
def beam_search(
    decoder: Decoder[Any],
    state: Any,
    last_tokens: Tensor,
    *,
    settings: Beam,
    eos: int,
    max_length: int | Tensor,
    min_length: int | Tensor = 0,
    forbidden: Sequence[int] = (),
    memory: Any = None,
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each of B sentences, best first; fewer where the model leaves fewer.

    A state of B rows, the last token (B,) of each, which the state has not read, and a memory of B rows or None.
    `max_length`, with the `<eos>`, and `min_length`, without it, are in tokens, for all or (B,) for each sentence.
    The `forbidden` tokens never come. What is forbidden or blocked changes no other token's probability.

    Raises `ValueError` where a sentence's maximum length is below 1 or its minimum not below its maximum.
    """
    device, beam = last_tokens.device, settings.size
    limit = torch.as_tensor(max_length, device=device).expand(len(last_tokens))
    least = torch.as_tensor(min_length, device=device).expand(len(last_tokens))
    if bool(((limit < 1) | (least >= limit)).any()):
        raise ValueError("expected a max_length of 1 or more and a min_length below it")
    never = torch.tensor(forbidden, dtype=torch.int64, device=device)
    found: list[list[Hypothesis]] = [[] for _ in range(len(last_tokens))]
    counts = [0] * len(found)  # ended, also those no longer among the n best
    # What is open: b sentences with `width` hypotheses each, N = b * width rows; dead ones have a total of -inf.
    sentences = list(range(len(found)))
    tokens, totals = last_tokens, torch.zeros(len(found), 1, dtype=torch.float64, device=device)
    history = tokens.new_empty(len(found), 0)  # (N, length - 1)
    length = 0
    while sentences:
        length += 1
        width = totals.size(1)
        scores, state = decoder.step(tokens, state, memory)
        scores = widened(scores)
        normaliser = scores.logsumexp(-1, keepdim=True)
        forbid(scores, never)
        scores[:, eos].masked_fill_((length <= least).repeat_interleave(width), -math.inf)
        if settings.block_ngrams is not None:
            _block_repeats(scores, history, settings.block_ngrams)
        # K and the <eos> of each row are enough for the K best of a sentence, and for the K best that go on.
        best, entries = scores.topk(min(beam + 1, scores.size(1)))
        sums = (totals.view(-1, 1) + (best - normaliser)).view(len(sentences), -1)  # (b, width * (K + 1))
        sums, order = sums.topk(min(2 * beam, sums.size(1)))
        rows = order // entries.size(1) + width * torch.arange(len(sentences), device=device).unsqueeze(1)
        entries = entries.view(len(sentences), -1).gather(1, order)
        ends = entries == eos
        ended = ends & (sums > -math.inf)
        ended[:, beam:] = False
        at = ended.nonzero()[:, 0].tolist()
        for i, words, total in zip(at, history[rows[ended]].tolist(), sums[ended].tolist()):
            new = Hypothesis(words, total / settings.penalty(float(length)), total, True)
            _file(found[sentences[i]], new, settings.nbest)
            counts[sentences[i]] += 1
        totals, kept = sums.masked_fill(ends, -math.inf).topk(min(beam, sums.size(1)))  # (b, width) from here
        rows, nexts = rows.gather(1, kept).flatten(), entries.gather(1, kept).flatten()
        history = torch.cat([history[rows], nexts.unsqueeze(1)], 1)
        width = totals.size(1)
        full = (length >= limit).tolist()
        for i in (i for i, cut in enumerate(full) if cut):
            for j, total in enumerate(totals[i].tolist()):
                if total > -math.inf:
                    score = total / settings.penalty(float(length))
                    new = Hypothesis(history[i * width + j].tolist(), score, total, False)
                    _file(found[sentences[i]], new, settings.nbest)
        hopes = (totals[:, 0] / settings.penalty(limit.double())).tolist()
        going = [
            i
            for i, sentence in enumerate(sentences)
            if not full[i]
            and hopes[i] > _least(found[sentence], settings.nbest)
            and not (settings.early and counts[sentence] >= beam)
        ]
        if len(going) < len(sentences):
            sentences = [sentences[i] for i in going]
            alive = torch.tensor(going, dtype=torch.int64, device=device)
            limit, least, totals, memory = limit[alive], least[alive], totals[alive], select(memory, alive)
            places = (alive.unsqueeze(1) * width + torch.arange(width, device=device)).flatten()
            rows, nexts, history = rows[places], nexts[places], history[places]
        tokens, state = nexts, decoder.reorder(state, rows)
    return found


def _file(found: list[Hypothesis], new: Hypothesis, nbest: int) -> None:
    """Put a hypothesis among the n best, behind those that rank the same."""
    found.append(new)
    found.sort(key=lambda hypothesis: -hypothesis.score)
    del found[nbest:]


def _least(found: list[Hypothesis], nbest: int) -> float:
    """The score that a new hypothesis must exceed."""
    return found[-1].score if len(found) == nbest else -math.inf


def _block_repeats(scores: Tensor, history: Tensor, n: int) -> None:
    """Take out of scores (N, V) the tokens that would end a sequence of n that history (N, t) has, in place."""
    if history.size(1) < n:
        return
    windows = history.unfold(1, n, 1)  # (N, t - n + 1, n)
    last = history[:, history.size(1) - n + 1 :].unsqueeze(1)  # (N, 1, n - 1): what would begin the sequence
    row, place = (windows[..., :-1] == last).all(-1).nonzero(as_tuple=True)
    scores[row, windows[row, place, -1]] = -math.inf
