"""Checkpoints: a `Snapshot` as safetensors and JSON, whole or not there. For going on with a run, nothing else."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from seqtext.errors import RunError
from seqtext.files import read_json, replacing, restored
from seqtext.training.snapshot import Snapshot


def save_checkpoint(folder: Path, snapshot: Snapshot) -> None:
    """Write `folder` (state.safetensors and state.json) in place of the one before, which stays until this is whole."""
    with replacing(folder) as unfinished:
        unfinished.mkdir()
        save_tensors(unfinished / "state.safetensors", snapshot.tensors)
        (unfinished / "state.json").write_text(json.dumps(snapshot.values), encoding="utf-8")


def load_checkpoint(folder: Path) -> Snapshot:
    """Raises `RunError` naming the file that is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = restored(folder)
    values = read_json(folder / "state.json")
    path = folder / "state.safetensors"
    try:
        return Snapshot(load_file(path), values, place=str(folder))
    except FileNotFoundError:
        raise RunError(f"{path}: missing; this run cannot be resumed") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: damaged, not a checkpoint ({error})") from None


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None) -> None:
    """Write a safetensors file from any device; `about` travels in its header. Raises `OSError` as all writing does."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    # Tied weights share memory, which safetensors refuses: each name gets a copy of its own.
    copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    path.touch()
    mode = path.stat().st_mode  # safetensors lets nobody but the owner read its files; a run is for all who may
    try:
        save_file(copies, path, metadata=about)
    except SafetensorError as error:  # its text holds what the system said: "... (os error 28)"
        if found := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from None
        raise
    path.chmod(mode)
