"""Loops over many small operations that take no Python while they run.

Torch's interpreter of its own language reads them from their source. Half of what calling a small operation costs is
gone, and threads that each run such a loop do not wait for each other's Python.
"""

from __future__ import annotations

import functools
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import torch

Result = TypeVar("Result")
_one_at_a_time = threading.Lock()


def scripted(function: Callable[..., Result]) -> Callable[..., Result]:
    """The function as TorchScript from its first call on; as Python, where there is no TorchScript any more.

    It takes and gives what TorchScript knows, a tensor first, and computes the same bits either way. On a GPU, where
    calls are not what takes time, it is Python.
    """

    @functools.cache
    def made() -> Callable[..., Result]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # in favour of compilers that need one for C++
            try:
                found: Any = torch.jit.script(function)
            except (AttributeError, RuntimeError):
                return function
        return found

    @functools.wraps(function)
    def call(*given: Any) -> Result:
        if given[0].device.type != "cpu" or sys.version_info >= (3, 14):  # for which it is not made
            return function(*given)
        with _one_at_a_time:
            run = made()
        return run(*given)

    return call
