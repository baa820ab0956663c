"""Echo state networks: a fixed random recurrence remembers, and its read-out is solved for what to make of it."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import seqtext

SIZES = {"model.encoder.size": 200, "model.encoder.density": 0.1, "model.encoder.leak": 1.0}
WORDS = "abcdefgh"


def train(name: str, folder: Path, ending: str, example: Callable[[random.Random], str], **overrides: Any) -> Any:
    """Test scores after training on 400 examples."""
    for split, size in (("train", 400), ("valid", 20), ("test", 100)):
        rng = random.Random(split)
        head = "text,label\n" if ending == "csv" else ""
        (folder / f"{split}.{ending}").write_text(head + "".join(example(rng) for _ in range(size)), encoding="utf-8")
    settings = SIZES | {key.replace("__", "."): value for key, value in overrides.items()}
    run = seqtext.train(name, data=str(folder), overrides=settings, out=folder / "run", device="cpu")
    return run.meta["scores"]["test"]


def remembering(radius: float, folder: Path) -> Any:
    """A label for each word: the word two before it."""

    def sentence(rng: random.Random) -> str:
        words = [rng.choice(WORDS) for _ in range(8)]
        tags = ["O", "O", *(f"B-{word}" for word in words[:-2])]
        return "".join(f"{word} {tag}\n" for word, tag in zip(words, tags)) + "\n"

    plain = {"model__embedding__characters": {"name": "none"}, "model__embedding__rare_dropout": 0.0}
    encoder = {"model__encoder__bidirectional": False, "model__encoder__spectral_radius": radius}
    encoder |= {"model__encoder__input_scale": 0.5}
    return train("ner-esn", folder, "conll", sentence, **plain, **encoder, train__optimizer__penalty=0.01)


def test_a_tagger_remembers_by_its_radius(tmp_path: Path) -> None:
    (tmp_path / "much").mkdir()
    (tmp_path / "none").mkdir()
    assert remembering(0.8, tmp_path / "much")["f1"] > 0.95
    assert remembering(1e-6, tmp_path / "none")["f1"] < 0.4  # it hears the last word alone


def test_a_classifier_remembers_the_first_word(tmp_path: Path) -> None:
    def text(rng: random.Random) -> str:
        words = [rng.choice(WORDS) for _ in range(4)]
        return f"{' '.join(words)},{'early' if words[0] in WORDS[:4] else 'late'}\n"

    overrides = {"model__encoder__input_scale": 0.3, "train__optimizer__penalty": 0.01}
    scores = train("sentiment-esn", tmp_path, "csv", text, **overrides)
    assert scores["accuracy"] > 0.95
    assert scores["log_loss"] < 0.3  # its estimates are probabilities


def test_a_language_model_predicts_a_word_from_the_one_two_before(tmp_path: Path) -> None:
    """Lines of eight words, of which the first two are drawn, and each other is that two before it.

    So no model does better than (8 * 8) ** (1 / 9) = 1.59, and one that knows the last word alone no better than 5.3.
    """

    def line(rng: random.Random) -> str:
        return " ".join([rng.choice(WORDS), rng.choice(WORDS)] * 4) + "\n"

    overrides = {"model__encoder__input_scale": 3.0, "train__optimizer__penalty": 0.01, "data__pretokenized": "yes"}
    scores = train("lm-esn", tmp_path, "txt", line, **overrides, train__optimizer__floor=0.05)
    assert 64 ** (1 / 9) * 0.98 < scores["perplexity"] < 3.0
