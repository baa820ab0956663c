"""Language models of labelled documents: every token is scored with its own document before it, for its label."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import seqtext
from seqtext import api
from seqtext.config import parse
from seqtext.errors import ConfigError, DataError, InputError
from seqtext.nn.language_model import LanguageModelConfig
from seqtext.run import Run
from seqtext.task import predict_all
from seqtext.tasks.lm import Lm, LmData
from seqtext.training.loop import Stepped

CPU = torch.device("cpu")
ROWS = [
    ("the cat sat on the mat .", "calm"),
    ("a dog ran", "wild"),
    ("the dog saw cats and ran and ran and ran on", "wild"),
    ("the mat was", "calm"),
    ("cats , cats and dogs sat and ran on the mat and the dog saw the cat", "wild"),
]
CONDITIONS = ("none", "initial", "input", "both")


def write(path: Path, rows: Any = ROWS) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "mood"), *rows])


def make(folder: Path, condition: str, **data: Any) -> tuple[Any, Any, Any]:
    """Task, an untrained module that is sure of itself, and the documents."""
    write(folder / "train.csv")
    values = {"source": str(folder), "label_field": "mood", "window": 3, "tokenizer": {"unit": "word"}, **data}
    settings = parse(LmData, values, source="recipe")
    dataset = Lm.read(settings, "train")
    task: Any = Lm.fit(settings, dataset)
    torch.manual_seed(1)
    encoder = {"hidden_size": 6, "layers": 2}
    model = {"embedding_size": 6, "encoder": encoder, "init_range": 1.5, "condition": condition}
    return task, task.build(parse(LanguageModelConfig, model, source="recipe")).eval(), dataset


def by_hand(task: Any, module: Any, text: str, label: str) -> list[float]:
    """The loss of every token of a document, read one by one."""
    labels = None if module.conditioning is None else torch.tensor([task.names.index(label)])
    losses, state, before = [], None, task.eos
    [ids] = task.prompt([text])
    with torch.inference_mode():
        for token in [*ids, task.eos]:
            output, state = module.step(torch.tensor([before]), state, labels)
            losses.append(-module.softmax.log_probabilities(output)[0, token].item())
            before = token
    return losses


@pytest.mark.parametrize("condition", CONDITIONS)
def test_documents_are_scored_each_from_its_own_beginning_for_its_label(tmp_path: Path, condition: str) -> None:
    task, module, dataset = make(tmp_path, condition)
    assert task.names == ["calm", "wild"] and dataset["text"] == [text for text, _ in ROWS]
    expected = [by_hand(task, module, *row) for row in ROWS]
    encoded = task.encode(dataset)
    for tokens in (1, 9, 10**6):
        found = predict_all(task, module, encoded, task.batches(encoded, tokens=tokens), CPU)
        for score, losses in zip(found, expected, strict=True):
            assert score.nll == pytest.approx(sum(losses), rel=1e-5) and score.targets == len(losses)
    windows = list(task.batches(encoded, tokens=9))
    assert max(batch.inputs.shape[1] for batch in windows) == 3  # none is longer than a window
    assert max(batch.inputs.numel() for batch in windows) == 9 and not all(batch.first for batch in windows)
    total, carry = 0.0, None
    for batch in task.batches(encoded, tokens=9, shuffle=np.random.default_rng(1)):
        loss = task.loss(module, batch, carry)
        total, carry = total + loss.total.item(), loss.carry
    assert total == pytest.approx(sum(map(sum, expected)), rel=1e-5)
    scores = task.score(found, dataset)
    wild = [losses for losses, (_, label) in zip(expected, ROWS) if label == "wild"]
    assert scores["perplexity/wild"] == pytest.approx(math.exp(sum(map(sum, wild)) / sum(map(len, wild))), rel=1e-5)
    assert task.tables(found, dataset)[1].rows[1][:3] == ["wild", "3", str(sum(map(len, wild)))]
    assert task.record(dataset[1], found[1])["label"] == "wild"


def test_texts_without_labels_are_scored_for_the_one_given(tmp_path: Path) -> None:
    task, module, _ = make(tmp_path, "both")
    model = api.Model(Run(tmp_path, None, task, {}), module, CPU)  # type: ignore[arg-type]
    texts = [text for text, _ in ROWS]
    found = {label: model.predict(texts, label=label, batch_tokens=12) for label in task.names}
    for label, scores in found.items():
        for text, score in zip(texts, scores, strict=True):
            assert score.nll == pytest.approx(sum(by_hand(task, module, text, label)), rel=1e-5)
    assert abs(found["calm"][0].nll - found["wild"][0].nll) > 0.01
    with pytest.raises(InputError, match=r"^this language model is conditioned on a label: give one by --label; its"):
        model.predict(texts, batch_tokens=12)
    with pytest.raises(InputError, match=r"^--label loud: this language model knows no such label; its labels: calm"):
        model.predict(texts, label="loud", batch_tokens=12)
    unread = make(tmp_path, "none")
    with pytest.raises(InputError, match=r'^--label calm: this language model reads no label \(model.condition = "no'):
        unread[0].decoder(unread[1], label="calm")
    with pytest.raises(InputError, match=r"^--prompt: several lines, and each document of this run is one"):
        model.generate("a dog\nran", label="calm")
    with pytest.raises(InputError, match=r"^--lines 2: each document of this run is one line, and nothing comes after"):
        model.generate(label="calm", lines=2)
    assert all(text.text.count("\n") <= 1 for text in model.generate(label="calm", samples=5, seed=1))


def test_a_run_keeps_its_labels_and_names_those_it_never_saw(tmp_path: Path) -> None:
    task, _, _ = make(tmp_path, "input")
    task.save(tmp_path)
    again: Any = Lm.load(tmp_path, task.data)
    assert again.names == task.names and again.apart and "label" in again.options
    write(tmp_path / "valid.csv", [("a dog ran", "calm"), ("a cat", "loud")])
    with pytest.raises(DataError, match=r"document 2: label 'loud' was never seen in training; the labels of"):
        task.encode(Lm.read(task.data, "valid"))
    with pytest.raises(InputError, match=r"^--dynamic and --cache read one text in its order, and the documents"):
        task.adapt(None, None, None, None, tokens=1, device=CPU)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"label_field": "mood", "random_windows": True}, "data.random_windows: documents (label_field) begin at th"),
        ({"label_field": "mood", "blank_lines": True}, "data.blank_lines: a document with a label is one row, and"),
        ({"label_field": "mood", "format": "text"}, 'data: format "text" has no labels: leave label_field out, or g'),
        ({"label_field": "mood", "separator": "::"}, "data: separator must be one character, no quote and no line e"),
        ({"format": "csv"}, 'data: format "csv" is one of labelled texts: name their label by label_field'),
        ({"separator": ";"}, "data.separator: only tables of labelled texts have it: name their label by label_field"),
    ],
)
def test_settings_that_nothing_reads_are_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(LmData, values, source="recipe", prefix="data")
    assert caught.value.faults[0].startswith(message)


def test_a_condition_needs_labels(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'^model.condition = "both" needs a label for each text: data.label_field'):
        seqtext.train("lm", overrides={"model.condition": "both"}, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=r'model\.label_size: no label is read with condition = "none"'):
        seqtext.train("lm", overrides={"model.label_size": 3}, out=tmp_path / "run", device="cpu")


class Stopped(Exception):
    """Training was cut off."""


@pytest.mark.parametrize("recurrence", ["hidden", "both"])
def test_a_run_cut_off_within_documents_goes_on_to_the_same_bits(tmp_path: Path, recurrence: str) -> None:
    write(tmp_path / "train.csv", ROWS * 3)
    write(tmp_path / "valid.csv")
    overrides = {"data.label_field": "mood", "data.window": 3, "data.tokenizer.min_frequency": 1}
    overrides |= {"model.embedding_size": 4, "model.label_size": 2, "model.encoder.hidden_size": 4}
    overrides |= {"model.recurrence": recurrence}
    overrides |= {"train.epochs": 2, "train.batch_tokens": 9, "train.checkpoint_every": 1, "train.log_every": 1}

    def listen(event: Any) -> None:
        if isinstance(event, Stepped) and event.step == 24:
            raise Stopped

    same = {"recipe": "lm-conditioned", "data": str(tmp_path), "overrides": overrides, "device": "cpu"}
    seqtext.train(**same, out=tmp_path / "whole")
    with pytest.raises(Stopped):
        seqtext.train(**same, out=tmp_path / "cut", listen=listen)
    seqtext.train(resume=tmp_path / "cut", device="cpu")
    found, expected = (load_file(tmp_path / name / "checkpoints/last/state.safetensors") for name in ("cut", "whole"))
    assert found.keys() == expected.keys() and any(name.startswith("carry") for name in found)
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
    with pytest.raises(InputError, match=r"conditioned on labels, which no|a model with output recurrence"):
        seqtext.train("lm", overrides={"train.init_from": str(tmp_path / "whole")}, out=tmp_path / "no", device="cpu")
