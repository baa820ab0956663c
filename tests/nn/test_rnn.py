"""Stacks of recurrent layers against each row run alone, unpadded and flipped by hand; the reversal; recipe errors."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from seqtext.config import parse
from seqtext.errors import ConfigError
from seqtext.nn.cells import CELLS, State
from seqtext.nn.rnn import Recurrent, RecurrentConfig, reversal, reverse

LENGTHS = torch.tensor([4, 1, 6, 3])


def make(config: RecurrentConfig, input_size: int) -> tuple[Any, Tensor, list[State]]:
    """A stack, a batch with huge values in the padding, and states that are not zero; all in float64."""
    torch.manual_seed(5)
    stack: Any = Recurrent(input_size, config).double()
    for parameter in stack.parameters():
        parameter.data.normal_(std=0.4)
    x = torch.randn(len(LENGTHS), int(LENGTHS.max()), input_size, dtype=torch.float64)
    x[torch.arange(x.size(1)) >= LENGTHS[:, None]] = 1e30
    cells = [cell for layer in stack.layers for cell in layer]
    size = config.hidden_size
    state = [tuple(torch.randn(len(LENGTHS), size, dtype=x.dtype) for _ in range(cell.parts)) for cell in cells]
    return stack, x, state


def alone(stack: Any, row: Tensor, state: list[State], residual: bool) -> tuple[Tensor, list[State]]:
    """One unpadded row (T, D) through the stack's cells, step by step: states (T, directions * H), last states."""
    ends = []
    starts = iter(state)
    for layer in stack.layers:
        outputs = []
        for direction, cell in enumerate(layer):
            now, states = next(starts), []
            for step in row.flip(0) if direction else row:
                output, now = cell.step(step[None], now)
                states.append(output[0])
            outputs.append(torch.stack(states[::-1] if direction else states))
            ends.append(now)
        joined = torch.cat(outputs, 1)
        row = joined + row if residual and joined.shape == row.shape else joined
    return row, ends


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("residual", [False, True], ids=["plain", "residual"])
@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_equals_each_row_alone(cell: str, layers: int, bidirectional: bool, residual: bool) -> None:
    config = RecurrentConfig(cell=cell, layers=layers, bidirectional=bidirectional, residual=residual, hidden_size=3)
    for input_size in (2, 3 * (1 + bidirectional)):  # the second is that of the output: a residual around layer one
        stack, x, state = make(config, input_size)
        assert stack.output_size == 3 * (1 + bidirectional)
        states, ends = stack(x, LENGTHS, state)
        fast, none = stack(x, LENGTHS, state, with_state=False)
        assert none == [] and len(ends) == len(state)
        fresh, _ = stack(x, LENGTHS)
        for row, length in enumerate(LENGTHS.tolist()):
            own = [tuple(part[row : row + 1] for part in one) for one in state]
            expected, last = alone(stack, x[row, :length], own, residual)
            close(states[row, :length], expected)
            close(fast[row, :length], expected)
            close([tuple(part[row : row + 1] for part in one) for one in ends], last)
            zero = [tuple(torch.zeros_like(part) for part in one) for one in own]
            close(fresh[row, :length], alone(stack, x[row, :length], zero, residual)[0])


@pytest.mark.parametrize("cell", CELLS)
def test_one_direction_split_in_two_with_its_state_is_the_whole(cell: str) -> None:
    stack, x, state = make(RecurrentConfig(cell=cell, layers=2, bidirectional=False, hidden_size=3), 2)
    first, middle = stack(x, torch.tensor([2, 1, 2, 2]), state)
    second, end = stack(x[:, 2:], torch.tensor([2, 1, 4, 1]), middle)
    states, last = stack(x, LENGTHS, state)
    for row in (0, 2, 3):  # the row of length one ends in the first part
        length = int(LENGTHS[row])
        close(torch.cat([first[row, :2], second[row]])[:length], states[row, :length])
        close([[part[row] for part in one] for one in end], [[part[row] for part in one] for one in last])


