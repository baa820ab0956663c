"""What the command line calls and a notebook imports: train, evaluate, load, predict, export, check."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch

from seqtext import __version__, series, session
from seqtext import recipe as recipes
from seqtext.errors import InputError
from seqtext.model import Model as Model
from seqtext.model import load, load_same
from seqtext.run import Run
from seqtext.series import Series
from seqtext.session import Listener, Overrides
from seqtext.task import (
    Adapting,
    AdaptingTask,
    ComparingTask,
    Comparison,
    Listing,
    ListingTask,
    Passing,
    Split,
    Table,
    TranslatingTask,
    WarningTask,
    to_device,
)
from seqtext.training.distributed import Devices, resolve_device
from seqtext.training.processes import Processes, join
from seqtext.training.threads import limit_threads
from seqtext.training.wiring import check_skips, doubts
from seqtext.transfer import open_source, start_from

if TYPE_CHECKING:
    from seqtext.exporting.onnx import OnnxExported
    from seqtext.exporting.weights import Exported
    from seqtext.tuning import Tried, Tuned


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
    listings: list[Listing] | None = None
    """The examples that it does worst on first, then others worth looking at; None for a task without such lists."""
    comparison: Comparison | None = None
    """With another run on the same data, where that was asked for."""
    warnings: Sequence[str] = ()
    """What looks wrong with the data, or is not read of it."""


WORST = 50
"""Examples that each list of an evaluation has."""


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

    Under `torchrun` or `accelerate launch` all processes call this alike. Each trains on its share of every batch; the
    first one alone writes the run folder and calls `listen`. Raises `Lost` where one of them ends before the others.
    """
    where, group = _place(device)
    if resume is not None:
        if recipe is not None or data is not None or seed is not None or out is not None:
            raise InputError("--resume goes on with a run as it is: give no recipe, --data, --seed or --out beside it")
        return session.resume(Path(resume), overrides, where, group=group, tensorboard=tensorboard, listen=listen)
    if recipe is None:
        raise InputError("no recipe given: seqtext train ner, or a recipe's name or file (seqtext recipes lists them)")
    chosen = recipes.choose(recipe, data=data, overrides=overrides, seed=seed)
    folder = Path(out) if out else default_folder(chosen.name)
    return session.start(chosen, folder, where, group=group, tensorboard=tensorboard, listen=listen)


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
    where, group = _place(device)
    chosen = recipes.choose(recipe, data=data, overrides=overrides, seed=seed)
    seeds = range(chosen.seed, chosen.seed + count)
    return series.train_all(
        {f"seed-{number}": replace(chosen, seed=number) for number in seeds},
        Path(out) if out else default_folder(chosen.name),
        where,
        group=group,
        facts={"seeds": list(seeds)},
        tensorboard=tensorboard,
        listen=listen,
    )


def tune(
    recipe: str,
    trials: int,
    *,
    data: str | None = None,
    overrides: Overrides = (),
    out: str | Path | None = None,
    seed: int | None = None,
    processes: int = 1,
    device: str = "auto",
    listen: Callable[[Tried], None] = lambda tried: None,
) -> Tuned:
    """Search for better settings of a recipe over the ranges of its [tune] table, `trials` trainings in all.

    The study stands in `out`, with best.toml, the recipe with the best settings; the same call goes on with it after an
    interruption, or to more trials. Raises `Stopped` where SIGINT or SIGTERM came, and `InputError` for a recipe
    without ranges, a folder of something else, and where the extra `tune` is not installed.
    """
    from seqtext import tuning

    chosen = recipes.choose(recipe, data=data, overrides=overrides, seed=seed, search=True)
    folder = Path(out) if out else default_folder(f"{chosen.name}-tune")
    limit_threads()
    return tuning.tune(chosen, trials, folder, resolve_device(device), processes=processes, listen=listen)


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
    where, group = _place(device)
    chosen = recipes.choose(recipe, data=data, overrides=overrides, seed=seed, folds=count)
    return series.train_all(
        {f"fold-{number}": chosen.fold(number, count) for number in range(1, count + 1)},
        Path(out) if out else default_folder(chosen.name),
        where,
        group=group,
        facts={"folds": count, "fold_seed": chosen.data.fold_seed, "seed": chosen.seed},
        tensorboard=tensorboard,
        listen=listen,
    )


