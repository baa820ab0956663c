"""What tests of readers share: a cache of each test's own, and files to read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a cache that is this test's alone."""
    monkeypatch.setenv("SEQTEXT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def put(tmp_path: Path, cache_folder: Path) -> Callable[[str | bytes, str], Path]:
    """Writes a file by its name, and returns the path."""

    def write(content: str | bytes, name: str) -> Path:
        path = tmp_path / "d" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write
