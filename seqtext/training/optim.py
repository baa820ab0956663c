"""Optimizers, learning-rate schedules and weight averages, built from their settings.

All three keep their state as plain numbers and tensors that a checkpoint can hold without pickling.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from seqtext.nn.layers import layers
from seqtext.task import Goal
from seqtext.training.config import (
    Adam,
    AdamW,
    Asgd,
    Cosine,
    Decay,
    Exponential,
    InverseSqrt,
    Linear,
    Plateau,
    Sgd,
    TrainConfig,
    Uniform,
)


def build_optimizer(
    parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]], config: Sgd | Adam | AdamW | Asgd
) -> torch.optim.Optimizer:
    """The optimizer over `parameters`, or groups of them, in torch's fused kernels where it has them."""
    listed: Any = list(parameters)
    if isinstance(config, Sgd):
        return torch.optim.SGD(
            listed,
            lr=config.lr,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
            fused=True,
        )
    if isinstance(config, Asgd):
        return torch.optim.SGD(listed, lr=config.lr, weight_decay=config.weight_decay, fused=True)
    kind = torch.optim.Adam if isinstance(config, Adam) else torch.optim.AdamW
    betas = (config.beta1, config.beta2)
    return kind(listed, lr=config.lr, betas=betas, weight_decay=config.weight_decay, fused=True)


class Layers:
    """The layers of a module as the optimizer's groups, each with its learning rate, and which of them are frozen.

    Discriminative fine-tuning and gradual unfreezing (Howard & Ruder 2018, "Universal Language Model Fine-tuning for
    Text Classification", sections 3.2 and 3.3): below the last layer, each has `layer_decay` times the rate of the one
    above it, and one more is trained after every `unfreeze` epochs.
    """

    def __init__(self, module: nn.Module, train: TrainConfig) -> None:
        self.decay, self.every = train.layer_decay, train.unfreeze
        self.all = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.layers = [layer.parameters for layer in layers(module)]

    def groups(self) -> list[dict[str, Any]]:
        """Parameters and `factor` on the learning rate of each group; of all together, where the rates are the same."""
        if self.decay == 1.0:
            return [{"params": self.all, "factor": 1.0}]
        top = len(self.layers) - 1
        return [
            {"params": parameters, "factor": self.decay ** (top - depth)}
            for depth, parameters in enumerate(self.layers)
        ]

    def frozen(self, epoch: int) -> list[nn.Parameter]:
        """The parameters that are not trained in the epoch after `epoch` completed ones."""
        if not self.every:
            return []
        count = max(0, len(self.layers) - 1 - epoch // self.every)
        return [parameter for layer in self.layers[:count] for parameter in layer]


class Schedule:
    """The learning rate of each step, as a factor on the optimizer's own."""

    def __init__(self, config: Any, *, lr: float, steps_per_epoch: int, total_steps: int, goal: Goal) -> None:
        self.config, self.lr, self.total, self.goal = config, lr, max(1, total_steps), goal
        self.steps_per_epoch = max(1, steps_per_epoch)
        self.scale, self.waited = 1.0, 0  # these two and the next for plateau only
        self.best: float | None = None

    def rate(self, step: int) -> float:
        """The learning rate of step number `step`, counted from 0."""
        return self.lr * self._factor(step)

    def _factor(self, step: int) -> float:
        config, warmup = self.config, self.config.warmup
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        if isinstance(config, InverseSqrt):
            return min(rise, math.sqrt(warmup / (step + 1)))
        if isinstance(config, Plateau):
            return rise * self.scale
        if isinstance(config, Decay):
            return rise * config.factor ** max(0, step // self.steps_per_epoch + 1 - config.after)
        if isinstance(config, Linear | Cosine) and step >= warmup:
            done = min(1.0, (step - warmup) / max(1, self.total - warmup))
            left = 1.0 - done if isinstance(config, Linear) else 0.5 * (1.0 + math.cos(math.pi * done))
            return config.floor + (1.0 - config.floor) * left
        return rise

    def evaluated(self, score: float) -> None:
        """Tell the schedule the score of an evaluation; only `plateau` listens."""
        if not isinstance(self.config, Plateau):
            return
        if self.goal.better(score, self.best):
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > self.config.patience:
            self.scale, self.waited = self.scale * self.config.factor, 0

    def state(self) -> dict[str, Any]:
        return {"scale": self.scale, "best": self.best, "waited": self.waited}

    def load(self, state: dict[str, Any]) -> None:
        self.scale, self.best, self.waited = state["scale"], state["best"], state["waited"]


class Average:
    """A running mean of the weights, evaluated and saved in their stead."""

    def __init__(self, module: nn.Module, train: TrainConfig, *, goal: Goal) -> None:
        self.config, self.goal = train.average, goal
        asgd = train.optimizer if isinstance(train.optimizer, Asgd) else None
        self.trigger = asgd.trigger if asgd else 0
        self.start = asgd.start if asgd and not asgd.trigger else None
        self.scores: list[float] = []  # of all evaluations; only the trigger reads them
        self.live = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self.mean: list[Tensor] | None = None
        self.count = 0

    @torch.no_grad()
    def update(self, *, step: int, epoch: int) -> None:
        """Take in the weights after step number `step` (from 1) of epoch number `epoch` (from 1)."""
        if isinstance(self.config, Exponential):
            # (1 + n) / (10 + n) forgets the first weights, as Tensorflow's moving averages do.
            weight = 1.0 - min(self.config.decay, (1.0 + self.count) / (10.0 + self.count))
        elif self._counts(step, epoch):
            weight = 1.0 / (self.count + 1)
        else:
            return
        if self.mean is None:
            self.mean = [parameter.detach().clone() for parameter in self.live]
        else:
            torch._foreach_lerp_(self.mean, [parameter.detach() for parameter in self.live], weight)
        self.count += 1

    def _counts(self, step: int, epoch: int) -> bool:
        """Whether a plain mean takes in these weights."""
        if isinstance(self.config, Uniform):
            return epoch >= self.config.start
        return self.start is not None and step > self.start

    def evaluated(self, score: float, *, step: int) -> None:
        """Tell the average the score of an evaluation; only NT-ASGD's trigger listens (Merity 2018, algorithm 1)."""
        if not self.trigger or self.start is not None:
            return
        before = self.scores[: -self.trigger]
        best = (max if self.goal.mode == "max" else min)(before, default=None)
        if best is not None and self.goal.better(best, score):
            self.start = step
        self.scores.append(score)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the live weights and their mean; twice is nothing."""
        if self.mean is None:
            return
        for parameter, mean in zip(self.live, self.mean):
            kept = parameter.detach().clone()
            parameter.copy_(mean)
            mean.copy_(kept)

    def tensors(self) -> dict[str, Tensor]:
        return {str(i): mean for i, mean in enumerate(self.mean or [])}

    def state(self) -> dict[str, Any]:
        return {"count": self.count, "start": self.start, "scores": self.scores}

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        self.count, self.start, self.scores = state["count"], state["start"], state["scores"]
        if tensors:
            self.mean = [tensors[str(i)].to(parameter.device) for i, parameter in enumerate(self.live)]
            if any(mean.shape != parameter.shape for mean, parameter in zip(self.mean, self.live)):
                raise ValueError("the averaged weights are not of the shapes of the weights")
