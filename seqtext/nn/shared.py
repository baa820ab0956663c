"""Weights that one forward pass uses many times: the gradient of a matrix is one product in the end.

Autograd by itself makes a product of the size of the matrix at every use, and adds them up; that is half of the time
of a backward pass over many small steps.

Autograd runs the backward of a `token` after that of all that was computed with it, and by then what was gathered has
every use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqtext.nn.products import outer, product


def ends() -> bool:
    """Whether the graph of the backward pass that runs is done with after it, and what it holds should go.

    The token of some weights and what knows their uses hold each other, so that nothing else would let go of them until
    Python looks for such circles.
    """
    return not torch._C._autograd._get_current_graph_task_keep_graph()


class Gathering:
    """What is known of the uses of some weights in the backward pass that runs."""

    token: Tensor
    """Without entries; what was computed with the weights depends on it."""

    def __init__(self) -> None:
        self.gathered: list[Any] = []
        self.run = -1

    def gather(self, use: Any) -> None:
        """Count a use for the weights."""
        run = torch._C._current_graph_task_id()
        if run != self.run:  # what a backward pass that did not ask for the weights has left
            self.gathered.clear()
            self.run = run
        self.gathered.append(use)

    def taken(self) -> list[Any]:
        """All uses, which then are done with."""
        found, self.gathered = self.gathered, []
        return found


class Shared(Gathering):
    """A linear map that one forward pass uses many times. It is computed in the number format of its weights."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """`weight` (O, I), `bias` (O,)."""
        super().__init__()
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.turned = self.weight.t().contiguous() if torch.is_grad_enabled() else None
        self.token = _Token.apply(weight, bias, self)

    def __call__(self, x: Tensor) -> Tensor:
        """x (K, I) -> (K, O), in the number format of x."""
        return _Use.apply(x, self.token, self) if torch.is_grad_enabled() else self.forward(x)

    def forward(self, x: Tensor) -> Tensor:
        """The same without a gradient, for a function that computes its own."""
        return product(x.to(self.weight.dtype), self.weight, self.bias, turned=self.turned).to(x.dtype)

    def backward(self, x: Tensor, grad: Tensor) -> Tensor:
        """The gradient of x (K, I) from that of the outputs, `grad` (K, O), which count for the weights too."""
        assert self.turned is not None
        self.gather((x, grad))
        return product(grad.to(self.turned.dtype), self.turned, turned=self.weight).to(grad.dtype)


class SharedVector(Gathering):
    """A vector, a bias or a gain, that one forward pass uses many times."""

    def __init__(self, value: Tensor) -> None:
        """`value` (N,)."""
        super().__init__()
        self.value = value
        self.token = _Sum.apply(value, self) if torch.is_grad_enabled() else torch.empty(0)


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
    def forward(ctx: Any, weight: Tensor, bias: Tensor | None, shared: Shared) -> Tensor:
        ctx.shared = shared
        return weight.new_empty(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        shared, biased = ctx.shared, ctx.shared.bias is not None
        uses = shared.taken()
        if ends():
            ctx.shared = None
        if not uses:
            return grad.new_zeros(shared.weight.shape), grad.new_zeros(len(shared.weight)) if biased else None, None
        inputs, grads = uses[0] if len(uses) == 1 else (torch.cat(parts) for parts in zip(*uses))
        number = shared.weight.dtype
        of_weight = outer(grads.to(number), inputs.to(number))
        return of_weight, grads.sum(0).to(number) if biased else None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, shared: SharedVector) -> Tensor:
        ctx.shared, ctx.like = shared, value.detach()
        return value.new_empty(0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        uses = ctx.shared.taken()
        if ends():
            ctx.shared = None
        return torch.stack(uses).sum(0).to(grad.dtype) if uses else torch.zeros_like(ctx.like), None


class _Use(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, token: Tensor, shared: Shared) -> Tensor:
        ctx.shared = shared
        ctx.save_for_backward(x)
        return shared.forward(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        (x,) = ctx.saved_tensors
        if ctx.needs_input_grad[0]:
            return ctx.shared.backward(x, grad), grad.new_empty(0), None
        ctx.shared.gather((x, grad))
        return None, grad.new_empty(0), None
