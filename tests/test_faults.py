"""What a machine does to a run: a full disk, data that vanishes, two trainings in one folder, what kills leave."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import seqtext
from seqtext import session
from seqtext.data.samples import ner_sample
from seqtext.errors import DataError, RunError
from seqtext.files import locked, make_held, settle, sweep, sweep_beside
from seqtext.training.loop import Stepped

ROOT = Path(seqtext.__file__).parent.parent
SMALL = {
    "model.encoder.hidden_size": 8,
    "model.embedding.characters.name": "none",
    "train.epochs": 3,
    "train.checkpoint_every": 1,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "corpus"
    folder.mkdir()
    for split, size in (("train", 60), ("valid", 20)):
        sentences = ner_sample(split, size=size)
        text = "\n".join("".join(f"{token} {tag}\n" for token, tag in zip(*sentence)) for sentence in sentences)
        (folder / f"{split}.conll").write_text(text, encoding="utf-8")
    return folder


def train(corpus, out, **options):
    return seqtext.train("ner", data=str(corpus), overrides=SMALL, out=out, device="cpu", **options)


@pytest.fixture(scope="module")
def finished(corpus, tmp_path_factory):
    return train(corpus, tmp_path_factory.mktemp("finished") / "run").folder


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def assert_same(run, other):
    for name in ("model.safetensors", "checkpoints/last/state.safetensors"):
        found, expected = load_file(run / name), load_file(other / name)
        assert found.keys() == expected.keys()
        assert [key for key in expected if not torch.equal(found[key], expected[key])] == [], name
    assert files(run) == files(other)


def most(size):
    """From now on, no file can grow beyond `size` bytes: what a full disk is to a process. -1: as before."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


