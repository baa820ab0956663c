"""The GRU for wide layers: its values and gradients are those of torch's kernel, in bfloat16 nearly so."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from seqtext.nn import apart, wide_gru
from seqtext.nn.products import ONEDNN
from seqtext.nn.rnn import Recurrent, RecurrentConfig

ROWS, STEPS, INPUTS, SIZE = 50, 6, 20, 128
LENGTHS = torch.tensor([6, 1, 3, 5, 2] * 10)

pytestmark = pytest.mark.skipif(not ONEDNN, reason="this build of torch has no oneDNN")


def make(kernel: str, *, bidirectional: bool, layers: int = 2) -> tuple[Recurrent, torch.Tensor, list[Any]]:
    torch.manual_seed(1)
    options = {"kernel": kernel}
    config = RecurrentConfig(
        cell="gru",
        hidden_size=SIZE,
        layers=layers,
        bidirectional=bidirectional,
        cell_options=options,
        weight_dropout=0.3,
    )
    module = Recurrent(INPUTS, config).train()
    for parameter in module.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)  # no bias is zero
    x = torch.randn(ROWS, STEPS, INPUTS, requires_grad=True)
    state = [(torch.randn(ROWS, SIZE, requires_grad=True),) for _ in range(layers * (1 + bidirectional))]
    return module, x, state


def passes(kernel: str, *, bidirectional: bool, bf16: bool = False) -> list[torch.Tensor]:
    """States and last states, and the gradients of a mixed loss for all that has one."""
    module, x, state = make(kernel, bidirectional=bidirectional)
    torch.manual_seed(2)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        states, end = module(x, LENGTHS, state)
    real = (torch.arange(STEPS) < LENGTHS[:, None]).unsqueeze(2)
    share = torch.randn(states.shape)
    loss = (states.float() * share * real).sum() + sum(part[0].float().square().sum() for part in end)
    wanted = [x, *(part for (part,) in state), *module.parameters()]
    return [states * real, *(part for (part,) in end), *torch.autograd.grad(loss, wanted)]


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[torch.dtype]:
    """For each call of the function, the number format of its weights."""
    found: list[torch.dtype] = []
    run = wide_gru._GRU.apply
    monkeypatch.setattr(wide_gru._GRU, "apply", lambda *given: found.append(given[2].dtype) or run(*given))
    return found


@pytest.mark.parametrize("bidirectional", [False, True])
def test_it_computes_what_the_kernel_does(bidirectional: bool, called: list[torch.dtype]) -> None:
    ours = passes("auto", bidirectional=bidirectional)
    layers_and_directions = 2 * (1 + bidirectional)
    assert called == [torch.float32] * layers_and_directions
    kernel = passes("fused", bidirectional=bidirectional)
    assert len(called) == layers_and_directions
    for one, other in zip(ours, kernel, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_it_is_as_near_to_float32_as_the_kernel(called: list[torch.dtype]) -> None:
    exact, usual = (passes("fused", bidirectional=True, bf16=bf16) for bf16 in (False, True))
    ours = passes("auto", bidirectional=True, bf16=True)
    assert called == [torch.bfloat16] * 4
    for one, other, wanted in zip(ours, usual, exact, strict=True):
        error, kernel = (one - wanted).norm() / wanted.norm(), (other - wanted).norm() / wanted.norm()
        assert error < max(2 * kernel, 0.01)


def test_a_graph_that_is_kept_can_be_gone_through_again() -> None:
    """Although gradients take the place of what the forward pass kept."""
    module, x, state = make("auto", bidirectional=True, layers=1)
    loss = module(x, LENGTHS, state)[0].square().sum()
    wanted = [x, *module.parameters()]
    first = torch.autograd.grad(loss, wanted, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(loss, wanted), first, rtol=0, atol=0)
    with pytest.raises(RuntimeError, match="second time"):
        loss.backward()


@pytest.mark.parametrize("bf16", [False, True])
def test_its_loops_give_the_same_bits_as_python(bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = passes("auto", bidirectional=False, bf16=bf16)
    for name in ("_onward", "_back"):
        monkeypatch.setattr(wide_gru, name, getattr(wide_gru, name).__wrapped__)
    for one, other in zip(ours, passes("auto", bidirectional=False, bf16=bf16), strict=True):
        assert one.equal(other)


def test_prediction_is_training_without_gradients() -> None:
    module, x, state = make("auto", bidirectional=True)
    module.eval()
    trained, end = module(x, LENGTHS, state)
    with torch.inference_mode():
        found, last = module(x, LENGTHS, state)
    real = (torch.arange(STEPS) < LENGTHS[:, None]).unsqueeze(2)
    torch.testing.assert_close(found * real, trained * real, rtol=1e-4, atol=1e-5)
    for (one,), (other,) in zip(last, end, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_directions_in_two_threads_give_what_they_do_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[str] = []
    run = wide_gru._GRU.apply
    noted = lambda *given: used.append(threading.current_thread().name) or run(*given)  # noqa: E731
    monkeypatch.setattr(wide_gru._GRU, "apply", noted)
    monkeypatch.setattr(apart, "LEAST", 0.0)
    module, x, state = make("auto", bidirectional=True, layers=1)
    cells: Any = module.layers[0]
    for cell in cells:
        cell.weight_dropout = 0.0
    threads, found = torch.get_num_threads(), []
    for number in (1, 2):
        used.clear()
        torch.set_num_threads(number)
        try:
            states, _ = module(x, LENGTHS, state)
            found.append([states, *torch.autograd.grad(states.square().sum(), [x, *module.parameters()])])
        finally:
            torch.set_num_threads(threads)
        assert len(used) == 2 and len(set(used)) == number
    for one, other in zip(*found, strict=True):
        assert one.equal(other)
