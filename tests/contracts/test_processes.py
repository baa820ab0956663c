"""Two processes train as one does, for every task of TASKS; and what ends one of them ends both, with one message."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

import seqtext
from seqtext import recipe, session
from seqtext.tasks import TASKS

ROOT = Path(seqtext.__file__).parent.parent
EXAMPLES = {"train": 40, "valid": 12, "test": 12}
SETTINGS = {
    "train.epochs": 2,
    "train.batch_tokens": 107,  # three streams of a language model; of some tasks, batches of a single example
    "train.accumulate": 2,
    "train.clip": 0.5,
    "train.log_every": 3,
    "train.optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9},
    "train.schedule": {"name": "plateau", "patience": 0},
    "train.average": {"name": "exponential", "decay": 0.8},
}
SIZES = {
    "lm": {"model.embedding_size": 12, "model.encoder.hidden_size": 8},
    "lm-conditioned": {"model.embedding_size": 12, "model.encoder.hidden_size": 8, "data.window": 4},
    "ner": {"model.embedding.size": 12, "model.encoder.hidden_size": 8, "model.embedding.characters.name": "none"},
}
WAIT = 300
"""Seconds that a process may take; it takes some few."""


def train_all(jobs: list[dict[str, Any]]) -> None:
    """Train on a few examples of each split; what both processes of a pair, and the one that they are held to, run."""
    torch.set_num_threads(1)
    read = session.read_splits

    def few(chosen: recipe.Recipe) -> Any:
        return {split: data.select(range(EXAMPLES[split])) for split, data in read(chosen).items()}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "read_splits", few)
        for job in jobs:
            seqtext.train(**job, device="cpu")


def environments() -> list[dict[str, str]]:
    """What a launcher sets for each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    common |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return [os.environ | common | {"RANK": rank, "LOCAL_RANK": rank} for rank in ("0", "1")]


def pair(*commands: list[str]) -> list[tuple[int, str, str]]:
    """Exit status, output and errors of two processes, each with its command."""
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen([sys.executable, *command], env=environment, stdout=pipe, stderr=pipe, text=True)
        for command, environment in zip(commands, environments())
    ]
    try:
        ends = [process.communicate(timeout=WAIT) for process in running]
    finally:
        for process in running:
            process.kill()
    return [(process.returncode, *end) for process, end in zip(running, ends)]


def small(task: str) -> dict[str, Any]:
    """A small model of a task, and every dropout of its recipe set to 0."""
    settings: dict[str, Any] = dict(SIZES.get(task, {}))

    def look(table: dict[str, Any], place: str) -> None:
        for key, value in table.items():
            if isinstance(value, dict):
                look(value, f"{place}.{key}")
            elif "dropout" in key:
                settings[f"{place}.{key}"] = 0.0

    look(recipe.load(task, settings).model.model_dump(), "model")
    return settings


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The best weights of a run, the last ones, and all else that its checkpoint holds of numbers."""
    found = {}
    for name in ("model.safetensors", "checkpoints/last/state.safetensors"):
        with safe_open(run / name, framework="pt") as file:
            found |= {f"{name}: {key}": file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    return found


def close(run: Path, reference: Path) -> None:
    found, expected = weights(run), weights(reference)
    for name, tensor in expected.items():
        if ": rng." not in name:
            torch.testing.assert_close(
                found[name], tensor, rtol=1e-5, atol=1e-5, msg=lambda text, at=name: f"{at} {text}"
            )
    extra = {name for name in found if not re.search(r": rng\.\w+\.1$", name)}
    assert extra == expected.keys()


def reports(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if "second" not in key} for line in lines]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs NAME-1 of one process and NAME-2 of two; two of them, begun as "half", then went on."""
    folder = tmp_path_factory.mktemp("processes")
    jobs, resumed = {}, {}
    for task in [*TASKS, "lm-conditioned"]:
        jobs[task] = {"recipe": task, "overrides": small(task) | SETTINGS}
    lm, ner = jobs["lm"]["overrides"], jobs["ner"]["overrides"]
    layers = {"train.init_from": str(folder / "lm-1"), "train.unfreeze": 1, "train.layer_decay": 0.5}
    jobs["layers"] = {"recipe": "ner", "overrides": ner | layers}
    drops = {"model.dropout": 0.5, "model.embedding.rare_dropout": 0.5, "model.embedding.word_dropout": 0.1}
    jobs["dropout"] = {"recipe": "ner", "overrides": ner | drops | {"train.epochs": 3}}
    jobs["ridge"] = {
        "recipe": "ner-esn",
        "overrides": small("ner-esn") | {"model.encoder.size": 20, "train.batch_tokens": 107},
    }
    jobs["half"] = {"recipe": "lm", "overrides": lm | {"train.epochs": 1}}
    jobs["half-dropout"] = {"recipe": "ner", "overrides": jobs["dropout"]["overrides"] | {"train.epochs": 1}}
    resumed["half"] = {"overrides": {"train.epochs": 2}}
    resumed["half-dropout"] = {"overrides": {"train.epochs": 3}}

    def both(number: int) -> list[dict[str, Any]]:
        made = [job | {"out": str(folder / f"{name}-{number}")} for name, job in jobs.items()]
        # What one process has begun, two end; and what two have with dropout.
        ended = {"half": "half-1", "half-dropout": "half-dropout-2"} if number == 2 else {}
        return made + [resumed[name] | {"resume": str(folder / run)} for name, run in ended.items()]

    train_all(both(1))
    ends = pair(*[[__file__, json.dumps(both(2))]] * 2)
    assert [status for status, _, _ in ends] == [0, 0], ends
    return folder


