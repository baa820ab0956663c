"""Language models trained the usual way in plain PyTorch: what `bench_lm.py` compares its speed with.

Two loops, written as such code commonly is, with nothing of seqtext in them. `PlainModel` is an embedding, nn.LSTM of
several layers, a linear layer and log_softmax. `AwdModel` is the AWD-LSTM (Merity 2018, "Regularizing and Optimizing
LSTM Language Models") with an nn.LSTM a layer and a weight drop that sets the recurrent matrix before each call. Both
have time first and read one long text in parallel streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Carry = Any


class PlainModel(nn.Module):
    """Words to log-probabilities of the next, through an LSTM of `layers` x `hidden`."""

    def __init__(self, vocabulary: int, size: int, hidden: int, layers: int, *, dropout: float, tied: bool) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.embedding = nn.Embedding(vocabulary, size)
        self.lstm = nn.LSTM(size, hidden, layers, dropout=dropout if layers > 1 else 0.0)
        self.output = nn.Linear(hidden, vocabulary)
        if tied:
            self.output.weight = self.embedding.weight
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.uniform_(self.output.weight, -0.1, 0.1)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        """tokens (T, B) -> log-probabilities (T * B, V), carry."""
        x = self.dropout(self.embedding(tokens))
        states, carry = self.lstm(x, carry)
        scores = self.output(self.dropout(states))
        return F.log_softmax(scores.view(-1, scores.size(-1)), dim=1), carry


class WeightDrop(nn.Module):
    """An nn.LSTM whose recurrent matrix is dropped out anew at each call."""

    def __init__(self, lstm: nn.LSTM, p: float) -> None:
        super().__init__()
        self.lstm, self.p = lstm, p
        self.raw: nn.Parameter = lstm._parameters["weight_hh_l0"]  # type: ignore[assignment]
        del lstm._parameters["weight_hh_l0"]

    def forward(self, x: Tensor, carry: Carry) -> tuple[Tensor, Carry]:
        self.lstm.weight_hh_l0 = F.dropout(self.raw, p=self.p, training=self.training)  # type: ignore[assignment]
        result: tuple[Tensor, Carry] = self.lstm(x, carry)
        return result


class AwdModel(nn.Module):
    """The AWD-LSTM: LSTMs of `sizes`, one a layer, the output tied to the embedding."""

    def __init__(
        self,
        vocabulary: int,
        size: int,
        sizes: list[int],
        *,
        tied: bool,
        embedding_dropout: float,
        input_dropout: float,
        hidden_dropout: float,
        output_dropout: float,
        weight_dropout: float,
    ) -> None:
        super().__init__()
        self.embedding_dropout, self.input_dropout = embedding_dropout, input_dropout
        self.hidden_dropout, self.output_dropout = hidden_dropout, output_dropout
        self.embedding = nn.Embedding(vocabulary, size)
        inputs = [size, *sizes[:-1]]
        self.layers = nn.ModuleList(WeightDrop(nn.LSTM(i, o), weight_dropout) for i, o in zip(inputs, sizes))
        self.output = nn.Linear(sizes[-1], vocabulary)
        if tied:
            self.output.weight = self.embedding.weight
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.output.bias)

    def forward(self, tokens: Tensor, carry: Carry) -> tuple[Tensor, Tensor, Tensor, Carry]:
        """tokens (T, B) -> scores (T * B, V), last states (T, B, H) before and after dropout, carry."""
        x = self.locked(self.embedded(tokens), self.input_dropout)
        ends = []
        states = x
        for depth, layer in enumerate(self.layers):
            states, end = layer(x, carry[depth] if carry else None)
            ends.append(end)
            x = self.locked(states, self.output_dropout if depth == len(self.layers) - 1 else self.hidden_dropout)
        return self.output(x.view(-1, x.size(-1))), states, x, ends

    def embedded(self, tokens: Tensor) -> Tensor:
        weight = self.embedding.weight
        if self.training and self.embedding_dropout:
            keep = 1 - self.embedding_dropout
            mask = weight.data.new(weight.size(0), 1).bernoulli_(keep).expand_as(weight) / keep
            weight = mask * weight
        return F.embedding(tokens, weight)

    def locked(self, x: Tensor, p: float) -> Tensor:
        if not self.training or not p:
            return x
        mask = x.data.new(1, x.size(1), x.size(2)).bernoulli_(1 - p) / (1 - p)
        return mask.expand_as(x) * x


def streams(ids: np.ndarray, count: int) -> Tensor:
    """A text as (N, B): `count` parallel streams side by side, what does not fill them left out."""
    steps = len(ids) // count
    return torch.from_numpy(ids[: steps * count].astype(np.int64)).view(count, steps).t().contiguous()


def detached(carry: Carry) -> Carry:
    return carry.detach() if isinstance(carry, Tensor) else tuple(map(detached, carry)) if carry is not None else None


def train_plain(model: PlainModel, data: Tensor, *, window: int, lr: float, clip: float) -> Iterator[int]:
    """Train without end on data (N, B); the tokens of each step."""
    model.train()
    while True:
        carry, total = None, 0.0
        for start in range(0, data.size(0) - 1, window):
            length = min(window, data.size(0) - 1 - start)
            tokens, targets = data[start : start + length], data[start + 1 : start + 1 + length].reshape(-1)
            model.zero_grad()
            chances, carry = model(tokens, detached(carry))
            loss = F.nll_loss(chances, targets)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.data.add_(parameter.grad, alpha=-lr)
            total += loss.item()
            yield targets.numel()


def train_awd(
    model: AwdModel, data: Tensor, *, window: int, lr: float, decay: float, clip: float, alpha: float, beta: float
) -> Iterator[int]:
    """As `train_plain`, with windows of random lengths and the two regularisers of activations."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, weight_decay=decay)
    lengths = np.random.default_rng(1)
    model.train()
    while True:
        carry, total, start = None, 0.0, 0
        while start < data.size(0) - 2:
            length = max(5, int(lengths.normal(window if lengths.random() < 0.95 else window / 2, 5)))
            length = min(length, data.size(0) - 1 - start)
            tokens, targets = data[start : start + length], data[start + 1 : start + 1 + length].reshape(-1)
            optimizer.param_groups[0]["lr"] = lr * length / window
            optimizer.zero_grad()
            scores, states, dropped, carry = model(tokens, detached(carry))
            loss = F.cross_entropy(scores, targets)
            loss = loss + alpha * dropped.pow(2).mean() + beta * (states[1:] - states[:-1]).pow(2).mean()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            total += loss.item()
            start += length
            yield targets.numel()
