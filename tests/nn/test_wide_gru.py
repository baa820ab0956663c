"""The GRU for wide layers: its values and gradients are those of torch's kernel, in bfloat16 nearly so."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqtext.nn import wide_gru
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
def called(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """For each call of the function, its directions."""
    found: list[int] = []
    run = wide_gru._GRU.apply
    monkeypatch.setattr(wide_gru._GRU, "apply", lambda *given: found.append(len(given[0])) or run(*given))
    return found


@pytest.mark.parametrize("bidirectional", [False, True])
def test_it_computes_what_the_kernel_does(bidirectional: bool, called: list[int]) -> None:
    ours = passes("auto", bidirectional=bidirectional)
    assert called == [1 + bidirectional] * 2  # the directions of a layer together
    kernel = passes("fused", bidirectional=bidirectional)
    assert len(called) == 2
    for one, other in zip(ours, kernel, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_it_is_as_near_to_float32_as_the_kernel(called: list[int]) -> None:
    exact, usual = (passes("fused", bidirectional=True, bf16=bf16) for bf16 in (False, True))
    ours = passes("auto", bidirectional=True, bf16=True)
    assert called == [2, 2]
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
