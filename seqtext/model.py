"""A trained run, or several as one, ready to predict: what `api.load` gives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from seqtext import recipe as recipes
from seqtext import run as runs
from seqtext import session
from seqtext.data.sources import Split, with_source
from seqtext.errors import InputError
from seqtext.run import Run
from seqtext.search.generate import Writing, WritingTask, Written, generate
from seqtext.session import Overrides
from seqtext.task import TranslatingTask, predict_all
from seqtext.training.distributed import record, resolve_device, use_tensor_cores
from seqtext.training.precision import resolve
from seqtext.training.threads import limit_threads

if TYPE_CHECKING:
    from datasets import Dataset

PRECISIONS = ("float32", "bf16", "auto")


class Model:
    """A trained run, ready to predict."""

    def __init__(self, run: Run, module: nn.Module, device: torch.device, *, precision: str = "float32") -> None:
        self.run, self.task, self.module, self.device = run, run.task, module, device
        self.precision = precision
        """float32 or bf16."""

    def predict(
        self, examples: Sequence[Any], *, batch_tokens: int | None = None, pretokenized: bool = False, **options: Any
    ) -> list[Any]:
        """Predictions for raw examples, in their order; `options` are those of the task's `predict`.

        An example is a string; with `pretokenized`, its words are those between spaces. An example without a word
        has an empty prediction. Raises `InputError` for an option that the task does not have, or what it cannot be.
        """
        self.check(options)
        return self.predict_prepared(self._prepared(examples, pretokenized), batch_tokens=batch_tokens, **options)

    def records(
        self, examples: Sequence[str], *, batch_tokens: int | None = None, pretokenized: bool = False, **options: Any
    ) -> list[dict[str, Any]]:
        """As `predict`, as the JSON objects that `seqtext predict --json` prints."""
        self.check(options)
        prepared = self._prepared(examples, pretokenized)
        predictions = self.predict_prepared(prepared, batch_tokens=batch_tokens, **options)
        return [self.task.record(*pair) for pair in zip(prepared, predictions)]

    def _prepared(self, examples: Sequence[str], pretokenized: bool) -> list[Any]:
        if isinstance(examples, str):
            raise InputError("predict takes a list of texts, not one text: predict([text])")
        return [self.task.prepare(example, pretokenized=pretokenized) for example in examples]

    def predict_prepared(
        self, prepared: Sequence[Any], *, batch_tokens: int | None = None, **options: Any
    ) -> list[Any]:
        """As `predict`, for examples that `task.prepare` made."""
        self.check(options)
        real = [i for i, example in enumerate(prepared) if len(example)]
        results: list[Any] = [self.task.empty] * len(prepared)
        if real:
            encoded = self.task.inputs([prepared[i] for i in real])
            for i, result in zip(real, self.predict_encoded(encoded, batch_tokens=batch_tokens, **options)):
                results[i] = result
        return results

    def predict_encoded(self, encoded: Any, *, batch_tokens: int | None = None, **options: Any) -> list[Any]:
        """Predictions for an encoded split, in its order."""
        self.check(options)
        tokens = batch_tokens or self.run.recipe.train.eval_batch_tokens
        batches = self.task.batches(encoded, tokens=tokens)
        with self._numbers():
            return predict_all(self.task, self.module, encoded, batches, self.device, **options)

    def _numbers(self) -> AbstractContextManager[Any]:
        """The context of what is computed: as in training, where the weights themselves are not in bf16."""
        if self.precision == "float32" or isinstance(self.task, TranslatingTask):
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def read(self, data: str | None, split: Split, overrides: Overrides = ()) -> tuple[Any, Dataset]:
        """The settings of the run's own data, or of `data`, and a split of it. Raises `ConfigError` for `overrides`."""
        settings = self.run.recipe.data
        if data is not None:
            settings = with_source(settings, data, split)
        if overrides:
            settings = recipes.read_otherwise(settings, overrides, source=f"evaluate {self.run.folder}")
        return settings, self.task.read(settings, split)

    def own_split(self, split: Split) -> Any:
        """A split of the run's own data, encoded. Raises `DataError` where it is not there any more."""
        data = self.run.recipe.data
        return session.encode(self.task, data, split, self.task.read(data, split))

    def stream(
        self,
        lines: Iterable[str],
        *,
        batch_tokens: int | None = None,
        pretokenized: bool = False,
        at_once: int | None = None,
        **options: Any,
    ) -> Iterator[tuple[Any, Any]]:
        """(prepared example, prediction) for each line, in order, in bounded memory; input may be endless.

        Lines are gathered in windows that begin with one line and double up to `at_once` (16384), so that the first
        answer is quick and bulk text is fast; with 1, each line is answered before the next is read.
        """
        prepared = (self.task.prepare(line, pretokenized=pretokenized) for line in lines)
        return self.stream_prepared(prepared, batch_tokens=batch_tokens, at_once=at_once, **options)

    def stream_prepared(
        self, prepared: Iterable[Any], *, batch_tokens: int | None = None, at_once: int | None = None, **options: Any
    ) -> Iterator[tuple[Any, Any]]:
        """As `stream`, for examples that `task.prepare` or `task.prepare_pair` made."""
        self.check(options)  # now, not when the first answer is asked for
        return self._stream(prepared, batch_tokens, at_once, options)

    def _stream(
        self, prepared: Iterable[Any], batch_tokens: int | None, at_once: int | None, options: Mapping[str, Any]
    ) -> Iterator[tuple[Any, Any]]:
        size, limit = 1, 64 * (batch_tokens or self.run.recipe.train.eval_batch_tokens)
        window: list[Any] = []
        words = 0
        for example in prepared:
            window.append(example)
            words += len(example)
            if len(window) >= size or words >= limit:
                yield from zip(window, self.predict_prepared(window, batch_tokens=batch_tokens, **options))
                window, words, size = [], 0, min(2 * size, at_once or 16384)
        yield from zip(window, self.predict_prepared(window, batch_tokens=batch_tokens, **options))

    def check(self, options: Mapping[str, Any]) -> None:
        """Raises `InputError` for an option that the task's `predict` does not have, or what it cannot be."""
        for name in options:
            if name not in self.task.options:
                known = ", ".join(sorted(self.task.options)) or "none"
                message = f"a run of the task {self.task.name}, which has no option {name}; its options: {known}"
                raise InputError(f"{self.run.folder}: {message}")
        if isinstance(self.task, TranslatingTask):
            self.task.searched(options)

    def generate(
        self, prompt: str = "", *, write: Callable[[str], object] | None = None, **options: Any
    ) -> list[Written]:
        """Texts that go on from a prompt, by a language model; `options` are the fields of `search.generate.Writing`.

        `write` is called with each piece of the one text as it is settled. Raises `InputError` for another task.
        """
        if not isinstance(self.task, WritingTask):
            raise InputError(f"{self.run.folder}: a run of the task {self.task.name}; this needs a language model's")
        settings = Writing(**options)
        with self._numbers():
            return generate(self.task, self.module, prompt, settings=settings, device=self.device, write=write)


