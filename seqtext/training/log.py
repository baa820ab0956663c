"""metrics.jsonl: one JSON line a report; and the same numbers for TensorBoard where that is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from seqtext.errors import InputError
from seqtext.files import write_text


class MetricsLog:
    """Appends a run's numbers to its files."""

    def __init__(self, folder: Path, *, resumed_at: tuple[int, int] | None = None, tensorboard: bool = False) -> None:
        """With `resumed_at`, a step and the epochs completed then, later lines go: they will be written again.

        Raises `InputError` where TensorBoard is asked for and not installed.
        """
        self.path = folder / "metrics.jsonl"
        self.board = _board(folder) if tensorboard else None
        if resumed_at is not None and self.path.exists():
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
            write_text(self.path, "".join(line + "\n" for line in lines if _before(line, *resumed_at)))
        self.file = self.path.open("a", encoding="utf-8")

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """One line: `{"kind": ..., "step": ..., ...}`."""
        self.file.write(json.dumps({"kind": kind, **values}) + "\n")
        self.file.flush()
        if self.board is not None:
            for key, value in values.items():
                if isinstance(value, int | float) and key != "step":
                    self.board.add_scalar(f"{kind}/{key}", value, values["step"])

    def close(self) -> None:
        with suppress(
            OSError
        ):  # every line was flushed: what cannot be written now, as the disk is full, was told then
            self.file.close()
        if self.board is not None:
            self.board.close()


def _before(line: str, step: int, epoch: int) -> bool:
    """Whether a line was written before a checkpoint at `step`, after `epoch` epochs, not after it or cut by a kill.

    A checkpoint at the last step of an epoch stands before the lines on that epoch, which have the same step.
    """
    try:
        values = json.loads(line)
        at, of = (values["step"], values["epoch"])  # lines on the whole run have no epoch, and come again
        return at < step or (at == step and (values["kind"] == "train" or of <= epoch))
    except (ValueError, KeyError, TypeError):
        return False


def check_tensorboard() -> None:
    """Raises `InputError` where TensorBoard is not installed: before a run is made, not after."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError:
        raise InputError('--tensorboard needs the tensorboard package: pip install "seqtext[tensorboard]"') from None


def _board(folder: Path) -> Any:
    check_tensorboard()
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"))
