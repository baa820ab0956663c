"""Recipes: every shipped one is whole and runs; a dump is itself a recipe; every fault of one is told at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import seqtext
from seqtext import recipe as recipes
from seqtext.errors import ConfigError
from seqtext.session import settled
from seqtext.shelf import find, shipped, summaries
from seqtext.tasks import TASKS
from seqtext.training.loop import Stepped


class Enough(Exception):
    """Two steps were taken."""


def without_vectors(recipe):
    """What to change so that a recipe needs no file."""
    words = getattr(recipe.data, "words", None)
    return {"data.words.vectors": None} if getattr(words, "vectors", None) else {}


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_is_whole_and_its_dump_is_itself_a_recipe(name, tmp_path):
    recipe = recipes.load(name)
    assert recipe.name == name and recipe.description
    (tmp_path / "dumped.toml").write_text(recipe.toml(), encoding="utf-8")
    again = recipes.load(str(tmp_path / "dumped.toml"))
    assert replace(again, name=name) == recipe
    assert again.toml() == recipe.toml()


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_recipe_takes_two_steps_on_the_sample(name, tmp_path):
    losses = []

    def listen(event):
        if isinstance(event, Stepped):
            losses.append(event.loss)
            if len(losses) == 2:
                raise Enough

    chosen = recipes.load(name)
    overrides = without_vectors(chosen) | {"train.log_every": 1, "train.accumulate": 1}
    if getattr(chosen.data, "phrases", False):  # only trees have phrases, and classes 0 to 4
        overrides |= {"data.phrases": False, "data.labels": "all"}
    with pytest.raises(Enough):
        seqtext.train(name, data="sample", overrides=overrides, out=tmp_path / "run", device="cpu", listen=listen)
    assert all(loss is None or loss > 0.0 for loss in losses)  # None where a read-out is solved for
    kept, _ = settled(recipes.load(name, overrides), torch.device("cpu"))
    assert seqtext.load(tmp_path / "run", device="cpu").run.recipe.train == kept.train


def test_every_task_has_the_recipe_of_its_name_on_data_that_needs_no_file():
    for task in TASKS:
        recipe = recipes.load(task)
        assert recipe.task is TASKS[task] and recipe.data.source == "sample" and not without_vectors(recipe)


def test_the_recipe_of_a_run_is_the_one_it_was_trained_by(tmp_path):
    overrides = {"train.epochs": 1, "model.encoder.hidden_size": 4, "train.optimizer.name": "sgd", "seed": 7}
    run = seqtext.train("ner", overrides=overrides, out=tmp_path / "run", device="cpu")
    chosen = recipes.load("ner", overrides)
    assert run.recipe == chosen and run.recipe.seed == 7
    assert replace(recipes.load(str(tmp_path / "run" / "recipe.toml")), name="ner") == chosen


FAULTY = """
task = "ner"
seed = -1
optimiser = "adam"

[data]
scheme = "BIOSE"
tokens = "words"

[data.words]
lower_case = true

[model]
dropout = "high"

[model.encoder]
cell = "gruu"

[train]
epochs = 0
clip = inf

[train.optimizer]
name = "adamm"

[train.schedule]
name = "constant"
factor = 0.5

