"""Ways of pooling against the mathematics row by row, and after every encoder: no padding, no neighbour shows."""

from __future__ import annotations

import typing
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

from seqtext.config import Config, parse
from seqtext.nn.encoders import EncoderConfig, build_encoder
from seqtext.nn.pool import Attention, Pool, PoolConfig, States

LENGTHS = torch.tensor([4, 1, 6, 3, 2])
LONGEST = 7


def attention(text: Tensor, pool: Attention) -> Tensor:
    """Yang 2016, eq. 5-7."""
    scores = torch.stack([pool.score.weight[0] @ torch.tanh(pool.hidden.weight @ x + pool.hidden.bias) for x in text])
    weights = scores.exp() / scores.exp().sum()
    return sum(weight * x for weight, x in zip(weights, text))


BY_THE_BOOK: dict[str, Callable[..., Tensor]] = {
    "last": lambda text, pool: torch.cat([text[-1, :2], text[0, 2:]]),
    "max": lambda text, pool: torch.stack([column.max() for column in text.T]),
    "mean": lambda text, pool: torch.stack([column.sum() / len(column) for column in text.T]),
    "lp": lambda text, pool: torch.stack(
        [(sum(x.abs() ** 3 for x in column) / len(column)) ** (1 / 3) for column in text.T]
    ),
    "attention": attention,
    "flatten": lambda text, pool: torch.cat([*text, torch.zeros(4 * (LONGEST - len(text)), dtype=text.dtype)]),
}
POOLS: dict[str, dict[str, Any]] = {
    schema.model_fields["name"].default: {} for schema in typing.get_args(PoolConfig)
} | {"lp": {"p": 3.0}, "attention": {"size": 5}}
"""Every way, with settings of its own."""
ENCODERS: dict[str, dict[str, Any]] = {
    **{name: {"name": name, "hidden_size": 3, "layers": 2} for name in ("lstm", "mut1", "sru")},
    "forward": {"name": "gru", "hidden_size": 3, "bidirectional": False},
    "same": {"name": "cnn", "widths": [2, 3, 5], "filters": 3, "padding": "same"},
    "valid": {"name": "cnn", "widths": [1, 2, 5], "filters": 3, "padding": "valid"},
    "esn": {"name": "esn", "size": 5, "density": 0.5},
    "esn-both": {"name": "esn", "size": 5, "density": 0.5, "bidirectional": True},
    "bow": {"name": "bow"},
}


class Choice(Config):
    encoder: EncoderConfig = Field(discriminator="name")
    pool: PoolConfig = Field(discriminator="name")


def make_pool(name: str, sizes: list[int], lengths: list[int], directions: int) -> Pool:
    values = {"encoder": {"name": "bow"}, "pool": {"name": name, **POOLS[name]}}
    config: Any = parse(Choice, values, source="test").pool
    return Pool(config, sizes, lengths=lengths, directions=directions).double()


def padded(generator: torch.Generator, size: int) -> Tensor:
    """(B, T, size) with huge values in the padding, which has one step more than any row needs."""
    x = torch.randn(len(LENGTHS), int(LENGTHS.max()) + 1, size, dtype=torch.float64, generator=generator)
    return x.masked_fill(torch.arange(x.size(1)).unsqueeze(1) >= LENGTHS.view(-1, 1, 1), 1e30)


@pytest.mark.parametrize("name", POOLS)
def test_each_row_is_pooled_as_written_in_the_book(name: str) -> None:
    torch.manual_seed(0)
    pool = make_pool(name, [4], [LONGEST], 2)
    values = padded(torch.Generator().manual_seed(1), 4)
    found = pool([States(values, LENGTHS)])
    assert found.size(1) == pool.output_size
    for row, length in enumerate(LENGTHS.tolist()):
        expected = BY_THE_BOOK[name](values[row, :length], pool.parts[0])
        torch.testing.assert_close(found[row], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_no_padding_and_no_neighbour_shows_after_any_encoder(encoder: str, pool: str) -> None:
    torch.manual_seed(5)
    values = {"encoder": ENCODERS[encoder], "pool": {"name": pool, **POOLS[pool]}}
    config: Any = parse(Choice, values, source="test")
    read: Any = build_encoder(2, config.encoder).double()
    pooled = Pool(config.pool, read.sizes, lengths=read.output_lengths(LONGEST), directions=read.directions).double()
    x = padded(torch.Generator().manual_seed(1), 2).requires_grad_()
    together = pooled(read(x, LENGTHS))
    for row, length in enumerate(LENGTHS.tolist()):
        alone = pooled(read(x[row : row + 1, :length], LENGTHS[row : row + 1]))
        torch.testing.assert_close(alone[0], together[row], rtol=1e-9, atol=1e-9)
    if together.requires_grad:  # nothing in a reservoir or a bag learns, and most ways to pool have no weights
        share = torch.randn(together.shape, dtype=together.dtype)
        modules = nn.ModuleList([read, pooled])
        wanted = [x, *modules.parameters()]
        gradients = torch.autograd.grad((together * share).sum(), wanted, allow_unused=True)
        assert all(gradient is None or gradient.isfinite().all() for gradient in gradients)
        real = (torch.arange(x.size(1)) < LENGTHS[:, None]).unsqueeze(2)
        assert gradients[0] is None or gradients[0].masked_fill(real, 0.0).eq(0).all()
    none = pooled(read(x[:0], LENGTHS[:0]))  # the share of a process for which a batch has no row
    assert none.shape == (0, pooled.output_size)


def test_a_feature_that_is_zero_everywhere_has_a_gradient_under_the_p_norm() -> None:
    values = torch.zeros(1, 3, 2, dtype=torch.float64, requires_grad=True)
    found = make_pool("lp", [2], [3], 1)([States(values, torch.tensor([3]))])
    found.sum().backward()
    assert found.abs().max() < 1e-7 and values.grad is not None and values.grad.eq(0).all()
