"""Nothing is lost: every task killed, interrupted and resumed ends as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import seqtext
from seqtext.data.samples import ner_sample
from seqtext.errors import ConfigError, DataError, RunError
from seqtext.files import locked
from seqtext.tasks import TASKS

ROOT = Path(seqtext.__file__).parent.parent
SETTINGS = {
    "train.epochs": 3,
    "train.accumulate": 2,
    "train.checkpoint_every": 2,
    "train.log_every": 3,
    "train.schedule.name": "plateau",
    "train.schedule.patience": 0,
    "train.average.name": "exponential",
    "train.average.decay": 0.9,
}
SMALL = {
    "model.encoder.hidden_size": 8,
    "model.embedding.characters.name": "none",
    "train.epochs": 2,
    "train.schedule.name": "plateau",
}


def tensors(path):
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


def metrics(run):
    """The lines of metrics.jsonl, less the clock."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {key: value for key, value in line.items() if key not in ("seconds", "tokens_per_second")} for line in lines
    ]


def assert_same_run(run, reference):
    for name in ("model.safetensors", "checkpoints/last/state.safetensors"):
        found, about = tensors(run / name)
        expected, told = tensors(reference / name)
        assert about == told and found.keys() == expected.keys(), name
        assert [key for key in expected if not torch.equal(found[key], expected[key])] == [], name
    assert metrics(run) == metrics(reference)
    predictions = sorted(path.name for path in reference.glob("predictions.*.jsonl"))  # some have no test part
    assert sorted(path.name for path in run.glob("predictions.*.jsonl")) == predictions and predictions
    for name in ("model.safetensors", "checkpoints/last/state.json", "recipe.toml", *predictions):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    facts = [json.loads((folder / "meta.json").read_text(encoding="utf-8")) for folder in (run, reference)]
    assert facts[0] == facts[1]
    assert sorted(path.name for path in run.rglob("*")) == sorted(path.name for path in reference.rglob("*"))


# Each of these takes half a minute; what `memory` keeps of a run is the loop's alone (tests/tasks/test_memory.py).
KILLED = sorted(set(TASKS) - {"memory"})


@pytest.fixture(scope="module", params=KILLED)
def reference(request, tmp_path_factory):
    """A run of the task's own recipe on its sample that nothing interrupted."""
    out = tmp_path_factory.mktemp(request.param) / "run"
    seqtext.train(request.param, overrides=SETTINGS, out=out, device="cpu")
    return request.param, out


class Training:
    """`python -m seqtext train`, in a process of its own, into one folder."""

    def __init__(self, task, folder):
        self.task, self.folder = task, folder
        self.step = -1
        self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def start(self):
        self.look()
        run = ["--resume", str(self.folder)]
        if not self.folder.exists():
            run = [self.task, *(f"{key}={value}" for key, value in SETTINGS.items()), "--out", str(self.folder)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "seqtext", "train", *run, "--device", "cpu"]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)

    def look(self):
        """Note the step of the last checkpoint, where there is one."""
        with suppress(OSError, ValueError):
            path = self.folder / "checkpoints" / "last" / "state.json"
            self.step = max(self.step, json.loads(path.read_text(encoding="utf-8"))["step"])

    def until(self, *, steps):
        """Wait for a checkpoint `steps` or more beyond that before the start; False where the process ended first."""
        until = self.step + steps
        while self.process.poll() is None:
            self.look()
            if self.step >= until:
                return True
            time.sleep(0.002)
        return False

    def end(self, number=None):
        """Exit status and standard error, after the signal `number`."""
        if number is not None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=120)
        return self.process.returncode, errors


@pytest.mark.slow
def test_a_run_killed_and_interrupted_at_random_moments_ends_as_the_uninterrupted_one(reference, tmp_path):
    task, expected = reference
    with Training(task, tmp_path / "run") as training:
        for number, steps in ((signal.SIGKILL, 1), (signal.SIGINT, 2), (signal.SIGKILL, 7), (signal.SIGTERM, 4)):
            training.start()
            assert training.until(steps=steps), training.end()
            time.sleep(random.uniform(0.0, 0.2))
            status, errors = training.end(number)
            if number == signal.SIGKILL:
                assert status == -signal.SIGKILL
                module = seqtext.load(training.folder, device="cpu").module
                assert all(torch.isfinite(parameter).all() for parameter in module.parameters())
            else:
                assert status == 128 + number, errors
                go_on = f"go on with: seqtext train --resume {training.folder}"
                assert errors.endswith(f"seqtext: stopped by {number.name}; {go_on}\n") and "Traceback" not in errors
        training.start()
        status, errors = training.end()
    assert status == 0, errors
    assert_same_run(training.folder, expected)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "corpus"
    folder.mkdir()
    for split, size in (("train", 60), ("valid", 20)):
        sentences = ner_sample(split, size=size)
        text = "\n".join("".join(f"{token} {tag}\n" for token, tag in zip(*sentence)) for sentence in sentences)
        (folder / f"{split}.conll").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished") / "run"
    seqtext.train("ner", data=str(corpus), overrides=SMALL, out=out, device="cpu")
    return out


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_a_finished_run_resumed_is_the_same_run(run, finished):
    seqtext.train(resume=run, device="cpu")
    assert_same_run(run, finished)