[expected]
"""


def test_all_faults_are_told_at_once_by_dotted_key(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(FAULTY, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        recipes.load(str(path))
    assert str(caught.value).splitlines() == [
        f"{path}: 11 faults",
        "  optimiser: unknown key; known: task, seed, description, data, model, train, tune, expected",
        "  seed: expected a whole number of 0 or more, got -1",
        "  data.scheme: expected 'IO', 'IOB1', 'IOB2' or 'BIOES', got 'BIOSE'",
        "  data.words.lower_case: unknown key; did you mean 'lowercase'?",
        "  data.tokens: unknown key; did you mean 'tokens_field'?",
        "  model.encoder: cell 'gruu' is not one of rnn, lstm, gru, mut1, mut2, mut3, lnlstm, lngru, mogrifier, "
        "clockwork, mingru, minlstm, sru; did you mean 'gru'?",
        "  model.dropout: expected a valid number, got 'high'",
        "  train.epochs: expected greater than or equal to 1, got 0",
        "  train.optimizer.name: expected one of sgd, adam, adamw, asgd, ridge, got 'adamm'; did you mean 'adam'?",
        "  train.schedule.factor: unknown key; known keys here: name, warmup",
        "  train.clip: expected a finite number, got inf",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "  task: expected one of {tasks}, got None"),
        ('task = "nerr"', "  task: expected one of {tasks}, got 'nerr'; did you mean 'ner'?"),
        ("task = 3", "  task: expected one of {tasks}, got 3"),
        ('task = "ner"\ndata = "sample"', "  data: expected a table, got 'sample'"),
        ('task = "ner"\nsed = 3', "  sed: unknown key; did you mean 'seed'?"),
        ('task = "ner"\nseed = true', "  seed: expected a whole number of 0 or more, got True"),
        ('task = "ner"\ndescription = 1', "  description: expected a string, got 1"),
        ('task = "ner"\n[expected]\nf1 = 90.0', "  expected.score: missing; a value is required"),
        ('task = "ner', "  not valid TOML: Illegal character '\\n' (at line 1, column 12)"),
    ],
)
def test_the_outer_keys_are_checked_too(tmp_path, text, fault):
    path = tmp_path / "mine.toml"
    path.write_text(text + "\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        recipes.load(str(path))
    assert str(caught.value).splitlines()[1] == fault.format(tasks=", ".join(TASKS))


def test_overrides_are_written_as_in_a_shell_or_as_values():
    written = recipes.load("ner", ["train.epochs=3", "model.encoder.cell=gru", "train.optimizer.name=sgd", "seed=4"])
    values = {"train.epochs": 3, "model.encoder.cell": "gru", "train.optimizer.name": "sgd", "seed": 4}
    assert written == recipes.load("ner", values)
    assert (written.train.epochs, written.model.encoder.cell, written.seed) == (3, "gru", 4)
    assert written.train.optimizer.lr == 0.1  # of sgd, not what the recipe says for adam
    with pytest.raises(ConfigError) as caught:
        recipes.load("ner", ["train.epochs=three", "model.encoder.cel=gru", "nonsense"])
    assert str(caught.value).splitlines()[1:] == [
        "  'nonsense': an override is written KEY=VALUE, for example train.epochs=3"
    ]
    with pytest.raises(ConfigError) as caught:
        recipes.load("ner", ["train.epochs=three", "model.encoder.cel=gru", "model.encoder.peepholes=true"])
    assert str(caught.value).splitlines()[1:] == [
        "  model.encoder.cel: unknown key; did you mean 'cell'?",
        "  model.encoder.peepholes: unknown key; it is cell_options.peepholes, an option of the cells lstm",
        "  train.epochs: expected a valid integer, got 'three'",
    ]


def test_a_recipe_is_found_by_name_or_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find("ner") == shipped()["ner"]
    (tmp_path / "ner").mkdir()  # a folder of data that is called as the recipe is
    assert find("ner") == shipped()["ner"]
    (tmp_path / "mine.toml").write_text('task = "ner"\n', encoding="utf-8")
    assert recipes.load("mine.toml").name == "mine"
    for name, message in [
        ("ner-conl2003", "ner-conl2003: 1 fault\n  no recipe of this name and no such file; did you mean"),
        ("x", f"x: 1 fault\n  no recipe of this name and no such file; recipes: {', '.join(shipped())}"),
        ("other.toml", "other.toml: 1 fault\n  no such file"),
        (str(tmp_path), f"{tmp_path}: 1 fault\n  this is a folder; a recipe is a TOML file"),
    ]:
        with pytest.raises(ConfigError) as caught:
            recipes.load(name)
        assert str(caught.value).startswith(message)


def test_the_list_says_task_data_and_score_of_each():
    rows = {row["recipe"]: row for row in summaries()}
    assert rows.keys() == shipped().keys()
    for name, row in rows.items():
        recipe = recipes.load(name)
        assert recipe.expected or name.startswith("study-cells/"), name
        score = recipe.expected.score if recipe.expected else ""
        data = (recipe.expected.data if recipe.expected else "") or recipe.data.source
        assert (row["task"], row["data"], row["score"]) == (recipe.task.name, data, score)


def test_one_file_is_no_data_to_train_on(tmp_path):
    (tmp_path / "train.conll").write_text("Berlin B-LOC\n", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        seqtext.train("ner", data=str(tmp_path / "train.conll"))
    assert str(caught.value) == (
        f"--data {tmp_path / 'train.conll'}: 1 fault\n  this is one file, and training needs more than one split; "
        "give a folder, or data.train=FILE data.valid=FILE data.test=FILE"
    )


def test_another_cell_keeps_the_settings_that_all_cells_have():
    same = {"model.encoder.hidden_size": 24, "model.encoder.name": "gru"}
    assert recipes.load("sentiment", {"model.encoder.name": "gru"}).model.encoder.hidden_size == 64
    assert recipes.load("sentiment", same).model.encoder.hidden_size == 24
    assert recipes.load("sentiment", {"model.encoder.name": "cnn"}).model.encoder.name == "cnn"
    adam, sgd = (recipes.load("ner", {"train.optimizer.name": name}).train.optimizer.lr for name in ("adam", "sgd"))
    assert adam != sgd  # a learning rate is that of its optimizer
