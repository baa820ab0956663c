"""What the command line calls and a notebook imports: train, evaluate, load, predict, check."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from seqtext import __version__, series, session
from seqtext import recipe as recipes
from seqtext import run as runs
from seqtext.data.sources import with_source
from seqtext.errors import InputError
from seqtext.run import Run
from seqtext.search.generate import Writing, WritingTask, Written, generate
from seqtext.series import Series
from seqtext.session import Listener, Overrides
from seqtext.task import Adapting, AdaptingTask, ErringTask, Passing, Split, Table, predict_all, to_device
from seqtext.training.distributed import Devices, resolve_device
from seqtext.transfer import open_source, start_from


class Evaluation(NamedTuple):
    """The scores of a run on a split."""

    split: str
    examples: int
    scores: dict[str, float]
    settings: str
    """How the scores were computed, on what, and by which version of seqtext."""
    tables: list[Table]
    """The same for people."""
    adaptation: dict[str, Any] | None = None
    """How the model adapted to the text while it was scored, where that was asked for."""
    errors: list[dict[str, Any]] | None = None
    """The examples that it is most confidently wrong about, as JSON objects; None for a task that has no such list."""


WORST = 50
"""Errors that an evaluation lists."""


def train(
    recipe: str | None = None,
    *,
    data: str | None = None,
    overrides: Overrides = (),
    out: str | Path | None = None,
    resume: str | Path | None = None,
    seed: int | None = None,
    device: str = "auto",
    tensorboard: bool = False,
    listen: Listener = lambda event: None,
) -> Run:
    """Train a recipe, given by name or path, and leave a run folder; or go on with the run folder `resume`.

    `data` is a folder or a source name and overrides the recipe's `data.source`. The run is scored on its validation
    split, and on its test split where there is one. Raises `InputError`s for what the user can mend, and
    `Interrupted` where SIGINT or SIGTERM came: a checkpoint is saved then.
    """
    where = resolve_device(device)
    if resume is not None:
        if recipe is not None or data is not None or seed is not None or out is not None:
            raise InputError("--resume goes on with a run as it is: give no recipe, --data, --seed or --out beside it")
        return session.resume(Path(resume), overrides, where, tensorboard=tensorboard, listen=listen)
    if recipe is None:
        raise InputError("no recipe given: seqtext train ner, or a recipe's name or file (seqtext recipes lists them)")
    chosen = recipes.choose(recipe, data=data, overrides=overrides, seed=seed)
    folder = Path(out) if out else default_folder(chosen.name)
    return session.start(chosen, folder, where, tensorboard=tensorboard, listen=listen)


def train_seeds(
    recipe: str,
    count: int,
    *,
    data: str | None = None,
    overrides: Overrides = (),
    out: str | Path | None = None,
    seed: int | None = None,
    device: str = "auto",
    tensorboard: bool = False,
    listen: Listener = lambda event: None,
) -> Series:
    """Train a recipe with `count` seeds, from `seed` (or the recipe's own) upward, and sum up their scores.

    The runs stand in `out`/seed-N, the summary in `out`/summary.json. A finished run that stands there already is not
    trained again and an unfinished one is resumed, so that the same command goes on after an interruption.
    """
    if count < 1:
        raise InputError(f"--seeds {count}: expected 1 or more")
    chosen = recipes.choose(recipe, data=data, overrides=overrides, seed=seed)
    seeds = range(chosen.seed, chosen.seed + count)
    return series.train_all(
        {f"seed-{number}": replace(chosen, seed=number) for number in seeds},
        Path(out) if out else default_folder(chosen.name),
        resolve_device(device),
        facts={"seeds": list(seeds)},
        tensorboard=tensorboard,
        listen=listen,
    )


def train_folds(
    recipe: str,
    count: int,
    *,
    data: str | None = None,
    overrides: Overrides = (),
    out: str | Path | None = None,
    seed: int | None = None,
    device: str = "auto",
    tensorboard: bool = False,
    listen: Listener = lambda event: None,
) -> Series:
    """Cross-validation: train a recipe `count` times, each time with another fold of the training data as test data.

    The folds are stratified and cut by `data.fold_seed`; the seed of the weights is the same for all. `data` may be a
    single file. The runs stand in `out`/fold-N, and go on after an interruption as those of `train_seeds` do. Raises
    `InputError` for a task without folds, `DataError` for a class with fewer examples than folds.
    """
    if count < 2:
        raise InputError(f"--folds {count}: expected 2 or more")
    chosen = recipes.choose(recipe, data=data, overrides=overrides, seed=seed, folds=count)
    return series.train_all(
        {f"fold-{number}": chosen.fold(number, count) for number in range(1, count + 1)},
        Path(out) if out else default_folder(chosen.name),
        resolve_device(device),
        facts={"folds": count, "fold_seed": chosen.data.fold_seed, "seed": chosen.seed},
        tensorboard=tensorboard,
        listen=listen,
    )


def evaluate(
    run: str | Path,
    data: str | None = None,
    *,
    split: Split = "test",
    device: str = "auto",
    batch_tokens: int | None = None,
    dynamic: bool = False,
    cache: int = 0,
    tune: bool = False,
    worst: int | None = None,
    listen: Callable[[Passing], None] = lambda passing: None,
) -> Evaluation:
    """Score a run on a split of its own data, or of `data`: a folder, a source name, or a single file.

    Where the task can tell, the `worst` (50) examples that the run is most confidently wrong about are listed.
    A language model can adapt to the text that it is scored on: learn from each window after it was scored (`dynamic`)
    or make the words of so many steps back more probable (`cache`); `tune` chooses the settings of both on the run's
    own validation split, and `listen` is told how far each pass is. Raises `InputError` where the task cannot.
    """
    how = Adapting(dynamic, cache, tune)
    _check_adapting(how, batch_tokens)
    if worst is not None and worst < 1:
        raise InputError(f"--worst {worst}: expected 1 or more")
    model = load(run, device=device)
    if worst is not None and not isinstance(model.task, ErringTask):
        raise InputError(f"{run}: a run of the task {model.task.name}, which has no list of errors")
    if (how.dynamic or how.cache) and not isinstance(model.task, AdaptingTask):
        flag = "--dynamic" if dynamic else "--cache"
        raise InputError(f"{run}: a run of the task {model.task.name}, which has no {flag}")
    settings = model.run.recipe.data
    if data is not None:
        settings = with_source(settings, data, split)
    dataset = model.task.read(settings, split)
    encoded = session.encode(model.task, settings, split, dataset)
    adaptation, facts = None, [model.task.metric]
    if isinstance(model.task, AdaptingTask) and (how.dynamic or how.cache):
        tokens = batch_tokens or model.run.recipe.train.eval_batch_tokens
        predictions, adaptation, summary = model.task.adapt(
            model.module, encoded, how, model.own_split, tokens=tokens, device=model.device, listen=listen
        )
        facts.append(summary)
    else:
        predictions = model.predict_encoded(encoded, batch_tokens=batch_tokens)
    scores, tables = model.task.score(predictions, dataset), model.task.tables(predictions, dataset)
    source = session.origin(settings, split)
    facts += [f"{settings.part(split)} of {source}", f"seqtext {__version__}"]
    errors = None
    if isinstance(model.task, ErringTask):
        found = model.task.worst(predictions, dataset, count=worst or WORST)
        errors = [{"split": settings.part(split), "source": source, **error} for error in found]
    return Evaluation(split, len(dataset), scores, "; ".join(facts), tables, adaptation, errors)


class Model:
    """A trained run, ready to predict."""

    def __init__(self, run: Run, module: nn.Module, device: torch.device) -> None:
        self.run, self.task, self.module, self.device = run, run.task, module, device

    def predict(
        self, examples: Sequence[Any], *, batch_tokens: int | None = None, pretokenized: bool = False, **options: Any
    ) -> list[Any]:
        """Predictions for raw examples, in their order; `options` are those of the task's `predict`.

        An example is a string; with `pretokenized`, its words are those between spaces. An example without a word
        has an empty prediction. Raises `InputError` for an option that the task does not have.
        """
        self._check(options)
        return self.predict_prepared(self._prepared(examples, pretokenized), batch_tokens=batch_tokens, **options)

    def records(
        self, examples: Sequence[str], *, batch_tokens: int | None = None, pretokenized: bool = False, **options: Any
    ) -> list[dict[str, Any]]:
        """As `predict`, as the JSON objects that `seqtext predict --json` prints."""
        self._check(options)
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
        self._check(options)
        real = [i for i, example in enumerate(prepared) if len(example)]
        results: list[Any] = [self.task.empty] * len(prepared)
        if real:
            encoded = self.task.inputs([prepared[i] for i in real])
            for i, result in zip(real, self.predict_encoded(encoded, batch_tokens=batch_tokens, **options)):
                results[i] = result
        return results

    def predict_encoded(self, encoded: Any, *, batch_tokens: int | None = None, **options: Any) -> list[Any]:
        """Predictions for an encoded split, in its order."""
        self._check(options)
        tokens = batch_tokens or self.run.recipe.train.eval_batch_tokens
        batches = self.task.batches(encoded, tokens=tokens)
        return predict_all(self.task, self.module, encoded, batches, self.device, **options)

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
        self._check(options)  # now, not when the first answer is asked for
        return self._stream(lines, batch_tokens, pretokenized, at_once, options)

    def _stream(
        self,
        lines: Iterable[str],
        batch_tokens: int | None,
        pretokenized: bool,
        at_once: int | None,
        options: Mapping[str, Any],
    ) -> Iterator[tuple[Any, Any]]:
        size, limit = 1, 64 * (batch_tokens or self.run.recipe.train.eval_batch_tokens)
        window: list[Any] = []
        words = 0
        for line in lines:
            window.append(self.task.prepare(line, pretokenized=pretokenized))
            words += len(window[-1])
            if len(window) >= size or words >= limit:
                yield from zip(window, self.predict_prepared(window, batch_tokens=batch_tokens, **options))
                window, words, size = [], 0, min(2 * size, at_once or 16384)
        yield from zip(window, self.predict_prepared(window, batch_tokens=batch_tokens, **options))

    def _check(self, options: Mapping[str, Any]) -> None:
        """Raises `InputError` for an option that the task's `predict` does not have."""
        for name in options:
            if name not in self.task.options:
                known = ", ".join(sorted(self.task.options)) or "none"
                message = f"a run of the task {self.task.name}, which has no option {name}; its options: {known}"
                raise InputError(f"{self.run.folder}: {message}")

    def generate(
        self, prompt: str = "", *, write: Callable[[str], object] | None = None, **options: Any
    ) -> list[Written]:
        """Texts that go on from a prompt, by a language model; `options` are the fields of `search.generate.Writing`.

        `write` is called with each piece of the one text as it is settled. Raises `InputError` for another task.
        """
        if not isinstance(self.task, WritingTask):
            raise InputError(f"{self.run.folder}: a run of the task {self.task.name}; this needs a language model's")
        return generate(self.task, self.module, prompt, settings=Writing(**options), device=self.device, write=write)


def load(run: str | Path, *, device: str = "auto") -> Model:
    """Load a run folder for prediction. Raises `RunError` naming what is missing, damaged or too new."""
    where = resolve_device(device)
    opened = runs.open_run(run)
    module = opened.task.build(opened.recipe.model)
    runs.load_weights(opened.folder, module)
    return Model(opened, module.to(where).eval(), where)


def predict(run: str | Path, examples: Sequence[Any], **options: Any) -> list[Any]:
    """Load a run and predict once; to predict more than once, keep what `load` returns."""
    return load(run).predict(examples, **options)


def check(
    recipe: str, *, data: str | None = None, overrides: Overrides = (), device: str = "auto"
) -> list[tuple[str, str]]:
    """Facts about a recipe and its data, after one training step on the longest batch; writes nothing.

    Raises `ConfigError` with all faults of the recipe, `DataError` for the data.
    """
    where = resolve_device(device)
    chosen = recipes.choose(recipe, data=data, overrides=overrides)
    source_model = open_source(chosen.train.init_from) if chosen.train.init_from else None
    splits = session.read_splits(chosen)
    task = chosen.task.fit(chosen.data, splits["train"])
    encoded = {split: session.encode(task, chosen.data, split, dataset) for split, dataset in splits.items()}
    source = ", ".join(dict.fromkeys(session.origin(chosen.data, split) for split in splits))
    facts = [("recipe", f"{chosen.name}: task {task.name}, seed {chosen.seed}"), ("source", source)]
    facts += task.describe(splits, encoded)
    torch.manual_seed(chosen.seed)
    module = task.build(chosen.model).to(where)
    if source_model is not None:
        facts += start_from(source_model, task, module)
    shuffle = np.random.default_rng(chosen.seed)
    with session.placing(chosen.data, "train"):
        batches = task.batches(encoded["train"], tokens=chosen.train.batch_tokens, shuffle=shuffle)
        longest = max(batches, key=lambda batch: int(batch.lengths.max()))
    devices = Devices(where, precision=chosen.train.precision)
    with devices.autocast():
        loss = task.loss(module, to_device(longest, where))
    devices.backward(loss.total)
    count = sum(parameter.numel() for parameter in module.parameters())
    facts.append(("model", f"{count:,} parameters"))
    shape = f"{len(longest.lengths)} x {int(longest.lengths.max())} tokens"
    facts.append(("one step", f"longest batch {shape}: loss {loss.total.item() / loss.count.item():.3f} per target"))
    return facts


def default_folder(name: str) -> Path:
    """A new run folder's path, named after the recipe and the time."""
    return Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def _check_adapting(how: Adapting, batch_tokens: int | None) -> None:
    if how.cache < 0:
        raise InputError(f"--cache {how.cache}: expected how many steps it holds, 1 or more, or 0 for none")
    if how.tune and not (how.dynamic or how.cache):
        raise InputError("--tune chooses settings of --dynamic and --cache: give one of them, or both")
    if how.dynamic and batch_tokens is not None:
        raise InputError("--batch-tokens: with --dynamic the text is read as one stream, a few tokens at a time")
