"""Several decoders as one: the mean of their probabilities.

That is the arithmetic mean, a mixture (the "linear" interpolation of Sockeye, Hieber et al. 2017, and what fairseq
does, Ott et al. 2019): a distribution as it is, whose log-probability is at least the mean of its members'. The mean
of log-probabilities, which others take, is none until it is normalised, and one member that is sure can veto a word.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from seqtext.errors import InputError
from seqtext.search.attending import attention_of
from seqtext.search.decoder import Decoder, log_probabilities


class Ensemble:
    """M decoders with one target vocabulary, themselves a decoder.

    Memories and states are tuples with one of each member; a memory of None is that of all.
    """

    def __init__(self, decoders: Sequence[Decoder[Any]], *, same_source: bool = False) -> None:
        """`same_source`: whether all read the same tokens of the source. Then `attention` is the mean over those that
        have any; otherwise it is that of the first, since what is about other tokens cannot be averaged.

        Raises `InputError` where there is none, or their vocabularies have different sizes.
        """
        if not decoders:
            raise InputError("an ensemble needs at least one model")
        sizes = [decoder.size for decoder in decoders]
        if len(set(sizes)) > 1:
            named = ", ".join(map(str, sizes))
            raise InputError(f"an ensemble needs models of one target vocabulary; these have {named} entries")
        self.decoders, self.same_source = tuple(decoders), same_source
        self.size = sizes[0]

    def start(self, memory: tuple[Any, ...] | None) -> tuple[Any, ...]:
        return tuple(decoder.start(part) for decoder, part in zip(self.decoders, self._parts(memory)))

    def step(
        self, tokens: Tensor, state: tuple[Any, ...], memory: tuple[Any, ...] | None
    ) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        steps = zip(self.decoders, state, self._parts(memory))
        outputs, states = zip(*(decoder.step(tokens, part, source) for decoder, part, source in steps))
        return outputs, states

    def scores(self, output: tuple[Any, ...]) -> Tensor:
        found = (log_probabilities(decoder.scores(part)) for decoder, part in zip(self.decoders, output))
        return functools.reduce(torch.logaddexp, found)  # a constant log M above the mean

    def reorder(self, state: tuple[Any, ...], rows: Tensor) -> tuple[Any, ...]:
        return tuple(decoder.reorder(part, rows) for decoder, part in zip(self.decoders, state))

    def attention(self, state: tuple[Any, ...]) -> Tensor | None:
        """(N, S): of the last step; None where there is none."""
        looking = zip(self.decoders, state) if self.same_source else [(self.decoders[0], state[0])]
        found = [weights for weights in (attention_of(*pair) for pair in looking) if weights is not None]
        return torch.stack(found).mean(0) if found else None

    def real(self, memory: tuple[Any, ...]) -> Tensor:
        """(B, S) bool: the source's tokens, as the first member that tells reads them."""
        telling: list[tuple[Any, Any]] = [pair for pair in zip(self.decoders, memory) if hasattr(pair[0], "real")]
        decoder, part = telling[0]
        real: Tensor = decoder.real(part)
        return real

    def _parts(self, memory: tuple[Any, ...] | None) -> tuple[Any, ...]:
        return (None,) * len(self.decoders) if memory is None else memory
