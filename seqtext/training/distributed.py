"""Where training runs: the device, the number format, and the loss and the predictions of all processes together."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Sized
from typing import Any

import torch
from torch import Tensor, nn

from seqtext.errors import DeviceError
from seqtext.nn import graphs
from seqtext.task import Loss, Task, predict_all
from seqtext.training.precision import resolve
from seqtext.training.processes import ALONE, Processes, watched


def resolve_device(name: str) -> torch.device:
    """The device called `name`: auto, cpu, cuda or cuda:N. Raises `DeviceError` where there is no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name != "cpu" and not (name == "cuda" or (name.startswith("cuda:") and name[5:].isdigit())):
        raise DeviceError(f"--device {name}: expected auto, cpu, cuda or cuda:N")
    if name.startswith("cuda"):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise DeviceError(
                f"--device {name}: no CUDA device here (torch {torch.__version__}); use --device cpu or auto"
            )
        index = int(name[5:]) if ":" in name else 0
        if index >= count:
            raise DeviceError(f"--device {name}: this machine has {count} CUDA device(s), numbered from 0")
        return torch.device("cuda", index)
    return torch.device("cpu")


def use_tensor_cores() -> None:
    """Let a GPU multiply float32 numbers as TF32, with ten bits after the point: several times as fast.

    Sums stay float32. Recurrent kernels and convolutions do so by torch's own default, other products do not: with both
    alike, what a recipe reaches on a GPU hangs on one kind of rounding, and a loaded run scores as it did in training.
    """
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True


def record(wanted: bool, device: torch.device) -> None:
    """Record passes from now on, or no longer. Raises `DeviceError` for a device that cannot."""
    if wanted and device.type not in graphs.RECORDERS:
        raise DeviceError(
            f"train.graphs = true: only a GPU records what it is asked for, and training is on {device.type} here; "
            "set train.graphs=false"
        )
    graphs.WANTED = wanted


class Devices:
    """Device placement, autocast, and what the loop needs of the other processes."""

    def __init__(self, device: torch.device, *, precision: str = "float32", group: Processes = ALONE) -> None:
        use_tensor_cores()
        self.device, self.group = group.placed(device), group
        chosen = resolve(precision, self.device) if group.first else None
        self.precision: str = group.tell(chosen.precision if chosen else precision)
        self.rank, self.world = group.rank, group.world
        if self.device.type == "cuda" and self.device.index is not None:
            torch.cuda.set_device(self.device)

    def losses(self, task: Task, module: nn.Module) -> nn.Module:
        """What computes the loss of a batch from its carry; over several processes, backward sums the gradients up.

        The weights become those of the first process, and so do buffers: only it has seen the training text.
        """
        losses = Losses(task, module)
        if self.world == 1:
            return losses
        weights = dict(module.named_parameters())  # which DDP sends
        self.group.share([each for name, each in module.state_dict().items() if name not in weights])
        # No device_ids: they would have it move the lengths of a batch too, which stay on the CPU. A batch need not
        # reach every parameter: it may be empty on this process, or without what one is for, or one may be frozen.
        with watched(self.group), warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # broadcast_buffers is going to have another name
            return nn.parallel.DistributedDataParallel(
                losses, find_unused_parameters=True, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def unsummed(self, losses: nn.Module) -> contextlib.AbstractContextManager[Any]:
        """The context of batches whose gradients are added to on this process before they are summed over all."""
        return losses.no_sync() if isinstance(losses, nn.parallel.DistributedDataParallel) else contextlib.nullcontext()

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context of forward passes: bf16 where the recipe asks for it."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def backward(self, loss: Tensor) -> None:
        with watched(self.group):
            loss.backward()

    def predict(self, task: Task, module: nn.Module, encoded: Sized, *, tokens: int) -> list[Any]:
        """Predictions for every example, each process having made its share; in the first one, elsewhere none."""
        batches = task.batches(encoded, tokens=tokens, rank=self.rank, world=self.world)
        with self.autocast():
            found = predict_all(task, module, encoded, batches, self.device)
        if self.world == 1:
            return found
        shares = self.group.gather({row: each for row, each in enumerate(found) if each is not None})
        for share in shares[1:]:
            for row, each in share.items():
                found[row] = each if found[row] is None else found[row] + each
        return found if shares else []


class Losses(nn.Module):
    """The loss of a batch as a module's forward pass, which is what torch can distribute."""

    def __init__(self, task: Task, module: nn.Module) -> None:
        super().__init__()
        self.task, self.module = task, module

    def forward(self, batch: Any, carry: Any) -> Loss:
        loss = self.task.loss(self.module, batch, carry)
        return loss._replace(carry=detached(loss.carry))


def detached(carry: Any) -> Any:
    """A carry without its graph: a tensor, None, or tuples of them, as a resumed run will have it."""
    if isinstance(carry, Tensor):
        return carry.detach()
    if isinstance(carry, list | tuple):
        return tuple(detached(part) for part in carry)
    if carry is not None:
        raise TypeError(f"a carry is a tensor, None, or tuples of them, not {type(carry).__name__}")
    return None
