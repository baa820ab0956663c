"""The proofs under load and fault, a little of each; and that they find what they look for."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import seqtext
from seqtext.errors import DataError

ROOT = Path(seqtext.__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import fuzz  # noqa: E402
import fuzz_inputs  # noqa: E402
import memory  # noqa: E402
import soak  # noqa: E402
import tiny  # noqa: E402
from fuzz_readers import Target  # noqa: E402
from killed import Fault  # noqa: E402


def script(name, *words, cwd):
    """A script's process, once it has ended, and what it wrote with --json."""
    command = [sys.executable, str(ROOT / "scripts" / name), *words, "--json", str(cwd / "figures.json")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)
    return done, json.loads((cwd / "figures.json").read_text()) if (cwd / "figures.json").exists() else {}


@pytest.mark.slow
def test_a_few_kills_of_a_soak_lose_nothing(tmp_path):
    done, found = script("soak.py", "lm", "sentiment", "--cycles", "8", "--fresh", "0", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found["cycles"] == 8 == sum(found["phases"].values()) and found["faults"] == []
    assert [figures["cycles"] for figures in found["tasks"].values()] == [4, 4]
    assert all(figures["runs"] for figures in found["tasks"].values())  # however few the kills, one is compared
    assert "all: 8 kills in " in done.stdout and done.stdout.endswith("  differences and losses: 0\n")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("soak")
    data = tiny.write_corpus("sentiment", folder / "corpus", train=16)
    words = [*tiny.overrides("sentiment"), "train.epochs=1"]
    for name in ("one", "other"):
        out = folder / name / "run"
        seqtext.train("sentiment", data=str(data), overrides=words, out=out, device="cpu")
    return folder / "one" / "run", folder / "other" / "run"


def a_bit(run):
    tensors = load_file(run / "model.safetensors")
    name = next(name for name in sorted(tensors) if tensors[name].dtype == torch.float32)
    tensors[name].flatten().view(torch.int32)[0] ^= 1
    save_file(tensors, run / "model.safetensors", metadata={"step": "2"})


def a_line(run):
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join([*lines, lines[0]]))


def a_file(run):
    (run / "checkpoints" / "last.old").mkdir()


def a_folder_beside(run):
    (run.parent / ".run.0123abcd.tmp").mkdir()


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (a_bit, "model.safetensors differs in "),
        (a_line, "metrics.jsonl: "),
        (a_file, "the files of the run: "),
        (a_folder_beside, "what stands beside the run: "),
    ],
)
def test_a_soak_sees_what_differs(trained, harm, what):
    run, reference = trained
    soak.same(run, reference)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    harm(run)
    with pytest.raises(Fault, match=f"^{re.escape(what)}"):
        soak.same(run, reference)
    for path, content in before.items():
        path.write_bytes(content)
    for left in (run / "checkpoints" / "last.old", run.parent / ".run.0123abcd.tmp"):
        if left.exists():
            left.rmdir()
    with pytest.raises(Fault, match=r"^the checkpoint is of step \d+, and there was one of step 99$"):
        soak.sound(run, 99)


@pytest.mark.slow
def test_some_inputs_of_every_target_are_read_or_refused(tmp_path):
    done, found = script("fuzz.py", "--inputs", "60", "--seed", "7", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert found.keys() == fuzz.TARGETS.keys()
    for name, figures in found.items():
        assert figures["inputs"] == 60 == figures["accepted"] + figures["refused"], name
        assert figures["accepted"] > 1 and figures["refused"] > 1, name


def burn():
    while True:
        pass


FATES = {
    1: lambda: (_ for _ in ()).throw(DataError("refused")),
    2: lambda: {}["key"],
    3: lambda: os.kill(os.getpid(), signal.SIGKILL),
    4: burn,
    5: lambda: {}["key"],
}


def test_what_a_reader_must_not_do_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 1.0)  # a busy machine may hold a process up for some tenths
    target = Target(lambda rng: rng.getstate(), lambda state: FATES.get(order[state], lambda: None)())
    order = {random.Random(f"1 broken {number}").getstate(): number for number in range(8)}
    monkeypatch.setitem(fuzz.TARGETS, "broken", lambda scratch: target)
    found = fuzz.fuzz("broken", 8, 1, tmp_path)
    assert found["inputs"] == 8
    assert sorted((what.split(" at ")[0], *told) for what, told in found["findings"].items()) == [
        ("KeyError \"'key'\"", 2, 2),
        ("Slow ''", 1, 4),
        ("the process ended with -9", 1, 3),
    ]


