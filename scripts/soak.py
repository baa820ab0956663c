"""A soak: trainings killed at random moments and resumed, again and again, must end as if nothing had happened.

    python scripts/soak.py [TASK ...] [--cycles 500] [--fresh 20] [--seed 1] [--json FILE] [--scratch DIR]

A cycle is a training (`seqtext train`, or `--resume` where a run stands already) that is killed with SIGKILL at a moment
drawn evenly over the time that a whole one takes; one that ends before its moment is no cycle, its run is compared
and another begun. Cycles are shared out evenly between the tasks. After every kill the last checkpoint must load and
be no older than the one before, and the weights must be finite. A run that ends must equal one that nothing
interrupted: weights and checkpoint bit for bit, metrics without a step missing or doubled, predictions, facts,
recipe, and no file left over, in the run or beside it. A fifth of the runs start with an empty data cache; a
quarter of those that ended are resumed and killed once more.

Starting Python and torch takes longer than these trainings do. So all but --fresh of the cycles are processes forked
from one that has imported everything and computed nothing; they run the command line itself
and die by a real SIGKILL. The others start from nothing, by `python -m seqtext`.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import select
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import tiny

from seqtext.tasks import TASKS

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
    "a fresh process",
)
COLD, AGAIN = 0.2, 0.25
"""Shares of runs that start without a data cache, and of ended runs that are resumed and killed."""
SAME = ("checkpoints/last/state.json", "predictions.valid.jsonl", "recipe.toml")
CLOCK = ("seconds", "tokens_per_second")


class Fault(Exception):
    """What a run shows that it must not."""


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", metavar="TASK", nargs="*", default=list(TASKS), help=f"of {', '.join(TASKS)}")
    parser.add_argument("--cycles", type=int, default=500, help="kills, over all tasks (default 500)")
    parser.add_argument("--fresh", type=int, default=20, help="of these, in processes that start from nothing")
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to a file as well")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="keep runs and output here")
    given = parser.parse_args()
    if unknown := [task for task in given.tasks if task not in TASKS]:
        parser.error(f"no task {unknown[0]!r}; the tasks: {', '.join(TASKS)}")
    os.environ["OMP_NUM_THREADS"] = "1"  # of fresh processes; sums come in one order
    scratch = Path(given.scratch or tempfile.mkdtemp(prefix="soak-")).absolute()
    try:
        totals = soak(given.tasks, given.cycles, given.fresh, given.seed, scratch)
    finally:
        if not given.scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    if given.json:
        given.json.write_text(json.dumps(totals, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if totals["faults"] else 0)


def soak(tasks: Sequence[str], cycles: int, fresh: int, seed: int, scratch: Path) -> dict[str, Any]:
    """The figures of all tasks and their sums, printed as they come."""
    warm_up()
    began = time.perf_counter()
    totals: dict[str, Any] = {"cycles": 0, "runs": 0, "faults": [], "phases": {}, "tasks": {}}
    for number, task in enumerate(tasks):
        shares = [whole // len(tasks) + (number < whole % len(tasks)) for whole in (cycles, fresh)]
        figures = one_task(Place(task, scratch / task), *shares, random.Random(f"{seed} {task}"))
        totals["tasks"][task] = figures
        for key in ("cycles", "runs", "faults"):
            totals[key] += figures[key]
        totals["phases"] = dict(Counter(totals["phases"]) + Counter(figures["phases"]))
        show(task, figures)
    totals["seconds"] = round(time.perf_counter() - began, 1)
    show("all", totals)
    return totals


def show(name: str, figures: Mapping[str, Any]) -> None:
    faults = figures["faults"]
    print(f"{name}: {figures['cycles']} kills in {figures['seconds']} s; {figures['runs']} runs ended and were compared")
    for phase in PHASES:
        if phase in figures["phases"]:
            print(f"  killed while {phase:<20} {figures['phases'][phase]:>4}")
    print(f"  differences and losses: {len(faults)}", *faults, sep="\n    ", flush=True)


def warm_up() -> None:
    """Import what a training imports, so that forked processes need not; compute nothing and start no threads."""
    import datasets  # noqa: F401
    import safetensors.torch  # noqa: F401
    import sacrebleu  # noqa: F401
    import torch
    import torch._dynamo  # noqa: F401  # which optimizers import at their first step

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


def one_task(place: Place, cycles: int, fresh: int, chance: random.Random) -> dict[str, Any]:
    """Kill `cycles` trainings of a task, `fresh` of them in processes that start from nothing."""
    tiny.write_corpus(place.task, place.scratch / "corpus")
    began = time.perf_counter()
    took: dict[bool, list[float]] = {}
    for start in (False, True)[: 1 + bool(fresh)]:  # a second reference is compared with the first
        shutil.rmtree(place.run.parent, ignore_errors=True)
        began_one = time.perf_counter()
        ended(train(place, start)[0], place)
        took[start] = [time.perf_counter() - began_one]
        if not start:
            place.run.rename(place.reference)
        else:
            in_a_copy(lambda: same(place.run, place.reference))
    phases: Counter[str] = Counter()
    faults: list[str] = []
    killed = runs = 0
    anew, again, step = True, False, -1
    while killed < cycles:
        if anew:
            shutil.rmtree(place.run.parent, ignore_errors=True)
            begun, anew, again, step = killed, False, False, -1
            if chance.random() < COLD:
                shutil.rmtree(place.scratch / "cache", ignore_errors=True)
        start = chance.random() < (fresh - phases[PHASES[-1]]) / (cycles - killed)
        began_one, resumed = time.perf_counter(), place.run.exists()
        try:
            status, phase = train(place, start, after=chance.uniform(0.0, statistics.median(took[start][-5:])))
            if status == -signal.SIGKILL:
                killed += 1
                phases[phase] += 1
                if place.run.exists():
                    step = max(step, in_a_copy(lambda floor=step: sound(place.run, floor)))
                continue
            ended(status, place)
            if not resumed:
                took[start].append(time.perf_counter() - began_one)
            runs += 1
            in_a_copy(lambda: same(place.run, place.reference))
            anew, again = again or chance.random() >= AGAIN, True
        except Fault as fault:
            faults.append(f"{place.task}, kills {begun + 1} to {killed}: {fault}")
            print(f"  {faults[-1]}", file=sys.stderr, flush=True)
            anew = True
    seconds = round(time.perf_counter() - began, 1)
    times = {f"{'fresh' if start else 'forked'} run, seconds": statistics.median(all) for start, all in took.items()}
    return {"cycles": killed, "runs": runs, "faults": faults, "phases": dict(phases), "seconds": seconds, **times}


def ended(status: int, place: Place) -> None:
    if status:
        raise Fault(f"exit status {status}: {place.log.read_text(encoding='utf-8', errors='replace').strip()}")


# Processes


def train(place: Place, fresh: bool, *, after: float | None = None) -> tuple[int, str]:
    """Train until the end, or for `after` seconds and then kill: exit status, negative for a signal, and the phase."""
    words = place.words(place.run)
    os.environ["SEQTEXT_CACHE"] = str(place.scratch / "cache")
    phase = mmap.mmap(-1, 1)
    with place.log.open("wb") as log:
        if fresh:
            command = [sys.executable, "-m", "seqtext", *words]
            number = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log).pid
        else:
            number = fork(lambda: command_line(words, log.fileno(), phase))
        handle = os.pidfd_open(number)
        if after is not None and not select.select([handle], [], [], after)[0]:
            os.kill(number, signal.SIGKILL)
        os.close(handle)
        status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
    return status, PHASES[-1] if fresh else PHASES[phase[0]]


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


def command_line(words: Sequence[str], output: int, phase: mmap.mmap) -> int:
    """`seqtext` with these words, in this process, telling its phase."""
    from seqtext.cli.app import main

    for number in (1, 2):
        os.dup2(output, number)
    tell(phase)
    sys.argv = ["seqtext", *words]
    try:
        main()
    except SystemExit as stopped:
        return int(stopped.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def tell(phase: mmap.mmap) -> None:
    """Have the parts of a training say, in a byte of shared memory, that they are under way."""
    from seqtext import run, session
    from seqtext.training import loop

    def telling(module: Any, name: str, what: str) -> None:
        work, number = getattr(module, name), PHASES.index(what)

        def told(*given: Any, **options: Any) -> Any:
            before, phase[0] = phase[0], number
            try:
                return work(*given, **options)
            finally:
                phase[0] = before

        setattr(module, name, told)

    telling(session, "read_splits", "reading the data")
    telling(session, "_train", "preparing")
    telling(run, "create", "making the run")
    telling(session, "_record", "training steps")
    telling(loop, "predict_all", "evaluating")
    telling(run, "save_weights", "saving weights")
    telling(session, "save_checkpoint", "saving a checkpoint")
    telling(session, "_finish", "scoring at the end")
    made, number = session.MetricsLog, PHASES.index("training steps")

    def opened(*given: Any, **options: Any) -> Any:
        phase[0] = number  # from here on, all that is nothing else
        return made(*given, **options)

    session.MetricsLog = opened  # type: ignore[assignment, misc]


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


# What must hold


def sound(run: Path, floor: int) -> int:
    """After a kill: the run loads, its weights are finite. The step of its checkpoint, at least `floor`."""
    import torch

    import seqtext
    from seqtext.training.checkpoint import load_checkpoint

    step = load_checkpoint(run / "checkpoints" / "last").values["step"]
    if step < floor:
        raise Fault(f"the checkpoint is of step {step}, and there was one of step {floor}")
    module = seqtext.load(run, device="cpu").module
    if not all(torch.isfinite(parameter).all() for parameter in module.parameters()):
        raise Fault("weights that are not finite")
    return step


def same(run: Path, reference: Path) -> None:
    """An ended run and the one that nothing interrupted."""
    for name in ("model.safetensors", "checkpoints/last/state.safetensors"):
        found, expected = tensors(run / name), tensors(reference / name)
        if found != expected:
            different = [key for key in expected if found.get(key) != expected[key]] or [*(found.keys() - expected)]
            raise Fault(f"{name} differs in {', '.join(different[:5])}")
    compare("metrics.jsonl", metrics(run), metrics(reference))
    for name in SAME:
        compare(name, (run / name).read_bytes(), (reference / name).read_bytes())
    compare("meta.json", *(json.loads((folder / "meta.json").read_bytes()) for folder in (run, reference)))
    files = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in (run, reference)]
    compare("the files of the run", *files)
    compare("what stands beside the run", sorted(path.name for path in run.parent.iterdir()), [run.name])


def compare(what: str, found: Any, expected: Any) -> None:
    if found != expected:
        raise Fault(f"{what}: {str(found)[-2000:]} instead of {str(expected)[-2000:]}")


def tensors(path: Path) -> dict[str, Any]:
    """What a safetensors file holds: the bytes of each tensor, and its header's facts."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name).tobytes() for name in file.keys()} | {"about": file.metadata()}  # noqa: SIM118


def metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl, less the clock."""
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [{key: value for key, value in json.loads(line).items() if key not in CLOCK} for line in lines]


if __name__ == "__main__":
    main()
