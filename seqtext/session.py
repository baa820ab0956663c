"""A training session: reads the data, makes the run folder, consumes the loop's events and keeps the folder true."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
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
from seqtext.task import FilteringTask, Task, WarningTask, predict_all
from seqtext.training.checkpoint import load_checkpoint, save_checkpoint
from seqtext.training.distributed import Devices
from seqtext.training.log import MetricsLog, check_tensorboard
from seqtext.training.loop import EpochEnded, Evaluated, Event, Finished, Started, Stepped, fit
from seqtext.training.snapshot import Snapshot
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


Listener = Callable[[Event | Transferred | Doubted | Filtered], None]
Overrides = Sequence[str] | Mapping[str, Any]
RESUMABLE = ("train.epochs", "train.patience")
"""The only values that may change when a run goes on: they say when it ends. (A linear or cosine schedule, which knows
the end from the start, then falls towards the new one.)"""


class Interrupted(InputError):
    """Training was stopped by a signal, after a checkpoint was saved."""

    def __init__(self, folder: Path, number: int) -> None:
        self.folder, self.signal = folder, number
        super().__init__(f"stopped by {signal.Signals(number).name}; go on with: seqtext train --resume {folder}")


def start(
    recipe: Recipe,
    folder: Path,
    device: torch.device,
    *,
    tensorboard: bool = False,
    listen: Listener = lambda event: None,
) -> Run:
    """Train `recipe` into the new run folder `folder`."""
    runs.check_free(folder)
    if tensorboard:
        check_tensorboard()
    source = open_source(recipe.train.init_from) if recipe.train.init_from else None
    splits = read_splits(recipe)
    task = recipe.task.fit(recipe.data, splits["train"])
    recipe = recipe.absolute()
    facts: dict[Split, dict[str, Any]] = {
        split: {"fingerprint": data._fingerprint, "examples": len(data)} for split, data in splits.items()
    }
    if isinstance(task, FilteringTask):
        for split, left_out in task.filtered(splits).items():
            facts[split]["left_out"] = left_out
    meta = {"goal": list(task.goal), "device": str(device), "data": facts}
    with signals() as caught:
        return _train(recipe, task, splits, device, folder, meta, None, source, tensorboard, listen, caught)


def resume(
    folder: Path,
    overrides: Overrides,
    device: torch.device,
    *,
    tensorboard: bool = False,
    listen: Listener = lambda event: None,
) -> Run:
    """Go on with a run from its last checkpoint, to the weights it would have had without the interruption."""
    if tensorboard:
        check_tensorboard()
    run = runs.open_run(folder)
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
    with locked(folder), signals() as caught:
        snapshot = load_checkpoint(folder / "checkpoints" / "last")
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
        return _train(recipe, run.task, splits, device, folder, {}, run, snapshot, tensorboard, listen, caught)


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
    tensorboard: bool,
    listen: Listener,
    caught: list[int],
) -> Run:
    encoded = {split: encode(task, recipe.data, split, dataset) for split, dataset in splits.items()}
    if isinstance(task, FilteringTask) and (left_out := task.filtered(splits)):
        listen(Filtered(left_out))
    if isinstance(task, WarningTask) and (doubts := task.warnings(splits)):
        listen(Doubted(doubts))
    devices = Devices(device, precision=recipe.train.precision)
    torch.manual_seed(recipe.seed)
    module = runs.build(task, recipe.model, place=recipe.name).to(devices.device)
    snapshot = start_at if isinstance(start_at, Snapshot) else None
    if isinstance(start_at, Source):
        facts = start_from(start_at, task, module)
        meta["init_from"] = [list(fact) for fact in facts]
        listen(Transferred(facts))
    valid = (encoded["valid"], splits["valid"])
    events = fit(
        task, module, encoded["train"], valid, recipe.train, devices=devices, seed=recipe.seed, resume=snapshot
    )
    log: MetricsLog | None = None
    held = ExitStack()
    last = folder / "checkpoints" / "last"
    every = recipe.train.checkpoint_every
    try:
        for event in events:
            if isinstance(event, Started):
                if run is None:
                    meta["parameters"] = event.parameters
                    run = runs.create(folder, recipe, task, module, event.snapshot(), meta)
                    held.enter_context(locked(folder))
                at = (event.step, event.epoch) if snapshot else None
                log = MetricsLog(folder, resumed_at=at, tensorboard=tensorboard)
            elif isinstance(event, Evaluated) and event.best:
                about = {"step": str(event.step), task.goal.key: repr(event.best_score)}
                runs.save_weights(folder, module, about)
            assert run is not None and log is not None
            _record(log, event)
            if isinstance(event, EpochEnded) or (isinstance(event, Stepped) and every and event.step % every == 0):
                save_checkpoint(last, event.snapshot())
            listen(event)
            if caught and isinstance(event, Stepped | EpochEnded):
                save_checkpoint(last, event.snapshot())
                raise Interrupted(folder, caught[0])
            if isinstance(event, Finished):
                _finish(run, recipe, task, module, splits, encoded, devices, event, log)
    except DataError as error:
        with placing(recipe.data, "train"):
            raise error
    except OSError as error:
        raise _unwritable(folder, error) from None
    finally:
        events.close()
        if log is not None:
            log.close()
        held.close()
    assert run is not None
    return run


def _unwritable(folder: Path, error: OSError) -> RunError:
    return RunError(f"{folder}: cannot be written: {error.strerror or error}; go on with --resume {folder}")


def _finish(
    run: Run,
    recipe: Recipe,
    task: Task,
    module: Any,
    splits: Mapping[Split, Dataset],
    encoded: Mapping[Split, Sized],
    devices: Devices,
    event: Finished,
    log: MetricsLog,
) -> None:
    """Score the best weights on what is held out and file the result."""
    about = runs.load_weights(run.folder, module)
    scores = {}
    held_out: tuple[Split, ...] = ("valid", "test")
    for split in held_out:
        if split in splits:
            batches = task.batches(encoded[split], tokens=recipe.train.eval_batch_tokens)
            with devices.autocast():
                predictions = predict_all(task, module, encoded[split], batches, devices.device)
            scores[split] = task.score(predictions, splits[split])
            log.write(f"final.{split}", {"step": int(about["step"]), **scores[split]})
            if split == "valid":
                lines = (task.record(*pair) for pair in zip(splits[split], predictions))
                write_json_lines(run.folder / "predictions.valid.jsonl", lines)
    runs.write_meta(run, step=int(about["step"]), scores=scores, finished=event.reason, epochs=event.epoch)


def _record(log: MetricsLog, event: Event) -> None:
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
