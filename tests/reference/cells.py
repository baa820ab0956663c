"""Every cell's equations, a step of one row at a time, written from their papers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from seqtext.nn.cells import State
from seqtext.nn.fused import Fused
from seqtext.nn.looped_cells import LoopedGRU

HIDDEN = 3


def zoned(new: State, old: State, *rates: float) -> State:
    """Krueger 2017 at prediction: the mean of the new and the old, by the chance of each."""
    return tuple((1 - rate) * after + rate * before for after, before, rate in zip(new, old, rates))


def textbook_rnn(
    cell: Any,
    x: Tensor,
    state: State,
    nonlinearity: str = "tanh",
    leak: float = 1.0,
    zoneout: float = 0.0,
    **same: object,
) -> State:
    """Elman 1990: h' = f(W x + b + U h + c); Jaeger 2007: only a share of it is new."""
    W, U, b, c = weights(cell)
    squash = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]
    return zoned(((1 - leak) * state[0] + leak * squash(W @ x + b + U @ state[0] + c),), state, zoneout)


def textbook_lstm(
    cell: Any,
    x: Tensor,
    state: State,
    peepholes: bool = False,
    coupled: bool = False,
    without: tuple[str, ...] = (),
    zoneout: float = 0.0,
    zoneout_memory: float = 0.0,
    **same: object,
) -> State:
    """Gers 2000: c' = f * c + i * g, h' = o * tanh(c'); where a bias starts changes no equation.

    Gers & Schmidhuber 2000: i and f see c, o sees c'. Greff 2017: a gate that is gone is 1; coupled, i is 1 - f.
    """
    W, U, b, c = weights(cell)
    names = [name for name in ("input", "forget", "memory", "output") if name not in without]
    if coupled:
        names.remove("input")
    parts = dict(zip(names, (W @ x + b + U @ state[0] + c).split(HIDDEN)))

    def gate(name: str, memory: Tensor) -> Tensor:
        if name not in parts:
            return torch.ones_like(memory)
        return (parts[name] + (cell.peepholes[name] * memory if peepholes else 0.0)).sigmoid()

    f = gate("forget", state[1])
    i = 1 - f if coupled else gate("input", state[1])
    memory = f * state[1] + i * parts["memory"].tanh()
    return zoned((gate("output", memory) * memory.tanh(), memory), state, zoneout, zoneout_memory)


def textbook_gru(cell: Any, x: Tensor, state: State, zoneout: float = 0.0, **same: object) -> State:
    """Cho 2014, with the reset gate after the product: n = tanh(Wx + b + r * (Uh + c)), h' = (1 - z) * n + z * h."""
    W, U, b, c = weights(cell)
    (xr, xz, xn), (hr, hz, hn) = (W @ x + b).split(HIDDEN), (U @ state[0] + c).split(HIDDEN)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    return zoned(((1 - z) * (xn + r * hn).tanh() + z * state[0],), state, zoneout)


def textbook_mut1(cell: Any, x: Tensor, state: State) -> State:
    """Jozefowicz 2015, section 3.3; x as a matrix brings it to the size of the state."""
    (Wz, Wr, Wn), (bz, br, bn), (h,) = cell.input.weight.split(HIDDEN), cell.input.bias.split(HIDDEN), state
    Ur, Un = (matrix.weight for matrix in cell.recurrent)
    z, r = (Wz @ x + bz).sigmoid(), (Wr @ x + Ur @ h + br).sigmoid()
    return ((Un @ (r * h) + (Wn @ x).tanh() + bn).tanh() * z + h * (1 - z),)


def textbook_mut2(cell: Any, x: Tensor, state: State) -> State:
    (Wz, Wr, Wn), (bz, br, bn), (h,) = cell.input.weight.split(HIDDEN), cell.input.bias.split(HIDDEN), state
    (Uz, Ur), Un = cell.recurrent[0].weight.split(HIDDEN), cell.recurrent[1].weight
    z, r = (Wz @ x + Uz @ h + bz).sigmoid(), (Wr @ x + Ur @ h + br).sigmoid()
    return ((Un @ (r * h) + Wn @ x + bn).tanh() * z + h * (1 - z),)


def textbook_mut3(cell: Any, x: Tensor, state: State) -> State:
    (Wz, Wr, Wn), (bz, br, bn), (h,) = cell.input.weight.split(HIDDEN), cell.input.bias.split(HIDDEN), state
    Uz, Ur, Un = (matrix.weight for matrix in cell.recurrent)
    z, r = (Wz @ x + Uz @ h.tanh() + bz).sigmoid(), (Wr @ x + Ur @ h + br).sigmoid()
    return ((Un @ (r * h) + Wn @ x + bn).tanh() * z + h * (1 - z),)


