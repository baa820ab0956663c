"""What the proofs share: a corpus and a recipe of every task, so small that a whole training takes a second or two."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from seqtext.data.brackets import Tree
from seqtext.data.sources import Split

Write = Callable[[Split, int], str]


def _tagged(split: Split, size: int) -> str:
    from seqtext.data.samples import ner_sample

    sentences = ner_sample(split, size=size)
    return "\n".join("".join(f"{token} {tag}\n" for token, tag in zip(*sentence)) for sentence in sentences)


def _reviews(split: Split, size: int) -> str:
    from seqtext.data.sentiment_sample import sentiment_sample

    rows = sentiment_sample(split, size=size)
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


def _prose(split: Split, size: int) -> str:
    from seqtext.data.corpus_sample import corpus_sample

    return "".join(paragraph + "\n" for paragraph in islice(corpus_sample(split), size))


def _pairs(split: Split, size: int) -> str:
    from seqtext.data.translation_sample import translation_sample

    pairs = translation_sample(split, size=size)
    return "source\ttarget\n" + "".join(f"{source}\t{target}\n" for source, target in pairs)


def _forest(split: Split, size: int) -> str:
    from seqtext.data.tree_sample import tree_sample

    return "".join(brackets(tree) + "\n" for tree in tree_sample(split, size=size))


def brackets(tree: Tree) -> str:
    """A tree as the Treebank writes it."""
    written: list[str] = []
    for label, start, below in zip(tree.labels, tree.starts, tree.children):
        inside = " ".join(written[child] for child in below) or tree.leaves[start]
        written.append(f"({label} {inside})")
    return written[-1]


FILES: dict[str, tuple[str, Write]] = {
    "ner": ("conll", _tagged),
    "sentiment": ("jsonl", _reviews),
    "lm": ("txt", _prose),
    "translation": ("tsv", _pairs),
    "tree-sentiment": ("trees", _forest),
}
"""For each task the suffix of its files, and what writes so many examples of a split."""
SIZES: dict[Split, int] = {"train": 48, "valid": 16, "test": 16}
COMMON = {
    "train.epochs": "3",
    "train.accumulate": "2",
    "train.checkpoint_every": "2",
    "train.log_every": "3",
    "train.batch_tokens": "64",
    "train.optimizer.lr": "0.02",
    "train.schedule.name": "plateau",
    "train.schedule.patience": "0",
    "train.average.name": "exponential",
    "train.average.decay": "0.9",
}
"""Everything that a checkpoint must keep: half-filled steps, a schedule and an average that depend on the past."""
SETTINGS: dict[str, dict[str, str]] = {
    "ner": {"model.encoder.hidden_size": "8"},
    "sentiment": {"model.encoder.hidden_size": "8", "model.embedding.size": "8"},
    "lm": {"model.encoder.hidden_size": "16", "model.embedding_size": "16", "train.batch_tokens": "256"},
    "translation": {
        "data.tokenizer.max_size": "300",
        "model.embedding_size": "16",
        "model.encoder.hidden_size": "8",
        "model.decoder.hidden_size": "16",
        "train.batch_tokens": "256",
    },
    "tree-sentiment": {"model.cell.hidden_size": "8", "model.embedding.size": "8"},
}


def write_corpus(task: str, folder: Path, *, train: int = SIZES["train"]) -> Path:
    """A folder of files of the task's sample, with `train` examples to train on."""
    suffix, write = FILES[task]
    folder.mkdir(parents=True)
    for split, size in (SIZES | {"train": train}).items():
        (folder / f"{split}.{suffix}").write_text(write(split, size), encoding="utf-8")
    return folder


def overrides(task: str) -> Iterator[str]:
    """The task's own recipe made tiny, as KEY=VALUE."""
    yield from (f"{key}={value}" for key, value in (COMMON | SETTINGS[task]).items())