@pytest.mark.parametrize("cell", CELLS)
def test_every_parameter_learns_and_padding_takes_no_gradient(cell: str) -> None:
    stack, x, _ = make(RecurrentConfig(cell=cell, layers=2, hidden_size=3), 2)
    real = torch.arange(x.size(1)) < LENGTHS[:, None]
    x = x.masked_fill(~real.unsqueeze(2), 2.0).requires_grad_()
    states, _ = stack(x, LENGTHS, with_state=False)
    states[real].square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in stack.parameters())
    assert x.grad is not None and x.grad[~real].eq(0).all() and x.grad[real].ne(0).all()


def test_dropout_stands_between_layers_only_and_is_locked() -> None:
    torch.manual_seed(0)
    x, lengths = torch.ones(2, 5, 6), torch.tensor([5, 3])
    single = Recurrent(6, RecurrentConfig(layers=1, dropout=0.9, hidden_size=3))
    close(single.train()(x, lengths)[0], single.eval()(x, lengths)[0])
    seen = []
    stack: Any = Recurrent(6, RecurrentConfig(layers=3, dropout=0.5, hidden_size=3, bidirectional=False))
    for layer in stack.layers:
        layer[0].register_forward_pre_hook(lambda cell, inputs: seen.append(inputs[0]))
    stack.train()(x, lengths, with_state=False)
    assert torch.equal(seen[0], x)
    for inputs in seen[1:]:  # a state is hardly ever zero by itself
        dropped = inputs.eq(0)
        assert torch.equal(dropped, dropped[:, :1].expand_as(dropped))
    assert torch.cat(seen[1:], 2).eq(0).any()


@settings(max_examples=50)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(0, 2))
def test_reversal_turns_each_row_and_is_its_own_inverse(lengths: list[int], more: int) -> None:
    time = max(max(lengths) + more, 1)
    x = torch.arange(len(lengths) * time * 2.0).view(len(lengths), time, 2)
    order = reversal(torch.tensor(lengths), time, x.device)
    turned = reverse(x, order)
    expected = [[*row[:length][::-1], *row[length:]] for row, length in zip(x.tolist(), lengths)]
    assert turned.tolist() == expected
    assert torch.equal(reverse(turned, order), x)


def test_gradient_of_the_reversal() -> None:
    order = reversal(torch.tensor([3, 1, 4]), 4, torch.device("cpu"))
    x = torch.randn(3, 4, 2, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 4, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: reverse(x, order) * weight, (x,))
    # Also where what comes back is not contiguous.
    assert torch.autograd.gradcheck(lambda x: reverse(x, order).transpose(0, 1).cumsum(0), (x,))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cell": "lstmm"}, "cell 'lstmm' is not one of rnn, lstm, gru; did you mean 'lstm'?"),
        ({"cell": "transformer"}, "cell 'transformer' is not one of rnn, lstm, gru"),
        (
            {"cell": "gru", "cell_options": {"nonlinearity": "relu"}},
            "cell_options: cell 'gru' has no option 'nonlinearity'; cells that have it: rnn",
        ),
        ({"cell_options": {"peephole": True}}, "cell_options: cell 'lstm' has no option 'peephole'; no cell has it"),
        (
            {"cell": "rnn", "cell_options": {"nonlinearity": "gelu"}},
            "cell_options.nonlinearity: Input should be 'tanh' or 'relu', got 'gelu'",
        ),
        ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
        ({"dropout": -0.1}, "dropout must be in [0, 1), got -0.1"),
        ({"layers": 0}, "hidden_size and layers must be at least 1, got 200 and 0"),
    ],
)
def test_what_a_recipe_may_not_say(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"model.encoder: {message}") + "$"):
        parse(RecurrentConfig, values, source="recipe.toml", prefix="model.encoder")
