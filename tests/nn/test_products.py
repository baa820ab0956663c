"""Products by each kernel, whichever this processor would take: all give the same."""

from __future__ import annotations

import pytest
import torch

from seqtext.nn import products
from seqtext.nn.products import Laid, product, product_into


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
