"""Trainings of tiny recipes in processes of their own, killed at a given moment: what the soak is made of.

A process is forked from this one, which has imported everything and computed nothing, and runs the command line itself;
or it starts from nothing, by `python -m seqtext`, which takes longer than these trainings do.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import tiny

PHASES = (
    "starting up",
    "reading the data",
    "preparing",
    "making the run",
    "training steps",
    "evaluating",
    "saving weights",
    "saving a checkpoint",
    "scoring at the end",
    "in a fresh process",
)


class Fault(Exception):
    """What a run shows that it must not."""


class Moment(NamedTuple):
    """When to kill."""

    after: float
    """Seconds from the start, or where there is a phase from its beginning."""
    phase: str = ""
    time: int = 1
    """Which time that this phase begins, from 1."""


class Place(NamedTuple):
    """Where a task's trainings are."""

    task: str
    scratch: Path

    @property
    def run(self) -> Path:
        return self.scratch / "runs" / "run"

    @property
    def reference(self) -> Path:
        return self.scratch / "reference"

    @property
    def log(self) -> Path:
        return self.scratch / "output.txt"

    def words(self, folder: Path) -> list[str]:
        """The command line that goes on with `folder`, or begins it."""
        if folder.exists():
            return ["train", "--resume", str(folder), "--device", "cpu"]
        data = ["--data", str(self.scratch / "corpus"), "--out", str(folder)]
        return ["train", self.task, *tiny.overrides(self.task), *data, "--device", "cpu"]


def warm_up() -> None:
    """Import what a training imports, so that forked processes need not; compute nothing and start no threads."""
    import datasets  # noqa: F401
    import sacrebleu  # noqa: F401
    import safetensors.torch  # noqa: F401
    import torch
    import torch._dynamo  # which optimizers import at their first step

    import seqtext.api
    import seqtext.cli.app
    import seqtext.cli.progress  # noqa: F401
    from seqtext.data.tokenizer import split_words

    split_words("Words.")
    torch.set_num_threads(1)
    threads = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    others = [name for name in threads[1:] if not name.startswith("jemalloc")]  # Arrow's, which only tidies up
    if others:
        raise SystemExit(f"soak.py: threads before the first fork, which the copies would lack: {', '.join(others)}")


def train(place: Place, fresh: bool, kill: Moment | None = None) -> tuple[int, str]:
    """Train until the end or the moment to `kill`: the exit status, negative for a signal, and the phase."""
    words = place.words(place.run)
    os.environ["SEQTEXT_CACHE"] = str(place.scratch / "cache")
    phases = mmap.mmap(-1, 1 + len(PHASES))  # the one under way, and how often each has begun
    with place.log.open("wb") as log:
        if fresh:
            command = [sys.executable, "-m", "seqtext", *words]
            number = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log).pid
        else:
            number = fork(lambda: command_line(words, log.fileno(), phases))
        handle = os.pidfd_open(number)

        def lives(seconds: float) -> bool:
            return not select.select([handle], [], [], seconds)[0]

        if kill is not None:
            if kill.phase:
                begun = 1 + PHASES.index(kill.phase)
                while phases[begun] < kill.time and lives(0.0005):
                    pass
            if lives(kill.after):
                os.kill(number, signal.SIGKILL)
        os.close(handle)
        status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    return status, PHASES[-1] if fresh else PHASES[phases[0]]


def fork(work: Callable[[], int]) -> int:
    """The process id of a copy of this process that does `work` and ends with its result as exit status."""
    sys.stdout.flush()
    sys.stderr.flush()
    if number := os.fork():
        return number
    status = 70
    try:
        status = work()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def command_line(words: Sequence[str], output: int, phases: mmap.mmap) -> int:
    """`seqtext` with these words, in this process, telling its phases."""
    from seqtext.cli.app import main

    for number in (1, 2):
        os.dup2(output, number)
    sys.argv = ["seqtext", *words]
    try:
        tell(phases)
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def tell(phases: mmap.mmap) -> None:
    """Have the parts of a training say, in shared memory, that they are under way."""
    from seqtext import run, session
    from seqtext.training import distributed

    def telling(module: Any, name: str, what: str, *, stays: bool = False) -> None:
        work, number = getattr(module, name), PHASES.index(what)

        def told(*given: Any, **options: Any) -> Any:
            before, phases[0] = phases[0], number
            phases[1 + number] = min(255, phases[1 + number] + 1)
            try:
                return work(*given, **options)
            finally:
                phases[0] = number if stays else before

        setattr(module, name, told)

    telling(session, "read_splits", "reading the data")
    telling(session, "encode", "preparing")
    telling(run, "create", "making the run")
    telling(session, "MetricsLog", "training steps", stays=True)  # from here on, all that is nothing else
    telling(distributed, "predict_all", "evaluating")
    telling(run, "save_weights", "saving weights")
    telling(session, "save_checkpoint", "saving a checkpoint")
    telling(session, "_finish", "scoring at the end")


def in_a_copy(work: Callable[[], int | None]) -> int:
    """What `work` gives, done in a copy of this process, which stays as it was. Raises the `Fault` that it raises."""
    reading, writing = os.pipe()

    def answer() -> int:
        try:
            told = json.dumps({"value": work()})
        except Fault as fault:
            told = json.dumps({"fault": str(fault)})
        except Exception:
            told = json.dumps({"fault": traceback.format_exc()})
        return os.write(writing, told.encode()[:60_000]) < 0

    number = fork(answer)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = json.loads(pipe.read())
    os.waitpid(number, 0)
    if "fault" in told:
        raise Fault(told["fault"])
    return told["value"] or 0
