"""What every cell of CELLS, with every one of its options, must keep to; a new cell needs its equations in TEXTBOOK."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from seqtext.config import parse
from seqtext.errors import ConfigError
from seqtext.nn.cells import CELLS, Cell, State, build_cell, zero_state
from seqtext.nn.clockwork import Clockwork
from seqtext.nn.fused import Fused
from seqtext.nn.looped import Looped
from seqtext.nn.looped_cells import LoopedGRU
from seqtext.nn.rnn import RecurrentConfig

LENGTHS = torch.tensor([5, 1, 3, 5, 2])
INPUT, HIDDEN = 4, 3


def zoned(new: State, old: State, *rates: float) -> State:
    """Krueger 2017 at prediction: the mean of the new and the old, by the chance of each."""
    return tuple((1 - rate) * after + rate * before for after, before, rate in zip(new, old, rates))


def textbook_rnn(
    cell: Any,
    x: Tensor,
    state: State,
    nonlinearity: str = "tanh",
    leak: float = 1.0,
    zoneout: float = 0.0,
    **same: object,
) -> State:
    """Elman 1990: h' = f(W x + b + U h + c); Jaeger 2007: only a share of it is new."""
    W, U, b, c = weights(cell)
    squash = {"tanh": torch.tanh, "relu": torch.relu}[nonlinearity]
    return zoned(((1 - leak) * state[0] + leak * squash(W @ x + b + U @ state[0] + c),), state, zoneout)


def textbook_lstm(
    cell: Any,
    x: Tensor,
    state: State,
    peepholes: bool = False,
    coupled: bool = False,
    without: tuple[str, ...] = (),
    zoneout: float = 0.0,
    zoneout_memory: float = 0.0,
    **same: object,
) -> State:
    """Gers 2000: c' = f * c + i * g, h' = o * tanh(c'); where a bias starts changes no equation.

    Gers & Schmidhuber 2000: i and f see c, o sees c'. Greff 2017: a gate that is gone is 1; coupled, i is 1 - f.
    """
    W, U, b, c = weights(cell)
    names = [name for name in ("input", "forget", "memory", "output") if name not in without]
    if coupled:
        names.remove("input")
    parts = dict(zip(names, (W @ x + b + U @ state[0] + c).split(HIDDEN)))

    def gate(name: str, memory: Tensor) -> Tensor:
        if name not in parts:
            return torch.ones_like(memory)
        return (parts[name] + (cell.peepholes[name] * memory if peepholes else 0.0)).sigmoid()

    f = gate("forget", state[1])
    i = 1 - f if coupled else gate("input", state[1])
    memory = f * state[1] + i * parts["memory"].tanh()
    return zoned((gate("output", memory) * memory.tanh(), memory), state, zoneout, zoneout_memory)


def textbook_gru(cell: Any, x: Tensor, state: State, zoneout: float = 0.0, **same: object) -> State:
    """Cho 2014, with the reset gate after the product: n = tanh(Wx + b + r * (Uh + c)), h' = (1 - z) * n + z * h."""
    W, U, b, c = weights(cell)
    (xr, xz, xn), (hr, hz, hn) = (W @ x + b).split(HIDDEN), (U @ state[0] + c).split(HIDDEN)
    r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
    return zoned(((1 - z) * (xn + r * hn).tanh() + z * state[0],), state, zoneout)


def textbook_mut1(cell: Any, x: Tensor, state: State) -> State:
    """Jozefowicz 2015, section 3.3; x as a matrix brings it to the size of the state."""
    (Wz, Wr, Wn), (bz, br, bn), (h,) = cell.input.weight.split(HIDDEN), cell.input.bias.split(HIDDEN), state
    Ur, Un = (matrix.weight for matrix in cell.recurrent)
    z, r = (Wz @ x + bz).sigmoid(), (Wr @ x + Ur @ h + br).sigmoid()
    return ((Un @ (r * h) + (Wn @ x).tanh() + bn).tanh() * z + h * (1 - z),)


