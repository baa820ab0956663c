"""A matrix that one forward pass multiplies with many times: the gradient of it is one product in the end.

Autograd by itself makes a product of the size of the matrix at every use, and adds them up; that is half of the time
of a backward pass over many small steps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqtext.nn.products import product


class Shared:
    """A linear map that one forward pass uses many times: the gradient of its weights is gathered, and made once.

    Autograd runs the backward of `token` after that of all that was computed with it, and by then `gathered` has the
    inputs and the gradients of the outputs of all uses.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        """`weight` (O, I), `bias` (O,)."""
        self.weight, self.bias = weight.detach(), None if bias is None else bias.detach()
        self.turned = self.weight.t().contiguous() if torch.is_grad_enabled() else None
        self.gathered: list[tuple[Tensor, Tensor]] = []
        self.run = -1
        self.token = _Token.apply(weight, bias, self)

    def __call__(self, x: Tensor) -> Tensor:
        """x (K, I) -> (K, O)."""
        return _Use.apply(x, self.token, self)

    def forward(self, x: Tensor) -> Tensor:
        """The same without a gradient, for a function that computes its own."""
        return product(x, self.weight, self.bias)

    def backward(self, x: Tensor, grad: Tensor) -> Tensor:
        """The gradient of x (K, I) from that of the outputs, `grad` (K, O), which count for the weights too."""
        assert self.turned is not None
        self.gather(x, grad)
        return product(grad, self.turned)

    def gather(self, x: Tensor, grad: Tensor) -> None:
        """Count a use for the weights."""
        run = torch._C._current_graph_task_id()
        if run != self.run:  # what a backward pass that did not ask for the weights has left
            self.gathered.clear()
            self.run = run
        self.gathered.append((x, grad))


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
        if not shared.gathered:
            return grad.new_zeros(shared.weight.shape), grad.new_zeros(len(shared.weight)) if biased else None, None
        inputs, grads = (torch.cat(parts) for parts in zip(*shared.gathered))
        shared.gathered.clear()
        return product(grads.t(), inputs.t()), grads.sum(0) if biased else None, None


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
        ctx.shared.gather(x, grad)
        return None, grad.new_empty(0), None
