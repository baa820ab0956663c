"""Recurrent cells, all of one face (`cell.Cell`): a new one is a class in a file of its kind and a line in `CELLS`.

fused.py     torch's fused kernels: rnn, lstm, gru
looped.py    cells by equations, a loop over the steps; looped_cells.py has those of the above with other options
             mutants.py, normed_cells.py, mogrifier.py and clockwork.py have more
deep.py      cells made of cells
scanned.py   cells whose states are a scan over time, without a loop
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seqtext.nn.cell import Cell, State, zero_state
from seqtext.nn.clockwork import Clockwork
from seqtext.nn.deep import Deep, Dilated
from seqtext.nn.fused import GRU, LSTM, RNN
from seqtext.nn.mogrifier import Mogrifier
from seqtext.nn.mutants import MUT1, MUT2, MUT3
from seqtext.nn.normed_cells import LNGRU, LNLSTM
from seqtext.nn.scanned import SRU, MinGRU, MinLSTM

__all__ = ["CELLS", "GRU", "LSTM", "RNN", "Cell", "State", "build_cell", "zero_state"]

CELLS: dict[str, type[Cell]] = {
    "rnn": RNN,
    "lstm": LSTM,
    "gru": GRU,
    "mut1": MUT1,
    "mut2": MUT2,
    "mut3": MUT3,
    "lnlstm": LNLSTM,
    "lngru": LNGRU,
    "mogrifier": Mogrifier,
    "clockwork": Clockwork,
    "mingru": MinGRU,
    "minlstm": MinLSTM,
    "sru": SRU,
}


def build_cell(
    name: str,
    input_size: int,
    hidden_size: int,
    options: Mapping[str, Any] | None = None,
    *,
    transition_depth: int = 1,
    dilation: int = 1,
) -> Cell:
    """The cell called `name`; `options` are those of its `Options`, the rest stand at their defaults.

    A step is `transition_depth` transitions (`deep.Deep`), from the state of `dilation` steps before (`deep.Dilated`).
    """
    read = CELLS[name].Options.model_validate(dict(options or {}))
    CELLS[name].check(read, hidden_size)
    kind: Any = CELLS[name].suited(read, deep=transition_depth > 1)
    sizes = [input_size] + [0] * (transition_depth - 1)
    cells = [kind(size, hidden_size, read) for size in sizes]
    cell: Cell = Deep(cells) if len(cells) > 1 else cells[0]
    for each in (cell, *cells):
        each.name, each.options = name, read
    return Dilated(cell, dilation) if dilation > 1 else cell
