"""Loops as TorchScript: what they compute as Python, from any thread, and also where torch has no TorchScript."""

from __future__ import annotations

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor

from seqtext.nn.scripted import scripted


def halved(x: Tensor, times: int) -> Tensor:
    for _ in range(times):
        x = x * 0.5
    return x


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads in which functions were made TorchScript."""
    found: list[str] = []
    script: Any = torch.jit.script
    monkeypatch.setattr(torch.jit, "script", lambda f: found.append(threading.current_thread().name) or script(f))
    return found


def test_it_is_made_once_at_the_first_call_without_a_warning_and_does_the_same(made: list[str]) -> None:
    run = scripted(halved)
    assert not made
    barrier = threading.Barrier(2)

    def job() -> Tensor:
        barrier.wait()
        return run(torch.tensor([8.0, -4.0]), 2)

    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("error")
        found = [future.result() for future in [pool.submit(job) for _ in range(2)]]
    assert [each.tolist() for each in found] == [[2.0, -1.0]] * 2
    assert len(made) == 1


@pytest.mark.parametrize("error", [AttributeError, RuntimeError])
def test_where_torch_has_none_it_is_python(error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    def none(_: Any) -> None:
        raise error("not any more")

    monkeypatch.setattr(torch.jit, "script", none)
    run = scripted(halved)
    assert run(torch.tensor(8.0), 3).item() == 1.0
