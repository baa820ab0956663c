"""A constituency parser without labels: a score for each span, from differences of BiLSTM states, and exact search.

After Stern, Andreas & Klein 2017, "A Minimal Span-Based Neural Constituency Parser". The sentence stands between two
learned vectors, <s> and </s>; at the fencepost before word i, f_i is the forward state of what precedes it and b_i the
backward state of what follows (features after Wang & Chang 2016 and Cross & Huang 2016):

    score(i, j) = v' relu(W [f_j - f_i; b_j - b_i] + c)

The layer W is linear in the differences: so it is applied once a fencepost, and differences are taken of the results.

Shapes: B batch, T words, D features of a word, S of a span's hidden layer, N spans. A span (s, e) holds the words s to
e - 1; `lengths` (B,) int64 on the CPU. Padding trails and holds any finite values.
"""

from __future__ import annotations

from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from seqtext.nn.cky import bracketing, cky
from seqtext.nn.dropout import LockedDropout
from seqtext.nn.products import linear
from seqtext.nn.rnn import Recurrent, Stack


class Spans(NamedTuple):
    """Spans of the sentences of a batch."""

    rows: Tensor
    """(N,) int64: the sentence of each."""
    starts: Tensor
    """(N,) int64: its first word."""
    ends: Tensor
    """(N,) int64: the word after its last word."""


class SpanParserConfig(Stack):
    """Scores of spans from the states of a BiLSTM, and the binary tree in which their sum is the highest."""

    name: Literal["spans"] = "spans"
    cell: str = "lstm"
    """Which cell: a key of `CELLS`."""
    hidden_size: int = 200
    """Features of a state, in each direction."""
    bidirectional: ClassVar[bool] = True
    span_size: int = Field(default=200, ge=1)
    """Features of the hidden layer that scores a span."""
    state_dropout: float = Field(default=0.3, ge=0.0, lt=1.0)
    """Locked dropout of the states that spans are scored by."""
    tune: bool = True
    """Let the parser's loss train the vectors of words too, which it shares with what else reads them."""
    margin: float = Field(default=1.0, gt=0.0)
    """By how much a score should fall for each span of a tree that crosses the gold one."""


