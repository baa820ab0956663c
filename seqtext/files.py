"""Files that are either whole or not there: written under another name, then renamed."""

from __future__ import annotations

import glob
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from seqtext.errors import RunError


@contextmanager
def replacing(path: Path, *, new: bool = False) -> Iterator[Path]:
    """A temporary sibling to write a file or a folder to; it becomes `path` when the block ends without an error.

    A folder that stood there before is moved aside first and then removed, so that a kill leaves one of the two
    under `path` or, for an instant, the old one under `path.old`, which `restored` finds. With `new`, no folder is
    replaced: `OSError` where there is one by then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield unfinished
        if unfinished.is_dir() and path.is_dir() and not new:
            old = old_name(path)
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
            unfinished.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            unfinished.replace(path)
    finally:
        if unfinished.is_dir():
            shutil.rmtree(unfinished, ignore_errors=True)
        with suppress(FileNotFoundError, IsADirectoryError):
            unfinished.unlink()


def old_name(path: Path) -> Path:
    """Where `replacing` keeps a folder for the instant of the exchange."""
    return path.with_name(f"{path.name}.old")


def restored(path: Path) -> Path:
    """`path`, or what a kill in the middle of `replacing` left of it."""
    return path if path.exists() or not old_name(path).exists() else old_name(path)


def sweep(folder: Path) -> None:
    """Remove what kills left unfinished in `folder`; only where no other process writes to it."""
    of_safetensors = ".tmp" + 6 * "[0-9A-Za-z]"  # which writes under another name by itself
    for path in (*folder.glob(".*.tmp"), *folder.glob(of_safetensors)):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def settle(path: Path) -> None:
    """Finish what a kill in the middle of `replacing` a folder left: it stands under `path`, with no old one beside."""
    if path.exists():
        shutil.rmtree(old_name(path), ignore_errors=True)
    elif old_name(path).exists():
        old_name(path).rename(path)


def sweep_beside(path: Path) -> None:
    """Remove the folders that kills left unfinished beside `path`, where they would have become it.

    Those that a process still writes stay, as it holds them (`make_held`); where there are no locks, all of them.
    """
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with suppress(RunError), locked(left) as held:
            if held:
                shutil.rmtree(left, ignore_errors=True)


def make_held(folder: Path, until: ExitStack) -> None:
    """Make a folder and hold it by `locked`; once more where `sweep_beside` took it in between, as nobody held it."""
    while True:
        folder.mkdir(exist_ok=True)
        try:
            until.enter_context(locked(folder))
        except RunError:  # it is being swept away
            continue
        if folder.exists():
            return


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Hold a folder against other processes that ask for it by this; a process that ends, by a kill too, lets it go.

    Where another process holds it, waits for that or raises `RunError`. A system or file system without such locks
    holds nothing, and False says so.
    """
    try:
        import fcntl

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield False
        return
    held = True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise RunError(f"{folder}: another process is training in this folder; wait for it, or stop it") from None
    except OSError:
        held = False
    try:
        yield held
    finally:
        os.close(handle)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Of the processes that come here with the same `path`, a file for this alone, one goes in and the others wait.

    A system or file system without locks lets all in, and so does a `path` that cannot be written.
    """
    try:
        import fcntl

        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except (ImportError, OSError):
        yield
        return
    try:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # before it is let go: who has waited for it finds the work done
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        for value in values:
            file.write(json.dumps(value, ensure_ascii=False) + "\n")


def read_json(path: Path, *, check: Callable[[Any], bool] = lambda value: isinstance(value, dict)) -> Any:
    """The JSON value in a run's file. Raises `RunError` naming the file where it is missing or not as written."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path}: missing; the run folder is not complete") from None
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path}: damaged, not the JSON that a run holds ({error})") from None
    if not check(value):
        raise RunError(f"{path}: damaged, its content is not what a run holds")
    return value
