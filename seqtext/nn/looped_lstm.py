"""The LSTM's loop with its gradient by hand, for its variants: peepholes, coupled gates, gates left out.

    i, f = s(V x + U h + p c)    g = tanh(V x + U h)    c' = f c + i g    o = s(V x + U h + p c')    h' = o tanh(c')

Autograd would note thirty operations a step. Here what does not wait for the step before is computed for all steps at
once: before the loop what x gives, after it the gradients' factors and those of U and p.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from seqtext.nn.products import product


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
    given: Tensor, h: Tensor, c: Tensor, weight: Tensor, peepholes: Tensor | None, blocks: Blocks
) -> tuple[Tensor, Tensor]:
    """given (T, B, n H), h and c (B, H), weight (n H, H), peepholes (n, H), 0 where a block has none.

    Returns all states and all memories (T, B, H). Products are in the number format of `weight`.
    """
    return _LSTM.apply(given, h, c, weight, peepholes, blocks)


def _tanh(x: Tensor) -> Tensor:
    """In place; see `products.tanh`."""
    if x.dtype == torch.float32 and x.device.type == "cpu":
        return x.mul_(2.0).sigmoid_().mul_(2.0).sub_(1.0)
    return x.tanh_()


class _LSTM(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, given: Tensor, h: Tensor, c: Tensor, weight: Tensor, peepholes: Tensor | None, at: Blocks
    ) -> tuple[Tensor, Tensor]:
        (steps, batch, _), size = given.shape, weight.size(1)
        gates = torch.empty_like(given, memory_format=torch.contiguous_format).view(steps, batch, -1, size)
        cells, states = (given.new_empty(steps + 1, batch, size) for _ in range(2))
        cells[0], states[0] = c, h
        squashed = torch.empty_like(cells[1:])  # tanh(c_t)
        early = at.memory  # blocks before it see c, those after it c'
        for t in range(steps):
            torch.add(given[t], product(states[t].to(weight.dtype), weight), out=gates[t].view(batch, -1))
            gate, before, after = gates[t], cells[t], cells[t + 1]
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
        ctx.save_for_backward(weight, peepholes, gates, cells, states, squashed)
        ctx.at = at
        return states[1:], cells[1:]

    @staticmethod
    def backward(ctx: Any, grad_states: Tensor, grad_cells: Tensor) -> Any:  # type: ignore[override]
        weight, peepholes, gates, cells, states, squashed = ctx.saved_tensors
        at, (steps, batch, blocks, _) = ctx.at, gates.shape
        before, after = cells[:-1], cells[1:]
        # What each block's gradient is of that of the memory, or of the state for the output gate, for all steps.
        factors = torch.empty_like(gates)
        new = gates[:, :, at.memory]
        f = gates[:, :, at.forget] if at.forget >= 0 else None
        i = 1.0 - f if f is not None and at.coupled else gates[:, :, at.input] if at.input >= 0 else None
        torch.sub(1.0, new * new, out=factors[:, :, at.memory])
        if i is not None:
            factors[:, :, at.memory] *= i
        if at.input >= 0:
            assert i is not None
            torch.mul(new, i * (1.0 - i), out=factors[:, :, at.input])
        if f is not None:
            torch.mul(before - new if at.coupled else before, f * (1.0 - f), out=factors[:, :, at.forget])
        into = 1.0 - squashed * squashed  # from a state to its memory
        if at.output >= 0:
            out = gates[:, :, at.output]
            torch.mul(squashed, out * (1.0 - out), out=factors[:, :, at.output])
            into *= out
            if peepholes is not None:
                into += factors[:, :, at.output] * peepholes[at.output]
        kept = f  # from a memory to the one before
        if peepholes is not None:
            for place in {at.input, at.forget} & set(range(blocks)):
                seen = factors[:, :, place] * peepholes[place]
                kept = seen + (1.0 if kept is None else kept)
        grad_h, grad_c = torch.zeros_like(cells[0]), torch.zeros_like(cells[0])
        turned = weight.t().contiguous()
        last = blocks if at.output < 0 else at.output
        for t in reversed(range(steps)):
            grad_h = grad_h + grad_states[t]
            grad_c.add_(grad_cells[t]).addcmul_(grad_h, into[t])
            gate = factors[t]
            gate[:, :last] *= grad_c.unsqueeze(1)
            if last < blocks:
                gate[:, last] *= grad_h
            if kept is not None:
                grad_c.mul_(kept[t])
            grad_h = product(gate.view(batch, -1).to(weight.dtype), turned).to(grad_c.dtype)
        flat = factors.view(steps * batch, -1).to(weight.dtype)
        grad_weight = product(flat.t(), states[:-1].flatten(0, 1).to(weight.dtype).t())
        grad_peepholes = None
        if peepholes is not None:
            seen = [after if place == at.output else before for place in range(blocks)]
            grad_peepholes = torch.stack([(factors[:, :, k] * seen[k]).sum((0, 1)) for k in range(blocks)])
        return factors.view(steps, batch, -1), grad_h, grad_c, grad_weight, grad_peepholes, None