def evaluate(
    run: str | Path,
    data: str | None = None,
    *,
    split: Split = "test",
    overrides: Overrides = (),
    device: str = "auto",
    batch_tokens: int | None = None,
    precision: str = "float32",
    dynamic: bool = False,
    cache: int = 0,
    tune: bool = False,
    worst: int | None = None,
    compare: str | Path | None = None,
    ensemble: Sequence[str | Path] = (),
    listen: Callable[[Passing], None] = lambda passing: None,
    **options: Any,
) -> Evaluation:
    """Score a run on a split of its own data, or of `data`: a folder, a source name, or a single file.

    `overrides` are values of the run's [data] that say how files read, such as `data.text_field`; what training made of
    them is fixed. `options` are those of the task's `predict`. Where the task can tell, the `worst` (50) examples that
    the run does worst on are listed. Its scores can be compared with those of the run `compare` on the same data.
    Translators are scored together with those of `ensemble`, as one.
    A language model can adapt to the text that it is scored on: learn from each window after it was scored (`dynamic`)
    or make the words of so many steps back more probable (`cache`); `tune` chooses the settings of both on the run's
    own validation split, and `listen` is told how far each pass is. Raises `InputError` where the task cannot. The
    `precision` is that of `load`; figures to compare are those in float32.
    """
    how = Adapting(dynamic, cache, tune)
    _check_adapting(how, batch_tokens)
    if worst is not None and worst < 1:
        raise InputError(f"--worst {worst}: expected 1 or more")
    if precision != "float32" and (how.dynamic or how.cache):
        raise InputError(f"--precision {precision}: --dynamic and --cache compute in float32; leave one of them out")
    model = load(run, device=device, ensemble=ensemble, precision=precision)
    model.check(options)
    if compare is not None and not isinstance(model.task, ComparingTask):
        raise InputError(f"{run}: a run of the task {model.task.name}, which compares no runs")
    if worst is not None and not isinstance(model.task, ListingTask):
        raise InputError(f"{run}: a run of the task {model.task.name}, which has no list of errors")
    if (how.dynamic or how.cache) and not isinstance(model.task, AdaptingTask):
        flag = "--dynamic" if dynamic else "--cache"
        raise InputError(f"{run}: a run of the task {model.task.name}, which has no {flag}")
    if how.dynamic:
        model.run.check_trainable()
    settings, dataset = model.read(data, split, overrides)
    doubts: list[str] = []
    own = data is None and not overrides
    if isinstance(model.task, TranslatingTask) and not own:
        doubts += model.task.check_other(settings, dataset, lambda: model.task.read(model.run.recipe.data, "train"))
    baseline = None
    if compare is not None:
        where = {"device": device, "precision": precision}
        baseline = load_same(model, dataset, compare, data, split, overrides, where, options)
    encoded = session.encode(model.task, settings, split, dataset)
    adaptation, facts = None, [model.task.metric]
    if isinstance(model.task, AdaptingTask) and (how.dynamic or how.cache):
        tokens = batch_tokens or model.run.recipe.train.eval_batch_tokens
        predictions, adaptation, summary = model.task.adapt(
            model.module, encoded, how, model.own_split, tokens=tokens, device=model.device, listen=listen
        )
        facts.append(summary)
    else:
        predictions = model.predict_encoded(encoded, batch_tokens=batch_tokens, **options)
    if isinstance(model.task, TranslatingTask):
        together = f", together with {', '.join(map(str, ensemble))}" if ensemble else ""
        facts.append(model.task.searched(options) + together)
    scores, tables = model.task.score(predictions, dataset), model.task.tables(predictions, dataset)
    source = session.origin(settings, split)
    assigned = overrides.items() if isinstance(overrides, Mapping) else [text.split("=", 1) for text in overrides]
    changed = "".join(f", {key}={value}" for key, value in assigned)
    if model.precision != "float32":
        facts.append(f"computed in {model.precision}")
    facts += [f"{settings.part(split)} of {source}{changed}", f"seqtext {__version__}"]
    listings = None
    if isinstance(model.task, ListingTask):
        about = {"split": settings.part(split), "data": source}
        listings = [
            listing._replace(examples=[about | example for example in listing.examples])
            for listing in model.task.listings(predictions, dataset, count=worst or WORST)
        ]
    comparison = None
    if baseline is not None and isinstance(model.task, ComparingTask):
        other, encoded = baseline
        before = other.predict_encoded(encoded, batch_tokens=batch_tokens, **options)
        comparison = model.task.compare(before, predictions, dataset)
        facts.append(f"compared with {compare}")
        if isinstance(other.task, TranslatingTask):
            facts[-1] += f" ({other.task.searched(options)})"
    doubts += model.task.warnings({split: dataset}) if isinstance(model.task, WarningTask) else []
    told = "; ".join(facts)
    return Evaluation(split, len(dataset), scores, told, tables, adaptation, listings, comparison, doubts)


