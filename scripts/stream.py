"""A corpus far larger than memory: generated, read, numbered and trained on under a memory limit that the system keeps.

    python scripts/stream.py --tokens 1_000_000_000 --limit 600 --folder DIR

The limit is that of `ulimit -d` (RLIMIT_DATA): all memory that a process may write to and no file stands behind, its
heap and its threads' stacks. Pages of memory-mapped files are not in it; the system takes them back as it likes. For
each stage it prints the seconds, tokens a second, and the most memory so far: resident (RssAnon in Linux's
/proc/self/status) and asked for (VmData, what the limit is on). It needs some 31 bytes of disk a token in --folder:
the text, its lines as Arrow, their numbers as Arrow.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import measure
import numpy as np

LINE = 30
"""Words of a line."""
WORDS = 10_000
"""Different words; as frequent as Zipf's law has it."""
LETTERS = 12
"""Of each word."""
FEWEST = 30_000
"""Words of a corpus."""
LEAST = 450
"""MiB that Python, torch and the model ask for, with the threads of 2 cores: 425 were measured."""
BLOCK = 1_000_000
"""Words that are generated at a time."""


class Memory:
    """The largest anonymous memory of this process, looked at twenty times a second."""

    def __init__(self) -> None:
        self.peak = self.asked = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.look()
            time.sleep(0.05)

    def look(self) -> tuple[float, float]:
        """MiB, so far: resident; and asked for, which is what the limit is on."""
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                self.peak = max(self.peak, int(line.split()[1]))
            elif line.startswith("VmData"):
                self.asked = max(self.asked, int(line.split()[1]))
        return self.peak / 1024, self.asked / 1024


@contextmanager
def stage(name: str, tokens: int, memory: Memory) -> Iterator[list[int]]:
    """Print what a stage took; it may say how many tokens it handled, where not all."""
    began, done = time.perf_counter(), [tokens]
    yield done
    seconds = time.perf_counter() - began
    shown = " ".join(f"{value:>6.0f}" for value in memory.look())
    print(f"{name:<46} {seconds:>8.1f} s {done[-1] / seconds:>12,.0f} tokens/s {shown} MiB", flush=True)


def generate(path: Path, tokens: int) -> None:
    """Write lines of random words."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rng = np.random.default_rng(0)
    letters = rng.integers(97, 123, (WORDS, LETTERS), dtype=np.uint8)
    words = pa.array([bytes(row).decode() for row in letters])
    share = 1.0 / np.arange(1, WORDS + 1)
    bounds = np.cumsum(share / share.sum())
    with path.open("wb") as file:
        for first in range(0, tokens, BLOCK):
            size = min(BLOCK, tokens - first)
            chosen = np.searchsorted(bounds, rng.random(size)).clip(max=WORDS - 1)
            starts = np.append(np.arange(0, size, LINE), size)
            lines = pa.ListArray.from_arrays(pa.array(starts, pa.int32()), words.take(pa.array(chosen)))
            joined = pc.binary_join(lines, " ")
            whole = pa.ListArray.from_arrays(pa.array([0, len(joined)], pa.int32()), joined)
            file.write(pc.binary_join(whole, "\n")[0].as_buffer())
            file.write(b"\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--tokens", type=measure.count, default=20_000_000, help="words of the corpus (default 20,000,000)"
    )
    parser.add_argument(
        "--limit", type=measure.count, default=600, help="MiB of memory, as of `ulimit -d` (default 600)"
    )
    parser.add_argument("--steps", type=measure.count, default=200, help="steps of training (default 200)")
    parser.add_argument("--folder", required=True, help="where the corpus and its caches are put, and kept")
    parser.add_argument("--generate", action="store_true", help="only write the text, without the limit")
    arguments = parser.parse_args()
    if arguments.tokens < FEWEST:
        parser.error(f"--tokens {arguments.tokens}: a thousandth of the lines is held out; expected {FEWEST:,} or more")
    if arguments.limit < (least := LEAST + arguments.tokens // 10_000_000):  # 509 of 550 were measured with a billion
        parser.error(
            f"--limit {arguments.limit}: {arguments.tokens:,} tokens take {least} MiB or more on 2 cores, and 8 MiB "
            "more with each further thread"
        )
    try:
        folder = measure.folder(arguments.folder)
    except argparse.ArgumentTypeError as error:
        parser.error(f"--folder {error}")
    tokens, path = arguments.tokens, folder / "train.txt"
    if arguments.generate:
        with stage("generating the text", tokens, Memory()):
            generate(folder / "unfinished.txt", tokens)
        (folder / "unfinished.txt").rename(path)
        return
    if not path.is_file():  # in a process of its own, for what is measured here not to begin with what it leaves
        subprocess.run([sys.executable, __file__, *sys.argv[1:], "--generate"], check=True)
    os.environ["SEQTEXT_CACHE"] = str(folder / "cache")
    # Arrow's usual allocator sets a gigabyte of address space aside, which counts before it is used.
    os.environ["ARROW_DEFAULT_MEMORY_POOL"] = "system"
    resource.setrlimit(resource.RLIMIT_DATA, (arguments.limit << 20, arguments.limit << 20))
    memory = Memory()

    from seqtext import recipe as recipes

    size = path.stat().st_size
    print(f"{path}: {size:,} bytes, {size / (arguments.limit << 20):.1f} times the limit of {arguments.limit} MiB")

    import torch

    from seqtext.task import Task
    from seqtext.training.distributed import Devices
    from seqtext.training.loop import Stepped, fit

    changes = {"data.train": str(path), "data.hold_out": 0.001, "data.pretokenized": "yes", "train.batch_tokens": 350}
    chosen = recipes.load("lm", changes)
    with stage("reading: text to lines in Arrow", tokens, memory):
        train = chosen.task.read(chosen.data, "train")
    with stage("counting words", tokens, memory):
        task: Task = chosen.task.fit(chosen.data, train)
    with stage("encoding: lines to numbers in Arrow", tokens, memory):
        encoded = task.encode(train)
    batches = task.batches(encoded, tokens=chosen.train.batch_tokens, shuffle=np.random.default_rng(0))
    with stage("batching: one whole pass, without the model", tokens, memory) as done:
        done.append(sum(int(batch.lengths.sum()) for batch in batches))
    torch.manual_seed(1)
    module = task.build(chosen.model)
    events = fit(task, module, encoded, None, chosen.train, devices=Devices(torch.device("cpu")), seed=1)
    with stage(f"training: {arguments.steps:,} steps", tokens, memory) as done:
        steps = (event for event in events if isinstance(event, Stepped))
        *_, last = islice(steps, arguments.steps)
        done.append(last.tokens)
    events.close()
    mapped = sum(file.stat().st_size for file in (folder / "cache").iterdir())
    times = (size + mapped) / (arguments.limit << 20)
    print(f"Arrow caches: {mapped:,} bytes; with the text {times:.1f} times the limit")


if __name__ == "__main__":
    try:
        main()
    except MemoryError:
        sys.exit("stream.py: the limit is too low")
