"""What `precision = "auto"` comes to: what was measured decides, once a machine, and a run keeps it."""

from __future__ import annotations

import json
import math
import threading

import pytest
import torch

import seqtext
from seqtext.recipe import load
from seqtext.session import settled
from seqtext.training import precision
from seqtext.training.precision import Choice, choose, machine, measure

CPU = torch.device("cpu")
SMALL = {"model.encoder.hidden_size": 8, "model.embedding.characters.name": "none", "train.epochs": 1}


@pytest.fixture
def gains(monkeypatch, tmp_path):
    """What the next measurements find, in a cache of the test's own."""
    monkeypatch.setenv("SEQTEXT_CACHE", str(tmp_path / "cache"))
    found: list[float] = []
    monkeypatch.setattr(precision, "measure", lambda device: [found.pop(0)])
    return found


def test_a_clear_gain_chooses_bf16_and_is_measured_once_a_machine(gains, tmp_path):
    gains[:] = [1.83, 1.1]
    assert choose(CPU) == Choice(
        "bf16", f"a layer trains 1.83 times as fast in bf16 as in float32 (measured now: {machine(CPU)})"
    )
    assert choose(CPU) == Choice(
        "bf16", f"a layer trains 1.83 times as fast in bf16 as in float32 (measured before: {machine(CPU)})"
    )
    assert f"torch {torch.__version__}, 1 thread" in machine(CPU)
    try:
        torch.set_num_threads(2)
        assert machine(CPU).endswith(", 2 threads") and choose(CPU).precision == "float32"
        assert json.loads((tmp_path / "cache" / "precision.json").read_text()) == {
            machine(CPU).replace("2 threads", "1 thread"): 1.83,
            machine(CPU): 1.1,
        }
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[1.5]", b'{"KEY": "fast"}', b'{"KEY": NaN}', b'{"KEY": -1}'])
def test_a_damaged_file_is_measured_again_and_mended(gains, tmp_path, content):
    (tmp_path / "cache").mkdir()
    file = tmp_path / "cache" / "precision.json"
    file.write_bytes(content.replace(b"KEY", machine(CPU).encode()))
    gains[:] = [0.9]
    assert [choose(CPU).precision, choose(CPU).precision] == ["float32", "float32"]
    assert json.loads(file.read_text()) == {machine(CPU): 0.9}


def test_a_cache_that_cannot_be_written_costs_a_measurement_each_time(gains, tmp_path):
    (tmp_path / "cache").write_text("a file")
    gains[:] = [1.5, 1.5]
    assert [choose(CPU).precision, choose(CPU).precision] == ["bf16", "bf16"] and gains == []


def test_what_a_busy_machine_says_is_not_kept(gains, monkeypatch, tmp_path):
    pairs = [[0.7, 0.8, 0.9, 1.4, 1.5], [1.3, 1.4, 1.5, 0.2, 1.4, 1.3, 1.5]]
    monkeypatch.setattr(precision, "measure", lambda device: pairs.pop(0))
    busy = choose(CPU)
    assert busy.precision == "float32" and "(measured now, on a busy machine, and to be measured again: " in busy.why
    assert not (tmp_path / "cache" / "precision.json").exists()
    assert [choose(CPU).precision, choose(CPU).precision] == ["bf16", "bf16"] and pairs == []


def test_processes_that_ask_together_get_one_answer(monkeypatch, tmp_path):
    monkeypatch.setenv("SEQTEXT_CACHE", str(tmp_path))
    inside, found = [], [0.5, 2.0]

    def slow(device):
        inside.append(1)
        threading.Event().wait(0.2)
        return [found.pop(0)]

    monkeypatch.setattr(precision, "measure", slow)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(choose(CPU).precision)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == ["float32", "float32"] and len(inside) == 1


def test_a_measurement_leaves_random_numbers_and_gradients_as_they_were():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    gains = measure(CPU)
    assert all(0.0 < gain < math.inf for gain in gains) and torch.equal(torch.get_rng_state(), before)


def test_a_run_keeps_what_was_chosen_and_goes_on_with_it(gains, tmp_path):
    gains[:] = [1.5]
    events = []
    out = tmp_path / "run"
    overrides = SMALL | {"train.precision": "auto"}
    run = seqtext.train("ner", overrides=overrides, out=out, device="cpu", listen=events.append)
    assert [event.precision for event in events if isinstance(event, Choice)] == ["bf16"]
    assert run.recipe.train.precision == "bf16" and 'precision = "bf16"' in (out / "recipe.toml").read_text()
    (tmp_path / "cache" / "precision.json").write_text(json.dumps({machine(CPU): 0.5}))
    again = seqtext.train(resume=out, overrides={"train.epochs": 2}, device="cpu")
    assert again.recipe.train.precision == "bf16"
    assert settled(load("ner", overrides), CPU)[0].train.precision == "float32"


def test_a_series_keeps_the_precision_that_it_began_with(gains, tmp_path):
    gains[:] = [1.5]
    overrides = SMALL | {"train.precision": "auto"}
    seqtext.train_seeds("ner", 1, overrides=overrides, out=tmp_path / "series", device="cpu")
    (tmp_path / "cache" / "precision.json").write_text(json.dumps({machine(CPU): 0.5}))
    series = seqtext.train_seeds("ner", 2, overrides=overrides, out=tmp_path / "series", device="cpu")
    assert [run.recipe.train.precision for run in series.runs] == ["bf16", "bf16"]


def test_check_tells_what_is_chosen_and_why(gains):
    gains[:] = [1.5]
    facts = dict(seqtext.check("ner", overrides=SMALL | {"train.precision": "auto"}, device="cpu"))
    told = f"bf16: a layer trains 1.50 times as fast in bf16 as in float32 (measured now: {machine(CPU)})"
    assert facts["precision"] == told
    assert "precision" not in dict(seqtext.check("ner", overrides=SMALL, device="cpu"))
