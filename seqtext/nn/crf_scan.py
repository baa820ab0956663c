"""The recursions of a linear chain in a number of rounds that grows with the logarithm of T, for a GPU.

One step after another, `crf_sum` and `crf_decode` start some small operations for every position, and a GPU spends its
time on starting them. But a step is a matrix (C,C), or a map from label to label, and steps in a row are their product:
products of neighbours, then of neighbouring products and so on (up), then the state before each product's second half
from the state before its first (down) give all T states in about 2 log2(T) rounds of a few operations each. This is the
prefix sum of Blelloch 1990, "Prefix sums and their applications"; for Bayesian smoothing it is that of Särkkä &
García-Fernández 2021, "Temporal parallelization of Bayesian smoothers", and for forward-backward and Viterbi that of
Hassan, Särkkä & García-Fernández 2021, "Temporal parallelization of inference in hidden Markov models". Products cost C
times the work of steps, so a CPU is better off without.

A state depends on the steps before it alone. So what stands beyond a sentence's end or fills T up to a power of 2 may
be anything and needs no mask, as in the recursions one step after another.

Range: each row of a product, the ways on from one label, has its own scale. A part of a prefix that matters is then
within 700 nats of the best way on from the label where the part begins, if the whole prefix is within 700 nats of the
best of its position; so what `crf_sum` promises of its range holds here too.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SHORTEST = 16
"""Positions from which a scan has fewer operations than the steps one after another."""
MOST_ENTRIES = 2**25
"""Of the largest tensor that a scan makes: 256 MB in float64."""
LEAST = -1e30
"""The log of no probability where a -inf would make differences nan: whatever stands beside it, it vanishes."""

Steps = tuple[Tensor, ...]
"""N * n steps, or products of steps: n to each of N chains, a chain's in a row. Each tensor (N*n,...)."""


def wanted(values: Tensor) -> bool:
    """Whether a scan is the better way through `values` (T,...,C): on a GPU, not too short, not too large."""
    return values.device.type != "cpu" and len(values) >= SHORTEST and _matrix_entries(values) <= MOST_ENTRIES


def _steps(time: int) -> int:
    """The power of 2, at least 2, that `time` is filled up to."""
    return 2 ** max(1, (time - 1).bit_length())


def _matrix_entries(values: Tensor) -> int:
    return values[0].numel() * values.size(-1) * _steps(len(values))


def _targets(values: Tensor, fill: float) -> Tensor:
    """(T,...,C) -> (...,n,C): for each step the values where it leads, so from the second position on; then `fill`."""
    targets = values.new_full((*values.shape[1:-1], _steps(len(values)), values.size(-1)), fill)
    targets[..., : len(values) - 1, :] = values[1:].movedim(0, -2)
    return targets


def _scan(
    first: Tensor, steps: Steps, join: Callable[[Steps, Steps], Steps], advance: Callable[[Tensor, Steps], Tensor]
) -> Tensor:
    """The state before each step (N*n,...), from that before the first of each chain (N,...).

    `join` makes one step of two in a row, `advance` takes a state over a step.
    """
    levels = [_halves(steps)]
    while len(levels[-1][0][0]) > len(first):
        levels.append(_halves(join(*levels[-1])))
    states = first
    for left, _ in reversed(levels):
        states = torch.stack((states, advance(states, left)), 1).flatten(0, 1)
    return states


