"""Trees in brackets: from wherever they are to rows of words and of nodes in level order in the Arrow cache.

A tree becomes arrays once, when it is read: unary chains collapsed, labels and shape as the recipe wants them, nodes in
level order (see `tree_shapes.Levels`). Reading streams: a batch of trees is in memory at a time, and for `hold_out`
4 bytes a tree, in a pass of its own.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from seqtext.data import folds
from seqtext.data.brackets import Check, Tree, top_label
from seqtext.data.cache import Write, cached, code, fingerprint
from seqtext.data.classification import BINARY
from seqtext.data.sources import MissingSplit, SourceData, Split, held_parts
from seqtext.data.tree_files import Reader, open_reader
from seqtext.data.tree_shapes import binarize, collapse, level_order, reshape
from seqtext.errors import DataError

if TYPE_CHECKING:
    import datasets

BATCH_TREES = 2_000
BATCH_NODES = 200_000
"""A batch of rows ends at whichever comes first."""
MOST_LABELS = 10_000
COLUMNS = ("labels", "arities", "starts", "ends", "depths")


class TreesData(SourceData):
    """Trees in Treebank brackets: where they are, which labels count, and which shape they get.

    Files have any number of trees, a tree on one line or several. Unary chains are collapsed: what is left has the
    label of the highest node that has one. Files in .mrg and the trees of `nltk:treebank` are the Penn Treebank's:
    traces are cut out, and labels lose what follows the first of - = | (NP-SBJ is NP).
    """

    labels: Literal["all", "binary", "none"] = "all"
    """`all` takes labels as they are; `binary` makes 0 and 1 negative, 3 and 4 positive, and 2 none: trees of a neutral
    root stay in the training data for the nodes below it and are left out of the others; `none` drops all labels."""
    scale: int | None = Field(default=None, ge=2)
    """Labels must be whole numbers from 0 to scale - 1; others are an error that says where. By default any will do."""
    binarize: Literal["right", "left", "none"] = "right"
    """Nodes of more than two children: `right` parts the first child from the rest and so on, `left` the last, by new
    nodes without a label; `none` keeps them, for cells that take any number of children."""
    structure: Literal["gold", "left", "right", "balanced"] = "gold"
    """`gold` keeps the brackets; the others put the same words in left-branching, right-branching or balanced binary
    trees, baselines to show what structure adds. Spans that are constituents of the gold tree keep their labels."""
    hold_out: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Share of the training trees held out, stratified by the root's label, for validation where there are no other
    trees for it, and as much again for test."""
    hold_out_seed: int = 0
    """Seed of what is held out."""

    @model_validator(mode="after")
    def _sensible(self) -> TreesData:
        if self.labels == "binary" and self.scale not in (None, 5):
            raise ValueError(f'labels = "binary" reads the labels 0 to 4, so scale must be 5, got {self.scale}')
        return self

    def uncut(self) -> Self:
        return self.model_copy(update={"hold_out": 0.0})

    def part(self, split: Split) -> str:
        if not held_parts(split, self.hold_out, partial(open_reader, self)):
            return split
        return f"{split} (hold_out {self.hold_out}, hold_out_seed {self.hold_out_seed})"


def read_forest(data: TreesData, split: Split) -> datasets.Dataset:
    """The trees of a split, memory-mapped: `tokens`, the words; and for each node in level order `labels` ("" for
    none), `arities`, `starts`, `ends` (words of the tree) and `depths`.

    `dataset.info.description` says how it was read and what was left out. Raises `DataError` with file, line and column
    for brackets that do not read, labels that the settings do not allow, and roots without a label where labels are
    wanted; `DataError` for a split without a tree and training data of fewer than two labels; `MissingSplit` where
    there is no such split and none is held out.
    """
    import pyarrow as pa

    parts = held_parts(split, data.hold_out, partial(open_reader, data))
    try:
        reader = open_reader(data, "train" if parts else split)
    except MissingSplit as error:
        if split == "train":
            raise
        raise MissingSplit(f"{error}; data.hold_out = 0.1 takes a tenth of the training trees for it") from None
    settings = {
        "shape": [data.labels, data.scale, data.binarize, data.structure],
        "split": split,
        "cut": [*parts, data.hold_out, data.hold_out_seed] if parts else None,
        **reader.settings,
    }
    modules = ("trees", "tree_files", "tree_shapes", "brackets", "classification", "folds", "text")
    strings, numbers = pa.list_(pa.string()), pa.list_(pa.int32())
    dataset, facts = cached(
        fingerprint([*reader.paths, *code(*modules)], settings),
        schema=pa.schema(
            [("tokens", strings), *((name, strings if name == "labels" else numbers) for name in COLUMNS)]
        ),
        build=partial(_build, reader, data, split, parts),
        kind="trees",
    )
    dataset.info.description = _about(reader, data, facts, cut=bool(parts))
    return dataset


def shape(tree: Tree, data: TreesData) -> Tree:
    """A tree as `data` wants it: unary chains collapsed, labels chosen, and bracketed by `structure` and `binarize`."""
    tree = collapse(tree)
    if data.labels == "none":
        tree = tree._replace(labels=[""] * len(tree.labels))
    elif data.labels == "binary":
        tree = tree._replace(labels=[BINARY.get(label) or "" for label in tree.labels])
    if data.structure != "gold":
        return reshape(tree, data.structure)
    return tree if data.binarize == "none" else binarize(tree, data.binarize)