def load(
    run: str | Path, *, device: str = "auto", ensemble: Sequence[str | Path] = (), precision: str = "float32"
) -> Model:
    """Load a run folder for prediction; of translators, together with the runs of `ensemble`.

    Such runs must have the same vocabularies. How they search is what the first run's recipe says. With the
    `precision` "bf16" layers compute in such numbers, which is faster where the processor has them and changes scores a
    little; of a translator the weights and states are halved, too. "auto" is what training with it would choose on this
    machine. An exported run computes as it was exported (`run.computing`). Raises `RunError` naming what is missing,
    damaged or too new, and `InputError` for runs that cannot predict together.
    """
    where = resolve_device(device)
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: expected {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}")
    opened, module = _open(run, where)
    members = [(opened, module), *(_open(other, where) for other in ensemble)]
    if precision != "float32":
        for one, _ in members:
            if one.exported:
                raise InputError(f"--precision {precision}: {one.folder} is {one.form} and computes so")
    if ensemble:
        module = _together(opened, module, members[1:])
    limit_threads()
    use_tensor_cores()
    record(opened.recipe.train.graphs and where.type != "cpu", where)  # a run that was recorded may be used anywhere
    choice = resolve(precision, where)
    precision = choice.precision if choice else precision
    if precision == "bf16" and isinstance(opened.task, TranslatingTask):
        module = module.to(torch.bfloat16)
    return Model(opened, module.to(where).eval(), where, precision=precision)


def load_same(
    model: Model,
    dataset: Dataset,
    run: str | Path,
    data: str | None,
    split: Split,
    overrides: Overrides,
    where: Mapping[str, Any],
    options: Mapping[str, Any],
) -> tuple[Model, Any]:
    """Another run of the same task, and the same data encoded for it. Raises `InputError` where they are not."""
    other = load(run, **where)
    if other.task.name != model.task.name:
        raise InputError(f"{run}: a run of the task {other.task.name}, and {model.run.folder} one of {model.task.name}")
    other.check(options)
    settings, same = other.read(data, split, overrides)
    if len(same) != len(dataset):
        found = f"{len(dataset):,} examples and {len(same):,}"
    else:
        number = next((i for i, rows in enumerate(zip(dataset, same), start=1) if rows[0] != rows[1]), None)
        found = "" if number is None else f"example {number:,} is not the same"
    if found:
        advice = "" if data is not None else "; --data gives both the same"
        raise InputError(f"{model.run.folder} and {run}: their {split} data differ: {found}{advice}")
    return other, session.encode(other.task, settings, split, same)


def _open(run: str | Path, device: torch.device) -> tuple[Run, nn.Module]:
    opened = runs.open_run(run)
    module = runs.build(opened.task, opened.recipe.model, place=opened.folder / "recipe.toml")
    runs.load_weights(opened.folder, module)
    return opened, runs.computing(opened, module, device)


def _together(first: Run, module: nn.Module, others: Sequence[tuple[Run, nn.Module]]) -> nn.Module:
    if not isinstance(first.task, TranslatingTask):
        raise InputError(f"{first.folder}: a run of the task {first.task.name}, of which there are no ensembles")
    for other, _ in others:
        if other.task.name != first.task.name:
            named = f"a run of the task {other.task.name}, and {first.folder} one of {first.task.name}"
            raise InputError(f"{other.folder}: {named}: they cannot be one ensemble")
        if reason := first.task.unlike(other.task):
            raise InputError(f"{first.folder} and {other.folder} cannot be one ensemble: {reason}")
    return first.task.together([module, *(module for _, module in others)])
