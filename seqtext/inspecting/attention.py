"""What a run looks at: a translator's attention to its source, a classifier's to its text."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from seqtext.errors import InputError
from seqtext.inspecting.reading import batch_of, prepared
from seqtext.model import Model
from seqtext.nn.pool import Attention, States
from seqtext.task import TranslatingTask, to_device


class Attended(NamedTuple):
    """Weights of S source tokens, a row for each of T targets: the tokens of a translation, or one label."""

    source: list[str]
    target: list[str]
    weights: list[list[float]]
    """(T, S)"""
    result: str
    """The translation, or the label."""

    def record(self) -> dict[str, Any]:
        return self._asdict()


def attends(model: Model) -> bool:
    """Whether there is anything to show."""
    if isinstance(model.task, TranslatingTask):
        return bool(getattr(model.task, "attends", False))
    return bool(_pools(model))


def inspect_attention(model: Model, text: str) -> Attended:
    """What the model looks at in a text. Raises `InputError` for one without attention."""
    where, task = model.run.folder, model.task
    if not attends(model):
        having = "translation with model.decoder.context = attention, sentiment with model.pool.name = attention"
        raise InputError(f"{where}: this run of the task {task.name} has no attention; runs that have: {having}")
    example = prepared(model, text)
    if isinstance(task, TranslatingTask):
        (found,) = model.predict([text], attention=True)
        seen = found.attention
        if seen is None:
            raise InputError(f"{where}: nothing was translated of {text!r}")
        return Attended(seen.source, seen.target, seen.weights, found.text)
    pool = _pools(model)[0]
    states: list[States] = []
    hook = pool.register_forward_pre_hook(lambda module, given: states.append(given[0]))
    try:
        with torch.no_grad():
            (prediction,) = task.predict(model.module, to_device(batch_of(model, example), model.device)).predictions
            weights = pool.weights(states[0])[0, :, 0].tolist()
    finally:
        hook.remove()
    # Of a text that is read in windows, the first.
    words = list(example.words)[: len(weights)]
    return Attended(
        words, [prediction.label], [[round(weight, 4) for weight in weights[: len(words)]]], prediction.label
    )


def _pools(model: Model) -> list[Attention]:
    return [part for part in model.module.modules() if isinstance(part, Attention)]
