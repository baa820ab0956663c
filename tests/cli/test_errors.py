"""Bad input at the command line: exit status 2, one message that says where and what to do, no traceback, no output."""

from __future__ import annotations

import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import seqtext
from seqtext.tasks import TASKS

ROOT = Path(seqtext.__file__).parent.parent
HERE = "{folder}"


def made(folder):
    """All that stands in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


@pytest.mark.parametrize("words", [["train", "ner"], ["check", "ner"]])
def test_a_cpu_records_nothing(refused, folder, words):
    told = refused(*words, "train.graphs=true", "--device", "cpu")
    assert told == (
        "train.graphs = true: only a GPU records what it is asked for, and training is on cpu here; "
        "set train.graphs=false"
    )
    assert made(folder) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train"], "no recipe given: seqtext train ner, or a recipe's name or file (seqtext recipes lists them)"),
        (["train", "nre"], "nre: 1 fault\n  no recipe of this name and no such file; did you mean 'ner'?"),
        (["train", "my.toml"], "my.toml: 1 fault\n  no such file"),
        (["check", "my.toml"], "my.toml: 1 fault\n  no such file"),
        (["recipes", "show", "my.toml"], "my.toml: 1 fault\n  no such file"),
        (
            ["recipes", "copy", "nre", "x"],
            "nre: 1 fault\n  no recipe of this name and no such file; did you mean 'ner'?",
        ),
        (["recipes", "copy", "ner", "no/x.toml"], "no: no such folder"),
        (["recipes", "list"], "recipes list: seqtext recipes lists them; its commands are show and copy"),
        (["train", "ner", "--data", "none"], "none: no such folder; a source is a folder, "),
        (["check", "ner", "--data", "none"], "none: no such folder; a source is a folder, "),
        (["train", "ner", "--device", "tpu"], "--device tpu: expected auto, cpu, cuda or cuda:N"),
        (["train", "ner", "--device", "cuda:x"], "--device cuda:x: expected auto, cpu, cuda or cuda:N"),
        (
            ["train", "ner", "--resume", "run"],
            "--resume goes on with a run as it is: give no recipe, --data, --seed or ",
        ),
        (["train", "--resume", "run"], "run: no such run folder"),
        (["train", "--seeds", "2"], "--seeds takes a recipe, not --resume; the same command with --out goes on by "),
        (["evaluate", "run"], "run: no such run folder"),
        (["predict", "run"], "run: no such run folder"),
        (["evaluate", "run", "--split", "foo"], "--split foo: expected train, valid or test"),
        (["predict", "run", "--confidence"], "--confidence and --nbest need --json, which has room for them"),
        (["predict", "run", "--nbest", "2"], "--confidence and --nbest need --json, which has room for them"),
    ],
)
def test_what_cannot_be_done_is_said_and_makes_nothing(refused, folder, words, message):
    assert refused(*words).startswith(message)
    assert made(folder) == []


def test_all_faults_of_a_recipe_are_told_at_once(refused, folder):
    recipe = 'task = "ner"\n[data.words]\nvectorz = "x"\n[model.encoder]\nhidden = 3\n[train]\nepochs = "many"\n'
    (folder / "my.toml").write_text(recipe, encoding="utf-8")
    told = (
        "my.toml: 4 faults\n"
        "  data.words.vectorz: unknown key; did you mean 'vectors'?\n"
        "  model.encoder.hidden: unknown key; did you mean 'hidden_size'?\n"
        "  train.epochs: expected a valid integer, got 'many'\n"
        "  train.clip: expected a valid number, got 'big'"
    )
    assert refused("check", "my.toml", "train.clip=big") == told
    assert refused("train", "my.toml", "train.clip=big") == told
    assert made(folder) == ["my.toml"]


def test_a_recipe_is_copied_over_nothing(refused, folder):
    (folder / "ner.toml").write_text("mine", encoding="utf-8")
    assert refused("recipes", "copy", "ner", ".") == "ner.toml: exists already; remove it or choose another name"
    assert refused("recipes", "copy", "ner", "ner.toml").startswith("ner.toml: exists already")
    assert (folder / "ner.toml").read_text(encoding="utf-8") == "mine"


WRONG = [
    ("valid", b"", "{file}: no sentence: the file is empty or blank"),
    (
        "train",
        b"Berlin O\nis O\n",
        "{file}: no entity in 1 sentence: is data.tag_column = -1 right? the first line is ",
    ),
    ("train", b"Berlin B-LOC\nis\n", "{file}:2: "),
    ("train", b"Berlin X-LOC\n", "{file}:1: "),
    (
        "test",
        b"Berlin B-LOC\n\nM\xfcnchen B-LOC\n",
        "{file}:3: byte 0xfc at byte 2 of the line is not UTF-8; convert the ",
    ),
    ("valid", b"Rex B-DOG\n", "{corpus} (valid): sentence 1: label 'S-DOG' was never seen in training; the labels "),
    ("test", gzip.compress(b"Berlin B-LOC\n" * 99, mtime=0)[:-12], "{file}: damaged gzip file: "),
]


@pytest.mark.parametrize(("split", "content", "message"), WRONG)
@pytest.mark.parametrize("command", ["train", "check"])
def test_data_that_does_not_read_is_told_by_file_and_line(refused, corpus, folder, command, split, content, message):
    mine = Path(shutil.copytree(corpus, folder / "mine"))
    file = mine / f"{split}.conll"
    file.write_bytes(content)
    before = made(folder)
    assert refused(command, "ner", "--data", mine).startswith(message.format(file=file, corpus=mine))
    assert made(folder) == before


@pytest.mark.parametrize(("split", "content", "message"), [case for case in WRONG if case[0] != "train"])
def test_evaluation_tells_the_same(refused, run, corpus, folder, split, content, message):
    mine = Path(shutil.copytree(corpus, folder / "mine"))
    file = mine / f"{split}.conll"
    file.write_bytes(content)
    told = refused("evaluate", run, "--data", mine, "--split", split)
    assert told.startswith(message.format(file=file, corpus=mine))


def test_evaluation_of_a_split_or_file_that_is_not_there_is_told(refused, run, corpus, folder):
    mine = Path(shutil.copytree(corpus, folder / "mine"))
    (mine / "test.conll").unlink()
    told = refused("evaluate", run, "--data", mine)
    assert told.startswith(
        f"{mine}: no test file here: its name must have one of test, testb in it; found: train.conll"
    )
    assert refused("evaluate", run, "--data", "no.txt").startswith("no.txt: no such file; a source is a folder")


def test_training_without_a_valid_split_is_told(refused, corpus, folder):
    mine = Path(shutil.copytree(corpus, folder / "mine"))
    (mine / "valid.conll").unlink()
    told = refused("train", "ner", "--data", mine)
    assert told.startswith(f"{mine}: no valid file here: its name must have one of valid, dev, validation, val, testa ")


def test_a_vectors_file_with_a_line_of_the_wrong_width_is_told(refused, corpus, folder):
    (folder / "vectors.txt").write_text("the 0.1 0.2 0.3\nof 0.1 0.2\n", encoding="utf-8")
    told = refused("train", "ner", "data.words.vectors=vectors.txt", "--data", corpus)
    assert told.startswith("vectors.txt:2: ")
    assert made(folder) == ["vectors.txt"]
    told = refused("train", "ner", "data.words.vectors=none.txt", "--data", corpus)
    assert told.startswith("none.txt: ") and made(folder) == ["vectors.txt"]


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def newer(path):
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"format": 99}), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "damage"),
    [(name, damage) for name in ("meta.json", "model.safetensors", "labels.json") for damage in (Path.unlink, cut)]
    + [("meta.json", newer)],
)
def test_a_damaged_run_is_one_message_naming_the_file(refused, run, folder, name, damage):
    mine = Path(shutil.copytree(run, folder / "mine"))
    damage(mine / name)
    for command in (["predict", mine], ["evaluate", mine], ["train", "--resume", mine, "train.epochs=9"]):
        if command[0] == "train" and name == "model.safetensors":
            continue  # going on needs only the checkpoint
        assert refused(*command).startswith(f"{mine / name}: ")


def test_a_run_folder_in_use_is_told(refused, run, corpus):
    before = made(run)
    told = refused("train", "ner", "--data", corpus, "--out", run)
    assert told == f"{run}: exists already; choose another --out, or go on with it: seqtext train --resume {run}"
    assert made(run) == before


def test_seeds_of_other_settings_in_the_same_folder_are_told(refused, cli, corpus, folder):
    words = ["train", "ner", "train.epochs=1", "model.encoder.hidden_size=4", "--data", corpus, "--out", "runs"]
    assert cli(*words, "--seeds", "1").status == 0
    told = refused(*words, "--seeds", "2", "model.dropout=0.1")
    assert told == "runs/seed-1: a run of another recipe or other settings; choose another --out"


def test_input_that_is_not_utf8_is_told_by_line_and_byte(refused, run, folder):
    (folder / "letter.txt").write_bytes(b"fine\nM\xfcnchen\n")
    told = refused("predict", run, "letter.txt", out="fine\n")
    assert told == "letter.txt:2: byte 0xfc at byte 2 of the line is not UTF-8; convert the file to UTF-8"
    told = refused("predict", run, stdin=b"fine\n\nab\xff\n", out="fine\n")
    assert told.startswith("standard input:3: byte 0xff at byte 3 of the line is not UTF-8")


def test_input_that_is_missing_is_told_before_anything_is_answered(refused, run, folder):
    (folder / "letter.txt").write_text("fine\n", encoding="utf-8")
    assert refused("predict", run, "letter.txt", "other.txt") == "other.txt: no such file"
    assert refused("predict", run, "letter.txt", folder, out="fine\n").endswith("this is a folder; a file is expected")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
@pytest.mark.parametrize("words", [["train", "ner"], ["check", "ner"], ["predict", HERE], ["evaluate", HERE]])
def test_cuda_where_there_is_none_is_told(refused, run, folder, words):
    told = refused(*(str(run) if word == HERE else word for word in words), "--device", "cuda")
    assert told == f"--device cuda: no CUDA device here (torch {torch.__version__}); use --device cpu or auto"
    assert made(folder) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], r"No such command 'trian'.* Did you mean 'train'\?"),
        (["train", "ner", "--epochs", "3"], "No such option: --epochs"),
        (["train", "ner", "--seed", "-1"], "Invalid value for .--seed.: "),
        (["predict", HERE, "--nbest", "0"], "Invalid value for .--nbest.: "),
        (["evaluate"], "Missing argument 'RUN'"),
    ],
)
def test_a_wrong_command_line_is_told_with_the_usage(cli, words, message, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    result = cli(*words)
    assert (result.status, result.out) == (2, "")
    assert "Usage: seqtext" in result.err and re.search(message, re.sub(r"[\s│]+", " ", result.err))


@pytest.mark.slow
def test_an_interruption_before_training_begins_says_nothing_and_makes_nothing(folder):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    os.mkfifo(folder / "recipe.toml")  # training waits here to read it
    command = [sys.executable, "-m", "seqtext", "train", "recipe.toml"]
    process = subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True)
    with (folder / "recipe.toml").open("w"):
        process.send_signal(signal.SIGINT)  # and close: a signal just before read() would wait for it to return
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out, err) == (130, "", "")
    assert made(folder) == ["recipe.toml"]


def test_every_task_has_a_message_for_the_task_it_is_not(refused, folder):
    (folder / "my.toml").write_text('task = "parsing"\n', encoding="utf-8")
    told = refused("train", "my.toml")
    assert told == f"my.toml: 1 fault\n  task: expected one of {', '.join(TASKS)}, got 'parsing'"
