"""Cells by their equations: what x gives to all steps is one product, and the rest is a loop over the steps.

A cell says what a step does, `advance`, and what its gradient is, `retreat`; the loop is one function to autograd,
which otherwise would note a dozen operations a step and take as long over its notes as over the sums. Gradients of
recurrent weights are gathered over the steps and made once (`shared.Shared`). Gates and states are float32 where
products are in fewer bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from seqtext.nn import graphs
from seqtext.nn.cell import Cell, State, last_of, zero_state
from seqtext.nn.matrix import Matrix
from seqtext.nn.products import tanh
from seqtext.nn.shared import ends


class Stepped(Cell):
    """Base of the cells that a loop over the steps computes."""

    rates: tuple[float, ...] = ()
    """Zoneout: the chance that a unit keeps its last value, for each part of the state (Krueger 2017)."""

    def advance(self, given: Tensor, state: State, uses: Sequence[Any]) -> tuple[State, Any]:
        """One step: what x gives (B, G), a state of (B, H), and the weights that `begin` made -> the next state.

        With it what `retreat` needs to know. Of operations that autograd knows too, none of them in place.
        """
        raise NotImplementedError

    def retreat(self, grads: State, kept: Any, uses: Sequence[Any]) -> tuple[Tensor, State]:
        """The gradient of a step: that of the state after it -> that of what x gave, and of the state before.

        Those of the weights are gathered in `uses`.
        """
        raise NotImplementedError

    def begin(self) -> list[Any]:
        """The weights as all steps of one forward pass use them."""
        raise NotImplementedError

    def given(self, x: Tensor | None) -> Tensor:
        """What x (T, B, D) gives to each step, (T, B, G); a cell without input gives its bias, (1, 1, G)."""
        raise NotImplementedError

    def tokens(self, uses: Sequence[Any]) -> list[Tensor]:
        """Those by which autograd knows that a pass depends on the weights."""
        return [use.token for use in uses]

    def loop(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """What `forward` gives, step by step."""
        number = torch.promote_types(x.dtype, torch.float32)
        start = tuple(part.to(number) for part in (zero_state(self, x) if state is None else state))
        turned = x.transpose(0, 1)
        if len(turned) > 1 and graphs.wanted(x):
            time, rows = map(graphs.room, turned.shape[:2])
            shapes = [(time, rows, x.size(2)), *((rows, part.size(1)) for part in start)]
            parts = [
                part[: len(turned), : len(x)] for part in graphs.run(self, self._recorded, (turned, *start), shapes)
            ]
            return self.ended(parts, start, x, lengths)
        return self.ended(self.parts_of(turned, start), start, x, lengths)

    def ended(
        self, parts: Sequence[Sequence[Tensor] | Tensor], start: State, x: Tensor, lengths: Tensor | None
    ) -> tuple[Tensor, State]:
        """Each part of the state at all steps, (T, B, H), and the state before -> what `forward` gives for x."""
        if lengths is not None and bool((lengths != x.size(1)).any()):
            end = tuple(last_of(_stacked(part), first, lengths) for part, first in zip(parts, start))
        else:
            end = tuple(part[-1] for part in parts)
        return _stacked(parts[0]).transpose(0, 1).to(x.dtype), tuple(part.to(x.dtype) for part in end)

    def parts_of(self, x: Tensor, start: State) -> Sequence[Sequence[Tensor] | Tensor]:
        """x (T, B, D), the state before -> each part of the state at all steps, T of (B, H)."""
        uses, given = self.begin(), self.given(x).to(start[0].dtype)
        if torch.is_grad_enabled():
            return _Loop.apply(self, uses, given, *start, *self.tokens(uses))
        now, steps = start, []
        for step in given.unbind(0):
            now, _ = self.stepped(step, now, uses)
            steps.append(now)
        return list(zip(*steps))

    def _recorded(self, x: Tensor, *start: Tensor) -> list[Tensor]:
        """`parts_of`, each part as one tensor (T, B, H)."""
        return [_stacked(part) for part in self.parts_of(x, start)]

    def stepped(self, given: Tensor, old: State, uses: Sequence[Any]) -> tuple[State, Any]:
        """`advance` and zoneout: each unit keeps its last value by chance; at prediction, the mean of what could be."""
        new, kept = self.advance(given, old, uses)
        if not any(self.rates):
            return new, (kept, ())
        shares: list[Any] = list(self.rates)  # of the old value
        if self.training:
            shares = [torch.rand_like(after).lt(rate).to(after.dtype) for after, rate in zip(new, self.rates)]
        return tuple(torch.lerp(after, before, share) for after, before, share in zip(new, old, shares)), (kept, shares)

    def unstepped(self, grads: State, noted: Any, uses: Sequence[Any]) -> tuple[Tensor, State]:
        """`retreat` from what `stepped` gave."""
        kept, shares = noted
        held = [grad * share for grad, share in zip(grads, shares)]
        grads = tuple(grad - each for grad, each in zip(grads, held)) if held else grads
        of_given, before = self.retreat(grads, kept, uses)
        return of_given, tuple(grad + each for grad, each in zip(before, held)) if held else before


class Looped(Stepped):
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

    def begin(self) -> list[Any]:
        """Recurrent matrices in their order, and other weights after them."""
        matrices: Any = self.recurrent
        return [matrix.begin(drop=self.weight_dropout if self.training else 0.0) for matrix in matrices]

    def given(self, x: Tensor | None) -> Tensor:
        if x is None:
            assert self.input.bias is not None
            return self.input.bias.view(1, 1, -1)
        return self.input.over(x)

    def forward(self, x: Tensor, state: State | None = None, *, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        return self.loop(x, state, lengths)


def _stacked(steps: Sequence[Tensor] | Tensor) -> Tensor:
    """T of (B, H) -> (T, B, H)."""
    return steps if isinstance(steps, Tensor) else torch.stack(list(steps))


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, cell: Looped, uses: Sequence[Any], given: Tensor, *rest: Tensor) -> tuple[Tensor, ...]:
        """What x gives (T, B, G), the parts of the state before, the tokens -> the parts at all steps, (T, B, H)."""
        now: State = rest[: cell.parts]
        ctx.cell, ctx.uses, ctx.noted, ctx.tokens = cell, uses, [], rest[cell.parts :]
        ctx.set_materialize_grads(False)
        steps = []
        for step in given.unbind(0):
            now, noted = cell.stepped(step, now, uses)
            steps.append(now)
            ctx.noted.append(noted)
        return tuple(torch.stack(part) for part in zip(*steps))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # type: ignore[override]
        cell, steps = ctx.cell, len(ctx.noted)
        if not steps:
            raise RuntimeError("a second gradient of one pass: ask for the first with retain_graph=True")
        like = next(grad for grad in grads if grad is not None)
        now = tuple(torch.zeros_like(like[0]) for _ in grads)
        of_given: list[Tensor] = []
        for t in reversed(range(steps)):
            now = tuple(one if grad is None else one + grad[t] for one, grad in zip(now, grads))
            each, now = cell.unstepped(now, ctx.noted[t], ctx.uses)
            of_given.append(each)
        if ends():
            ctx.noted.clear()  # as autograd does with what it has saved: the graph may live on with the loss
        return None, None, torch.stack(of_given[::-1]), *now, *(token.new_empty(0) for token in ctx.tokens)


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = tanh(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        return tanh_back(grad, y)


def squash(x: Tensor) -> Tensor:
    """tanh(x), the fast way where there is one (`products.tanh`)."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return x.tanh()
    return _Tanh.apply(x) if torch.is_grad_enabled() else tanh(x)


