"""Fuzzing: whatever is in a file, reading it gives a result or an error of ours, in bounded time and memory.

    python scripts/fuzz.py [TARGET ...] [--inputs 100000] [--seed 1] [--only NUMBER] [--json FILE]

A target is a part of seqtext that reads what others wrote: files of data, tokenizers, recipes, run folders,
checkpoints. Its inputs are valid ones with random damage (fuzz_inputs.py), each from the seed, the target and its own
number, so that --only NUMBER tries one of them again. A finding is any other exception than an `InputError`, more than
two seconds of processor time, more than 512 MB of memory, or the end of the process. Prints for each target how
many inputs were tried, accepted and refused, and every finding once, with its first input's number; exits with 1 where
there is any.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import IO, Any

import measure
from fuzz_targets import TARGETS

from seqtext.errors import InputError

SECONDS = 2.0
"""Of processor time that an input may take."""
MEGABYTES = 512
"""That an input may add to the memory of the process."""


class Slow(BaseException):
    """The time of an input is over."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", metavar="TARGET", nargs="*", default=list(TARGETS), help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--inputs", type=measure.count, default=100_000, help="inputs of each target (default 100000)")
    parser.add_argument("--seed", type=int, default=1, help="default 1")
    parser.add_argument(
        "--only", type=measure.whole, metavar="NUMBER", help="try this input again and show what it raises"
    )
    parser.add_argument("--json", type=measure.new_file, metavar="FILE", help="write the figures to a file as well")
    given = parser.parse_args()
    if unknown := [name for name in given.targets if name not in TARGETS]:
        parser.error(f"no target {unknown[0]!r}; the targets: {', '.join(TARGETS)}")
    if given.only is not None and len(given.targets) != 1:
        parser.error(f"--only {given.only}: of which target? Name one")
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    os.environ["SEQTEXT_CACHE"] = str(scratch / "cache")
    found = {}
    try:
        for name in given.targets:
            if given.only is not None:
                again(name, given.seed, given.only, scratch)
                continue
            found[name] = fuzz(name, given.inputs, given.seed, scratch)
            show(name, found[name])
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if given.json:
        measure.write_json(given.json, found)
    sys.exit(1 if any(figures["findings"] for figures in found.values()) else 0)


def show(name: str, figures: dict[str, Any]) -> None:
    rate = figures["inputs"] / max(figures["seconds"], 1e-9)
    counts = f"{figures['inputs']:,} inputs, {figures['accepted']:,} accepted, {figures['refused']:,} refused"
    print(f"{name:<20} {counts}, {len(figures['findings'])} findings ({rate:,.0f} a second)")
    for what, (count, first) in figures["findings"].items():
        print(f"  {count:,} x, first input {first}: {what}")
    sys.stdout.flush()


def fuzz(name: str, inputs: int, seed: int, scratch: Path) -> dict[str, Any]:
    """Try inputs 0 to `inputs`, in processes of their own, so that one that dies is a finding and no end."""
    totals: dict[str, Any] = {"inputs": 0, "accepted": 0, "refused": 0, "findings": {}, "slowest": 0.0}
    began = time.perf_counter()
    place, first = scratch / "figures.json", 0
    while first < inputs:
        place.unlink(missing_ok=True)
        sys.stdout.flush()
        if (child := os.fork()) == 0:
            told = os.dup(2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries write of their own troubles
            try:
                attempt(name, range(first, inputs), seed, Path(tempfile.mkdtemp(dir=scratch)), place)
            except BaseException:
                os.write(told, traceback.format_exc().encode())
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if not place.exists():
            raise SystemExit(f"fuzz.py: {name}: no input was tried")
        part = json.loads(place.read_text(encoding="utf-8").partition("\n")[0])
        if (last := part["under_way"]) is not None:  # the process did not end by itself
            part["findings"][f"the process ended with {status}"] = (1, last)
            part["inputs"] += 1
        for key in ("inputs", "accepted", "refused"):
            totals[key] += part[key]
        totals["slowest"] = max(totals["slowest"], part["slowest"])
        for what, (count, number) in part["findings"].items():
            before = totals["findings"].get(what, (0, number))
            totals["findings"][what] = [before[0] + count, before[1]]
        first = inputs if last is None else last + 1
    return {**totals, "seconds": round(time.perf_counter() - began, 1)}


def attempt(name: str, numbers: Sequence[int], seed: int, scratch: Path, place: Path) -> None:
    """Try the inputs of these numbers in this process; the figures so far stand in the first line of `place`."""
    target = TARGETS[name](scratch)
    signal.signal(signal.SIGPROF, over)
    found: dict[str, Any] = {"inputs": 0, "accepted": 0, "refused": 0, "findings": {}, "slowest": 0.0}
    peak = memory()
    with place.open("w", encoding="utf-8") as at:
        for number in numbers:
            given = target.make(random.Random(f"{seed} {name} {number}"))
            note(at, {**found, "under_way": number})
            what, used = "", time.process_time()
            try:
                signal.setitimer(signal.ITIMER_PROF, SECONDS)
                signal.setitimer(signal.ITIMER_VIRTUAL, 5 * SECONDS)  # ends the process where Python gets no turn
                try:
                    target.use(given)
                finally:
                    signal.setitimer(signal.ITIMER_PROF, 0.0)
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
                found["accepted"] += 1
            except InputError:
                found["refused"] += 1
            except KeyboardInterrupt:
                raise
            except BaseException as error:
                what = described(error)
            took, grown = time.process_time() - used, memory() - peak
            found["inputs"] += 1
            found["slowest"] = max(found["slowest"], took)
            peak += max(0, grown)
            if not what and took > SECONDS:
                what = f"more than {SECONDS:g} seconds, and none of them in Python"
            if not what and grown > MEGABYTES:
                what = f"more than {MEGABYTES} MB of memory"
            if what:
                count, first = found["findings"].get(what, (0, number))
                found["findings"][what] = (count + 1, first)
        note(at, {**found, "under_way": None})


def note(file: IO[str], figures: dict[str, Any]) -> None:
    """Write the figures over those before; what is left of longer ones stands in the lines below."""
    file.seek(0)
    file.write(json.dumps(figures) + "\n")
    file.flush()


def over(number: int, frame: FrameType | None) -> None:
    raise Slow(f"more than {SECONDS:g} s")


def memory() -> int:
    """The most memory that this process has had, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def described(error: BaseException) -> str:
    """An exception's type and message, and the places in seqtext where it came from, for findings to be told apart."""
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if f"{os.sep}seqtext{os.sep}" in frame.filename
    ]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames[-3:]))
    message = "" if isinstance(error, Slow) else "".join(" " if c.isdigit() else c for c in str(error))[:60]
    return f"{type(error).__name__} {message.strip()!r} at {places}"


def again(name: str, seed: int, number: int, scratch: Path) -> None:
    """Show an input and what comes of it."""
    target = TARGETS[name](scratch)
    given = target.make(random.Random(f"{seed} {name} {number}"))
    print(f"input {number} of {name}: {str(given)[:4000]}")
    try:
        target.use(given)
    except InputError as error:
        print(f"refused: {error}")
    else:
        print("accepted")


if __name__ == "__main__":
    main()
