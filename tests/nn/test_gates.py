"""Gates are those that the cell steps with: its equations make the next state of them."""

from __future__ import annotations

import pytest
import torch

from seqtext.nn.cells import CELLS, build_cell
from seqtext.nn.gates import GATES, gates_at, no_gates
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
    assert (not gates) == (GATES[name] is no_gates)
    if gates:
        torch.testing.assert_close(after(name, cell, gates, state, x), end, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", [name for name, kind in CELLS.items() if kind.deepens and name != "rnn"])
def test_gates_of_a_deep_step_are_those_of_its_transitions_one_after_the_other(name):
    torch.manual_seed(2)
    cell, x = build_cell(name, 5, 5, transition_depth=3), torch.randn(2, 5)
    for part in cell.parameters():
        part.data.copy_(torch.randn(part.shape) * 0.5)
    state = start = tuple(torch.randn(2, 5) for _ in range(cell.parts))
    with torch.no_grad():
        gates = gates_at(name, cell, x, state)
        _, end = cell.step(x, start)
    for number, transition in enumerate(cell.transitions, start=1):
        own = {gate.split()[0]: value for gate, value in gates.items() if [*gate.split(), "1"][1] == str(number)}
        state = after(name, transition, own, state, x)
    torch.testing.assert_close(state, end, rtol=1e-4, atol=1e-5)


def test_gates_of_a_dilated_cell_are_those_of_the_state_that_its_step_reads():
    torch.manual_seed(3)
    cell, x = build_cell("lstm", 5, 5, dilation=3), torch.randn(2, 5)
    state = tuple(torch.randn(2, 5) for _ in range(6))
    with torch.no_grad():
        gates = gates_at("lstm", cell, x, state)
        _, end = cell.step(x, state)
    torch.testing.assert_close(after("lstm", cell.cell, gates, state[-2:], x), end[:2], rtol=1e-4, atol=1e-5)
