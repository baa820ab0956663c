"""Exported runs of every task: smaller, and nearly the same answers; what cannot be exported or trained on says so."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import seqtext
from seqtext.errors import InputError, RunError
from seqtext.exporting import measure
from seqtext.exporting.weights import export_weights
from seqtext.nn.int8 import SUPPORTED, Int8Kernel
from tests.cli import toy

NER = {"train.epochs": 3, "model.encoder.hidden_size": 160, "data.words.min_frequency": 2}
OVERRIDES = {
    "ner": NER,
    "sentiment": {"train.epochs": 3, "model.encoder.name": "gru"},
    "lm": {"train.epochs": 1},
    "tree-sentiment": {"train.epochs": 4},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.fixture(scope="module", autouse=True)
def short_timings():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"BULK": 20, "SINGLE": 3, "ROUNDS": 1, "SECONDS": 0.0}.items():
            patch.setattr(measure, name, value)
        yield


@pytest.fixture(scope="module")
def run(folder):
    """`run(task)` -> a run folder of it, trained once."""

    def get(task):
        out = folder / task
        if not out.exists() and task == "translation":
            toy.trained(toy.write(folder / "sentences"), out, epochs=15, seed=3)
        elif not out.exists():
            seqtext.train(task, overrides=OVERRIDES[task], out=out, device="cpu")
        return out

    return get


@pytest.fixture(scope="module")
def exported(run, folder):
    """`exported(task, weights)` -> what the export of the task's run gave."""
    done = {}

    def get(task, weights):
        if (task, weights) not in done:
            done[task, weights] = export_weights(run(task), folder / f"{task}-{weights}", weights=weights)
        return done[task, weights]

    return get


ANSWERS = {
    "ner": lambda predictions: [tag for one in predictions for tag in one.tags],
    "sentiment": lambda predictions: [one.label for one in predictions],
    "lm": lambda predictions: [round(one.nll / max(1, one.targets), 1) for one in predictions],
    "tree-sentiment": lambda predictions: [one.label for one in predictions],
    "translation": lambda predictions: [one.text for one in predictions],
}
SCORES = {"ner": 0.01, "sentiment": 0.02, "lm": 0.2, "tree-sentiment": 0.02, "translation": 3.0}
"""By how much the score that counts may change."""


@pytest.mark.parametrize("weights", ["int8", "bf16"])
@pytest.mark.parametrize("task", ANSWERS)
def test_an_export_answers_as_the_run_does(task, weights, run, exported):
    done = exported(task, weights)
    before, after = (seqtext.load(place, device="cpu") for place in (run(task), done.folder))
    texts = before.own_split("test")
    one, two = (ANSWERS[task](model.predict_encoded(texts)) for model in (before, after))
    same = sum(a == b for a, b in zip(one, two, strict=True)) / len(one)
    assert same >= (0.9 if task in ("lm", "translation") else 0.99)
    found = done.comparison
    scores = [seqtext.evaluate(place, device="cpu").scores for place in (run(task), done.folder)]
    assert (found.before.scores, found.after.scores, found.split) == (*scores, "test")
    assert abs(scores[0][found.goal] - scores[1][found.goal]) <= SCORES[task]
    assert after.run.meta["scores"] == {"test": scores[1]} and after.run.exported == weights
    assert found.before.bulk > 0 and found.after.bulk > 0 and found.before.single > 0 and found.after.single > 0


@pytest.mark.parametrize("task", ANSWERS)
def test_matrices_take_a_quarter_and_what_stays_is_said(task, run, exported):
    done = exported(task, "int8")
    before, after = (load_file(place / "model.safetensors") for place in (run(task), done.folder))
    packed = [name for name, tensor in after.items() if tensor.dtype == torch.int8]
    names = set(after) - {f"{name}.scale" for name in packed}
    assert packed and names == set(before) and all(f"{name}.scale" in after for name in packed)
    for name in packed:
        assert before[name].nbytes > 3 * (after[name].nbytes + after[f"{name}.scale"].nbytes), name
    assert all(torch.equal(before[name], after[name]) for name in names - set(packed))
    assert done.comparison.after.bytes == (done.folder / "model.safetensors").stat().st_size
    parameters = seqtext.load(run(task)).module.parameters()
    assert sum(share.numbers for share in done.shares) == sum(parameter.numel() for parameter in parameters)
    assert {share.kept for share in done.shares} == {"int8", "float32"}