def norm(x: Tensor) -> Tensor:
    """Ba 2016, eq. 3, with the usual small number under the root."""
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()


def textbook_lnlstm(cell: Any, x: Tensor, state: State, forget_bias: float = 1.0) -> State:
    """Ba 2016, eq. 20-22."""
    given = norm(cell.input.weight @ x) * cell.input_gain + cell.input.bias
    i, f, g, o = (given + norm(cell.recurrent[0].weight @ state[0]) * cell.gain).split(HIDDEN)
    memory = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * (norm(memory) * cell.memory_gain + cell.memory_bias).tanh(), memory


def textbook_lngru(cell: Any, x: Tensor, state: State) -> State:
    """Ba 2016, eq. 23-25."""
    (h,), both = state, 2 * HIDDEN
    given, kept = cell.input.weight @ x, cell.recurrent[0].weight @ h
    gates = norm(given[:both]) * cell.input_gain[:both] + cell.input.bias[:both]
    z, r = (gates + norm(kept[:both]) * cell.gain[:both]).sigmoid().split(HIDDEN)
    new = norm(given[both:]) * cell.input_gain[both:] + cell.input.bias[both:]
    new = (new + r * (norm(kept[both:]) * cell.gain[both:] + cell.recurrent_bias)).tanh()
    return ((1 - z) * h + z * new,)


def textbook_mogrifier(cell: Any, x: Tensor, state: State, rounds: int = 5, forget_bias: float = 1.0) -> State:
    """Melis 2020, eq. 1-2, then an LSTM."""
    h, memory = state
    for number, matrix in enumerate(cell.rounds, start=1):
        if number % 2:
            x = 2 * (matrix.weight @ h).sigmoid() * x
        else:
            h = 2 * (matrix.weight @ x).sigmoid() * h
    assert len(cell.rounds) == rounds
    i, f, g, o = (cell.input.weight @ x + cell.input.bias + cell.recurrent[0].weight @ h).split(HIDDEN)
    memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
    return o.sigmoid() * memory.tanh(), memory


def textbook_clockwork(cell: Any, x: Tensor, state: State, periods: tuple[int, ...] = (1, 2, 4)) -> State:
    """Koutnik 2014, group by group: each moves at its period and hears those of its own and of longer ones."""
    h, clock = state
    new, after = h.clone(), (clock + 1) % torch.tensor(periods).repeat_interleave(HIDDEN // len(periods))
    size = HIDDEN // len(periods)
    for group in range(len(periods)):
        own = slice(group * size, (group + 1) * size)
        heard = cell.recurrent[0].weight[own, own.start :] @ h[own.start :]
        if clock[own.start] == 0:
            new[own] = (cell.input.weight[own] @ x + heard + cell.input.bias[own]).tanh()
    return new, after


def textbook_mingru(cell: Any, x: Tensor, state: State) -> State:
    """Feng 2024, section 3.1.3."""
    z, new = (cell.input.weight @ x + cell.input.bias).split(HIDDEN)
    return ((1 - z.sigmoid()) * state[0] + z.sigmoid() * new,)


def textbook_minlstm(cell: Any, x: Tensor, state: State, forget_bias: float = 0.0) -> State:
    """Feng 2024, section 3.2.4."""
    f, i, new = (cell.input.weight @ x + cell.input.bias).split(HIDDEN)
    f, i = f.sigmoid(), i.sigmoid()
    return (f / (f + i) * state[0] + i / (f + i) * new,)


def textbook_sru(cell: Any, x: Tensor, state: State) -> State:
    """Lei 2018, first version, eq. 3-7: what h was is not read again."""
    given, (bf, br) = (cell.input.weight @ x).split(HIDDEN), cell.bias.split(HIDDEN)
    f, r = (given[0] + bf).sigmoid(), (given[1] + br).sigmoid()
    memory = f * state[1] + (1 - f) * given[2]
    return r * memory.tanh() + (1 - r) * (given[3] if len(given) == 4 else x), memory


TEXTBOOK: dict[str, Callable[..., State]] = {
    name.removeprefix("textbook_"): step for name, step in globals().items() if name.startswith("textbook_")
}
"""One step of one row, (D,) and (H,), with the options of the cell."""


def weights(cell: Any) -> list[Tensor]:
    """W, U and the biases that are added to either product."""
    if isinstance(cell, Fused):
        return [getattr(cell.kernel, name) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]
    recurrent, bias = cell.recurrent[0].weight, cell.input.bias
    none = bias.new_zeros(len(recurrent))
    if isinstance(cell, LoopedGRU):
        none = torch.cat([none[: 2 * HIDDEN], cell.bias])
    return [cell.input.weight, recurrent, bias, none]