def sigmoid_back(grad: Tensor, y: Tensor) -> Tensor:
    """The gradient of x from that of y = sigmoid(x)."""
    return torch.ops.aten.sigmoid_backward.default(grad, y)


def tanh_back(grad: Tensor, y: Tensor) -> Tensor:
    """The gradient of x from that of y = tanh(x)."""
    return torch.ops.aten.tanh_backward.default(grad, y)


def remembered(sums: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Any]:
    """The memory of an LSTM: sums (B, 4 H) of i, f, g, o, memory (B, H) -> s(o), s(f) c + s(i) tanh(g).

    With them what `remembered_back` needs to know.
    """
    size = c.size(1)
    into, new, o = sums.split([2 * size, size, size], dim=1)
    into, new, o = into.sigmoid(), squash(new), o.sigmoid()
    i, f = into.chunk(2, dim=1)
    return o, torch.addcmul(f * c, i, new), (into, new, o, c)


def remembered_back(of_o: Tensor, of_c: Tensor, kept: Any) -> tuple[Tensor, Tensor]:
    """The gradients of the sums (B, 4 H) and of the memory before, from those of s(o) and of the memory after."""
    into, new, o, c = kept
    i, f = into.chunk(2, dim=1)
    of_into = sigmoid_back(torch.cat([of_c * new, of_c * c], dim=1), into)
    return torch.cat([of_into, tanh_back(of_c * i, new), sigmoid_back(of_o, o)], dim=1), of_c * f
