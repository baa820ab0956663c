"""Checkpoints: a `Snapshot` as safetensors and JSON, whole or not there. For going on with a run, nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from seqtext.errors import RunError
from seqtext.files import read_json, replacing, restored
from seqtext.training.snapshot import Snapshot


def save_checkpoint(folder: Path, snapshot: Snapshot) -> None:
    """Write `folder` (state.safetensors and state.json) in place of the one before, which stays until this is whole."""
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        save_tensors(unfinished / "state.safetensors", snapshot.tensors)
        values = snapshot.values | {"digest": _digest(snapshot.values)}
        (unfinished / "state.json").write_text(json.dumps(values), encoding="utf-8")


def load_checkpoint(folder: Path) -> Snapshot:
    """Raises `RunError` naming the file that is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = restored(folder)
    values = read_json(folder / "state.json")
    if not isinstance(values, dict) or values.pop("digest", None) != _digest(values):
        raise RunError(f"{folder / 'state.json'}: damaged: not what was written (its digest is of something else)")
    path = folder / "state.safetensors"
    try:
        return Snapshot(load_file(path), values, place=str(folder))
    except FileNotFoundError:
        raise RunError(f"{path}: missing; this run cannot be resumed") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: damaged, not a checkpoint ({error})") from None


def _digest(values: Mapping[str, Any]) -> str:
    """Of the plain numbers: most of them, changed, would go on to another result without a word."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _sort_about(path: Path) -> None:
    """Write what a safetensors file says about itself in the order of its keys, so that equal runs are equal bytes."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
            file.seek(8)
            file.write(json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode().ljust(size))


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Write a safetensors file from any device, `about` in its header. Raises `OSError` as other writing does."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Tied weights share memory, which safetensors refuses: each name gets a copy of its own.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    path.touch()
    mode = path.stat().st_mode  # safetensors lets nobody but the owner read its files; a run is for all who may
    try:
        save_file(copies, path, metadata=about)
        _sort_about(path)
    except SafetensorError as error:  # its text holds what the system said: "... (os error 28)"
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from None
        raise
    path.chmod(mode)
