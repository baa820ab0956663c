"""What the speed benchmarks share: their options, rates, shares of time by kind of kernel, the machine's matrix rate,
the report.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seqtext.errors import InputError

# Torch's profiler would report its own start and stop on stderr, above the level of errors; read when it starts.
os.environ.setdefault("KINETO_LOG_LEVEL", "6")

if TYPE_CHECKING:
    import torch

RECURRENCES = {"aten::lstm", "aten::gru", "aten::rnn_tanh", "aten::rnn_relu"}
PRODUCTS = {
    "aten::mm",
    "aten::addmm",
    "aten::bmm",
    "aten::baddbmm",
    "aten::mv",
    "aten::dot",
    "mkldnn::_linear_pointwise",
}
BACKWARD = "autograd::engine::evaluate_function: "

Figures = dict[str, list[float]]


def epochs(events: Iterator[Any]) -> Iterator[float]:
    """Real tokens a second of one epoch after another."""
    from seqtext.training.loop import EpochEnded

    for event in events:
        if isinstance(event, EpochEnded):
            yield event.tokens / event.seconds


def step_tokens(events: Iterator[Any]) -> Iterator[int]:
    """Real tokens of one step of a training after another."""
    from seqtext.training.loop import Stepped

    before = 0
    for event in events:
        if isinstance(event, Stepped):
            # An event counts the tokens of its epoch so far, so a smaller count begins another epoch.
            yield event.tokens - (before if event.tokens > before else 0)
            before = event.tokens


def chunk(tokens: Iterator[int], *, steps: int) -> Callable[[], int]:
    """A function that takes the next `steps` steps and gives their tokens."""
    return lambda: sum(itertools.islice(tokens, steps))


def lasting(tokens: Iterator[int], *, seconds: float) -> Callable[[], int]:
    """A chunk of so many steps as take about `seconds`, two at least; some are taken to warm up and to find out."""
    next(tokens), next(tokens)
    began = now()
    next(tokens)
    return chunk(tokens, steps=max(2, round(seconds / (now() - began))))


def now() -> float:
    """Seconds on a clock, once a GPU, where one is used, has done all that it was given."""
    if on_gpu():
        sys.modules["torch"].cuda.synchronize()
    return time.perf_counter()


def on_gpu() -> bool:
    """Whether this process uses a GPU. Does not import torch."""
    return "torch" in sys.modules and bool(sys.modules["torch"].cuda.is_initialized())


def rate(work: Callable[[], int]) -> float:
    """Tokens a second of `work`, which gives the tokens that it handled."""
    began = now()
    tokens = work()
    return tokens / (now() - began)


def latencies(work: Callable[[Any], object], items: Iterable[Any]) -> list[float]:
    """Seconds of `work` for each item, one at a time, shortest first."""
    times = []
    for item in items:
        began = now()
        work(item)
        times.append(now() - began)
    return sorted(times)


def percentiles(times: Sequence[float], of: str) -> Figures:
    """The middle and the 95th percentile of sorted seconds, as figures of the latency of one `of`."""
    places = {"p50": len(times) // 2, "p95": int(len(times) * 0.95)}
    return {f"latency of a {of}, {name} ms": [1e3 * times[place]] for name, place in places.items()}


def in_turn(items: Sequence[Any], first: int, count: int) -> list[Any]:
    """So many items from number `first` on, from the beginning again where they end."""
    return [items[number % len(items)] for number in range(first, first + count)]


@contextmanager
def one_by_one() -> Iterator[None]:
    """Within, batches are predicted one after another, and the directions of a layer trained so.

    The profiler and a clock of parts see one thread only.
    """
    from seqtext.nn import side_by_side

    workers, side_by_side.WORKERS = side_by_side.WORKERS, 1
    try:
        yield
    finally:
        side_by_side.WORKERS = workers


@one_by_one()
def shares(work: Callable[[], int]) -> dict[str, float]:
    """Shares of the time of `work` in recurrent kernels and in other matrix products, forward and backward.

    The profiler slows small operations several times over and hardly the large ones: so a share is the time of its
    kernels under the profiler, over the time that as many tokens take without it, just before and just after. Batches
    that are otherwise predicted side by side, and directions that are trained so, run one after another here.
    """
    from torch.profiler import profile

    before = 1.0 / rate(work)
    with profile(activities=activities()) as profiler:
        tokens = work()
    after = 1.0 / rate(work)
    plain = tokens * (before + after) / 2
    recurrence, products = kernel_seconds(profiler.events())
    return {
        "the recurrence": recurrence / plain,
        "matrix products": products / plain,
        "the two together": (recurrence + products) / plain,
    }


def activities() -> list[Any]:
    """What torch's profiler should record."""
    from torch.profiler import ProfilerActivity

    return [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu() else [])]


def microseconds(event: Any, *, own: bool = False) -> float:
    """Time of a profiler's event, or of what it does itself: that of its kernels where a GPU is used."""
    prefix, kind = "self_" if own else "", "device" if on_gpu() else "cpu"
    return float(getattr(event, f"{prefix}{kind}_time_total"))


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
            recurrence += microseconds(event)
        elif event.name in PRODUCTS:
            products += microseconds(event, own=True)
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


