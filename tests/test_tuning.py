"""`seqtext tune`: what it finds trains to that score, a study goes on as if it had not stopped, ranges are checked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import seqtext
from seqtext import api, recipe
from seqtext.cli import app
from seqtext.errors import ConfigError, DeviceError, InputError, RunError

optuna = pytest.importorskip("optuna")
ROOT = Path(seqtext.__file__).parent.parent
BASE = """
task = "memory"

[data]
examples = 60
held_out = 30
job = {name = "brackets", length = 12}

[model.encoder]
hidden_size = 6

[train]
epochs = 3
batch_tokens = 240
optimizer = {name = "adam"}
"""
RANGES = """
[tune]
train.optimizer.lr = {low = 1e-3, high = 1e-1, log = true}
model.encoder.cell = {choices = ["lstm", "gru"]}
"model.encoder.hidden_size" = {low = 4, high = 12, step = 4}
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(BASE + RANGES, encoding="utf-8")
    return path


def tried(tuned):
    return [trial._replace(number=0) for trial in tuned.trials]


def test_what_is_found_trains_to_its_score_and_a_study_goes_on_as_if_it_were_one(mine, tmp_path):
    whole = api.tune(str(mine), 8, out=tmp_path / "whole", device="cpu")
    first = api.tune(str(mine), 3, out=tmp_path / "parts", device="cpu")
    with (tmp_path / "parts" / "study.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"op_code": 4, "wor')  # killed while it wrote
    told = []
    again = api.tune(str(mine), 8, out=tmp_path / "parts", device="cpu", listen=told.append)
    assert tried(again) == tried(whole) and again.trials[:3] == first.trials and told == again.trials[3:]
    assert again.best and again.best.score == max(trial.score for trial in again.trials if trial.state == "done")
    states = [trial.state for trial in whole.trials]
    assert "pruned" in states and all(trial.epochs == 3 for trial in whole.trials if trial.state == "done")
    assert all(trial.epochs < 3 for trial in whole.trials if trial.state == "pruned")
    assert all(trial.values["model.encoder.hidden_size"] in (4, 8, 12) for trial in whole.trials)
    assert len({trial.values["train.optimizer.lr"] for trial in whole.trials}) == 8
    assert sum(whole.importance.values()) == pytest.approx(1.0)
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == ["best.toml", "recipe.toml", "study.jsonl"]
    run = seqtext.train(tmp_path / "parts" / "best.toml", out=tmp_path / "run", device="cpu")
    assert run.meta["scores"]["valid"]["accuracy"] == again.best.score
    assert all(getattr_of(run.recipe, key) == value for key, value in again.best.values.items())


def getattr_of(value, key):
    for part in key.split("."):
        value = getattr(value, part)
    return value


def test_a_recipe_with_ranges_trains_as_if_they_were_not_there(mine, tmp_path):
    bare = tmp_path / "bare.toml"
    bare.write_text(BASE, encoding="utf-8")
    one, other = (recipe.load(str(path)) for path in (mine, bare))
    assert one.toml() == other.toml() and not other.tune
    assert {key: tried.ends for key, tried in one.tune.items()} == {
        "train.optimizer.lr": [1e-3, 1e-1],
        "model.encoder.cell": ["lstm", "gru"],
        "model.encoder.hidden_size": [4, 12],
    }
    dropout = recipe.load("ner", {"tune": {"model.dropout": {"low": 0, "high": 0.5}}}, search=True).tune[
        "model.dropout"
    ]
    assert [type(end) for end in dropout.ends] == [float, float]  # whole numbers would be 0 and nothing else


def test_all_faults_of_ranges_are_told_at_once(tmp_path):
    path = tmp_path / "mine.toml"
    lines = "train.clip = 3\nmodel.foo = {low = 1, high = 2}\ntrain.epochs = {low = 3, high = 1}\n"
    path.write_text(f"{BASE}\n[tune]\n{lines}", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        recipe.load(str(path))
    told = sorted(fault.partition(": ")[0] for fault in caught.value.faults)
    assert told == ["tune.model.foo", "tune.train.clip", "tune.train.epochs"]


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ("train.epoch = {low = 1, high = 3}", "tune.train.epoch: unknown key; did you mean 'epochs'?"),
        ("train.epochs = {low = 3, high = 1}", "tune.train.epochs: low 3 is above high 1"),
        ("train.epochs = {low = 0, high = 3}", "tune.train.epochs: expected greater than or equal to 1, got 0"),
        ("train.epochs = {low = 1.5, high = 3}", "tune.train.epochs: expected a valid integer, got 1.5"),
        ("train.clip = {low = 0, high = 3, log = true}", "tune.train.clip: log = true needs a low above 0, got 0"),
        ("train.clip = {low = 1, hgh = 3}", "tune.train.clip.hgh: unknown key; did you mean 'high'?"),
        ("train.clip = {low = 1}", "tune.train.clip: expected low and high, or choices = [...]"),
        ("train.clip = {low = 1, high = 2, step = 0}", "tune.train.clip.step: expected greater than 0, got 0"),
        (
            "train.clip = {choices = [1], low = 1}",
            "tune.train.clip: choices stand alone, without low, high, log and step",
        ),
        ("train.clip = 3", "tune.train.clip: expected a range such as {low = 1, high = 9} or {choices = [1, 2]}"),
        ("train.clip = {}", "tune.train.clip: expected a range such as {low = 1, high = 9} or {choices = [1, 2]}"),
        ("seed = {low = 1, high = 9}", "tune.seed: expected a key of data, model or train"),
        (
            'model.encoder.cell = {choices = ["lstm", "gruu"]}',
            "tune.model.encoder.cell: model.encoder: cell 'gruu' is not one of ",
        ),
    ],
)
def test_ranges_that_make_no_sense_are_told_by_their_key(lines, fault, tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(f"{BASE}\n[tune]\n{lines}\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        recipe.load(str(path))
    assert len(caught.value.faults) == 1 and caught.value.faults[0].startswith(fault)


def test_what_cannot_be_searched_is_told_and_nothing_is_written(mine, tmp_path, monkeypatch):
    out = tmp_path / "study"
    bare = tmp_path / "bare.toml"
    bare.write_text(BASE, encoding="utf-8")

    def told(error, name, trials=1, **options):
        with pytest.raises(error) as caught:
            api.tune(str(name), trials, device="cpu", **({"out": out} | options))
        assert not out.exists()
        return str(caught.value)

    assert told(InputError, mine, 0) == "--trials 0: expected 1 or more"
    assert told(InputError, mine, processes=0) == "--processes 0: expected 1 or more"
    assert told(InputError, bare).startswith("bare: no [tune] table in this recipe; it says what to try: [tune] with")
    assert "it reads no files" in told(InputError, mine, data=str(tmp_path))
    assert told(DeviceError, mine, overrides={"train.graphs": True}).startswith("train.graphs = true: only a GPU")
    found = told(RunError, mine, out=tmp_path)
    assert found == f"{tmp_path}: exists already and is no study; choose another --out"
    api.tune(str(mine), 1, out=tmp_path / "other", device="cpu")
    changed = {"overrides": {"train.epochs": 2}, "out": tmp_path / "other"}
    expected = f"{tmp_path / 'other'}: a study of another recipe or other settings; choose another --out"
    assert told(RunError, mine, 2, **changed) == expected
    (tmp_path / "other" / "study.jsonl").write_text("what\n", encoding="utf-8")
    damaged = told(RunError, mine, 2, out=tmp_path / "other")
    assert damaged.startswith(f"{tmp_path / 'other' / 'study.jsonl'}: damaged, not the journal of a study (")
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert told(InputError, mine) == 'seqtext tune needs the optuna package: pip install "seqtext[tune]"'


def test_settings_that_diverge_or_exclude_each_other_are_failed_trials(tmp_path):
    path = tmp_path / "mine.toml"
    ranges = 'train.optimizer.name = {choices = ["asgd"]}\ntrain.average.name = {choices = ["uniform"]}\n'
    path.write_text(f"{BASE}\n[tune]\n{ranges}", encoding="utf-8")
    found = api.tune(str(path), 2, out=tmp_path / "study", device="cpu")
    assert [trial.state for trial in found.trials] == ["failed", "failed"] and found.best is None
    assert "the optimizer asgd averages the weights itself" in found.trials[0].reason
    assert not (tmp_path / "study" / "best.toml").exists()


def test_a_search_in_two_processes_is_interrupted_and_goes_on(mine, tmp_path, capsys, monkeypatch):
    out = tmp_path / "study"
    words = ["tune", str(mine), "--trials", "3", "--out", str(out), "--device", "cpu", "train.epochs=30"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "seqtext", *words, "--processes", "2"],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    began = time.monotonic()
    while not list(out.glob("trials/*/metrics.jsonl")) and time.monotonic() - began < 120 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGINT, errors
    assert "seqtext: stopped by SIGINT after " in errors
    assert f" of 3 trials; the same command with --out {out} goes on\n" in errors
    assert "Traceback" not in errors and not (out / "trials").exists()
    monkeypatch.setattr(sys, "argv", ["seqtext", *words, "--json"])
    with pytest.raises(SystemExit) as ended:
        app.main()
    assert ended.value.code == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert len(found["trials"]) == 3 and found["goal"] == "accuracy"
    assert shown.err.endswith(f"next: seqtext train {out / 'best.toml'}\n")
