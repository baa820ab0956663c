"""Reports: every section of a task from what the run holds, the figures those of the task, and all text inert."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser

import pytest

import seqtext
from seqtext import api
from seqtext.api import evaluate
from seqtext.data.samples import ner_sample
from seqtext.errors import InputError
from seqtext.report.held import NEEDED
from seqtext.report.measures import MEASURES
from seqtext.report.sections import SECTIONS
from seqtext.tasks import TASKS
from tests.cli import toy
from tests.cli.test_trees import SMALL as TREE_SETTINGS
from tests.cli.test_trees import write as write_trees

pytest.importorskip("matplotlib")
EVIL = "<script>alert(1)</script>"


class Page(HTMLParser):
    """The sections of a page by their headings, as text, and all tags that are open at its end or should not be."""

    def __init__(self, text):
        super().__init__()
        self.sections, self.tags, self.open = {}, [], []
        self.heading = self.ids = None
        self.ids = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in ("meta", "link"):
            self.open.append(tag)
        if tag == "h2":
            self.heading = ""
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        if tag == "h2":
            self.current, self.heading = self.heading, None
            self.sections[self.current] = ""

    def handle_data(self, data):
        if self.heading is not None:
            self.heading += data
        elif self.sections:
            self.sections[self.current] += data + " "


def page(out):
    text = out.read_text(encoding="utf-8")
    found = Page(text)
    assert found.open == [] and "script" not in found.tags
    assert not re.search(r'(?:src|href)="(?!#|data:)', text) and len(set(found.ids)) == len(found.ids)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A small run of each task, and of kinds of a task that a report knows apart."""
    folder = tmp_path_factory.mktemp("report")
    small = {"train.epochs": 1, "model.encoder.hidden_size": 8}
    lines = "\n".join(f"the cat no. {n} sees {EVIL} and a dog" for n in range(60))
    (folder / "text").mkdir()
    for split in ("train", "valid", "test"):
        (folder / "text" / f"{split}.txt").write_text(lines, encoding="utf-8")
    reviews = "".join(f"text {n} {EVIL} {'good' if n % 2 else 'bad'},{n % 2}\n" for n in range(40))
    (folder / "reviews.csv").write_text("text,label\n" + reviews, encoding="utf-8")
    for name, task, settings in (
        ("one", "sentiment", {"data.hold_out": 0.3, "model.pool.name": "attention"}),
        ("two", "sentiment", {"data.hold_out": 0.3, "train.optimizer.lr": 0.05, "train.epochs": 4}),
        ("lm", "lm", {"data.window": 10, "model.tied": False}),
        ("told", "lm-conditioned", {"data.hold_out": 0.3, "data.window": 5}),
    ):
        data = folder / ("text" if task == "lm" else "reviews.csv")
        seqtext.train(task, data=str(data), overrides=small | settings, out=folder / name, device="cpu")
    few = {"data.examples": 40, "data.held_out": 20, "train.epochs": 2}
    for job in ("brackets", "adding"):
        settings = small | few | {"data.job": {"name": job, "length": 30}}
        seqtext.train("memory", overrides=settings, out=folder / job, device="cpu")
    trees = write_trees(folder / "treebank")
    seqtext.train("tree-sentiment", data=str(trees), overrides=TREE_SETTINGS, out=folder / "trees", device="cpu")
    toy.trained(toy.write(folder / "pairs"), folder / "pair", epochs=1)
    (folder / "tags").mkdir()
    for split, size in (("train", 100), ("valid", 30), ("test", 30)):
        sentences = ner_sample(split, size=size)
        text = "\n".join("".join(f"{token} {tag}\n" for token, tag in zip(*sentence)) for sentence in sentences)
        (folder / "tags" / f"{split}.conll").write_text(text, encoding="utf-8")
    for name, recipe, settings in (
        ("ner", "ner", small | {"train.epochs": 4, "train.optimizer.lr": 0.02}),
        ("fed", "ner-jordan", {"train.epochs": 1, "model.feedback.hidden_size": 8}),
        ("echo", "ner-esn", {"model.encoder.size": 20}),
    ):
        seqtext.train(recipe, data=str(folder / "tags"), overrides=settings, out=folder / name, device="cpu")
    return folder


