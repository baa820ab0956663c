"""The LSTM for wide layers: in bfloat16 its values and gradients are as near to float32 as the fused kernel's."""

from __future__ import annotations

import pytest
import torch

from seqtext.nn import wide_lstm
from seqtext.nn.cells import LSTM

ROWS, STEPS, INPUTS = 3, 6, 5

pytestmark = pytest.mark.skipif(not wide_lstm.SUPPORTED, reason="this build of torch has no oneDNN")


def passes(cell: LSTM, x: torch.Tensor, *, bf16: bool) -> list[torch.Tensor]:
    """States and last state of two windows, the second from the first's state, and all gradients of a mixed loss."""
    x = x.clone().requires_grad_()
    cell.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        first, state = cell(x[:, :4])
        second, end = cell(x[:, 4:], state)
    states = torch.cat([first, second], dim=1).float()
    weights = torch.linspace(-1, 1, states.size(2))
    loss = (states * weights).sum() + end[0].float().square().sum() + end[1].float().sum()
    loss.backward()
    kernel = cell.kernel
    return [states.detach(), *end, x.grad, kernel.weight_ih_l0.grad, kernel.weight_hh_l0.grad, kernel.bias_ih_l0.grad]


@pytest.mark.parametrize("size", [8, 33])
def test_it_computes_what_the_fused_kernel_does(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    cell, x = LSTM(INPUTS, size), torch.randn(ROWS, STEPS, INPUTS)
    exact = passes(cell, x, bf16=False)
    fused = passes(cell, x, bf16=True)
    called = []
    monkeypatch.setattr(wide_lstm, "WIDE", 1)
    monkeypatch.setattr(wide_lstm._LSTM, "apply", lambda *a, run=wide_lstm._LSTM.apply: called.append(1) or run(*a))
    ours = passes(cell, x, bf16=True)
    assert len(called) == 2
    for one, other, wanted in zip(ours, fused, exact, strict=True):
        error, usual = (one - wanted).norm() / wanted.norm(), (other - wanted).norm() / wanted.norm()
        assert error < max(2 * usual, 0.01)
    passes(cell, x, bf16=False)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        cell(x)
    assert len(called) == 2  # float32 and prediction are the fused kernel's


def test_weights_are_dropped_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wide_lstm, "WIDE", 1)
    cell = LSTM(INPUTS, 50).train()
    cell.weight_dropout = 0.5
    with torch.autocast("cpu", dtype=torch.bfloat16):
        states, _ = cell(torch.randn(ROWS, STEPS, INPUTS))
    states.float().sum().backward()
    dropped = (cell.kernel.weight_hh_l0.grad == 0).float().mean().item()
    assert dropped == pytest.approx(0.5, abs=0.05)
