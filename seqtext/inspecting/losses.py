"""What each token of a text costs a language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from seqtext.errors import InputError
from seqtext.model import Model
from seqtext.search.generate import WritingTask
from seqtext.task import to_device


class Cost(NamedTuple):
    """A token and its loss in nats, given all tokens of its line before it."""

    token: str
    nll: float


def token_losses(model: Model, texts: Sequence[str], labels: Sequence[str] | None = None) -> list[list[Cost]]:
    """The tokens of each text, its end among them; a model that is conditioned on labels reads a label for each.

    Raises `InputError` for a model that is no language model, and where labels are missing or not read.
    """
    task: Any = model.task
    if not isinstance(task, WritingTask):
        raise InputError(f"{model.run.folder}: a run of the task {task.name}; this needs a language model's")
    lm: Any = task
    tokenizer, module = lm.tokenizer, model.module
    given = zip(map(lm.prepare, texts), [None] * len(texts) if labels is None else labels)
    read = [(example, lm.label(module, label)) for example, label in given if len(example)]
    if not read:
        return []
    encoded = lm.inputs([example for example, _ in read])
    if labels is not None:
        encoded = replace(encoded, labels=np.array([number for _, number in read]))
    found: list[list[Cost]] = [[] for _ in read]
    carry = None
    with torch.no_grad():
        for batch in lm.batches(encoded, tokens=model.run.recipe.train.eval_batch_tokens):
            moved = to_device(batch, model.device)
            hidden = module(moved.inputs, None if batch.first else carry, moved.labels)
            carry = hidden.carry
            nll = module.nll(hidden, moved.targets).tolist()  # type: ignore[operator]
            for row, ids, costs in zip(batch.rows.tolist(), batch.targets.tolist(), nll):
                found[row] += [Cost(tokenizer.token(id), cost) for id, cost in zip(ids, costs) if id >= 0]
    return found
