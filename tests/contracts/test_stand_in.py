"""That the stand-in for a GPU (`tests/reference/stand_in.py`) sees what the contracts trust it to see."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.reference.stand_in import DEVICE, Elsewhere, Seen, stand_in


@pytest.mark.parametrize(
    ("use", "waits"),
    [
        (lambda x: bool((x > 1).any()), True),
        (lambda x: x.sum().item(), True),
        (lambda x: x.tolist(), True),
        (lambda x: x.cpu(), True),
        (lambda x: x[x > 1], True),
        (lambda x: x.nonzero(), True),
        (lambda x: x + torch.ones(3).to(x.device), True),
        (lambda x: torch.tensor([1.0, 2.0, 3.0], device=x.device), True),
        (lambda x: x + torch.ones(3).to(x.device, non_blocking=True), False),
        (lambda x: x * torch.tensor(2.0), False),  # a number goes along with the kernel
        (lambda x: torch.where(x > 1, x, 0.0).cumsum(0), False),
        (lambda x: x[1:].mul_(2.0).softmax(0), False),
    ],
)
def test_what_a_gpu_is_waited_for_is_noted(use: Callable[[Tensor], Any], waits: bool) -> None:
    with stand_in() as seen:
        use(Elsewhere(torch.arange(3.0)))
        assert bool(seen.waits) == waits


def test_tensors_of_two_devices_do_not_go_together() -> None:
    with stand_in(), pytest.raises(RuntimeError, match=r"tensors of two devices, one of them \(3,\) on the CPU"):
        Elsewhere(torch.ones(3)) + torch.ones(3)


def kernels(seen: Seen, use: Callable[[], object]) -> int:
    before = seen.starts
    use()
    return seen.starts - before


def test_kernels_are_counted_and_views_are_none() -> None:
    with stand_in() as seen:
        x = torch.zeros(2, 3, device=DEVICE)
        assert kernels(seen, lambda: (x + 1).sigmoid_()) == 2
        assert kernels(seen, lambda: x.t()[1:].unsqueeze(0)) == 0


def test_a_recording_is_a_gpus() -> None:
    """Nothing is computed before a replay, which draws its own numbers; memory that no one refers to is another's."""
    with stand_in() as seen:
        x, lost = Elsewhere(torch.ones(3)), list[Tensor]()

        def body() -> Elsewhere:
            between: Any = x * 2
            lost.append(between.here)
            return between + torch.rand(3, device=DEVICE)  # type: ignore[no-any-return]

        torch.manual_seed(3)
        found, replay = seen.record(body, None)
        assert found.here.isnan().all()
        starts = seen.starts
        replay()
        assert lost[0].isnan().all() and seen.starts - starts == seen.replays == 1
        torch.manual_seed(3)
        torch.testing.assert_close(found.here, 2 + torch.rand(3))
        x.mul_(5.0)
        replay()
        assert (found.here >= 10).all()


@pytest.mark.parametrize(
    "use", [lambda x: x.sum().item(), lambda x: x + torch.ones(3).to(DEVICE, non_blocking=True), lambda x: x.nonzero()]
)
def test_what_a_gpu_refuses_while_it_is_recorded_is_an_error(use: Callable[[Tensor], Any]) -> None:
    with stand_in() as seen:
        x = Elsewhere(torch.arange(3.0))
        with pytest.raises(RuntimeError, match="not while it is recorded"):
            seen.record(lambda: use(x), None)
        assert seen.record(lambda: x * 2, None)[1] is not None  # which is over
