"""A training session: reads the data, makes the run folder, consumes the loop's events and keeps the folder true."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch

from seqtext import recipe as recipes
from seqtext import run as runs
from seqtext.data.sources import MissingSplit, Split
from seqtext.errors import ConfigError, DataError, InputError, RunError
from seqtext.files import locked, settle, sweep, write_json_lines, write_text
from seqtext.recipe import Recipe
from seqtext.run import Run
from seqtext.task import FilteringTask, Task, WarningTask
from seqtext.training import precision, ridge
from seqtext.training.checkpoint import load_checkpoint, save_checkpoint
from seqtext.training.config import Ridge
from seqtext.training.distributed import Devices, record
from seqtext.training.log import MetricsLog, check_tensorboard
from seqtext.training.loop import EpochEnded, Evaluated, Event, Finished, Started, Stepped, fit
from seqtext.training.processes import ALONE, Lost, Processes
from seqtext.training.snapshot import Snapshot
from seqtext.training.threads import limit_threads
from seqtext.training.wiring import check_skips, doubts
from seqtext.transfer import Source, Transferred, open_source, start_from

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Doubted:
    """Before training: what looks wrong with the data."""

    warnings: list[str]


@dataclass(frozen=True)
class Filtered:
    """Before training: how many examples the filters of each split left out, in words."""

    left_out: dict[Split, str]


Listener = Callable[[Event | Transferred | Doubted | Filtered | precision.Choice], None]
Overrides = Sequence[str] | Mapping[str, Any]
RESUMABLE = ("train.epochs", "train.patience", "train.graphs")
"""The only values that may change when a run goes on: they say when it ends, or how a device is asked for the same. (A
linear or cosine schedule, which knows the end from the start, then falls towards the new one.)"""


class Interrupted(InputError):
    """Training was stopped by a signal, after a checkpoint was saved."""

    def __init__(self, folder: Path, number: int, group: Processes = ALONE) -> None:
        self.folder, self.signal = folder, number
        super().__init__(f"stopped by {signal.Signals(number).name}; go on with: {resuming(folder, group)}")


def resuming(folder: Path, group: Processes) -> str:
    """The command that goes on with a run in as many processes."""
    launcher = "" if group.world == 1 else f"torchrun --nproc-per-node {group.world} -m "
    return f"{launcher}seqtext train --resume {folder}"


def start(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    *,
    group: Processes = ALONE,
    tensorboard: bool = False,
    listen: Listener = lambda event: None,
) -> Run:
    """Train `recipe` into the new run folder `folder`, with the other processes of `group`."""
    folder = Path(group.tell(str(folder)))
    limit_threads()
    task = None
    with group.together():
        if group.first:
            runs.check_free(folder)
        if tensorboard:
            check_tensorboard()
        source = open_source(recipe.train.init_from) if recipe.train.init_from else None
        splits = read_splits(recipe)
        if group.first:
            task = recipe.task.fit(recipe.data, splits["train"])
    task = _sent(task, recipe, group)
    recipe, choice = settled(recipe.absolute(), device, group=group)
    if choice and group.first:
        listen(choice)
    facts: dict[Split, dict[str, Any]] = {
        split: {"fingerprint": data._fingerprint, "examples": len(data)} for split, data in splits.items()
    }
    if isinstance(task, FilteringTask):
        for split, left_out in task.filtered(splits).items():
            facts[split]["left_out"] = left_out
    meta = {"goal": list(task.goal), "device": str(device), "data": facts}
    return _train(recipe, task, splits, device, folder, meta, None, source, group, tensorboard, listen)


def resume(
    folder: Path,
    overrides: Overrides,
    device: torch.device,
    *,
    group: Processes = ALONE,
    tensorboard: bool = False,
    listen: Listener = lambda event: None,
) -> Run:
    """Go on with a run from its last checkpoint, to the weights it would have had without the interruption."""
    if tensorboard:
        check_tensorboard()
    limit_threads()
    with ExitStack() as held:
        with group.together():
            run, recipe, splits = _reopened(folder, overrides)
            if group.first:
                held.enter_context(locked(folder))
            snapshot = load_checkpoint(folder / "checkpoints" / "last")
        recipe, _ = settled(recipe, device, group=group)  # has been, but for one whose recipe was written by hand
        if group.first:
            try:
                settle(folder / "checkpoints" / "last")
                for place in (folder, folder / "checkpoints"):
                    sweep(place)
                if recipe.train != run.recipe.train:
                    # What the run is from now on; it is not finished, whatever it was.
                    write_text(folder / "recipe.toml", recipe.toml())
                    runs.write_meta(run, finished="")
            except OSError as error:
                raise _unwritable(folder, error) from None
        return _train(recipe, run.task, splits, device, folder, {}, run, snapshot, group, tensorboard, listen)


def _reopened(folder: Path, overrides: Overrides) -> tuple[Run, Recipe, dict[Split, Dataset]]:
    """A run that is to go on, its recipe with `overrides`, and its data."""
    run = runs.open_run(folder)
    run.check_trainable()
    keys = list(overrides) if isinstance(overrides, Mapping) else [text.partition("=")[0] for text in overrides]
    wrong = [key for key in keys if key not in RESUMABLE]
    if wrong:
        allowed = ", ".join(RESUMABLE)
        raise ConfigError(
            f"--resume {folder}", [f"{key}: fixed when a run goes on; only {allowed} can change" for key in wrong]
        )
    recipe = replace(recipes.load(str(folder / "recipe.toml"), overrides), name=run.recipe.name)
    splits = read_splits(recipe)
    for split, facts in run.meta["data"].items():
        if split not in splits or splits[split]._fingerprint != facts["fingerprint"]:
            raise DataError(
                f"the {split} data is not what this run was started on ({recipe.data.source}); "
                "a run goes on only with the same data",
                path=folder,
            )
    return run, recipe, splits


def _sent(task: Task | None, recipe: Recipe, group: Processes) -> Task:
    """The task that the first process has fitted, in all of them: so words have the same numbers everywhere."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        if task is not None and group.world > 1:
            task.save(folder)
        for name in group.tell(sorted(path.name for path in folder.iterdir())):
            data = group.send((folder / name).read_bytes() if group.first else b"")
            if not group.first:
                (folder / name).write_bytes(data)
        return task or recipe.task.load(folder, recipe.data)


