"""The language model learns: a language down to its entropy, and a memory over many steps, by what it is made of."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import seqtext
from seqtext.config import parse
from seqtext.nn.language_model import LanguageModelConfig
from seqtext.task import predict_all
from seqtext.tasks.lm import Lm, LmData
from seqtext.training.config import TrainConfig
from seqtext.training.distributed import Devices
from seqtext.training.loop import fit

pytestmark = pytest.mark.slow
CPU = torch.device("cpu")


def write(folder: Path, line: Any, *, train: int, test: int) -> None:
    for split, size in (("train", train), ("valid", 1), ("test", test)):
        rng = random.Random(split)
        (folder / f"{split}.txt").write_text("".join(line(rng) + "\n" for _ in range(size)), encoding="utf-8")


def learn(
    folder: Path, encoder: dict[str, Any], *, window: int, epochs: int, lr: float, alone: bool = False
) -> tuple[Any, Any, Any]:
    """A trained task, its module, and the test split."""
    data = parse(LmData, {"source": str(folder), "window": window, "pretokenized": "yes"}, source="recipe")
    train, test = Lm.read(data, "train"), Lm.read(data, "test")
    task: Any = Lm.fit(data, train)
    torch.manual_seed(1)
    model = {"embedding_size": 16, "encoder": encoder, "tied": False}
    module = task.build(parse(LanguageModelConfig, model, source="recipe"))
    torch.nn.init.normal_(module.embedding.weight)
    rates = {"optimizer": {"name": "adam", "lr": lr}, "schedule": {"name": "cosine"}, "clip": 1.0}
    config = parse(TrainConfig, {"epochs": epochs, "batch_tokens": 10 * window, **rates}, source="recipe")
    encoded = task.inputs([task.prepare(text) for text in train["text"]]) if alone else task.encode(train)
    for _ in fit(task, module, encoded, None, config, devices=Devices(CPU), seed=1):
        pass
    return task, module, test


def test_a_periodic_language_is_learned_down_to_its_entropy(tmp_path: Path) -> None:
    """Lines of seven tokens, their ends counted: one of 8 words at random, then one of 2, and all else follows.

    So no model can do better than (8 * 2) ** (1 / 7) = 1.486, and one that knows how often each word comes, but not
    where, does no better than 6.2.
    """
    first, second = [f"start{i}" for i in range(8)], ["left", "right"]

    def line(rng: random.Random) -> str:
        turn = rng.choice(second)
        return f"{rng.choice(first)} then {turn} again {turn} stop"

    write(tmp_path, line, train=1500, test=500)
    task, module, test = learn(tmp_path, {"hidden_size": 32}, window=28, epochs=15, lr=0.02)
    encoded = task.encode(test)
    limit = 16 ** (1 / 7)
    for tokens in (1, 8192):  # exactly, and in streams side by side
        batches = task.batches(encoded, tokens=tokens)
        found = task.score(predict_all(task, module, encoded, batches, CPU), test)["perplexity"]
        assert limit * 0.995 < found < limit * 1.02


LETTERS, DISTANCES = "ab", (2, 4, 8, 16, 32)


def recalled(folder: Path, cell: str, options: dict[str, Any]) -> list[float]:
    """Nats that a letter costs at each distance from where it stood before."""
    encoder = {"cell": cell, "hidden_size": 32, "cell_options": options}
    size = 2 + sum(DISTANCES) + len(DISTANCES)
    task, module, test = learn(folder, encoder, window=size, epochs=10, lr=0.01, alone=True)
    [batch] = task.batches(task.inputs([task.prepare(text) for text in test["text"]]), tokens=10**9)
    with torch.inference_mode():
        losses = module.eval().nll(module(batch.inputs), batch.targets)  # (lines, size)
    assert losses.shape[1] == size
    places = [number + sum(DISTANCES[:number]) for number in range(1, len(DISTANCES) + 1)]
    return losses[:, places].mean(0).tolist()


def test_an_lstm_copies_over_32_steps_and_a_plain_recurrence_over_4(tmp_path: Path) -> None:
    """A letter is asked for again and again, after 2 steps, 4, 8, 16 and 32 more; all else is the same in all lines."""

    def line(rng: random.Random) -> str:
        letter = rng.choice(LETTERS)
        return " ".join([letter, *(word for d in DISTANCES for word in [*["x"] * (d - 1), "again", letter])])

    write(tmp_path, line, train=1000, test=40)
    lstm, plain = recalled(tmp_path, "lstm", {"forget_bias": 2.0}), recalled(tmp_path, "rnn", {})
    assert max(lstm) < 0.3
    assert max(plain[:1]) < 0.3  # it does learn what is near
    assert min(plain[2:]) > 0.7 * math.log(len(LETTERS))


@pytest.mark.parametrize("condition", ["initial", "input", "both"])
def test_a_label_decides_what_is_written(tmp_path: Path, condition: str) -> None:
    """Documents of four words and an end: a label's own first word of two, then two that any may have, then its last.

    So no model that reads the label does better than (2 * 2 * 2) ** (1 / 5) = 1.516, or than 2 ** (1 / 5) more without.
    """
    words = {"calm": (["sun", "sea"], "quiet"), "wild": (["wind", "rain"], "loud")}
    for split, size in (("train", 800), ("valid", 10), ("test", 200)):
        rng = random.Random(split)
        labels = [rng.choice(list(words)) for _ in range(size)]
        rows = [
            f"{rng.choice(words[label][0])} {rng.choice('ab')} {rng.choice('ab')} {words[label][1]}" for label in labels
        ]
        lines = "".join(f"{text}\t{label}\n" for text, label in zip(rows, labels))
        (tmp_path / f"{split}.tsv").write_text("text\tlabel\n" + lines, encoding="utf-8")
    overrides = {"model.condition": condition, "model.embedding_size": 12, "model.label_size": 4, "train.epochs": 6}
    overrides |= {"model.encoder.hidden_size": 16, "model.input_dropout": 0.0, "model.output_dropout": 0.0}
    overrides |= {"train.batch_tokens": 250, "train.optimizer.lr": 0.02}
    run = seqtext.train("lm-conditioned", data=str(tmp_path), overrides=overrides, out=tmp_path / "run", device="cpu")
    assert 8**0.2 * 0.99 < run.meta["scores"]["test"]["perplexity"] < 8**0.2 * 1.03
    for label in words:
        wrong = seqtext.evaluate(run.folder, label=label, device="cpu").scores
        [other] = set(words) - {label}
        assert wrong[f"perplexity/{other}"] > 3 * wrong[f"perplexity/{label}"]
        written = seqtext.load(run.folder, device="cpu").generate(label=label, samples=30, seed=1)
        mine = [text.text.split() for text in written]
        assert sum(text[0] in words[label][0] and text[-1] == words[label][1] for text in mine) >= 28


def test_a_distribution_fed_back_remembers_what_is_still_to_come(tmp_path: Path) -> None:
    """Lines begin with one of four words, "on" so long as a coin says, and end with the first word's partner.

    All along the partner is as probable as "on": the output of a step tells which line it is, the word does not. So a
    model that has the last word alone must guess at the end, which costs log 4 nats a line, and what else it confuses.
    """

    def line(rng: random.Random) -> str:
        kind = rng.randrange(4)
        words = [f"start{kind}"]
        while rng.random() < 0.5:
            words.append("on")
        return " ".join(["on", *words, "on", f"end{kind}"])

    write(tmp_path, line, train=1200, test=200)
    lost = {}
    for of in ("distribution", "word"):
        overrides = {"data.window": 12, "data.tokenizer.min_frequency": 1, "data.pretokenized": "yes"}
        overrides |= {"model.recurrence": "output", "model.feedback.of": of, "model.tied": False}
        overrides |= {"model.embedding_size": 12, "model.encoder.cell": "rnn", "model.encoder.hidden_size": 32}
        overrides |= {"model.input_dropout": 0.0, "model.output_dropout": 0.0, "train.batch_tokens": 360}
        overrides |= {"train.epochs": 8, "train.optimizer.lr": 0.02}
        run = seqtext.train("lm", data=str(tmp_path), overrides=overrides, out=tmp_path / of, device="cpu")
        scores = run.meta["scores"]["test"]
        lost[of] = scores["nll"] * scores["targets"] / 200
    assert lost["word"] - lost["distribution"] > 0.8 * math.log(4)
