"""What recurrent layers are told to do and cannot, with the sizes and the data they were given."""

from __future__ import annotations

from typing import Any

from torch import nn

from seqtext.errors import ConfigError
from seqtext.nn.clockwork import Clockwork
from seqtext.nn.deep import Dilated
from seqtext.nn.rnn import Recurrent
from seqtext.task import Task

# A part of a module is named as its table in [model], and so is what stands first in the names of what is within it.


def check_skips(module: nn.Module, *, place: str) -> None:
    """Raises `ConfigError` where the recipe `place` has layers with a skip that gets past none of them."""
    idle: dict[str, bool] = {}
    skips = {}
    for name, part in module.named_modules():
        if isinstance(part, Recurrent) and part.skip != "none":
            table = name.partition(".")[0]
            idle[table] = idle.get(table, True) and part.idle
            skips[table] = part.skip
    faults = []
    for table in (table for table, nothing in idle.items() if nothing):
        needs = "two layers" if skips[table] == "dense" else "a layer whose output has the size of its input"
        told = f"'{skips[table]}' does nothing here, for it needs {needs}; set 'none', or more layers"
        faults.append(f"model.{table}.skip: {told}")
    if faults:
        raise ConfigError(place, faults)


def doubts(task: Task, module: nn.Module, train: Any, *, tokens: int) -> list[str]:
    """A sentence for each part whose recurrence reaches farther back than any example of the encoded data is long."""
    reach: dict[str, int] = {}
    for name, part in module.named_modules():
        steps = part.dilation if isinstance(part, Dilated) else 1
        if isinstance(part, Clockwork):
            steps = int(part.periods.max())
        if steps > 1:
            table = name.partition(".")[0]
            reach[table] = max(steps, reach.get(table, 1))
    if not reach or task.carries:  # what has gone before a batch is then within reach
        return []
    batches = task.batches(train, tokens=tokens, shuffle=None)
    longest = max((int(batch.lengths.max()) for batch in batches), default=0)
    return [
        f"model.{table}: dilation or periods of {steps} steps, and no training example has more than {longest} tokens"
        for table, steps in reach.items()
        if steps > longest
    ]
