"""The training loop of every task: a generator of events.

`fit` trains and evaluates; whoever consumes its events draws progress, writes logs and saves weights and checkpoints,
and may stop at any event. All that the loop needs to go on is in its `Snapshot`, so that a resumed run ends with the
same weights as one never interrupted, bit for bit on the same kind of machine.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqtext.errors import InputError
from seqtext.task import Loss, Task, predict_all, to_device
from seqtext.training.config import TrainConfig
from seqtext.training.distributed import Devices
from seqtext.training.optim import Average, Schedule, build_optimizer


class NonFiniteLoss(InputError):
    """The loss or its gradient is NaN or infinite; training stops and nothing is saved over the best."""


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds: tensors by name, and plain numbers."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]


@dataclass(frozen=True)
class Started:
    """Before the first step: sizes for a progress display."""

    steps_per_epoch: int
    total_steps: int
    parameters: int
    device: str
    step: int
    snapshot: Callable[[], Snapshot] = field(repr=False)


@dataclass(frozen=True)
class Stepped:
    """One step was taken. `loss` (per target, mean since the last report) is given every `log_every` steps."""

    step: int
    epoch: int
    tokens: int
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


@dataclass
class Progress:
    """Where training stands: the plain numbers of a checkpoint."""

    step: int = 0
    epoch: int = 0
    """Epochs completed."""
    batch: int = 0
    """Batches of the current epoch that are done."""
    best: float | None = None
    waited: int = 0
    """Evaluations since the best."""


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
    Batches of an epoch depend on `seed` and the epoch alone. Raises `NonFiniteLoss`.
    """
    progress, carry = Progress(), None
    optimizer = build_optimizer((p for p in module.parameters() if p.requires_grad), config.optimizer)
    steps_per_epoch = math.ceil(sum(1 for _ in _epoch(task, train, config, seed, 0, devices)) / config.accumulate)
    total = steps_per_epoch * config.epochs
    schedule = Schedule(config.schedule, lr=config.optimizer.lr, total_steps=total, goal=task.goal)
    average = Average(module, config)
    module, optimizer = devices.prepare(module, optimizer)
    if resume is not None:
        progress, carry = _restore(resume, devices.bare(module), optimizer, schedule, average, devices.device)

    def snapshot() -> Snapshot:
        return _snapshot(devices.bare(module), optimizer, schedule, average, progress, carry)

    parameters = sum(parameter.numel() for parameter in module.parameters())
    yield Started(steps_per_epoch, total, parameters, str(devices.device), progress.step, snapshot)
    reason = "all epochs done"
    while progress.epoch < config.epochs:
        if config.patience and progress.waited >= config.patience:
            reason = f"no better {task.goal.key} for {config.patience} epochs"
            break
        module.train()
        window = _Window(devices.device)
        tokens, began, epoch_loss, epoch_count = 0, time.perf_counter(), 0.0, 0.0
        batches = _epoch(task, train, config, seed, progress.epoch, devices)
        for _ in range(progress.batch):  # a resumed epoch: what is done is cut again, not computed
            next(batches)
        if progress.batch == 0:
            carry = None
        for group in _groups(batches, config.accumulate):
            rate = schedule.rate(progress.step)
            for parameters_group in optimizer.param_groups:
                parameters_group["lr"] = rate
            optimizer.zero_grad(set_to_none=True)
            losses = []
            for batch in group:
                with devices.autocast():
                    loss = task.loss(module, to_device(batch, devices.device), carry)
                devices.backward(loss.total)
                carry = _detached(loss.carry)
                losses.append(loss)
                tokens += int(batch.lengths.sum())
            count = devices.sum(sum(loss.count for loss in losses))
            norm = _divide_and_clip(module, count, config.clip, devices)
            window.add(losses, norm, group)
            optimizer.step()
            progress.step += 1
            progress.batch += len(group)
            average.update(step=progress.step, epoch=progress.epoch + 1)
            report = progress.step % config.log_every == 0 or window.full
            mean = window.close(progress) if report else None
            if mean is not None:
                epoch_loss, epoch_count = epoch_loss + mean[1], epoch_count + mean[2]
            yield Stepped(
                progress.step,
                progress.epoch + 1,
                tokens,
                rate,
                mean[0] if mean else None,
                mean[3] if mean else None,
                snapshot,
            )
        last = window.close(progress)
        if last is not None:
            epoch_loss, epoch_count = epoch_loss + last[1], epoch_count + last[2]
        seconds = time.perf_counter() - began
        progress.epoch, progress.batch = progress.epoch + 1, 0
        if valid is not None:
            encoded, dataset = valid
            average.swap()
            bare = devices.bare(module)
            cut = task.batches(encoded, tokens=config.eval_batch_tokens)
            with devices.autocast():
                predictions = predict_all(task, bare, encoded, cut, devices.device)
            scores = task.score(predictions, dataset)
            score = scores[task.goal.key]
            best = task.goal.better(score, progress.best)
            progress.best, progress.waited = (score, 0) if best else (progress.best, progress.waited + 1)
            schedule.evaluated(score)
            assert progress.best is not None or score != score
            yield Evaluated(progress.step, progress.epoch, scores, best, progress.best or 0.0, predictions)
            average.swap()
        yield EpochEnded(
            progress.step, progress.epoch, seconds, tokens, epoch_loss / max(1.0, epoch_count), rate, snapshot
        )
    yield Finished(progress.step, progress.epoch, reason)


def _epoch(task: Task, train: Any, config: TrainConfig, seed: int, epoch: int, devices: Devices) -> Iterator[Any]:
    """The batches of an epoch, drawn from the seed and the epoch's number alone."""
    generator = np.random.default_rng([seed, epoch])
    return task.batches(train, tokens=config.batch_tokens, shuffle=generator, rank=devices.rank, world=devices.world)


