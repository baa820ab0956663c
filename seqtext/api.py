"""What the command line calls and a notebook imports: train, evaluate, load, predict, check."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from seqtext import __version__, session
from seqtext import recipe as recipes
from seqtext import run as runs
from seqtext.data.sources import with_source
from seqtext.errors import ConfigError, InputError, RunError
from seqtext.files import write_json
from seqtext.recipe import Recipe
from seqtext.run import Run
from seqtext.search.generate import Writing, WritingTask, Written, generate
from seqtext.session import Listener, Overrides
from seqtext.task import Adapting, AdaptingTask, Passing, Split, Table, predict_all, to_device
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


class Seeds(NamedTuple):
    """Several trainings that differ in their seed alone."""

    folder: Path
    runs: list[Run]
    summary: dict[str, dict[str, float]]
    """For each split's goal ("test f1"): mean, deviation (of the sample), minimum, maximum."""


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
    chosen = _recipe(recipe, data, overrides, seed)
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
) -> Seeds:
    """Train a recipe with `count` seeds, from `seed` (or the recipe's own) upward, and sum up their scores.

    The runs stand in `out`/seed-N, the summary in `out`/summary.json. A finished run that stands there already is not
    trained again and an unfinished one is resumed, so that the same command goes on after an interruption.
    """
    if count < 1:
        raise InputError(f"--seeds {count}: expected 1 or more")
    chosen = _recipe(recipe, data, overrides, seed)
    where = resolve_device(device)
    folder = Path(out) if out else default_folder(chosen.name)
    finished = []
    for number in range(chosen.seed, chosen.seed + count):
        home = folder / f"seed-{number}"
        this = replace(chosen, seed=number)
        if (home / "meta.json").is_file():
            known = runs.open_run(home)
            if known.recipe.toml() != this.absolute().toml():
                raise RunError(f"{home}: a run of another recipe or other settings; choose another --out")
            if not known.meta.get("finished"):
                known = session.resume(home, (), where, tensorboard=tensorboard, listen=listen)
            finished.append(known)
        else:
            finished.append(session.start(this, home, where, tensorboard=tensorboard, listen=listen))
    summary = _summary(finished)
    write_json(folder / "summary.json", {"recipe": chosen.name, "seeds": [r.recipe.seed for r in finished], **summary})
    return Seeds(folder, finished, summary)


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
    listen: Callable[[Passing], None] = lambda passing: None,
) -> Evaluation:
    """Score a run on a split of its own data, or of `data`: a folder, a source name, or a single file.

    A language model can adapt to the text that it is scored on: learn from each window after it was scored (`dynamic`)
    or make the words of so many steps back more probable (`cache`); `tune` chooses the settings of both on the run's
    own validation split, and `listen` is told how far each pass is. Raises `InputError` where the task cannot.
    """
    how = Adapting(dynamic, cache, tune)
    _check_adapting(how, batch_tokens)
    model = load(run, device=device)
    if (how.dynamic or how.cache) and not isinstance(model.task, AdaptingTask):
        flag = "--dynamic" if dynamic else "--cache"
        raise InputError(f"{run}: a run of the task {model.task.name}, which has no {flag}")
    settings = _with_data(model.run.recipe.data, data, split)
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
    facts += [f"{split} of {session.origin(settings, split)}", f"seqtext {__version__}"]
    return Evaluation(split, len(dataset), scores, "; ".join(facts), tables, adaptation)


class Model:
    """A trained run, ready to predict."""

    def __init__(self, run: Run, module: nn.Module, device: torch.device) -> None:
        self.run, self.task, self.module, self.device = run, run.task, module, device

    def predict(
        self, examples: Sequence[Any], *, batch_tokens: int | None = None, pretokenized: bool = False, **options: Any
    ) -> list[Any]:
        """Predictions for raw examples, in their order; `options` are those of the task's `predict`.

        An example is a string; with `pretokenized`, its words are those between spaces. An example without a word
        has an empty prediction.
        """
        return self.predict_prepared(self._prepared(examples, pretokenized), batch_tokens=batch_tokens, **options)

    def records(
        self, examples: Sequence[str], *, batch_tokens: int | None = None, pretokenized: bool = False, **options: Any
    ) -> list[dict[str, Any]]:
        """As `predict`, as the JSON objects that `seqtext predict --json` prints: with tokens and character offsets."""
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
        real = [i for i, example in enumerate(prepared) if len(example)]
        results: list[Any] = [self.task.empty] * len(prepared)
        if real:
            encoded = self.task.inputs([prepared[i] for i in real])
            for i, result in zip(real, self.predict_encoded(encoded, batch_tokens=batch_tokens, **options)):
                results[i] = result
        return results

    def predict_encoded(self, encoded: Any, *, batch_tokens: int | None = None, **options: Any) -> list[Any]:
        """Predictions for an encoded split, in its order."""
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
    chosen = _recipe(recipe, data, overrides, None)
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
    batches = task.batches(encoded["train"], tokens=chosen.train.batch_tokens, shuffle=shuffle)
    longest = max(batches, key=lambda batch: int(batch.lengths.max()))
    devices = Devices(where, precision=chosen.train.precision)
    with devices.autocast():
        loss = task.loss(module, to_device(longest, where))
    devices.backward(loss.total)
    count = sum(parameter.numel() for parameter in module.parameters())
    facts.append(("model", f"{count:,} parameters"))
    shape = f"{len(longest.rows)} x {int(longest.lengths.max())} tokens"
    facts.append(("one step", f"longest batch {shape}: loss {loss.total.item() / loss.count.item():.3f} per target"))
    return facts


def default_folder(name: str) -> Path:
    """A new run folder's path, named after the recipe and the time."""
    return Path("runs") / f"{name}-{datetime.datetime.now():%Y%m%d-%H%M%S}"


def _recipe(name: str, data: str | None, overrides: Overrides, seed: int | None) -> Recipe:
    recipe = recipes.load(name, overrides)
    if data is not None:
        recipe = replace(recipe, data=_with_data(recipe.data, data, None))
    return replace(recipe, seed=seed) if seed is not None else recipe


def _check_adapting(how: Adapting, batch_tokens: int | None) -> None:
    if how.cache < 0:
        raise InputError(f"--cache {how.cache}: expected how many steps it holds, 1 or more, or 0 for none")
    if how.tune and not (how.dynamic or how.cache):
        raise InputError("--tune chooses settings of --dynamic and --cache: give one of them, or both")
    if how.dynamic and batch_tokens is not None:
        raise InputError("--batch-tokens: with --dynamic the text is read as one stream, a few tokens at a time")


def _with_data(settings: Any, data: str | None, split: Split | None) -> Any:
    """The data settings with another source; a single file stands for `split`."""
    if data is None:
        return settings
    if split is not None:
        return with_source(settings, data, split)
    if Path(data).is_file():
        hint = "give a folder, or data.train=FILE data.valid=FILE data.test=FILE"
        raise ConfigError(f"--data {data}", [f"this is one file, and training needs more than one split; {hint}"])
    return settings.model_copy(update={"source": data, "train": None, "valid": None, "test": None})


def _summary(finished: Sequence[Run]) -> dict[str, dict[str, float]]:
    key = finished[0].task.goal.key
    summary = {}
    for split in finished[0].meta["scores"]:
        values = [run.meta["scores"][split][key] for run in finished]
        deviation = statistics.stdev(values) if len(values) > 1 else 0.0
        summary[f"{split} {key}"] = {
            "mean": statistics.fmean(values),
            "deviation": deviation,
            "minimum": min(values),
            "maximum": max(values),
        }
    return summary
