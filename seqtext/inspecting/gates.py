"""The gates and the state of a run's cells over a text, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from seqtext.errors import InputError
from seqtext.inspecting.reading import read
from seqtext.inspecting.watching import Seen, kind_of
from seqtext.model import Model
from seqtext.nn.clockwork import Clockwork
from seqtext.nn.deep import Dilated
from seqtext.nn.gates import GATES, gates_at


@dataclass(frozen=True)
class Gated:
    """One cell over a text of T tokens, in the order of the text."""

    name: str
    """Where the cell stands in the module."""
    cell: str
    """What a recipe calls it."""
    tokens: list[str]
    """(T,)"""
    gates: dict[str, Tensor]
    """(T, H) of each gate, then of each member of the state after the step: state, memory."""

    def record(self) -> dict[str, Any]:
        """As a JSON object."""
        values = {name: [[round(one, 4) for one in row] for row in gate.tolist()] for name, gate in self.gates.items()}
        return {"name": self.name, "cell": self.cell, "tokens": self.tokens, "gates": values}

    def liveliest(self, count: int) -> list[int]:
        """The units whose memory, or else state, varies most over the text, in their order."""
        spread = list(self.gates.values())[-1].var(dim=0, unbiased=False)  # (H,)
        return sorted(spread.argsort(descending=True, stable=True)[:count].tolist())


def inspect_gates(model: Model, text: str, *, at: str | None = None, label: str | None = None) -> list[Gated]:
    """The gates of all cells that read the text, or of the one called `at`; `label` is that of a conditioned model.

    Raises `InputError` for a model without such cells, a cell that does not tell its gates, and an unknown `at`.
    """
    seen, tokens = read(model, text, label=label)
    if at is not None and at not in seen:
        raise InputError(f"{model.run.folder}: no cell is called '{at}'; there are: {', '.join(seen)}")
    found = []
    for name in seen if at is None else [at]:
        kind = kind_of(seen[name].cell)
        if kind not in GATES:
            known = f"those that do, with their usual equations: {', '.join(GATES)}"
            raise InputError(f"{model.run.folder}: {name}, a cell '{kind}', does not tell its gates; {known}")
        gates, own = gates_of(seen[name]), tokens(name)
        if name.endswith(".1"):  # read from the end of the text on
            gates, own = {gate: values.flip(0) for gate, values in gates.items()}, own[::-1]
        found.append(Gated(name, kind, own, gates))
    return found


def gates_of(seen: Seen) -> dict[str, Tensor]:
    """(T, H) of each gate and member of the state over what a cell read of a text, in the order it read it."""
    cell = seen.cell
    kind = kind_of(cell)
    own = cell.cell.parts if isinstance(cell, Dilated) else cell.parts  # its others are of the steps before
    members = ["state", "memory"][: 1 if isinstance(cell, Clockwork) else own]  # the other of which counts steps
    rows: dict[str, list[Tensor]] = {}
    with torch.no_grad():
        for x, state in seen.pieces():
            for step in range(x.size(1)):
                values = gates_at(kind, cell, x[:, step], state)
                _, state = cell.step(x[:, step], state)
                for name, value in (values | dict(zip(members, state))).items():
                    rows.setdefault(name, []).append(value[0].float().cpu())
    return {name: torch.stack(values) for name, values in rows.items()}
