"""All that training needs to go on: taken from the parts of the loop, and given back to them, without pickling."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, NonNegativeInt, ValidationError
from torch import Tensor, nn

from seqtext.errors import RunError
from seqtext.training.distributed import Devices
from seqtext.training.optim import Average, Schedule
from seqtext.training.processes import ALONE, Processes
from seqtext.training.progress import Progress, Window


@dataclass(frozen=True)
class Snapshot:
    """All that a checkpoint holds: tensors by name, and plain numbers."""

    tensors: dict[str, Tensor]
    values: dict[str, Any]
    place: str = ""
    """Where it was read from, for messages."""


def take(
    module: nn.Module,
    optimizer: Any,
    schedule: Schedule,
    average: Average,
    window: Window,
    progress: Progress,
    carry: Any,
    group: Processes = ALONE,
) -> Snapshot:
    """The state of training between two steps; tensors are the live ones, not copies.

    Of several processes it is the state of all, and they take it together: a carry's rows are in the order that one
    process would have them in, and each has a random state. Any number of processes can go on from it.
    """
    tensors = {f"model.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.tensors().items()}
    tensors |= {f"window.{name}": value for name, value in window.tensors().items()}
    tensors |= {f"carry.{i}": group.whole(value) for i, value in enumerate(_flat(carry))}
    scalars: dict[str, Any] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            elif value is not None:
                scalars[f"{index}.{key}"] = value
    tensors |= {_of("rng.cpu", rank): state for rank, state in enumerate(group.each(torch.get_rng_state()))}
    if torch.cuda.is_available():
        tensors |= {_of("rng.cuda", rank): state for rank, state in enumerate(group.each(torch.cuda.get_rng_state()))}
    values = {
        **vars(progress),
        "schedule": schedule.state(),
        "average": average.state(),
        "window": window.rows,
        "optimizer": scalars,
        "carry": _shape(carry),
    }
    return Snapshot(tensors, values)


def restore(
    snapshot: Snapshot,
    module: nn.Module,
    optimizer: Any,
    schedule: Schedule,
    average: Average,
    window: Window,
    devices: Devices,
) -> tuple[Progress, Any]:
    """Put a snapshot back; the progress and the carry are returned. Raises `RunError` where it does not fit."""
    try:
        return _restore(snapshot, module, optimizer, schedule, average, window, devices)
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
        raise RunError(f"{snapshot.place}: damaged, or not a checkpoint of this run: {reason}") from None


def _restore(
    snapshot: Snapshot,
    module: nn.Module,
    optimizer: Any,
    schedule: Schedule,
    average: Average,
    window: Window,
    devices: Devices,
) -> tuple[Progress, Any]:
    _check(snapshot.values)
    parts: dict[str, dict[str, Tensor]] = {
        name: {} for name in ("model", "average", "window", "carry", "optimizer", "rng")
    }
    for name, tensor in snapshot.tensors.items():
        part, _, rest = name.partition(".")
        parts[part][rest] = tensor
    values = snapshot.values
    module.load_state_dict(parts["model"])
    average.load(parts["average"], values["average"])
    window.load(parts["window"], values["window"])
    schedule.load(values["schedule"])
    state: dict[int, dict[str, Any]] = {}
    for key, value in [*parts["optimizer"].items(), *values["optimizer"].items()]:
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    _check_optimizer(state, optimizer)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    states, rank = parts["rng"], devices.rank
    if _of("cpu", rank) in states:  # a process more than there were keeps the seed it has
        torch.set_rng_state(states[_of("cpu", rank)].cpu())
    if _of("cuda", rank) in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states[_of("cuda", rank)].cpu())
    carried = [parts["carry"][str(i)] for i in range(len(parts["carry"]))]
    flat = iter(devices.group.rows(tensor).to(devices.device, copy=True) for tensor in carried)
    progress = Progress(**{key: values[key] for key in vars(Progress())})
    if (leaves := _leaves(values["carry"])) != len(parts["carry"]):
        raise ValueError(f"{len(parts['carry'])} tensors of a carry that has {leaves}")
    return progress, _unflat(values["carry"], flat)


def _of(name: str, rank: int) -> str:
    """What a tensor of process number `rank` is called."""
    return f"{name}.{rank}" if rank else name


class _Schedule(BaseModel, strict=True):
    scale: float
    best: float | None
    waited: NonNegativeInt


class _Average(BaseModel, strict=True):
    count: NonNegativeInt
    start: NonNegativeInt | None
    scores: list[float]


class _Values(BaseModel, strict=True):
    """What the plain numbers of a checkpoint are, the optimizer's and the shape of the carry aside."""

    step: NonNegativeInt
    epoch: NonNegativeInt
    batch: NonNegativeInt
    best: float | None
    waited: NonNegativeInt
    loss: float
    count: float
    schedule: _Schedule
    average: _Average
    window: list[list[int]]
    optimizer: dict[str, float | int | bool]


def _check(values: dict[str, Any]) -> None:
    """Raises `KeyError` for a number that is missing, `ValueError` for one that is something else."""
    try:
        _Values.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"]))
        if fault["type"] == "missing":
            raise KeyError(place) from None
        raise ValueError(f"{place}: {fault['msg']}, not {str(fault['input'])[:40]!r}") from None


def _check_optimizer(state: dict[int, dict[str, Any]], optimizer: Any) -> None:
    """Raises `ValueError` unless the state of each parameter is complete and of its shape."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    names = {name for values in state.values() for name in values}
    for index, values in state.items():
        if not 0 <= index < len(parameters) or values.keys() != names:
            raise ValueError(f"optimizer.{index} is not the state of a parameter")
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape not in (torch.Size(), parameters[index].shape):
                found, expected = (list(tensor.shape) for tensor in (value, parameters[index]))
                raise ValueError(f"optimizer.{index}.{name} is of the shape {found}, the parameter of {expected}")


def _flat(carry: Any) -> list[Tensor]:
    if isinstance(carry, Tensor):
        return [carry]
    return [tensor for part in carry for tensor in _flat(part)] if isinstance(carry, list | tuple) else []


def _shape(carry: Any) -> Any:
    """The nesting of a carry, as JSON: lists of lists, 0 for a tensor."""
    if isinstance(carry, Tensor):
        return 0
    return [_shape(part) for part in carry] if isinstance(carry, list | tuple) else None


def _leaves(shape: Any) -> int:
    """Tensors of a carry."""
    return sum(map(_leaves, shape)) if isinstance(shape, list) else int(shape is not None)


def _unflat(shape: Any, tensors: Iterator[Tensor]) -> Any:
    if shape == 0:
        return next(tensors)
    return tuple(_unflat(part, tensors) for part in shape) if isinstance(shape, list) else None
