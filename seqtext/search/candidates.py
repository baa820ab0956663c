"""How hypotheses may go on, and the best ways of it: on whole vocabularies, so what a search costs is spent here."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CHUNK = 64
"""Tokens that are looked at together: the largest of each chunk says whether any of them can matter."""


def best(scores: Tensor, totals: Tensor, k: int, *, first: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """The k best continuations of each sentence, in order; fewer where there are fewer.

    scores (N, V) of the next token, totals (b, N / b) so far -> sums, rows of the scores, tokens, all (b, k); rows
    are counted from `first`. The k best lie within the k chunks that have the best maxima, and the maxima cost a
    fraction of sorting all.
    """
    count, width = totals.shape
    size = scores.size(1)
    chunks = size // CHUNK
    begin = chunks * CHUNK  # of the tokens in no chunk
    device = scores.device
    places = torch.arange(begin, size, device=device) + size * torch.arange(width, device=device).unsqueeze(1)
    places = places.view(1, -1).expand(count, -1)  # (b, places): row * V + token, rows counted within the sentence
    if chunks:
        tops = scores[:, :begin].unflatten(1, (chunks, CHUNK)).amax(-1) + totals.view(-1, 1)  # (N, chunks)
        tops = tops.view(count, -1)
        kept = tops.topk(min(k, tops.size(1)), sorted=False).indices  # (b, k)
        starts = torch.div(kept, chunks, rounding_mode="floor") * size + kept % chunks * CHUNK
        inside = (starts.unsqueeze(2) + torch.arange(CHUNK, device=device)).view(count, -1)
        places = torch.cat([inside, places], 1) if begin < size else inside
    rows = torch.div(places, size, rounding_mode="floor")
    sums = scores.view(count, -1).gather(1, places) + totals.gather(1, rows)
    sums, order = sums.topk(min(k, sums.size(1)))
    rows, tokens = rows.gather(1, order), places.gather(1, order) % size
    return sums, rows + (first + width * torch.arange(count, device=device).unsqueeze(1)), tokens


def block_repeats(scores: Tensor, history: Tensor, n: int) -> None:
    """Take out of scores (N, V) the tokens that would end a sequence of n that history (N, t) has, in place."""
    if history.size(1) < n:
        return
    windows = history.unfold(1, n, 1)  # (N, t - n + 1, n)
    last = history[:, history.size(1) - n + 1 :].unsqueeze(1)  # (N, 1, n - 1): what would begin the sequence
    row, place = (windows[..., :-1] == last).all(-1).nonzero(as_tuple=True)
    scores[row, windows[row, place, -1]] = -math.inf


def leave_only(scores: Tensor, tokens: Tensor, own: Tensor) -> None:
    """Leave in row n of scores (N, V) token n of (N,) alone, with the score `own` (N,); rows of -1 stay. In place."""
    rows = (tokens >= 0).nonzero().squeeze(1)
    scores.index_fill_(0, rows, -math.inf)
    scores[rows, tokens[rows]] = own[rows]
