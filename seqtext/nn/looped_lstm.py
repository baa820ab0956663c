"""The LSTM's loop with its gradient by hand, for its variants: peepholes, coupled gates, gates left out.

    i, f = s(V x + U h + p c)    g = tanh(V x + U h)    c' = f c + i g    o = s(V x + U h + p c')    h' = o tanh(c')

Autograd would note thirty operations a step. Here a step is a dozen, and what does not wait for the step before
is computed for all steps at once: before the loop what x gives, after it the gradients of U and p.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqtext.nn.products import product, repeated


class Blocks(NamedTuple):
    """Where each gate stands among the blocks of H rows that are computed, -1 where it does not. The output is last."""

    input: int
    forget: int
    memory: int
    output: int

    @property
    def coupled(self) -> bool:
        """Set apart by `named`: the input gate is 1 - the forget gate."""
        return self.input == COUPLED


COUPLED = -2


def named(blocks: list[str], *, coupled: bool) -> Blocks:
    """The places of the gates of that name."""
    places = {name: blocks.index(name) if name in blocks else -1 for name in Blocks._fields}
    return Blocks(**places | ({"input": COUPLED} if coupled else {}))


def looped_lstm(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    w_ih: Tensor,
    bias: Tensor,
    w_hh: Tensor,
    peepholes: Tensor | None,
    blocks: Blocks,
) -> tuple[Tensor, Tensor]:
    """x (T, B, D), h and c (B, H), V (n H, D), b (n H,), U (n H, H), p (n, H) with 0 where a block has none.

    Returns all states and all memories (T, B, H), in the number format of h. Products are in that of x and the weights.
    """
    return _LSTM.apply(x, h, c, w_ih, bias, w_hh, peepholes, blocks)


def _tanh(x: Tensor) -> Tensor:
    """In place; see `products.tanh`."""
    if x.dtype == torch.float32 and x.device.type == "cpu":
        return x.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
    return x.tanh_()


def _sigmoid_backward(grad: Tensor, y: Tensor, out: Tensor) -> None:
    torch.ops.aten.sigmoid_backward.grad_input(grad, y, grad_input=out)


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        h: Tensor,
        c: Tensor,
        w_ih: Tensor,
        bias: Tensor,
        weight: Tensor,
        peepholes: Tensor | None,
        at: Blocks,
    ) -> tuple[Tensor, Tensor]:
        (steps, batch, _), size = x.shape, weight.size(1)
        gates = product(x.flatten(0, 1), w_ih, bias).to(h.dtype).view(steps, batch, -1, size)
        cells, states = (h.new_empty(steps + 1, batch, size) for _ in range(2))
        cells[0], states[0] = c, h
        squashed = torch.empty_like(cells[1:])  # tanh(c_t)
        times = repeated(weight, batch, steps)
        early = at.memory  # blocks before it see c, those after it c'
        for t in range(steps):
            gate, before, after = gates[t], cells[t], cells[t + 1]
            gate.view(batch, -1).add_(times(states[t].to(weight.dtype)))
            if peepholes is not None and early:
                gate[:, :early].addcmul_(before.unsqueeze(1), peepholes[:early])
            if peepholes is None and at.output >= 0:
                gate[:, at.output].sigmoid_()
            if early:
                gate[:, :early].sigmoid_()
            new = _tanh(gate[:, at.memory])
            if at.forget < 0:
                after.copy_(before)
            else:
                torch.mul(gate[:, at.forget], before, out=after)
            if at.coupled:
                after.add_(new).addcmul_(gate[:, at.forget], new, value=-1.0)
            elif at.input < 0:
                after.add_(new)
            else:
                after.addcmul_(gate[:, at.input], new)
            _tanh(squashed[t].copy_(after))
            if at.output < 0:
                states[t + 1] = squashed[t]
                continue
            out = gate[:, at.output]
            if peepholes is not None:
                out.addcmul_(after, peepholes[at.output]).sigmoid_()
            torch.mul(out, squashed[t], out=states[t + 1])
        ctx.save_for_backward(x, w_ih, weight, peepholes, gates, cells, states, squashed)
        ctx.at = at
        return states[1:], cells[1:]

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor, grad_cells: Tensor) -> Any:  # type: ignore[override]
        x, w_ih, weight, peepholes, gates, cells, states, squashed = ctx.saved_tensors
        at, (steps, batch, blocks, _) = ctx.at, gates.shape
        before, after = cells[:-1], cells[1:]
        factors = torch.empty_like(gates)  # gradients of what each block is computed from
        grad_h, grad_c = torch.zeros_like(cells[0]), torch.zeros_like(cells[0])
        one, work = torch.ones_like(grad_c), torch.empty_like(grad_c)
        times = repeated(weight.t().contiguous(), batch, steps)
        for t in reversed(range(steps)):  # step by step: what it works on then stays in the processor's cache
            gate, grad = gates[t], factors[t]
            grad_h = grad_h + grad_states[t]
            grad_c.add_(grad_cells[t])
            torch.mul(squashed[t], squashed[t], out=work)
            torch.sub(one, work, out=work).mul_(grad_h)
            if at.output >= 0:
                out = gate[:, at.output]
                grad_c.addcmul_(work, out)
                _sigmoid_backward(torch.mul(grad_h, squashed[t], out=work), out, grad[:, at.output])
                if peepholes is not None:
                    grad_c.addcmul_(grad[:, at.output], peepholes[at.output])
            else:
                grad_c.add_(work)
            new, f = gate[:, at.memory], gate[:, at.forget]
            if at.input >= 0:
                _sigmoid_backward(torch.mul(grad_c, new, out=work), gate[:, at.input], grad[:, at.input])
            if at.coupled:
                torch.addcmul(grad_c, grad_c, f, value=-1.0, out=work)
            elif at.input >= 0:
                torch.mul(grad_c, gate[:, at.input], out=work)
            torch.ops.aten.tanh_backward.grad_input(
                grad_c if at.input == -1 else work, new, grad_input=grad[:, at.memory]
            )
            if at.forget >= 0:
                seen = torch.sub(before[t], new, out=work) if at.coupled else before[t]
                _sigmoid_backward(torch.mul(grad_c, seen, out=work), f, grad[:, at.forget])
                grad_c.mul_(f)
            if peepholes is not None:
                for place in (at.input, at.forget):
                    if place >= 0:
                        grad_c.addcmul_(grad[:, place], peepholes[place])
            grad_h = times(grad.view(batch, -1).to(weight.dtype)).to(grad_c.dtype)
        flat = factors.view(steps * batch, -1).to(weight.dtype)
        grad_weight = product(flat.t(), states[:-1].flatten(0, 1).to(weight.dtype).t())
        grad_x = product(flat, w_ih.t()).view(x.shape) if ctx.needs_input_grad[0] else None
        grad_w, grad_bias = product(flat.t(), x.flatten(0, 1).t()), flat.sum(0)
        grad_peepholes = None
        if peepholes is not None:
            seen = [after if place == at.output else before for place in range(blocks)]
            grad_peepholes = torch.stack([(factors[:, :, k] * seen[k]).sum((0, 1)) for k in range(blocks)])
        return grad_x, grad_h, grad_c, grad_w, grad_bias, grad_weight, grad_peepholes, None
