"""Sum-product over a linear chain: log-partition, its gradient and the messages behind marginals.

Forward-backward with a scale for every step (Rabiner 1989, "A Tutorial on Hidden Markov Models", section V-A, equations
91-97), applied to the chain of Lafferty, McCallum & Pereira 2001. Probabilities are kept, not their logarithms, so that
a step is one small matrix product. All of it runs in float64.

Both directions run in one loop, as a batch of two: the second direction reads each sentence reversed *within its own
length*, so that padding trails in both and no step needs a mask. What a step computes beyond a sentence's end is
finite and is never read. On a GPU that loop is a scan (`crf_scan`).

Range: exact while the prefixes and suffixes that matter lie within 700 nats of the best one of their position. That is
so whatever the data when logits and transitions together spread over less than 700 nats at a position, or over less
than 350 where constraints make a label reachable from another only by way of a third, as in BIOES. Logits further than
`FLOOR` below the best of their position count as that far below, which keeps sums finite outside that range.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from seqtext.nn import crf_scan
from seqtext.nn.scripted import scripted

FLOOR = 600.0
"""Nats below the best logit of a position where a logit's factor stops shrinking: exp(-600) is a normal float64."""


def padding_mask(lengths: Tensor, time: int) -> Tensor:
    """(B,T) bool, True = real token; `lengths` (B,) on the device wanted."""
    return torch.arange(time, device=lengths.device) < lengths[:, None]


def reversal(lengths: Tensor, time: int) -> Tensor:
    """(T,B) positions that reverse each sentence within its own length; padding stays. It is its own inverse."""
    step = torch.arange(time, device=lengths.device)[:, None]
    return torch.where(step < lengths, lengths - 1 - step, step)


class Potentials(NamedTuple):
    """The chain's log-potentials: the weights in float64, -inf where forbidden."""

    logits: Tensor
    """(B,T,C) of any floating type, with any values in the padding."""
    start: Tensor
    """(C,)"""
    transitions: Tensor
    """(C,C), from row to column."""
    end: Tensor
    """(C,)"""
    lengths: Tensor
    """(B,) on the device of the logits."""


class Messages(NamedTuple):
    """What forward-backward leaves: scaled probabilities, with the log of what was taken out.

    Time runs *backwards* within each sentence in all of the (T,...) fields.
    """

    log_partition: Tensor
    """(B,) -inf where a sentence has no allowed path; 0 for an empty sentence."""
    alpha: Tensor
    """(T,B,C) forward probabilities, position t's logit included, each row summing to 1."""
    beta: Tensor
    """(T,B,C) backward probabilities, position t's logit included, each row summing to 1."""
    alpha_scale: Tensor
    """(T,B) logs: true alpha = alpha * exp(alpha_scale)."""
    beta_scale: Tensor
    """(T,B) logs, of beta."""


def padded_logits(p: Potentials) -> Tensor:
    """(B,T,C) a float64 copy of the logits, 0 in the padding."""
    logits = p.logits.to(torch.float64, copy=True, memory_format=torch.contiguous_format)
    return logits.masked_fill_(~padding_mask(p.lengths, logits.size(1))[:, :, None], 0.0)


def _factors(p: Potentials) -> tuple[Tensor, Tensor]:
    """Each position's exp(logit - best) (B,T,C), from exp(-FLOOR) to 1, and best (B,T,1); 1 and 0 in the padding."""
    logits = padded_logits(p)
    best = logits.amax(-1, keepdim=True)
    return logits.sub_(best).clamp_(min=-FLOOR).exp_(), best


def _recursion(factors: Tensor, first: Tensor, transitions: Tensor) -> tuple[Tensor, Tensor]:
    """Run S chains of matrix products side by side; `factors` (T,S,B,C), `first` (S,1,C), `transitions` (S,C,C).

    Returns states (T,S,B,C), each row summing to 1, and the logs (T,S,B) of all that was taken out of them up to there.
    May do so *in the memory of the factors*.
    """
    if crf_scan.wanted(factors):
        return crf_scan.recursion(factors, first, transitions)
    scales = factors.new_empty(*factors.shape[:3], 1)
    factors[0].mul_(first)
    _steps(factors, scales, transitions)
    # A dead end among the constraints gives 0/0 beyond a sentence's end, or within one that has no allowed path.
    factors.nan_to_num_(0.0)
    return factors, scales.nan_to_num_(0.0).squeeze(-1).log_().cumsum_(0)


