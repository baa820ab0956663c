"""What each token of a text costs a language model."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from seqtext.errors import InputError
from seqtext.model import Model
from seqtext.search.generate import WritingTask
from seqtext.task import to_device


class Cost(NamedTuple):
    """A token and its loss in nats, given all tokens of its line before it."""

    token: str
    nll: float


def token_losses(model: Model, texts: list[str]) -> list[list[Cost]]:
    """The tokens of each text, its end among them. Raises `InputError` for a model that is no language model."""
    task: Any = model.task
    if not isinstance(task, WritingTask):
        raise InputError(f"{model.run.folder}: a run of the task {task.name}; this needs a language model's")
    tokenizer = task.tokenizer  # type: ignore[attr-defined]
    examples = [example for example in (task.prepare(text) for text in texts) if len(example)]  # type: ignore[attr-defined]
    if not examples:
        return []
    encoded = task.inputs(examples)  # type: ignore[attr-defined]
    found: list[list[Cost]] = [[] for _ in examples]
    module: Any = model.module
    with torch.no_grad():
        for batch in task.batches(encoded, tokens=model.run.recipe.train.eval_batch_tokens):  # type: ignore[attr-defined]
            moved = to_device(batch, model.device)
            nll = module.nll(module(moved.inputs), moved.targets).tolist()
            for row, ids, costs in zip(batch.rows.tolist(), batch.targets.tolist(), nll):
                found[row] = [Cost(tokenizer.token(id), cost) for id, cost in zip(ids, costs) if id >= 0]
    return found
