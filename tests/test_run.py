"""The run folder: complete or not there, and a part of it that is missing, cut off or too new is told by its name."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch

import seqtext
from seqtext import run as runs
from seqtext import session
from seqtext.data.samples import ner_sample
from seqtext.errors import ConfigError, DataError, InputError, RunError
from seqtext.files import locked
from seqtext.tasks.ner import Ner
from seqtext.training.loop import EpochEnded, Finished

SMALL = {"model.encoder.hidden_size": 8, "model.embedding.characters.name": "none", "train.epochs": 1}


def write_corpus(folder, **sizes):
    folder.mkdir()
    for split, size in sizes.items():
        sentences = ner_sample(split, size=size)
        text = "\n".join("".join(f"{token} {tag}\n" for token, tag in zip(*sentence)) for sentence in sentences)
        (folder / f"{split}.conll").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("data") / "corpus", train=40, valid=10, test=10)


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    return train(corpus, tmp_path_factory.mktemp("runs") / "run").folder


@pytest.fixture
def run(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def train(corpus, out, **changes):
    changes = {"data": str(corpus), "overrides": SMALL, "device": "cpu"} | changes
    return seqtext.train("ner", out=out, **changes)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_run_has_its_parts_and_says_what_made_it(trained, corpus):
    found = sorted(str(path.relative_to(trained)) for path in trained.rglob("*") if path.is_file())
    assert found == [
        "characters.json",
        "checkpoints/last/state.json",
        "checkpoints/last/state.safetensors",
        "labels.json",
        "meta.json",
        "metrics.jsonl",
        "model.safetensors",
        "predictions.test.jsonl",
        "predictions.valid.jsonl",
        "recipe.toml",
        "tokenizer.json",
    ]
    meta = json.loads((trained / "meta.json").read_text(encoding="utf-8"))
    assert (meta["format"], meta["task"], meta["seed"], meta["goal"]) == (1, "ner", 1, ["f1", "max"])
    assert {split: facts["examples"] for split, facts in meta["data"].items()} == {"train": 40, "valid": 10, "test": 10}
    assert meta["versions"]["torch"] == torch.__version__ and meta["versions"]["seqtext"] == seqtext.__version__
    model = seqtext.load(trained, device="cpu")
    for split in ("valid", "test"):
        sentences = list(ner_sample(split, size=10))
        again = model.predict([" ".join(tokens) for tokens, _ in sentences], pretokenized=True)
        filed = [json.loads(line) for line in (trained / f"predictions.{split}.jsonl").open(encoding="utf-8")]
        assert [line["tokens"] for line in filed] == [tokens for tokens, _ in sentences]
        assert [line["tags"] for line in filed] == [prediction.tags for prediction in again]
    assert meta["scores"]["test"] == seqtext.evaluate(trained, device="cpu").scores


def test_a_second_training_in_a_process_may_have_another_precision(corpus, trained, tmp_path):
    run = train(corpus, tmp_path / "run", overrides=SMALL | {"train.precision": "bf16"})
    losses = [
        next(line["loss"] for line in map(json.loads, (folder / "metrics.jsonl").open()) if line["kind"] == "epoch")
        for folder in (trained, run.folder)
    ]
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.02)
    parameters = seqtext.load(run.folder, device="cpu").module.parameters()
    assert {parameter.dtype for parameter in parameters} == {torch.float32}


def edit(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def drop(path, key):
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != key}), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("meta.json", Path.unlink, "{path}: missing; the run folder is not complete"),
        ("recipe.toml", Path.unlink, "{path}: missing; the run folder is not complete"),
        ("model.safetensors", Path.unlink, "{path}: missing; the run folder is not complete"),
        ("tokenizer.json", Path.unlink, "{path}: no such file; a saved tokenizer is expected"),
        ("characters.json", Path.unlink, "{path}: no such file; a saved tokenizer is expected"),
        ("labels.json", Path.unlink, "{path}: cannot read the labels: No such file or directory"),
        ("meta.json", cut, "{path}: damaged, not the JSON that a run holds ("),
        (
            "recipe.toml",
            lambda path: path.write_text(path.read_text().rpartition("=")[0] + "="),  # cut within a line
            "{path}: not a recipe that this seqtext can read\n  not valid TOML: ",
        ),
        ("model.safetensors", cut, "{path}: damaged or cut off ("),
        ("model.safetensors", lambda path: path.write_bytes(b""), "{path}: damaged or cut off ("),
        ("tokenizer.json", cut, "{path}: damaged, or not a tokenizer file: "),
        (
            "meta.json",
            lambda path: edit(path, format=3, versions=3),
            "{path}: run format 3, written by seqtext ?; this seqtext reads up to format 2: upgrade it",
        ),
        (
            "recipe.toml",
            lambda path: path.write_text(path.read_text().replace("hidden_size = 8", "hidden_size = 9999999999")),
            "{path}: a model of these sizes ([model]) cannot be made: ",
        ),
        ("meta.json", lambda path: path.write_text("[" * 100_000), "{path}: damaged, not the JSON that a run holds ("),
        ("characters.json", cut, "{path}: damaged, or not a tokenizer file: "),
        ("labels.json", cut, "{path}: damaged; not valid JSON: "),
        ("meta.json", lambda path: path.write_text("[1]"), "{path}: damaged, its content is not what a run holds"),
        ("meta.json", lambda path: drop(path, "scores"), "{path}: damaged, it lacks scores"),
        (
            "meta.json",
            lambda path: edit(path, format=3, versions={"seqtext": "7.0"}),
            "{path}: run format 3, written by seqtext 7.0; this seqtext reads up to format 2: upgrade it",
        ),
        (
            "recipe.toml",
            lambda path: path.write_text(path.read_text().replace("hidden_size", "hiden_size")),
            "{path}: not a recipe that this seqtext can read\n"
            "  model.encoder.hiden_size: unknown key; did you mean 'hidden_size'?",
        ),
        (
            "recipe.toml",
            lambda path: path.write_text(path.read_text().replace("hidden_size = 8", "hidden_size = 9")),
            "{folder}/model.safetensors: does not fit the model of recipe.toml: size mismatch for ",
        ),
    ],
)
def test_a_damaged_run_is_told_by_the_file(run, name, damage, message):
    damage(run / name)
    with pytest.raises(InputError) as caught:
        seqtext.load(run)
    assert str(caught.value).startswith(message.format(path=run / name, folder=run))


@pytest.mark.parametrize("damage", [Path.unlink, cut])
@pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
def test_a_damaged_checkpoint_is_told_by_the_file_and_hinders_no_prediction(run, name, damage):
    path = run / "checkpoints" / "last" / name
    damage(path)
    assert len(seqtext.load(run, device="cpu").predict(["Hello there ."])) == 1
    with pytest.raises(RunError, match=f"^{path}: (missing|damaged)"):
        seqtext.train(resume=run)


def test_a_run_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RunError, match=f"^{tmp_path / 'run'}: no such run folder$"):
        seqtext.load(tmp_path / "run")
    with pytest.raises(RunError, match=r"/meta\.json: missing; the run folder is not complete$"):
        seqtext.load(tmp_path)


def test_a_folder_of_several_runs_is_told_with_how_to_go_on(trained, tmp_path):
    for name in ("seed-1", "seed-2"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    for use in (seqtext.load, lambda folder: seqtext.train(resume=folder)):
        with pytest.raises(RunError) as caught:
            use(tmp_path / "runs")
        assert str(caught.value) == (
            f"{tmp_path / 'runs'}: no run itself, it holds runs (seed-1, seed-2): name one of them; a training with "
            "--seeds or --folds goes on by the same command as before, without --resume"
        )


def test_a_folder_in_use_is_left_as_it_is(corpus, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(RunError) as caught:
        train(corpus, tmp_path / "mine")
    expected = "exists already; choose another --out, or go on with it: seqtext train --resume "
    assert str(caught.value) == f"{tmp_path / 'mine'}: {expected}{tmp_path / 'mine'}"
    with locked(tmp_path / "mine"), pytest.raises(RunError) as caught:
        train(corpus, tmp_path / "mine")
    told = "another process is training in this folder; choose another --out"
    assert str(caught.value) == f"{tmp_path / 'mine'}: {told}"
    with pytest.raises(RunError, match=r"letter\.txt: cannot be made: .*letter\.txt is a file$"):
        train(corpus, tmp_path / "mine" / "letter.txt")
    with pytest.raises(RunError, match=r"letter\.txt/run: cannot be made: .*letter\.txt is a file$"):
        train(corpus, tmp_path / "mine" / "letter.txt" / "run")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "letter.txt"]


def test_an_empty_folder_and_new_parents_do(corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b" / "run"):
        train(corpus, out)
        assert seqtext.load(out).run.meta["finished"] == "all epochs done"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written_is_told_before_the_data_is_read(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match=f"run: cannot be made: {tmp_path} cannot be written to$"):
        train(tmp_path / "no such data", tmp_path / "run")


def test_a_place_that_turns_out_not_to_be_writable_is_told_before_the_data_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as for who is not root
    with pytest.raises(RunError, match=f"run: cannot be made: {tmp_path} cannot be written to$"):
        train(tmp_path / "no such data", tmp_path / "run")


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_is_full_at_the_start_leaves_nothing(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "save_checkpoint", full)
    with pytest.raises(RunError, match=r"run: cannot be written: No space left on device$"):
        train(corpus, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_later_leaves_a_run_that_goes_on(corpus, trained, tmp_path, monkeypatch):
    out, overrides = tmp_path / "run", SMALL | {"train.checkpoint_every": 1}
    with monkeypatch.context() as patch:
        patch.setattr(session, "save_checkpoint", full)
        with pytest.raises(
            RunError, match=f"cannot be written: No space left on device; when it can be, go on with --resume {out}$"
        ):
            train(corpus, out, overrides=overrides)
    assert seqtext.load(out).run.meta["scores"] == {}
    done = seqtext.train(resume=out, device="cpu")
    assert done.meta["scores"] == json.loads((trained / "meta.json").read_text(encoding="utf-8"))["scores"]


def test_a_run_whose_folder_is_moved_while_it_trains_stops_and_goes_on_where_that_is(corpus, trained, tmp_path):
    out, moved = tmp_path / "run", tmp_path / "moved"

    def move(event):
        if isinstance(event, EpochEnded) and out.exists():
            out.rename(moved)

    told = f"{out}: gone since the training began (no recipe.toml in it); nothing more is written there."
    go_on = " If it was moved, go on with --resume and the folder's new name"
    with pytest.raises(RunError, match=re.escape(told + go_on)):
        train(corpus, out, overrides=SMALL, listen=move)
    assert [path.name for path in tmp_path.iterdir()] == ["moved"]
    done = seqtext.train(resume=moved, device="cpu")
    assert done.meta["scores"] == json.loads((trained / "meta.json").read_text(encoding="utf-8"))["scores"]


def test_of_two_trainings_into_one_folder_the_first_stays(corpus, tmp_path, monkeypatch):
    create, out = runs.create, tmp_path / "run"

    def second(*given):  # just before the other makes its run, this one is there
        monkeypatch.setattr(runs, "create", create)
        train(corpus, out)
        first.append((out / "model.safetensors").read_bytes())
        return create(*given)

    first = []
    monkeypatch.setattr(runs, "create", second)
    with pytest.raises(RunError, match=r"run: another training made its run here meanwhile; choose another --out$"):
        train(corpus, out, seed=5)
    assert (out / "model.safetensors").read_bytes() == first[0]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_loss_that_is_not_finite_is_saved_over_nothing(corpus, tmp_path, monkeypatch):
    out, overrides, loss = tmp_path / "run", SMALL | {"train.epochs": 3, "train.checkpoint_every": 1}, Ner.loss
    best = []

    def spoilt(self, *given):
        found = loss(self, *given)
        return found._replace(total=found.total * float("nan")) if best else found

    def listen(event):
        if isinstance(event, EpochEnded) and not best:
            best.append((out / "model.safetensors").read_bytes())

    with monkeypatch.context() as patch:
        patch.setattr(Ner, "loss", spoilt)
        with pytest.raises(
            InputError, match=r"the loss is nan at step \d+ \(training examples [\d, .]+, counted from 1\)"
        ):
            train(corpus, out, overrides=overrides, listen=listen)
    assert (out / "model.safetensors").read_bytes() == best[0]
    done = seqtext.train(resume=out, device="cpu")  # from a checkpoint that the bad loss has not spoilt either
    assert done.meta["scores"] == train(corpus, tmp_path / "other", overrides=overrides).meta["scores"]


@pytest.mark.parametrize(
    ("recipe", "changes", "error", "message"),
    [
        ("ner", {"overrides": ["train.epoch=3"]}, ConfigError, r"train\.epoch: unknown key; did you mean 'epochs'\?"),
        ("ner", {"data": "no-such-folder"}, DataError, "no-such-folder: no such folder; a source is a folder, "),
        ("ner", {"device": "tpu"}, InputError, "--device tpu: expected auto, cpu, cuda or cuda:N"),
        ("nerr", {}, ConfigError, "nerr: 1 fault\n  no recipe of this name and no such file; did you mean 'ner'?"),
        (None, {}, InputError, "no recipe given: seqtext train ner, or a recipe's name or file"),
        ("ner", {"resume": "run"}, InputError, "--resume goes on with a run as it is: give no recipe, --data, --seed"),
    ],
)
def test_a_training_that_cannot_begin_leaves_nothing(tmp_path, monkeypatch, recipe, changes, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message.replace("'?", r"'\?").replace("(", r"\(")):
        seqtext.train(recipe, **changes)
    assert list(tmp_path.iterdir()) == []


def test_a_label_not_seen_in_training_names_the_split_and_leaves_nothing(corpus, tmp_path):
    mine = Path(shutil.copytree(corpus, tmp_path / "mine"))
    with (mine / "valid.conll").open("a", encoding="utf-8") as file:
        file.write("\nBoots B-DOG\n")
    with pytest.raises(DataError) as caught:
        train(mine, tmp_path / "run")
    assert str(caught.value).startswith(f"{mine} (valid): sentence 11: label 'S-DOG' was never seen in training; ")
    assert not (tmp_path / "run").exists()
    named = {"data.train": str(mine / "train.conll"), "data.valid": str(mine / "valid.conll")}
    with pytest.raises(DataError, match=rf"^{mine}/valid\.conll \(valid\): sentence 11: label 'S-DOG' was never seen"):
        train(None, tmp_path / "run", data=None, overrides=SMALL | named)


def test_without_its_package_tensorboard_is_refused_before_anything_is_made(corpus, tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(InputError) as caught:
        train(corpus, tmp_path / "run", tensorboard=True)
    expected = '--tensorboard needs the tensorboard package: pip install "seqtext[tensorboard]"'
    assert str(caught.value) == expected and list(tmp_path.iterdir()) == []


def test_tensorboard_files_hold_the_numbers_of_the_metrics(corpus, tmp_path):
    pytest.importorskip("tensorboard", reason="the tensorboard extra is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = []
    overrides = SMALL | {"train.log_every": 1}
    run = train(corpus, tmp_path / "run", overrides=overrides, tensorboard=True, listen=events.append)
    assert isinstance(events[-1], Finished)
    found = EventAccumulator(str(run.folder / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in found.Scalars("train/loss")]
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").open(encoding="utf-8")]
    steps = [(line["step"], line["loss"]) for line in lines if line["kind"] == "train"]
    assert len(steps) > 1 and [step for step, _ in losses] == [step for step, _ in steps]
    assert [value for _, value in losses] == pytest.approx([value for _, value in steps], rel=1e-5)
    assert found.Scalars("valid/f1")[0].value == pytest.approx(run.meta["scores"]["valid"]["f1"])


def test_a_run_trained_on_relative_paths_is_used_from_another_folder(corpus, tmp_path, monkeypatch):
    monkeypatch.chdir(corpus.parent)
    Path("v.txt").write_text("in 0.1 0.2\nthe 0.3 0.4\n", encoding="utf-8")
    run = train(corpus.name, tmp_path / "run", overrides=SMALL | {"data.words.vectors": "v.txt"})
    monkeypatch.chdir(tmp_path)
    assert seqtext.evaluate("run").scores["f1"] == run.meta["scores"]["test"]["f1"]
