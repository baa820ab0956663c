"""The study of cells: budgets of weights, what is run and what is not, and what the tables make of the figures."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import seqtext
from seqtext import recipe
from seqtext.nn.rnn import Recurrent

ROOT = Path(seqtext.__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import study_cells  # noqa: E402
import study_table  # noqa: E402

FAST = ["train.epochs=1", "data.examples=20", "data.held_out=10", "data.job.length=5"]


class Done(NamedTuple):
    """What the script left."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def study(monkeypatch, capsys):
    """`study(folder, "--jobs", "copy", ...)`: the script, in this process; its runs have their own."""

    def call(out, *words):
        monkeypatch.setattr(sys, "argv", ["study_cells.py", "--out", str(out), *words])
        status = 0
        try:
            study_cells.main()
        except SystemExit as ended:
            status = ended.code or 0
        return Done(status, *capsys.readouterr())

    return call


def test_a_study_goes_on_where_it_stopped_and_leaves_out_what_is_not_there(study, tmp_path):
    words = ["--jobs", "copy", "words", "--variants", "lstm", "gru", "--seeds", "1", "--set", *FAST]
    figures = tmp_path / "figures.jsonl"
    done = study(tmp_path, *words)
    assert done.returncode == 0, done.stderr
    assert "left out: words (no --data-ptb)\n2 runs, 0 of them are there\n" in done.stderr
    lstm, gru = map(json.loads, figures.read_text().splitlines())
    assert (lstm["hidden_size"], lstm["weights"], lstm["variant"]) == (64, lstm["budget"], "lstm")
    assert gru["hidden_size"] == 75 and abs(gru["weights"] / gru["budget"] - 1) < 0.02
    assert gru["speed"] > 0 and "accuracy" in gru["test"]
    figures.write_text(json.dumps(lstm) + "\n" + json.dumps(gru)[:50])  # killed while it wrote
    done = study(tmp_path, *words)
    assert "2 runs, 1 of them are there\ncopy, gru, seed 1: accuracy " in done.stderr
    assert len(study_cells.recorded(figures)) == 2
    assert "| gru | 75 |" in done.stdout and "\n2 runs, " in done.stdout
    assert "\n### GRU and LSTM lead\n\nThe runs that decide it are not there.\n" in done.stdout
    assert "±" not in done.stdout
    other = study(tmp_path, *words[:-4], "train.epochs=2", "--table")
    assert (other.returncode, other.stdout) == (0, "no run is there yet\n")
    told = f"{figures}: 2 runs with other settings are not in the tables: shown by --jobs copy --set {' '.join(FAST)}\n"
    assert other.stderr == told
    timed = study(tmp_path, *words, "--speed")
    assert timed.returncode == 0 and "2 runs to time\ncopy, lstm, seed 1: " in timed.stderr
    for row, old in zip(study_cells.recorded(figures).values(), (lstm, gru)):
        assert row["test"] == old["test"] and row["speed"] != old["speed"]


def test_a_study_that_is_stopped_says_how_it_goes_on(study, tmp_path, monkeypatch):
    def stopped(*given, **named):
        raise KeyboardInterrupt

    monkeypatch.setattr(study_cells.subprocess, "run", stopped)
    done = study(tmp_path, "--jobs", "copy", "--variants", "lstm", "--seeds", "1")
    assert done.returncode == 130 and done.stderr.endswith("\nstopped; the same command goes on from here\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--data-ner", "nowhere"], "--data-ner nowhere: no such file or folder"),
        (["--table"], "figures.jsonl: no such file; no run has been recorded there"),
        (["--speed", "--jobs", "copy"], "figures.jsonl: no such file; no run has been recorded there"),
    ],
)
def test_what_is_not_there_is_told_before_anything_runs(study, tmp_path, words, told):
    done = study(tmp_path / "none", *words)
    assert done.returncode == 2 and done.stderr.endswith(f"{told}\n") and not (tmp_path / "none").exists()


def test_settings_that_a_recipe_of_the_study_cannot_have_are_told_once_before_anything_runs(study, tmp_path):
    done = study(tmp_path / "none", "--jobs", "copy", "adding", "--set", "train.epochz=1")
    path = ROOT / "recipes" / "study-cells" / "copy.toml"
    told = f"{path}, with --set: 1 fault\n  train.epochz: unknown key; did you mean 'epochs'?\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", told)
    assert not (tmp_path / "none").exists()


