"""The training loop of every task: a generator of events.

`fit` trains and evaluates; whoever consumes its events draws progress, writes logs and saves weights and checkpoints,
and may stop at any event. All that the loop needs to go on is in its `Snapshot`, so that a resumed run ends with the
same weights as one never interrupted, bit for bit on the same kind of machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sized
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqtext.errors import RunError
from seqtext.nn.readout import readout_of
from seqtext.task import Loss, Task, to_device
from seqtext.training.config import Ridge, TrainConfig
from seqtext.training.distributed import Devices
from seqtext.training.optim import Average, Layers, Schedule, build_optimizer
from seqtext.training.progress import Progress, Window
from seqtext.training.snapshot import Snapshot, restore, take


@dataclass(frozen=True)
class Started:
    """Before the first step: sizes for a progress display."""

    steps_per_epoch: int
    total_steps: int
    parameters: int
    device: str
    step: int
    epoch: int
    """Epochs completed: not 0 where a run goes on."""
    snapshot: Callable[[], Snapshot] = field(repr=False)


@dataclass(frozen=True)
class Stepped:
    """One step was taken. `loss` (per target, mean since the last report) is given every `log_every` steps."""

    step: int
    epoch: int
    tokens: int
    """Of the epoch so far; of several processes, so many times those of this one, which are not counted up."""
    lr: float
    loss: float | None
    grad_norm: float | None
    snapshot: Callable[[], Snapshot] = field(repr=False)


@dataclass(frozen=True)
class Evaluated:
    """The validation split was scored; while this event is handled, the module holds the weights that were scored."""

    step: int
    epoch: int
    scores: dict[str, float]
    best: bool
    best_score: float
    goal: str
    """The key of `scores` that tells what is best."""
    predictions: list[Any] = field(repr=False)


@dataclass(frozen=True)
class EpochEnded:
    """An epoch and its evaluation are done: the place for a checkpoint."""

    step: int
    epoch: int
    seconds: float
    tokens: int
    loss: float
    lr: float
    snapshot: Callable[[], Snapshot] = field(repr=False)


@dataclass(frozen=True)
class Finished:
    """Training is over."""

    step: int
    epoch: int
    reason: str


Event = Started | Stepped | Evaluated | EpochEnded | Finished


def fit(
    task: Task,
    module: nn.Module,
    train: Any,
    valid: tuple[Any, Any] | None,
    config: TrainConfig,
    *,
    devices: Devices,
    seed: int,
    resume: Snapshot | None = None,
) -> Generator[Event, None, None]:
    """Train `module`, already on its device, on the encoded split `train`.

    `valid` is an encoded split and its dataset, scored after every epoch; without one the last weights are the best.
    Batches of an epoch depend on `seed` and the epoch alone. Of several processes each trains on its share of every
    batch; all go through the same events, and take snapshots together. Predictions are in the first one's events only.
    Raises `NonFiniteLoss`, and `Lost` where another process has ended.
    """
    assert readout_of(module) is None, "solved for by training.ridge: a recipe has both it and its optimizer, or none"
    assert not isinstance(config.optimizer, Ridge), "training.ridge takes no steps"
    progress, carry = Progress(), None
    layers = Layers(module, config)
    optimizer = build_optimizer(layers.groups(), config.optimizer)
    first = epoch_batches(task, train, config, seed, 0, devices)
    steps_per_epoch = math.ceil((len(first) if isinstance(first, Sized) else sum(1 for _ in first)) / config.accumulate)
    total = steps_per_epoch * config.epochs
    schedule = Schedule(
        config.schedule, lr=config.optimizer.lr, steps_per_epoch=steps_per_epoch, total_steps=total, goal=task.goal
    )
    average = Average(module, config, goal=task.goal)
    losses_of = devices.losses(task, module)
    window = Window(devices.device, devices.group)
    if devices.rank:  # each its own dropout
        torch.manual_seed(own_seed(seed, devices.rank, resume.values["step"] if resume else 0))
    if resume is not None:
        progress, carry = restore(resume, module, optimizer, schedule, average, window, devices)

    def snapshot() -> Snapshot:
        window.check(progress)  # weights that a bad loss has spoilt are no place to go on from
        return take(module, optimizer, schedule, average, window, progress, carry, devices.group)

    parameters = sum(parameter.numel() for parameter in module.parameters())
    device = str(devices.device)
    yield Started(steps_per_epoch, total, parameters, device, progress.step, progress.epoch, snapshot)
    reason = "all epochs done"
    while progress.epoch < config.epochs:
        if config.patience and progress.waited >= config.patience:
            reason = f"no better {task.goal.key} for {config.patience} epochs"
            break
        module.train()
        _freeze(layers, progress.epoch)
        tokens, began = 0, time.perf_counter()
        batches = iter(epoch_batches(task, train, config, seed, progress.epoch, devices))
        for done in range(progress.batch):  # a resumed epoch: what is done is cut again, not computed
            if next(batches, None) is None:
                place = resume.place if resume else ""
                raise RunError(f"{place}: damaged: {progress.batch} batches into an epoch of {done}")
        if progress.batch == 0:
            carry = None
        rate = schedule.rate(max(0, progress.step - 1))  # of the last step, where an epoch goes on with none left
        for group in _groups(batches, config.accumulate):
            optimizer.zero_grad(set_to_none=True)
            losses = []
            for number, batch in enumerate(group, start=1):
                with nullcontext() if number == len(group) else devices.unsummed(losses_of):
                    with devices.autocast():
                        loss = losses_of(to_device(batch, devices.device), carry)
                    devices.backward(loss.total)
                carry = loss.carry
                losses.append(loss)
                tokens += int(batch.lengths.sum())
            total_loss, count = _summed(losses, devices)
            norm = _divide_and_clip(module, count, config.clip, devices)
            window.add(total_loss, count, norm, group)
            rate = schedule.rate(progress.step)
            share = sum(loss.rate for loss in losses) / len(losses)
            for parameters_group in optimizer.param_groups:
                parameters_group["lr"] = rate * share * parameters_group["factor"]
            optimizer.step()
            progress.step += 1
            progress.batch += len(group)
            average.update(step=progress.step, epoch=progress.epoch + 1)
            report = progress.step % config.log_every == 0 or window.full
            mean = window.close(progress) if report else None
            yield Stepped(
                progress.step,
                progress.epoch + 1,
                tokens * devices.world,
                rate,
                mean[0] if mean else None,
                mean[1] if mean else None,
                snapshot,
            )
        window.close(progress)
        tokens = int(devices.group.sum(torch.tensor(tokens)))
        seconds, epoch_loss = time.perf_counter() - began, progress.loss / max(1.0, progress.count)
        progress.epoch, progress.batch, progress.loss, progress.count = progress.epoch + 1, 0, 0.0, 0.0
        if valid is not None:
            encoded, dataset = valid
            average.swap()
            predictions = devices.predict(task, module, encoded, tokens=config.eval_batch_tokens)
            scores = devices.group.tell(task.score(predictions, dataset) if devices.group.first else None)
            score = scores[task.goal.key]
            best = task.goal.better(score, progress.best)
            progress.best, progress.waited = (score, 0) if best else (progress.best, progress.waited + 1)
            schedule.evaluated(score)
            average.evaluated(score, step=progress.step)
            assert progress.best is not None or score != score
            told = (scores, best, progress.best or 0.0, task.goal.key)
            yield Evaluated(progress.step, progress.epoch, *told, predictions)
            average.swap()
        yield EpochEnded(progress.step, progress.epoch, seconds, tokens, epoch_loss, rate, snapshot)
    for parameter in layers.all:  # whoever has the module next may train all of it
        parameter.requires_grad_(True)
    yield Finished(progress.step, progress.epoch, reason)


def epoch_batches(
    task: Task, train: Any, config: TrainConfig, seed: int, epoch: int, devices: Devices
) -> Iterable[Any]:
    """The batches of an epoch, drawn from the seed and the epoch's number alone."""
    generator = np.random.default_rng([seed, epoch])
    return task.batches(train, tokens=config.batch_tokens, shuffle=generator, rank=devices.rank, world=devices.world)