def matrix_rates(device: str = "cpu") -> dict[str, float]:
    """FLOP/s of one large matrix product on this machine, now, the best of several, by kernel and number format.

    torch.mm is what a linear layer runs; oneDNN's float32 kernel is twice as fast on some processors, and the same on
    others.
    """
    size = 1024 if device == "cpu" else 8192
    import torch

    from seqtext.nn.products import product

    wide, bf16 = torch.float32, torch.bfloat16
    kernels: dict[str, tuple[Callable[..., Any], torch.dtype]]
    kernels = {"torch.mm": (torch.mm, wide), "float32": (product, wide), "bf16": (product, bf16)}
    rates = {}
    for name, (kernel, number) in kernels.items():
        a, b = torch.randn(2, size, size, dtype=number, device=device).unbind()
        best = float("inf")
        for _ in range(8):
            began = now()
            kernel(a, b)
            best = min(best, now() - began)
        rates[name] = 2 * size**3 / best
    return rates | {"float32": max(rates["float32"], rates["torch.mm"])}


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


def start_up(*arguments: str, given: str = "") -> float:
    """Seconds that a new Python takes from its start to its end; `given` is what it reads."""
    whole = [sys.executable, *arguments]
    began = time.perf_counter()
    done = subprocess.run(whole, input=given, capture_output=True, text=True, encoding="utf-8")
    seconds = time.perf_counter() - began
    if done.returncode:
        raise InputError(f"{' '.join(whole)}: exit code {done.returncode}\n{done.stderr}")
    return seconds


def is_ratio(name: str) -> bool:
    """Whether a figure is one of two things measured together, which another load of the machine changes least."""
    return "share" in name or " / " in name


def report(figures: Figures) -> None:
    """Print ratios first, then the rest: median (smallest-largest)."""
    width = max(map(len, figures))
    for title, wanted in (("ratios", True), ("figures", False)):
        chosen = {name: values for name, values in figures.items() if is_ratio(name) == wanted}
        if chosen:
            print(f"\n{title}, median (min-max)")
        for name, values in chosen.items():
            low, middle, high = (_show(value) for value in (min(values), statistics.median(values), max(values)))
            print(f"  {name:<{width}} {middle:>10}" + (f"  ({low}-{high})" if len(values) > 1 else ""))


def _show(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def machine() -> dict[str, Any]:
    """What figures depend on beside the code that is measured."""
    import torch

    from seqtext import __version__
    from seqtext.training.precision import processor

    return {
        "seqtext": __version__,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "OpenMP": {key: value for key, value in os.environ.items() if key.startswith(("OMP_", "GOMP_", "KMP_"))},
        "load before": round(os.getloadavg()[0], 2),
    }


def count(text: str) -> int:
    """An option's whole number."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return value


def whole(text: str) -> int:
    """An option's whole number that may be 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: expected 0 or more")
    return value


def share(text: str) -> float:
    """An option's number above zero."""
    value = float(text)
    if not 0.0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: expected more than 0")
    return value


def new_file(text: str) -> str:
    """An option's file that is to be written in the end: told at once where it cannot be."""
    path = Path(text)
    if path.is_dir():
        raise argparse.ArgumentTypeError(f"{text}: is a folder, expected a file")
    inside = path.absolute().parent
    if not inside.is_dir() or not os.access(path if path.exists() else inside, os.W_OK):
        raise argparse.ArgumentTypeError(f"{text}: cannot be written")
    return text


def folder(text: str) -> Path:
    """An option's folder, which is made: told at once where it cannot be."""
    path = Path(text).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"{text}: {error.strerror}") from None
    return path


def options(about: str | None, *, recipe: str, data: str) -> argparse.ArgumentParser:
    """The options that all benchmarks have; `data` is what --data takes."""
    parser = argparse.ArgumentParser(description=(about or "").split("\n")[0])
    parser.add_argument("--data", metavar="DIR", help=f"{data}; default: synthetic")
    parser.add_argument("--recipe", default=recipe, help=f"a recipe by name or file (default {recipe})")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="a setting of it to change")
    parser.add_argument("--repeats", type=count, default=5, help="measurements of each figure (default 5)")
    parser.add_argument("--threads", type=count, help="threads of torch; default: what torch chooses")
    parser.add_argument("--json", metavar="FILE", type=new_file, help="also write all figures to this file")
    parser.add_argument(
        "--peak", action="store_true", help="also train an epoch in a process of its own for its memory"
    )
    return parser


def main(measure: Callable[[argparse.Namespace, Path], tuple[Mapping[str, Any], Figures]], arguments: Any) -> None:
    """Measure with a scratch folder, report, and write the JSON; an error of the user's is one message."""
    if arguments.threads:  # read by the OpenMP runtime when torch is imported
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="seqtext-bench-") as scratch:
            settings, figures = measure(arguments, Path(scratch))
    except InputError as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")
    report(figures)
    if arguments.json:
        write_json(arguments.json, {"settings": settings, "figures": summary(figures)})


def summary(figures: Figures) -> dict[str, Any]:
    """Figures as JSON objects: the median, and all values."""
    return {name: {"median": statistics.median(values), "all": values} for name, values in figures.items()}


def write_json(path: str, value: Any) -> None:
    Path(path).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def begin(settings: dict[str, Any]) -> dict[str, Any]:
    """Print what is measured and on what; both together are returned."""
    settings = settings | machine()
    for key, value in settings.items():
        print(f"{key}: {value}")
    print("measuring...", file=sys.stderr)
    return settings