def textbook_mut2(cell: Any, x: Tensor, state: State) -> State:
    (Wz, Wr, Wn), (bz, br, bn), (h,) = cell.input.weight.split(HIDDEN), cell.input.bias.split(HIDDEN), state
    (Uz, Ur), Un = cell.recurrent[0].weight.split(HIDDEN), cell.recurrent[1].weight
    z, r = (Wz @ x + Uz @ h + bz).sigmoid(), (Wr @ x + Ur @ h + br).sigmoid()
    return ((Un @ (r * h) + Wn @ x + bn).tanh() * z + h * (1 - z),)


def textbook_mut3(cell: Any, x: Tensor, state: State) -> State:
    (Wz, Wr, Wn), (bz, br, bn), (h,) = cell.input.weight.split(HIDDEN), cell.input.bias.split(HIDDEN), state
    Uz, Ur, Un = (matrix.weight for matrix in cell.recurrent)
    z, r = (Wz @ x + Uz @ h.tanh() + bz).sigmoid(), (Wr @ x + Ur @ h + br).sigmoid()
    return ((Un @ (r * h) + Wn @ x + bn).tanh() * z + h * (1 - z),)


def norm(x: Tensor) -> Tensor:
    """Ba 2016, eq. 3, with the usual small number under the root."""
    return (x - x.mean()) / (x.var(correction=0) + 1e-5).sqrt()


def textbook_lnlstm(cell: Any, x: Tensor, state: State, forget_bias: float = 1.0) -> State:
    """Ba 2016, eq. 20-22."""
    given = norm(cell.input.weight @ x) * cell.input_gain + cell.input.bias
    i, f, g, o = (given + norm(cell.recurrent[0].weight @ state[0]) * cell.gain).split(HIDDEN)
    memory = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * (norm(memory) * cell.memory_gain + cell.memory_bias).tanh(), memory


def textbook_lngru(cell: Any, x: Tensor, state: State) -> State:
    """Ba 2016, eq. 23-25."""
    (h,), both = state, 2 * HIDDEN
    given, kept = cell.input.weight @ x, cell.recurrent[0].weight @ h
    gates = norm(given[:both]) * cell.input_gain[:both] + cell.input.bias[:both]
    z, r = (gates + norm(kept[:both]) * cell.gain[:both]).sigmoid().split(HIDDEN)
    new = norm(given[both:]) * cell.input_gain[both:] + cell.input.bias[both:]
    new = (new + r * (norm(kept[both:]) * cell.gain[both:] + cell.recurrent_bias)).tanh()
    return ((1 - z) * h + z * new,)


def textbook_mogrifier(cell: Any, x: Tensor, state: State, rounds: int = 5, forget_bias: float = 1.0) -> State:
    """Melis 2020, eq. 1-2, then an LSTM."""
    h, memory = state
    for number, matrix in enumerate(cell.rounds, start=1):
        if number % 2:
            x = 2 * (matrix.weight @ h).sigmoid() * x
        else:
            h = 2 * (matrix.weight @ x).sigmoid() * h
    assert len(cell.rounds) == rounds
    i, f, g, o = (cell.input.weight @ x + cell.input.bias + cell.recurrent[0].weight @ h).split(HIDDEN)
    memory = f.sigmoid() * memory + i.sigmoid() * g.tanh()
    return o.sigmoid() * memory.tanh(), memory


