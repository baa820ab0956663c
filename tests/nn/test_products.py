"""Products by each kernel, whichever this processor would take: all give the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqtext.nn import products
from seqtext.nn.products import Laid, batched, linear, outer, product, product_into
from seqtext.nn.room import LEAST, filled, room
from seqtext.nn.softmax import Softmax


@pytest.mark.parametrize("favoured", [False, True])
@pytest.mark.parametrize("number", [torch.float32, torch.bfloat16])
def test_every_kernel_gives_the_same(favoured: bool, number: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    if not products.REORDERS:
        pytest.skip("this build of torch has no oneDNN")
    monkeypatch.setattr(products, "FAVOURED", favoured)
    generator = torch.Generator().manual_seed(1)
    x, weight, bias = (torch.randn(size, generator=generator).to(number) for size in ((7, 5), (6, 5), (6,)))
    exact = x.double() @ weight.double().T + bias.double()
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if number == torch.float32 else {"rtol": 0.02, "atol": 0.03}

    def close(found: torch.Tensor, expected: torch.Tensor = exact) -> None:
        torch.testing.assert_close(found.double(), expected, **tolerance)

    close(product(x, weight, bias))
    close(product(x, weight, bias, turned=weight.t().contiguous()))
    close(product(x, weight), exact - bias.double())
    close(product(x.t(), x.t()), x.double().T @ x.double())
    close(outer(x, x[:, :3]), x.double().T @ x[:, :3].double())
    close(batched(x[None], weight.T[None])[0], exact - bias.double())
    wide = torch.full((7, 9), -1.0)
    product_into(wide[:, 1:7], x, weight, bias)
    close(wide[:, 1:7])
    assert (wide[:, [0, 7, 8]] == -1).all()
    total = wide[:, 1:7].contiguous()
    Laid(weight, rows=7).add(total, x)
    close(total, 2 * exact - bias.double())
    monkeypatch.setattr(products, "REORDERS", False)
    Laid(weight, rows=7).add(total, x)
    close(total, 3 * exact - 2 * bias.double())


class Counting(torch.utils._python_dispatch.TorchDispatchMode):
    """Notes how many rows and columns the operands of matrix products have."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[int] = set()

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), options: Any = None) -> Any:
        if function._schema.name in ("aten::mm", "aten::addmm"):
            self.sizes |= {size for tensor in given[:3] if tensor.dim() == 2 for size in tensor.shape}
        return function(*given, **options or {})


@pytest.mark.parametrize("rows", [1, 2, 31, 100, 143])
def test_rows_filled_up_change_nothing_and_leave_few_shapes(rows: int) -> None:
    torch.manual_seed(1)
    layer, softmax = torch.nn.Linear(5, 6), Softmax(6, 40)
    x, targets = torch.randn(rows, 1, 5, requires_grad=True), torch.randint(-1, 40, (rows,))
    softmax.bias.data.uniform_(-1, 1)
    wanted = [x, *layer.parameters(), *softmax.parameters()]

    def passes(number: torch.dtype) -> list[torch.Tensor]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=number == torch.bfloat16):
            hidden = linear(layer, x).flatten(0, 1)
            loss = softmax.loss(hidden, targets, smoothing=0.1)
            scores = softmax.nll(hidden, targets)
        assert hidden.dtype == number and hidden.shape == (rows, 6)
        return [loss, scores, *torch.autograd.grad(loss, wanted)]

    with Counting() as seen:
        found = passes(torch.bfloat16)
    torch.testing.assert_close(found, passes(torch.float32), rtol=0.05, atol=0.05 * rows**0.5)
    assert seen.sizes - {5, 6, 40} == {1 if rows == 1 else room(rows, least=LEAST)}
    assert filled(x) is x  # in float32 no kernel is compiled


@pytest.mark.parametrize("favoured", [False, True])
def test_tanh_is_tanh(favoured: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "FAVOURED", favoured)
    x = torch.cat([torch.linspace(-12, 12, 1001), torch.tensor([0.0, 1e-6, -90.0, 90.0])])
    torch.testing.assert_close(products.tanh(x).double(), x.double().tanh(), rtol=1e-6, atol=2e-7)


@pytest.mark.parametrize(
    ("about", "maker"),
    [
        ("processor: 0\nvendor_id\t: GenuineIntel\nmodel: 1\n", "GenuineIntel"),
        ("vendor_id : AuthenticAMD\n", "AuthenticAMD"),
    ],
)
def test_who_made_the_processor(about: str, maker: str, tmp_path) -> None:
    (tmp_path / "cpuinfo").write_text(about)
    assert products._maker(tmp_path / "cpuinfo") == maker
    assert isinstance(products._maker(tmp_path / "none"), str)
