"""The Arrow cache: data is read once, then memory-mapped, under a fingerprint of its content and of the settings.

A cache file is an Arrow stream, the facts its builder found (JSON), the length of the facts (8 bytes) and a BLAKE2b
digest of all that goes before (32 bytes). Arrow readers stop at the end of the stream, so the file maps as it is; the
digest tells a whole file from a cut or damaged one, which an Arrow stream by itself does not. A file is written under
another name and renamed when complete, so a kill leaves either the whole file or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seqtext.data.text import open_bytes
from seqtext.errors import DataError
from seqtext.files import one_at_a_time

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

DIGEST_SIZE = 32
TAIL_SIZE = 8 + DIGEST_SIZE
STALE_SECONDS = 24 * 3600

Write = Callable[[Mapping[str, Sequence[Any]]], None]


class Cached(NamedTuple):
    dataset: datasets.Dataset
    """Memory-mapped rows."""
    facts: dict[str, Any]
    """What the builder found out while reading; plain JSON values."""


def cache_folder() -> Path:
    """`$SEQTEXT_CACHE`, or else `seqtext` in `$XDG_CACHE_HOME` or `~/.cache`."""
    if chosen := os.environ.get("SEQTEXT_CACHE"):
        return Path(chosen).expanduser()
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "seqtext"


def fingerprint(paths: Iterable[str | Path], settings: Mapping[str, Any]) -> str:
    """32 hex digits that change with the bytes of the files, their order, or the settings (JSON values).

    File names and times do not count: a corpus that was moved or touched is the same corpus.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps(settings, sort_keys=True, ensure_ascii=False).encode())
    for path in paths:
        with open_bytes(path, unzip=False) as file:
            digest.update(hashlib.file_digest(file, hashlib.blake2b).digest())  # type: ignore[arg-type]
    return digest.hexdigest()


def code(*modules: str) -> list[Path]:
    """The source files of `seqtext.data` by name or pattern, for `fingerprint`: a cache filled by another version of a
    reader is then another file, without a version number that someone must remember to raise.
    """
    return [file for module in modules for file in sorted(Path(__file__).parent.glob(f"{module}.py"))]


def cached(
    key: str, *, schema: pa.Schema, build: Callable[[Write], Mapping[str, Any]], kind: str = "data", about: str = ""
) -> Cached:
    """The dataset filed under `key`; where there is none yet, or it is damaged, `build` makes it.

    `build(write)` calls `write({column: values, ...})` for each batch of rows, some thousands at a time so that memory
    stays bounded, and returns its facts. What `build` raises goes through, and nothing is left behind. `kind` begins
    the name of the file; `about` becomes `dataset.info.description`. Raises `DataError` where the folder cannot be
    written.
    """
    path = cache_folder() / f"{kind}-{key}.arrow"
    facts = _read_facts(path)
    if facts is None:
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(path.with_name(f".{path.name}.lock")):  # several processes of a training come here at once
            facts = _read_facts(path)
            if facts is None:
                facts = _write(path, schema, build)
    package = quiet_datasets()
    dataset = package.Dataset.from_file(str(path), info=package.DatasetInfo(description=about))
    # The library's own fingerprint is of the file's path and time; ours is of what the data is.
    dataset._fingerprint = key
    return Cached(dataset, facts)


def quiet_datasets() -> Any:
    """The `datasets` package, with its progress bars and its telemetry off; imported here since that takes a second."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import datasets

    datasets.disable_progress_bars()
    return datasets


def _read_facts(path: Path) -> dict[str, Any] | None:
    """The facts of a whole cache file; None where it is missing, cut or damaged."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size < TAIL_SIZE:
                return None
            file.seek(size - TAIL_SIZE)
            length = int.from_bytes(file.read(8), "little")
            expected = file.read(DIGEST_SIZE)
            if _digest(path, size - DIGEST_SIZE) != expected:
                return None
            file.seek(size - TAIL_SIZE - length)
            return json.loads(file.read(length))
    except OSError:
        return None


def _digest(path: Path, size: int) -> bytes:
    """Digest of the first `size` bytes."""
    digest = hashlib.blake2b(digest_size=DIGEST_SIZE)
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 1 << 20))):
            digest.update(block)
            size -= len(block)
    return digest.digest()


def _write(path: Path, schema: pa.Schema, build: Callable[[Write], Mapping[str, Any]]) -> dict[str, Any]:
    import pyarrow as pa

    # A name of its own, for another process or thread may be building the same file.
    unfinished = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path.parent)
        with unfinished.open("wb") as file:
            with pa.ipc.new_stream(file, schema) as stream:

                def write(columns: Mapping[str, Sequence[Any]]) -> None:
                    arrays = [pa.array(columns[field.name], type=field.type) for field in schema]
                    stream.write_batch(pa.record_batch(arrays, schema=schema))

                text = json.dumps(build(write), ensure_ascii=False).encode()
            file.write(text + len(text).to_bytes(8, "little"))
            file.flush()
            file.write(_digest(unfinished, file.tell()))
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise DataError(
            f"the data cache cannot be written: {reason}; set SEQTEXT_CACHE to a folder with room", path=path.parent
        ) from None
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return json.loads(text)


def _sweep(folder: Path) -> None:
    """Remove what builds that were killed left unfinished; a day, so that none still being written is touched."""
    for path in folder.glob("*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
