"""Cells by their equations: what x gives to all steps is one product, and the rest is a loop over the steps.

A cell says what a step does, `advance`; autograd makes its gradient. The gradient of a recurrent matrix is gathered
over the steps and made once (`shared.Shared`). Gates and states are float32 where products are in fewer bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from seqtext.nn.cell import Cell, State, last_of, zero_state
from seqtext.nn.products import product, tanh
from seqtext.nn.shared import Shared

Product: TypeAlias = Callable[[Tensor], Tensor]
"""x (N, I) -> (N, O)."""


class Matrix(nn.Module):
    """W x + b as the steps of one pass use it: W (O, I), b (O,) where it has one."""

    mask: Tensor | None

    def __init__(self, columns: int, rows: int, *, bias: bool = False, mask: Tensor | None = None) -> None:
        """`mask` (O, I) has 0 at entries that are always 0. Of no column there is no W, and b is all."""
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns)) if columns else None
        self.bias = nn.Parameter(torch.empty(rows)) if bias else None
        self.register_buffer("mask", mask, persistent=False)

    def drawn(self, *, drop: float = 0.0) -> tuple[Tensor, Tensor | None]:
        """W, a share of its entries dropped, and b, in the number format that products are computed in."""
        assert self.weight is not None
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        device = weight.device.type
        if self.mask is not None:
            weight = weight * self.mask
        if drop:
            # Drawn by `rand`, which is five times faster on a CPU than dropout's own `bernoulli_`.
            weight = weight * torch.rand_like(weight).lt_(1.0 - drop).div_(1.0 - drop)
        number = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        weight, bias = weight.to(number), None if bias is None else bias.to(number)
        return weight, bias

    def begin(self, *, drop: float = 0.0, biased: bool = True) -> Product:
        """The product for one forward pass, a share of the entries of W dropped, with the bias where wanted."""
        weight, bias = self.drawn(drop=drop)
        bias, number = bias if biased else None, weight.dtype
        if torch.is_grad_enabled():
            shared = Shared(weight, bias)
            return lambda x: shared(x.to(number))
        return lambda x: product(x.to(number), weight, bias)

    def over(self, x: Tensor, *, biased: bool = True) -> Tensor:
        """x (T, B, I) -> (T, B, O), in one product; in float32 at least."""
        found = self.begin(biased=biased)(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return found.to(torch.promote_types(x.dtype, torch.float32))


class Looped(Cell):
    """Base of the cells by equations.

    Recurrent matrices start orthogonal, gate by gate (Saxe 2014), input matrices Xavier-uniform, biases zero.
    """

    deepens = True
    gates: ClassVar[int] = 1
    """Blocks of H that x gives a step."""

    def __init__(
        self, input_size: int, hidden_size: int, *, gates: int | None = None, recurrent: Sequence[int] = ()
    ) -> None:
        """`recurrent`: blocks of H rows of each recurrent matrix; by default one with as many as there are gates."""
        super().__init__(input_size, hidden_size)
        blocks = self.gates if gates is None else gates
        self.input = Matrix(input_size, blocks * hidden_size, bias=True)
        self.recurrent = nn.ModuleList(Matrix(hidden_size, rows * hidden_size) for rows in (recurrent or (blocks,)))
        self.rates = (0.0,) * self.parts
        """Zoneout: the chance that a unit keeps its last value, for each part of the state (Krueger 2017)."""

    def reset_parameters(self) -> None:
        for matrix in self.modules():
            if isinstance(matrix, Matrix):
                if matrix.weight is not None:
                    nn.init.xavier_uniform_(matrix.weight)
                if matrix.bias is not None:
                    nn.init.zeros_(matrix.bias)
        matrices: Any = self.recurrent
        for matrix in matrices:
            for block in matrix.weight.data.split(self.hidden_size):
                nn.init.orthogonal_(block)

    def advance(self, given: Any, state: State, products: Sequence[Product]) -> State:
        """One step: what x gives (B, G), a state of (B, H), and the products that `begin` made -> the next state."""
        raise NotImplementedError

    def begin(self) -> list[Product]:
        """The products of all steps of one forward pass: with the recurrent matrices, in their order."""
        matrices: Any = self.recurrent
        return [matrix.begin(drop=self.weight_dropout if self.training else 0.0) for matrix in matrices]

    def given(self, x: Tensor | None) -> Tensor:
        """What x (T, B, D) gives to each step, (T, B, G); a cell without input gives its bias, (1, 1, G)."""
        if x is None:
            assert self.input.bias is not None
            return self.input.bias.view(1, 1, -1)
        return self.input.over(x)

    def forward(self, x: Tensor, state: State | None = None, *, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        number = torch.promote_types(x.dtype, torch.float32)
        start = tuple(part.to(number) for part in (zero_state(self, x) if state is None else state))
        parts = self.run(x.transpose(0, 1), start)
        if lengths is not None and bool((lengths != x.size(1)).any()):
            end = tuple(last_of(stacked(part), first, lengths) for part, first in zip(parts, start))
        else:
            end = tuple(part[-1] for part in parts)
        return stacked(parts[0]).transpose(0, 1).to(x.dtype), tuple(part.to(x.dtype) for part in end)

    def run(self, x: Tensor, start: State) -> Sequence[Sequence[Tensor] | Tensor]:
        """x (T, B, D), the state before -> each part of the state at all steps, T of (B, H)."""
        now, steps, products = start, [], self.begin()
        for step in self.given(x).to(start[0].dtype).unbind(0):
            new = self.advance(step, now, products)
            now = self._zoned(new, now) if any(self.rates) else new
            steps.append(now)
        return list(zip(*steps))

    def _zoned(self, new: State, old: State) -> State:
        """Each unit keeps its last value by chance; at prediction, the mean of what could be."""
        if not self.training:
            return tuple(torch.lerp(after, before, rate) for after, before, rate in zip(new, old, self.rates))
        return tuple(
            torch.where(torch.rand_like(after) < rate, before, after) if rate else after
            for after, before, rate in zip(new, old, self.rates)
        )


def stacked(steps: Sequence[Tensor] | Tensor) -> Tensor:
    """T of (B, H) -> (T, B, H)."""
    return steps if isinstance(steps, Tensor) else torch.stack(list(steps))


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = torch.sigmoid(2.0 * x).mul_(2.0).sub_(1.0)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(grad, y)


def squash(x: Tensor) -> Tensor:
    """tanh(x), the fast way where there is one (`products.tanh`)."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return x.tanh()
    return _Tanh.apply(x) if torch.is_grad_enabled() else tanh(x)
