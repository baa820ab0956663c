"""Gates are those that the cell steps with: its equations make the next state of them."""

from __future__ import annotations

import pytest
import torch

from seqtext.nn.cells import build_cell
from seqtext.nn.gates import GATES


def after(name, gates, state):
    """The state that these gates lead to."""
    if name == "lstm":
        memory = gates["forget"] * state[1] + gates["input"] * gates["candidate"]
        return gates["output"] * memory.tanh(), memory
    if name == "gru":
        return ((1 - gates["update"]) * gates["candidate"] + gates["update"] * state[0],)
    return None


@pytest.mark.parametrize("name", GATES)
def test_the_gates_lead_to_the_next_state(name):
    torch.manual_seed(1)
    cell, x = build_cell(name, 3, 5), torch.randn(2, 3)
    state = tuple(torch.randn(2, 5) for _ in range(cell.parts))
    with torch.no_grad():
        gates = GATES[name](cell, x, state)
        _, end = cell.step(x, state)
    if not gates:
        assert name == "rnn"
        return
    torch.testing.assert_close(after(name, gates, state), end, rtol=1e-5, atol=1e-6)
