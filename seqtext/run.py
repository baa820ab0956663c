"""The run folder: what training leaves and everything else loads.

    recipe.toml             fully resolved, itself a recipe
    model.safetensors       the best weights so far, with the step and score they reached
    tokenizer.json, characters.json, labels.json ...    what the task learned (`Task.save`)
    meta.json               format version, library versions, seed, data fingerprints, scores
    metrics.jsonl           every report of training
    predictions.valid.jsonl what the best weights predict for the validation split; predictions.test.jsonl for the test
                            split, where there is one
    errors.jsonl            what the last evaluation on the run's own data was most confidently wrong about, for tasks
                            that can tell; for translations worst.jsonl and best.jsonl
    checkpoints/last/       for going on with training, nothing else

An exported run (`exporting`) has the first four only, its weights in fewer bits; it predicts, and cannot be trained on.
What it was made of stands in meta.json under "exported".

A run appears complete: it is made under another name and renamed. Loading one runs none of its maker's code.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seqtext import __version__
from seqtext import recipe as recipes
from seqtext.errors import ConfigError, InputError, RunError
from seqtext.files import locked, make_held, read_json, replacing, sweep_beside, write_json
from seqtext.nn.quantized import to_bf16, to_int8, unpacked
from seqtext.recipe import Recipe
from seqtext.task import Task
from seqtext.training.checkpoint import save_checkpoint, save_tensors
from seqtext.training.snapshot import Snapshot

FORMAT = 1
"""Of a run that was trained. Grows when a run folder written by newer code can no longer be read by older code."""
EXPORTED_FORMAT = 2
"""Of one whose weights were exported in fewer bits, which no code reads that knows format 1 only."""
ONNX = "onnx.json"
"""What an ONNX export, which is no run, says of itself."""
LIBRARIES = ("torch", "numpy", "tokenizers", "datasets", "accelerate", "safetensors", "nltk")


@dataclass(frozen=True)
class Run:
    """A folder with a recipe, a task and facts."""

    folder: Path
    recipe: Recipe
    task: Task
    meta: dict[str, Any]

    @property
    def exported(self) -> str | None:
        """In which number format its weights were exported; None for a run as training left it."""
        return self.meta["exported"]["weights"] if "exported" in self.meta else None

    @property
    def form(self) -> str:
        """An exported run's format with its article: "an int8 export"."""
        return f"{'an' if self.exported == 'int8' else 'a'} {self.exported} export"

    def check_trainable(self) -> None:
        """Raises `RunError` where it can only predict."""
        if self.exported:
            origin = self.meta["exported"]["run"]
            raise RunError(f"{self.folder}: {self.form}, which can only predict; it was made of the run {origin}")


def check_free(folder: Path) -> None:
    """Raises `RunError` where `folder` exists and is not empty, or cannot be made: before the data is read."""
    if folder.is_dir() and any(folder.iterdir()):
        try:
            with locked(folder):
                pass
        except RunError:
            raise RunError(f"{folder}: another process is training in this folder; choose another --out") from None
        raise RunError(
            f"{folder}: exists already; choose another --out, or go on with it: seqtext train --resume {folder}"
        )
    above = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not above.is_dir():
        raise RunError(f"{folder}: cannot be made: {above} is a file")
    if not os.access(above, os.W_OK):
        raise RunError(f"{folder}: cannot be made: {above} cannot be written to")


def create(
    folder: Path, recipe: Recipe, task: Task, module: nn.Module, snapshot: Snapshot, meta: dict[str, Any]
) -> Run:
    """Make a complete run folder for a training that is about to start.

    Raises `RunError` where `folder` exists and is not empty.
    """
    meta = {"format": FORMAT, "task": recipe.task.name, "recipe": recipe.name, "seed": recipe.seed, **meta}
    meta |= {"versions": versions(), "step": 0, "scores": {}}
    try:
        sweep_beside(folder)
        with ExitStack() as held, replacing(folder, new=True) as unfinished:
            make_held(unfinished, held)
            (unfinished / "recipe.toml").write_text(recipe.toml(), encoding="utf-8")
            task.save(unfinished)
            save_weights(unfinished, module, {"step": "0"})
            write_json(unfinished / "meta.json", meta)
            (unfinished / "metrics.jsonl").touch()
            save_checkpoint(unfinished / "checkpoints" / "last", snapshot)
            if folder.is_dir():  # Not empty any more where another training made its run here in the meantime.
                folder.rmdir()
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise RunError(f"{folder}: another training made its run here meanwhile; choose another --out") from None
        raise RunError(f"{folder}: cannot be written: {error.strerror or error}") from None
    return Run(folder, recipe, task, meta)


