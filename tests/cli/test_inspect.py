"""`seqtext inspect`: what each command shows of a run, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch

import seqtext
from seqtext.nn.cells import CELLS

TEXT = "Angela Merkel flew to Paris ."


@pytest.fixture(scope="module")
def model(run):
    return seqtext.load(run, device="cpu")


def test_gates_are_those_of_the_run_word_by_word(cli, run, model):
    found = [json.loads(line) for line in cli("inspect", "gates", run, TEXT, "--json").lines]
    assert [(one["name"], one["cell"]) for one in found] == [
        ("encoder.layers.0.0", "lstm"),
        ("encoder.layers.0.1", "lstm"),
    ]
    assert all(one["tokens"] == TEXT.split() for one in found)
    encoded = model.task.inputs([model.task.prepare(TEXT)])
    (batch,) = model.task.batches(encoded, tokens=100)
    with torch.no_grad():
        states, _ = model.module.encoder(model.module.embedding(batch.words), batch.lengths)
    both = torch.cat([torch.tensor(one["gates"]["state"]) for one in found], dim=1)
    torch.testing.assert_close(both, states[0], atol=2e-4, rtol=0.0)
    shown = cli("inspect", "gates", run, TEXT, "--at", "encoder.layers.0.1").lines
    assert (
        shown[0].startswith("encoder.layers.0.1 (lstm), units ")
        and [line.split()[0] for line in shown[2:]] == TEXT.split()
    )
    assert shown[1].split() == ["input", "forget", "candidate", "output", "state", "memory"]


def test_a_translator_shows_both_its_sides(cli, translator, tmp_path):
    (found,) = map(json.loads, cli("inspect", "attention", translator, "The cat sees the dog.", "--json").lines)
    assert found["result"] == seqtext.predict(translator, ["The cat sees the dog."])[0].text
    assert all(sum(row) == pytest.approx(1.0, abs=0.01) for row in found["weights"])
    assert len(found["weights"]) == len(found["target"]) and found["source"][-1] == "</s>"
    shown = cli("inspect", "attention", translator, "The cat sees the dog.").lines
    assert shown[0] == found["result"] and len(shown) == 1 + len(found["target"])
    gates = {
        one["name"]: one
        for one in map(json.loads, cli("inspect", "gates", translator, "The cat sees the dog.", "--json").lines)
    }
    assert gates["decoder.lower.layers.0.0"]["tokens"] == ["<s>", *found["target"][:-1]]
    assert gates["encoder.layers.0.1"]["tokens"] == found["source"]
    pytest.importorskip("matplotlib")
    for command, file in (("attention", "a.svg"), ("gates", "g.svg")):
        assert cli("inspect", command, translator, "The cat sees the dog.", "--plot", tmp_path / file).status == 0
        text = (tmp_path / file).read_text(encoding="utf-8")
        assert "<svg" in text and "▁cat" in text.replace("\n", "")


def test_neighbours_are_the_nearest_by_cosine(cli, run, model):
    (found,) = map(json.loads, cli("inspect", "embeddings", run, "Police", "--k", "3", "--json").lines)
    table = model.module.embedding.table.weight.detach()
    words = model.task.lexicon.words
    own = table[words.encode_words(["Police"])[0]]
    cosines = {words.token(id): float(torch.cosine_similarity(own, table[id], dim=0)) for id in range(2, words.size)}
    del cosines["police"]
    nearest = sorted(cosines, key=cosines.__getitem__, reverse=True)[:3]
    assert [one["word"] for one in found["neighbours"]] == nearest
    assert [one["cosine"] for one in found["neighbours"]] == pytest.approx(
        [cosines[word] for word in nearest], abs=1e-4
    )


def test_gradients_of_a_run_and_of_untrained_cells(cli, run, tmp_path):
    words = ("inspect", "gradients", run, "--cells", "rnn:gain=2", "--steps", 5, "--max-norm", "0.001")
    found = [json.loads(line) for line in cli(*words, "--json").lines]
    assert [one["name"] for one in found] == ["lstm (trained)", "rnn (gain 2)"]
    assert all(one["clipped_parameters"] == 0.001 and one["clipped"][0] < one["norms"][0] for one in found)
    pytest.importorskip("matplotlib")
    shown = cli(*words, "--plot", tmp_path / "g.svg").lines
    assert shown[1].split("\t") == ["k", "lstm (trained)", "rnn (gain 2)"] and shown[2].startswith("0\t")
    rows = [line.split("\t") for line in shown[shown.index("The same after clipping") :]]
    assert float(rows[2][2]) == pytest.approx(found[1]["clipped"][0], rel=0.01)
    assert "rnn (gain 2), clipped" in (tmp_path / "g.svg").read_text(encoding="utf-8")


def test_a_run_of_symbols_has_no_vectors_of_words(refused, tmp_path):
    settings = {"data.examples": 20, "train.epochs": 1, "model.encoder.hidden_size": 4}
    seqtext.train("memory", overrides=settings, out=tmp_path / "run", device="cpu")
    assert refused("inspect", "embeddings", tmp_path / "run", "(") == (
        f"{tmp_path / 'run'}: this run of the task memory has no vectors of words"
    )


def test_what_cannot_be_seen_is_told(refused, run, translator, tmp_path):
    having = "translation with model.decoder.context = attention, sentiment with model.pool.name = attention"
    assert refused("inspect", "attention", run, "x") == (
        f"{run}: this run of the task ner has no attention; runs that have: {having}"
    )
    assert refused("inspect", "trees", run, "x") == f"{run}: a run of the task ner, whose results are no trees"
    assert refused("inspect", "embeddings", run, "police", "--side", "target") == (
        f"--side target: {run} is a run of the task ner, with one vocabulary"
    )
    unknown = refused("inspect", "embeddings", run, "polise")
    assert (
        unknown.startswith(f"{run}: 'polise' is not among the ")
        and "words of this run; written alike: police" in unknown
    )
    assert refused("inspect", "gates", run, " ") == "TEXT: expected at least one word"
    assert refused("inspect", "gates", run, "x", "--at", "head") == (
        f"{run}: no cell is called 'head'; there are: encoder.layers.0.0, encoder.layers.0.1"
    )
    assert refused("inspect", "gates", tmp_path / "no", "x") == f"{tmp_path / 'no'}: no such run folder"
    assert refused("inspect", "gradients", "ner", "--cells", "lsmt") == (
        f"--cells lsmt: 'lsmt' is not one of {', '.join(CELLS)}"
    )
    assert refused("inspect", "gradients", "sentiment", "--set", "model.encoder.name=bow") == (
        "sentiment: this model has no recurrent cell"
    )
    assert refused("inspect", "gradients", "ner", "--gain", -1) == "--gain -1: expected a number above 0"
    assert refused("inspect", "gradients", run, "--gain", 2) == (
        "--gain 2: a trained cell is as it is; give --cells as well"
    )
    pytest.importorskip("matplotlib")
    assert refused("inspect", "gates", run, "x", "--plot", tmp_path / "no" / "a.svg") == (
        f"--plot {tmp_path / 'no' / 'a.svg'}: no such folder: {tmp_path / 'no'}"
    )
    assert refused("inspect", "gates", run, "x", "--plot", "a.pdf") == (
        "--plot a.pdf: expected a name that ends in .png or .svg"
    )


def test_without_matplotlib_there_are_numbers_alone(refused, cli, run, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    assert refused("inspect", "gates", run, "x", "--plot", "a.svg") == (
        '--plot needs matplotlib: pip install "seqtext[plot]"'
    )
    assert cli("inspect", "gates", run, "x").status == 0
