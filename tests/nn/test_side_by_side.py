"""Work side by side in several threads."""

from __future__ import annotations

import threading

import pytest
import torch

from seqtext.nn.side_by_side import WORKERS, side_by_side


@pytest.fixture(params=[1, 2, 3, 2 * WORKERS])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("count", [0, 1, 2, 5, 23])
def test_results_come_in_order_and_few_items_are_taken_ahead(threads, count):
    taken = []

    def items():
        for i in range(count):
            taken.append(i)
            yield i

    for given, found in enumerate(side_by_side(lambda i: i * i, items())):
        assert found == given * given
        assert len(taken) <= given + 2 * min(threads, WORKERS) + 1
    assert taken == list(range(count))


def test_several_run_at_once_each_with_its_share_of_threads(threads):
    workers = min(threads, WORKERS)
    meeting = threading.Barrier(workers, timeout=60)

    def work(item):
        meeting.wait()  # passes only if as many are here at the same time
        return torch.get_num_threads()

    assert (
        list(side_by_side(work, range(3 * workers))) == [threads if workers == 1 else threads // workers] * 3 * workers
    )


def test_work_has_the_modes_of_its_caller(threads):
    def modes(item):
        x = torch.ones(2, requires_grad=True) * 2
        return x.is_inference(), x.requires_grad, (torch.ones(2, 2) @ torch.ones(2, 2)).dtype

    assert set(side_by_side(modes, range(4))) == {(False, True, torch.float32)}
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert set(side_by_side(modes, range(4))) == {(False, False, torch.bfloat16)}
    with torch.inference_mode():
        assert set(side_by_side(modes, range(4))) == {(True, False, torch.float32)}


def test_an_error_comes_in_its_place_and_ends_the_work(threads):
    done = []

    def work(i):
        if i == 3:
            raise ValueError("the third")
        done.append(i)
        return i

    found = side_by_side(work, range(100))
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(found)
    assert len(done) <= 3 + 2 * WORKERS
