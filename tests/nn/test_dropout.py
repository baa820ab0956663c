"""The masks themselves: along which axis they are one, how often they drop, what they leave of the rest."""

from __future__ import annotations

import pytest
import torch

from seqtext.nn.dropout import LockedDropout, WordDropout

P = 0.3


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(3)


def test_locked_dropout_drops_a_feature_of_a_row_at_all_times() -> None:
    x = torch.rand(200, 6, 50) + 0.5
    y = LockedDropout(P).train()(x)
    mask = y / x
    torch.testing.assert_close(mask, mask[:, :1].expand_as(mask))
    first = mask[:, 0]  # (200, 50)
    dropped = first == 0
    torch.testing.assert_close(first[~dropped], torch.full_like(first[~dropped], 1 / (1 - P)))
    # 10,000 draws: the share dropped within five deviations; and no two rows or features alike.
    assert abs(dropped.float().mean() - P) < 5 * (P * (1 - P) / dropped.numel()) ** 0.5
    assert len(dropped.unique(dim=0)) == 200 and len(dropped.unique(dim=1).T) == 50
    assert abs(first.mean() - 1.0) < 0.04  # the expectation stays


def test_word_dropout_drops_whole_positions_and_leaves_the_rest_as_it_is() -> None:
    x = torch.rand(200, 50, 6) + 0.5
    y = WordDropout(P).train()(x)
    dropped = (y == 0).all(-1)  # (200, 50)
    assert torch.equal(y, x.masked_fill(dropped.unsqueeze(-1), 0.0))
    assert abs(dropped.float().mean() - P) < 5 * (P * (1 - P) / dropped.numel()) ** 0.5
    assert len(dropped.unique(dim=0)) == 200 and len(dropped.unique(dim=1).T) == 50


@pytest.mark.parametrize("kind", [LockedDropout, WordDropout])
def test_the_gradient_takes_the_same_mask_and_each_call_another(kind: type[torch.nn.Module]) -> None:
    layer = kind(P).train()
    x = torch.ones(8, 4, 16, requires_grad=True)
    y, other = layer(x), layer(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, y) and not torch.equal(y, other)


@pytest.mark.parametrize("kind", [LockedDropout, WordDropout])
def test_nothing_is_dropped_in_evaluation_or_at_zero(kind: type[torch.nn.Module]) -> None:
    x = torch.rand(8, 4, 16)
    assert torch.equal(kind(0.9).eval()(x), x)
    before = torch.get_rng_state()
    assert torch.equal(kind(0.0).train()(x), x)
    assert torch.equal(torch.get_rng_state(), before)  # and no random number is drawn