def _about(reader: Reader, data: TreesData, facts: Mapping[str, int], *, cut: bool) -> str:
    about = [reader.format, f"{facts['labels'] or 'no'} label" + ("" if facts["labels"] == 1 else "s")]
    if data.structure != "gold":
        about.append(data.structure + ("" if data.structure == "balanced" else "-branching"))
    elif data.binarize != "none":
        about.append(f"binarized to the {data.binarize}")
    if cut:
        about.append("cut from the training data")
    trees = f"{facts['neutral']:,} tree" + ("" if facts["neutral"] == 1 else "s")
    if facts["left_out"]:
        return ", ".join(about) + f"; left out: {trees} of a neutral root"
    return ", ".join(about) + (f"; {trees} of a neutral root" if facts["neutral"] else "")


def _check(data: TreesData) -> Check | None:
    """What is wrong with a label; None where any will do."""
    if data.labels == "none" and data.scale is None:
        return None
    allowed = frozenset(map(str, range(data.scale or 0)))

    def check(label: str) -> str:
        if not label:
            missing = "the root of this tree has no label; expected one, as in (3 (2 So) ...)"
            return "" if data.labels == "none" else missing
        if data.scale is not None and label not in allowed:
            return f"label {label[:40]!r}; expected a whole number from 0 to {data.scale - 1} (data.scale)"
        if data.labels == "binary" and label not in BINARY:
            rule = "labels from 0 to 4: 0 and 1 are negative, 3 and 4 positive, and 2 is neither"
            return f'label {label[:40]!r}, but data.labels = "binary" needs {rule}'
        return ""

    return check


def _build(reader: Reader, data: TreesData, split: Split, parts: Sequence[Split], write: Write) -> dict[str, int]:
    facts = dict.fromkeys(("trees", "neutral", "left_out"), 0)
    labels: set[str] = set()
    columns: dict[str, list[Any]] = {name: [] for name in ("tokens", *COLUMNS)}
    held = 0
    for tree in _kept(reader, data, split, parts, facts):
        levels = level_order(tree)
        columns["tokens"].append(tree.leaves)
        for name in COLUMNS:
            columns[name].append(getattr(levels, name))
        labels.update(levels.labels)
        if len(labels) > MOST_LABELS:
            raise DataError(f"more than {MOST_LABELS:,} different labels: is this a treebank?", path=reader.place)
        facts["trees"] += 1
        held += len(levels.labels)
        if len(columns["tokens"]) == BATCH_TREES or held >= BATCH_NODES:
            write(columns)
            columns = {name: [] for name in columns}
            held = 0
    if columns["tokens"]:
        write(columns)
    if not facts["trees"]:
        raise _nothing(reader, data, split, facts)
    facts["labels"] = len(labels - {""})
    if split == "train" and data.labels != "none" and facts["labels"] < 2:
        found = f"all nodes have the label {max(labels)!r}" if facts["labels"] else "no node has a label"
        raise DataError(f'{found}; at least two are needed, or data.labels = "none"', path=reader.place)
    return facts


def _nothing(reader: Reader, data: TreesData, split: Split, facts: Mapping[str, int]) -> DataError:
    if facts["left_out"]:
        given = f'data.labels = "binary" leaves no tree for {split}: the root of all {facts["left_out"]:,} is neutral'
        return DataError(given, path=reader.place)
    if next(reader.read(None), None):
        given = f"data.hold_out = {data.hold_out} leaves no tree for {split}; there are too few"
        return DataError(given, path=reader.place)
    return DataError("no tree: it is empty or blank; expected (label (label word) ...)", path=reader.place)


def _kept(
    reader: Reader, data: TreesData, split: Split, parts: Sequence[Split], facts: dict[str, int]
) -> Iterator[Tree]:
    """The trees of a split in their final shape."""
    assigned = _assign(reader, data, parts) if parts else None
    wanted = parts.index(split) if parts else 0
    for number, tree in enumerate(reader.read(_check(data))):
        if assigned is not None and assigned[number] != wanted:
            continue
        tree = shape(tree, data)
        if data.labels == "binary" and not tree.labels[-1]:
            facts["neutral"] += 1
            if split != "train":
                facts["left_out"] += 1
                continue
        yield tree


def _assign(reader: Reader, data: TreesData, parts: Sequence[Split]) -> np.ndarray:
    """(N,) for each tree the place in `parts` of the split it belongs to. Trees of a neutral root are training data."""
    numbers: dict[str, int] = {"": -1}
    codes = array("i")
    for tree in reader.read(_check(data)):
        root = top_label(tree)
        if data.labels == "binary":
            root = BINARY[root] or ""
        codes.append(0 if data.labels == "none" else numbers.setdefault(root, len(numbers)))
    classes = np.frombuffer(codes, dtype=np.intc) if codes else np.zeros(0, np.intc)
    assigned = np.zeros(len(classes), dtype=np.int8)
    candidates = classes >= 0
    shares = [data.hold_out] * (len(parts) - 1)
    assigned[candidates] = folds.hold_out(classes[candidates], shares, data.hold_out_seed)
    return assigned
