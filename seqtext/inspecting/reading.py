"""A text as a run's cells read it: what stood before each cell at each step, and the tokens it stood for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from seqtext.errors import InputError
from seqtext.inspecting.watching import Seen, check_cells, watching
from seqtext.model import Model
from seqtext.search.generate import WritingTask
from seqtext.task import TranslatingTask, to_device


def prepared(model: Model, text: str) -> Any:
    """The text as the task takes it. Raises `InputError` for one without a word."""
    if not text.strip():
        raise InputError("TEXT: expected at least one word")
    example = model.task.prepare(text)
    if not len(example):
        raise InputError(f"TEXT: {text!r} has no word that this run reads")
    return example


def batch_of(model: Model, example: Any) -> Any:
    """A batch of this example alone."""
    encoded = model.task.inputs([example])
    return next(iter(model.task.batches(encoded, tokens=1 << 40)))


def read(model: Model, text: str, *, label: str | None = None) -> tuple[dict[str, Seen], Callable[[str], list[str]]]:
    """What each cell read of a text, and a function from a cell's name to its tokens (T,), in the order it read them.

    A translator's decoder reads the translation that the model finds. A tree is read as text. `label` is what a
    language model is conditioned on. Raises `InputError` for
    a model without recurrent cells and for one exported in 8 bits.
    """
    if model.run.exported == "int8":
        raise InputError(f"{model.run.folder}: {model.run.form}; its gates are those of the run it was made of")
    cells = check_cells(model.module, where=str(model.run.folder))
    task = model.task
    example = prepared(model, text)
    names: dict[bool, list[str]] = {}
    options: dict[str, Any] = {}
    if isinstance(task, TranslatingTask):
        (found,) = model.predict([text], nbest=1)
        example = task.prepare_pair(text, found.text)
        options["forced"] = True
    if label is not None:
        options["label"] = label
        model.check(options)
    batch = batch_of(model, example)
    with torch.no_grad(), watching(cells) as seen:
        task.predict(model.module, to_device(batch, model.device), **options)
    if isinstance(task, TranslatingTask):
        both: Any = task
        names[True] = [both.target.token(id) for id in batch.inputs[0].tolist()]
        names[False] = [both.source.token(id) for id in batch.source[0].tolist()]
    elif isinstance(task, WritingTask):
        tokenizer: Any = task
        names[False] = [tokenizer.tokenizer.token(id) for id in batch.inputs[0].tolist()]
    else:
        names[False] = list(example.words)

    def tokens(cell: str) -> list[str]:
        found = names.get(cell.startswith("decoder"), names[False])
        found = found[: sum(x.size(1) for x, _ in seen[cell].pieces())]
        return found[::-1] if _backward(cell) else found

    return seen, tokens


def _backward(cell: str) -> bool:
    return cell.endswith(".1")
