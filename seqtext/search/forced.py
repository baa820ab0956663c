"""Forced decoding: how probable a decoder holds given tokens, step by step.

That is the way for whatever keeps to the Decoder contract and no more, an ensemble for one; a model that can run over a
whole target at once is faster so, and must say the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from seqtext.search.decoder import Decoder, widened


@torch.inference_mode()
def forced(decoder: Decoder[Any], state: Any, last_tokens: Tensor, tokens: Tensor, *, memory: Any = None) -> Tensor:
    """tokens (N, T) int64, -1 behind the end of each row -> their log-probabilities (N, T) in nats, 0 at padding.

    A state of N rows, the last token (N,) of each, which the state has not read, and a memory of B rows, of which N is
    a multiple, or None. An `<eos>` counts if it is among the tokens. Raises `ValueError` where a row has a gap.
    """
    there = tokens >= 0
    if bool((there[:, 1:] & ~there[:, :-1]).any()):
        raise ValueError("expected tokens with -1 behind their ends only")
    found = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
    read = last_tokens
    for t in range(tokens.size(1)):
        output, state = decoder.step(read, state, memory)
        scores = widened(decoder.scores(output))
        read = tokens[:, t].clamp(min=0)  # padding reads what there is, and what comes of it is not used
        chosen = scores.gather(1, read.unsqueeze(1)).squeeze(1) - scores.logsumexp(1)
        found[:, t] = torch.where(there[:, t], chosen, 0.0)
    return found