def test_damage_is_the_same_each_time_and_reaches_everything():
    header = json.dumps({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    whole = len(header).to_bytes(8, "little") + header + bytes(8)
    for make in (
        lambda rng: fuzz_inputs.damaged([b"one\ntwo 2\n", b"{}"], rng),
        lambda rng: fuzz_inputs.damaged_json(b'{"a": [1, {"b": "c"}], "d": 0.5}', rng),
        lambda rng: fuzz_inputs.damaged_tensors(whole, rng),
    ):
        made = [make(random.Random(number)) for number in range(300)]
        assert made == [make(random.Random(number)) for number in range(300)]
        assert len(set(made)) > 200
    value = {"a": [1, {"b": "c"}], "d": 0.5}
    values = [fuzz_inputs.damaged_value(value, random.Random(number)) for number in range(300)]
    assert value == {"a": [1, {"b": "c"}], "d": 0.5}
    for reach in (lambda v: "a" not in v, lambda v: v["a"][1]["b"] != "c", lambda v: v["d"] != 0.5):
        assert any(reaches(reach, v) for v in values)


def reaches(reach, value):
    try:
        return reach(value)
    except (KeyError, IndexError, TypeError):
        return False


def test_growth_counts_from_the_warm_up_on():
    assert memory.growth([100.0, 150.0, 200.0, 200.0, 202.0, 204.0, 204.0, 204.0, 204.0, 205.0]) == pytest.approx(0.025)
    lines = list(memory.sentences(4500, 1))
    assert len(lines) == 4500 and lines == list(memory.sentences(4500, 1))
    words = [set(b" ".join(part).split()) for part in (lines[:2000], lines[2000:4000])]
    assert len(words[1] - words[0]) > 300  # there are ever new words


@pytest.mark.parametrize(("option", "value", "least"), [("--epochs", "1", 2), ("--sentences", "9", 20)])
def test_memory_refuses_what_shows_no_growth(tmp_path, option, value, least):
    done, _ = script("memory.py", "ner", option, value, cwd=tmp_path)
    told = f"memory.py: error: {option} {value}: growth is from one reading to a later one; expected {least} or more\n"
    assert done.returncode == 2 and done.stderr.endswith(told) and done.stdout == ""


@pytest.mark.slow
def test_memory_is_read_while_a_process_trains_and_tags(tmp_path):
    done, found = script("memory.py", "ner", "--epochs", "5", "--examples", "40", "--sentences", "2000", cwd=tmp_path)
    assert done.stdout.count("the limit") == 2, done.stderr
    assert [len(readings) for readings in found.values()] == [5, 20]
    assert all(50 < reading < 5000 for readings in found.values() for reading in readings)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("soak.py --cycles 0", "argument --cycles: 0: expected 1 or more"),
        ("soak.py --scratch /dev/null/x", "argument --scratch: /dev/null/x: Not a directory"),
        ("fuzz.py tagging --inputs -1", "argument --inputs: -1: expected 1 or more"),
        ("fuzz.py --only 5", "--only 5: of which target? Name one"),
        ("memory.py --json /dev/null/x", "argument --json: /dev/null/x: cannot be written"),
        ("scaling.py ner --faster 0", "argument --faster: 0: expected more than 0"),
        (
            "stream.py --tokens 5 --folder x",
            "--tokens 5: a thousandth of the lines is held out; expected 30,000 or more",
        ),
    ],
)
def test_scripts_refuse_at_once_what_would_measure_nothing(tmp_path, words, told):
    name, *rest = words.split()
    command = [sys.executable, str(ROOT / "scripts" / name), *rest]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.endswith(f"{name}: error: {told}\n") and done.stdout == ""
