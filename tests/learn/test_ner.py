"""The tagger learns: from a few hundred synthetic sentences, names it has never seen, and by what it is made of."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import seqtext
from seqtext.config import parse
from seqtext.task import predict_all
from seqtext.tasks.ner import Ner, NerData, NerModel
from seqtext.training.config import TrainConfig
from seqtext.training.distributed import Devices
from seqtext.training.loop import fit

pytestmark = pytest.mark.slow

SENTENCES, EPOCHS = 500, 14
CNN = {"name": "cnn", "size": 20, "filters": 30}
SPELLING: dict[str, Any] = {"shapes": 8, "characters": CNN}
WHOLE: dict[str, Any] = {"characters": {"name": "none"}}


class Alone(nn.Module):
    """An encoder that reads every word by itself."""

    def __init__(self, input_size: int, output_size: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(nn.Linear(input_size, output_size), nn.Tanh())

    def forward(self, x: Tensor, lengths: Tensor, *, with_state: bool = False) -> tuple[Tensor, list[Any]]:
        return self.layer(x), []


def learn(embedding: dict[str, Any], *, context: bool = True, head: str = "crf") -> dict[str, float]:
    """Test scores of a small tagger."""
    data, device = NerData(), torch.device("cpu")
    train, test = Ner.read(data, "train").select(range(SENTENCES)), Ner.read(data, "test")
    task: Any = Ner.fit(data, train)
    values = {"embedding": {"size": 30, "dropout": 0.2, **embedding}, "encoder": {"hidden_size": 50}, "dropout": 0.2}
    torch.manual_seed(1)
    module: Any = task.build(parse(NerModel, {**values, "head": head}, source="recipe"))
    if not context:
        module.encoder = Alone(module.embedding.output_size, module.encoder.output_size)
    rates = {"optimizer": {"name": "adam", "lr": 0.008}, "schedule": {"name": "cosine"}}
    config = parse(TrainConfig, {"epochs": EPOCHS, "batch_tokens": 256, **rates}, source="recipe")
    for _ in fit(task, module, task.encode(train), None, config, devices=Devices(device), seed=1):
        pass
    encoded = task.encode(test)
    predictions = predict_all(task, module, encoded, task.batches(encoded, tokens=4096), device)
    return task.score(predictions, test)


@pytest.fixture(scope="module")
def full() -> dict[str, float]:
    return learn(SPELLING)


def test_held_out_names_are_found_by_spelling_and_context_and_not_without(full: dict[str, float]) -> None:
    assert full["f1"] > 0.82 and full["unseen_f1"] > 0.82  # seeds 1 to 3: 0.87, 0.90, 0.85
    for kind in ("PER", "LOC", "ORG", "MISC"):
        assert full[f"f1/{kind}"] > 0.6, kind
    # Neither is enough by itself: the names of the test are in no word list, and one name has several types.
    spelling, context, neither = learn(SPELLING, context=False), learn(WHOLE), learn(WHOLE, context=False)
    assert spelling["f1"] < 0.72  # 0.64, 0.64, 0.64
    assert neither["f1"] < 0.65  # 0.59, 0.59, 0.45
    assert neither["f1"] < context["f1"] < full["f1"]  # 0.77, 0.84, 0.83


def test_a_crf_keeps_to_the_scheme_where_a_softmax_does_not(full: dict[str, float]) -> None:
    single = learn(SPELLING, head="softmax")
    assert full["invalid"] == 0 and full["strict_f1"] == full["f1"]
    assert single["invalid"] > 0 and single["strict_f1"] != single["f1"]
    assert full["f1"] > single["f1"] > 0.6  # 0.72, 0.73, 0.71


def test_characters_read_by_a_recurrence_learn_too() -> None:
    found = learn({"shapes": 8, "characters": {"name": "rnn", "size": 20, "hidden_size": 15}})
    assert found["f1"] > 0.82 and found["invalid"] == 0  # 0.89, 0.92, 0.92


def test_a_label_that_the_one_before_decides_needs_output_recurrence(tmp_path: Path) -> None:
    """A word "more" continues whatever was said last, "other" turns it around; words tell nothing else."""

    def sentence(rng: random.Random) -> str:
        tags = [rng.choice("PQ")]
        words = [f"start{tags[0].lower()}"]
        for _ in range(7):
            words.append(rng.choice(["more", "other"]))
            tags.append(tags[-1] if words[-1] == "more" else {"P": "Q", "Q": "P"}[tags[-1]])
        return "".join(f"{word} B-{tag}\n" for word, tag in zip(words, tags)) + "\n"

    for split, size in (("train", 300), ("valid", 20), ("test", 60)):
        rng = random.Random(split)
        (tmp_path / f"{split}.conll").write_text("".join(sentence(rng) for _ in range(size)), encoding="utf-8")
    found = {}
    for recurrence in ("hidden", "output", "both"):
        feedback = {"hidden_size": 20, "label_size": 5}
        overrides = {"model.recurrence": recurrence, "model.feedback": {} if recurrence == "hidden" else feedback}
        overrides |= {"model.embedding": {"characters": {"name": "none"}}, "model.dropout": 0.0, "train.epochs": 8}
        overrides |= {"train.optimizer.lr": 0.02, "train.batch_tokens": 256}
        out = tmp_path / recurrence
        run = seqtext.train("ner-jordan", data=str(tmp_path), overrides=overrides, out=out, device="cpu")
        found[recurrence] = run.meta["scores"]["test"]["f1"]
    assert found["hidden"] < 0.7  # the first label, and half of the others
    assert min(found["output"], found["both"]) > 0.98