@pytest.mark.skipif(not SUPPORTED, reason="this build of torch has no kernels of 8 bits")
def test_a_wide_lstm_computes_in_8_bits_and_half_of_the_weights_is_bf16(exported):
    tagger = seqtext.load(exported("ner", "int8").folder, device="cpu").module
    assert all(type(cells[0].kernel) is Int8Kernel for cells in tagger.encoder.layers)
    half = seqtext.load(exported("ner", "bf16").folder, device="cpu").module
    kinds = {name: tensor.dtype for name, tensor in half.state_dict().items() if tensor.is_floating_point()}
    assert {name for name, kind in kinds.items() if kind == torch.float32} == {
        "crf.start",
        "crf.transitions",
        "crf.end",
    }


def test_without_its_data_a_run_is_exported_all_the_same(run, folder, tmp_path):
    place = tmp_path / "run"
    shutil.copytree(run("translation"), place)
    recipe = (place / "recipe.toml").read_text()
    (place / "recipe.toml").write_text(recipe.replace(str(folder / "sentences"), str(tmp_path / "gone")))
    done = export_weights(place, tmp_path / "out", weights="int8")
    found = done.comparison
    assert (found.split, found.before.bulk, found.after.scores) == (None, None, {})
    assert found.lacking.startswith(str(tmp_path / "gone"))
    assert seqtext.load(done.folder).predict(["The cat sees the dog."])[0].text


def test_what_cannot_be_exported_or_trained_on_says_so(run, exported, tmp_path):
    def refused(call, message, kind=RunError):
        with pytest.raises(kind) as caught:
            call()
        assert str(caught.value) == message

    lm, done = run("lm"), exported("lm", "int8").folder
    only = f"{done}: an int8 export, which can only predict; it was made of the run {lm}"
    refused(lambda: seqtext.train(resume=done), only)
    start = {"train.init_from": str(done)}
    refused(lambda: seqtext.train("lm", overrides=start, out=tmp_path / "a"), f"train.init_from: {only}")
    refused(lambda: seqtext.evaluate(done, dynamic=True, device="cpu"), only)
    itself = f"{done}: an int8 export itself; export the run that it was made of: {lm}"
    refused(lambda: seqtext.export(done, tmp_path / "b", form="bf16"), itself)
    full = f"{done}: exists already and is not empty; choose another --out"
    refused(lambda: seqtext.export(lm, done, form="int8"), full)
    unfinished = shutil.copytree(lm, tmp_path / "run")
    meta = json.loads((unfinished / "meta.json").read_text())
    (unfinished / "meta.json").write_text(json.dumps(meta | {"finished": ""}))
    told = f"{unfinished}: not trained to its end; go on with it first: seqtext train --resume {unfinished}"
    refused(lambda: seqtext.export(unfinished, tmp_path / "b", form="int8"), told)
    half = exported("translation", "bf16").folder
    told = f"--precision bf16: {half} is an bf16 export and computes so"
    refused(lambda: seqtext.load(half, precision="bf16", device="cpu"), told.replace("an bf16", "a bf16"), InputError)
    assert not (tmp_path / "a").exists() and not (tmp_path / "b").exists()


def test_a_model_of_nothing_that_has_8_bits(tmp_path):
    small = {"model.encoder.name": "cnn", "model.encoder.filters": 4, "model.embedding.size": 2, "train.epochs": 1}
    run = seqtext.train("sentiment", overrides=small, out=tmp_path / "run", device="cpu").folder
    with pytest.raises(InputError) as caught:
        export_weights(run, tmp_path / "out", weights="int8")
    assert str(caught.value) == f"{run}: no layer of this model computes in 8 bits; --bf16 takes any model"
    assert not (tmp_path / "out").exists()
    assert seqtext.export(run, tmp_path / "out", form="bf16").shares[0].kept == "bf16"


def damaged_meta(folder, change):
    meta = json.loads((folder / "meta.json").read_text())
    meta["exported"] |= change
    (folder / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": "int4"}, "meta.json: damaged, it does not say how the weights were exported"),
        ({"matrices": ["nothing"]}, "meta.json: does not fit the model of recipe.toml: nothing: no matrix that can"),
    ],
)
def test_a_damaged_export_is_told_by_its_file(change, message, exported, tmp_path):
    place = shutil.copytree(exported("sentiment", "int8").folder, tmp_path / "run")
    damaged_meta(place, change)
    with pytest.raises(RunError) as caught:
        seqtext.load(place, device="cpu")
    assert str(caught.value).startswith(f"{place}/{message}")
