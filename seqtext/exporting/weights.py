"""A run's weights in fewer bits, as another run folder that everything but training takes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Literal, NamedTuple

from torch import nn

from seqtext import run as runs
from seqtext.errors import InputError, RunError
from seqtext.exporting.measure import Comparison, compare
from seqtext.files import replacing, write_json
from seqtext.model import load
from seqtext.nn.int8 import SUPPORTED
from seqtext.nn.quantized import in_float32, packed, parts, to_bf16
from seqtext.run import EXPORTED_FORMAT, Run
from seqtext.training.checkpoint import save_tensors

Weights = Literal["int8", "bf16"]


class Share(NamedTuple):
    """Weights of one kind."""

    kind: str
    numbers: int
    """How many there are."""
    kept: str
    """The number format of the file."""
    computed: str
    """That which they compute in."""


class Exported(NamedTuple):
    """What an export made of a run."""

    folder: Path
    weights: Weights
    shares: list[Share]
    comparison: Comparison


def open_finished(folder: str | Path) -> Run:
    """The run in a folder. Raises `RunError` for one that was exported itself, or was not trained to its end."""
    run = runs.open_run(folder)
    if run.exported:
        origin = run.meta["exported"]["run"]
        raise RunError(f"{folder}: {run.form} itself; export the run that it was made of: {origin}")
    if not run.meta.get("finished"):
        raise RunError(f"{folder}: not trained to its end; go on with it first: seqtext train --resume {folder}")
    return run


def check_place(out: str | Path) -> Path:
    """Where an export will stand. Raises `RunError` where something stands there, or nothing can be written."""
    out = Path(out)
    if out.is_dir() and any(out.iterdir()):
        raise RunError(f"{out}: exists already and is not empty; choose another --out")
    runs.check_free(out)
    return out


def export_weights(run: str | Path, out: str | Path, *, weights: Weights) -> Exported:
    """Write `run` with weights of `weights` into the new folder `out`, and measure both.

    What can have 8 bits is said by `nn.quantized`; with "bf16" all weights are bfloat16 but the scores of
    labels' transitions. Raises `RunError` for a run that is not finished or was exported, and for a folder that is
    not empty; `InputError` for a run of which nothing can have 8 bits.
    """
    opened, out = open_finished(run), check_place(out)
    module = opened.task.build(opened.recipe.model)
    about = runs.load_weights(opened.folder, module)
    shares = _shares(module, weights)
    if weights == "int8":
        matrices = [name for part in parts(module) for name in part.matrices]
        if not matrices:
            raise InputError(f"{run}: no layer of this model computes in 8 bits; --bf16 takes any model")
        tensors = packed(module.state_dict(), matrices)
    else:
        matrices, tensors = [], to_bf16(module).state_dict()
    meta = {key: value for key, value in opened.meta.items() if key not in ("format", "versions", "scores")}
    meta |= {"format": EXPORTED_FORMAT, "versions": runs.versions(), "scores": {}}
    meta["exported"] = {"weights": weights, "run": str(opened.folder.absolute()), "matrices": matrices}
    try:
        with replacing(out, new=True) as unfinished:
            unfinished.mkdir()
            shutil.copyfile(opened.folder / "recipe.toml", unfinished / "recipe.toml")
            opened.task.save(unfinished)
            save_tensors(unfinished / "model.safetensors", tensors, about)
            write_json(unfinished / "meta.json", meta)
            if out.is_dir():  # Not empty any more where another process wrote there in the meantime.
                out.rmdir()
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None
    after = load(out, device="cpu")
    comparison = compare(load(run, device="cpu"), after)
    if comparison.split:
        runs.write_meta(after.run, scores={comparison.split: comparison.after.scores})
    return Exported(out, weights, shares, comparison)


def _shares(module: nn.Module, weights: Weights) -> list[Share]:
    """The kinds of weights in a module in float32, and what each will compute in."""
    total = sum(parameter.numel() for parameter in module.parameters())
    found: dict[tuple[str, str], int] = {}
    counted: set[int] = set()
    if weights == "int8":
        for part in parts(module):
            for matrix in map(module.get_parameter, part.matrices):
                if id(matrix) not in counted:  # a table tied to the softmax counts once
                    counted.add(id(matrix))
                    key = part.kind, "int8" if part.computes and SUPPORTED else "float32"
                    found[key] = found.get(key, 0) + matrix.numel()
    else:
        found["all weights", "bf16"] = total - sum(parameter.numel() for parameter in in_float32(module))
    shares = [Share(kind, count, weights, computed) for (kind, computed), count in found.items()]
    rest = total - sum(found.values())
    return [*shares, Share("everything else", rest, "float32", "float32")] if rest else shares