def textbook_clockwork(cell: Any, x: Tensor, state: State, periods: tuple[int, ...] = (1, 2, 4)) -> State:
    """Koutnik 2014, group by group: each moves at its period and hears those of its own and of longer ones."""
    h, clock = state
    new, after = h.clone(), (clock + 1) % torch.tensor(periods).repeat_interleave(HIDDEN // len(periods))
    size = HIDDEN // len(periods)
    for group in range(len(periods)):
        own = slice(group * size, (group + 1) * size)
        heard = cell.recurrent[0].weight[own, own.start :] @ h[own.start :]
        if clock[own.start] == 0:
            new[own] = (cell.input.weight[own] @ x + heard + cell.input.bias[own]).tanh()
    return new, after


def textbook_mingru(cell: Any, x: Tensor, state: State) -> State:
    """Feng 2024, section 3.1.3."""
    z, new = (cell.input.weight @ x + cell.input.bias).split(HIDDEN)
    return ((1 - z.sigmoid()) * state[0] + z.sigmoid() * new,)


def textbook_minlstm(cell: Any, x: Tensor, state: State, forget_bias: float = 0.0) -> State:
    """Feng 2024, section 3.2.4."""
    f, i, new = (cell.input.weight @ x + cell.input.bias).split(HIDDEN)
    f, i = f.sigmoid(), i.sigmoid()
    return (f / (f + i) * state[0] + i / (f + i) * new,)


def textbook_sru(cell: Any, x: Tensor, state: State) -> State:
    """Lei 2018, first version, eq. 3-7: what h was is not read again."""
    given, (bf, br) = (cell.input.weight @ x).split(HIDDEN), cell.bias.split(HIDDEN)
    f, r = (given[0] + bf).sigmoid(), (given[1] + br).sigmoid()
    memory = f * state[1] + (1 - f) * given[2]
    return r * memory.tanh() + (1 - r) * (given[3] if len(given) == 4 else x), memory


TEXTBOOK: dict[str, Callable[..., State]] = {
    name.removeprefix("textbook_"): step for name, step in globals().items() if name.startswith("textbook_")
}
"""One step of one row, (D,) and (H,), with the options of the cell."""


def weights(cell: Any) -> list[Tensor]:
    """W, U and the biases that are added to either product."""
    if isinstance(cell, Fused):
        return [getattr(cell.kernel, name) for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")]
    recurrent, bias = cell.recurrent[0].weight, cell.input.bias
    none = bias.new_zeros(len(recurrent))
    if isinstance(cell, LoopedGRU):
        none = torch.cat([none[: 2 * HIDDEN], cell.bias])
    return [cell.input.weight, recurrent, bias, none]


VALUES: dict[str, list[Any]] = {
    "periods": [[2, 3, 5]],
    "rounds": [0, 2],
    "leak": [0.3],
    "without": [["input"], ["forget"], ["output"], ["input", "forget", "output"]],
}
"""Values of an option worth a test of their own, where its type does not say them."""
MORE: list[tuple[str, dict[str, Any]]] = [
    ("rnn", {"leak": 0.4, "zoneout": 0.2, "nonlinearity": "relu"}),
    ("lstm", {"coupled": True, "peepholes": True}),
    ("lstm", {"without": ["output"], "peepholes": True, "zoneout": 0.3, "zoneout_memory": 0.1}),
    ("lstm", {"coupled": True, "without": ["output"]}),
]
"""Options together."""


def values(name: str, field: Any) -> list[Any]:
    if name in VALUES:
        return VALUES[name]
    kinds = [kind for kind in (field.annotation, *typing.get_args(field.annotation)) if kind is not type(None)]
    for kind in kinds:
        if typing.get_origin(kind) is Literal:
            return list(typing.get_args(kind))
    if field.annotation is bool:
        return [True, False]
    if field.annotation is float:
        return [field.default, field.default + 0.7]
    raise NotImplementedError(f"say in VALUES which values of {name}, a {field.annotation}, to test")


USUAL: dict[str, dict[str, Any]] = {"clockwork": {"periods": [1, 2, 4]}}
"""Options of cells whose own do not suit so few units."""
CASES = [
    (name, options)
    for name, cell in CELLS.items()
    for options in [
        USUAL.get(name, {}),
        *(
            {key: value}
            for key, field in cell.Options.model_fields.items()
            for value in values(key, field)
            if value != field.get_default(call_default_factory=True)
        ),
    ]
] + MORE
each_cell = pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{name}-{options}" for name, options in CASES])


def make(
    name: str, options: dict[str, Any], *, dtype: torch.dtype = torch.float64, input_size: int = INPUT
) -> tuple[Cell, Tensor, State]:
    """A cell with sizeable weights, biases too; a padded batch; a state that is not zero."""
    generator = torch.Generator().manual_seed(7)
    cell = build_cell(name, input_size, HIDDEN, options).to(dtype).eval()
    for parameter in cell.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    x = torch.randn(len(LENGTHS), int(LENGTHS.max()), input_size, generator=generator).to(dtype)
    state = [torch.randn(len(LENGTHS), HIDDEN, generator=generator).to(dtype) for _ in range(cell.parts)]
    if isinstance(cell, Clockwork):  # each row somewhere else on its way
        state[1] = torch.arange(len(LENGTHS)).unsqueeze(1).to(dtype) % cell.periods
    return cell, x, tuple(state)


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
def test_weights_start_as_their_sources_say(name: str, options: dict[str, Any]) -> None:
    cell = build_cell(name, INPUT, 17, options)
    blocks = [
        block
        for key, matrix in cell.named_parameters()
        if re.search("weight_hh|recurrent", key) and matrix.dim() == 2
        for block in matrix.split(17)
    ]
    relu = options.get("nonlinearity") == "relu"
    for block in blocks:
        close(block @ block.T, torch.eye(17), 1e-5)
        assert torch.equal(block, torch.eye(17)) == (options.get("initial", "identity" if relu else "") == "identity")
    assert all((one - other).abs().max() > 0.1 for i, one in enumerate(blocks) for other in blocks[:i])
    usual = type(cell).Options(**options).model_dump()
    biased = {usual.get(key, 0.0) for key in ("forget_bias", "output_bias")}
    for key, vector in cell.named_parameters():
        if vector.dim() == 1:
            start = {1.0} if "gain" in key else {0.0, *torch.tensor([*biased]).tolist()}
            assert set(vector.tolist()) <= start, key


@pytest.mark.parametrize("kernel", ["fused", "loop"])
@pytest.mark.parametrize("gate", ["forget", "output"])
@pytest.mark.parametrize("bias", [None, 0.0, -2.5])
def test_where_the_gates_of_an_lstm_start(bias: float | None, gate: str, kernel: str) -> None:
    cell = build_cell("lstm", INPUT, HIDDEN, {"kernel": kernel} | ({} if bias is None else {f"{gate}_bias": bias}))
    expected = torch.zeros(4, HIDDEN)
    expected[1] = 1.0
    if bias is not None:
        expected[1 if gate == "forget" else 3] = bias
    close(sum(weights(cell)[2:]), expected.flatten())
    # What the biases do: of the zero input and state, the memory keeps just its share, and shows just its share.
    _, (output, memory) = cell.step(torch.zeros(1, INPUT), (torch.zeros(1, HIDDEN), torch.full((1, HIDDEN), 2.0)))
    close(memory, 2.0 * expected[1:2].sigmoid(), 1e-6)
    close(output, memory.tanh() * expected[3:].sigmoid(), 1e-6)


@pytest.mark.parametrize(
    ("name", "options"), [("rnn", {}), ("lstm", {}), ("gru", {}), ("rnn", {"nonlinearity": "relu"})]
)
def test_the_loop_computes_what_the_fused_kernel_does(name: str, options: dict[str, Any]) -> None:
    fused, x, state = make(name, options)
    loop: Any = build_cell(name, INPUT, HIDDEN, {**options, "kernel": "loop"}).double().eval()
    assert isinstance(loop, Looped) and not isinstance(fused, Looped)
    W, U, b, c = (weight.data.clone() for weight in weights(fused))
    if name == "gru":
        loop.bias.data = c[2 * HIDDEN :].clone()
        c[2 * HIDDEN :] = 0.0
    loop.input.weight.data, loop.recurrent[0].weight.data, loop.input.bias.data = W, U, b + c
    close(loop(x, state, lengths=LENGTHS)[1], fused(x, state, lengths=LENGTHS)[1])


@pytest.mark.parametrize(
    "options", [options for name, options in CASES if name == "lstm" and "zoneout" not in str(options)], ids=str
)
def test_the_gradient_of_an_lstm_by_hand_is_that_of_its_steps(options: dict[str, Any]) -> None:
    """The same weights through the equations of one step, time after time, and autograd."""
    cell, x, state = make("lstm", {**options, "kernel": "loop"})
    assert isinstance(cell, Looped)
    state = tuple(part.requires_grad_() for part in state)
    wanted = [x.requires_grad_(), *state, *cell.parameters()]
    share = torch.randn(2, *x.shape[:2], HIDDEN, dtype=x.dtype)

    def gradients() -> tuple[Tensor, ...]:
        states, (_, memory) = cell(x, state)
        return torch.autograd.grad((share[0] * states).sum() + (share[1, :, 0] * memory).sum(), wanted)

    found = gradients()
    cell.run = types.MethodType(Looped.run, cell)  # type: ignore[attr-defined]
    close(found, gradients())


@pytest.mark.parametrize(
    ("name", "options"),
    [("rnn", {"zoneout": 0.3}), ("gru", {"zoneout": 0.3}), ("lstm", {"zoneout": 0.3, "zoneout_memory": 0.6})],
)
def test_zoneout_keeps_units_by_chance_in_training(name: str, options: dict[str, float]) -> None:
    torch.manual_seed(4)
    cell = build_cell(name, INPUT, 64, options).train()
    x, state = torch.randn(200, INPUT), tuple(torch.randn(200, 64) for _ in range(cell.parts))
    _, zoned = cell.step(x, state)
    cell.rates = (0.0,) * cell.parts  # type: ignore[assignment]
    _, plain = cell.step(x, state)
    for new, mixed, old, rate in zip(plain, zoned, state, options.values()):
        kept = mixed == old
        assert kept.double().mean().item() == pytest.approx(rate, abs=0.02)
        close(mixed, torch.where(kept, old, new), 1e-6)


RECURRENT = [(name, USUAL.get(name, {})) for name, kind in CELLS.items() if kind.recurs]


@pytest.mark.parametrize(
    ("name", "options"),
    [*RECURRENT, *((name, {"kernel": "loop"}) for name, kind in CELLS.items() if issubclass(kind, Fused))],
)
def test_weight_dropout_is_one_draw_for_all_steps(name: str, options: dict[str, Any]) -> None:
    """With a chance of nearly 1 nothing recurs: outputs are as if recurrent matrices were zero."""
    cell, x, state = make(name, options)
    plain = cell.train()(x, state)
    cell.weight_dropout = 1e-9
    close(cell(x, state, lengths=LENGTHS), cell.eval()(x, state, lengths=LENGTHS), 1e-7)
    cell.train().weight_dropout = 1.0 - 1e-9
    dropped = cell(x, state)
    assert (dropped[0] - plain[0]).abs().max() > 1e-3
    for key, matrix in cell.named_parameters():
        if re.search("weight_hh|recurrent", key) and matrix.dim() == 2:
            matrix.data.zero_()
    cell.weight_dropout = 0.0
    close(dropped, cell(x, state))


@each_cell
def test_numbers_of_fewer_bits(name: str, options: dict[str, Any]) -> None:
    """Under autocast, and as a bfloat16 module, in training and one step at a time: near to float32."""
    cell, x, state = make(name, options, dtype=torch.float32)
    states, end = cell(x, state, lengths=LENGTHS)
    whole = cell(x, state)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough, rough_end = cell(x, state, lengths=LENGTHS)
        (rough.float().square().sum()).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in cell.parameters())
    real = torch.arange(x.size(1)) < LENGTHS[:, None]
    close([part.float() for part in (rough[real], *rough_end)], [states[real], *end], 0.1)
    cell.bfloat16()
    with torch.no_grad():
        now: Any = tuple(part.bfloat16() for part in state)
        for step in range(x.size(1)):
            output, now = cell.step(x[:, step].bfloat16(), now)
            assert {part.dtype for part in (output, *now)} == {torch.bfloat16}
            close(output.float(), whole[:, step], 0.1)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "lstm",
            {"kernel": "fused", "peepholes": True},
            "kernel = 'fused': it has no peepholes; set kernel = 'loop', or leave it out",
        ),
        (
            "lstm",
            {"kernel": "fused", "coupled": True, "zoneout": 0.1},
            "kernel = 'fused': it has no coupled and no zoneout; set",
        ),
        (
            "clockwork",
            {"periods": [1, 2, 2]},
            "cell_options.periods: Input should be whole numbers from 1 on, each greater",
        ),
        ("clockwork", {"periods": [*range(1, 202)]}, "cell_options.periods: 201 periods need at least as many units"),
        ("rnn", {"kernel": "fused", "leak": 0.5}, "kernel = 'fused': it has no leak; set kernel = 'loop'"),
        (
            "lstm",
            {"coupled": True, "without": ["input"]},
            "coupled makes the input gate of the forget gate: without may",
        ),
        (
            "lstm",
            {"without": ["forget"], "forget_bias": 1.0},
            "forget_bias: there is no forget gate, as without names it",
        ),
    ],
)
def test_options_that_do_not_go_together(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(
        ConfigError, match=re.escape(f"encoder: cell_options: {message}" if "it has no" in message else message)
    ):
        parse(RecurrentConfig, {"cell": name, "cell_options": options}, source="recipe", prefix="encoder")
