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
from seqtext.nn.deep import Dilated
from seqtext.nn.rnn import Recurrent, RecurrentConfig, reversal, reverse

LENGTHS = torch.tensor([4, 1, 6, 3])
SOME = ("rnn", "lstm", "gru", "lnlstm", "sru")


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


def alone(stack: Any, row: Tensor, state: list[State], config: Any) -> tuple[Tensor, list[State]]:
    """One unpadded row (T, D) through the stack's cells, step by step: states (T, directions * H), last states.

    With a dilation d, each step goes on from the d-th last state; the states before the first are the oldest last.
    """
    ends = []
    starts = iter(state)
    below = []
    for depth, layer in enumerate(stack.layers):
        below.append(row)
        read = torch.cat(below, dim=1) if config.skip == "dense" else row
        for linear in stack.inputs[depth].layers:
            read = linear(read).tanh()
        outputs = []
        for direction, cell in enumerate(layer):
            one = cell.cell if isinstance(cell, Dilated) else cell
            begun, states = next(starts), []
            past = [begun[i : i + one.parts] for i in range(0, len(begun), one.parts)]  # the latest first
            for step in read.flip(0) if direction else read:
                output, now = one.step(step[None], past.pop())
                past.insert(0, now)
                states.append(output[0])
            states = torch.stack(states[::-1] if direction else states)
            if depth == len(stack.layers) - 1:
                for linear in stack.outputs[direction].layers:
                    states = linear(states).tanh()
            outputs.append(states)
            ends.append(tuple(part for one_state in past for part in one_state))
        joined = torch.cat(outputs, 1)
        if config.skip == "residual" and joined.shape == row.shape:
            joined = joined + row
        if config.skip == "highway" and joined.shape == row.shape:
            gate = stack.gates[depth](row).sigmoid()
            joined = gate * joined + (1 - gate) * row
        row = joined
    return row, ends


def close(actual: object, expected: object) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9)


STACKS: list[dict[str, Any]] = [
    *({"cell": cell, "layers": layers} for cell in SOME for layers in (1, 3)),
    *({"layers": 3, "skip": skip} for skip in ("residual", "highway", "dense")),
    *({"cell": cell, "layers": 2, "dilation": [2, 3]} for cell in ("lstm", "gru", "mut1", "sru")),
    {"dilation": 8},
    {"layers": 2, "input_depth": 3, "output_depth": 2},
    {"layers": 2, "skip": "dense", "input_depth": 2, "dilation": 2, "cell": "gru"},
    *({"cell": cell, "transition_depth": 3} for cell, kind in CELLS.items() if kind.deepens),
    {"cell": "lstm", "transition_depth": 2, "cell_options": {"zoneout": 0.2}, "dilation": 2},
]


@pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("values", STACKS, ids=lambda values: "-".join(f"{key} {values[key]}" for key in values))
def test_equals_each_row_alone(values: dict[str, Any], bidirectional: bool) -> None:
    config = RecurrentConfig.model_validate({"bidirectional": bidirectional, "hidden_size": 3, **values})
    for input_size in (2, 3 * (1 + bidirectional)):  # the second is that of the output: a residual around layer one
        stack, x, state = make(config, input_size)
        stack.eval()
        assert stack.output_size == 3 * (1 + bidirectional)
        states, ends = stack(x, LENGTHS, state)
        fast, none = stack(x, LENGTHS, state, with_state=False)
        assert none == [] and len(ends) == len(state)
        fresh, _ = stack(x, LENGTHS)
        for row, length in enumerate(LENGTHS.tolist()):
            own = [tuple(part[row : row + 1] for part in one) for one in state]
            expected, last = alone(stack, x[row, :length], own, config)
            close(states[row, :length], expected)
            close(fast[row, :length], expected)
            close([tuple(part[row : row + 1] for part in one) for one in ends], last)
            zero = [tuple(torch.zeros_like(part) for part in one) for one in own]
            close(fresh[row, :length], alone(stack, x[row, :length], zero, config)[0])


@pytest.mark.parametrize("values", [*({"cell": cell} for cell in SOME), {"dilation": [2, 1]}, {"dilation": 5}], ids=str)
def test_one_direction_split_in_two_with_its_state_is_the_whole(values: dict[str, Any]) -> None:
    config = RecurrentConfig.model_validate({"layers": 2, "bidirectional": False, "hidden_size": 3, **values})
    stack, x, state = make(config, 2)
    first, middle = stack(x, torch.tensor([2, 1, 2, 2]), state)
    second, end = stack(x[:, 2:], torch.tensor([2, 1, 4, 1]), middle)
    states, last = stack(x, LENGTHS, state)
    for row in (0, 2, 3):  # the row of length one ends in the first part
        length = int(LENGTHS[row])
        close(torch.cat([first[row, :2], second[row]])[:length], states[row, :length])
        close([[part[row] for part in one] for one in end], [[part[row] for part in one] for one in last])
    now, outputs = state, []
    for step in range(x.size(1)):
        output, now = stack(x[:, step : step + 1], None, now)
        outputs.append(output)
    close(
        (torch.cat(outputs, 1)[2], [[part[2] for part in one] for one in now]),
        (states[2], [[p[2] for p in one] for one in last]),
    )


