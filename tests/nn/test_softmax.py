"""The output layers against torch's own losses: values, gradients, many chunks, every number format."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from seqtext.nn import softmax
from seqtext.nn.softmax import Adaptive, AdaptiveSoftmax, Softmax

ROWS, SIZE, WORDS = 23, 7, 50


def plain(hidden, layer, targets):
    """The loss as everyone writes it."""
    logits = nn.functional.linear(hidden, layer.weight, layer.bias)
    return nn.functional.cross_entropy(logits, targets, ignore_index=-1, reduction="sum")


def gradients(loss, *tensors):
    return torch.autograd.grad(loss, tensors)


@pytest.fixture(params=[1 << 22, 4 * WORDS, 1], ids=["one chunk", "chunks of 4", "chunks of 1"])
def chunk(request, monkeypatch):
    monkeypatch.setattr(softmax, "CHUNK", request.param)


@pytest.mark.parametrize("missing", [0, 5, ROWS])
def test_the_loss_and_its_gradients_are_those_of_cross_entropy(chunk, missing):
    torch.manual_seed(1)
    layer = Softmax(SIZE, WORDS)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    hidden = torch.randn(ROWS, SIZE, requires_grad=True)
    targets = torch.randint(0, WORDS, (ROWS,))
    targets[torch.randperm(ROWS)[:missing]] = -1
    ours, theirs = layer.loss(hidden, targets), plain(hidden, layer, targets)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(layer.nll(hidden, targets).sum(), theirs)
    wanted = (hidden, layer.weight, layer.bias)
    # Scaled, as the loss is where a regulariser is added or a mean is taken.
    found, expected = gradients(0.3 * ours, *wanted), gradients(0.3 * theirs, *wanted)
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    each = -layer.log_probabilities(hidden).gather(1, targets.clamp(min=0).unsqueeze(1)).squeeze(1)
    torch.testing.assert_close(layer.nll(hidden, targets), each.masked_fill(targets < 0, 0.0))


@pytest.mark.parametrize("number", [torch.float32, torch.float64])
@pytest.mark.parametrize("smoothing", [0.05, 0.7])
def test_smoothed_labels_cost_what_cross_entropy_says(chunk, smoothing, number):
    torch.manual_seed(5)
    layer = Softmax(SIZE, WORDS).to(number)
    nn.init.normal_(layer.weight)
    nn.init.normal_(layer.bias)
    hidden = torch.randn(ROWS, SIZE, dtype=number, requires_grad=True)
    targets = torch.randint(0, WORDS, (ROWS,))
    targets[[0, 4, 22]] = -1
    logits = nn.functional.linear(hidden, layer.weight, layer.bias)
    theirs = nn.functional.cross_entropy(
        logits, targets, ignore_index=-1, reduction="sum", label_smoothing=smoothing
    ).float()
    ours = layer.loss(hidden, targets, smoothing=smoothing)
    torch.testing.assert_close(ours, theirs)
    wanted = (hidden, layer.weight, layer.bias)
    for one, other in zip(gradients(0.3 * ours, *wanted), gradients(0.3 * theirs, *wanted)):
        assert one.dtype == number
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(layer.nll(hidden, targets).sum(), layer.loss(hidden, targets))  # never smoothed


def test_a_certain_error_has_a_finite_loss_and_a_gradient():
    layer = Softmax(1, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0], [0.0], [500.0]]))
    hidden = torch.ones(1, 1, requires_grad=True)
    loss = layer.loss(hidden, torch.tensor([0]))
    assert 100 < loss.item() < 500
    assert layer.nll(hidden, torch.tensor([0])).item() == pytest.approx(500)
    torch.testing.assert_close(gradients(loss, layer.bias)[0], torch.tensor([-1.0, 0.0, 1.0]))


def test_tied_weights_get_the_gradients_of_both_their_uses():
    torch.manual_seed(2)
    table = nn.Parameter(torch.randn(WORDS, SIZE))
    tokens, targets = torch.randint(0, WORDS, (2, ROWS))
    layer = Softmax(SIZE, WORDS, tied=table)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    [ours] = gradients(layer.loss(nn.functional.embedding(tokens, table), targets), table)
    [theirs] = gradients(plain(nn.functional.embedding(tokens, table), layer, targets), table)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"tied weights are \(50, 7\), not \(50, 8\)"):
        Softmax(8, WORDS, tied=table)


def test_bfloat16_gives_nearly_the_same_and_gradients_in_float32(chunk):
    torch.manual_seed(3)
    layer = Softmax(SIZE, WORDS)
    hidden = torch.randn(ROWS, SIZE, requires_grad=True)
    targets = torch.randint(0, WORDS, (ROWS,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = layer.loss(hidden, targets)
        each = layer.nll(hidden, targets)
    theirs = plain(hidden, layer, targets)
    assert ours.dtype == each.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=0)
    torch.testing.assert_close(each.sum(), theirs, rtol=1e-2, atol=0)
    wanted = (hidden, layer.weight, layer.bias)
    for one, other in zip(gradients(ours, *wanted), gradients(theirs, *wanted)):
        assert one.dtype == torch.float32
        assert (one - other).norm() < 0.02 * other.norm()


def test_an_adaptive_softmax_has_the_same_face_and_sums_to_one():
    torch.manual_seed(4)
    layer = Adaptive(SIZE, WORDS, AdaptiveSoftmax(cutoffs=[10, 30], div_value=2.0))
    hidden = torch.randn(ROWS, SIZE, requires_grad=True)
    targets = torch.arange(ROWS) * 2
    targets[3] = -1
    chances = layer.log_probabilities(hidden)
    torch.testing.assert_close(chances.exp().sum(1), torch.ones(ROWS))
    each = -chances.gather(1, targets.clamp(min=0).unsqueeze(1)).squeeze(1).masked_fill(targets < 0, 0.0)
    torch.testing.assert_close(layer.nll(hidden, targets), each)
    torch.testing.assert_close(layer.loss(hidden, targets), each.sum())
    assert all(gradient.abs().sum() > 0 for gradient in gradients(layer.loss(hidden, targets), *layer.parameters()))


def test_clusters_must_rise_and_lie_within_the_vocabulary():
    with pytest.raises(ValueError, match=r"cutoffs must rise from 1 or more, got \[5, 5\]"):
        AdaptiveSoftmax(cutoffs=[5, 5])
    with pytest.raises(ValueError, match=r"cutoffs \[10, 50\] must be less than the size of the vocabulary, 50"):
        Adaptive(SIZE, WORDS, AdaptiveSoftmax(cutoffs=[10, 50]))
    with pytest.raises(
        ValueError, match=r"div_value 3 leaves the last of 2 clusters no feature of 8: .* at most 2.82,"
    ):
        Adaptive(8, WORDS, AdaptiveSoftmax(cutoffs=[10, 30], div_value=3.0))
    assert Adaptive(9, WORDS, AdaptiveSoftmax(cutoffs=[10, 30], div_value=3.0)).layer.tail[1][0].out_features == 1


def test_logits_of_many_rows_in_bf16_are_those_of_each_row() -> None:
    torch.manual_seed(0)
    layer = Softmax(6, 11).to(torch.bfloat16)
    hidden = torch.randn(600, 6, dtype=torch.bfloat16)
    with torch.no_grad():
        found = layer.logits(hidden)
        expected = torch.cat([layer.logits(row) for row in hidden.split(1)])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
