"""Several processes that train one model: who they are, what they agree on, and how the loss of one ends the others.

`torchrun` and `accelerate launch` start them; `join` makes a group of them, by `accelerate`. All have the same weights
and go through the same events; the first one alone writes. What they agree on goes through CPU memory, so that a
process that ends is noticed at once, on a GPU too: its connections close.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from seqtext.errors import DeviceError, InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PATIENCE = timedelta(minutes=30)
"""How long a process waits in a sum for one that neither comes nor ends: a machine that has lost its power, say. A step
takes seconds, and so does what the first process does while the others wait in one: scores, a checkpoint."""
JOINING = timedelta(minutes=5)
"""How long a process waits at the start for the others to join it; nothing tells of one that has died before."""
NOTICE = 15.0
"""Seconds after which it says so."""


class Elsewhere(InputError):
    """Another process has failed, and says why."""


class Lost(InputError):
    """A process that the others wait for has ended, or is out of reach."""


class Processes:
    """The processes of a training, as one of them sees them; alone by default."""

    def __init__(self, rank: int = 0, world: int = 1, store: Any = None, patient: Any = None) -> None:
        self.rank, self.world = rank, world
        self.store = store
        """What all can read and write, without waiting for each other."""
        self.patient = patient
        """The same processes, as a group of torch whose sums never run out of time."""
        self._stretches = 0

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def placed(self, device: torch.device) -> torch.device:
        """This process' own device of the kind of `device`."""
        import torch

        if self.world == 1 or device.type == "cpu":
            return device
        return torch.device(device.type, local_rank())

    @contextmanager
    def together(self) -> Iterator[None]:
        """A stretch of unlike work, however long it takes; all leave it together, and where one fails, all do.

        The others raise `Elsewhere`.
        """
        if self.world == 1:
            yield
            return
        self._stretches += 1
        names = [f"seqtext/{self._stretches}/{rank}" for rank in range(self.world)]
        try:
            yield
        except BaseException:
            self.store.set(names[self.rank], "failed")
            raise
        self._meet(names)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes; in their own device's memory."""
        if self.world == 1:
            return value
        import torch.distributed as dist

        total = value.clone()
        with watched(self):
            dist.all_reduce(total)
        return total

    def largest(self, number: int) -> int:
        """The largest of the processes' numbers."""
        if self.world == 1:
            return number
        import torch
        import torch.distributed as dist

        found = torch.tensor(number)
        with watched(self):
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def wait(self) -> None:
        """Wait for all to come here."""
        self.largest(0)

    def tell(self, value: Any) -> Any:
        """The first process' JSON value, in all."""
        return value if self.world == 1 else json.loads(self.send(json.dumps(value).encode() if self.first else b""))

    def send(self, data: bytes) -> bytes:
        """The first process' bytes, in all."""
        if self.world == 1:
            return data
        import torch
        import torch.distributed as dist

        size = self.largest(len(data) if self.first else 0)
        block = torch.zeros(size, dtype=torch.uint8)
        if self.first and size:
            block = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        with watched(self):
            dist.broadcast(block, 0)
        return block.numpy().tobytes()

    def share(self, tensors: list[Tensor]) -> None:
        """Fill each process' tensors with those of the first."""
        if self.world == 1:
            return
        import torch.distributed as dist

        for tensor in tensors:
            with watched(self):
                dist.broadcast(tensor.detach(), 0)

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, in order; in the first, in the others nothing.

        It travels as torch.distributed sends objects, between processes of one training; none of it is from a file.
        """
        if self.world == 1:
            return [value]
        import torch.distributed as dist

        found = [None] * self.world if self.first else None
        with watched(self):
            dist.gather_object(value, found)
        return found or []

    def rows(self, tensor: Tensor) -> Tensor:
        """Of rows (B, ...), this process' share."""
        return tensor[self.rank :: self.world]

    def whole(self, share: Tensor) -> Tensor:
        """The opposite of `rows`: shares (b, ...) of all processes -> (B, ...), in each of them."""
        if self.world == 1:
            return share
        import torch

        size = int(self.sum(torch.tensor(len(share))))
        total = share.new_zeros(size, *share.shape[1:])
        self.rows(total).copy_(share)
        return self.sum(total)

    def each(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, of one size, in each of them."""
        return list(self.whole(tensor.unsqueeze(0)))

    def _meet(self, names: list[str]) -> None:
        """Wait until all are here or one has said under its name that it failed, or has gone."""
        import torch
        import torch.distributed as dist

        pause = 0.01
        with watched(self):
            # A sum, since one that has died closes its connections; by asking for its end, since to wait for it would
            # be deaf to signals and to those who fail.
            met: Any = dist.all_reduce(torch.zeros(1), group=self.patient, async_op=True)
            while True:
                over = met.is_completed()
                for rank, name in enumerate(names):
                    if self.store.check([name]):
                        raise Elsewhere(f"process {rank} of {self.world} has failed")
                if over:
                    break
                time.sleep(pause)
                pause = min(2 * pause, 0.5)
            met.wait()


ALONE = Processes()
_joined: Processes | None = None


@contextmanager
def watched(group: Processes) -> Iterator[None]:
    """Where a sum fails since a process has gone: raises `Lost`."""
    try:
        yield
    except RuntimeError as error:
        if group.world == 1 or not _of_others(error):
            raise
        raise Lost(f"one of the {group.world} processes has ended or is out of reach") from None


def join(device: str) -> Processes:
    """The group of this process, made at the first call; alone where no launcher has started several.

    `device` is as `resolve_device` takes it. Raises `DeviceError` for more processes than this machine has GPUs, `Lost`
    where the others do not come.
    """
    global _joined
    if _joined is not None or not several():
        return _joined or ALONE
    import torch
    import torch.distributed as dist
    from accelerate import PartialState
    from torch.distributed.distributed_c10d import _get_default_store, _set_pg_timeout

    cuda = device != "cpu" and torch.cuda.is_available()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if cuda and here > torch.cuda.device_count():
        raise DeviceError(
            f"{here} processes were started on a machine with {torch.cuda.device_count()} CUDA device(s): start as "
            "many as it has, or give --device cpu"
        )
    with _joining():
        state = PartialState(cpu=not cuda, backend="cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=JOINING)
        patient = dist.new_group(backend="gloo", timeout=timedelta(days=365))
    store = _get_default_store()
    store.set_timeout(PATIENCE)
    _set_pg_timeout(PATIENCE)
    _joined = Processes(state.process_index, state.num_processes, store, patient)
    return _joined


@contextmanager
def _joining() -> Iterator[None]:
    """Says, once it takes long, that this process waits for the others to join, and raises `Lost` where they do not."""
    who = f"process {os.environ.get('RANK', '0')} of {os.environ['WORLD_SIZE']}"
    where = f"{os.environ.get('MASTER_ADDR', '?')}:{os.environ.get('MASTER_PORT', '?')}"
    patience = f"{JOINING.total_seconds() / 60:g} minutes"
    told = f"seqtext: {who} waits for the others to join at {where}, for {patience} at most"
    timer = threading.Timer(NOTICE, logging.getLogger(__name__).warning, [told])
    timer.daemon = True
    timer.start()
    try:
        yield
    except RuntimeError as error:
        if not _of_others(error):
            raise
        reason = str(error).splitlines()[0]
        raise Lost(f"{who}: the others have not joined at {where} ({reason}); start all of them again") from None
    finally:
        timer.cancel()


def _of_others(error: RuntimeError) -> bool:
    """Whether this is torch's way to say that another process is not there."""
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error)


def several() -> bool:
    """Whether a launcher has started several processes."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def local_rank() -> int:
    """The number of this process among those of its machine."""
    return int(os.environ.get("LOCAL_RANK", "0")) if several() else 0


def is_first() -> bool:
    """Whether this process is the one that writes, or the only one."""
    return not several() or os.environ.get("RANK", "0") == "0"


def tells(error: InputError) -> bool:
    """Whether this process is to tell the user of `error`: the first that has one does."""
    if isinstance(error, Elsewhere):
        return False
    if _joined is None:
        return local_rank() == 0 or isinstance(error, Lost)  # whose first one may be the one that is lost
    try:
        return int(_joined.store.add("seqtext/told", 1)) == 1
    except RuntimeError:
        return True  # who kept the count has gone


def leave(status: int = 0) -> None:
    """End this process' part in its group, if it has one; with a `status` other than 0, end the process at once.

    What is left of a group after a failure may wait for the others for ever.
    """
    if _joined is None:
        return
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    import torch.distributed as dist

    dist.destroy_process_group()