def settled(
    recipe: Recipe, device: torch.device, *, group: Processes = ALONE
) -> tuple[Recipe, precision.Choice | None]:
    """The recipe as a run keeps it, where what depends on the machine is decided for good; and what was chosen.

    Raises `DeviceError` where the device cannot do what the recipe asks for.
    """
    record(recipe.train.graphs, device)
    found = group.tell(precision.resolve(recipe.train.precision, device) if group.first else None)
    if found is None:
        return recipe, None
    choice = precision.Choice(*found)
    return replace(recipe, train=recipe.train.model_copy(update={"precision": choice.precision})), choice


def read_splits(recipe: Recipe) -> dict[Split, Dataset]:
    """The splits of a recipe's data: train and valid must be there, test may be."""
    parts: tuple[Split, ...] = ("train", "valid")
    splits = {split: recipe.task.read(recipe.data, split) for split in parts}
    with suppress(MissingSplit):
        splits["test"] = recipe.task.read(recipe.data, "test")
    return splits


def origin(data: Any, split: Split) -> str:
    """What the data settings read `split` from."""
    # The sample never completes data that is given: a split that has no file is cut from the training file.
    return getattr(data, split) or (data.train if data.source == "sample" else None) or data.source


@contextmanager
def placing(data: Any, split: Split) -> Iterator[None]:
    """Gives a `DataError` that names no place the name of the split that it is about."""
    try:
        yield
    except DataError as error:
        raise error if error.path else DataError(str(error), path=f"{origin(data, split)} ({split})") from None


def encode(task: Task, data: Any, split: Split, dataset: Dataset) -> Sized:
    """A split as numbers. Raises `DataError` naming the split for a label that training has not seen."""
    with placing(data, split):
        return task.encode(dataset)


