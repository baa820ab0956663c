"""Recursive nets over whole forests: the nodes of all trees that have the same depth are composed together.

States of a level's nodes are the children of the level above, in its order (`data.forest`), so that a step takes its
children as they are: no gathering over the whole forest, and no Python per node. A composition's weights are used at
every level; their gradient is one product over all nodes in the end, not a small one a level.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn


class Forest(NamedTuple):
    """B trees of N nodes, M of them leaves, from the deepest level up: `data.forest.Schedule` as tensors."""

    leaves: Tensor
    """(M,) int64: the words of the leaves, as positions in (B, T) flattened."""
    weave: Tensor
    """(N,) int64: where each node of a level is among its inner nodes followed by its leaves."""
    unweave: Tensor
    """(N,) int64: the way back."""
    owners: Tensor
    """(N - B,) int64: the parent of each node but the roots, among the inner nodes of the level above."""
    trees: Tensor
    """(N,) int64: the tree of each node."""
    levels: tuple[tuple[int, int], ...]
    """Nodes of each level, and how many of them are inner nodes; the roots' level is the last."""


class Parents(NamedTuple):
    """The n nodes that a step computes."""

    number: int
    owners: Tensor
    """(K,) int64: which of them each of the K children belongs to; rising."""


Compose = Callable[[Tensor, Parents], Tensor]
"""Children's states (K, S) in order of their parents -> the parents' states (n, S)."""


class _Weave(torch.autograd.Function):
    """Inner nodes and leaves of a level in its order; a permutation, so that the gradient is a copy, not a scatter."""

    @staticmethod
    def forward(ctx: Any, inner: Tensor, leaves: Tensor, order: Tensor, back: Tensor) -> Tensor:
        ctx.save_for_backward(back)
        ctx.inner = len(inner)
        return torch.cat([inner, leaves]).index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        (back,) = ctx.saved_tensors
        grad = grad.index_select(0, back)
        return grad[: ctx.inner], grad[ctx.inner :], None, None


def grow(leaves: Tensor, forest: Forest, compose: Compose) -> Tensor:
    """The states of all nodes (N, S), in the order of `forest`, from those of its leaves (M, S)."""
    levels = forest.levels
    parts = leaves.split([nodes - inner for nodes, inner in levels])
    sizes = [nodes for nodes, _ in levels]
    weaves, backs = forest.weave.split(sizes), forest.unweave.split(sizes)
    owners = forest.owners.split(sizes[:-1])
    states: list[Tensor] = []
    for depth, (nodes, inner) in enumerate(levels):
        if inner == 0:
            states.append(parts[depth])
            continue
        state = compose(states[-1], Parents(inner, owners[depth - 1]))
        if inner < nodes:
            state = _Weave.apply(state, parts[depth], weaves[depth], backs[depth])
        states.append(state)
    return torch.cat(states)


class TreeCell(nn.Module):
    """What a node's state is made of, for `grow`. S features of a state, H of what is read off it."""

    binary: bool = True
    """Whether every inner node must have two children."""
    state_size: int
    output_size: int

    def plant(self, x: Tensor) -> Tensor:
        """The states of leaves, from their words' vectors: x (M, D) -> (M, S)."""
        raise NotImplementedError

    def composer(self) -> Compose:
        """How children become parents, for one forward pass."""
        raise NotImplementedError

    def forward(self, x: Tensor, forest: Forest) -> Tensor:
        """Leaves' vectors x (M, D) -> outputs of all nodes (N, H), in the order of `forest`."""
        states = grow(self.plant(x), forest, self.composer())
        return states[:, : self.output_size]
