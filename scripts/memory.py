"""Memory over time: a process that trains, or tags, for long must not grow.

    python scripts/memory.py [TASK ...] [--epochs 20] [--examples 4000] [--sentences 1000000] [--seed 1] [--json FILE]

Trains a small model of every task by `seqtext train`, and tags sentences through `seqtext predict`, each in a process
of its own whose resident memory is read from outside: at the end of each epoch, and as each so many lines come out.
What counts is growth after a warm-up, a fifth of the epochs or of the sentences, in which libraries load, allocators
settle and windows and caches reach their size. The limit is 2%. With few epochs, or fewer than some 100,000 sentences,
caches still fill after the warm-up, and that is counted as growth.

Sentences to tag are those of the sample, each with two words more whose frequencies fall as those of a language do (a
Zipf distribution), so that there are ever new words, as in text.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import measure
import numpy as np
import tiny

LIMIT = 0.02
WARM = 0.2
"""Share of the epochs or sentences that is the warm-up."""
READINGS = 20
"""Of the memory while sentences are tagged."""
PIECE = 2000
"""Sentences made at a time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "tasks",
        metavar="TASK",
        nargs="*",
        default=list(tiny.FILES),
        help=f"to train, of {', '.join(tiny.FILES)} (default: all)",
    )
    parser.add_argument("--epochs", type=measure.count, default=20, help="of training (default 20)")
    parser.add_argument("--examples", type=measure.count, default=4000, help="to train on (default 4000)")
    parser.add_argument(
        "--sentences", type=int, default=1_000_000, help="to tag, 100000 at least or caches still fill; 0 for none"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the sentences (default 1)")
    parser.add_argument("--json", type=measure.new_file, metavar="FILE", help="write the readings to a file as well")
    given = parser.parse_args()
    if unknown := [task for task in given.tasks if task not in tiny.FILES]:
        parser.error(f"no task {unknown[0]!r}; the tasks: {', '.join(tiny.FILES)}")
    for name, least in (("epochs", 2), ("sentences", READINGS)):
        if (value := getattr(given, name)) < least and not (name == "sentences" and value == 0):
            parser.error(f"--{name} {value}: growth is from one reading to a later one; expected {least} or more")
    readings: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        scratch = Path(name)
        os.environ |= {"SEQTEXT_CACHE": str(scratch / "cache"), "OMP_NUM_THREADS": "1"}
        for task in given.tasks:
            readings[f"training {task}"] = train(task, given.epochs, given.examples, scratch)
            show(f"training {task}, {given.epochs} epochs", readings[f"training {task}"])
        if given.sentences:
            run = scratch / "ner-run"
            if not run.exists():
                train("ner", 3, given.examples, scratch)
            readings["tagging"] = tag(run, given.sentences, given.seed)
            show(f"tagging {given.sentences:,} sentences", readings["tagging"])
    if given.json:
        measure.write_json(given.json, readings)
    sys.exit(1 if any(growth(each) > LIMIT for each in readings.values()) else 0)


def show(what: str, readings: Sequence[float]) -> None:
    warm, last = readings[round(WARM * len(readings))], readings[-1]
    word = "within" if growth(readings) <= LIMIT else "OVER"
    print(
        f"{what}: {warm:.1f} MB after the warm-up, {last:.1f} MB at the end: {growth(readings):+.2%}, {word} the limit"
    )
    sys.stdout.flush()


def growth(readings: Sequence[float]) -> float:
    """Of the memory after the warm-up, as a share of it."""
    return readings[-1] / readings[round(WARM * len(readings))] - 1.0


def train(task: str, epochs: int, examples: int, scratch: Path) -> list[float]:
    """Memory of the process at the end of each epoch, in MB."""
    data = tiny.write_corpus(task, scratch / task, train=examples)
    words = ["train", task, *tiny.overrides(task), f"train.epochs={epochs}", "train.batch_tokens=512"]
    process = start([*words, "--data", str(data), "--out", str(scratch / f"{task}-run")], stderr=subprocess.PIPE)
    assert process.stderr is not None
    readings, said = [], []
    for line in process.stderr:
        said.append(line)
        if line.startswith(b"epoch "):
            readings.append(resident(process.pid))
    check(process, said)
    return readings


def tag(run: Path, count: int, seed: int) -> list[float]:
    """Memory of the process after each twentieth of the sentences, in MB."""
    process = start(["predict", str(run), "-", "--pretokenized"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None and process.stdout is not None
    feeding = threading.Thread(target=feed, args=(process.stdin, count, seed))
    feeding.start()
    every, readings = max(1, count // READINGS), []
    for number, _ in enumerate(process.stdout, start=1):
        if number % every == 0:
            readings.append(resident(process.pid))
    feeding.join()
    check(process, [])
    return readings


def start(words: Sequence[str], **pipes: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "seqtext", *words, "--device", "cpu"], **pipes)


def check(process: subprocess.Popen[bytes], said: Sequence[bytes]) -> None:
    if status := process.wait():
        raise SystemExit(f"memory.py: seqtext ended with {status}: {b''.join(said[-20:]).decode(errors='replace')}")


def feed(pipe: IO[bytes], count: int, seed: int) -> None:
    for sentence in sentences(count, seed):
        pipe.write(sentence)
    pipe.close()


def sentences(count: int, seed: int) -> Iterator[bytes]:
    """Lines of words parted by spaces."""
    from seqtext.data.samples import ner_sample

    known = [" ".join(tokens).encode() for tokens, _ in ner_sample("test", size=PIECE)]
    rng = np.random.default_rng(seed)
    for first in range(0, count, PIECE):
        drawn = rng.zipf(1.3, size=(min(PIECE, count - first), 2)).tolist()
        yield from (b"%s w%d W%d\n" % (text, one, other) for text, (one, other) in zip(known, drawn))


def resident(process: int) -> float:
    """Resident memory of a process in MB."""
    status = Path(f"/proc/{process}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024.0


if __name__ == "__main__":
    main()