def _groups(batches: Iterator[Any], size: int) -> Iterator[list[Any]]:
    group: list[Any] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
    if group:
        yield group


def _divide_and_clip(module: nn.Module, count: Tensor, clip: float, devices: Devices) -> Tensor:
    """Turn summed gradients into the mean over targets and bound their norm; the norm before that, on the device.

    Both are one factor on the gradients, so they cost one pass, and nothing waits for the device.
    """
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    share = devices.world / count.to(gradients[0].device, gradients[0].dtype)  # DDP has already averaged over ranks
    norm = torch.nn.utils.get_total_norm(gradients, foreach=True) * share
    factor = share * torch.clamp(clip / (norm + 1e-6), max=1.0) if clip else share
    torch._foreach_mul_(gradients, factor)
    return norm


class _Window:
    """Losses since the last report, kept on the device until then."""

    SIZE = 1000

    def __init__(self, device: torch.device) -> None:
        # A CPU has nothing to wait for, so there every step is looked at and a bad loss is caught before the update
        # after it; a GPU is asked only at reports.
        self.device, self.every = device, device.type == "cpu"
        self.totals: list[Tensor] = []
        self.counts: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.rows: list[list[int]] = []

    @property
    def full(self) -> bool:
        if len(self.totals) >= self.SIZE:
            return True
        return self.every and not math.isfinite(float(self.totals[-1]) + float(self.norms[-1]))

    def add(self, losses: list[Loss], norm: Tensor, group: list[Any]) -> None:
        self.totals.append(sum(loss.total.detach().float() for loss in losses))  # type: ignore[arg-type]
        self.counts.append(sum(loss.count for loss in losses))  # type: ignore[arg-type]
        self.norms.append(norm)
        self.rows.append([row for batch in group for row in batch.rows.tolist()])

    def close(self, progress: Progress) -> tuple[float, float, float, float] | None:
        """Mean loss, its sum, its count and the last gradient norm; the window begins anew."""
        if not self.totals:
            return None
        totals = torch.stack(self.totals).tolist()
        counts = torch.stack([count.to("cpu") for count in self.counts]).tolist()
        norms = torch.stack(self.norms).tolist()
        for i, (total, norm) in enumerate(zip(totals, norms)):
            if not (math.isfinite(total) and math.isfinite(norm)):
                step = progress.step - len(totals) + i + 1
                shown = ", ".join(map(str, self.rows[i][:10])) + (", ..." if len(self.rows[i]) > 10 else "")
                what = "loss" if not math.isfinite(total) else "norm of the gradient"
                raise NonFiniteLoss(
                    f"the {what} is {total if what == 'loss' else norm} at step {step} (training examples {shown}); "
                    "the best weights so far are kept. Try a smaller train.optimizer.lr, train.clip = 1.0, "
                    "a warm-up (train.schedule.warmup), or train.precision = 'float32'; "
                    "if it comes back at the same examples, look at them"
                )
        result = sum(totals) / max(1.0, sum(counts)), sum(totals), float(sum(counts)), norms[-1]
        self.totals, self.counts, self.norms, self.rows = [], [], [], []
        return result


def _detached(carry: Any) -> Any:
    if isinstance(carry, Tensor):
        return carry.detach()
    if isinstance(carry, list | tuple):
        return type(carry)(_detached(part) for part in carry)
    return carry


def _snapshot(
    module: nn.Module, optimizer: Any, schedule: Schedule, average: Average, progress: Progress, carry: Any
) -> Snapshot:
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.tensors().items()}
    tensors |= {f"carry.{i}": value for i, value in enumerate(_flat(carry))}
    scalars: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            elif value is not None:
                scalars[f"{index}.{key}"] = value
    tensors["rng.cpu"] = torch.get_rng_state()
    if torch.cuda.is_available():
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    values = {
        **vars(progress),
        "schedule": schedule.state(),
        "average": average.count,
        "optimizer": scalars,
        "carry": _shape(carry),
    }
    return Snapshot(tensors, values)


def _restore(
    snapshot: Snapshot,
    module: nn.Module,
    optimizer: Any,
    schedule: Schedule,
    average: Average,
    device: torch.device,
) -> tuple[Progress, Any]:
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "carry": {}, "optimizer": {}, "rng": {}}
    for name, tensor in snapshot.tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    values = snapshot.values
    module.load_state_dict(parts["model"])
    average.load(parts["average"], values["average"])
    schedule.load(values["schedule"])
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*parts["optimizer"].items(), *values["optimizer"].items()]:
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    torch.set_rng_state(parts["rng"]["cpu"].cpu())
    if "cuda" in parts["rng"] and torch.cuda.is_available():
        torch.cuda.set_rng_state(parts["rng"]["cuda"].cpu())
    flat = iter(parts["carry"][str(i)].to(device) for i in range(len(parts["carry"])))
    progress = Progress(**{key: values[key] for key in vars(Progress())})
    return progress, _unflat(values["carry"], flat)


def _flat(carry: Any) -> list[Tensor]:
    if isinstance(carry, Tensor):
        return [carry]
    return [tensor for part in carry for tensor in _flat(part)] if isinstance(carry, list | tuple) else []


def _shape(carry: Any) -> Any:
    """The nesting of a carry, as JSON: lists of lists, 0 for a tensor."""
    if isinstance(carry, Tensor):
        return 0
    return [_shape(part) for part in carry] if isinstance(carry, list | tuple) else None


def _unflat(shape: Any, tensors: Iterator[Tensor]) -> Any:
    if shape == 0:
        return next(tensors)
    return tuple(_unflat(part, tensors) for part in shape) if isinstance(shape, list) else None
