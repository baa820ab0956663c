"""Ridge regression in place of gradient steps: the read-out of an echo state network, solved in closed form.

One pass over the training data adds up X'X and X'Y in float64, batch by batch and over all processes, where a row of X
is what the read-out reads at a target and a one, and a row of Y the indicator of its class. Then

    (X'X + penalty I) W = X'Y        (Lukosevicius 2012, "A Practical Guide to Applying Echo State Networks", eq. 9)

but that the weight of the one, the bias, has no penalty. Dropout, where there is any, is noise on X. The pass leaves
everything as it was until it ends, so a run that is cut off within it begins it again, with the same draws.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sized
from typing import Any

import torch
from torch import Tensor, nn

from seqtext.errors import InputError
from seqtext.nn.readout import Readout, readout_of
from seqtext.task import ReadingTask, Task, to_device
from seqtext.training.config import Ridge, TrainConfig
from seqtext.training.distributed import Devices, detached
from seqtext.training.loop import EpochEnded, Evaluated, Event, Finished, Started, Stepped, epoch_batches, own_seed
from seqtext.training.optim import Average, Schedule
from seqtext.training.progress import Progress, Window
from seqtext.training.snapshot import Snapshot, restore, take


class Sums:
    """X'X and X'Y so far, and how often each class came."""

    def __init__(self, features: int, classes: int, device: torch.device) -> None:
        exact: dict[str, Any] = {"dtype": torch.float64, "device": device}
        self.xx = torch.zeros(features + 1, features + 1, **exact)
        self.yx = torch.zeros(classes, features + 1, **exact)
        self.counts = torch.zeros(classes, **exact)

    def add(self, x: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """x (N, F), targets (N,) int64, weights (N,), 1 where there are none."""
        x = nn.functional.pad(x.double(), (0, 1), value=1.0)
        weighed = x if weights is None else x * weights.double().unsqueeze(1)
        self.xx.addmm_(x.t(), weighed)
        self.yx.index_add_(0, targets, weighed)
        self.counts.index_add_(0, targets, weighed[:, -1])

    def solve(self, penalty: float) -> tuple[Tensor, Tensor]:
        """W (C, F) and b (C,), float64. Raises `InputError` where rounding leaves no solution."""
        penalties = torch.full_like(self.xx[0], penalty)
        penalties[-1] = 0.0
        factor, failed = torch.linalg.cholesky_ex(self.xx + torch.diag(penalties))
        if int(failed):
            raise InputError(f"train.optimizer.penalty = {penalty:g}: too small, the equations have no one solution")
        solution = torch.cholesky_solve(self.yx.t(), factor).t()
        return solution[:, :-1], solution[:, -1]

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """The squared error of a solution, mean over targets."""
        whole = torch.cat([weight, bias.unsqueeze(1)], dim=1)  # (C, F + 1)
        total = self.counts.sum()
        squares = total - 2.0 * (whole * self.yx).sum() + (whole @ self.xx * whole).sum()
        return float(squares / total.clamp(min=1.0))


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
    """As `training.loop.fit`, for a module whose read-out is solved for.

    Raises `InputError` for a module with parts besides its read-out that would have to be trained.
    """
    ridge, readout = config.optimizer, check(task, module)
    assert isinstance(ridge, Ridge) and isinstance(task, ReadingTask)
    devices.group.share(list(module.state_dict().values()))
    batches = epoch_batches(task, train, config, seed, 0, devices)
    steps = len(batches) if isinstance(batches, Sized) else sum(1 for _ in batches)
    # What a checkpoint holds of training by steps, of which there are none.
    progress, window = Progress(), Window(devices.device, devices.group)
    optimizer = torch.optim.SGD(readout.parameters(), lr=0.0)
    schedule = Schedule(config.schedule, lr=0.0, steps_per_epoch=steps, total_steps=steps, goal=task.goal)
    parts = module, optimizer, schedule, Average(module, config, goal=task.goal), window
    if devices.rank:
        torch.manual_seed(own_seed(seed, devices.rank, 0))
    if resume is not None:
        progress, _ = restore(resume, *parts, devices)
    begin = take(*parts, progress, None, devices.group)

    def snapshot() -> Snapshot:
        return begin if progress.epoch == 0 else take(*parts, progress, None, devices.group)

    count = sum(parameter.numel() for parameter in module.parameters())
    yield Started(steps, steps, count, str(devices.device), progress.step, progress.epoch, snapshot)
    if progress.epoch == 0:
        began, tokens, carry = time.perf_counter(), 0, None
        sums = Sums(readout.weight.size(1), readout.weight.size(0), devices.device)
        module.train()
        for step, batch in enumerate(epoch_batches(task, train, config, seed, 0, devices), start=1):
            with torch.no_grad(), devices.autocast():
                found = task.features(module, to_device(batch, devices.device), carry)
            sums.add(found.inputs, found.targets, found.weights)
            carry, tokens = detached(found.carry), tokens + int(batch.lengths.sum())
            yield Stepped(step, 1, tokens * devices.world, 0.0, None, None, snapshot)
        loss = _settle(readout, sums, ridge, devices)
        progress.step, progress.epoch = steps, 1
        tokens = int(devices.group.sum(torch.tensor(tokens)))
        seconds = time.perf_counter() - began
        if valid is not None:
            predictions = devices.predict(task, module, valid[0], tokens=config.eval_batch_tokens)
            scores = devices.group.tell(task.score(predictions, valid[1]) if devices.group.first else None)
            progress.best = scores[task.goal.key]
            yield Evaluated(steps, 1, scores, True, scores[task.goal.key], task.goal.key, predictions)
        yield EpochEnded(steps, 1, seconds, tokens, loss, 0.0, snapshot)
    yield Finished(progress.step, progress.epoch, "solved in one pass")


def check(task: Task, module: nn.Module) -> Readout:
    """The read-out to solve for. Raises `InputError` where something else would be trained."""
    readout = readout_of(module)
    assert readout is not None and isinstance(task, ReadingTask), "a recipe with this optimizer has one"
    learned = {name.partition(".")[0] for name, parameter in module.named_parameters() if parameter.requires_grad}
    if learned:
        parts = ", ".join(f"model.{name}" for name in sorted(learned))
        raise InputError(f'train.optimizer.name = "ridge" solves for the read-out alone, and {parts} would be trained')
    return readout


@torch.no_grad()
def _settle(readout: Readout, sums: Sums, ridge: Ridge, devices: Devices) -> float:
    """Give the read-out its weights, from the sums of all processes; the mean squared error."""
    for part in (sums.xx, sums.yx, sums.counts):
        part.copy_(devices.group.sum(part))
    weight, bias = sums.solve(ridge.penalty)
    readout.weight.copy_(weight)
    readout.bias.copy_(bias)
    frequency = (sums.counts + 1.0) / (sums.counts + 1.0).sum()  # one more of each: no class is impossible
    readout.floor.copy_(ridge.floor * frequency)
    devices.group.share([readout.weight, readout.bias, readout.floor])
    return sums.error(weight, bias)
