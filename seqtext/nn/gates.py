"""What the gates of a cell say at a step: a function for each cell that tells them, by the cell's name in `CELLS`.

    GATES[name](cell, x (B, D), state of (B, H)) -> {gate: (B, H)}

in the order that the equations of the cell use them, each value between 0 and 1 but for the candidate, which is what
there is to write. A cell without gates has an empty dictionary; one that is not here does not tell. `tells` says
whether a cell does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from seqtext.nn.cells import Cell, State


def no_gates(cell: Cell, x: Tensor, state: State) -> dict[str, Tensor]:
    return {}


def lstm_gates(cell: Any, x: Tensor, state: State) -> dict[str, Tensor]:
    """Gers 2000: c' = forget * c + input * candidate, h' = output * tanh(c')."""
    given, kept = cell._products(x, state[0])
    i, f, g, o = (given + kept).float().chunk(4, dim=1)
    return {"input": i.sigmoid(), "forget": f.sigmoid(), "candidate": g.tanh(), "output": o.sigmoid()}


def gru_gates(cell: Any, x: Tensor, state: State) -> dict[str, Tensor]:
    """Cho 2014: h' = (1 - update) * candidate + update * h; the reset gate lets h into the candidate."""
    (xr, xz, xn), (hr, hz, hn) = (part.float().chunk(3, dim=1) for part in cell._products(x, state[0]))
    reset = (xr + hr).sigmoid()
    return {"reset": reset, "update": (xz + hz).sigmoid(), "candidate": (xn + reset * hn).tanh()}


GATES: dict[str, Callable[[Cell, Tensor, State], dict[str, Tensor]]] = {
    "rnn": no_gates,
    "lstm": lstm_gates,
    "gru": gru_gates,
}


def tells(name: str, cell: Cell) -> bool:
    """Whether `GATES[name]` can tell the gates of this cell, which may have options that change its equations."""
    return name in GATES and (GATES[name] is no_gates or hasattr(cell, "kernel"))
