"""A search for better settings of a recipe, over the ranges of its [tune] table, by Optuna.

The folder of a study holds `recipe.toml`, what is searched; `study.jsonl`, Optuna's journal of all trials (JSON lines);
and `best.toml`, the recipe with the best settings so far. A trial is a training that leaves nothing but its line. It is
stopped early where its validation score is below the median of the trials before it at the same epoch. Settings are
chosen by a tree-structured Parzen estimator (Bergstra 2011), which is seeded anew for every trial by the recipe's seed
and the trials there are: a study that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from seqtext import recipe as recipes
from seqtext import session
from seqtext.config import read_toml, to_toml
from seqtext.errors import ConfigError, InputError, RunError
from seqtext.files import locked, one_at_a_time, write_text
from seqtext.recipe import Recipe
from seqtext.training.distributed import record
from seqtext.training.loop import Evaluated
from seqtext.training.processes import several
from seqtext.training.progress import NonFiniteLoss
from seqtext.training.threads import chosen as threads

JOURNAL = "study.jsonl"
STUDY = "seqtext"
INTERRUPTED = "interrupted"
"""Why a trial failed that is tried again."""


class Tried(NamedTuple):
    """One trial."""

    number: int
    state: str
    """done, pruned or failed."""
    score: float | None
    """The best of its validation scores; None where it failed."""
    epochs: int
    values: dict[str, Any]
    """What it tried, by dotted key."""
    reason: str = ""
    """Why it failed."""


class Tuned(NamedTuple):
    """What a search has found."""

    folder: Path
    goal: tuple[str, str]
    """What was searched for: the key of the score, and max or min."""
    trials: list[Tried]
    """In the order of their numbers."""
    best: Tried | None
    importance: dict[str, float]
    """The share of each key in what makes a trial good (PED-ANOVA, Watanabe 2023); empty while there are few."""


Listener = Callable[[Tried], None]


class Stopped(InputError):
    """A search was stopped by a signal; what it has found is kept."""

    def __init__(self, tuned: Tuned, number: int, trials: int) -> None:
        self.tuned, self.signal = tuned, number
        done = f"after {len(tuned.trials)} of {trials} trials"
        super().__init__(
            f"stopped by {signal.Signals(number).name} {done}; the same command with --out {tuned.folder} goes on"
        )


class _Pruned(Exception):
    """Raised by a listener: the trial is not worth going on with."""


class _Told(Exception):
    """Raised by a listener: a signal came."""


def tune(
    recipe: Recipe,
    trials: int,
    folder: Path,
    device: torch.device,
    *,
    processes: int = 1,
    listen: Listener = lambda tried: None,
) -> Tuned:
    """Bring the study in `folder` to so many trials, those that are there among them.

    With several `processes`, as many trials at a time, each with its share of the threads. Raises `InputError` for a
    recipe without [tune] and where Optuna is not installed, `RunError` where `folder` holds anything but a study of
    this very recipe, `Stopped` where SIGINT or SIGTERM came.
    """
    _optuna()
    if several():
        raise InputError("seqtext tune starts processes of its own (--processes); run it without a launcher")
    for flag, number in (("--trials", trials), ("--processes", processes)):
        if number < 1:
            raise InputError(f"{flag} {number}: expected 1 or more")
    if not recipe.tune:
        example = "[tune] with lines such as train.optimizer.lr = {low = 1e-4, high = 1e-2, log = true}"
        raise InputError(f"{recipe.name}: no [tune] table in this recipe; it says what to try: {example}")
    record(recipe.train.graphs, device)
    text = _text(recipe)
    _check(folder, text)
    if not (folder / "recipe.toml").exists():
        session.read_splits(recipe)  # what is wrong with the data is wrong in every trial
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / "recipe.toml", text)
        except OSError as error:
            raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None
    with locked(folder), session.signals() as caught:
        _drop_cut_line(folder / JOURNAL)
        _mend(_study(folder, recipe))
        try:
            if processes == 1:
                _work(folder, trials, device, worker=0, beside=False, caught=caught, listen=listen)
            else:
                _spread(folder, trials, device, processes, caught, listen)
        except _Told:
            pass
        found = summary(folder)
        if found.best:
            write_text(folder / "best.toml", _with(folder, found.best.values).toml())
    if caught and len(found.trials) < trials:
        raise Stopped(found, caught[0], trials)
    return found


def summary(folder: Path) -> Tuned:
    """What a study has found so far."""
    optuna, recipe = _optuna(), _searched(folder)
    study = _study(folder, recipe)
    goal = recipe.task.goal
    trials = [_tried(trial) for trial in _counted(study) if trial.state.is_finished()]
    done = [tried for tried in trials if tried.state == "done" and tried.score is not None]
    sign = 1.0 if goal.mode == "max" else -1.0
    best = max(done, key=lambda tried: sign * (tried.score or 0.0), default=None)
    importance: dict[str, float] = {}
    if len(done) > 3 and len(recipe.tune) > 1:
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        with suppress(ValueError, RuntimeError):  # where trials differ in too little to say
            importance = dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
    return Tuned(folder, (goal.key, goal.mode), trials, best, importance)


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise InputError('seqtext tune needs the optuna package: pip install "seqtext[tune]"') from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


def _text(recipe: Recipe) -> str:
    """A recipe with its ranges, as a study keeps it."""
    ranges = {key: tried.model_dump(exclude_defaults=True) for key, tried in recipe.tune.items()}
    return replace(recipe.absolute(), expected=None).toml() + "\n" + to_toml({"tune": ranges})


def _check(folder: Path, text: str) -> None:
    """Raises `RunError` where something else stands in `folder`."""
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder}: this is a file; choose another --out")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / JOURNAL).exists() or not (folder / "recipe.toml").exists():
        if {path.name for path in folder.iterdir()} == {"recipe.toml"}:  # stopped before the first trial
            return
        raise RunError(f"{folder}: exists already and is no study; choose another --out")
    if (folder / "recipe.toml").read_text(encoding="utf-8") != text:
        raise RunError(f"{folder}: a study of another recipe or other settings; choose another --out")


def _searched(folder: Path) -> Recipe:
    """The recipe of a study."""
    return recipes.load(str(folder / "recipe.toml"))


def _with(folder: Path, values: dict[str, Any]) -> Recipe:
    """That recipe with settings of a trial, without ranges. Raises `ConfigError` for settings that go not together."""
    path = folder / "recipe.toml"
    table = {key: value for key, value in read_toml(path).items() if key != "tune"}
    return recipes.check(recipes.changed(table, values, source=str(path)), name=folder.name, source=str(path))


def _study(folder: Path, recipe: Recipe) -> Any:
    optuna = _optuna()
    from optuna.storages.journal import JournalFileBackend

    direction = "maximize" if recipe.task.goal.mode == "max" else "minimize"
    pruner = optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=1)
    try:
        storage = optuna.storages.JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
        return optuna.create_study(
            storage=storage, study_name=STUDY, direction=direction, pruner=pruner, load_if_exists=True
        )
    except (ValueError, KeyError) as error:
        raise RunError(f"{folder / JOURNAL}: damaged, not the journal of a study ({error})") from None


def _drop_cut_line(journal: Path) -> None:
    """Take away a last line that a kill has cut, which the next one would be glued to."""
    data = journal.read_bytes() if journal.exists() else b""
    if data and not data.endswith(b"\n"):
        os.truncate(journal, data.rfind(b"\n") + 1)


def _counted(study: Any) -> list[Any]:
    """The trials that were begun, but for those that were interrupted and are tried again."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False)
    return [t for t in trials if t.state != TrialState.WAITING and t.user_attrs.get("reason") != INTERRUPTED]


