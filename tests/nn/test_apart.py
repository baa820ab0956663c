"""Directions of a layer that are computed in two threads: what one after the other gives, bit for bit."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from seqtext.nn import apart, side_by_side, wide_gru
from seqtext.nn.rnn import Recurrent, RecurrentConfig

LENGTHS = torch.tensor([7, 7, 4, 1])


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(apart, "LEAST", 0.0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The threads that directions were computed in."""
    names: list[str] = []
    for kind in (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN):
        forward = kind.forward

        def noted(self: Any, *arguments: Any, forward: Any = forward) -> Any:
            names.append(threading.current_thread().name)
            return forward(self, *arguments)

        monkeypatch.setattr(kind, "forward", noted)
    loop = wide_gru._GRU.apply
    by_loop = lambda *given: names.append(threading.current_thread().name) or loop(*given)  # noqa: E731
    monkeypatch.setattr(wide_gru._GRU, "apply", by_loop)
    return names


def layer(cell: str = "lstm", **options: Any) -> Recurrent:
    torch.manual_seed(2)
    return Recurrent(5, RecurrentConfig(cell=cell, hidden_size=8, bidirectional=True, **options))


def in_turn(work: Any) -> Any:
    """What `work` gives without threads."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(side_by_side, "WORKERS", 1)
        torch.set_num_threads(1)
        try:
            return work()
        finally:
            torch.set_num_threads(2)


def equal(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize(("cell", "layers"), [("lstm", 1), ("lstm", 2), ("gru", 1), ("rnn", 1)])
def test_states_and_gradients_are_the_same(
    cell: str, layers: int, with_state: bool, bf16: bool, used: list[str]
) -> None:
    recurrent = layer(cell, layers=layers)
    x, parts = torch.randn(4, 7, 5), 2 if cell == "lstm" else 1
    start = [tuple(torch.randn(4, 8, requires_grad=True) for _ in range(parts)) for _ in range(2 * layers)]

    def work() -> Any:
        recurrent.zero_grad()
        read = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            states, end = recurrent(read, LENGTHS, start, with_state=with_state)
        leaves = [read, *(part for state in start for part in state)]
        total = states.float().square().sum() + sum(part.float().square().sum() for state in end for part in state[:1])
        total.backward(inputs=[*leaves, *recurrent.parameters()])
        gradients = [each.grad.clone() for each in (*leaves, *recurrent.parameters())]
        for each in leaves:
            each.grad = None
        return [states.detach(), *(part.detach() for state in end for part in state), *gradients]

    found = work()
    assert len(set(used)) == 2 and len(used) == 2 * layers
    used.clear()
    equal(found, in_turn(work))
    assert len(set(used)) == 1
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_prediction_is_the_same(cell: str, bf16: bool, used: list[str]) -> None:
    recurrent = layer(cell).eval()
    x = torch.randn(4, 7, 5)

    def work() -> Any:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            states, end = recurrent(x, LENGTHS)
        assert states.is_inference() and not states.requires_grad
        return [states, *(part for state in end for part in state)]

    found = work()
    assert len(set(used)) == 2
    equal(found, in_turn(work))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        states, _ = recurrent(x, LENGTHS)
    assert not states.is_inference() and not states.requires_grad
    torch.testing.assert_close(states, found[0].clone(), rtol=0.02, atol=0.02)


def test_what_needs_no_gradient_gets_none(used: list[str]) -> None:
    recurrent = layer()
    frozen = recurrent.layers[0][1].kernel.weight_hh_l0.requires_grad_(False)
    states, _ = recurrent(torch.randn(4, 7, 5), LENGTHS, with_state=False)
    states[:, :, :8].sum().backward()  # of one direction
    assert len(set(used)) == 2 and frozen.grad is None
    gradients = [parameter.grad for parameter in recurrent.layers[0][0].parameters()]
    assert all(bool(gradient.abs().max() > 0) for gradient in gradients)


def test_a_graph_that_is_kept_gives_its_gradient_again_and_another_says_so() -> None:
    recurrent, x = layer(), torch.randn(4, 7, 5, requires_grad=True)
    total = recurrent(x, LENGTHS, with_state=False)[0].square().sum()
    first, second = (torch.autograd.grad(total, x, retain_graph=True)[0] for _ in range(2))
    equal(first, second)
    torch.autograd.grad(total, x)
    with pytest.raises(RuntimeError, match="retain_graph=True"):
        torch.autograd.grad(total, x)


def test_weight_dropout_is_drawn_in_one_thread(used: list[str]) -> None:
    recurrent = layer().train()
    cells: Any = recurrent.layers[0]
    recurrent(torch.randn(4, 7, 5), LENGTHS, with_state=False)
    assert len(set(used)) == 2
    used.clear()
    drawn: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for cell in cells:
            cell.weight_dropout = 0.5
            noted = lambda *_, run=cell._run: (drawn.append(threading.current_thread().name), run(*_))[1]  # noqa: E731
            patch.setattr(cell, "_run", noted)
        recurrent(torch.randn(4, 7, 5), LENGTHS, with_state=False)
    assert drawn == [threading.current_thread().name] * 2


def test_a_cell_that_is_watched_stays_in_the_graph(used: list[str]) -> None:
    recurrent = layer()
    pushed: list[Tensor] = []

    def push(cell: Any, given: Any, result: Any) -> Any:
        pushed.append(torch.zeros_like(result[0], requires_grad=True))
        return result[0] + pushed[-1], result[1]

    cells: Any = recurrent.layers[0]
    with cells[1].register_forward_hook(push):
        states, _ = recurrent(torch.randn(4, 7, 5), LENGTHS, with_state=False)
    assert len(set(used)) == 1
    assert torch.autograd.grad(states.sum(), pushed)[0].eq(1.0).all()


@pytest.mark.parametrize("direction", [0, 1])
def test_an_error_in_either_direction_is_raised_and_threads_are_as_before(
    direction: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recurrent = layer()
    cells: Any = recurrent.layers[0]

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("of a kernel")

    with monkeypatch.context() as patch:
        patch.setattr(cells[direction], "_run", broken)
        with pytest.raises(ZeroDivisionError, match="of a kernel"):
            recurrent(torch.randn(4, 7, 5), LENGTHS)
    assert torch.get_num_threads() == 2
    assert recurrent(torch.randn(4, 7, 5), LENGTHS)[0].shape == (4, 7, 16)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_has_a_thread_of_its_own() -> None:
    recurrent, x = layer(), torch.randn(4, 7, 5)
    apart._thread(1, os.getpid()).submit(int).result()
    child = os.fork()
    if child == 0:
        other = apart._thread(1, os.getpid())
        os._exit(0 if other.submit(int, 7).result(timeout=30) == 7 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert recurrent(x, LENGTHS)[0].shape == (4, 7, 16)


def test_the_other_thread_leaves_the_weights_that_autocast_has_cast() -> None:
    """Cast a second time within a pass, their gradient would be rounded in two parts."""
    weight, x = torch.randn(3, 3, requires_grad=True), torch.randn(2, 3)

    def cast() -> Any:
        """The node of autograd that cast the weight."""
        return torch.mm(x, weight).grad_fn.next_functions[1][0]  # type: ignore[union-attr]

    def pass_of_its_own() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            torch.mm(x, x.t())

    with torch.autocast("cpu", torch.bfloat16):
        first = cast()
        apart._thread(1, os.getpid()).submit(pass_of_its_own).result()
        assert cast() is first
    with torch.autocast("cpu", torch.bfloat16):
        assert cast() is not first  # the end of all that autocast has begun in this thread