def test_hidden_sizes_are_the_nearest_to_the_budget():
    base = recipe.load("study-cells/sentences")
    table = base.model.encoder.model_dump()
    for budget, variant in ((50_000, "gru"), (7, "rnn"), (120_600, "lstm")):
        size = study_cells.sized(base, table, variant, budget, 50)

        def count(hidden, variant=variant):
            layer = type(base.model.encoder).model_validate(study_cells.encoder(table, variant, hidden))
            return sum(parameter.numel() for parameter in Recurrent(50, layer).parameters())

        assert min(range(1, 200), key=lambda hidden: abs(count(hidden) - budget)) == size


def figures(**values):
    return [
        {"job": job, "variant": variant.replace("_", " "), "seed": seed, "commit": "abc", "seconds": 36.0}
        | {"hidden_size": 8, "weights": 103, "budget": 100}
        | ({"speed": 0.5, "machine": "a processor"} if seed == 1 else {})
        | ({"failed": "the loss is nan"} if score is None else {"test": {study_cells.JOBS[job].key: score}})
        for (job, variant), scores in values["of"].items()
        for seed, score in enumerate(scores, start=1)
    ]


def test_the_tables_say_which_conclusions_hold(capsys):
    rows = figures(
        of={
            ("copy", "lstm"): [0.80, 0.82, 0.84],
            ("copy", "gru"): [0.70, 0.72, 0.74],
            ("copy", "rnn"): [0.20, None, None],
            ("copy", "mut1"): [0.90, 0.92, 0.94],
            ("copy", "lstm, forget bias 0"): [0.81, 0.82, 0.83],
            ("copy", "lstm, no forget gate"): [0.3, 0.3, 0.3],
            ("copy", "lstm, no input gate"): [0.5, 0.5, 0.5],
            ("copy", "lstm, no output gate"): [0.7, 0.7, 0.7],
            ("adding", "lstm"): [0.002, 0.003, 0.004],
            ("adding", "lstm, forget bias 0"): [0.02, 0.03, 0.04],
        }
    )
    study_table.show(rows, study_cells.JOBS, list(study_cells.VARIANTS))
    told = capsys.readouterr().out
    for line in (
        "| variant | adding (squared error x 1000) ↓ | copy (symbols right) ↑ | tokens/s, of lstm's |",
        "| lstm | 3.00 ± 1.00 | 82.00 ± 2.00 | 0.50 |",
        "| rnn | - | 20.00 (1) 2 diverged | 0.50 |",
        "| lstm | 8 (+3.0%) | 8 (+3.0%) |",
        "| mut1 | - | better (+10.00) |",
        "Ahead of both on some job: mut1.",
        "| copy | +52.00 | +32.00 | +12.00 | forget > input > output | holds |",
        "The forget gate matters most on 1 of 1 jobs.",
        "| adding | 30.00 | 3.00 | holds |",
        "| copy | 82.00 | 82.00 | within deviation |",
        "Speed was measured in 10 of the runs, with one thread a run: a processor; commits abc.",
        "30 runs, 0.3 hours of one core; commits abc",
    ):
        assert line in told.splitlines(), (line, told)
    alone = [row for row in rows if row["variant"] != "gru"]
    study_table.show(alone, study_cells.JOBS, list(study_cells.VARIANTS))
    assert "Ahead of both" not in capsys.readouterr().out


@pytest.mark.parametrize("job", study_cells.JOBS)
def test_every_job_has_its_recipe_and_the_variants_of_today(job):
    chosen = recipe.load(f"study-cells/{job}")
    table = chosen.model.encoder.model_dump()
    for variant in ("lstm", "gru", "rnn", "lstm, forget bias 0", "lstm, 2 layers"):
        layer = recipe.load(
            f"study-cells/{job}", {"model.encoder": study_cells.encoder(table, variant, 9)}
        ).model.encoder
        changes = study_cells.VARIANTS[variant]
        assert (layer.cell, layer.hidden_size) == (changes["cell"], 9) and layer.layers == changes.get("layers", 1)
