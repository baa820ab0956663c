"""Where training runs: the device, the number format and the processes, by `accelerate`."""

from __future__ import annotations

import contextlib
import os
from typing import Any

import torch
from torch import Tensor, nn

from seqtext.errors import DeviceError
from seqtext.training.precision import resolve


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


class Devices:
    """Device placement, autocast and the sums over processes that the loop needs."""

    def __init__(self, device: torch.device, *, precision: str = "float32") -> None:
        if device.type == "cuda" and device.index is not None:
            torch.cuda.set_device(device)
        use_tensor_cores()
        self.device, self.precision = device, precision
        if chosen := resolve(precision, device):
            self.precision = chosen.precision
        self.rank, self.world = 0, 1
        self.accelerator: Any = None
        # An Accelerator is one for the whole process: a second training there could not have another device. So
        # there is none where torchrun has not started several processes. It casts nothing: `autocast` does.
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import Accelerator

            self.accelerator = Accelerator(cpu=device.type == "cpu")
            self.device = self.accelerator.device
            self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes

    def prepare(self, module: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The module wrapped for several processes where there are several; one process changes nothing."""
        if self.world == 1:
            return module, optimizer
        return self.accelerator.prepare(module), optimizer

    def bare(self, module: nn.Module) -> nn.Module:
        """The module without a wrapper."""
        return self.accelerator.unwrap_model(module) if self.world > 1 else module

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context of forward passes: bf16 where the recipe asks for it."""
        if self.precision == "float32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def backward(self, loss: Tensor) -> None:
        if self.world == 1:
            loss.backward()
        else:
            self.accelerator.backward(loss)

    def sum(self, value: Any) -> Tensor:
        """The sum of a tensor () over all processes."""
        value = torch.as_tensor(value)
        return value if self.world == 1 else self.accelerator.reduce(value.to(self.device), "sum")
