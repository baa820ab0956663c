"""The recurrent cells of a module: which there are, and what each of them read when the module was called.

Only the face that all cells share is used (`nn.cells`), so that any cell can be looked at, in any task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from seqtext.errors import InputError
from seqtext.nn.cells import CELLS, Cell, State, zero_state
from seqtext.nn.reservoir import Reservoir

ASIDE = ("characters", "parser")
"""Parts of a module whose cells do not read the text word by word, or not for the task itself."""


def cells_of(module: nn.Module) -> dict[str, Cell]:
    """The cells that read the text, by their names in the module, in its order.

    `encoder.layers.1.0` is the second layer's cell in the forward direction, `encoder.layers.1.1` the backward one.
    """
    found: dict[str, Cell] = {}
    for name, part in module.named_modules():
        path = name.split(".")
        inside = any(".".join(path[:depth]) in found for depth in range(len(path)))  # a cell may be made of cells
        if isinstance(part, Cell) and not inside and not set(path) & set(ASIDE):
            found[name] = part
    return found


def kind_of(cell: Cell) -> str:
    """What a recipe calls this cell."""
    return getattr(cell, "name", None) or next(name for name, kind in CELLS.items() if type(cell) is kind)


def check_cells(module: nn.Module, *, where: str) -> dict[str, Cell]:
    """`cells_of`. Raises `InputError` where there is none."""
    found = cells_of(module)
    if not found and any(isinstance(part, Reservoir) for part in module.modules()):
        raise InputError(
            f"{where}: an echo state network: its recurrence stays as it was drawn, with no gates and no gradient"
        )
    if not found:
        raise InputError(f"{where}: this model has no recurrent cell")
    return found


def find_cell(module: nn.Module, at: str | None, *, where: str) -> tuple[str, Cell]:
    """The cell called `at`, or the last forward one of the first stack. Raises `InputError` naming those there are."""
    found = check_cells(module, where=where)
    if at is not None:
        if at not in found:
            raise InputError(f"{where}: no cell is called '{at}'; there are: {', '.join(found)}")
        return at, found[at]
    first = next(iter(found)).rsplit(".", 2)[0]
    forward = [name for name in found if name.startswith(f"{first}.") and not name.endswith(".1")]
    name = (forward or list(found))[-1]
    return name, found[name]


@dataclass
class Seen:
    """What a cell read over all calls, one after the other, and what they started from."""

    cell: Cell
    inputs: list[Tensor] = field(default_factory=list)
    """(B, T, D) a call."""
    starts: list[State] = field(default_factory=list)
    """(B, H) each, a call."""
    pushed: list[Tensor] = field(default_factory=list)
    """(B, T, H) a call: what was added to the outputs, 0 everywhere, to have a gradient by."""

    def read(self) -> Tensor:
        """(B, T, D): all inputs in their order."""
        return torch.cat([x.detach() for x in self.inputs], dim=1)

    def pieces(self) -> Iterator[tuple[Tensor, State]]:
        """Of a text alone in its batch: (1, T, D) and the state that it starts from, one after the other.

        Rows of a single step are the steps of the text, each from its own start (`nn.jordan.without_memory`). Of other
        rows, which are windows of the text, the first.
        """
        for x, start in zip(self.inputs, self.starts):
            for row in range(x.size(0) if x.size(1) == 1 else 1):
                yield x[row : row + 1].detach(), tuple(part[row : row + 1] for part in start)


@contextmanager
def watching(cells: Mapping[str, Cell], *, gradients: bool = False) -> Iterator[dict[str, Seen]]:
    """Note what `cells` read while the block runs.

    With `gradients`, zeros that want a gradient are added to every output that a cell hands on. The recurrence does not
    see them, so that their gradient is what the loss sends to each step directly, and not by way of later steps.
    """
    seen: dict[str, Seen] = {}

    def before(name: str, cell: Any, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        x = given[0]
        state = given[1] if len(given) > 1 else named.get("state")
        mine = seen.setdefault(name, Seen(cell))
        mine.starts.append(zero_state(cell, x) if state is None else tuple(part.detach() for part in state))
        mine.inputs.append(x)

    def after(name: str, cell: Any, given: Any, result: tuple[Tensor, State]) -> tuple[Tensor, State]:
        states, end = result
        added = torch.zeros_like(states, requires_grad=True)
        seen[name].pushed.append(added)
        return states + added, end

    with ExitStack() as hooks:
        for name, cell in cells.items():
            hooks.callback(cell.register_forward_pre_hook(partial(before, name), with_kwargs=True).remove)
            if gradients:
                hooks.callback(cell.register_forward_hook(partial(after, name)).remove)
        yield seen
