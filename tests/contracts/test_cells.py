"""What every cell of CELLS, with every one of its options, must keep to; a new cell needs its equations in TEXTBOOK."""

from __future__ import annotations

import typing
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from seqtext.nn.cells import CELLS, LSTM, Cell, State, build_cell, zero_state

LENGTHS = torch.tensor([5, 1, 3, 5, 2])
INPUT, HIDDEN = 4, 3


def textbook_rnn(cell: Cell, x: Tensor, state: State, nonlinearity: str = "tanh") -> State:
    """Elman 1990: h' = f(W x + b + U h + c)."""
    W, U, b, c = weights(cell)
    squash = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]
    return (squash(W @ x + b + U @ state[0] + c),)


def textbook_lstm(cell: Cell, x: Tensor, state: State, forget_bias: float = 1.0) -> State:
    """Gers 2000: c' = f * c + i * g, h' = o * tanh(c'); where a bias starts changes no equation."""
    W, U, b, c = weights(cell)
    i, f, g, o = (W @ x + b + U @ state[0] + c).split(HIDDEN)
    memory = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * memory.tanh(), memory


def textbook_gru(cell: Cell, x: Tensor, state: State) -> State:
    """Cho 2014, with the reset gate after the product: n = tanh(Wx + b + r * (Uh + c)), h' = (1 - z) * n + z * h."""
    W, U, b, c = weights(cell)
    (xr, xz, xn), (hr, hz, hn) = (W @ x + b).split(HIDDEN), (U @ state[0] + c).split(HIDDEN)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    return ((1 - z) * (xn + r * hn).tanh() + z * state[0],)


TEXTBOOK: dict[str, Callable[..., State]] = {
    "rnn": textbook_rnn,
    "lstm": textbook_lstm,
    "gru": textbook_gru,
}
"""One step of one row, (D,) and (H,), with the options of the cell."""


def weights(cell: Cell) -> list[Tensor]:
    return [getattr(cell.kernel, name) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]


def values(field: Any) -> list[Any]:
    """Values of an option worth a test of their own."""
    if typing.get_origin(field.annotation) is Literal:
        return list(typing.get_args(field.annotation))
    if field.annotation is bool:
        return [True, False]
    if field.annotation is float:
        return [field.default, field.default + 0.7]
    raise NotImplementedError(f"say here which values of a {field.annotation} to test")


CASES = [
    (name, options)
    for name, cell in CELLS.items()
    for options in [
        {},
        *({key: value} for key, field in cell.Options.model_fields.items() for value in values(field)),
    ]
]
each_cell = pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{name}-{options}" for name, options in CASES])


def make(name: str, options: dict[str, Any], *, dtype: torch.dtype = torch.float64) -> tuple[Cell, Tensor, State]:
    """A cell with sizeable weights, biases too; a padded batch; a state that is not zero."""
    generator = torch.Generator().manual_seed(7)
    cell = build_cell(name, INPUT, HIDDEN, options).to(dtype)
    for parameter in cell.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    x = torch.randn(len(LENGTHS), int(LENGTHS.max()), INPUT, generator=generator).to(dtype)
    state = tuple(torch.randn(len(LENGTHS), HIDDEN, generator=generator).to(dtype) for _ in range(cell.parts))
    return cell, x, state


def by_the_book(step: Callable[..., State], cell: Cell, x: Tensor, state: State) -> tuple[list[Tensor], list[State]]:
    """States (length, H) and last state of each row, row by row and step by step."""
    rows, ends = [], []
    for row, length in enumerate(LENGTHS.tolist()):
        now = tuple(part[row] for part in state)
        outputs = []
        for place in range(length):
            now = step(cell, x[row, place], now)
            outputs.append(now[0])
        rows.append(torch.stack(outputs))
        ends.append(now)
    return rows, ends