def test_a_resumed_run_forgets_what_a_kill_left_half_written(run, finished):
    (run / ".model.safetensors.0123abcd.tmp").write_bytes(b"half")
    (run / "checkpoints" / ".last.0123abcd.tmp").mkdir()
    (run / "checkpoints" / ".last.0123abcd.tmp" / "state.safetensors").write_bytes(b"half")
    (run / "checkpoints" / "last").rename(run / "checkpoints" / "last.old")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "final.test", "st')
    seqtext.train(resume=run, overrides={"train.epochs": 3}, device="cpu")
    seqtext.train(resume=run, overrides={"train.epochs": 4}, device="cpu")
    left = sorted(path.name for path in run.rglob("*"))
    assert left == sorted(path.name for path in finished.rglob("*"))


def test_more_epochs_make_the_run_that_had_them_from_the_start(run, corpus, tmp_path):
    seqtext.train(resume=run, overrides={"train.epochs": 4}, device="cpu")
    longer = tmp_path / "longer"
    seqtext.train("ner", data=str(corpus), overrides=SMALL | {"train.epochs": 4}, out=longer, device="cpu")
    assert_same_run(run, longer)


def test_a_run_started_from_a_language_model_goes_on_layer_by_layer_without_it(corpus, tmp_path):
    sizes = {"model.embedding_size": 12, "model.encoder.hidden_size": 8, "train.epochs": 1}
    seqtext.train("lm", overrides=sizes, out=tmp_path / "lm", device="cpu")
    settings = SMALL | {
        "model.embedding.size": 12,
        "train.init_from": str(tmp_path / "lm"),
        "train.layer_decay": 0.4,
        "train.unfreeze": 1,
        "train.average.name": "exponential",
    }
    for name, epochs in (("run", 1), ("longer", 4)):
        given = settings | {"train.epochs": epochs}
        seqtext.train("ner", data=str(corpus), overrides=given, out=tmp_path / name, device="cpu")
    shutil.rmtree(tmp_path / "lm")
    for epochs in (2, 4):  # of four layers
        seqtext.train(resume=tmp_path / "run", overrides={"train.epochs": epochs}, device="cpu")
    assert_same_run(tmp_path / "run", tmp_path / "longer")


def test_what_a_run_computes_cannot_change_midway(run):
    before = metrics(run)
    with pytest.raises(ConfigError) as caught:
        seqtext.train(resume=run, overrides=["train.optimizer.lr=1", "train.epochs=9", "model.dropout=0.1"])
    assert str(caught.value).splitlines() == [
        f"--resume {run}: 2 faults",
        "  train.optimizer.lr: fixed when a run goes on; only train.epochs, train.patience, train.graphs can change",
        "  model.dropout: fixed when a run goes on; only train.epochs, train.patience, train.graphs can change",
    ]
    with pytest.raises(ConfigError, match=r"train\.epochs: expected a valid integer, got 'many'"):
        seqtext.train(resume=run, overrides=["train.epochs=many"])
    assert metrics(run) == before


def test_a_run_goes_on_with_its_own_data_only(corpus, tmp_path):
    mine = Path(shutil.copytree(corpus, tmp_path / "mine"))
    seqtext.train("ner", data=str(mine), overrides=SMALL, out=tmp_path / "run", device="cpu")
    (mine / "valid.conll").write_text("Berlin B-LOC\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        seqtext.train(resume=tmp_path / "run")
    assert str(caught.value) == (
        f"{tmp_path / 'run'}: the valid data is not what this run was started on ({mine}); "
        "a run goes on only with the same data"
    )
    shutil.rmtree(mine)
    with pytest.raises(DataError, match=f"^{mine}: no such folder"):
        seqtext.train(resume=tmp_path / "run")


def test_two_trainings_never_share_a_run(run):
    before = metrics(run)
    with locked(run), pytest.raises(RunError, match=f"^{run}: another process is training in this folder"):
        seqtext.train(resume=run)
    assert metrics(run) == before
