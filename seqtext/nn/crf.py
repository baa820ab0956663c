"""Linear-chain conditional random field (Lafferty, McCallum & Pereira 2001).

The score of labels y for a sentence with logits x is start[y_1] + sum_t x[t, y_t] + sum_t transitions[y_t, y_t+1] +
end[y_n]; its probability is exp(score - log-partition). The sums are in `crf_sum`, the searches in `crf_decode`;
`crf_scan` does on a GPU what these do one position after another.

Shapes: B batch, T time, C labels, N spans. Padding trails and holds any values; it changes nothing. Everything is
computed in float64, whatever the logits. Scores and log-partitions come back so, because what counts is the small
difference of two large ones; losses and probabilities in the logits' type (float32 for half-precision logits). An
empty sentence has one path, of score 0. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from seqtext.nn import crf_decode, crf_sum, graphs
from seqtext.nn.crf_sum import Potentials

Allowed = Tensor | Sequence[bool] | Sequence[Sequence[bool]]


class CRF(nn.Module):
    """Scores, probabilities and best paths of label sequences.

    Logits are exact up to differences of several hundred nats between the labels of a position (see `crf_sum`).
    """

    start: nn.Parameter
    transitions: nn.Parameter
    end: nn.Parameter
    start_allowed: Tensor
    transitions_allowed: Tensor
    end_allowed: Tensor

    def __init__(
        self,
        num_labels: int,
        *,
        start_allowed: Allowed | None = None,
        transitions_allowed: Allowed | None = None,
        end_allowed: Allowed | None = None,
    ) -> None:
        """`start_allowed` (C,), `end_allowed` (C,), `transitions_allowed` (C,C): [i][j] says that j may follow i.

        What is not allowed has probability 0 and gets no gradient. All is allowed where `None`. Raises `ValueError` for
        a mask of the wrong shape, or one that allows nothing.
        """
        super().__init__()
        self.num_labels = num_labels
        masks = {
            "start": (start_allowed, (num_labels,)),
            "transitions": (transitions_allowed, (num_labels, num_labels)),
            "end": (end_allowed, (num_labels,)),
        }
        for name, (given, shape) in masks.items():
            allowed = torch.ones(shape, dtype=torch.bool) if given is None else torch.as_tensor(given, dtype=torch.bool)
            if allowed.shape != shape:
                raise ValueError(
                    f"{name}_allowed: shape {tuple(allowed.shape)}, expected {shape} for {num_labels} labels"
                )
            if not allowed.any():
                raise ValueError(f"{name}_allowed: nothing is allowed; at least one entry must be True")
            self.register_parameter(name, nn.Parameter(torch.empty(shape).uniform_(-0.1, 0.1)))
            self.register_buffer(f"{name}_allowed", allowed, persistent=False)

    def extra_repr(self) -> str:
        return f"num_labels={self.num_labels}"

    def log_partition(self, logits: Tensor, lengths: Tensor) -> Tensor:
        """(B,) float64 log of the sum over all label sequences of exp(score).

        `logits` (B,T,C), `lengths` (B,) int64, here as in all methods. -inf where the constraints allow no sequence.
        """
        return self._log_partition(self._potentials(logits, lengths))

    def score(self, logits: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
        """(B,) float64 score of `labels` (B,T) int64; -inf where they break a constraint."""
        return crf_sum.score(self._potentials(logits, lengths), _with_a_step(labels))

    def nll(self, logits: Tensor, labels: Tensor, lengths: Tensor) -> Tensor:
        """(B,) negative log-likelihood of `labels` (B,T) int64, in nats; inf where they break a constraint."""
        if graphs.wanted(logits):
            (found,) = self._recorded(self._losses, logits, lengths, labels)
        else:
            (found,) = self._losses(logits, lengths, labels)
        return _narrow(found, logits)

    @torch.no_grad()
    def viterbi(self, logits: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The best path: scores (B,) float64 and labels (B,T) int64, -1 in the padding.

        Of equal paths, the one with the smallest label at the first position where they differ.
        """
        if crf_decode.arrays_wanted(logits):
            self._check(logits, lengths)
            number = logits if logits.dtype in (torch.float32, torch.float64) else logits.float()
            given = (_with_a_step(number).detach(), *self.constrained(), lengths)
            found = crf_decode.viterbi_arrays(*(each.numpy() for each in given))
            scores, paths = map(torch.from_numpy, found)
        elif graphs.wanted(logits):
            scores, paths = self._recorded(self._best, logits, lengths)
        else:
            scores, paths = self._best(logits, lengths)
        return scores, paths[:, : logits.size(1)]

    @torch.no_grad()
    def kbest(self, logits: Tensor, lengths: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The k best paths, best first: scores (B,k) float64 and labels (B,k,T) int64, -1 in the padding.

        Where fewer than k paths exist, the rest have score -inf and hold -1. The probability of a path is
        exp(score - log-partition). Raises `ValueError` for k < 1.
        """
        if k < 1:
            raise ValueError(f"k: {k}, expected at least 1")
        scores, paths = crf_decode.kbest(self._potentials(logits, lengths), k)
        return scores, paths[:, :, : logits.size(1)]

    @torch.no_grad()
    def marginals(self, logits: Tensor, lengths: Tensor) -> Tensor:
        """(B,T,C) probability of each label at each position, by forward-backward; 0 in the padding."""
        return _narrow(crf_sum.marginals(self._potentials(logits, lengths))[:, : logits.size(1)], logits)

    @torch.no_grad()
    def span_probabilities(
        self,
        logits: Tensor,
        lengths: Tensor,
        paths: Tensor,
        rows: Tensor,
        starts: Tensor,
        ends: Tensor,
        continues: Tensor,
    ) -> Tensor:
        """(N,) marginal probability that exactly this span occurs, with these labels, whatever lies around it.

        `paths` (B,T) int64 holds the labels; span n is `paths[rows[n], starts[n]:ends[n]]` (each (N,) int64, end
        exclusive, not empty, inside the sentence). `continues` (C,C) bool: [i][j] says that label j right after label
        i is still inside i's span; so the label before a span must not be continued by the span's first, nor the
        span's last by the label after (Culotta & McCallum 2004, "Confidence Estimation for Information Extraction":
        constrained forward-backward).
        """
        p = self._potentials(logits, lengths)
        device = p.logits.device
        rows, starts, ends = rows.to(device), starts.to(device), ends.to(device)
        paths, continues = _with_a_step(paths).to(device).clamp(min=0), continues.to(device)
        m = crf_sum.forward_backward(p)
        first, last = paths[rows, starts], paths[rows, ends - 1]  # (N,)
        length = p.lengths[rows]

        # Before the span: every way to reach its first label from a label that the first does not continue.
        at = (length - starts).clamp(max=p.logits.size(1) - 1)  # position start - 1, counted from the sentence's end
        before = m.alpha[at, rows].log() + p.transitions.T[first]  # (N,C)
        before = before.masked_fill(continues.T[first], -torch.inf).logsumexp(-1) + m.alpha_scale[at, rows]
        before = torch.where(starts > 0, before, p.start[first])
        # After it: every way on to a label that does not continue its last.
        at = (length - 1 - ends).clamp(min=0)  # position end, likewise
        after = m.beta[at, rows].log() + p.transitions[last]
        after = after.masked_fill(continues[last], -torch.inf).logsumexp(-1) + m.beta_scale[at, rows]
        after = torch.where(ends < length, after, p.end[last])

        # Inside: differences of cumulative sums along the path, a step being from t-1 to t.
        inside = crf_sum.padded_logits(p).gather(2, paths[:, :, None]).squeeze(-1)  # (B,T)
        steps = nn.functional.pad(p.transitions[paths[:, :-1], paths[:, 1:]], (1, 0))
        forbidden = steps.isinf()  # counted apart: -inf would spoil every later difference
        total = (inside + steps.masked_fill(forbidden, 0.0)).cumsum(-1)
        broken = forbidden.cumsum(-1)
        within = total[rows, ends - 1] - total[rows, starts] + inside[rows, starts]
        within = within.masked_fill(broken[rows, ends - 1] > broken[rows, starts], -torch.inf)
        return _narrow((before + within + after - m.log_partition[rows]).exp().clamp(max=1.0), logits)

    def _losses(self, logits: Tensor, lengths: Tensor, labels: Tensor) -> list[Tensor]:
        return [self._log_partition(self._potentials(logits, lengths), _with_a_step(labels))]

    def _best(self, logits: Tensor, lengths: Tensor) -> list[Tensor]:
        return list(crf_decode.viterbi(self._potentials(logits, lengths)))

    def _recorded(self, body: graphs.Body, logits: Tensor, lengths: Tensor, *labels: Tensor) -> list[Tensor]:
        """`body` by a recording; sentences that fill it up are empty."""
        self._check(logits, lengths)
        lengths = lengths.to(logits.device, non_blocking=True)
        rows, time = map(graphs.room, logits.shape[:2])
        shapes = [(rows, time, logits.size(2)), (rows,), *((rows, time) for _ in labels)]
        return [each[: len(logits)] for each in graphs.run(self, body, (logits, lengths, *labels), shapes)]

    def _check(self, logits: Tensor, lengths: Tensor) -> None:
        if logits.dim() != 3 or logits.size(-1) != self.num_labels:
            raise ValueError(f"logits: shape {tuple(logits.shape)}, expected (batch, time, {self.num_labels})")
        if lengths.shape != logits.shape[:1]:
            raise ValueError(f"lengths: shape {tuple(lengths.shape)}, expected ({logits.size(0)},)")
        # Only where it costs no wait for the device.
        if lengths.device.type == "cpu" and lengths.numel() and int(lengths.max()) > logits.size(1):
            raise ValueError(f"lengths: {int(lengths.max())} is more than the {logits.size(1)} steps of the logits")

    def _potentials(self, logits: Tensor, lengths: Tensor) -> Potentials:
        self._check(logits, lengths)
        start, transitions, end = self.constrained()
        lengths = lengths.to(logits.device, non_blocking=True)
        return Potentials(logits=_with_a_step(logits), start=start, transitions=transitions, end=end, lengths=lengths)

    def constrained(self) -> tuple[Tensor, Tensor, Tensor]:
        """Scores of starts (C,), transitions (C,C) and ends (C,), float64, -inf where something is not allowed."""
        weights = (
            (self.start, self.start_allowed),
            (self.transitions, self.transitions_allowed),
            (self.end, self.end_allowed),
        )
        start, transitions, end = (torch.where(allowed, weight.double(), -torch.inf) for weight, allowed in weights)
        return start, transitions, end

    @staticmethod
    def _log_partition(p: Potentials, labels: Tensor | None = None) -> Tensor:
        """Log-partition, less the score of `labels` where these are given."""
        if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in p):
            total: Tensor = crf_sum.LogPartition.apply(*p, labels)
            return total
        total = crf_sum.log_partition_only(p)
        return total if labels is None else total - crf_sum.score(p, labels)


def _with_a_step(batch: Tensor) -> Tensor:
    """A batch (B,T,...) as it is or, where T is 0 because all its sentences are empty, with one step of padding."""
    return batch if batch.size(1) else batch.new_zeros(batch.size(0), 1, *batch.shape[2:])


def _narrow(result: Tensor, logits: Tensor) -> Tensor:
    """A loss or probability in the type of the logits, but no narrower than float32."""
    return result.to(torch.promote_types(logits.dtype, torch.float32))