def own_seed(seed: int, rank: int, step: int) -> int:
    """The seed of the dropout of a process other than the first, which goes on from the seed of the weights."""
    return int(np.random.SeedSequence([seed, rank, step]).generate_state(1, np.uint64)[0])


def _freeze(layers: Layers, epoch: int) -> None:
    """Set which parameters have a gradient in this epoch."""
    still = set(layers.frozen(epoch))
    for parameter in layers.all:
        parameter.requires_grad_(parameter not in still)


def _groups(batches: Iterator[Any], size: int) -> Iterator[list[Any]]:
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _summed(losses: list[Loss], devices: Devices) -> tuple[Tensor, Tensor]:
    """The loss () and the number of targets () of a step's batches, over all processes."""
    total = sum(loss.total.detach().float() for loss in losses)
    count = sum(loss.count for loss in losses)
    if devices.world == 1:
        return total, count  # type: ignore[return-value]
    both = torch.stack([torch.as_tensor(value).to(devices.device, torch.float64) for value in (total, count)])
    total, count = devices.group.sum(both).unbind()
    return total.float(), count


def _divide_and_clip(module: nn.Module, count: Tensor, clip: float, devices: Devices) -> Tensor:
    """Turn summed gradients into the mean over targets and bound their norm; the norm before that, on the device.

    Both are one factor on the gradients, so they cost one pass, and nothing waits for the device.
    """
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    count = torch.where(count > 0, count, 1)  # without a target there is no gradient either, and 0 / 0 is NaN
    count = count.to(gradients[0].device, gradients[0].dtype, non_blocking=True)
    share = devices.world / count  # DDP has already averaged over ranks
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True) * share
    factor = share * torch.clamp(clip / (norm + 1e-6), max=1.0) if clip else share
    torch._foreach_mul_(gradients, factor)
    return norm
