"""What `bench.py` measures of each task: its recipe, data like that recipe's, and what its products with weights take.

The corpora are those of the tasks' own benchmarks. Sentiment has the trees' sentences, with all their constituents.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bench_lm
import bench_ner
import bench_translation
import bench_trees
import numpy as np

VECTORS = 50
"""Features of the random vectors."""
CONLL_SENTENCES, SST_TREES, MULTI30K_PAIRS, PTB_TOKENS = 6000, 2000, 16_000, 60_000
"""Of training, at scale 1; other parts have fewer."""


@dataclass(frozen=True)
class Subject:
    """What is measured of a task."""

    recipe: str
    write: Callable[[Path, float], object]
    """Writes its corpus, of a share of the size."""
    lines: Callable[[Path], list[str]]
    """The texts to predict for, from the corpus."""
    flops: Callable[[Any, Any, Any, Any], float]
    """Forward FLOPs a token, of module, task, encoded training data and recipe."""
    vectors: bool = False
    """Whether words have pretrained vectors."""
    options: Mapping[str, Any] = field(default_factory=lambda: {"pretokenized": True})
    """Of its predictions."""
    counts: Mapping[str, Callable[[Any], float]] = field(default_factory=dict)
    """What else its training data has, that speed is told in."""


def sentences_of(folder: Path) -> list[str]:
    """The sentences of a CoNLL file."""
    blocks = (folder / "test.conll").read_text(encoding="utf-8").strip().split("\n\n")
    return [" ".join(line.split()[0] for line in block.splitlines()) for block in blocks]


def words_of_trees(folder: Path) -> list[str]:
    """The sentences of a file of trees."""
    lines = (folder / "test.txt").read_text(encoding="utf-8").splitlines()
    return [" ".join(re.findall(r"\(\d ([^()]+)\)", line)) for line in lines]


def write_trees(folder: Path, scale: float) -> object:
    return bench_trees.write_trees(folder, scaled({"train": SST_TREES, "valid": 300, "test": 1000}, scale))


def write_pairs(folder: Path, scale: float) -> object:
    return bench_translation.write_corpus(folder, scaled({"train": MULTI30K_PAIRS, "valid": 200, "test": 800}, scale))


def scaled(sizes: Mapping[str, int], scale: float) -> dict[str, int]:
    return {split: max(20, round(scale * size)) for split, size in sizes.items()}


def flops_of_sentences(module: Any, task: Any, train: Any, chosen: Any) -> float:
    import operations

    return operations.forward_flops(module, task, module, train, chosen)[0]


def flops_of_trees(module: Any, task: Any, train: Any, chosen: Any) -> float:
    """Words, leaves and parser counted as they run; the composition by its weights."""
    import operations
    from torch import nn

    parts = nn.ModuleList(part for part in (module.embedding, module.leaves, module.parser) if part is not None)
    trees = bench_trees.flops_per_tree(module, train.trees) * len(train) / float(train.text.lengths.sum())
    return trees + operations.forward_flops(parts, task, module, train, chosen)[0]


def flops_of_pairs(module: Any, task: Any, train: Any, chosen: Any) -> float:
    return bench_translation.count_flops(module, task, train, chosen)[0] * targets(train)


def targets(train: Any) -> float:
    """Target tokens a source token; both sides' ends count."""
    return float((train.target.lengths + 1).sum() / (train.source.lengths + 1).sum())


SUBJECTS = {
    "ner": Subject(
        "ner-conll2003",
        lambda folder, scale: bench_ner.write_corpus(folder, max(20, round(scale * CONLL_SENTENCES))),
        sentences_of,
        flops_of_sentences,
        vectors=True,
    ),
    "sentiment": Subject(
        "sentiment-sst2",
        write_trees,
        words_of_trees,
        flops_of_sentences,
        vectors=True,
        counts={"texts": lambda train: len(train) / float(train.cut.read.sum())},
    ),
    "lm": Subject(
        "lm-ptb",
        lambda folder, scale: bench_lm.write_corpus(folder, max(4000, round(scale * PTB_TOKENS))),
        lambda folder: (folder / "valid.txt").read_text(encoding="utf-8").splitlines(),
        lambda module, task, train, chosen: bench_lm.count_flops(task, module, train, chosen),
    ),
    "translation": Subject(
        "translation-multi30k",
        write_pairs,
        lambda folder: (folder / "test.en").read_text(encoding="utf-8").splitlines(),
        flops_of_pairs,
        options={},
        counts={"target tokens": targets},
    ),
    "tree-sentiment": Subject(
        "tree-sst",
        write_trees,
        words_of_trees,
        flops_of_trees,
        vectors=True,
        counts={"trees": lambda train: len(train) / float(train.text.lengths.sum())},
    ),
}


def write_vectors(data: Path, path: Path) -> Path:
    """Random vectors for nine in ten of the words of a corpus's training file."""
    text = "".join(file.read_text(encoding="utf-8") for file in sorted(data.glob("train.*")))
    words = [word for number, word in enumerate(sorted(set(re.findall(r"[^\s()]+", text)))) if number % 10]
    values = np.random.default_rng(1).normal(0.0, 0.4, (len(words), VECTORS)).round(3).tolist()
    rows = (f"{word} {' '.join(map(str, row))}\n" for word, row in zip(words, values))
    path.write_text("".join(rows), encoding="utf-8")
    return path