COMMON = ["Scores", "Learning curves", "Settings"]
PARTS = {
    "ner": ["Types of entities", "Worst errors", "Entities that were found"],
    "one": ["Classes", "Confusion", "Worst errors", "Attention"],
    "trees": ["Classes", "Confusion", "Worst errors", "Trees"],
    "lm": ["Perplexity", "Tokens with the highest loss", "Generated text"],
    "told": ["Perplexity", "Tokens with the highest loss", "Generated text"],
    "pair": ["Translations", "By length of the source", "Worst errors", "Attention"],
    "brackets": ["Answers", "Worst sequences"],
    "adding": ["Answers", "Worst sequences"],
    "echo": ["Types of entities", "Worst errors", "Entities that were found"],
    "fed": ["Types of entities", "Worst errors", "Entities that were found"],
}
FIGURES = {
    "ner": ("f1", 100),
    "one": ("accuracy", 100),
    "trees": ("root", 100),
    "lm": ("perplexity", 1),
    "told": ("perplexity", 1),
    "pair": ("bleu", 1),
    "brackets": ("accuracy", 100),
    "adding": ("accuracy", 100),
    "echo": ("f1", 100),
    "fed": ("f1", 100),
}


def test_every_task_has_its_parts():
    """A new task: its records (`held`), its scores (`measures`), its sections, and a run of it above."""
    tested = {"ner", "sentiment", "tree-sentiment", "lm", "translation", "memory"}
    assert set(NEEDED) == set(MEASURES) == set(SECTIONS) == set(TASKS) == tested


@pytest.mark.parametrize("name", PARTS)
def test_a_run_has_every_section_of_its_task_and_its_own_score(runs, tmp_path, name):
    out = api.report([runs / name], tmp_path / "report.html", examples=3, device="cpu")
    found = page(out)
    assert list(found.sections) == COMMON + PARTS[name]
    meta = json.loads((runs / name / "meta.json").read_text(encoding="utf-8"))
    key, factor = FIGURES[name]
    for split in set(meta["scores"]):
        interval = re.search(rf" {split} .*? ([\d.]+) ([\d.]+) to ([\d.]+)", found.sections["Scores"])
        value, low, high = map(float, interval.groups())
        assert low <= value <= high and value == round(factor * meta["scores"][split][key], 2)
    curves = found.sections["Learning curves"]
    assert ("at epoch 1" in curves) == (meta["epochs"] == 1)  # a number, for one point is no curve
    assert ("Training loss" in curves) == (name != "echo") == ("Squared error of the solved" not in curves)
    assert "train.optimizer" in found.sections["Settings"]


def test_what_only_some_runs_of_a_task_have_is_shown(runs, tmp_path):
    found = page(api.report([runs / "told"], tmp_path / "report.html", device="cpu"))
    scored = evaluate(runs / "told", split="valid", device="cpu").scores
    for label in ("0", "1"):
        assert re.search(rf" {label} \d+ \d+ {scored[f'perplexity/{label}']:.2f} ", found.sections["Perplexity"])
        assert all(f" {label} {number} " in found.sections["Generated text"] for number in (1, 2))
    found = page(api.report([runs / "brackets"], tmp_path / "report.html", device="cpu"))
    scored = evaluate(runs / "brackets", split="valid", device="cpu").scores
    for title, key in (("20 steps back or more", "far_accuracy"), ("sequences all right", "whole")):
        assert f"valid {title}, % {100 * scored[key]:.2f} " in found.sections["Scores"]
    wrong = found.sections["Worst sequences"]
    assert "of 30 wrong" in wrong and "read" in wrong


def test_runs_of_one_task_are_compared_example_by_example(runs, tmp_path):
    found = page(api.report([runs / "one", runs / "two"], tmp_path / "report.html", device="cpu"))
    assert list(found.sections)[1] == "Differences, and whether they are chance"
    tested = found.sections["Differences, and whether they are chance"]
    scores = [evaluate(runs / name, split="valid", device="cpu").scores["accuracy"] for name in ("one", "two")]
    assert f"two one valid accuracy, % {100 * (scores[1] - scores[0]):+.2f}" in tested
    differing = found.sections["Settings"].split("All settings")[0]
    assert "model.pool.name attention max" in differing and "data.hold_out" not in differing
    assert "svg" in found.tags


def test_each_run_is_compared_with_each_and_the_format_of_an_export_is_told(runs, tmp_path):
    api.export(runs / "one", out=tmp_path / "half", form="bf16")
    found = page(api.report([runs / "one", runs / "two", tmp_path / "half"], tmp_path / "report.html", device="cpu"))
    tested = found.sections["Differences, and whether they are chance"]
    for pair in ("two one valid", "half one valid", "half two valid"):
        assert pair in tested
    assert re.search(r"These are \d+ comparisons, and p is not corrected for their number", tested)
    assert "weights (of an export) – – bf16" in found.sections["Settings"].split("All settings")[0]