@pytest.mark.parametrize("name", [*TASKS, "lm-conditioned", "layers"])
def test_two_processes_train_as_one_does(runs: Path, name: str) -> None:
    run, reference = runs / f"{name}-2", runs / f"{name}-1"
    close(run, reference)
    found, expected = reports(run), reports(reference)
    assert len(expected) > 4
    for line, other in zip(found, expected, strict=True):
        assert line.pop("kind") == other.pop("kind")
        assert line == pytest.approx(other, rel=1e-4, abs=1e-5)
    lines = [
        (folder / "predictions.valid.jsonl").read_text(encoding="utf-8").count("\n") for folder in (run, reference)
    ]
    assert lines[0] == lines[1] == EXAMPLES["valid"]
    assert sorted(path.name for path in run.rglob("*")) == sorted(path.name for path in reference.rglob("*"))


def test_two_processes_solve_what_one_does(runs: Path) -> None:
    close(runs / "ridge-2", runs / "ridge-1")


def test_what_one_process_has_begun_two_end(runs: Path) -> None:
    close(runs / "half-1", runs / "lm-1")


def test_two_processes_go_on_to_the_same_bits_dropout_and_all(runs: Path) -> None:
    found, expected = weights(runs / "half-dropout-2"), weights(runs / "dropout-2")
    assert found.keys() == expected.keys()
    assert [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)] == []
    states = [tensor for name, tensor in expected.items() if ": rng.cpu" in name]
    assert len(states) == 2 and not torch.equal(*states)  # or both would drop the same units of unlike examples


def test_an_error_of_one_process_is_said_once_and_ends_both(tmp_path: Path) -> None:
    train = ["-m", "seqtext", "train", "ner", "--device", "cpu", "--out", str(tmp_path / "run")]
    ends = pair(train, [*train, "train.epchs=1"])
    assert [status for status, _, _ in ends] == [2, 2], ends
    assert [out for _, out, _ in ends] == ["", ""]
    assert ends[0][2] == "" and ends[1][2].endswith("  train.epchs: unknown key; did you mean 'epochs'?\n")
    assert not (tmp_path / "run").exists()