def close(actual: Any, expected: Any, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_every_cell_has_its_equations_here() -> None:
    assert set(TEXTBOOK) == set(CELLS), "add the new cell's textbook equations to TEXTBOOK"


@each_cell
def test_states_and_gradients_are_those_of_the_textbook(name: str, options: dict[str, Any]) -> None:
    cell, x, state = make(name, options)
    x.requires_grad_()
    states, end = cell(x, state, lengths=LENGTHS)
    expected, ends = by_the_book(partial(TEXTBOOK[name], **options), cell, x, state)
    for row, length in enumerate(LENGTHS.tolist()):
        close(states[row, :length], expected[row])
        close(tuple(part[row] for part in end), ends[row])

    # A weight for each value, so that no two errors cancel.
    share = torch.randn(int(LENGTHS.sum()), HIDDEN, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    real = torch.cat([states[row, :length] for row, length in enumerate(LENGTHS.tolist())])
    wanted = [x, *cell.parameters()]
    found = torch.autograd.grad((share * real).sum(), wanted)
    close(found, torch.autograd.grad((share * torch.cat(expected)).sum(), wanted))
    assert all(gradient.abs().max() > 0 for gradient in found)


@each_cell
def test_all_at_once_is_step_by_step_and_in_two_parts(name: str, options: dict[str, Any]) -> None:
    cell, x, state = make(name, options)
    states, end = cell(x, state)
    now, outputs = state, []
    for step in range(x.size(1)):
        output, now = cell.step(x[:, step], now)
        outputs.append(output)
    close((states, end), (torch.stack(outputs, 1), now))
    first, middle = cell(x[:, :2], state)
    second, last = cell(x[:, 2:], middle)
    close((states, end), (torch.cat([first, second], 1), last))
    close(end[0], states[:, -1])
    close(cell(x), cell(x, zero_state(cell, x)))
    close(cell.step(x[:, 0]), cell.step(x[:, 0], zero_state(cell, x)))


@pytest.mark.parametrize("filling", [0.0, -3.0, 1e30])
@each_cell
def test_padding_and_neighbours_change_nothing(name: str, options: dict[str, Any], filling: float) -> None:
    cell, x, state = make(name, options, dtype=torch.float32)
    padded = x.masked_fill((torch.arange(x.size(1)) >= LENGTHS[:, None]).unsqueeze(2), filling)
    states, end = cell(padded, state, lengths=LENGTHS)
    fast, _ = cell(padded, state)
    for row, length in enumerate(LENGTHS.tolist()):
        alone, last = cell(x[row : row + 1, :length], tuple(part[row : row + 1] for part in state))
        close(states[row, :length], alone[0], 1e-6)
        close(fast[row, :length], alone[0], 1e-6)
        close(tuple(part[row] for part in end), tuple(part[0] for part in last), 1e-6)


@each_cell
def test_recurrent_matrices_start_orthogonal_gate_by_gate(name: str, options: dict[str, Any]) -> None:
    cell = build_cell(name, INPUT, 17, options)
    blocks = weights(cell)[1].detach().split(17)
    assert len(blocks) == cell.gates
    for block in blocks:
        close(block @ block.T, torch.eye(17), 1e-5)
    assert all((one - other).abs().max() > 0.1 for i, one in enumerate(blocks) for other in blocks[:i])


@pytest.mark.parametrize("name", [name for name, kind in CELLS.items() if kind is not LSTM])
def test_biases_start_at_zero(name: str) -> None:
    assert all(bias.eq(0).all() for bias in weights(build_cell(name, INPUT, HIDDEN))[2:])


@pytest.mark.parametrize("bias", [None, 0.0, -2.5])
def test_the_forget_gate_of_an_lstm_starts_open(bias: float | None) -> None:
    cell = build_cell("lstm", INPUT, HIDDEN, {} if bias is None else {"forget_bias": bias})
    expected = torch.zeros(4, HIDDEN)
    expected[1] = 1.0 if bias is None else bias
    close(sum(weights(cell)[2:]), expected.flatten())
    # What the bias does: from the zero input, the memory keeps just its share.
    cell.kernel.weight_hh_l0.data.zero_()
    _, (_, memory) = cell.step(torch.zeros(1, INPUT), (torch.zeros(1, HIDDEN), torch.full((1, HIDDEN), 2.0)))
    close(memory, 2.0 * expected[1:2].sigmoid(), 1e-6)
