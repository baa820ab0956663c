"""The scan over time against the loop that it stands for; the gradient of a matrix that many steps share."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch

from seqtext.nn.scan import scan
from seqtext.nn.shared import Shared, SharedVector


def loop(a: torch.Tensor, b: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
    found = []
    for now, more in zip(a, b):
        h = now * h + more
        found.append(h)
    return torch.stack(found)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 8, 33])
def test_a_scan_is_the_loop_and_so_is_its_gradient(steps: int) -> None:
    torch.manual_seed(steps)
    a, b = torch.rand(steps, 2, 3, dtype=torch.float64), torch.randn(steps, 2, 3, dtype=torch.float64)
    values = [a.requires_grad_(), b.requires_grad_(), torch.randn(2, 3, dtype=torch.float64, requires_grad=True)]
    share = torch.randn(steps, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(scan(*values), loop(*values))
    found = torch.autograd.grad((share * scan(*values)).sum(), values)
    torch.testing.assert_close(found, torch.autograd.grad((share * loop(*values)).sum(), values))


def test_a_long_scan_loses_nothing_where_gates_are_shut_or_open() -> None:
    """Where logarithms would be infinite: gates of exactly 0 and 1, over a thousand steps in float32."""
    torch.manual_seed(0)
    a, b = torch.randint(0, 2, (1000, 4)).float(), torch.randn(1000, 4)
    a[:, 0], a[:, 1] = 1.0, 0.0
    start = torch.randn(4)
    torch.testing.assert_close(scan(a, b, start), loop(a, b, start), rtol=1e-4, atol=1e-4)
    assert torch.equal(scan(a, b, start)[1:, 1], b[1:, 1])


def test_what_a_shared_matrix_gathered_for_another_gradient_is_not_counted() -> None:
    torch.manual_seed(1)
    weight, x = torch.randn(3, 3, dtype=torch.float64, requires_grad=True), torch.randn(2, 3, dtype=torch.float64)
    x.requires_grad_()
    shared = Shared(weight)
    y = shared(shared(x).tanh()).square().sum()
    (first,) = torch.autograd.grad(y, x, retain_graph=True)  # does not ask for that of the matrix
    found = torch.autograd.grad(y, [x, weight])
    plain = (((x @ weight.T).tanh()) @ weight.T).square().sum()
    torch.testing.assert_close(found, torch.autograd.grad(plain, [x, weight]))
    torch.testing.assert_close(first, found[0])


def test_shared_weights_are_let_go_of_after_the_backward_pass() -> None:
    """Without a search for circles, which comes when it comes: by then there may be hundreds of them."""
    weight, x = torch.randn(3, 3, requires_grad=True), torch.randn(2, 3)
    shared, vector = Shared(weight), SharedVector(weight[0])
    refs = [weakref.ref(shared), weakref.ref(vector)]
    loss = shared(x).sum() + vector.token.sum()
    gc.disable()
    try:
        loss.backward()
        del shared, vector, loss
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()
