"""A language of 148 sentences, its translation, and translators of it that are trained in seconds."""

from __future__ import annotations

import itertools
import random

import seqtext

NOUNS = {
    "cat": ("die Katze", "die Katze"),
    "dog": ("der Hund", "den Hund"),
    "horse": ("das Pferd", "das Pferd"),
    "man": ("der Mann", "den Mann"),
    "woman": ("die Frau", "die Frau"),
}
VERBS = {"sees": "sieht", "hears": "hört", "finds": "findet", "calls": "ruft"}
FIRST, SECOND = ("Jo", "Ka", "Li", "Mo", "Ru", "Ta"), ("an", "bel", "cun", "dor", "fi", "gor", "hal", "jek")
SMALL = {
    "data.tokenizer.max_size": 400,
    "model.embedding_size": 32,
    "model.encoder.cell": "gru",
    "model.decoder.cell": "gru",
    "model.encoder.hidden_size": 32,
    "model.decoder.hidden_size": 64,
    "model.input_dropout": 0.0,
    "model.output_dropout": 0.0,
    "model.label_smoothing": 0.0,
    "train.batch_tokens": 128,
    "train.optimizer.lr": 0.01,
}
WORDS = {
    "data.tokenizer.unit": "word",
    "data.tokenizer.byte_fallback": False,
    "data.tokenizer.min_frequency": 8,
    "data.joint": False,
    "model.tied": "none",
}
"""Words of one vocabulary a side, which has no names."""


def pairs():
    """(English, German): of animals and people, and of names that stay as they are."""
    found = []
    for subject, verb, object in itertools.product(NOUNS, VERBS, NOUNS):
        german = f"{NOUNS[subject][0]} {VERBS[verb]} {NOUNS[object][1]}."
        found.append((f"The {subject} {verb} the {object}.", german[0].upper() + german[1:]))
    for number, (first, second) in enumerate(itertools.product(FIRST, SECOND)):
        verb, object = list(VERBS)[number % 4], list(NOUNS)[number % 5]
        name = first + second
        found.append((f"{name} {verb} the {object}.", f"{name} {VERBS[verb]} {NOUNS[object][1]}."))
    random.Random(1).shuffle(found)
    return found


def write(folder):
    """All of it as files of two languages; the last 40 sentences are held out."""
    folder.mkdir()
    found = pairs()
    for split, part in {"train": found[:-40] * 3, "valid": found[-40:-30], "test": found[-30:]}.items():
        for side, language in enumerate(("en", "de")):
            text = "".join(pair[side] + "\n" for pair in part)
            (folder / f"{split}.{language}").write_text(text, encoding="utf-8")
    return folder


def trained(data, out, *, epochs, seed=1, **settings):
    overrides = SMALL | {"train.epochs": epochs} | settings
    return seqtext.train("translation", data=str(data), overrides=overrides, out=out, seed=seed, device="cpu").folder