def _tried(trial: Any) -> Tried:
    state = {"COMPLETE": "done", "PRUNED": "pruned"}.get(trial.state.name, "failed")
    score = None if state == "failed" else trial.user_attrs.get("best")
    epochs = len(trial.intermediate_values)
    return Tried(trial.number, state, score, epochs, dict(trial.params), trial.user_attrs.get("reason", ""))


def _mend(study: Any) -> None:
    """Have trials that a kill left under way tried again."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        _again(study, trial.number, trial._trial_id, dict(trial.params))


def _again(study: Any, number: int, identity: int, values: dict[str, Any]) -> None:
    """File a trial as interrupted, and what it tried as what the next one tries."""
    from optuna.trial import TrialState

    study._storage.set_trial_user_attr(identity, "reason", INTERRUPTED)
    study.tell(number, state=TrialState.FAIL)
    study.enqueue_trial(values)


def _work(
    folder: Path,
    trials: int,
    device: torch.device,
    *,
    worker: int,
    beside: bool,
    caught: list[int],
    listen: Listener,
) -> None:
    """Make trials until there are enough. Raises `_Told` where a signal came."""
    optuna, recipe = _optuna(), _searched(folder)
    study = _study(folder, recipe)
    while True:
        with one_at_a_time(folder / ".ask"):
            count = len(_counted(study))
            if count >= trials:
                return
            seed = int(np.random.SeedSequence([recipe.seed, count, worker]).generate_state(1)[0])
            study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=beside)
            trial = study.ask()
            values = {key: tried.suggest(trial, key) for key, tried in recipe.tune.items()}
        _one(study, trial, folder, values, device, caught)
        listen(_tried(study.get_trials(deepcopy=False)[trial.number]))


def _one(study: Any, trial: Any, folder: Path, values: dict[str, Any], device: torch.device, caught: list[int]) -> None:
    """Train with these values, and file how it went."""
    from multiprocessing import parent_process

    from optuna.trial import TrialState

    above = parent_process()  # of one of several processes, the one that began them
    chosen: Recipe | None = None

    def watch(event: Any) -> None:
        if caught or (above is not None and not above.is_alive()):
            raise _Told
        if isinstance(event, Evaluated):
            trial.set_user_attr("best", event.best_score)
            trial.report(event.scores[event.goal], event.epoch)
            if trial.should_prune() and chosen and event.epoch < chosen.train.epochs:
                raise _Pruned

    with _place(folder, trial.number) as place:
        try:
            chosen = _with(folder, values)
            run = session.start(chosen, place, device, listen=watch)
            study.tell(trial, run.meta["scores"]["valid"][run.task.goal.key])
        except _Pruned:
            study.tell(trial, state=TrialState.PRUNED)
        except (NonFiniteLoss, ConfigError) as error:
            reason = "; ".join(error.faults) if isinstance(error, ConfigError) else str(error).partition(";")[0]
            trial.set_user_attr("reason", reason)
            study.tell(trial, state=TrialState.FAIL)
        except BaseException as error:
            _again(study, trial.number, trial._trial_id, values)
            if isinstance(error, session.Interrupted):
                caught.append(error.signal)
                raise _Told from None
            raise


@contextmanager
def _place(folder: Path, number: int) -> Iterator[Path]:
    """Where a trial trains; nothing of it stays."""
    place = folder / "trials" / str(number)
    shutil.rmtree(place, ignore_errors=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):
            place.parent.rmdir()


def _spread(
    folder: Path, trials: int, device: torch.device, processes: int, caught: list[int], listen: Listener
) -> None:
    """`_work` in several processes. Raises `_Told`, and what went wrong in one of them."""
    from multiprocessing import get_context

    context = get_context("spawn")
    said = context.SimpleQueue()
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = before or str(max(1, threads() // processes))
    try:
        workers = [
            context.Process(target=_worker, args=(str(folder), trials, str(device), number, said), daemon=True)
            for number in range(processes)
        ]
        for worker in workers:
            worker.start()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
    wrong, told = "", False
    while any(worker.is_alive() for worker in workers) or not said.empty():
        while not said.empty():
            word = said.get()
            if isinstance(word, Tried):
                listen(word)
            else:
                wrong = wrong or str(word)
        if (caught or wrong) and not told:
            told = True
            for worker in workers:
                worker.terminate()  # SIGTERM: where SIGINT came to them too, a second one would end them at once
        workers[0].join(0.1)
    if wrong:
        raise InputError(wrong)
    if caught:
        raise _Told
    if bad := [worker.exitcode for worker in workers if worker.exitcode]:
        raise RunError(f"{folder}: a process of the search ended with {bad[0]}; the same command goes on")


def _worker(folder: str, trials: int, device: str, number: int, said: Any) -> None:
    """One of the processes of `_spread`, which hears of every trial, or what went wrong."""
    with session.signals() as caught:
        try:
            _work(
                Path(folder), trials, torch.device(device), worker=number, beside=True, caught=caught, listen=said.put
            )
        except InputError as error:
            said.put(str(error))
        except _Told:
            pass