@scripted
def _steps(factors: Tensor, scales: Tensor, transitions: Tensor) -> None:
    """Make states of the factors (T,S,B,C), in their place, and write what each is divided by to scales (T,S,B,1)."""
    states, sums = factors.unbind(), scales.unbind()
    message = torch.empty_like(states[0])
    for t, state in enumerate(states):
        if t > 0:
            torch.bmm(states[t - 1], transitions, out=message)
            state.mul_(message)
        torch.sum(state, [-1], keepdim=True, out=sums[t])
        state.div_(sums[t])


def _exp(weights: Tensor) -> tuple[Tensor, Tensor]:
    """exp(weights - best), and best ()."""
    best = weights.amax()
    return (weights - best).exp(), best


def log_partition_only(p: Potentials) -> Tensor:
    """(B,) by the forward recursion alone: for use without gradients."""
    factors, best = _factors(p)
    (start, start_best), (end, end_best), (transitions, transition_best) = map(_exp, (p.start, p.end, p.transitions))
    factors = factors.transpose(0, 1).unsqueeze(1).contiguous()  # (T,1,B,C)
    states, scales = _recursion(factors, start[None, None], transitions[None])
    last = (p.lengths - 1).clamp(min=0)
    row = torch.arange(last.size(0), device=last.device)
    taken = scales[last, 0, row] + best.sum((1, 2))  # (B,)
    total = (states[last, 0, row] @ end).log() + taken + start_best + end_best + last * transition_best
    return torch.where(p.lengths > 0, total, 0.0)


def forward_backward(p: Potentials) -> Messages:
    """Both recursions in one loop over time."""
    batch, time, labels = p.logits.shape
    factors, best = _factors(p)
    (start, start_best), (end, end_best), (transitions, transition_best) = map(_exp, (p.start, p.end, p.transitions))

    # One gather makes the batch time-major, with each sentence beside its reversal: (B*T,C) -> (T,2,B,C).
    flip = reversal(p.lengths, time)  # (T,B)
    step, row = torch.arange(time, device=flip.device)[:, None], torch.arange(batch, device=flip.device)
    source = torch.stack((step + row * time, flip + row * time), 1)
    factors = factors.view(-1, labels).index_select(0, source.view(-1)).view(time, 2, batch, labels)
    ends, both_ways = torch.stack((start, end))[:, None], torch.stack((transitions, transitions.T))
    states, scales = _recursion(factors, ends, both_ways)
    alpha = states.view(-1, labels).index_select(0, (flip * 2 * batch + row).view(-1)).view(time, batch, labels)

    # What was taken out of a state: each position's best logit, the best transition once a step, and the scales.
    taken = best.view(-1)[source]  # (T,2,B)
    taken[0] += torch.stack((start_best, end_best))[:, None]
    taken[1:] += transition_best
    taken = taken.cumsum_(0).add_(scales)
    alpha_scale = taken[:, 0].gather(0, flip)
    total = (alpha[0] @ end).log() + alpha_scale[0] + end_best
    return Messages(torch.where(p.lengths > 0, total, 0.0), alpha, states[:, 1], alpha_scale, taken[:, 1])


def score(p: Potentials, labels: Tensor) -> Tensor:
    """(B,) score of `labels` (B,T), which may hold anything in the padding."""
    real = padding_mask(p.lengths, labels.size(1))
    labels = labels.masked_fill(~real, 0)
    chosen = p.logits.gather(2, labels[:, :, None]).squeeze(-1).double()
    chosen = torch.where(real, chosen, 0.0).sum(-1)
    steps = p.transitions[labels[:, :-1], labels[:, 1:]]
    steps = torch.where(real[:, 1:], steps, 0.0).sum(-1)
    last = labels.gather(1, (p.lengths - 1).clamp(min=0)[:, None]).squeeze(1)
    return torch.where(p.lengths > 0, p.start[labels[:, 0]] + chosen + steps + p.end[last], 0.0)


