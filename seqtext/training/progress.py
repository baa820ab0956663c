"""Where training stands: the numbers of a checkpoint, and the losses since the last report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqtext.errors import InputError
from seqtext.training.processes import ALONE, Elsewhere, Processes


class NonFiniteLoss(InputError):
    """The loss or its gradient is NaN or infinite; training stops and nothing is saved over the best."""


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
    loss: float = 0.0
    """Sum of the losses that the current epoch has reported."""
    count: float = 0.0
    """Number of their targets."""


class Window:
    """Losses since the last report, kept on the device until then."""

    SIZE = 1000

    def __init__(self, device: torch.device, group: Processes = ALONE) -> None:
        # A CPU has nothing to wait for, so there every step is looked at and a bad loss is caught before the update
        # after it; a GPU is asked only at reports.
        self.device, self.every, self.group = device, device.type == "cpu", group
        self.totals: list[Tensor] = []
        self.counts: list[Tensor] = []
        self.norms: list[Tensor] = []
        self.rows: list[list[int]] = []

    @property
    def full(self) -> bool:
        if len(self.totals) >= self.SIZE:
            return True
        return self.every and not math.isfinite(float(self.totals[-1]) + float(self.norms[-1]))

    def add(self, total: Tensor, count: Tensor, norm: Tensor, batches: list[Any]) -> None:
        """A step's loss () and number of targets () over all processes; and its batches on this one."""
        self.totals.append(total)
        self.counts.append(count)
        self.norms.append(norm)
        self.rows.append([row for batch in batches for row in batch.rows.tolist()])

    def close(self, progress: Progress) -> tuple[float, float] | None:
        """Mean loss and the last gradient norm; the sums go to `progress` and the window begins anew."""
        if not self.totals:
            return None
        totals, norms = self.check(progress)
        counts = torch.stack([count.to("cpu") for count in self.counts]).tolist()
        progress.loss, progress.count = progress.loss + sum(totals), progress.count + sum(counts)
        self.totals, self.counts, self.norms, self.rows = [], [], [], []
        return sum(totals) / max(1.0, sum(counts)), norms[-1]

    def check(self, progress: Progress) -> tuple[list[float], list[float]]:
        """Losses and gradient norms as numbers. Raises `NonFiniteLoss` where one is not finite."""
        if not self.totals:
            return [], []
        totals, norms = torch.stack(self.totals).tolist(), torch.stack(self.norms).tolist()
        for i, (total, norm) in enumerate(zip(totals, norms)):
            if not (math.isfinite(total) and math.isfinite(norm)):
                step = progress.step - len(totals) + i + 1
                rows = [str(row + 1) for share in self.group.gather(self.rows[i]) for row in share]
                if not self.group.first:
                    raise Elsewhere("the loss is not finite")
                shown = ", ".join(rows[:10]) + (", ..." if len(rows) > 10 else "")
                where = f" (training examples {shown}, counted from 1)" if rows else ""
                what = "loss" if not math.isfinite(total) else "norm of the gradient"
                kept = "no weights were scored yet" if progress.best is None else "the best weights so far are kept"
                raise NonFiniteLoss(
                    f"the {what} is {total if what == 'loss' else norm} at step {step}{where}; {kept}. "
                    "Try a smaller train.optimizer.lr, train.clip = 1.0, a warm-up (train.schedule.warmup), or "
                    "train.precision = 'float32'; if it comes back at the same examples, look at them"
                )
        return totals, norms

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint between two reports, so that the next one says what it would have said."""
        parts = {"totals": self.totals, "counts": self.counts, "norms": self.norms}
        return {name: torch.stack(values) for name, values in parts.items() if values}

    def load(self, tensors: dict[str, Tensor], rows: list[list[int]]) -> None:
        self.rows = rows
        self.totals, self.norms = ([*tensors[name].to(self.device)] if rows else [] for name in ("totals", "norms"))
        self.counts = [*tensors["counts"]] if rows else []
