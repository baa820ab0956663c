"""Beam search, batched over sentences: the K best hypotheses of every sentence grow together, a token a step.

A hypothesis ends when its `<eos>` is among the K best continuations of its sentence, or at the maximum length. Ended
ones are ranked by log-probability over a penalty for their length n (in tokens, `<eos>` counted): n ** alpha, the
average at alpha = 1; or ((5 + n) / 6) ** alpha (Wu et al. 2016, "Google's Neural Machine Translation System",
equation 14); plus a penalty for what of the source they left out (the same equation, see attending.py). A sentence
whose search is over leaves the batch.

The search of a sentence is over when nothing better can come: when its n-th best ended hypothesis (n of the n-best
asked for) ranks at least as high as the best open one would if it went on for nothing to the maximum length, and
covered the whole source. Since log-probabilities only fall, the penalty for length only grows with it, and that for
coverage is never above 0, no hypothesis still open could rank higher (Huang et al. 2017, "When to Finish? Optimal Beam
Search for Neural Text Generation"). With `early`, it is also over once K hypotheses have ended, which is faster where
alpha is large or coverage counts, and may miss a better one.

No sentence is left without a hypothesis: where all are blocked or forbidden to go on and none has ended, those that
could not go on are given back as cut.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from seqtext.errors import InputError
from seqtext.search.attending import Watch
from seqtext.search.candidates import best, block_repeats, leave_only
from seqtext.search.decoder import Decoder, forbid, log_probabilities, pieces, select


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
    coverage_penalty: float = 0.0
    """Beta: how much it counts that all of the source is attended to; needs a model with attention."""
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
        if not 0.0 <= self.coverage_penalty < math.inf:
            raise InputError(f"--coverage-penalty {self.coverage_penalty:g}: expected a number, 0 or more")
        if self.block_ngrams is not None and self.block_ngrams < 1:
            raise InputError(f"--block-ngrams {self.block_ngrams}: expected a whole number, 1 or more")

    def penalty(self, length: int) -> float:
        """What the log-probability of a hypothesis of so many tokens is divided by."""
        return float(length**self.alpha if self.length_penalty == "average" else ((5 + length) / 6) ** self.alpha)

    @property
    def greedy(self) -> bool:
        """Whether the first `<eos>` is the end: then only the best token of a step matters."""
        return self.size == 1 and (self.early or (self.alpha == 0.0 and self.coverage_penalty == 0.0))


class Hypothesis(NamedTuple):
    """A way to go on, and how good it is."""

    tokens: list[int]
    """Without the `<eos>`, with the prefix."""
    score: float
    """What it is ranked by: `log_probability` over the penalty for its length, with that for coverage."""
    log_probability: float
    """Of all its tokens, the `<eos>` among them, under the model itself, in nats."""
    ended: bool
    """Whether an `<eos>` came; otherwise it was cut at the maximum length, or where it could not go on."""
    alignment: list[int] | None = None
    """If asked for: the position in the source that each of `tokens` attended to most."""
    attention: Tensor | None = None
    """If asked for: (T, S), the attention of each token, of the `<eos>` too where one came, to a source of S tokens."""


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
    prefix: Tensor | None = None,
    align: bool = False,
    attention: bool = False,
    memory: Any = None,
) -> list[list[Hypothesis]]:
    """The n best hypotheses of each of B sentences, best first; fewer, but at least one, where the model leaves fewer.

    A state of B rows, the last token (B,) of each, which the state has not read, and a memory of B rows or None.
    `max_length`, with the `<eos>`, and `min_length`, without it, are in tokens, for all or (B,) for each sentence.
    The `forbidden` tokens never come. What is forbidden or blocked changes no other token's probability. The `prefix`
    (B, P) is what the hypotheses begin with, -1 behind its end: it counts as any other tokens do, and may hold
    forbidden ones and repeat itself. With `align` and `attention`, hypotheses have what is called so.

    Raises `ValueError` where a sentence's maximum length is below 1 or its minimum not below its maximum, or a prefix
    is longer than the maximum, has a gap, or an `<eos>`; `InputError` where the decoder has no attention and it is
    needed, and where its scores are not numbers.
    """
    device, count = last_tokens.device, len(last_tokens)
    limits: list[int] = torch.as_tensor(max_length).expand(count).tolist()
    least = torch.as_tensor(min_length, device=device).expand(count)
    if any(limit < 1 or limit <= low for limit, low in zip(limits, least.tolist())):
        raise ValueError("expected a max_length of 1 or more and a min_length below it")
    latest = max(least.tolist(), default=0)
    given = [0] * count if prefix is None else _prefix_lengths(prefix, limits, eos, decoder.size)
    never = torch.tensor(forbidden, dtype=torch.int64, device=device)
    watch = None
    if settings.coverage_penalty or align or attention:
        watch = Watch(decoder, count, cover=settings.coverage_penalty > 0.0, align=align, attention=attention)
    results = _Results(count, settings, watch)
    size, ceilings = settings.size, [settings.penalty(limit) for limit in limits]
    # What is open: b sentences with `width` hypotheses each, N = b * width rows; dead ones have a total of -inf.
    sentences = list(range(count))
    tokens, totals = last_tokens, torch.zeros(count, 1, dtype=torch.float64, device=device)
    history = tokens.new_empty(count, 0)  # (N, length - 1)
    length = 0
    while sentences:
        length += 1
        width = totals.size(1)
        output, state = decoder.step(tokens, state, memory)
        if watch is not None:
            watch.look(state, memory)
        wanted = None
        if prefix is not None and any(given[sentence] >= length for sentence in sentences):
            wanted = prefix[:, length - 1].repeat_interleave(width)
        early = (length <= least).repeat_interleave(width) if length <= latest else None  # too early for an <eos>
        parts = []
        for some in pieces(len(sentences), width, decoder.size):
            own = slice(some.start * width, some.stop * width)  # their rows
            scores = log_probabilities(decoder.scores(select(output, own)))
            given_tokens = None if wanted is None else wanted[own]
            fixed = (
                None if given_tokens is None else scores.gather(1, given_tokens.clamp(min=0).unsqueeze(1)).squeeze(1)
            )
            forbid(scores, never)
            if early is not None:
                scores[:, eos].masked_fill_(early[own], -math.inf)
            if settings.block_ngrams is not None:
                block_repeats(scores, history[own], settings.block_ngrams)
            if given_tokens is not None and fixed is not None:
                leave_only(scores, given_tokens, fixed)
            # A row has one <eos>: twice K, of at most K rows, leave K that go on.
            parts.append(best(scores, totals[some], 1 if settings.greedy else 2 * size, first=own.start))
        sums, rows, entries = map(torch.cat, zip(*parts))
        ends = (entries == eos) & (sums > -math.inf)
        ended = ends[:, :size]
        at = ended.nonzero()[:, 0]
        if len(at):
            chosen = rows[:, :size][ended]
            results.add(sentences, at, chosen, sums[:, :size][ended], history[chosen], length, ended=True)
        before = totals
        narrow = all(given[sentence] >= length for sentence in sentences)  # there is one way to go on
        totals, kept = sums.masked_fill(ends, -math.inf).topk(1 if narrow else min(size, sums.size(1)))
        tops = totals[:, 0].tolist()
        if any(map(math.isnan, tops)):
            raise InputError("the model's scores are not numbers (NaN): its training must have diverged")
        stuck = [i for i, top in enumerate(tops) if top == -math.inf and not results.best[sentences[i]]]
        if stuck:
            at, chosen = _open(before, stuck)
            results.add(sentences, at, chosen, before.flatten()[chosen], history[chosen], length)
        rows, nexts = rows.gather(1, kept).flatten(), entries.gather(1, kept).flatten()
        history = torch.cat([history[rows], nexts.unsqueeze(1)], 1)
        full = [i for i, sentence in enumerate(sentences) if limits[sentence] == length]
        if full:
            at, places = _open(totals, full)
            results.add(sentences, at, rows[places], totals.flatten()[places], history[places], length)

        going = [
            i
            for i, sentence in enumerate(sentences)
            if length < limits[sentence]
            and tops[i] / ceilings[sentence] > results.least(sentence)
            and not (settings.early and results.ended[sentence] >= size)
        ]
        alive = None
        if len(going) < len(sentences):
            sentences = [sentences[i] for i in going]
            alive = torch.tensor(going, dtype=torch.int64, device=device)
            places = (alive.unsqueeze(1) * totals.size(1) + torch.arange(totals.size(1), device=device)).flatten()
            rows, nexts, history = rows[places], nexts[places], history[places]
            least, totals, memory = least[alive], totals[alive], select(memory, alive)
            prefix = None if prefix is None else prefix[alive]
        if watch is not None:
            watch.move(rows, alive)
        tokens = nexts
        if alive is not None or width > 1 or totals.size(1) > 1:  # otherwise all rows stay where they are
            state = decoder.reorder(state, rows)
    return results.finish()


def _prefix_lengths(prefix: Tensor, limits: Sequence[int], eos: int, size: int) -> list[int]:
    """The tokens of each prefix (B, P)."""
    there = prefix >= 0
    if bool((there[:, 1:] & ~there[:, :-1]).any()) or bool(((prefix == eos) | (prefix >= size)).any()):
        raise ValueError(f"expected prefixes of tokens below {size} but {eos}, the <eos>, with -1 behind their ends")
    lengths: list[int] = there.sum(1).tolist()
    if any(length > limit for length, limit in zip(lengths, limits)):
        raise ValueError("expected prefixes no longer than the max_length")
    return lengths


def _open(totals: Tensor, places: list[int]) -> tuple[Tensor, Tensor]:
    """The hypotheses that are not dead among totals (b, width), of the sentences in these places: place, row (M,)."""
    there = torch.zeros_like(totals, dtype=torch.bool)
    there[places] = totals[places] > -math.inf
    return there.nonzero()[:, 0], there.flatten().nonzero().squeeze(1)


class _Results:
    """The n best hypotheses of each sentence so far."""

    def __init__(self, count: int, settings: Beam, watch: Watch | None) -> None:
        self.settings, self.watch = settings, watch
        self.best: list[list[tuple[Hypothesis, int, int]]] = [[] for _ in range(count)]
        """Best first, each with the step that it was found in and its row there."""
        self.ended = [0] * count
        """How many have ended, also those no longer among the n best."""

    def add(
        self,
        sentences: list[int],
        at: Tensor,
        rows: Tensor,
        sums: Tensor,
        words: Tensor,
        step: int,
        *,
        ended: bool = False,
    ) -> None:
        """Take in M hypotheses with their places (M,) among `sentences`, rows (M,), sums (M,) and words (M, t)."""
        length = words.size(1) + ended
        scores = sums / self.settings.penalty(max(length, 1))
        if self.settings.coverage_penalty and length:
            assert self.watch is not None
            missed = self.watch.penalty(rows, at, before=length < step)
            scores = scores + self.settings.coverage_penalty * missed
        columns = (at, words, scores, sums, rows)
        for i, tokens, score, total, row in zip(*(column.tolist() for column in columns)):
            best = self.best[sentences[i]]
            best.append((Hypothesis(tokens, score, total, ended), step, row))
            best.sort(key=lambda item: -item[0].score)  # those that rank the same stay in the order they came in
            del best[self.settings.nbest :]
            self.ended[sentences[i]] += ended

    def least(self, sentence: int) -> float:
        """The score that a new hypothesis must exceed."""
        best = self.best[sentence]
        return best[-1][0].score if len(best) == self.settings.nbest else -math.inf

    def finish(self) -> list[list[Hypothesis]]:
        """All of them, with what was asked for of their attention."""
        return [[self._traced(i, *item) for item in best] for i, best in enumerate(self.best)]

    def _traced(self, sentence: int, found: Hypothesis, step: int, row: int) -> Hypothesis:
        if self.watch is None:
            return found
        alignment, attention = self.watch.trace(sentence, step, row)
        count = len(found.tokens)
        return found._replace(
            alignment=None if alignment is None else alignment[:count],
            attention=None if attention is None else attention[: count + found.ended],
        )
