"""How many threads torch gets: by cores, affinity and quota, and the user's word before all."""

from __future__ import annotations

import os

import pytest
import torch

from seqtext.training import threads
from seqtext.training.threads import chosen, limit_threads


def machine(root, *, cpus=16, per_core=1, files=()):
    """The system's files of a machine."""
    for cpu in range(cpus):
        folder = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
        folder.mkdir(parents=True)
        first = cpu - cpu % per_core
        (folder / "thread_siblings_list").write_text(",".join(str(first + i) for i in range(per_core)) + "\n")
    for name, text in dict(files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


V2 = {"proc/self/cgroup": "0::/work/job\n"}
V1 = {"proc/self/cgroup": "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n"}


@pytest.mark.parametrize(
    ("allowed", "about", "expected"),
    [
        ({0}, {}, 1),
        ({0, 1}, {}, 2),
        (set(range(16)), {}, 4),  # the most
        ({0, 1}, {"per_core": 2}, 1),  # two threads of one core
        (set(range(8)), {"per_core": 4}, 2),
        ({3, 7}, {"cpus": 0}, 2),  # a system that does not tell
        (set(range(16)), {"files": V2 | {"sys/fs/cgroup/work/job/cpu.max": "200000 100000\n"}}, 2),
        (set(range(16)), {"files": V2 | {"sys/fs/cgroup/work/cpu.max": "150000 100000\n"}}, 2),  # of the group above
        (set(range(16)), {"files": V2 | {"sys/fs/cgroup/cpu.max": "50000 100000\n"}}, 1),
        (set(range(16)), {"files": V2 | {"sys/fs/cgroup/work/job/cpu.max": "max 100000\n"}}, 4),
        (set(range(16)), {"files": {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "300000 100000"}}, 3),
        (
            set(range(16)),
            {
                "files": V1
                | {f"sys/fs/cgroup/cpu/cpu.cfs_{k}_us": v for k, v in {"quota": "30", "period": "10"}.items()}
            },
            3,
        ),
        (
            set(range(16)),
            {"files": V1 | {f"sys/fs/cgroup/cpu/cpu.cfs_{k}_us": v for k, v in {"quota": "-1", "period": "9"}.items()}},
            4,
        ),
    ],
)
def test_the_rule_counts_cores_that_may_be_used(monkeypatch, tmp_path, allowed, about, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: allowed, raising=False)
    assert chosen(machine(tmp_path, **about)) == expected


@pytest.mark.parametrize(
    ("now", "wish", "expected"),
    [
        (16, None, [4]),  # what torch takes for itself: every logical CPU, or every core
        (8, None, [4]),
        (6, None, []),  # what the program set
        (1, None, []),
        (16, "16", []),
    ],
)
def test_torch_is_limited_where_nobody_chose(monkeypatch, now, wish, expected):
    monkeypatch.setattr(threads, "cores", lambda cpus, root=None: 8)
    monkeypatch.setattr(threads, "allowed", lambda: set(range(16)))
    monkeypatch.setattr(torch, "get_num_threads", lambda: now)
    found = []
    monkeypatch.setattr(torch, "set_num_threads", found.append)
    if wish is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", wish)
    monkeypatch.setattr(threads, "_quota", lambda root: 100)
    limit_threads()
    assert found == expected
