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

from seqtext.nn.products import product


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


class Shared:
    """A linear map that one forward pass uses many times: the gradient of its weights is gathered, and made once.

    Autograd runs the backward of `token` after that of all that was computed with it, and by then `gathered` has the
    inputs and the gradients of the outputs of all uses.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """`weight` (O, I), `bias` (O,)."""
        self.weight, self.bias = weight.detach(), bias.detach()
        self.turned = self.weight.t().contiguous() if torch.is_grad_enabled() else None
        self.gathered: list[tuple[Tensor, Tensor]] = []
        self.token = _Token.apply(weight, bias, self.gathered)

    def __call__(self, x: Tensor) -> Tensor:
        """x (K, I) -> (K, O)."""
        return _Use.apply(x, self.token, self)

    def forward(self, x: Tensor) -> Tensor:
        """The same without a gradient, for a function that computes its own."""
        return product(x, self.weight, self.bias)

    def backward(self, x: Tensor, grad: Tensor) -> Tensor:
        """The gradient of x (K, I) from that of the outputs, `grad` (K, O), which count for the weights too."""
        assert self.turned is not None
        self.gathered.append((x, grad))
        return product(grad, self.turned)


class Unshared:
    """The face of `Shared` for a layer without a gradient."""

    def __init__(self, layer: Callable[[Tensor], Tensor]) -> None:
        self.forward = layer
        self.token = torch.empty(0)

    def __call__(self, x: Tensor) -> Tensor:
        """x (K, I) -> (K, O)."""
        return self.forward(x)


class _Token(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, bias: Tensor, gathered: list[tuple[Tensor, Tensor]]) -> Tensor:
        ctx.gathered, ctx.shape = gathered, weight.shape
        return weight.new_empty(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        if not ctx.gathered:
            return grad.new_zeros(ctx.shape), grad.new_zeros(ctx.shape[0]), None
        inputs, grads = (torch.cat(parts) for parts in zip(*ctx.gathered))
        ctx.gathered.clear()
        return product(grads.t(), inputs.t()), grads.sum(0), None


class _Use(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, shared: Shared) -> Tensor:
        ctx.shared = shared
        ctx.save_for_backward(x)
        return shared.forward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        return ctx.shared.backward(x, grad), grad.new_empty(0), None


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