@contextmanager
def back():
    """Afterwards, files may grow again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("size", [0, 3000])  # not a byte more of the metrics; what is small still, and no weights
@pytest.mark.parametrize("steps", [1, 9])
def test_a_run_whose_disk_fills_up_says_so_once_and_goes_on_later(corpus, finished, tmp_path, size, steps):
    out, steps_left = tmp_path / "run", [steps]

    def fill(event):
        steps_left[0] -= isinstance(event, Stepped)
        if steps_left[0] == 0:
            most(size)

    with back(), pytest.raises(RunError) as caught:
        train(corpus, out, listen=fill)
    assert str(caught.value) == f"{out}: cannot be written: File too large; when it can be, go on with --resume {out}"
    left, whole = ([name for name in files(one) if not name.startswith("predictions.")] for one in (out, finished))
    assert left == whole
    step = json.loads((out / "checkpoints" / "last" / "state.json").read_text())["step"]
    assert step >= steps
    assert len(seqtext.load(out, device="cpu").predict(["Anna lives in Rome ."])) == 1
    seqtext.train(resume=out, device="cpu")
    assert_same(out, finished)


def test_a_disk_that_is_full_from_the_start_leaves_nothing(corpus, finished, tmp_path):
    with back(), pytest.raises(RunError) as caught:  # the data are in the cache by now
        most(2000)
        train(corpus, tmp_path / "run")
    assert str(caught.value) == f"{tmp_path / 'run'}: cannot be written: File too large"
    assert files(tmp_path) == []


def test_a_run_folder_that_is_read_only_is_told(finished, tmp_path, monkeypatch):
    run = Path(shutil.copytree(finished, tmp_path / "run"))

    def refuse(*given):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    told = f"{run}: cannot be written: Read-only file system; when it can be, go on with --resume {run}"
    for what in ("write_text", "sweep", "save_checkpoint"):
        with monkeypatch.context() as patch, pytest.raises(RunError) as caught:
            patch.setattr(session, what, refuse)
            seqtext.train(resume=run, overrides={"train.epochs": 4}, device="cpu")
        assert str(caught.value) == told, what


def test_data_that_vanish_during_a_training_do_not_end_it(corpus, finished, tmp_path, monkeypatch):
    monkeypatch.setenv("SEQTEXT_CACHE", str(tmp_path / "cache"))
    mine = Path(shutil.copytree(corpus, tmp_path / "mine"))

    def vanish(event):
        if isinstance(event, Stepped):
            shutil.rmtree(mine, ignore_errors=True)
            shutil.rmtree(tmp_path / "cache", ignore_errors=True)

    run = train(mine, tmp_path / "run", listen=vanish).folder
    assert_same(run, finished)
    with pytest.raises(DataError, match=f"^{mine}: no such folder"):
        seqtext.train(resume=run, overrides={"train.epochs": 4}, device="cpu")
    shutil.copytree(corpus, mine)
    assert seqtext.train(resume=run, overrides={"train.epochs": 4}, device="cpu").meta["epochs"] == 4


@pytest.mark.slow
def test_of_two_trainings_that_start_into_one_folder_one_is_refused(corpus, finished, tmp_path):
    words = ["train", "ner", *(f"{key}={value}" for key, value in SMALL.items()), "--data", str(corpus)]
    command = [sys.executable, "-m", "seqtext", *words, "--out", "run", "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    both = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True) for _ in range(2)
    ]
    said = {process.wait(): process.communicate(timeout=300)[1] for process in both}
    assert sorted(said) == [0, 2], said
    refusals = (
        "seqtext: run: exists already; choose another --out, or go on with it: seqtext train --resume run\n",
        "seqtext: run: another process is training in this folder; choose another --out\n",
        "seqtext: run: another training made its run here meanwhile; choose another --out\n",
    )
    assert said[2].endswith(refusals) and "Traceback" not in said[2]
    assert_same(tmp_path / "run", finished)
    assert files(tmp_path)[0] == "run"


def test_output_to_a_full_disk_is_one_message():
    command = [sys.executable, "-m", "seqtext", "recipes"]
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=full, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr.decode()) == (2, "seqtext: the output: No space left on device\n")


# What kills leave


def test_what_a_kill_left_of_a_run_in_the_making_is_gone_after_the_next_start(corpus, tmp_path):
    for name in (".run.0123abcd.tmp", ".run.4567abcd.tmp", ".other.0123abcd.tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / ".run.0123abcd.tmp" / "recipe.toml").touch()
    train(corpus, tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.0123abcd.tmp", "run"]


def test_a_run_that_another_process_is_making_stays(tmp_path):
    with ExitStack() as held:
        make_held(tmp_path / ".run.0123abcd.tmp", held)
        sweep_beside(tmp_path / "run")
        assert files(tmp_path) == [".run.0123abcd.tmp"]
    sweep_beside(tmp_path / "run")
    assert files(tmp_path) == []


def test_a_folder_that_was_swept_away_before_it_was_held_is_made_again(tmp_path, monkeypatch):
    folder, calls = tmp_path / ".run.0123abcd.tmp", []

    @contextmanager
    def swept(path):
        calls.append(path)
        if len(calls) == 1:  # another process, just before
            sweep_beside(tmp_path / "run")
            assert not folder.exists()
        with locked(path) as held:
            yield held

    with ExitStack() as held:
        monkeypatch.setattr("seqtext.files.locked", lambda path: swept(path) if len(calls) < 2 else locked(path))
        make_held(folder, held)
        assert folder.is_dir() and len(calls) >= 2
        monkeypatch.undo()
        sweep_beside(tmp_path / "run")
        assert folder.is_dir()


def test_a_kill_amid_the_exchange_of_folders_is_settled(tmp_path):
    last, old = tmp_path / "last", tmp_path / "last.old"
    old.mkdir()
    (old / "state.json").touch()
    settle(last)  # the new one had not got its name
    assert files(tmp_path) == ["last", "last/state.json"]
    old.mkdir()
    settle(last)  # the old one was still to be removed
    assert files(tmp_path) == ["last", "last/state.json"]


def test_what_safetensors_left_half_written_is_swept_and_nothing_else(tmp_path):
    for name in (".tmpX88etj", ".model.safetensors.0123abcd.tmp", ".tmp", ".tmpfiles", "x.tmp", "notes.tmpX88etj"):
        (tmp_path / name).touch()
    sweep(tmp_path)
    assert files(tmp_path) == [".tmp", ".tmpfiles", "notes.tmpX88etj", "x.tmp"]
