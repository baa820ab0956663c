"""Gates are those that the cell steps with: its equations make the next state of them."""

from __future__ import annotations

import pytest
import torch

from seqtext.nn.cells import CELLS, build_cell
from seqtext.nn.gates import GATES, no_gates, tells
from seqtext.nn.normed_cells import normalised


def after(name, cell, gates, state, x):
    """The state that these gates lead to; of a cell with a memory, what of it follows from them."""
    candidate = gates["candidate"]
    if name in ("lstm", "lnlstm", "mogrifier"):
        memory = gates.get("forget", 1.0) * state[1] + gates.get("input", 1.0) * candidate
        seen = normalised(memory, cell.memory_gain, cell.memory_bias) if name == "lnlstm" else memory
        return gates.get("output", 1.0) * seen.tanh(), memory
    if name == "gru":
        return ((1 - gates["update"]) * candidate + gates["update"] * state[0],)
    if name == "minlstm":
        both = gates["forget"] + gates["input"]
        return ((gates["forget"] * state[0] + gates["input"] * candidate) / both,)
    if name == "sru":
        memory = gates["forget"] * state[1] + (1 - gates["forget"]) * candidate
        return gates["reset"] * memory.tanh() + (1 - gates["reset"]) * x, memory
    return (gates["update"] * candidate + (1 - gates["update"]) * state[0],)


def test_every_cell_tells():
    assert set(GATES) == set(CELLS)


CASES = [(name, {}) for name in GATES] + [
    ("lstm", {"peepholes": True}),
    ("lstm", {"coupled": True}),
    ("lstm", {"without": ["input", "output"]}),
    ("lstm", {"without": ["forget"], "peepholes": True}),
    ("gru", {"kernel": "loop"}),
]


@pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{name}-{options}" for name, options in CASES])
def test_the_gates_lead_to_the_next_state(name, options):
    torch.manual_seed(1)
    cell, x = build_cell(name, 5, 5, options), torch.randn(2, 5)
    for part in cell.parameters():
        part.data.copy_(torch.randn(part.shape) * 0.5)
    state = tuple(torch.randn(2, 5) for _ in range(cell.parts))
    with torch.no_grad():
        gates = GATES[name](cell, x, state)
        _, end = cell.step(x, state)
    assert tells(name, cell) and (not gates) == (GATES[name] is no_gates)
    if gates:
        torch.testing.assert_close(after(name, cell, gates, state, x), end, rtol=1e-4, atol=1e-5)
    assert not tells(name, build_cell(name, 5, 5, options, dilation=2))
