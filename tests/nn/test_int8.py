"""Layers of 8 bits: they compute what their numbers say, by an exact product of the same, to within one rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from seqtext.nn.cells import build_cell
from seqtext.nn.int8 import (
    SATURATES,
    SUPPORTED,
    Int8Embedding,
    Int8Kernel,
    Int8Linear,
    dequantize,
    quantize,
)
from seqtext.nn.language_model import LanguageModel, LanguageModelConfig
from seqtext.nn.quantized import packed, parts, to_int8, unpacked
from seqtext.nn.seq2seq import Seq2Seq, Seq2SeqConfig

pytestmark = pytest.mark.skipif(not SUPPORTED, reason="this build of torch has no kernels of 8 bits")
STEPS = 127 if SATURATES else 255
"""Between the extremes of what is multiplied."""


@pytest.fixture(autouse=True)
def prediction():
    torch.manual_seed(1)
    with torch.no_grad():
        yield


def matrix(rows, columns):
    """Rows of very different sizes, one of zeros."""
    weight = torch.randn(rows, columns) * 10.0 ** torch.empty(rows, 1).uniform_(-4, 2)
    weight[rows // 2] = 0.0
    return weight


def test_numbers_are_within_half_a_step_and_read_back_unchanged():
    weight = matrix(90, 70)
    numbers, scale = quantize(weight)
    assert numbers.dtype == torch.int8 and bool(
        ((dequantize(numbers, scale) - weight).abs() <= 0.501 * scale[:, None]).all()
    )
    assert numbers.abs().amax(1).tolist() == [127] * 45 + [0] + [127] * 44
    again, same = quantize(dequantize(numbers, scale))
    assert torch.equal(again, numbers) and torch.allclose(same, scale, rtol=1e-6)
    tensors = {"a": weight, "b": torch.randn(3)}
    back = unpacked(packed(tensors, ["a"]))
    assert (
        back.keys() == {"a", "b"} and torch.equal(back["a"], dequantize(numbers, scale)) and back["b"] is tensors["b"]
    )
    with pytest.raises(ValueError, match=r"^a: no scale for each row$"):
        unpacked({"a": numbers})
    assert torch.equal(
        Int8Embedding(weight)(torch.tensor([[3, 45], [89, 3]])), back["a"][torch.tensor([[3, 45], [89, 3]])]
    )


@pytest.mark.parametrize("engine", ["x86", "onednn"])
def test_a_linear_layer_is_the_exact_product_within_the_rounding_of_its_input(engine):
    weight, bias, x = matrix(60, 50), torch.randn(60), 3.0 * torch.randn(4, 7, 50) + 1.0
    numbers, scale = quantize(weight)
    exact = x.double() @ dequantize(numbers, scale).double().t() + bias
    step = (x.max().clamp(min=0) - x.min().clamp(max=0)) / STEPS
    bound = 0.51 * step * dequantize(numbers, scale).abs().sum(1) + 1e-4
    found = Int8Linear(weight, bias, engine=engine)(x)
    assert found.shape == (4, 7, 60) and bool(((found - exact).abs() <= bound).all())
    assert Int8Linear(weight, None, engine=engine)(x[:0]).shape == (0, 7, 60)
    assert not torch.equal(found, exact.float())


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_recurrent_layer_is_the_float_one_to_a_hundredth_whole_packed_or_step_by_step(cell):
    layer = build_cell(cell, 40, 50)
    nn.init.normal_(layer.kernel.bias_hh_l0, std=0.3)
    x, lengths = torch.randn(6, 9, 40), torch.tensor([3, 9, 1, 5, 4, 9])
    start = tuple(torch.randn(6, 50).tanh() for _ in range(layer.parts))
    expected, ends = layer(x, start)
    _, ragged = layer(x, start, lengths=lengths)
    zero, _ = layer(x)
    layer.kernel = Int8Kernel(layer.kernel)

    def near(one, other):
        return ((one - other).norm() / other.norm()).item() < 0.02

    found, after = layer(x, start)
    assert near(found, expected) and all(map(near, after, ends)) and not torch.equal(found, expected)
    assert near(layer(x)[0], zero)
    assert all(map(near, layer(x, start, lengths=lengths)[1], ragged))
    packed_x = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    assert torch.equal(layer.kernel(packed_x, None)[0].batch_sizes, packed_x.batch_sizes)
    state, outputs = start, []
    for t in range(9):
        output, state = layer.step(x[:, t], state)
        outputs.append(output)
    assert near(torch.stack(outputs, 1), expected) and all(map(near, state, ends))


def test_which_layers_of_a_module_have_8_bits():
    config = {"embedding_size": 40, "tied": False, "encoder": {"hidden_size": 200, "last_size": 100, "layers": 2}}
    model = LanguageModel(LanguageModelConfig.model_validate(config), 300)
    found = parts(model)
    assert [(part.name, part.computes) for part in found] == [
        ("embedding", True),
        ("encoder.layers.0.0", True),
        ("encoder.layers.1.0", False),
        ("softmax", True),
    ]
    tokens, names = torch.randint(300, (4, 11)), [name for part in found for name in part.matrices]
    expected = model.eval()(tokens)
    scores, losses = model.softmax.log_probabilities(expected.outputs[0]), model.nll(expected, tokens)
    to_int8(model, names)
    hidden = model(tokens)
    assert (model.softmax.log_probabilities(hidden.outputs[0]) - scores).abs().max() < 0.05
    assert (model.nll(hidden, tokens) - losses).abs().max() < 0.05
    kinds = [type(model.get_submodule(name)).__name__ for name in ("embedding", "softmax", "encoder.layers.0.0.kernel")]
    assert kinds == ["Int8Embedding", "Int8Softmax", "Int8Kernel"]
    assert type(model.encoder.layers[1][0].kernel) is nn.LSTM
    with pytest.raises(ValueError, match=r"^softmax.bias: no matrix that can have 8 bits$"):
        to_int8(LanguageModel(LanguageModelConfig(), 50), ["softmax.bias"])


def test_an_adaptive_softmax_and_a_plain_recurrence():
    config = {
        "tied": False,
        "encoder": {"cell": "rnn", "hidden_size": 200},
        "softmax": {"name": "adaptive", "cutoffs": [100]},
    }
    model = LanguageModel(LanguageModelConfig.model_validate(config), 600).eval()
    found = parts(model)
    assert [part.name for part in found] == [
        "embedding",
        "softmax.layer.head",
        *(f"softmax.layer.tail.0.{i}" for i in (0, 1)),
    ]
    hidden, targets = torch.randn(20, 200), torch.randint(600, (20,))
    expected, losses = model.softmax.log_probabilities(hidden), model.softmax.nll(hidden, targets)
    to_int8(model, [name for part in found for name in part.matrices])
    assert (model.softmax.log_probabilities(hidden) - expected).abs().max() < 0.2
    assert (model.softmax.nll(hidden, targets) - losses).abs().max() < 0.2
    assert torch.equal(model.embedding(torch.tensor([5])), model.embedding.weight[[5]])


def test_a_table_that_both_sides_share_stays_one():
    config = {"tied": "all", "embedding_size": 32, "encoder": {"hidden_size": 8}, "decoder": {"hidden_size": 8}}
    model = Seq2Seq(Seq2SeqConfig.model_validate(config), 200, 200, joint=True)
    names = [name for part in parts(model) for name in part.matrices]
    assert {"target_embedding.weight", "source_embedding.weight", "softmax.weight"} < set(names)
    to_int8(model, names)
    assert type(model.source_embedding) is Int8Embedding and model.source_embedding is model.target_embedding
