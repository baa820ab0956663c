"""A soak: trainings killed at random moments and resumed, again and again, must end as if nothing had happened.

    python scripts/soak.py [TASK ...] [--cycles 500] [--fresh 20] [--seed 1] [--json FILE] [--scratch DIR]

A cycle is a training (`seqtext train`, or `--resume` where a run stands already) that is killed with SIGKILL: half of
them at a moment drawn evenly over the time that a whole one takes, half within milliseconds of the beginning of a phase
that is drawn instead, since what writes files is soon over. One that ends before its moment is no cycle: its run is
compared and another begun. Cycles are shared out evenly between the tasks. After every kill the last checkpoint must
load and be no older than the one before, and the weights must be finite. A run that ends must equal one that nothing
interrupted: weights and checkpoint bit for bit, metrics without a step missing or doubled, predictions, facts, recipe,
and no file left over, in the run or beside it. The last run of each task is killed no more and compared as well. A
fifth of the runs start with an empty data cache; a quarter of those that ended are resumed and killed once more.

Starting Python and torch takes longer than these trainings do. So all but --fresh of the cycles are processes forked
from one that has imported everything and computed nothing; they run the command line itself
and die by a real SIGKILL. The others start from nothing, by `python -m seqtext`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import measure
import tiny
from killed import PHASES, Fault, Moment, Place, in_a_copy, train, warm_up

AIMED_AT = (*PHASES[1:4], *PHASES[5:9])
AIMED, COLD, AGAIN = 0.5, 0.2, 0.25
"""Shares of kills at a phase, of runs that start without a data cache, and of ended runs resumed and killed again."""
CLOSE = 0.008
"""Seconds from the beginning of a phase in which an aimed kill comes."""
SAME = ("checkpoints/last/state.json", "predictions.valid.jsonl", "recipe.toml")
CLOCK = ("seconds", "tokens_per_second")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "tasks", metavar="TASK", nargs="*", default=list(tiny.FILES), help=f"of {', '.join(tiny.FILES)}"
    )
    parser.add_argument("--cycles", type=measure.count, default=500, help="kills, over all tasks (default 500)")
    parser.add_argument(
        "--fresh", type=measure.whole, default=20, help="of these, in processes that start from nothing"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the moments (default 1)")
    parser.add_argument("--json", type=measure.new_file, metavar="FILE", help="write the figures to a file as well")
    parser.add_argument("--scratch", type=measure.folder, metavar="DIR", help="keep runs and output here")
    given = parser.parse_args()
    if unknown := [task for task in given.tasks if task not in tiny.FILES]:
        parser.error(f"no task {unknown[0]!r}; the tasks: {', '.join(tiny.FILES)}")
    os.environ["OMP_NUM_THREADS"] = "1"  # of fresh processes; sums come in one order
    scratch = Path(given.scratch or tempfile.mkdtemp(prefix="soak-")).absolute()
    try:
        totals = soak(given.tasks, given.cycles, given.fresh, given.seed, scratch)
    finally:
        if not given.scratch:
            shutil.rmtree(scratch, ignore_errors=True)
    if given.json:
        measure.write_json(given.json, totals)
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
    kills, runs = (figures[key] for key in ("cycles", "runs"))
    print(f"{name}: {kills} kills in {figures['seconds']} s; {runs} runs ended and were compared")
    for phase in PHASES:
        if phase in figures["phases"]:
            print(f"  killed, {phase:<20} {figures['phases'][phase]:>4}")
    print(f"  differences and losses: {len(faults)}", *faults, sep="\n    ", flush=True)


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
    while killed < cycles or not anew:  # the last run is killed no more, and compared
        if anew:
            shutil.rmtree(place.run.parent, ignore_errors=True)
            begun, anew, again, step = killed, False, False, -1
            if chance.random() < COLD:
                shutil.rmtree(place.scratch / "cache", ignore_errors=True)
        left = cycles - killed
        start = left > 0 and chance.random() < (fresh - phases[PHASES[-1]]) / left
        moment = draw(chance, statistics.median(took[start][-5:]), aimed=not start) if left else None
        began_one, resumed = time.perf_counter(), place.run.exists()
        try:
            status, phase = train(place, start, moment)
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
            anew, again = again or not left or chance.random() >= AGAIN, True
        except Fault as fault:
            faults.append(f"{place.task}, kills {begun + 1} to {killed}: {fault}")
            print(f"  {faults[-1]}", file=sys.stderr, flush=True)
            anew = True
    seconds = round(time.perf_counter() - began, 1)
    times = {f"{'fresh' if start else 'forked'} run, seconds": statistics.median(all) for start, all in took.items()}
    return {"cycles": killed, "runs": runs, "faults": faults, "phases": dict(phases), "seconds": seconds, **times}


def draw(chance: random.Random, seconds: float, *, aimed: bool) -> Moment:
    """A moment of a training that takes so many seconds."""
    if aimed and chance.random() < AIMED:
        return Moment(chance.uniform(0.0, CLOSE), chance.choice(AIMED_AT), chance.choice((1, 1, 2, 3)))
    return Moment(chance.uniform(0.0, seconds))


def ended(status: int, place: Place) -> None:
    if status:
        raise Fault(f"exit status {status}: {place.log.read_text(encoding='utf-8', errors='replace').strip()}")


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
