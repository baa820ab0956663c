"""Cross-validation at the command line: every example is tested once, one file is enough, and nothing is lost."""

from __future__ import annotations

import csv
import json
import statistics

import pytest

import seqtext
from seqtext.data.sentiment_sample import sentiment_sample

SMALL = {"train.epochs": 1, "model.encoder.hidden_size": 4, "model.embedding.size": 8}
WORDS = ["train", "sentiment", *(f"{key}={value}" for key, value in SMALL.items()), "--device", "cpu"]


def made(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def file(tmp_path, monkeypatch):
    """One file of 90 texts, in the working folder."""
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "reviews.csv").open("w", encoding="utf-8", newline="") as opened:
        csv.writer(opened).writerows([("text", "label"), *sentiment_sample("train", size=90)])
    return tmp_path / "reviews.csv"


def test_every_example_is_tested_once_and_the_same_command_goes_on(cli, refused, file):
    words = [*WORDS, "--data", "reviews.csv", "--out", "runs"]
    first = cli(*words, "--folds", "3")
    folds = [seqtext.load(f"runs/fold-{number}").run for number in (1, 2, 3)]
    tests, others = [], []
    for number, run in enumerate(folds, start=1):
        data = run.recipe.data
        assert (data.folds, data.fold, data.fold_seed, run.recipe.seed) == (3, number, 0, 1)
        parts = {split: run.task.read(data, split)["text"] for split in ("train", "valid", "test")}
        assert {split: len(texts) for split, texts in parts.items()} == {"train": 54, "valid": 6, "test": 30}
        tests += parts["test"]
        others.append(sorted(text for texts in parts.values() for text in texts))
    every = sorted(text for text, _ in sentiment_sample("train", size=90))
    assert sorted(tests) == every and others == [every] * 3
    scores = [seqtext.evaluate(run.folder, device="cpu") for run in folds]
    assert scores[1].settings.split("; ")[-2] == f"test (fold 2 of 3, fold_seed 0) of {file}"
    values = [found.scores["accuracy"] for found in scores]
    mean, deviation, low, high = statistics.fmean(values), statistics.stdev(values), min(values), max(values)
    expected = f"mean {mean:.4f}, deviation {deviation:.4f}, minimum {low:.4f}, maximum {high:.4f}"
    assert first.lines[0] == "runs: folds 3, fold_seed 0, seed 1" and first.lines[2] == f"test accuracy: {expected}"
    summary = json.loads((file.parent / "runs" / "summary.json").read_text(encoding="utf-8"))
    named = {"mean": mean, "deviation": deviation, "minimum": low, "maximum": high}
    assert summary["test accuracy"] == pytest.approx(named)
    assert {key: summary[key] for key in ("recipe", "folds", "fold_seed", "seed")} == {
        "recipe": "sentiment",
        "folds": 3,
        "fold_seed": 0,
        "seed": 1,
    }

    # As if it had been interrupted in the second fold.
    kept = folds[0].folder / "model.safetensors"
    before = kept.stat().st_mtime_ns
    for path in sorted(folds[2].folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    meta = json.loads((folds[1].folder / "meta.json").read_text(encoding="utf-8"))
    (folds[1].folder / "meta.json").write_text(json.dumps(meta | {"scores": {}, "finished": ""}), encoding="utf-8")
    again = json.loads(cli(*words, "--folds", "3", "--json").out)
    assert again == {"folder": "runs", **{key: value for key, value in summary.items() if key != "recipe"}}
    assert kept.stat().st_mtime_ns == before

    other = "runs/fold-1: a run of another recipe or other settings; choose another --out"
    assert refused(*words, "--folds", "4") == refused(*words, "--folds", "3", "data.fold_seed=1") == other
    assert not (file.parent / "runs" / "fold-4").exists()


def test_one_file_is_cut_by_hold_out_too(cli, file):
    assert cli(*WORDS, "data.hold_out=0.1", "--data", "reviews.csv", "--out", "run").status == 0
    run = seqtext.load("run").run
    assert {split: facts["examples"] for split, facts in run.meta["data"].items()} == {
        "train": 72,
        "valid": 9,
        "test": 9,
    }
    told = seqtext.evaluate("run", device="cpu").settings
    assert f"; test (hold_out 0.1, fold_seed 0) of {file}; " in told
    # Other data is taken whole.
    told = seqtext.evaluate("run", str(file), device="cpu")
    assert told.examples == 90 and f"; test of {file}; " in told.settings
    facts = json.loads(cli("check", "sentiment", "data.hold_out=0.1", "--data", "reviews.csv", "--json").out)
    assert facts["source"] == "reviews.csv"


SPLITS = "give a folder, or data.train=FILE data.valid=FILE data.test=FILE"
ONE = "--data reviews.csv: 1 fault\n  this is one file, and training needs more than one split; " + SPLITS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sentiment", "--folds", "1"], "--folds 1: expected 2 or more"),
        (["sentiment", "--folds", "0"], "--folds 0: expected 2 or more"),
        (
            ["sentiment"],
            f"{ONE}; or have it cut: data.hold_out=0.1 (a tenth to validate on, a tenth to test on) or --folds 5",
        ),
        (["lm"], f"{ONE}; or have it cut: data.hold_out=0.1 (a tenth to validate on, a tenth to test on)"),
        (["ner"], ONE),
        (["ner", "--folds", "3"], "--folds 3: the task ner has no folds; those that have: sentiment"),
        (["lm", "--folds", "3"], "--folds 3: the task lm has no folds; those that have: sentiment"),
        (
            ["sentiment", "--folds", "3", "--seeds", "2"],
            "--seeds and --folds: give one of them; --seed chooses the seed of all folds",
        ),
        (
            ["--folds", "3", "--resume", "run"],
            "--folds takes a recipe, not --resume; the same command with --out goes on by itself",
        ),
        (
            ["sentiment", "--folds", "3", "data.folds=3", "data.fold=1"],
            "--folds 3: the recipe has data.folds = 3 and data.fold = 1; leave them out, every fold is trained",
        ),
        (
            ["sentiment", "--folds", "40"],
            "reviews.csv: class '{rare}' has {count} examples, fewer than the 40 folds; expected one a fold at least",
        ),
    ],
)
def test_folds_that_cannot_be_cut_are_told_and_make_nothing(refused, file, words, message):
    labels = [label for _, label in sentiment_sample("train", size=90)]
    rare = min(set(labels), key=labels.count)
    before = made(file.parent)
    told = refused("train", *words, *(["--data", "reviews.csv"] if "--resume" not in words else []))
    assert told == message.format(rare=rare, count=labels.count(rare))
    assert made(file.parent) == before


def test_test_data_beside_folds_is_refused(refused, file):
    told = refused("train", "sentiment", "data.train=reviews.csv", "data.test=reviews.csv", "--folds", "3")
    assert (
        told == "--folds 3: 1 fault\n  data: test is not read with folds: a fold of the training data is the test data"
    )
    assert made(file.parent) == ["reviews.csv"]
