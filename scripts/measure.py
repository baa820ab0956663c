"""What the speed benchmarks share: rates, shares of time by kind of kernel, the machine's matrix rate, the report."""

from __future__ import annotations

import itertools
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from seqtext.errors import InputError

RECURRENCES = {"aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu"}
PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::mv", "aten::dot"}
BACKWARD = "autograd::engine::evaluate_function: "

Figures = dict[str, list[float]]


def epochs(events: Iterator[Any]) -> Iterator[float]:
    """Real tokens a second of one epoch after another."""
    from seqtext.training.loop import EpochEnded

    for event in events:
        if isinstance(event, EpochEnded):
            yield event.tokens / event.seconds


def chunks(events: Iterator[Any], *, steps: int) -> Callable[[], int]:
    """A function that takes the next `steps` steps of a training and gives their real tokens."""
    from seqtext.training.loop import Stepped

    before = 0

    def take() -> int:
        nonlocal before
        total = 0
        for event in itertools.islice((event for event in events if isinstance(event, Stepped)), steps):
            # An event counts the tokens of its epoch so far, so a smaller count begins another epoch.
            total += event.tokens - (before if event.tokens > before else 0)
            before = event.tokens
        return total

    return take


def rate(work: Callable[[], int]) -> float:
    """Tokens a second of `work`, which gives the tokens that it handled."""
    began = time.perf_counter()
    tokens = work()
    return tokens / (time.perf_counter() - began)


def shares(work: Callable[[], int]) -> dict[str, float]:
    """Shares of the time of `work` in recurrent kernels and in other matrix products, forward and backward.

    The profiler slows small operations several times over and hardly the large ones: so a share is the time of its
    kernels under the profiler, over the time that as many tokens take without it, just before and just after.
    """
    from torch.profiler import ProfilerActivity, profile

    before = 1.0 / rate(work)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        tokens = work()
    after = 1.0 / rate(work)
    plain = tokens * (before + after) / 2
    recurrence, products = kernel_seconds(profiler.events())
    return {
        "the recurrence": recurrence / plain,
        "matrix products": products / plain,
        "the two together": (recurrence + products) / plain,
    }


def kernel_seconds(events: Any) -> tuple[float, float]:
    """Seconds in recurrent kernels, and in matrix products outside them."""
    # The numbers of the autograd nodes that recurrent kernels made, by which their backward halves are known.
    nodes = {event.sequence_nr for event in events if event.sequence_nr >= 0 and _within(event, _is_recurrence)}

    def is_recurrent(event: Any) -> bool:
        return _is_recurrence(event) or (event.name.startswith(BACKWARD) and event.sequence_nr in nodes)

    recurrence = products = 0.0
    for event in events:
        if _within(event.cpu_parent, is_recurrent):
            continue
        if is_recurrent(event):
            recurrence += event.cpu_time_total
        elif event.name in PRODUCTS:
            products += event.self_cpu_time_total
    return recurrence / 1e6, products / 1e6


def _is_recurrence(event: Any) -> bool:
    return event.name in RECURRENCES


def _within(event: Any, matches: Callable[[Any], bool]) -> bool:
    """Whether an event, or one that it is part of, matches."""
    while event is not None:
        if matches(event):
            return True
        event = event.cpu_parent
    return False


def matrix_rate(size: int = 1024) -> float:
    """FLOP/s of one large float32 matrix product on this machine, now: the best of several."""
    import torch

    a, b, out = torch.randn(size, size), torch.randn(size, size), torch.empty(size, size)
    best = float("inf")
    for _ in range(8):
        began = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def peak_memory(command: Sequence[str], *, cache: Path) -> float:
    """MB resident at most in `python -m COMMAND`, with an empty cache of data.

    Call it before the calling process has grown: on Linux a new process inherits the peak of the one that started it.
    """
    environment = os.environ | {"SEQTEXT_CACHE": str(cache)}
    whole = [sys.executable, "-m", *command]
    child = subprocess.Popen(whole, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)
    assert child.stderr is not None
    said = child.stderr.read()
    # Waited for here and not by `subprocess`, for the memory of this child alone.
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise InputError(f"{' '.join(whole)}: exit code {child.returncode}\n{said}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6  # macOS counts bytes, Linux KiB


def is_ratio(name: str) -> bool:
    """Whether a figure is one of two things measured together, which another load of the machine changes least."""
    return "share" in name or " / " in name


def report(figures: Figures) -> None:
    """Print ratios first, then the rest: median (smallest-largest)."""
    for title, wanted in (("ratios", True), ("figures", False)):
        print(f"\n{title}, median (min-max)")
        for name, values in figures.items():
            if is_ratio(name) != wanted:
                continue
            low, middle, high = (_show(value) for value in (min(values), statistics.median(values), max(values)))
            print(f"  {name:<52} {middle:>10}" + (f"  ({low}-{high})" if len(values) > 1 else ""))


def _show(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def processor() -> str:
    """The processor's model where the system tells it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text().splitlines() if about.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
