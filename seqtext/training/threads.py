"""How many threads torch computes with, unless the user says.

The rule: the physical cores that this process may use (its CPU affinity, and the CPU quota of its control groups, which
is what limits a container), and `MOST` at most. One step of a recurrent layer is tens of microseconds of work on a
core, and the threads wait for each other after every one: past a few cores that costs more than they bring, and on a
machine that others use too, far more. What the machine is busy with at the moment does not count, so that a run that
goes on has as many threads as before, and so the same sums bit for bit.

`--threads N` or OMP_NUM_THREADS decides otherwise, and so does `torch.set_num_threads` of a program that uses seqtext.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

import torch

MOST = 4
ROOT = Path("/")


def limit_threads() -> None:
    """Bring torch down to the rule's number of threads, where neither the environment nor the program chose one."""
    cpus, now = allowed(), torch.get_num_threads()
    # What torch chooses for itself is one of these two; any other number was someone's wish.
    if not os.environ.get("OMP_NUM_THREADS") and now in (len(cpus), cores(cpus)):
        torch.set_num_threads(min(now, chosen()))


def allowed() -> set[int]:
    """The logical CPUs that this process may run on."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def chosen(root: Path = ROOT) -> int:
    """The rule's number of threads; `root` is where the system's files are."""
    return max(1, min(MOST, cores(allowed(), root), _quota(root)))


def cores(cpus: set[int], root: Path = ROOT) -> int:
    """How many physical cores these logical CPUs are; two threads of a core share its arithmetic."""
    found = set()
    for cpu in cpus:
        about = root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
        siblings = str(cpu)
        with suppress(OSError):
            siblings = about.read_text().strip()
        found.add(siblings)
    return len(found)


def _quota(root: Path) -> int:
    """The CPU quota of this process's control groups in whole cores, rounded up; a large number for none."""
    limits = [math.inf]
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, group = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            # Version 2 has one tree; version 1 one a controller, which containers see at its top.
            top = root / "sys/fs/cgroup" / ("cpu" if controllers else "")
            place = top / group.lstrip("/")
            while True:
                limits.append(_limit(place))
                if place == top:
                    break
                place = place.parent
    return math.ceil(min(min(limits), 2**16))


def _limit(group: Path) -> float:
    """The cores that one control group may use: microseconds of computing in a period, over the period."""
    with suppress(OSError, ValueError):
        allowed, period = (group / "cpu.max").read_text().split()
        return int(allowed) / int(period)  # "max", for none, is no number
    with suppress(OSError, ValueError):
        allowed, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if int(allowed) > 0:
            return int(allowed) / int(period)
    return math.inf