STARTING = """import sys
from datetime import timedelta
from seqtext import session
from seqtext.cli.app import main
from seqtext.training import processes
processes.NOTICE, processes.JOINING = 0.5, timedelta(seconds=3)
if len(sys.argv) > 1:
    session.read_splits = lambda recipe: __import__("os").kill(__import__("os").getpid(), 9)
sys.argv[1:] = ["train", "ner", "--device", "cpu"]
main()
"""
"""A training that soon has no patience with others; with an argument, it is killed where it would read its data."""


def test_a_process_that_dies_before_it_joins_or_while_it_reads_ends_the_others() -> None:
    (status, out, told), _ = pair(["-c", STARTING], ["-c", ""])
    assert (status, out) == (2, "")
    waits, lost = told.splitlines()
    assert re.fullmatch(
        r"seqtext: process 0 of 2 waits for the others to join at 127\.0\.0\.1:\d+, for 0\.05 minutes at most", waits
    )
    assert re.fullmatch(
        r"seqtext: process 0 of 2: the others have not joined at \S+ \(.*1/2 clients joined.*\); start all.*", lost
    )

    (status, out, told), (killed, _, _) = pair(["-c", STARTING], ["-c", STARTING, "killed"])
    assert (status, out, killed) == (2, "", -signal.SIGKILL)
    assert told.splitlines()[-1] == "seqtext: one of the 2 processes has ended or is out of reach"


NUMBERED = """import os, sys
with open(f"{sys.argv[1]}.{os.environ['RANK']}.pid", "w") as file:
    file.write(str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""
"""Says its process id, in a file, before it becomes the training."""


class Launched:
    """A run of two processes under torchrun."""

    def __init__(self, run: Path) -> None:
        self.run = run

    def end(self, number: int, *words: str, steps: int) -> str:
        """What torchrun and its processes say, the second of which got the signal `number` after `steps` steps more."""
        until = self.step + steps
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--no-python"]
        inner = [sys.executable, "-c", NUMBERED, str(self.run), "-m", "seqtext", "train", *words, "--device", "cpu"]
        launched = subprocess.Popen(
            [sys.executable, *command, *inner],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            began = time.monotonic()
            while self.step < until and launched.poll() is None and time.monotonic() - began < WAIT:
                time.sleep(0.01)
            os.kill(int(self.run.with_name(f"{self.run.name}.1.pid").read_text()), number)
            output, _ = launched.communicate(timeout=WAIT)
        finally:
            launched.kill()
        assert launched.returncode != 0, output
        return output

    @property
    def step(self) -> int:
        with suppress(OSError, ValueError):
            path = self.run / "checkpoints" / "last" / "state.json"
            return int(json.loads(path.read_text(encoding="utf-8"))["step"])
        return 0


def test_a_process_interrupted_or_killed_ends_all_and_one_goes_on(tmp_path: Path) -> None:
    run, reference = tmp_path / "run", tmp_path / "reference"
    settings = small("lm") | {"train.epochs": 1, "train.optimizer.lr": 0.001}
    settings |= {"train.checkpoint_every": 5, "train.log_every": 20}
    seqtext.train("lm", overrides=settings, out=reference, device="cpu")
    pairs = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    launched = Launched(run)

    output = launched.end(signal.SIGTERM, "lm", *pairs, "--out", str(run), steps=5)
    command = f"torchrun --nproc-per-node 2 -m seqtext train --resume {run}\n"
    told = f"seqtext: stopped by SIGTERM; go on with: {command}"
    assert output.count("seqtext: ") == output.count(told) == 1, output
    assert launched.step > 0

    before = launched.step
    output = launched.end(signal.SIGKILL, "--resume", str(run), steps=20)
    told = f"seqtext: {run}: one of the 2 processes has ended or is out of reach; go on from the last checkpoint with: "
    told += command
    assert output.count("seqtext: ") == output.count(told) == 1, output
    total = json.loads((reference / "checkpoints" / "last" / "state.json").read_text())["step"]
    assert before < launched.step < total

    shutil.copytree(run, tmp_path / "copy")
    seqtext.train(resume=run, device="cpu")
    close(run, reference)


if __name__ == "__main__":
    train_all(json.loads(sys.argv[1]))
