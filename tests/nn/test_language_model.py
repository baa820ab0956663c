"""The language model: every kind of dropout by its definition, the regularisers by hand, step by step as a whole."""

from __future__ import annotations

import warnings

import pytest
import torch

from seqtext.config import parse
from seqtext.errors import ConfigError, InputError
from seqtext.nn.cells import CELLS, build_cell
from seqtext.nn.language_model import LanguageModel, LanguageModelConfig

WORDS = 30


def build(**values):
    encoder = {"hidden_size": 6, "layers": 2, **values.pop("encoder", {})}
    config = parse(LanguageModelConfig, {"embedding_size": 5, "encoder": encoder, **values}, source="recipe")
    torch.manual_seed(1)
    return LanguageModel(config, WORDS)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("tied", [True, False])
def test_windows_and_single_steps_compute_the_same(cell, tied):
    module = build(encoder={"cell": cell, "last_size": 4}, tied=tied).eval()
    tokens = torch.randint(0, WORDS, (3, 7))
    whole = module(tokens)
    first = module(tokens[:, :4])
    second = module(tokens[:, 4:], first.carry)
    torch.testing.assert_close(torch.cat([first.outputs, second.outputs], dim=1), whole.outputs)
    state = None
    for step in range(7):
        output, state = module.step(tokens[:, step], state)
        torch.testing.assert_close(output, whole.outputs[:, step])
    torch.testing.assert_close(state, whole.carry)


def test_tying_shares_one_matrix_and_projects_where_sizes_differ():
    tied, same = build(), build(encoder={"last_size": 5})
    assert tied.softmax.weight is tied.embedding.weight and same.projection is None
    assert tied.projection.weight.shape == (5, 6)
    apart = build(tied=False)
    assert apart.projection is None and apart.softmax.weight.shape == (WORDS, 6)


def test_weight_dropout_drops_entries_of_recurrent_matrices_alone_and_leaves_the_weights():
    """Seen from outside: without input and bias, one step from the state s is a function of U s, U with holes."""
    cell = build_cell("rnn", 2, 200)
    cell.weight_dropout = 0.4
    with torch.no_grad():
        cell.kernel.weight_ih_l0.zero_()
        cell.kernel.weight_hh_l0.fill_(0.002)
    before = cell.kernel.weight_hh_l0.detach().clone()
    start = (torch.ones(1, 200),)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        states, _ = cell.train()(torch.zeros(1, 2, 2), start)
    kept = states[0, 0].atanh() * 0.6 / 0.002  # entries of each row that were kept
    torch.testing.assert_close(kept, kept.round(), rtol=0, atol=1e-2)
    assert kept.mean().item() == pytest.approx(200 * 0.6, abs=3)
    assert kept.std().item() == pytest.approx((200 * 0.4 * 0.6) ** 0.5, rel=0.2)
    torch.testing.assert_close(cell.kernel.weight_hh_l0, before, rtol=0, atol=0)
    states[0, 0].sum().backward()
    grown = cell.kernel.weight_hh_l0.grad != 0
    torch.testing.assert_close(grown.sum(1).float(), kept.round())  # what was dropped learns nothing
    plain, _ = cell.eval()(torch.zeros(1, 2, 2), start)
    torch.testing.assert_close(plain[0, 0].atanh(), torch.full((200,), 0.4))


@pytest.mark.parametrize("cell", ("rnn", "lstm", "gru"))
def test_weight_dropout_that_keeps_all_is_the_fused_kernel_packed_or_not(cell):
    torch.manual_seed(3)
    module = build_cell(cell, 3, 4).train()
    x, lengths = torch.randn(3, 5, 3), torch.tensor([2, 5, 3])
    start = tuple(torch.randn(3, 4) for _ in range(module.parts))
    for state in (None, start):
        for ends in (None, lengths):
            module.weight_dropout = 0.0
            expected = module(x, state, lengths=ends)
            module.weight_dropout = 1e-9
            torch.testing.assert_close(module(x, state, lengths=ends), expected)


def test_embedding_dropout_takes_whole_tokens_wherever_they_stand():
    module = build(embedding_dropout=0.5).train()
    tokens = torch.arange(WORDS).repeat(2, 3)
    rows = module._embed(tokens)
    dropped = (rows == 0).all(-1)
    assert 0 < dropped.sum() < dropped.numel()
    assert torch.equal(dropped[0], dropped[1]) and torch.equal(dropped[0, :WORDS], dropped[0, WORDS : 2 * WORDS])
    torch.testing.assert_close(rows[~dropped], 2 * module.embedding(tokens)[~dropped])
    assert not (module.eval()._embed(tokens) == 0).all(-1).any()


def test_regularisers_are_added_once_a_target():
    plain, module = build(), build(activation_regularization=2.0, temporal_regularization=3.0)
    tokens, targets = torch.randint(0, WORDS, (2, 3, 5))
    targets[0, 2:] = -1
    hidden = module(tokens)
    total, count = module.loss(hidden, targets)
    alone, same = plain.loss(plain(tokens), targets)
    states = hidden.states
    extra = 2.0 * (states**2).mean() + 3.0 * ((states[:, 1:] - states[:, :-1]) ** 2).mean()
    assert count == same == 12
    torch.testing.assert_close(total, alone + 12 * extra)
    one = module(tokens[:, :1])
    total, _ = module.loss(one, targets[:, :1])  # a window of one step has no change
    torch.testing.assert_close(total, plain.loss(plain(tokens[:, :1]), targets[:, :1])[0] + 6 * (one.states**2).mean())


def test_faults_are_told():
    with pytest.raises(ConfigError, match="an adaptive softmax has clusters of its own sizes: set tied = false"):
        build(softmax={"name": "adaptive"})
    with pytest.raises(InputError, match=r"model.softmax: cutoffs \[4000, 40000\] must be less than .*, 30"):
        build(softmax={"name": "adaptive"}, tied=False)
    with pytest.raises(ConfigError, match=r"encoder.bidirectional: unknown key"):
        build(encoder={"bidirectional": True})
