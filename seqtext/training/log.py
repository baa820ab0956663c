"""metrics.jsonl: one JSON line a report; and the same numbers for TensorBoard where that is asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from seqtext.errors import InputError


class MetricsLog:
    """Appends a run's numbers to its files."""

    def __init__(self, folder: Path, *, resumed_at: int | None = None, tensorboard: bool = False) -> None:
        """With `resumed_at`, lines of later steps are dropped: they will be written again."""
        self.path = folder / "metrics.jsonl"
        if resumed_at is not None and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if _step(line) <= resumed_at]
            self.path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
        self.file = self.path.open("a", encoding="utf-8")
        self.board = _board(folder) if tensorboard else None

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """One line: `{"kind": ..., "step": ..., ...}`."""
        self.file.write(json.dumps({"kind": kind, **values}) + "\n")
        self.file.flush()
        if self.board is not None:
            for key, value in values.items():
                if isinstance(value, int | float) and key != "step":
                    self.board.add_scalar(f"{kind}/{key}", value, values["step"])

    def close(self) -> None:
        self.file.close()
        if self.board is not None:
            self.board.close()


def _step(line: str) -> float:
    """The step of a line; a line that a kill cut off counts as later than any."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return float("inf")


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError('--tensorboard needs the tensorboard package: pip install "seqtext[tensorboard]"') from None
    return SummaryWriter(str(folder / "tensorboard"))