class SpanParser(nn.Module):
    """Scores the spans of sentences and finds their best binary trees."""

    def __init__(self, input_size: int, config: SpanParserConfig) -> None:
        super().__init__()
        self.margin, self.tune = config.margin, config.tune
        self.edges = nn.Parameter(torch.empty(2, input_size).normal_(0.0, 0.3))  # <s>, </s>: about as long as words
        self.encoder = Recurrent(input_size, config)
        self.dropout = LockedDropout(config.state_dropout)
        self.project = nn.Linear(self.encoder.output_size, config.span_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(config.span_size))
        self.score = nn.Linear(config.span_size, 1, bias=False)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, T, D), lengths (B,) -> scores (B, T, T+1): [b, s, e] for the span (s, e) of two words or more, else 0.

        Those beyond a sentence are arbitrary but finite. Without a gradient the hidden layer exists for the spans of
        one length at a time, O(B T S) numbers; with one, it is kept for all, O(B T^2 S): `loss` does without.
        """
        return self._all(self._posts(x, lengths))

    @torch.no_grad()
    def parse(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, T, D) -> the best splits (B, T, T+1) int64 of the best trees, for `cky.bracketing`."""
        return cky(self(x, lengths), lengths)[1]

    def loss(self, x: Tensor, lengths: Tensor, gold: Spans) -> tuple[Tensor, Tensor]:
        """Structured hinge loss summed over the sentences of a batch, () float32, and their words, () int64.

            max over trees t of score(t) + margin * crossings(t)  -  max over trees t without crossings of score(t)

        (Taskar 2005; Stern 2017.) `gold` has the constituents of the gold trees, in any order,
        on any device; single words, whole sentences and duplicates say nothing. `crossings` counts the spans of t that
        cross a gold one. Where the gold tree is binary, these are the spans that it does not have (Hamming distance),
        and it is itself the only tree without. Where it has wider nodes, or none at all, whatever binary tree refines
        it is right, and the best under the present scores is learned from.

        All scores are first computed without a gradient; only the spans in which the two trees differ are scored again
        with one, so that it costs O(T) spans a sentence, not O(T^2). Raises `ValueError` where gold spans cross.
        """
        posts, twice = self._posts(x, lengths), lengths.repeat(2)
        with torch.no_grad():
            scores = self._all(posts)
            wrong = crossing(gold, lengths, x.size(1)).to(scores.device, non_blocking=True)
            both = torch.cat([scores + self.margin * wrong, scores.masked_fill(wrong, -torch.inf)])
            best, splits = cky(both, twice)
            trees = bracketing(splits, twice)
        if bool(best.isneginf().any()):
            row = int(best.isneginf().nonzero()[0]) % len(lengths)
            raise ValueError(f"gold: spans of sentence {row} cross each other, so no tree has them all")
        inner = trees.arities > 0
        rows, starts, ends = trees.rows[inner], trees.starts[inner], trees.ends[inner]
        # What both trees have counts once for and once against.
        sign = torch.zeros(scores.shape, dtype=torch.int8)
        found = rows < len(lengths)
        sign[rows[found], starts[found], ends[found]] += 1
        sign[rows[~found] - len(lengths), starts[~found], ends[~found]] -= 1
        differing = sign.nonzero()
        weights = sign[tuple(differing.T)].to(posts.device, non_blocking=True)
        rows, starts, ends = differing.T.to(posts.device, non_blocking=True)
        spans = _wide(self._score(posts[rows, ends] - posts[rows, starts]))
        cost = self.margin * wrong[rows, starts, ends].sum()
        unsound = 0.0 * best.sum()  # 0, or NaN where scores are: or else both trees would be the same, and perfect
        return (spans * weights).sum() + cost + unsound, lengths.sum()

    def _posts(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x (B, T, D) -> (B, T+1, S): the states at each fencepost, projected."""
        start, end = self.edges.to(x.dtype)
        edge = x.new_zeros(x.size(0), 1, x.size(2))
        x = torch.cat([edge + start, x, edge], dim=1)  # (B, T+2, D)
        last = torch.arange(x.size(1), device=x.device) == lengths.to(x.device, non_blocking=True).unsqueeze(1) + 1
        x = torch.where(last.unsqueeze(2), end, x)
        states, _ = self.encoder(x, lengths + 2, with_state=False)
        forward, backward = states.chunk(2, dim=2)
        return linear(self.project, self.dropout(torch.cat([forward[:, :-1], backward[:, 1:]], dim=2)))

    def _score(self, differences: Tensor) -> Tensor:
        """(..., S) -> (...)."""
        return linear(self.score, (differences + self.bias).relu()).squeeze(-1)

    def _all(self, posts: Tensor) -> Tensor:
        """posts (B, T+1, S) -> scores (B, T, T+1)."""
        time = posts.size(1) - 1
        scores = _wide(posts.new_zeros(posts.size(0), time, time + 1))
        if time < 2:
            return scores
        diagonals = [self._score(posts[:, size:] - posts[:, :-size]) for size in range(2, time + 1)]
        starts, ends = torch.triu_indices(time, time + 1, 2, device=posts.device)
        by_size = (ends - starts).argsort(stable=True)
        scores[:, starts[by_size], ends[by_size]] = _wide(torch.cat(diagonals, dim=1))
        return scores


def _wide(scores: Tensor) -> Tensor:
    """In float32, or wider where they are so: many are summed."""
    return scores.to(torch.promote_types(scores.dtype, torch.float32))


def crossing(gold: Spans, lengths: Tensor, time: int) -> Tensor:
    """(B, T, T+1) bool on the CPU: [b, s, e] is True where the span (s, e) crosses a gold one; T = `time`.

    (s, e) crosses a gold (a, z) if a < s < z < e or s < a < e < z. So it crosses one of them exactly if the nearest
    end z of those with s inside lies before e, or the nearest start a of those with e inside lies after s.
    """
    rows, starts, ends = (column.cpu() for column in gold)
    posts = torch.arange(time + 1)
    inside = (starts.unsqueeze(1) < posts) & (posts < ends.unsqueeze(1))  # (N, T+1)
    index = rows.unsqueeze(1).expand_as(inside)
    nearest_end = torch.full((len(lengths), time + 1), time + 1)
    nearest_end.scatter_reduce_(0, index, torch.where(inside, ends.unsqueeze(1), time + 1), "amin")
    nearest_start = torch.full((len(lengths), time + 1), -1)
    nearest_start.scatter_reduce_(0, index, torch.where(inside, starts.unsqueeze(1), -1), "amax")
    starts, ends = posts[:-1].unsqueeze(1), posts.unsqueeze(0)
    over_start = nearest_end[:, :-1].unsqueeze(2) < ends
    over_end = nearest_start.unsqueeze(1) > starts
    return (over_start | over_end) & (starts < ends)
