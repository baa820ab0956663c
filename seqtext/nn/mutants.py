"""MUT1, MUT2 and MUT3: the three best cells of a search over ten thousand (Jozefowicz 2015, section 3.3).

All have a gate r on the state that the candidate sees and a gate z that is the share of the candidate:

    h' = tanh(U (r * h) + ...) * z + h * (1 - z)

Where the paper adds x itself, which asks for inputs of the size of the state, a matrix brings them to it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from seqtext.config import Config
from seqtext.nn.cell import State
from seqtext.nn.looped import Looped, Product, squash


class Mutant(Looped):
    """Base of the three: they differ in what the gates see. What x gives is z, r and the candidate, side by side."""

    gates = 3
    matrices: ClassVar[tuple[int, ...]]
    """Blocks of rows of the recurrent matrices, the candidate's last."""

    def __init__(self, input_size: int, hidden_size: int, options: Config | None = None) -> None:
        super().__init__(input_size, hidden_size, recurrent=self.matrices)
        self.reset_parameters()

    def gates_of(self, z: Tensor, r: Tensor, h: Tensor, products: Sequence[Product]) -> tuple[Tensor, Tensor]:
        """What x gives to both, the state and the products with it -> z and r before the sigmoid."""
        raise NotImplementedError

    def advance(self, given: Tensor, state: State, products: Sequence[Product]) -> State:
        (h,) = state
        z, r, new = given.chunk(3, dim=1)
        z, r = self.gates_of(z, r, h, products)
        new = squash(new + products[-1](r.sigmoid() * h))
        return (torch.lerp(h, new, z.sigmoid()),)


class MUT1(Mutant):
    """z = s(Wz x + bz), r = s(Wr x + Ur h + br), candidate tanh(U (r * h) + tanh(W x) + b)."""

    matrices = 1, 1

    def given(self, x: Tensor | None) -> Tensor:
        if x is None:
            return super().given(x)
        assert self.input.bias is not None
        gates, new = self.input.over(x, biased=False).split([2 * self.hidden_size, self.hidden_size], dim=2)
        return torch.cat([gates, squash(new)], dim=2) + self.input.bias

    def gates_of(self, z: Tensor, r: Tensor, h: Tensor, products: Sequence[Product]) -> tuple[Tensor, Tensor]:
        return z, r + products[0](h)


class MUT2(Mutant):
    """z = s(Wz x + Uz h + bz), r = s(W' x + Ur h + br), candidate tanh(U (r * h) + W x + b)."""

    matrices = 2, 1

    def gates_of(self, z: Tensor, r: Tensor, h: Tensor, products: Sequence[Product]) -> tuple[Tensor, Tensor]:
        kept = products[0](h).chunk(2, dim=1)
        return z + kept[0], r + kept[1]


class MUT3(Mutant):
    """z = s(Wz x + Uz tanh(h) + bz), r = s(Wr x + Ur h + br), candidate tanh(U (r * h) + W x + b)."""

    matrices = 1, 1, 1

    def gates_of(self, z: Tensor, r: Tensor, h: Tensor, products: Sequence[Product]) -> tuple[Tensor, Tensor]:
        return z + products[0](squash(h)), r + products[1](h)
