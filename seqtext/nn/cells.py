"""Recurrent cells, all of one face (`cell.Cell`): a new one is a class in a file of its kind and a line in `CELLS`.

fused.py     torch's fused kernels: rnn, lstm, gru
looped.py    cells by equations, a loop over the steps; looped_cells.py has those of the above with other options
scanned.py   cells whose states are a scan over time, without a loop
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqtext.nn.cell import Cell, State, zero_state
from seqtext.nn.fused import GRU, LSTM, RNN

__all__ = ["CELLS", "GRU", "LSTM", "RNN", "Cell", "State", "build_cell", "zero_state"]

CELLS: dict[str, type[Cell]] = {"rnn": RNN, "lstm": LSTM, "gru": GRU}


def build_cell(name: str, input_size: int, hidden_size: int, options: Mapping[str, Any] | None = None) -> Cell:
    """The cell called `name`; `options` are those of its `Options`, the rest stand at their defaults."""
    read = CELLS[name].Options.model_validate(dict(options or {}))
    kind: Any = CELLS[name].suited(read)
    cell: Cell = kind(input_size, hidden_size, read)
    cell.name, cell.options = name, read
    return cell