def open_run(folder: str | Path) -> Run:
    """Read a run folder's recipe, task and facts. Raises `RunError` naming what is missing, damaged or too new."""
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"{folder}: no such run folder")
    place = folder / "meta.json"
    if not place.exists() and (inner := sorted(path.parent.name for path in folder.glob("*/meta.json"))):
        raise RunError(
            f"{folder}: no run itself, it holds runs ({', '.join(inner)}): name one of them; a training with --seeds "
            "or --folds goes on by the same command as before, without --resume"
        )
    if not place.exists() and (folder / ONNX).exists():
        origin = read_json(folder / ONNX).get("run", "?")
        raise RunError(
            f"{folder}: an ONNX export, for onnxruntime as its README.md says; seqtext predicts with the run that it "
            f"was made of, {origin}"
        )
    meta = read_json(place, check=lambda value: isinstance(value, dict) and "format" in value)
    version, writers = meta["format"], meta.get("versions")
    if not isinstance(version, int) or version > EXPORTED_FORMAT:
        writer = writers.get("seqtext", "?") if isinstance(writers, dict) else "?"
        raise RunError(
            f"{place}: run format {version}, written by seqtext {writer}; "
            f"this seqtext reads up to format {EXPORTED_FORMAT}: upgrade it"
        )
    if lacking := [key for key in ("task", "data", "step", "scores") if key not in meta]:
        raise RunError(f"{place}: damaged, it lacks {', '.join(lacking)}")
    if "exported" in meta and not _says_how(meta["exported"]):
        raise RunError(f"{place}: damaged, it does not say how the weights were exported")
    path = folder / "recipe.toml"
    if not path.is_file():
        raise RunError(f"{path}: missing; the run folder is not complete")
    try:
        recipe = recipes.load(str(path))
    except ConfigError as error:
        lines = [f"{path}: not a recipe that this seqtext can read", *(f"  {fault}" for fault in error.faults)]
        raise RunError("\n".join(lines)) from None
    task = recipe.task.load(folder, recipe.data)
    return Run(folder, replace(recipe, name=str(meta.get("recipe", folder.name))), task, meta)


def build(task: Task, model: Any, *, place: str | Path) -> nn.Module:
    """The untrained module. Raises `InputError` naming `place` for sizes that no memory has."""
    try:
        return task.build(model)
    except (RuntimeError, TypeError, MemoryError) as error:
        if isinstance(error, MemoryError) or "allocate" in str(error) or "argument 'size'" in str(error):
            reason = str(error).splitlines()[0].rpartition("] ")[2]
            raise InputError(f"{place}: a model of these sizes ([model]) cannot be made: {reason}") from None
        raise


def save_weights(folder: Path, module: nn.Module, about: dict[str, str]) -> None:
    """Write model.safetensors whole; `about` travels in its header."""
    with replacing(folder / "model.safetensors") as unfinished:
        save_tensors(unfinished, module.state_dict(), about)


def load_weights(folder: Path, module: nn.Module) -> dict[str, str]:
    """Load model.safetensors into `module`, which is in float32, and return what its header says.

    Raises `RunError` naming the file.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / "model.safetensors"
    if not path.is_file():
        raise RunError(f"{path}: missing; the run folder is not complete")
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = file.metadata() or {}
        module.load_state_dict(unpacked(tensors))
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path}: damaged or cut off ({error})") from None
    except RuntimeError as error:
        raise RunError(
            f"{path}: does not fit the model of recipe.toml: {str(error).splitlines()[-1].strip()}"
        ) from None
    return about


def check_there(folder: Path) -> None:
    """Raises `RunError` where a run's folder has gone while it was trained, before any of it is made anew."""
    if not (folder / "recipe.toml").is_file():
        raise RunError(
            f"{folder}: gone since the training began (no recipe.toml in it); nothing more is written there. If it was "
            "moved, go on with --resume and the folder's new name"
        )


def computing(run: Run, module: nn.Module, device: torch.device) -> nn.Module:
    """The module of a run, loaded, as it predicts on `device`: an exported one in the format of its export.

    What has 8 bits computes in them on a CPU; on another device, and where torch has no kernels for them, in float32.
    Raises `RunError` where meta.json and the model do not fit.
    """
    if run.exported == "bf16":
        return to_bf16(module)
    if run.exported == "int8" and device.type == "cpu":
        try:
            return to_int8(module, run.meta["exported"]["matrices"])
        except ValueError as error:
            raise RunError(f"{run.folder / 'meta.json'}: does not fit the model of recipe.toml: {error}") from None
    return module


def _says_how(exported: Any) -> bool:
    """Whether this is what `exporting` wrote of the weights."""
    return (
        isinstance(exported, dict)
        and exported.get("weights") in ("int8", "bf16")
        and isinstance(exported.get("run"), str)
        and isinstance(exported.get("matrices"), list)
        and all(isinstance(name, str) for name in exported["matrices"])
    )


def write_meta(run: Run, **changes: Any) -> None:
    """Update the facts on disk and in memory."""
    run.meta.update(changes)
    write_json(run.folder / "meta.json", run.meta)


def versions() -> dict[str, str]:
    """What a run was made with."""
    found = {"seqtext": __version__, "python": sys.version.split()[0]}
    return found | {name: importlib.metadata.version(name) for name in LIBRARIES}
