"""Tasks small enough to check the loop by hand: weighted least squares, and a chain that carries its state along."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from seqtext.task import Goal, Loss, Predicted
from seqtext.training.config import TrainConfig
from seqtext.training.distributed import Devices
from seqtext.training.loop import Event, fit


@dataclass(frozen=True)
class Points:
    """An encoded split: N points, each counting as `targets` targets."""

    x: Tensor
    """(N, 3)."""
    y: Tensor
    """(N,)."""
    targets: Tensor
    """(N,) int64."""

    def __len__(self) -> int:
        return len(self.x)


class Some(NamedTuple):
    rows: Tensor
    lengths: Tensor
    x: Tensor
    y: Tensor
    targets: Tensor


def points(count: int, *, seed: int = 0) -> Points:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=generator)
    noise = 0.1 * torch.randn(count, generator=generator)
    targets = torch.randint(1, 5, (count,), generator=generator)
    return Points(x, x @ torch.tensor([1.0, -2.0, 0.5]) + noise, targets)


class Toy:
    """Weighted least squares. A batch of `tokens` has as many points; `scores` are scripted where they are given."""

    name: ClassVar[str] = "toy"
    carries: ClassVar[bool] = False

    def __init__(self, *, goal: Goal = Goal("score", "max"), scores: Sequence[float] = ()) -> None:  # noqa: B008
        self.goal, self.scores = goal, list(scores)

    def batches(
        self, encoded: Any, *, tokens: int, shuffle: np.random.Generator | None = None, rank: int = 0, world: int = 1
    ) -> Iterator[Some]:
        order = np.arange(len(encoded)) if shuffle is None else shuffle.permutation(len(encoded))
        for rows in map(torch.from_numpy, np.split(order, range(tokens, len(order), tokens))):
            yield Some(rows, encoded.targets[rows], encoded.x[rows], encoded.y[rows], encoded.targets[rows])

    def loss(self, module: nn.Module, batch: Some, carry: Any = None) -> Loss:
        return Loss((batch.targets * (module(batch.x).squeeze(-1) - batch.y) ** 2).sum(), batch.targets.sum())

    def predict(self, module: nn.Module, batch: Some, carry: Any = None) -> Predicted:
        return Predicted(module(batch.x).squeeze(-1).tolist())

    def score(self, predictions: Sequence[float], dataset: Points) -> dict[str, float]:
        error = float(((torch.tensor(predictions) - dataset.y) ** 2).mean())
        return {"error": error, self.goal.key: self.scores.pop(0) if self.scores else -error}


class Chain(Toy):
    """Points read in their order, each batch from the state that the last one left: truncated back-propagation."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Any] = []

    def batches(self, encoded: Any, *, tokens: int, shuffle: Any = None, rank: int = 0, world: int = 1) -> Any:
        return super().batches(encoded, tokens=tokens)

    def loss(self, module: nn.Module, batch: Some, carry: Any = None) -> Loss:
        self.given.append(carry)
        state = torch.zeros(1) if carry is None else carry[0][0]
        states = []
        for x in batch.x:
            state = torch.tanh(module(x) + 0.5 * state)
            states.append(state)
        error = ((torch.cat(states) - batch.y) ** 2).sum()
        return Loss(error, torch.tensor(len(states)), carry=((state, None), [2.0 * state]))


def model(*, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(dropout), nn.Linear(4, 1))


class Layered(nn.Module):
    """Three layers, by the names that a task's module gives them."""

    def __init__(self, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding, self.encoder, self.output = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.dropout(torch.tanh(self.encoder(torch.tanh(self.embedding(x))))))


def layered(*, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(5)
    return Layered(dropout=dropout)


def training(
    task: Any, module: nn.Module, config: TrainConfig, *, train: Points, valid: Points | None = None, resume: Any = None
) -> Iterator[Event]:
    """The events of `fit` on the CPU."""
    held_out = None if valid is None else (valid, valid)
    devices = Devices(torch.device("cpu"))
    return fit(task, module, train, held_out, config, devices=devices, seed=3, resume=resume)
