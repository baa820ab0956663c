"""How sentences are translated: by beam search, greedily, or by drawing; over the Decoder contract only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from seqtext.config import Config
from seqtext.errors import InputError
from seqtext.search.beam import Beam, Hypothesis, beam_search
from seqtext.search.decoder import Decoder
from seqtext.search.sampling import Sampler, Sampling

SLACK = 10
"""Tokens that a translation may have beyond `max_ratio` times its source's, for sources of a few, or a prefix."""
DRAWING = ("temperature", "top_k", "top_p", "seed")
"""Settings that only drawing reads."""
SEARCHING = ("beam", "coverage_penalty", "block_ngrams", "min_length", "min_ratio", "early")
"""Settings that only a search reads."""


class Decoding(Config):
    """How translations are found."""

    beam: int = Field(default=5, ge=1)
    """Hypotheses kept of each sentence; 1 is greedy."""
    nbest: int = Field(default=1, ge=1)
    """Translations to give of each sentence, at most as many as the beam has hypotheses."""
    length_penalty: Literal["average", "wu"] = "average"
    """What a hypothesis of n tokens has its log-probability divided by: n ** alpha, or ((5 + n) / 6) ** alpha."""
    alpha: float = Field(default=1.0, ge=0.0)
    """How much length counts; at 0 the most probable hypothesis is best, and the short ones are most probable."""
    coverage_penalty: float = Field(default=0.0, ge=0.0)
    """How much it costs to leave positions of the source without attention (Wu 2016, eq. 14, beta)."""
    block_ngrams: int | None = Field(default=None, ge=1)
    """Let no sequence of so many tokens occur twice."""
    min_length: int = Field(default=0, ge=0)
    """Tokens that a translation has, at least."""
    max_length: int = Field(default=250, ge=1)
    """Tokens that a translation has, at most, however long its source."""
    min_ratio: float = Field(default=0.0, ge=0.0)
    """The same as `min_length` as a share of the source's tokens."""
    max_ratio: float = Field(default=2.0, gt=0.0)
    """Tokens that a translation has, at most, as a share of the source's, and ten more."""
    early: bool = True
    """Stop when as many hypotheses have ended as the beam has, even if a better one could come."""
    sample: bool = False
    """Draw `nbest` translations instead of searching for the best; they are ranked as those of a search, but for the
    coverage penalty."""
    temperature: float = Field(default=1.0, gt=0.0)
    """Logits are divided by this before a token is drawn."""
    top_k: int | None = Field(default=None, ge=1)
    """Draw from the k most probable tokens."""
    top_p: float | None = Field(default=None, gt=0.0, le=1.0)
    """Draw from the fewest most probable tokens that have this probability together."""
    seed: int = 1
    """Of the draws: those for a source depend on this and on its tokens alone, not on what is translated beside it."""

    @model_validator(mode="after")
    def _sensible(self) -> Decoding:
        wrong = []
        if not self.sample and self.nbest > self.beam:
            wrong.append(f"nbest {self.nbest}: the beam has {self.beam} hypotheses")
        if self.min_length >= self.max_length:
            wrong.append(f"min_length {self.min_length}: expected less than max_length, {self.max_length}")
        if self.min_ratio > self.max_ratio:
            wrong.append(f"min_ratio {self.min_ratio:g}: expected at most max_ratio, {self.max_ratio:g}")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    def with_options(self, options: Mapping[str, Any]) -> Decoding:
        """A copy with the fields that are not None. Raises `InputError` for what cannot be, or is read by nothing."""
        changed = self.model_copy(update={name: value for name, value in options.items() if value is not None})
        unread = SEARCHING if changed.sample else DRAWING
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in unread if options.get(name) is not None)
        if flags and changed.sample:
            raise InputError(f"{flags}: drawing does not read this; leave out --sample")
        if flags:
            raise InputError(f"{flags}: a beam draws nothing; give --sample with it")
        if options.get("beam") is not None and options.get("nbest") is None:
            changed = changed.model_copy(update={"nbest": min(changed.nbest, changed.beam)})
        changed.check()
        return changed

    def check(self) -> None:
        """Raises `InputError` naming the flag and what it may be."""
        for flag, value, least in (
            ("--min-length", self.min_length, 0),
            ("--max-length", self.max_length, 1),
            ("--min-ratio", self.min_ratio, 0),
        ):
            if value < least:
                raise InputError(f"{flag} {value}: expected {least} or more")
        if self.max_ratio <= 0:
            raise InputError(f"--max-ratio {self.max_ratio:g}: expected a number above 0")
        if self.min_length >= self.max_length:
            raise InputError(f"--min-length {self.min_length}: expected less than --max-length {self.max_length}")
        if self.min_ratio > self.max_ratio:
            raise InputError(f"--min-ratio {self.min_ratio:g}: expected at most --max-ratio {self.max_ratio:g}")
        if self.sample and self.temperature <= 0:
            advice = "for the most probable tokens leave out --sample"
            raise InputError(f"--temperature {self.temperature:g}: expected a number above 0; {advice}")
        if self.sample and self.nbest < 1:
            raise InputError(f"--nbest {self.nbest}: expected a whole number, 1 or more")
        _ = (self.sampling, self.ranking) if self.sample else self.search

    @property
    def search(self) -> Beam:
        return Beam(
            size=self.beam,
            nbest=self.nbest,
            length_penalty=self.length_penalty,
            alpha=self.alpha,
            coverage_penalty=self.coverage_penalty,
            block_ngrams=self.block_ngrams,
            early=self.early,
        )

    @property
    def ranking(self) -> Beam:
        """What ranks draws."""
        return Beam(length_penalty=self.length_penalty, alpha=self.alpha)

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)

    @property
    def summary(self) -> str:
        """All of it that is not as it is by default, and always what matters most, in a line."""
        if self.sample:
            named = ["temperature", *(name for name in DRAWING[1:3] if getattr(self, name) is not None), "seed"]
            return "drawn, " + ", ".join(f"{name.replace('_', '-')} {getattr(self, name):g}" for name in named)
        facts = [f"beam {self.beam}", f"{self.length_penalty} length penalty, alpha {self.alpha:g}"]
        limits = ("coverage_penalty", "block_ngrams", "min_length", "max_length", "min_ratio", "max_ratio")
        changed = [name for name in limits if getattr(self, name) != type(self).model_fields[name].default]
        facts += [f"{name.replace('_', ' ')} {getattr(self, name):g}" for name in changed]
        return ", ".join(facts + ([] if self.early else ["not early"]))

    def limits(self, lengths: Tensor, prefixes: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """Tokens of sources (B,) and of prefixes -> the least (B,) without `</s>` and most (B,) that come out."""
        most = torch.maximum((lengths * self.max_ratio).long(), torch.as_tensor(prefixes)) + SLACK
        most = most.clamp(max=self.max_length)
        least = (lengths * self.min_ratio).long().clamp(min=self.min_length)
        return torch.minimum(least, most - 1), most


def decode(
    decoder: Decoder[Any],
    memory: Any,
    lengths: Tensor,
    settings: Decoding,
    *,
    start: int,
    eos: int,
    forbidden: Sequence[int] = (),
    sources: Tensor,
    device: torch.device,
    prefix: Tensor | None = None,
    align: bool = False,
    attention: bool = False,
) -> list[list[Hypothesis]]:
    """Translations of each of B sentences, best first: a memory of B rows on `device`, source tokens (B,) of each.

    `sources` (B, S) are those tokens, of which the seeds of drawing are made; those behind their end do not matter.
    `prefix` (B, P) int64, -1 after the end of each, are tokens that a translation begins with; `align` and `attention`
    are those of `beam_search`. Raises `ValueError` for these with drawing.
    """
    least, most = settings.limits(lengths, 0 if prefix is None else (prefix >= 0).sum(1).cpu())
    state = decoder.start(memory)
    first = torch.full((len(lengths),), start, device=device)
    if settings.sample:
        if prefix is not None or align or attention:
            raise ValueError("drawing takes no prefix, and gives no attention")
        generators = _generators(settings.seed, sources, lengths)
        return _draw(decoder, memory, state, first, most, settings, generators, eos, forbidden)
    return beam_search(
        decoder,
        state,
        first,
        settings=settings.search,
        eos=eos,
        max_length=most,
        min_length=least,
        forbidden=forbidden,
        memory=memory,
        prefix=prefix,
        align=align,
        attention=attention,
    )


def _generators(seed: int, sources: Tensor, lengths: Tensor) -> list[torch.Generator]:
    """One for each source (B, S), seeded by its tokens, `lengths` (B,) of them: whatever stands beside it."""
    found = []
    for ids, length in zip(sources.tolist(), lengths.tolist()):
        digest = blake2b(f"{seed} {ids[:length]}".encode(), digest_size=7).digest()
        found.append(torch.Generator().manual_seed(int.from_bytes(digest, "big")))
    return found


def _draw(
    decoder: Decoder[Any],
    memory: Any,
    state: Any,
    first: Tensor,
    most: Tensor,
    settings: Decoding,
    generators: Sequence[torch.Generator],
    eos: int,
    forbidden: Sequence[int],
) -> list[list[Hypothesis]]:
    ranking = settings.ranking
    results: list[list[Hypothesis]] = [[] for _ in first]
    for _ in range(settings.nbest):
        sampler = Sampler(
            decoder,
            state,
            first,
            settings=settings.sampling,
            generator=generators,
            forbidden=forbidden,
            memory=memory,
        )
        texts: list[list[int]] = [[] for _ in first]
        totals = [0.0] * len(texts)
        limits = most.tolist()
        while sampler.rows:
            drawn = sampler.draw()
            over = []
            for row, token, chance in zip(drawn.rows, drawn.tokens.tolist(), drawn.log_probabilities.tolist()):
                totals[row] += chance
                if token != eos:
                    texts[row].append(token)
                if token == eos or len(texts[row]) >= limits[row]:
                    tokens = len(texts[row]) + (token == eos)
                    score = totals[row] / ranking.penalty(tokens)
                    results[row].append(Hypothesis(texts[row], score, totals[row], token == eos))
                    over.append(row)
            sampler.end(over)
    return [sorted(drawn, key=lambda one: -one.score) for drawn in results]