def _posterior(alpha: Tensor, beta: Tensor, transitions: Tensor, end: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Marginals (T,B,C), in the messages' order of time, and 1 / sum(alpha * message) (T,B,1); 0 in the padding.

    The message to a position is the next one's beta taken back over the transition; `transitions` and `end` are
    probabilities.
    """
    product = torch.empty_like(alpha)
    product[0] = end
    torch.matmul(beta[:-1], transitions.T, out=product[1:])
    product.mul_(alpha)
    norm = product.sum(-1, keepdim=True)
    # A smaller sum has an infinite reciprocal, and is nothing but what range left of a position out of range.
    real = padding_mask(lengths, alpha.size(0)).T[:, :, None] & (norm >= torch.finfo(norm.dtype).tiny)
    norm = torch.where(real, norm.reciprocal_(), 0.0)
    return product.mul_(norm), norm


def _restore(reversed_: Tensor, flip: Tensor) -> Tensor:
    """(T,B,C) with time reversed within each sentence -> (B,T,C)."""
    time, batch, labels = reversed_.shape
    source = (flip * batch + torch.arange(batch, device=flip.device)).T.reshape(-1)
    return reversed_.view(-1, labels).index_select(0, source).view(batch, time, labels)


def marginals(p: Potentials) -> Tensor:
    """(B,T,C) probability of each label at each position; 0 in the padding."""
    messages = forward_backward(p)
    posterior, _ = _posterior(messages.alpha, messages.beta, _exp(p.transitions)[0], _exp(p.end)[0], p.lengths)
    return _restore(posterior, reversal(p.lengths, posterior.size(0)))


class LogPartition(torch.autograd.Function):
    """Log-partition (B,), less the score of `labels` (B,T) where these are given.

    Its gradient is the expected counts, less the observed, from messages that the forward pass keeps.
    """

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        start: Tensor,
        transitions: Tensor,
        end: Tensor,
        lengths: Tensor,
        labels: Tensor | None,
    ) -> Tensor:
        p = Potentials(logits, start, transitions, end, lengths)
        messages = forward_backward(p)
        ctx.save_for_backward(messages.alpha, messages.beta, transitions, end, lengths, labels)
        ctx.logits_type = logits.dtype
        return messages.log_partition if labels is None else messages.log_partition - score(p, labels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        alpha, beta, transitions, end, lengths, labels = ctx.saved_tensors
        time, batch, size = alpha.shape
        transitions, _ = _exp(transitions)
        counts, norm = _posterior(alpha, beta, transitions, _exp(end)[0], lengths)
        counts *= grad[:, None]
        # Expected transitions: a sum over sentences and steps of alpha_t x beta_{t+1}, so one matrix product.
        weighted = (alpha[1:] * (norm[1:] * grad[:, None])).view(-1, size)  # ((T-1)*B,C)
        pairs = (weighted.T @ beta[:-1].reshape(-1, size)).mul_(transitions)

        flip = reversal(lengths, time)
        if labels is not None:
            real = padding_mask(lengths, time).T  # (T,B)
            labels = labels.T.gather(0, flip).masked_fill_(~real, 0)
            observed = torch.where(real, -grad, 0.0)
            counts.scatter_add_(2, labels[:, :, None], observed[:, :, None])
            steps = labels[1:] * size + labels[:-1]  # time runs backwards
            pairs.view(-1).scatter_add_(0, steps.view(-1), observed[1:].reshape(-1))
        first = counts.gather(0, (lengths - 1).clamp(min=0)[None, :, None].expand(1, batch, size))
        logits = _restore(counts.to(ctx.logits_type), flip)
        return logits, first.sum((0, 1)), pairs, counts[0].sum(0), None, None
