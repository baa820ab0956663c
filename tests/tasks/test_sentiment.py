"""The classifier: long texts, class weights, what learns and what stays, odd input, and how it is shown."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from seqtext import api, recipe
from seqtext.config import parse
from seqtext.errors import ConfigError, DataError, RunError
from seqtext.nn.classifier import ClassifierConfig
from seqtext.nn.pool import MaxConfig, MeanConfig
from seqtext.run import Run
from seqtext.tasks.sentiment import Prediction, Sentiment, SentimentData

TEXTS = ["a fine film", "a dull , dull film that drags on", "fine", "not fine at all", "dull", "a film"]
LABELS = ["good", "bad", "good", "bad", "bad", "fair"]
SMALL: dict[str, Any] = {"embedding": {"size": 4}, "encoder": {"name": "gru", "hidden_size": 3}}


def dataset(texts: list[str] = TEXTS, labels: list[str] = LABELS) -> datasets.Dataset:
    rows = [{"text": text, "tokens": text.split(), "label": label} for text, label in zip(texts, labels)]
    return datasets.Dataset.from_list(rows)


def make(data: dict[str, Any] | None = None, *, sharp: float = 5.0, **model: Any) -> Any:
    """A classifier with random weights, `sharp` times their usual size in the output."""
    task: Any = Sentiment.fit(parse(SentimentData, data or {}, source="recipe"), dataset())
    torch.manual_seed(8)
    module = task.build(parse(ClassifierConfig, {**SMALL, **model}, source="recipe")).eval()
    module.output.weight.data.mul_(sharp)
    return api.Model(Run(Path("none"), recipe.load("sentiment"), task, {}), module, torch.device("cpu"))


def logits_of(model: Any, text: str) -> torch.Tensor:
    """(C,) for one text, alone, from its probabilities: logits up to a constant."""
    return torch.tensor(model.predict([text], pretokenized=True)[0].probabilities).log()


def test_the_probabilities_are_those_of_the_module_and_the_label_their_largest() -> None:
    model = make()
    names = model.task.names
    assert names == ["bad", "fair", "good"]
    for text, prediction in zip(TEXTS, model.predict(TEXTS, pretokenized=True)):
        (batch,) = model.task.batches(model.task.inputs([model.task.prepare(text, pretokenized=True)]), tokens=1)
        with torch.inference_mode():
            chances = model.module(batch.windows, 1)[0].double().softmax(0)
        assert prediction.probabilities == pytest.approx(chances.tolist(), abs=1e-6)
        assert prediction.label == names[int(chances.argmax())]


LONG = " ".join(TEXTS)
WORDS = LONG.split()


def test_only_the_head_of_a_long_text_or_its_head_and_tail_are_read() -> None:
    cases = {"head": [*WORDS[:5]], "head-tail": [*WORDS[:3], *WORDS[-2:]]}
    for rule, expected in cases.items():
        model = make({"max_tokens": 5, "long": rule})
        whole = make({"max_tokens": 400})
        found = model.predict(["fine", LONG, "a film"], pretokenized=True)[1]
        assert found.probabilities == pytest.approx(
            whole.predict([" ".join(expected)], pretokenized=True)[0].probabilities, abs=1e-6
        )
        assert found.probabilities != pytest.approx(whole.predict([LONG], pretokenized=True)[0].probabilities, abs=1e-3)
        record = model.task.record(model.task.prepare(LONG, pretokenized=True), found)
        assert record["cut"] == {"tokens": len(WORDS), "read": 5, "rule": rule}
        assert "cut" not in model.task.record(model.task.prepare("a fine film"), found)


def test_the_scores_of_windows_are_averaged_in_training_too() -> None:
    model = make({"max_tokens": 8, "long": "windows"})
    assert len(WORDS) == 19  # three windows: 6, 6, 7
    windows = [" ".join(part) for part in (WORDS[:6], WORDS[6:12], WORDS[12:])]
    encoded = model.task.inputs([model.task.prepare(text, pretokenized=True) for text in windows])
    (batch,) = model.task.batches(encoded, tokens=1000)
    with torch.inference_mode():
        mean = model.module(batch.windows, 3).mean(0)
    found = model.predict(["a film", LONG, "fine"], pretokenized=True)[1]
    assert found.probabilities == pytest.approx(mean.softmax(0).tolist(), abs=1e-6)
    assert "cut" not in model.task.record(model.task.prepare(LONG, pretokenized=True), found)
    encoded = model.task.encode(dataset([LONG, "fine"], ["fair", "good"]))
    (batch,) = model.task.batches(encoded, tokens=1000)
    assert len(batch.windows.lengths) == 4 and batch.lengths.tolist() in ([19, 1], [1, 19])
    loss = model.task.loss(model.module, batch)
    expected = -mean.log_softmax(0)[1] - logits_of(model, "fine")[2]
    assert loss.total.item() == pytest.approx(expected.item(), rel=1e-5) and loss.count.item() == 2


def test_balanced_weights_make_all_classes_count_alike() -> None:
    plain, model = make(), make(class_weights="balanced")
    assert plain.module.class_weights is None
    weights = {"bad": 6 / (3 * 3), "fair": 6 / (3 * 1), "good": 6 / (3 * 2)}
    for one, factors in ((plain, dict.fromkeys(weights, 1.0)), (model, weights)):
        (batch,) = one.task.batches(one.task.encode(dataset()), tokens=1000)
        loss = one.task.loss(one.module, batch)
        expected = 0.0
        for text, label in zip(TEXTS, LABELS):
            expected -= factors[label] * logits_of(one, text)[one.task.names.index(label)].item()
        assert loss.total.item() == pytest.approx(expected, rel=1e-5) and loss.count.item() == 6


def test_weights_are_those_of_the_training_text_after_loading_too(tmp_path: Path) -> None:
    model = make(class_weights="balanced")
    model.task.save(tmp_path)
    task: Any = Sentiment.load(tmp_path, model.task.data)
    again = task.build(parse(ClassifierConfig, {**SMALL, "class_weights": "balanced"}, source="recipe"))
    assert task.names == model.task.names and torch.equal(again.class_weights, model.module.class_weights)
    for damage in ({"names": ["a", "b"], "counts": [1]}, {"names": ["a", "a"], "counts": [1, 2]}, {"names": []}):
        (tmp_path / "labels.json").write_text(json.dumps(damage), encoding="utf-8")
        with pytest.raises(RunError, match=r"labels\.json: damaged"):
            Sentiment.load(tmp_path, model.task.data)


def test_only_the_read_out_of_a_reservoir_learns() -> None:
    model = make(encoder={"name": "esn", "size": 6, "density": 0.5}, pool={"name": "attention", "size": 2})
    (batch,) = model.task.batches(model.task.encode(dataset()), tokens=1000)
    model.task.loss(model.module.train(), batch).total.backward()
    learning = {name.split(".")[0] for name, value in model.module.named_parameters() if value.requires_grad}
    assert learning == {"pool", "output"}
    for name, value in model.module.named_parameters():
        assert (value.grad is not None and bool(value.grad.abs().max() > 0)) == (not name.startswith("embedding")), name


def test_a_bag_of_words_sees_no_order_and_the_others_do() -> None:
    turned = " ".join(reversed(TEXTS[1].split()))
    for encoder in ({"name": "bow"}, {"name": "cnn", "filters": 3}, {"name": "lstm"}, {"name": "esn", "size": 9}):
        model = make(encoder=encoder)
        one, other = (found.probabilities for found in model.predict([TEXTS[1], turned], pretokenized=True))
        assert (one == pytest.approx(other, abs=1e-6)) == (encoder["name"] == "bow"), encoder


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize(
    ("encoder", "pool"),
    [("gru", "last"), ("rnn", "attention"), ("cnn", "flatten"), ("lstm", "max"), ("bow", "mean"), ("cnn", "lp")],
)
def test_every_way_to_build_it_batches_as_alone_and_learns(encoder: str, pool: str, norm: str) -> None:
    data = {"max_tokens": 5, "long": "windows"}
    model = make(data, encoder={"name": encoder}, pool={"name": pool}, norm=norm, dropout=0.0)
    task, module = model.task, model.module
    encoded = task.encode(dataset())
    (together,) = task.batches(encoded, tokens=1000)
    loss = task.loss(module, together)
    alone = sum(task.loss(module, batch).total.item() for batch in task.batches(encoded, tokens=1))
    assert alone == pytest.approx(loss.total.item(), rel=1e-5)
    module.train()
    task.loss(module, together).total.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        if not name.startswith("pool"):  # the hidden bias of an attention over one word has no effect
            assert parameter.grad.abs().max() > 0, name
    for batch in task.batches(encoded, tokens=1):  # a batch of one text, and the empty share of a process
        assert task.loss(module, batch).total.isfinite()
    *_, share = task.batches(encoded, tokens=1, rank=1, world=2)
    module.zero_grad()
    task.loss(module, share).total.backward()
    assert len(share.rows) == 0 and all(parameter.grad is not None for parameter in module.parameters())


def test_batch_normalisation_evaluates_by_what_it_saw_in_training() -> None:
    model = make(norm="batch", embedding={"size": 4, "rare_dropout": 0.0})
    (batch,) = model.task.batches(model.task.encode(dataset()), tokens=1000)
    before = model.predict(TEXTS, pretokenized=True)
    seen = []
    model.module.norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    model.module.train()
    for _ in range(200):
        model.task.loss(model.module, batch)
    model.module.eval()
    assert model.predict(TEXTS, pretokenized=True) != before
    torch.testing.assert_close(model.module.norm.running_mean, seen[0].mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.module.norm.running_var, seen[0].var(0), rtol=1e-4, atol=1e-5)


def test_a_label_or_a_text_that_cannot_be_read_is_named() -> None:
    task = make().task
    message = "example 2: label 'ugly' was never seen in training; the labels of the training data are bad, fair, good"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        task.encode(dataset(["fine", "dull", "dull"], ["good", "ugly", "ugly"]))
    rows = dataset().to_list()
    rows[3]["tokens"] = []
    with pytest.raises(DataError, match=r"^example 4: a text without a word$"):
        task.encode(datasets.Dataset.from_list(rows))


def test_ratings_stand_in_the_order_of_their_size() -> None:
    task: Any = Sentiment.fit(SentimentData(), dataset(TEXTS, ["10", "2", "1", "10", "9", "2"]))
    assert task.names == ["1", "2", "9", "10"] and task.counts == {"1": 1, "2": 2, "9": 1, "10": 2}


def test_a_text_and_its_label_as_a_line_and_as_a_record() -> None:
    model = make()
    task = model.task
    text = "Not bad.  I\tliked it!"
    prepared = task.prepare(text)
    assert prepared.words == ["Not", "bad", ".", "I", "liked", "it", "!"]
    prediction = Prediction("good", (0.1, 0.123456789, 0.776543211))
    assert task.show(prepared, prediction) == "good\t0.7765\tNot bad. I liked it!"
    chances = {"bad": 0.1, "fair": 0.123457, "good": 0.776543}
    assert task.record(prepared, prediction) == {"text": text, "label": "good", "probabilities": chances}
    row = dataset()[1]
    assert task.record(row, prediction) == {
        "text": TEXTS[1],
        "gold": "bad",
        "label": "good",
        "probabilities": chances,
    }
    lines = ["", "a fine film", " \t "]
    found = model.predict(lines)
    assert found[0] == found[2] == Prediction("", ()) and found[1] == model.predict(["a fine film"])[0]
    assert task.show(task.prepare(""), found[0]) == ""
    assert task.record(task.prepare(""), found[0]) == {"text": "", "label": None, "probabilities": {}}


def test_the_worst_are_wrong_and_the_surest_first() -> None:
    task = make().task
    chances = [(0.2, 0.1, 0.7), (0.1, 0.0, 0.9), (0.6, 0.3, 0.1), (0.05, 0.0, 0.95), (1.0, 0.0, 0.0), (0.1, 0.9, 0.0)]
    predictions = [Prediction(task.names[max(range(3), key=each.__getitem__)], each) for each in chances]
    expected = [
        {"example": 4, "gold": "bad", "predicted": "good", "probability": 0.95, "text": TEXTS[3]},
        {"example": 2, "gold": "bad", "predicted": "good", "probability": 0.9, "text": TEXTS[1]},
        {"example": 3, "gold": "good", "predicted": "bad", "probability": 0.6, "text": TEXTS[2]},
    ]
    assert task.worst(predictions, dataset()) == expected
    assert task.worst(predictions, dataset(), count=1) == expected[:1]
    order = [5, 4, 3, 2, 1, 0]  # a dataset that is a selection of another one
    turned = task.worst([predictions[row] for row in order], dataset().select(order))
    assert [each["text"] for each in turned] == [each["text"] for each in expected]


def test_tables_of_classes_and_confusions() -> None:
    task = make().task
    labels = ["good", "bad", "bad", "bad", "bad", "fair"]
    predictions = [Prediction(label, (0.5, 0.25, 0.25)) for label in labels]
    overall, classes, confusion = task.tables(predictions, dataset())
    assert dict(zip(overall.header, overall.rows[0])) == {
        "accuracy": "83.33",
        "macro F1": "84.13",  # of 6/7, 1 and 2/3
        "weighted F1": "81.75",  # (3 * 6/7 + 1 + 2 * 2/3) / 6
        "log-loss": "1.0397",  # 3 of 6 texts at ln 2, 3 at ln 4
        "calibration error": "0.4167",  # (|3 - 4/2| + |2 - 2/4|) / 6: those called bad, and the two others
    }
    assert classes.rows == [
        ["bad", "75.00", "100.00", "85.71", "3", "4", "3"],
        ["fair", "100.00", "100.00", "100.00", "1", "1", "1"],
        ["good", "100.00", "50.00", "66.67", "2", "1", "1"],
    ]
    assert confusion.header == ["", "bad", "fair", "good"]
    assert confusion.rows == [["bad", "3", "0", "0"], ["fair", "0", "1", "0"], ["good", "1", "0", "1"]]
    assert task.score(predictions, dataset())["accuracy"] == pytest.approx(5 / 6)
    names = [f"{number:02}" for number in range(30)]
    many = dataset([f"text {name}" for name in names], names)
    task = Sentiment.fit(SentimentData(), many)
    wrong = {"03": "04", "17": "00"}
    predictions = [Prediction(wrong.get(name, name), (1 / 30,) * 30) for name in names]
    assert task.tables(predictions, many)[2].rows == [["03", "04", "1"], ["17", "00", "1"]]


def test_what_is_known_of_the_data_is_said() -> None:
    task = make({"max_tokens": 3}).task
    facts = dict(task.describe({"train": dataset()}, {"train": task.encode(dataset())}))
    assert facts["train"].startswith("6 texts, 19 tokens; length median 2, 95% 7, longest 8")
    assert facts["train long"].startswith("2 of 6 (33.3%) are longer than data.max_tokens = 3: only their first 3")
    assert facts["train labels"] == "3: bad 50.0%, fair 16.7%, good 33.3%"
    assert facts["train cover"] == "vocabulary covers 100.0% of words"


def test_a_bag_is_pooled_by_its_mean_and_what_else_a_recipe_may_not_say() -> None:
    assert ClassifierConfig().pool == MaxConfig()
    bag = parse(ClassifierConfig, {"encoder": {"name": "bow"}}, source="recipe")
    assert bag.pool == MeanConfig() and parse(ClassifierConfig, bag.model_dump(), source="recipe") == bag
    assert parse(ClassifierConfig, {"embedding": {"size": 9}}, source="recipe").embedding.characters.name == "none"
    cases = {
        "model.pool.name: encoder 'bow' is the mean of its words' vectors, so pool is 'mean', not 'max'": {
            "encoder": {"name": "bow"},
            "pool": {"name": "max"},
        },
        "model.pool.p: expected greater than or equal to 1, got 0.5": {"pool": {"name": "lp", "p": 0.5}},
        "model.pool.p: unknown key; known keys here: name": {"pool": {"name": "max", "p": 2.0}},
        "model.class_weights: expected 'none' or 'balanced', got 'even'": {"class_weights": "even"},
    }
    for message, values in cases.items():
        with pytest.raises(ConfigError, match=re.escape(message) + "$"):
            parse(ClassifierConfig, values, source="recipe", prefix="model")