def test_settings_that_nobody_reads_make_no_difference(runs, tmp_path):
    found = page(api.report([runs / "ner", runs / "fed", runs / "lm"], tmp_path / "report.html", device="cpu"))
    differing = found.sections["Settings"].split("All settings")[0]
    assert "model.recurrence hidden output" in differing and "model.feedback.teacher_forcing – 0.9" in differing
    assert "model.feedback.layers" not in differing and "model.tied" not in differing


def test_runs_of_different_tasks_stand_side_by_side_and_it_says_what_cannot_be_compared(runs, tmp_path):
    found = page(api.report([runs / "lm", runs / "ner", runs / "one"], tmp_path / "report.html", device="cpu"))
    assert "These runs are of different tasks (lm, ner, sentiment)" in found.sections["Scores"]
    assert "nor can their settings, which are listed run by run" in found.sections["Scores"]
    tested = found.sections["Differences, and whether they are chance"]
    assert "ner is the only run of the task ner: there is nothing to compare it with." in tested
    assert {"lm: Perplexity", "ner: Types of entities", "one: Attention"} <= set(found.sections)


def test_other_examples_are_not_tested_against_each_other(runs, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(runs / "two", other)
    lines = (other / "predictions.valid.jsonl").read_text(encoding="utf-8").splitlines()
    (other / "predictions.valid.jsonl").write_text("\n".join(lines[1:]) + "\n", encoding="utf-8")
    found = page(api.report([runs / "one", other], tmp_path / "report.html", device="cpu"))
    counts = f"no test, they were scored on {len(lines)} and {len(lines) - 1} examples"
    assert counts in found.sections["Differences, and whether they are chance"]


def test_the_first_examples_of_one_that_has_more_are_compared_with_those_of_the_other(runs, tmp_path):
    api.export(runs / "one", out=tmp_path / "half", form="bf16")
    found = page(api.report([runs / "one", tmp_path / "half"], tmp_path / "report.html", limit=7, device="cpu"))
    tested = found.sections["Differences, and whether they are chance"]
    assert "half one valid accuracy, %" in tested and "no test" not in tested
    assert "accuracy, % (valid) of one and half is compared over the first 7 examples" in tested


def test_what_a_text_says_is_never_code(runs, tmp_path):
    for name in ("one", "lm"):
        out = api.report([runs / name], tmp_path / "report.html", device="cpu")
        page(out)
        text = out.read_text(encoding="utf-8")
        assert "&lt;script&gt;alert(1)" in text or "&lt;</span>" in text
        assert "<script" not in text


def test_without_predictions_some_are_made_and_counted(runs, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(runs / "ner", bare)
    for name in ("predictions.valid.jsonl", "predictions.test.jsonl", "metrics.jsonl"):
        (bare / name).unlink()
    found = page(api.report([bare, runs / "lm"], tmp_path / "report.html", limit=7, device="cpu"))
    about = "The first 7 of 30 examples of the validation split, predicted anew."
    assert about in found.sections["bare: Types of entities"]
    assert "No interval of the test score of bare:" in found.sections["Scores"]


def test_what_cannot_be_reported_is_told_and_nothing_written(runs, tmp_path, monkeypatch):
    def refused(*folders, out=tmp_path / "report.html", **how):
        with pytest.raises(InputError) as raised:
            api.report(list(folders), out, device="cpu", **how)
        assert not (tmp_path / "report.html").exists()
        return str(raised.value)

    assert refused(tmp_path / "no") == f"{tmp_path / 'no'}: no such run folder"
    assert refused(runs / "pairs").startswith(f"{runs / 'pairs' / 'meta.json'}: missing")
    assert refused(runs / "ner", runs / "ner").endswith("the same run twice")
    nowhere = tmp_path / "nowhere" / "a.html"
    assert refused(runs / "ner", out=nowhere) == f"--out {nowhere}: no such folder: {nowhere.parent}"
    assert refused(runs / "ner", out=tmp_path) == f"--out {tmp_path}: this is a folder; a file is expected"
    broken = tmp_path / "broken"
    shutil.copytree(runs / "ner", broken)
    (broken / "predictions.valid.jsonl").write_text('{"tokens": []}\n[1]\n', encoding="utf-8")
    place = broken / "predictions.valid.jsonl"
    assert refused(broken) == f"{place}:2: damaged, not the JSON line that a run holds"
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert refused(runs / "ner") == 'seqtext report needs matplotlib: pip install "seqtext[plot]"'