WIRED: list[dict[str, Any]] = [
    *({"skip": skip, "layers": 3, "input_depth": 2, "output_depth": 2} for skip in ("highway", "dense")),
    {"transition_depth": 2, "dilation": 2},
]


@pytest.mark.parametrize("values", [*({"cell": cell} for cell in CELLS), *WIRED], ids=str)
def test_every_parameter_learns_and_padding_takes_no_gradient(values: dict[str, Any]) -> None:
    stack, x, _ = make(RecurrentConfig.model_validate({"layers": 2, "hidden_size": 4, **values}), 2)
    real = torch.arange(x.size(1)) < LENGTHS[:, None]
    x = x.masked_fill(~real.unsqueeze(2), 2.0).requires_grad_()
    states, _ = stack(x, LENGTHS, with_state=False)
    states[real].square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in stack.parameters())
    assert x.grad is not None and x.grad[~real].eq(0).all() and x.grad[real].ne(0).any(1).all()


@pytest.mark.parametrize(
    "wired", [{"transition_depth": 2}, {"dilation": 2}, {"transition_depth": 2, "dilation": 3}], ids=str
)
def test_weight_dropout_reaches_the_cells_within(wired: dict[str, Any]) -> None:
    values = {"cell": "gru", "hidden_size": 3, "weight_dropout": 1.0 - 1e-9, **wired}
    stack, x, state = make(RecurrentConfig.model_validate(values), 2)
    dropped = stack.train()(x, LENGTHS, state)[0]
    for name, parameter in stack.named_parameters():
        if "recurrent" in name or "weight_hh" in name:
            parameter.data.zero_()
    real = torch.arange(x.size(1)) < LENGTHS[:, None]
    close(dropped[real], stack.eval()(x, LENGTHS, state)[0][real])


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
        ({"cell": "lstmm"}, f"cell 'lstmm' is not one of {', '.join(CELLS)}; did you mean 'lstm'?"),
        ({"cell": "transformer"}, f"cell 'transformer' is not one of {', '.join(CELLS)}"),
        (
            {"cell": "gru", "cell_options": {"nonlinearity": "relu"}},
            "cell_options: cell 'gru' has no option 'nonlinearity'; cells that have it: rnn",
        ),
        (
            {"cell_options": {"peephole": True}},
            "cell_options: cell 'lstm' has no option 'peephole'; no cell has it; did you mean 'peepholes'?",
        ),
        (
            {"cell": "rnn", "cell_options": {"nonlinearity": "gelu"}},
            "cell_options.nonlinearity: expected 'tanh' or 'relu', got 'gelu'",
        ),
        (
            {"cell": "sru", "cell_options": {"forget_bias": 1.0}},
            "cell_options: cell 'sru' has no option 'forget_bias'; "
            "cells that have it: lstm, lnlstm, mogrifier, minlstm",
        ),
        (
            {"cell": "mingru", "weight_dropout": 0.5},
            "weight_dropout: cell 'mingru' has no recurrent matrix; cells that have one: "
            "rnn, lstm, gru, mut1, mut2, mut3, lnlstm, lngru, mogrifier, clockwork",
        ),
        (
            {"cell": "sru", "transition_depth": 2},
            "transition_depth: a step of cell 'sru' is one; cells that can have more: "
            "rnn, lstm, gru, mut1, mut2, mut3, lnlstm, lngru",
        ),
        (
            {"cell_options": {"kernel": "fused"}, "transition_depth": 2},
            "cell_options: kernel = 'fused': its steps are one transition; leave it out",
        ),
        (
            {"layers": 2, "dilation": [1, 2, 4]},
            "dilation must be a number from 1 on, or one for each layer, got [1, 2, 4]",
        ),
        ({"layers": 2, "dilation": [1, 1025]}, "dilation must be at most 1,024 steps, got [1, 1025]"),
        ({"dilation": 0}, "dilation must be a number from 1 on, or one for each layer, got 0"),
        ({"output_depth": 0}, "output_depth must be from 1 to 1,000, got 0"),
        ({"transition_depth": 1001}, "transition_depth must be from 1 to 1,000, got 1001"),
        ({"dropout": 1.0}, "dropout must be in [0, 1), got 1.0"),
        ({"dropout": -0.1}, "dropout must be in [0, 1), got -0.1"),
        ({"hidden_size": 0}, "hidden_size must be at least 1, got 0"),
        ({"layers": 0}, "layers must be from 1 to 1,000, got 0"),
        ({"layers": 10**30}, "layers must be from 1 to 1,000, got 1" + "0" * 30),
    ],
)
def test_what_a_recipe_may_not_say(values: dict[str, object], message: str) -> None:
    joint = "." if re.match(r"[a-z_.]+: ", message) else ": "
    with pytest.raises(ConfigError, match=re.escape(f"model.encoder{joint}{message}") + "$"):
        parse(RecurrentConfig, values, source="recipe.toml", prefix="model.encoder")
