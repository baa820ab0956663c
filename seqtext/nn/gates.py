"""What the gates of a cell say at a step: a function for each cell that tells them, by the cell's name in `CELLS`.

    GATES[name](cell, x (B, D), state of (B, H)) -> {gate: (B, H)}

each value between 0 and 1 but for the candidate, which is what there is to write. A cell without gates has an empty
dictionary. `gates_at` is the same for cells that are made of others. `x` is None for a transition that reads none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from seqtext.nn.cell import State
from seqtext.nn.deep import Deep, Dilated
from seqtext.nn.normed_cells import normalised


def no_gates(cell: Any, x: Tensor, state: State) -> dict[str, Tensor]:
    return {}


def lstm_gates(cell: Any, x: Tensor, state: State) -> dict[str, Tensor]:
    """Gers 2000: c' = forget * c + input * candidate, h' = output * tanh(c'). A gate that was left out is not there."""
    if hasattr(cell, "kernel"):
        given, kept = cell._products(x, state[0])
        return _four((given + kept).float())
    values = dict(zip(cell.blocks, (_given(cell, x) + cell.begin()[0](state[0])).chunk(len(cell.blocks), dim=1)))

    def gate(name: str, memory: Tensor) -> Tensor:
        seen = cell.peepholes[name] * memory if name in cell.peepholes else 0.0
        return (values[name] + seen).sigmoid()

    found = {name: gate(name, state[1]) for name in ("input", "forget") if name in values}
    if cell.options.coupled:
        found["input"] = 1.0 - found["forget"]
    found["candidate"] = values["memory"].tanh()
    if "output" in values:
        memory = found.get("forget", 1.0) * state[1] + found.get("input", 1.0) * found["candidate"]
        found["output"] = gate("output", memory)
    return found


def normed_lstm_gates(cell: Any, x: Tensor, state: State) -> dict[str, Tensor]:
    """Ba 2016: c' as in `lstm_gates`, h' = output * tanh(LN(c'))."""
    return _four(_given(cell, x) + normalised(cell.begin()[0](state[0]), cell.gain))


def mogrifier_gates(cell: Any, x: Tensor, state: State) -> dict[str, Tensor]:
    """Melis 2020: those of an LSTM, of the x and the h that have gated each other."""
    from_h, from_x, *rounds = cell.begin()
    x, h, _ = cell.mogrified(x, state[0], rounds)
    return _four(from_x(x) + from_h(h))


def gru_gates(cell: Any, x: Tensor, state: State) -> dict[str, Tensor]:
    """Cho 2014: h' = (1 - update) * candidate + update * h; the reset gate lets h into the candidate."""
    if hasattr(cell, "kernel"):
        given, kept = cell._products(x, state[0])
    else:
        given, kept = _given(cell, x), cell.begin()[0](state[0])
    (xr, xz, xn), (hr, hz, hn) = (part.float().chunk(3, dim=1) for part in (given, kept))
    reset = (xr + hr).sigmoid()
    return {"reset": reset, "update": (xz + hz).sigmoid(), "candidate": (xn + reset * hn).tanh()}


def normed_gru_gates(cell: Any, x: Tensor, state: State) -> dict[str, Tensor]:
    """Ba 2016: h' = update * candidate + (1 - update) * h; the reset gate lets h into the candidate."""
    kept = cell.begin()[0](state[0]).split(cell.sizes, dim=1)
    gains, (gates, new) = cell.gain.split(cell.sizes), _given(cell, x).split(cell.sizes, dim=1)
    z, r = (gates + normalised(kept[0], gains[0])).sigmoid().chunk(2, dim=1)
    return {"reset": r, "update": z, "candidate": (new + r * normalised(kept[1], gains[1], cell.recurrent_bias)).tanh()}


def mutant_gates(cell: Any, x: Tensor, state: State) -> dict[str, Tensor]:
    """Jozefowicz 2015: h' = update * candidate + (1 - update) * h; the reset gate lets h into the candidate."""
    products, size = cell.begin(), 2 * cell.hidden_size
    given = _given(cell, x).expand(state[0].size(0), -1)
    gates, _ = cell.gates_of(given[:, :size], state[0], products)
    (z, r), new = gates.sigmoid().chunk(2, dim=1), given[:, size:]
    return {"reset": r, "update": z, "candidate": (new + products[-1](r * state[0])).tanh()}


def mingru_gates(cell: Any, x: Tensor, state: State) -> dict[str, Tensor]:
    """Feng 2024: h' = update * candidate + (1 - update) * h."""
    z, new = _scanned(cell, x, 2)
    return {"update": z.sigmoid(), "candidate": new}


def minlstm_gates(cell: Any, x: Tensor, state: State) -> dict[str, Tensor]:
    """Feng 2024: h' = (forget * h + input * candidate) / (forget + input)."""
    f, i, new = _scanned(cell, x, 3)
    return {"forget": f.sigmoid(), "input": i.sigmoid(), "candidate": new}


def sru_gates(cell: Any, x: Tensor, state: State) -> dict[str, Tensor]:
    """Lei 2018: c' = forget * c + (1 - forget) * candidate; h' = reset * tanh(c') + (1 - reset) * x."""
    size = cell.hidden_size
    given = cell.input.over(x.unsqueeze(0))[0]
    f, r = (given[:, : 2 * size] + cell.bias).sigmoid().chunk(2, dim=1)
    return {"forget": f, "reset": r, "candidate": given[:, 2 * size : 3 * size]}


GATES: dict[str, Callable[[Any, Tensor, State], dict[str, Tensor]]] = {
    "rnn": no_gates,
    "lstm": lstm_gates,
    "gru": gru_gates,
    "mut1": mutant_gates,
    "mut2": mutant_gates,
    "mut3": mutant_gates,
    "lnlstm": normed_lstm_gates,
    "lngru": normed_gru_gates,
    "mogrifier": mogrifier_gates,
    "clockwork": no_gates,
    "mingru": mingru_gates,
    "minlstm": minlstm_gates,
    "sru": sru_gates,
}


def gates_at(name: str, cell: Any, x: Tensor | None, state: State) -> dict[str, Tensor]:
    """`GATES[name]` of a cell, without a gradient; of a dilated one from the state that its step reads, and of a deep
    step those of each transition, numbered from the second on."""
    if isinstance(cell, Dilated):
        return gates_at(name, cell.cell, x, state[-cell.cell.parts :])
    if not isinstance(cell, Deep):
        return GATES[name](cell, x, state)  # type: ignore[arg-type]
    found: dict[str, Tensor] = {}
    transitions: Any = cell.transitions
    for number, transition in enumerate(transitions, start=1):
        values = gates_at(name, transition, x, state)
        found |= {gate if number == 1 else f"{gate} {number}": value for gate, value in values.items()}
        given = _given(transition, x).expand(state[0].size(0), -1)
        state, _ = transition.advance(given, state, transition.begin())
        x = None
    return found


def _given(cell: Any, x: Tensor | None) -> Tensor:
    """What x (B, D) gives to a step of a looped cell, (B, gates * H); (1, gates * H) where it reads none."""
    return cell.given(None if x is None else x.unsqueeze(0))[0]


def _scanned(cell: Any, x: Tensor, blocks: int) -> tuple[Tensor, ...]:
    """What is computed from x (B, D), in blocks of H."""
    return cell.input.over(x.unsqueeze(0))[0].chunk(blocks, dim=1)


def _four(sums: Tensor) -> dict[str, Tensor]:
    """The gates from what they are before they are squashed, (B, 4 H)."""
    i, f, g, o = sums.chunk(4, dim=1)
    return {"input": i.sigmoid(), "forget": f.sigmoid(), "candidate": g.tanh(), "output": o.sigmoid()}
