"""The model of a step of several workers, against a ring simulated message by message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import scaling  # noqa: E402
from scaling import Cost, Link  # noqa: E402

LINK = Link("test", 1e-3, 1e6)


def simulated(parts: list[list[float]], link: Link) -> float:
    """Seconds until each worker of a ring has the sum of all; each begins with a part of 1 KB for every worker."""
    count, clock = len(parts), 0.0
    total = [sum(column) for column in zip(*parts)]
    for turn in range(2 * (count - 1)):
        adds = turn < count - 1
        sent = [(worker - turn) % count for worker in range(count)]
        values = [parts[worker][part] for worker, part in enumerate(sent)]
        for worker in range(count):  # all send and receive at once
            part, value = sent[worker - 1], values[worker - 1]
            parts[worker][part] = parts[worker][part] + value if adds else value
        clock += link.latency + 1e3 / link.bandwidth
    assert all(worker == total for worker in parts)
    return clock


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_a_ring_takes_as_long_as_its_messages(workers: int) -> None:
    parts = [[float(10 * worker + part) for part in range(workers)] for worker in range(workers)]
    assert simulated(parts, LINK) == pytest.approx(scaling.ring(workers, 1e3 * workers, LINK))


def test_a_step_is_computation_and_what_of_the_exchange_does_not_overlap() -> None:
    cost = Cost(fixed=0.01, token=1e-4, tokens=1000, size=300_000)
    assert scaling.step(cost, 1, LINK) == pytest.approx((0.11, 0.11))
    ring, small = 2 * (1e-3 + 0.15), 8e-3
    assert scaling.step(cost, 2, LINK) == pytest.approx((0.06 + small + ring - 0.04, 0.06 + small + ring))
    assert scaling.step(cost, 2, LINK, weak=True)[1] == pytest.approx(0.11 + small + ring)
    fast = Link("fast", 0.0, 1e12)
    assert scaling.step(cost, 4, fast)[0] == pytest.approx(0.035)  # all of it overlaps


@pytest.mark.slow
def test_the_script_measures_two_processes(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "scaling.py"), "sentiment", "--steps", "2", "--repeats", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command += ["--json", str(tmp_path / "figures.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "figures.json").read_text())["recipes"]["sentiment"]
    assert found["gradient KB"] == pytest.approx(4 * 69.1)
    assert all(found[key] > 0 for key in ("tokens", "whole", "half", "halves", "two", "exchange", "two/model"))
    assert "a batch as large for each worker" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the limit and what it counts are Linux's")
def test_a_corpus_is_streamed_under_a_limit(tmp_path: Path) -> None:
    words = ["--tokens", "30000", "--steps", "2", "--limit", "1500", "--folder", str(tmp_path)]
    command = [sys.executable, str(ROOT / "scripts" / "stream.py"), *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    stages = [line for line in done.stdout.splitlines() if "tokens/s" in line]
    assert [line.partition(":")[0].split("  ")[0] for line in stages] == [
        "generating the text",
        "reading",
        "counting words",
        "encoding",
        "batching",
        "training",
    ]
    assert len((tmp_path / "train.txt").read_text().split()) == 30_000
