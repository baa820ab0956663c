"""What goes wrong because of something the user gave: one message, exit code 2, no traceback."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class InputError(Exception):
    """Base of every error a user can mend; the CLI prints its message and exits 2."""


class DataError(InputError):
    """A file that is missing or does not read as expected.

    The message begins with the place, as compilers do: ``path:line: what was found, what was expected``.
    """

    def __init__(self, message: str, *, path: str | Path | None = None, line: int | None = None) -> None:
        self.path, self.line = path, line
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        super().__init__(place + message)


class RunError(InputError):
    """A run folder that is missing, incomplete, damaged or of another format version."""


class DeviceError(InputError):
    """A device that this machine or this build of torch does not have."""


class ConfigError(InputError):
    """Every fault of a recipe at once, each by its dotted key."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        self.source, self.faults = source, list(faults)
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {fault}" for fault in faults)]))
