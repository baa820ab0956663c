"""The memory jobs: scores by hand, answers to a person's own lines, going on after a stop, and that cells learn."""

from __future__ import annotations

import json

import datasets
import pytest
import torch
from safetensors.torch import load_file

import seqtext
from seqtext.data.memory_jobs import Adding, Copy
from seqtext.errors import DataError
from seqtext.tasks.memory import Memory, Prediction

SMALL = {"data.examples": 60, "data.held_out": 20, "model.encoder.hidden_size": 8, "train.epochs": 1}
JOBS = {
    "adding": ({"data.job": {"name": "adding", "length": 12}}, ["0.5 0.25* 0.5*", "", "0.1* 0.2 0.3 0.4*"]),
    "copy": ({"data.job": {"name": "copy", "length": 4, "items": 3}}, ["a b _ >", "", "h _ _ _ > _"]),
    "brackets": ({"data.job": {"name": "brackets", "length": 12}}, ["( [ ] (", "", "[", "( )"]),
}
COUNTS = {"adding": [1, 0, 1], "copy": [2, 0, 1], "brackets": [4, 0, 1, 1]}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    for name, (settings, _) in JOBS.items():
        seqtext.train("memory", overrides=SMALL | settings, out=folder / name, device="cpu")
    return folder


def test_scores_are_those_counted_by_hand():
    read = {"positions": [[2, 4], [2, 4]], "tokens": [["x"] * 5] * 2, "distances": [[1, 30], [4, 25]]}
    rows = datasets.Dataset.from_dict(read | {"answers": [["a", "b"], ["b", "b"]]})
    given = [Prediction(("a", "b"), (0.9, 0.8)), Prediction(("b", "a"), (0.9, 0.8))]
    task = Memory(Copy(symbols=2))
    assert task.score(given, rows) == {"accuracy": 0.75, "whole": 0.5, "far_accuracy": 0.5}
    by_steps = task.tables(given, rows)[1]
    assert by_steps.rows == [["1 to 4", "100.00", "2"], ["20 to 49", "50.00", "2"]]
    rows = datasets.Dataset.from_dict(
        {"positions": [[4], [4]], "tokens": [["x"] * 5] * 2, "distances": [[4], [3]], "answers": [["1.2"], ["0.5"]]}
    )
    found = Memory(Adding()).score([Prediction((1.23,), ()), Prediction((0.6,), ())], rows)
    assert found == pytest.approx(
        {"accuracy": 0.5, "whole": 0.5, "mse": (0.03**2 + 0.1**2) / 2, "chance_mse": (0.2**2 + 0.5**2) / 2}
    )


@pytest.mark.parametrize("name", JOBS)
def test_a_line_gets_its_answers_and_each_as_it_does_alone(trained, name):
    model, lines = seqtext.load(trained / name, device="cpu"), JOBS[name][1]
    found = model.predict(lines)
    assert [len(prediction.answers) for prediction in found] == COUNTS[name]
    for line, record, prediction in zip(lines, model.records(lines), found):
        assert record["text"] == line and len(record["positions"]) == len(record["answers"])
        shown = model.task.show(model.task.prepare(line), prediction)
        assert shown == (f"{' '.join(record['answers'])}\t{line}" if line else "")
        alone = model.predict([line])[0]
        if name == "adding":
            assert alone.answers == pytest.approx(prediction.answers, abs=1e-5)
        else:
            assert alone.answers == prediction.answers and set(alone.answers) <= set(model.task.names)
            assert alone.probabilities == pytest.approx(prediction.probabilities, abs=1e-5)


def test_a_run_answers_longer_sequences_and_no_other_job(trained):
    found = seqtext.evaluate(trained / "brackets", overrides={"data.job.length": 40}, device="cpu")
    assert found.settings.endswith("test of sample, data.job.length=40; seqtext " + seqtext.__version__)
    assert "far_accuracy" in found.scores
    for wrong, known in (({"data.job.name": "adding"}, "( ) [ ]"), ({"data.job.kinds": 3}, "( ) [ ]")):
        with pytest.raises(DataError, match=r"^sample .test.: .* is no symbol of this job; its symbols: ") as caught:
            seqtext.evaluate(trained / "brackets", overrides=wrong, device="cpu")
        assert str(caught.value).endswith(known)


def test_a_run_goes_on_as_if_it_had_not_ended(tmp_path):
    settings = SMALL | JOBS["copy"][0] | {"train.schedule.name": "constant"}
    for name, epochs in (("flat", 1), ("flat-longer", 3)):
        seqtext.train("memory", overrides=settings | {"train.epochs": epochs}, out=tmp_path / name, device="cpu")
    seqtext.train(resume=tmp_path / "flat", overrides={"train.epochs": 3}, device="cpu")
    one, other = (load_file(tmp_path / name / "checkpoints/last/state.safetensors") for name in ("flat", "flat-longer"))
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert json.loads((tmp_path / "flat" / "meta.json").read_text())["epochs"] == 3


def test_the_recipe_of_the_task_learns_to_close_brackets_that_were_opened_long_ago(tmp_path):
    run = seqtext.train("memory", out=tmp_path / "run", device="cpu")
    assert run.meta["scores"]["test"]["accuracy"] > 0.95
    assert run.meta["scores"]["test"]["far_accuracy"] > 0.85
    short = seqtext.evaluate(run.folder, overrides={"data.job": {"name": "brackets", "length": 10}}, device="cpu")
    assert short.scores["accuracy"] > 0.98
