"""Max-product over a linear chain: the best path (Viterbi 1967) and the k best (Forney 1973; Huang & Chiang 2005).

The recursion runs from each sentence's end to its start; the path is then read off from the start. On a CPU
`viterbi_arrays` does it; elsewhere the recursion goes over the sentence reversed within its own length, so that padding
trails and no step needs a mask, and on a GPU both loops of `viterbi` are scans (`crf_scan`), but for sentences too
short or too long for one. Ties go to the smallest label at the first position where the best paths differ.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from seqtext.nn import crf_scan
from seqtext.nn.crf_sum import Potentials, padding_mask, reversal

Array = np.ndarray[Any, np.dtype[Any]]

NO_LABEL = -1
"""What a path holds in the padding."""


def _reversed_logits(p: Potentials) -> tuple[Tensor, Tensor]:
    """Logits (T,B,C) with each sentence reversed, and the flat index (T*B,) that undoes it.

    What stands in the padding is never read: it trails, and a sentence's steps see nothing of another.
    """
    batch, time, labels = p.logits.shape
    flip = reversal(p.lengths, time)  # (T,B)
    row = torch.arange(batch, device=flip.device)
    logits = p.logits.reshape(-1, labels).index_select(0, (flip + row * time).view(-1)).view(time, batch, labels)
    return logits, (flip * batch + row).view(-1)


def viterbi(p: Potentials) -> tuple[Tensor, Tensor]:
    """Scores (B,) and paths (B,T) int64 of the best path; a score is -inf where no path is allowed."""
    batch, time, labels = p.logits.shape
    logits, restore = _reversed_logits(p)
    scan = crf_scan.wanted(logits)
    # The best score of a path from each position and label to the sentence's end.
    best = (crf_scan.best_scores if scan else _best_scores)(logits, p.end, p.transitions.T)  # float64, as the weights
    best = best.view(-1, labels).index_select(0, restore).view(time, batch, labels)
    scores = (best[0] + p.start).amax(-1)
    paths = (crf_scan.best_labels if scan else _best_labels)(best, p.start, p.transitions)
    paths = paths.masked_fill(~padding_mask(p.lengths, time), NO_LABEL)
    return torch.where(p.lengths > 0, scores, 0.0), paths


def _best_scores(logits: Tensor, first: Tensor, transitions: Tensor) -> Tensor:
    """(T,B,C) best score of a path to each label of each position; see `crf_scan.best_scores`."""
    best = logits.double()
    best[0] += first
    for previous, current in zip(best[:-1].unbind(), best[1:].unbind(), strict=True):
        current += (previous[:, :, None] + transitions).amax(1)
    return best


def _best_labels(best: Tensor, start: Tensor, transitions: Tensor) -> Tensor:
    """(B,T) int64 labels of the best path; see `crf_scan.best_labels`.

    Keeping no back-pointers and finding the argmax again along the one path that matters is the cheaper way.
    """
    time, batch, _ = best.shape
    paths = torch.empty(time, batch, dtype=torch.int64, device=best.device)
    reached = start.repeat(batch, 1)  # (B, C)
    before = None
    for ahead, path in zip(best.unbind(), paths.unbind(), strict=True):
        if before is not None:
            torch.index_select(transitions, 0, before, out=reached)
        torch.argmax(reached.add_(ahead), -1, out=path)
        before = path
    return paths.T


def arrays_wanted(logits: Tensor) -> bool:
    """Whether `viterbi_arrays` is for these."""
    return logits.device.type == "cpu"


def viterbi_arrays(logits: Array, start: Array, transitions: Array, end: Array, lengths: Array) -> tuple[Array, Array]:
    """`viterbi` on a CPU, of arrays: numpy calls a small operation in a third of the time that torch does.

    `logits` (B,T,C) of any floating type, the weights float64 and -inf where something is not allowed.
    """
    batch, time, labels = logits.shape
    # Becomes, in place, the best score of a path from each position and label to the sentence's end. Sentences come
    # last, so that sum and maximum over labels run along whole rows: a third of the time. Only the sum is torch's, of
    # which numpy takes twice as long.
    best = np.empty((time, labels, batch))
    best[:] = logits.transpose(1, 2, 0)
    onward = torch.from_numpy(transitions).T.unsqueeze(2).contiguous()  # (from, to, 1)
    joined, reached, last = onward.new_empty(labels, labels, batch), np.empty((labels, batch)), end[:, None]
    sums, step = joined.numpy(), np.arange(time)[:, None]
    ends, closing = step == lengths - 1, set(lengths.tolist())
    best[-1] += last
    for t, ahead in zip(range(time - 2, -1, -1), reversed(torch.from_numpy(best)[1:, :, None].unbind()), strict=True):
        torch.add(ahead, onward, out=joined)  # (from, to, B)
        np.maximum.reduce(sums, axis=0, out=reached)
        if t + 1 in closing:  # what was found in a sentence's padding counts for nothing
            np.copyto(reached, last, where=ends[t])
        best[t] += reached
    scores_of = np.ascontiguousarray(best.transpose(0, 2, 1))  # (T,B,C)
    scores = np.where(lengths > 0, (scores_of[0] + start).max(-1), 0.0)

    paths, before = np.empty((time, batch), np.int64), None
    total = np.repeat(start[None], batch, axis=0)  # (B,C)
    for scored, path in zip(scores_of, paths, strict=True):
        if before is not None:
            transitions.take(before, axis=0, out=total, mode="clip")
        total += scored
        total.argmax(-1, out=path)
        before = path
    paths[step >= lengths] = NO_LABEL
    return scores, paths.T


def kbest(p: Potentials, k: int) -> tuple[Tensor, Tensor]:
    """Scores (B,k), best first, and paths (B,k,T); beyond the last allowed path: score -inf, path all `NO_LABEL`.

    Paths of equal score come in an order of torch's choosing.
    """
    batch, time, labels = p.logits.shape
    logits, restore = _reversed_logits(p)
    logits = logits.double()
    # best[r, b, c]: scores, best first, of the k best paths from this position, with label c, to the sentence's end.
    best = logits.new_full((time, batch, labels, k), -torch.inf)
    # Where such a path goes next: label * k + rank at the next position.
    pointer = torch.zeros(time, batch, labels, k, dtype=torch.int64, device=logits.device)
    best[0, :, :, 0] = logits[0] + p.end
    for r in range(1, time):
        joined = p.transitions[:, :, None] + best[r - 1, :, None]  # (B, from, to, k)
        torch.topk(joined.view(batch, labels, labels * k), k, out=(best[r], pointer[r]))
        best[r] += logits[r, :, :, None]

    last = (p.lengths - 1).clamp(min=0)  # a sentence's start is the last step of its reversal
    whole = best[last, torch.arange(batch, device=last.device)] + p.start[:, None]  # (B,C,k)
    scores, state = whole.view(batch, labels * k).topk(k)
    pointer = pointer.view(time * batch, labels * k).index_select(0, restore).view(time, batch, labels * k)
    paths = state.new_empty(batch, k, time)
    for t in range(time):
        paths[:, :, t] = state // k
        state = pointer[t].gather(1, state)

    empty = (p.lengths == 0)[:, None]
    first = torch.arange(k, device=scores.device) == 0
    scores = torch.where(empty, torch.where(first, 0.0, -torch.inf), scores)
    real = padding_mask(p.lengths, time)[:, None] & (scores > -torch.inf)[:, :, None]
    return scores, paths.masked_fill_(~real, NO_LABEL)
