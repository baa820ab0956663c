"""Checkpoints: a `Snapshot` as safetensors and JSON, whole or not there. For going on with a run, nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from seqtext.errors import RunError
from seqtext.files import read_json, replacing, restored
from seqtext.training.loop import Snapshot


def save_checkpoint(folder: Path, snapshot: Snapshot) -> None:
    """Write `folder` (state.safetensors and state.json) in place of the one before, which stays until this is whole."""
    from safetensors.torch import save_file

    with replacing(folder) as unfinished:
        unfinished.mkdir()
        # Tied weights share memory, which safetensors refuses: each name gets a copy of its own.
        tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in snapshot.tensors.items()}
        save_file(tensors, unfinished / "state.safetensors")
        (unfinished / "state.json").write_text(json.dumps(snapshot.values), encoding="utf-8")


def load_checkpoint(folder: Path) -> Snapshot:
    """Raises `RunError` naming the file that is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    folder = restored(folder)
    values = read_json(folder / "state.json")
    path = folder / "state.safetensors"
    try:
        return Snapshot(load_file(path), values)
    except FileNotFoundError:
        raise RunError(f"{path}: missing; this run cannot be resumed") from None
    except (SafetensorError, OSError) as error:
        raise RunError(f"{path}: damaged, not a checkpoint ({error})") from None