def _halves(steps: Steps) -> tuple[Steps, Steps]:
    """The first and the second of each two in a row, as views."""
    pairs = [tensor.view(len(tensor) // 2, 2, *tensor.shape[1:]) for tensor in steps]
    return tuple(pair[:, 0] for pair in pairs), tuple(pair[:, 1] for pair in pairs)


def _join_sums(left: Steps, right: Steps) -> Steps:
    """Steps are (matrices (M,C,C), logs (M,1,C) of what was taken out of their rows); each row's sum is at least 1."""
    (before, before_scale), (after, after_scale) = left, right
    weights = before.log().add_(after_scale)
    most = weights.amax(-1, keepdim=True)  # (M,C,1)
    return torch.bmm(weights.sub_(most).exp_(), after), before_scale + most.mT


def _advance_sums(states: Tensor, left: Steps) -> Tensor:
    """States (M,1,C) are logs of probabilities."""
    matrices, scale = left
    weights = states + scale
    most = weights.amax(-1, keepdim=True)
    return torch.bmm(weights.sub_(most).exp_(), matrices).log_().add_(most)


def recursion(factors: Tensor, first: Tensor, transitions: Tensor) -> tuple[Tensor, Tensor]:
    """What `crf_sum` computes step after step: `factors` (T,S,B,C), `first` (S,1,C), `transitions` (S,C,C).

    Returns states (T,S,B,C), each row summing to 1, and log scales (T,S,B); 0 and -inf from a dead end on.
    """
    targets = _targets(factors, 1.0)  # (S,B,n,C)
    # A label that leads nowhere has a row of ones whose scale says that it counts for nothing: so no row is empty.
    matrices = transitions.log().clamp_(min=LEAST)[:, None, None] + targets.log()[..., None, :]  # (S,B,n,C,C)
    scale = matrices.amax(-1, keepdim=True)
    matrices.sub_(scale).exp_()
    start = (factors[0] * first).log_()  # (S,B,C)
    # The scales go with the states. To find them afterwards, as what a step leaves of the state before it, would not
    # do: that state can have lost, as too small, what the next has from further back.
    steps = (matrices.flatten(0, 2), scale.mT.flatten(0, 2))
    states = _scan(start.flatten(0, 1).unsqueeze(1), steps, _join_sums, _advance_sums).view_as(targets)
    states = states[:, :, : len(factors)].permute(2, 0, 1, 3).contiguous()  # (T,S,B,C)
    scales = states.logsumexp(-1)
    dead = (scales > LEAST / 2).logical_not_()  # so is a nan
    return states.softmax(-1).masked_fill_(dead[..., None], 0.0), scales.masked_fill_(dead, -torch.inf)


def _join_maxima(left: Steps, right: Steps) -> Steps:
    """Steps are matrices (M,C,C) of scores."""
    (before,), (after,) = left, right
    joined = torch.empty_like(before, memory_format=torch.contiguous_format)
    rows = max(1, MOST_ENTRIES // before.size(-1) ** 3)
    for a, b, out in zip(before.split(rows), after.split(rows), joined.split(rows), strict=True):
        torch.amax(a[:, :, :, None] + b[:, None], 2, out=out)  # (rows, from, by way of, to)
    return (joined,)


def _advance_maxima(states: Tensor, left: Steps) -> Tensor:
    """States (M,C) are scores."""
    return (states[:, :, None] + left[0]).amax(1)


def best_scores(logits: Tensor, first: Tensor, transitions: Tensor) -> Tensor:
    """(T,B,C) best score of a path to each label of each position.

    `logits` (T,B,C), `first` (C,) scores of the labels of the first position, `transitions` (C,C) from row to column.
    """
    targets = _targets(logits, 0.0)  # (B,n,C)
    steps = (transitions + targets[:, :, None]).flatten(0, 1)
    best = _scan(logits[0] + first, (steps,), _join_maxima, _advance_maxima).view_as(targets)
    return best[:, : len(logits)].transpose(0, 1).contiguous()


def _join_maps(left: Steps, right: Steps) -> Steps:
    """Steps are maps (M,C): [c] is where c leads."""
    return (right[0].gather(1, left[0]),)


def _advance_maps(states: Tensor, left: Steps) -> Tensor:
    """States (M,1) are labels."""
    return left[0].gather(1, states)


def best_labels(best: Tensor, start: Tensor, transitions: Tensor) -> Tensor:
    """(B,T) int64 labels of the best path, of equals the smallest, given `best` (T,B,C) scores from there to the end.

    `start` (C,), `transitions` (C,C). What follows each label is found for all labels at once.
    """
    targets = _targets(best, 0.0)  # (B,n,C)
    maps = (transitions + targets[:, :, None]).argmax(-1)  # (B,n,C)
    first = (best[0] + start).argmax(-1, keepdim=True)  # (B,1)
    labels = _scan(first, (maps.flatten(0, 1),), _join_maps, _advance_maps)
    return labels.view(maps.shape[:2])[:, : len(best)]