def predict(run: str | Path, examples: Sequence[Any], **options: Any) -> list[Any]:
    """Load a run and predict once; to predict more than once, keep what `load` returns."""
    return load(run).predict(examples, **options)


def export(run: str | Path, out: str | Path, *, form: Literal["int8", "bf16", "onnx"]) -> Exported | OnnxExported:
    """Write a finished run in another form into the new folder `out`, for prediction only.

    As "int8" and "bf16" it is a run again, with weights of 8 or 16 bits, which `load` takes; what comes back says how
    its size, speed and score compare. As "onnx" it is a graph, for the tasks ner, sentiment and lm. Raises `RunError`
    for a run that is not finished or was exported itself, and for a folder that is not empty; `InputError` for what
    has no such form, and where the extra `onnx` is not installed.
    """
    if form == "onnx":
        from seqtext.exporting.onnx import export_onnx

        return export_onnx(run, out)
    from seqtext.exporting.weights import export_weights

    return export_weights(run, out, weights=form)


def report(
    runs: Sequence[str | Path],
    out: str | Path = "report.html",
    *,
    examples: int = 5,
    limit: int = 200,
    device: str = "auto",
) -> Path:
    """Write a page of HTML about runs, side by side, and return where it is; it needs no network and no other file.

    It shows `examples` of each kind; for a run without predictions of its own, `limit` are made. Raises `InputError`
    where it cannot be written or matplotlib (the extra `plot`) is not installed, `RunError` for a folder that is no
    run; nothing is written then.
    """
    from seqtext.report.write import write_report

    return write_report(runs, out, examples=examples, limit=limit, device=device)


def check(
    recipe: str, *, data: str | None = None, overrides: Overrides = (), device: str = "auto"
) -> list[tuple[str, str]]:
    """Facts about a recipe and its data, after one training step on the longest batch; writes nothing.

    Raises `ConfigError` with all faults of the recipe, `DataError` for the data.
    """
    where = resolve_device(device)
    limit_threads()
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
    check_skips(module, place=chosen.name)
    if source_model is not None:
        facts += start_from(source_model, task, module)
    shuffle = np.random.default_rng(chosen.seed)
    with session.placing(chosen.data, "train"):
        batches = task.batches(encoded["train"], tokens=chosen.train.batch_tokens, shuffle=shuffle)
        longest = max(batches, key=lambda batch: int(batch.lengths.max()))
    chosen, choice = session.settled(chosen, where)
    if choice:
        facts.append(("precision", f"{choice.precision}: {choice.why}"))
    devices = Devices(where, precision=chosen.train.precision)
    with devices.autocast():
        loss = task.loss(module, to_device(longest, where))
    if loss.total.requires_grad:  # not where a read-out is solved for
        devices.backward(loss.total)
    count = sum(parameter.numel() for parameter in module.parameters())
    found = doubts(task, module, encoded["train"], tokens=chosen.train.batch_tokens)
    facts += [("model", f"{count:,} parameters"), *(("warning", doubt) for doubt in found)]
    shape = f"{len(longest.lengths)} x {int(longest.lengths.max())} tokens"
    facts.append(
        ("one step", f"longest batch {shape}: loss {loss.total.item() / (loss.count.item() or 1):.3f} per target")
    )
    return facts


def _place(device: str) -> tuple[torch.device, Processes]:
    """Where this process trains, and with which others."""
    group = join(device)
    return group.placed(resolve_device(device)), group


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