def _train(
    recipe: Recipe,
    task: Task,
    splits: Mapping[Split, Dataset],
    device: torch.device,
    folder: Path,
    meta: dict[str, Any],
    run: Run | None,
    start_at: Snapshot | Source | None,
    group: Processes,
    tensorboard: bool,
    listen: Listener,
) -> Run:
    if not group.first:  # one process writes and tells
        listen = _nobody
    with group.together():
        encoded = {split: encode(task, recipe.data, split, dataset) for split, dataset in splits.items()}
        if isinstance(task, FilteringTask) and (left_out := task.filtered(splits)):
            listen(Filtered(left_out))
        devices = Devices(device, precision=recipe.train.precision, group=group)
        torch.manual_seed(recipe.seed)
        module = runs.build(task, recipe.model, place=recipe.name).to(devices.device)
        if run is None:
            check_skips(module, place=recipe.name)
        found = task.warnings(splits) if isinstance(task, WarningTask) else []
        found += doubts(task, module, encoded["train"], tokens=recipe.train.batch_tokens)
        if found:
            listen(Doubted(found))
        snapshot = start_at if isinstance(start_at, Snapshot) else None
        if isinstance(start_at, Source):
            facts = start_from(start_at, task, module)
            meta["init_from"] = [list(fact) for fact in facts]
            listen(Transferred(facts))
    valid = (encoded["valid"], splits["valid"])
    train = ridge.fit if isinstance(recipe.train.optimizer, Ridge) else fit
    events = train(
        task, module, encoded["train"], valid, recipe.train, devices=devices, seed=recipe.seed, resume=snapshot
    )
    log: MetricsLog | None = None
    held = ExitStack()
    caught = held.enter_context(signals())
    every = recipe.train.checkpoint_every
    try:
        for event in events:
            if isinstance(event, Started):
                if run is None:
                    meta["parameters"] = event.parameters
                    begin = event.snapshot()
                    run = Run(folder, recipe, task, meta)
                    if group.first:
                        run = runs.create(folder, recipe, task, module, begin, meta)
                        held.enter_context(locked(folder))
                at = (event.step, event.epoch) if snapshot else None
                log = MetricsLog(folder, resumed_at=at, tensorboard=tensorboard) if group.first else None
            elif isinstance(event, Evaluated) and event.best and group.first:
                about = {"step": str(event.step), task.goal.key: repr(event.best_score)}
                runs.check_there(folder)
                runs.save_weights(folder, module, about)
            assert run is not None
            if group.first and isinstance(event, EpochEnded | Finished):
                runs.check_there(folder)
            _record(log, event)
            if isinstance(event, EpochEnded) or (isinstance(event, Stepped) and every and event.step % every == 0):
                _keep(folder, event, group)
            listen(event)
            if isinstance(event, Stepped | EpochEnded) and (number := group.largest(caught[0] if caught else 0)):
                _keep(folder, event, group)
                group.wait()  # a process that ends has its launcher end the others, which may still be writing
                raise Interrupted(folder, number, group)
            if isinstance(event, Finished):
                _finish(run, recipe, task, module, splits, encoded, devices, event, log)
    except DataError as error:
        with placing(recipe.data, "train"):
            raise error
    except Lost as error:
        advice = f"; go on from the last checkpoint with: {resuming(folder, group)}" if run is not None else ""
        raise Lost(f"{folder}: {error}{advice}") from None
    except OSError as error:
        raise _unwritable(folder, error) from None
    finally:
        events.close()
        if log is not None:
            log.close()
        held.close()
    assert run is not None
    return run


def _nobody(event: Any) -> None:
    """The listener of a process other than the first."""


def _keep(folder: Path, event: Stepped | EpochEnded, group: Processes) -> None:
    """Save a checkpoint, which all processes give their part of and the first one writes."""
    snapshot = event.snapshot()
    if group.first:
        runs.check_there(folder)
        save_checkpoint(folder / "checkpoints" / "last", snapshot)


def _unwritable(folder: Path, error: OSError) -> RunError:
    return RunError(
        f"{folder}: cannot be written: {error.strerror or error}; when it can be, go on with --resume {folder}"
    )


def _finish(
    run: Run,
    recipe: Recipe,
    task: Task,
    module: Any,
    splits: Mapping[Split, Dataset],
    encoded: Mapping[Split, Sized],
    devices: Devices,
    event: Finished,
    log: MetricsLog | None,
) -> None:
    """Score the best weights on what is held out and file the result."""
    group = devices.group
    about = group.tell(runs.load_weights(run.folder, module) if group.first else None)
    group.share(list(module.state_dict().values()))
    scores = {}
    held_out: tuple[Split, ...] = ("valid", "test")
    for split in held_out:
        if split in splits:
            predictions = devices.predict(task, module, encoded[split], tokens=recipe.train.eval_batch_tokens)
            scores[split] = group.tell(task.score(predictions, splits[split]) if group.first else None)
            if log is None:
                continue
            log.write(f"final.{split}", {"step": int(about["step"]), **scores[split]})
            lines = (task.record(*pair) for pair in zip(splits[split], predictions))
            write_json_lines(run.folder / f"predictions.{split}.jsonl", lines)
    facts = {"step": int(about["step"]), "scores": scores, "finished": event.reason, "epochs": event.epoch}
    if group.first:
        runs.write_meta(run, **facts)
    run.meta.update(facts)
    group.wait()  # whoever ends first, the run is whole


def _record(log: MetricsLog | None, event: Event) -> None:
    if log is None:
        return
    if isinstance(event, Stepped) and event.loss is not None:
        values = {"step": event.step, "epoch": event.epoch, "loss": event.loss, "lr": event.lr}
        log.write("train", values | {"grad_norm": event.grad_norm})
    elif isinstance(event, Evaluated):
        log.write("valid", {"step": event.step, "epoch": event.epoch, **event.scores})
    elif isinstance(event, EpochEnded):
        rate = event.tokens / max(event.seconds, 1e-9)
        values = {"step": event.step, "epoch": event.epoch, "loss": event.loss, "lr": event.lr}
        log.write("epoch", values | {"seconds": round(event.seconds, 3), "tokens_per_second": round(rate, 1)})


@contextmanager
def signals() -> Iterator[list[int]]:
    """Gather SIGINT and SIGTERM for the loop to act on at its next step; a second SIGINT stops at once."""
    caught: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield caught
        return

    def note(number: int, frame: FrameType | None) -> None:
        if caught and number == signal.SIGINT:
            raise KeyboardInterrupt
        caught.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
