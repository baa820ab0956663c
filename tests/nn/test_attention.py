"""Every kind of attention against the equations of its paper, query by query; padding, whatever stands there."""

from __future__ import annotations

import typing

import pytest
import torch

from seqtext.nn import attention
from seqtext.nn.attention import (
    Additive,
    AttentionConfig,
    Dot,
    General,
    MultiHead,
    Scaled,
    build_attention,
)
from tests.reference.attention import attend

QUERY, VALUE, TIME = 6, 4, 3
LENGTHS = [5, 1, 3]
KINDS = {
    "additive": Additive(size=7),
    "coverage": Additive(size=7, coverage=True),
    "dot": Dot(),
    "general": General(),
    "scaled": Scaled(size=5),
    "multihead": MultiHead(heads=3, size=2),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def make(kind):
    """A module with sizeable weights; queries, values, which positions are real, and what was attended to before."""
    generator = torch.Generator().manual_seed(5)

    def randn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    size = QUERY if kind == "dot" else VALUE
    module = build_attention(QUERY, size, KINDS[kind]).double()
    for parameter in module.parameters():
        parameter.data.copy_(randn(*parameter.shape))
    queries, values = randn(len(LENGTHS), TIME, QUERY), randn(len(LENGTHS), max(LENGTHS), size)
    real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    covered = 3.0 * randn(len(LENGTHS), TIME, max(LENGTHS)).abs()
    return module, queries, values, real, covered


def test_every_kind_is_tested_here():
    assert {type(config) for config in KINDS.values()} == set(typing.get_args(AttentionConfig))


@each_kind
def test_contexts_weights_and_gradients_are_those_of_the_papers(kind):
    module, queries, values, real, covered = make(kind)
    queries.requires_grad_(), values.requires_grad_()
    before = covered if module.covering else None
    contexts, weights = module(queries, values, module.keys(values), real, before)
    expected = torch.zeros_like(contexts)
    for row, length in enumerate(LENGTHS):
        for t in range(TIME):
            context, shares = attend(module, queries[row, t], list(values[row, :length]), covered[row, t])
            expected[row, t] = context
            torch.testing.assert_close(weights[row, t, :length], torch.stack(shares))
    torch.testing.assert_close(contexts, expected)
    # A weight for each number, so that no two errors cancel.
    share = torch.randn(contexts.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    wanted = [queries, values, *module.parameters()]
    found = torch.autograd.grad((share * contexts).sum(), wanted)
    torch.testing.assert_close(found, torch.autograd.grad((share * expected).sum(), wanted))
    assert all(gradient.abs().max() > 1e-6 for gradient in found)


@pytest.mark.parametrize("filling", [-3.0, 1e30])
@each_kind
def test_padding_has_no_weight_whatever_stands_there_and_all_else_has_one_in_all(kind, filling):
    module, queries, values, real, covered = make(kind)
    before = covered if module.covering else None
    expected = module(queries, values, module.keys(values), real, before)
    padded = values.masked_fill(~real.unsqueeze(2), filling)
    contexts, weights = module(queries, padded, module.keys(padded), real, before)
    assert (weights[~real.unsqueeze(1).expand_as(weights)] == 0).all()
    assert (weights[real.unsqueeze(1).expand_as(weights)] > 0).all()
    torch.testing.assert_close(weights.sum(2), torch.ones(len(LENGTHS), TIME, dtype=torch.float64))
    torch.testing.assert_close((contexts, weights), expected)


def test_a_covered_position_counts_less_where_the_hidden_layer_says_so():
    module, queries, values, real, covered = make("coverage")
    covered = torch.zeros_like(covered)
    with torch.no_grad():  # what was seen pushes the hidden layer against v
        module.coverage.weight.copy_(-module.score.weight.t())
    keys = module.keys(values)
    before = module(queries, values, keys, real, covered)[1]
    covered[:, :, 0] = 1.0
    after = module(queries, values, keys, real, covered)[1]
    several = torch.tensor(LENGTHS) > 1
    assert (after[several, :, 0] < before[several, :, 0]).all()


@pytest.mark.parametrize("kind", ["additive", "coverage"])
def test_long_targets_are_compared_in_parts(kind, monkeypatch):
    module, queries, values, real, covered = make(kind)
    keys = module.keys(values)
    expected = module(queries, values, keys, real, covered)
    monkeypatch.setattr(attention, "CHUNK", 2 * keys.numel())
    sizes = []
    module.score.register_forward_hook(lambda _, given, found: sizes.append(found.size(1)))
    with torch.no_grad():
        torch.testing.assert_close(module(queries, values, keys, real, covered), expected)
    assert sizes == [2, 1]


def test_a_dot_product_needs_states_of_one_size():
    with pytest.raises(ValueError, match=r"'dot' compares states of one size; the decoder's have 6 .* encoder's 4:"):
        build_attention(6, 4, Dot())
