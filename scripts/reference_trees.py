"""Recursive nets one node at a time, as public code has them: what `bench_trees.py` measures against.

Each node is a few operations on its own vectors, its children's states found by recursion; a tree's nodes are then
classified together. The weights are those of the module that it is given, and its loss is the same sum.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class NodeByNode:
    """The same scores as a `TreeClassifier` over word vectors gives, by recursion."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.compose = COMPOSE[type(module.cell).__name__]
        self.nested: dict[int, list[Any]] = {}

    @staticmethod
    def covers(module: Any) -> bool:
        return type(module.cell).__name__ in COMPOSE and module.leaves is None

    def logits(self, encoded: Any, rows: np.ndarray) -> Iterator[Tensor]:
        """Scores (N, C) of each tree's nodes, in level order."""
        module = self.module
        for row in rows.tolist():
            tree = self.nested.get(row) or self.nested.setdefault(row, nested(encoded.trees, row))
            x = module.embed(words_of(encoded, row))[0]  # (T, E)
            states: list[Any] = [None] * len(tree)
            self._grow(tree, 0, x, states)
            h = torch.stack([state[0] for state in states])
            yield module.output(module.dropout(h.unsqueeze(0)).squeeze(0))

    def loss(self, task: Any, encoded: Any, rows: np.ndarray) -> tuple[Tensor, Tensor]:
        weights = self.module.weights
        total, count = torch.zeros(()), torch.zeros(())
        for row, logits in zip(rows.tolist(), self.logits(encoded, rows)):
            start, size = int(encoded.trees.starts[row]), int(encoded.trees.sizes[row])
            labels = torch.from_numpy(encoded.labels[start : start + size])
            losses = nn.functional.cross_entropy(logits, labels, reduction="none", ignore_index=-1)
            total = total + weights.root * losses[0] + weights.nodes * losses[1:].sum()
            labelled = labels >= 0
            count = count + weights.root * labelled[0] + weights.nodes * labelled[1:].sum()
        return total, count

    def _grow(self, tree: list[Any], node: int, x: Tensor, states: list[Any]) -> Any:
        children = tree[node]
        if isinstance(children, int):
            state = leaf(self.module.cell, x[children])
        else:
            state = self.compose(self.module.cell, *(self._grow(tree, child, x, states) for child in children))
        states[node] = state
        return state


def nested(trees: Any, row: int) -> list[Any]:
    """Of each node of a tree in level order, the numbers of its children, or its word."""
    start, size = int(trees.starts[row]), int(trees.sizes[row])
    arities, words = trees.arities[start : start + size].tolist(), trees.words[start : start + size].tolist()
    found: list[Any] = []
    following = 1
    for arity, word in zip(arities, words):
        found.append(list(range(following, following + arity)) if arity else word)
        following += arity
    return found


def words_of(encoded: Any, row: int) -> Any:
    from seqtext.tasks.words import gather_words

    return gather_words(encoded.text, encoded.types, np.array([row]))


def leaf(cell: Any, x: Tensor) -> Any:
    if hasattr(cell, "gates"):
        i, o, u = cell.word(x).chunk(3)
        c = i.sigmoid() * u.tanh()
        return o.sigmoid() * c.tanh(), c
    if hasattr(cell, "matrix"):
        size = cell.hidden_size
        diagonal, left, right = cell.matrix(x).split([size, size * cell.rank, size * cell.rank])
        return cell.word(x).tanh(), torch.diag(1 + diagonal) + left.view(size, -1) @ right.view(-1, size)
    return (cell.word(x).tanh(),)


def lstm(cell: Any, left: Any, right: Any) -> Any:
    i, o, f_left, f_right, u = cell.gates(torch.cat([left[0], right[0]])).chunk(5)
    c = i.sigmoid() * u.tanh() + f_left.sigmoid() * left[1] + f_right.sigmoid() * right[1]
    return o.sigmoid() * c.tanh(), c


def recursive(cell: Any, left: Any, right: Any) -> Any:
    return (cell.compose(torch.cat([left[0], right[0]])).tanh(),)


def tensor(cell: Any, left: Any, right: Any) -> Any:
    pair = torch.cat([left[0], right[0]])
    return ((cell.tensor(pair).view(-1, len(pair)) @ pair / len(pair) + cell.compose(pair)).tanh(),)


def childsum(cell: Any, *children: Any) -> Any:
    i, o, u = cell.gates(torch.stack([h for h, _ in children]).sum(0)).chunk(3)
    c = i.sigmoid() * u.tanh()
    for h, memory in children:
        c = c + cell.forget(h).sigmoid() * memory
    return o.sigmoid() * c.tanh(), c


def gru(cell: Any, left: Any, right: Any) -> Any:
    pair = torch.cat([left[0], right[0]])
    new = cell.compose(cell.reset(pair).sigmoid() * pair).tanh()
    three = torch.cat([pair, new])
    return ((cell.update(three).view(3, -1).softmax(0) * three.view(3, -1)).sum(0),)


def matrices(cell: Any, left: Any, right: Any) -> Any:
    h = cell.compose(torch.cat([right[1] @ left[0], left[1] @ right[0]])).tanh()
    return h, cell.merge(torch.cat([left[1], right[1]]).t()).t()


COMPOSE = {
    "BinaryLSTM": lstm,
    "ChildSumLSTM": childsum,
    "BinaryGRU": gru,
    "Recursive": recursive,
    "TensorRecursive": tensor,
    "MatrixVector": matrices,
}
