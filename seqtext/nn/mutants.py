"""MUT1, MUT2 and MUT3: the three best cells of a search over ten thousand (Jozefowicz 2015, section 3.3).

All have a gate r on the state that the candidate sees and a gate z that is the share of the candidate:

    h' = tanh(U (r * h) + ...) * z + h * (1 - z)

Where the paper adds x itself, which asks for inputs of the size of the state, a matrix brings them to it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from seqtext.config import Config
from seqtext.nn.cell import State
from seqtext.nn.looped import Looped, sigmoid_back, squash, tanh_back
from seqtext.nn.matrix import Product


class Mutant(Looped):
    """Base of the three: they differ in what the gates see. What x gives is z, r and the candidate, side by side."""

    gates = 3
    matrices: ClassVar[tuple[int, ...]]
    """Blocks of rows of the recurrent matrices, the candidate's last."""

    def __init__(self, input_size: int, hidden_size: int, options: Config | None = None) -> None:
        super().__init__(input_size, hidden_size, recurrent=self.matrices)
        self.reset_parameters()

    def gates_of(self, given: Tensor, h: Tensor, products: Sequence[Product]) -> tuple[Tensor, Any]:
        """What x gives to z and r (B, 2 H), the state -> both before the sigmoid; what `gates_back` needs to know."""
        raise NotImplementedError

    def gates_back(self, grad: Tensor, h: Tensor, kept: Any, products: Sequence[Product]) -> Tensor:
        """The gradient of the state from that of what `gates_of` gave."""
        raise NotImplementedError

    def advance(self, given: Tensor, state: State, uses: Sequence[Any]) -> tuple[State, Any]:
        (h,), size = state, 2 * self.hidden_size
        gates, kept = self.gates_of(given[:, :size], h, uses)
        gates = gates.sigmoid()
        z, r = gates.chunk(2, dim=1)
        let = r * h
        new = squash(given[:, size:] + uses[-1](let))
        return (torch.lerp(h, new, z),), (h, gates, let, new, kept)

    def retreat(self, grads: State, kept: Any, uses: Sequence[Any]) -> tuple[Tensor, State]:
        (grad,), (h, gates, let, new, noted) = grads, kept
        z, r = gates.chunk(2, dim=1)
        of_update = grad * z
        of_new = tanh_back(of_update, new)
        of_let = uses[-1].backward(let, of_new)
        of_gates = sigmoid_back(torch.cat([grad * (new - h), of_let * h], dim=1), gates)
        of_h = torch.addcmul(grad - of_update, of_let, r).add_(self.gates_back(of_gates, h, noted, uses))
        return torch.cat([of_gates, of_new], dim=1), (of_h,)


class MUT1(Mutant):
    """z = s(Wz x + bz), r = s(Wr x + Ur h + br), candidate tanh(U (r * h) + tanh(W x) + b)."""

    matrices = 1, 1

    def given(self, x: Tensor | None) -> Tensor:
        if x is None:
            return super().given(x)
        assert self.input.bias is not None
        gates, new = self.input.over(x, biased=False).split([2 * self.hidden_size, self.hidden_size], dim=2)
        return torch.cat([gates, squash(new)], dim=2) + self.input.bias

    def gates_of(self, given: Tensor, h: Tensor, products: Sequence[Product]) -> tuple[Tensor, Any]:
        z, r = given.chunk(2, dim=1)
        return torch.cat([z, r + products[0](h)], dim=1), None

    def gates_back(self, grad: Tensor, h: Tensor, kept: Any, products: Sequence[Product]) -> Tensor:
        return products[0].backward(h, grad[:, self.hidden_size :])


class MUT2(Mutant):
    """z = s(Wz x + Uz h + bz), r = s(W' x + Ur h + br), candidate tanh(U (r * h) + W x + b)."""

    matrices = 2, 1

    def gates_of(self, given: Tensor, h: Tensor, products: Sequence[Product]) -> tuple[Tensor, Any]:
        return given + products[0](h), None

    def gates_back(self, grad: Tensor, h: Tensor, kept: Any, products: Sequence[Product]) -> Tensor:
        return products[0].backward(h, grad)


class MUT3(Mutant):
    """z = s(Wz x + Uz tanh(h) + bz), r = s(Wr x + Ur h + br), candidate tanh(U (r * h) + W x + b)."""

    matrices = 1, 1, 1

    def gates_of(self, given: Tensor, h: Tensor, products: Sequence[Product]) -> tuple[Tensor, Any]:
        squashed = squash(h)
        return given + torch.cat([products[0](squashed), products[1](h)], dim=1), squashed

    def gates_back(self, grad: Tensor, h: Tensor, kept: Any, products: Sequence[Product]) -> Tensor:
        of_z, of_r = grad.chunk(2, dim=1)
        return tanh_back(products[0].backward(kept, of_z), kept) + products[1].backward(h, of_r)
