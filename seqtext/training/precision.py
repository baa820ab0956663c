"""Which number format computes faster on this machine, for `precision = "auto"`: measured once, and remembered.

What is measured is one step of training, float32 beside bf16 several times over: a recurrent layer of usual width and
a product as large as an output layer's. The medians of the pairs are filed in precision.json of the cache folder, by
processor, torch and number of threads, where the pairs agree: on a busy machine another minute may say otherwise. Only
a clear gain counts: narrower layers than this one gain less from bf16.
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from seqtext.data.cache import cache_folder
from seqtext.files import locked, write_json

FILE = "precision.json"
GAIN = 1.2
"""By how much bf16 must be faster to be chosen."""
PAIRS = 9


class Choice(NamedTuple):
    """A number format that was chosen for the user."""

    precision: str
    """float32 or bf16."""
    why: str
    """What it was chosen by, for people."""


def choose(device: torch.device) -> Choice:
    """The faster format on `device`, by a measurement of less than a second where none is on file.

    Processes that ask at the same time wait for each other, so that they get the same answer. A file that is damaged
    or cannot be written costs another measurement.
    """
    key = machine(device)
    folder = cache_folder()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, wait=True):
        known = _read(folder / FILE)
        gain = known.get(key)
        how = "measured before"
        if gain is None:
            pairs = measure(device)
            gain, how = round(statistics.median(pairs), 3), "measured now"
            if not _agree(pairs):
                how = "measured now, on a busy machine, and to be measured again"
            else:
                with suppress(OSError):
                    write_json(folder / FILE, {**known, key: gain})
    precision = "bf16" if gain >= GAIN else "float32"
    return Choice(precision, f"a layer trains {gain:.2f} times as fast in bf16 as in float32 ({how}: {key})")


def resolve(precision: str, device: torch.device) -> Choice | None:
    """What "auto" is on `device`; None for a format that was given by name."""
    return choose(device) if precision == "auto" else None


def machine(device: torch.device) -> str:
    """What a measurement holds for."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    threads = torch.get_num_threads()
    return f"{processor()}, torch {torch.__version__}, {threads} thread{'s' * (threads != 1)}"


def processor() -> str:
    """The processor's model where the system tells it."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8", errors="replace").splitlines() if about.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _agree(pairs: Sequence[float]) -> bool:
    """Whether the middle half of some gains comes to the same choice."""
    quartiles = statistics.quantiles(pairs, n=4) if len(pairs) > 1 else list(pairs)
    return (quartiles[0] >= GAIN) == (quartiles[-1] >= GAIN)


def measure(device: torch.device) -> list[float]:
    """How many times as fast as in float32 a step of training is in bf16, several times over.

    Leaves torch's random numbers as they were.
    """
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        layer = nn.LSTM(200, 256, batch_first=True).to(device)
        output = nn.Linear(256, 1024).to(device)
        x = torch.randn(16, 25, 200, device=device, requires_grad=True)

    def step(precision: torch.dtype) -> float:
        _wait(device)
        began = time.perf_counter()
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            loss = output(layer(x)[0]).float().square().sum()
        loss.backward()
        _wait(device)
        return time.perf_counter() - began

    pairs = []
    for _ in range(PAIRS + 2):
        pairs.append(step(torch.float32) / step(torch.bfloat16))
        if pairs[-1] < 0.25:  # bf16 that the processor does not have natively; nothing is left to find out
            break
    return pairs[2:] or pairs[-1:]


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _read(path: Path) -> Mapping[str, Any]:
    """The gains on file; none of a file that is missing or damaged."""
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: gain for key, gain in known.items() if isinstance(gain, int | float) and 0 < gain < float("inf")}
