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

from seqtext.nn import graphs


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
        leaves, levels = self.plant(x), forest.levels
        recorded = len(levels) > 1 and graphs.wanted(leaves)
        states = self._recorded(leaves, forest) if recorded else grow(leaves, forest, self.composer())
        return states[:, : self.output_size]

    def _recorded(self, leaves: Tensor, forest: Forest) -> Tensor:
        """`grow` by a recording, in which all levels have as many places, some of them for nothing.

        A node of a level is one of the parents computed there, or one of its leaves, which have places of their own.
        """
        counts = torch.tensor(forest.levels)  # (L, 2): nodes and inner nodes, on the CPU, as all that is made of them
        depth, width = graphs.room(len(counts)), graphs.room(int(counts[:, 0].max()))
        parents = self._parents(width)
        found = [_places(counts[:, 0], width), _places(counts[:, 0] - counts[:, 1], width)]
        found.append(counts[:, 1].repeat_interleave(counts[:, 0]))  # inner nodes of the level of each node
        sizes = list(map(len, found))
        nodes, of_leaves, inner = torch.cat(found).to(leaves.device, non_blocking=True).split(sizes)
        weave = torch.where(forest.weave < inner, forest.weave, forest.weave - inner + parents)
        # Places for nothing read the first leaf's, and as children have a parent that is none either.
        weaves = weave.new_full((depth * width,), parents).index_copy(0, nodes, weave)
        owners = weave.new_full((depth * width,), parents - 1).index_copy(0, nodes[: len(forest.owners)], forest.owners)
        placed = leaves.new_zeros(depth * width, leaves.size(1)).index_copy(0, of_leaves, leaves)
        given = [each.unflatten(0, (depth, width)) for each in (placed, weaves, owners)]
        (states,) = graphs.run(self, self._levels, given, [each.shape for each in given])
        return states.flatten(0, 1).index_select(0, nodes)

    def _levels(self, leaves: Tensor, weaves: Tensor, owners: Tensor) -> list[Tensor]:
        """Leaves (L, W, S), weaves and owners (L, W) -> states (L, W, S)."""
        compose, states = self.composer(), [leaves[0]]
        parents = self._parents(leaves.size(1))
        for own, weave, owner in zip(leaves[1:].unbind(), weaves[1:].unbind(), owners[:-1].unbind()):
            inner = compose(states[-1], Parents(parents, owner))
            states.append(torch.cat([inner, own]).index_select(0, weave))
        return [torch.stack(states)]

    def _parents(self, width: int) -> int:
        """The most nodes that so many children have."""
        return width // 2 if self.binary else width


def _places(counts: Tensor, width: int) -> Tensor:
    """Things that levels have, (L,) of them -> where each is, of `width` places a level, (sum of counts,)."""
    starts = torch.arange(len(counts)) * width - (counts.cumsum(0) - counts)
    return torch.arange(int(counts.sum())) + starts.repeat_interleave(counts)
