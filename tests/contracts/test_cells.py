"""What every cell of CELLS, with every one of its options, must keep to; a new cell needs its equations in TEXTBOOK."""

from __future__ import annotations

import re
import typing
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from seqtext.config import parse
from seqtext.errors import ConfigError
from seqtext.nn import fused, graphs
from seqtext.nn.cells import CELLS, Cell, State, build_cell, zero_state
from seqtext.nn.clockwork import Clockwork
from seqtext.nn.fused import Fused
from seqtext.nn.looped import Looped, Stepped
from seqtext.nn.products import ONEDNN
from seqtext.nn.rnn import RecurrentConfig
from tests.reference.cells import HIDDEN, TEXTBOOK, weights
from tests.reference.stand_in import Elsewhere, moved, stand_in

LENGTHS = torch.tensor([5, 1, 3, 5, 2])
INPUT = 4


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
    assert set(TEXTBOOK) == set(CELLS), "add the new cell's textbook equations to tests/reference/cells.py"


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
def test_the_ways_of_a_gpu_are_those_of_the_cpu_and_wait_for_nothing(name: str, options: dict[str, Any]) -> None:
    cell, x, state = make(name, options)
    cell.train().weight_dropout = 0.25 if cell.deepens else 0.0
    x.requires_grad_()
    with stand_in() as seen:
        there = moved(cell)
        over, start = Elsewhere(x.detach()).requires_grad_(), tuple(map(Elsewhere, state))
        torch.manual_seed(3)
        found, _ = there(over, start)
        found.square().sum().backward()
        assert seen.waits == []
        gradients = [each.grad.cpu() for each in (over, *there.parameters())]
        found = found.cpu()
    torch.manual_seed(3)
    states, _ = cell(x, state)
    states.square().sum().backward()
    close(found, states)
    close(gradients, [each.grad for each in (x, *cell.parameters())])


def passed(cell: Cell, x: Tensor, *state: Tensor) -> list[Tensor]:
    """On the CPU: states, the last ones and, where autograd notes them, gradients of all that these hang on."""
    states, end = cell(x, state)
    found, sources = [states, *end], [each for each in (x, *state, *cell.parameters()) if each.requires_grad]
    if torch.is_grad_enabled():
        total = torch.stack([part.square().sum() for part in found]).sum()
        found += [each for each in torch.autograd.grad(total, sources, allow_unused=True) if each is not None]
    return [each.cpu() for each in found]


@each_cell
def test_recorded_passes_are_those_of_the_cell(
    monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, Any]
) -> None:
    """Of two batches by turns, the weights others each time; units that are drawn are those of the first passes."""
    monkeypatch.setattr(graphs, "WANTED", True)
    cell, x, state = make(name, options)
    cell.train().weight_dropout = 0.25 if cell.deepens else 0.0
    batches = [(x, *state), (-x[:3, :4], *(part[2:] for part in state))]
    drawn, first, starts = "zoneout" in str(options), list[list[Tensor]](), list[int]()
    with stand_in() as seen:
        there = moved(cell)
        for turn in range(6):
            given, before = batches[turn % 2], seen.starts
            torch.manual_seed(turn % 2)
            found = passed(there, *(Elsewhere(part.clone()).requires_grad_() for part in given))
            starts.append(seen.starts - before)
            if isinstance(cell, Looped) and turn:  # both batches are filled up to the same shape
                assert seen.replays == 2 * turn
                assert turn == 1 or starts[-1] < starts[0] / 2
            torch.manual_seed(turn % 2)
            first.append(found)
            close(found, first[turn % 2] if drawn else passed(cell, *(part.clone().requires_grad_() for part in given)))
            for weight in () if drawn else (*cell.parameters(), *there.parameters()):
                weight.data.mul_(1.1)
        cell.eval(), there.eval()
        with torch.no_grad():
            for given in (batches[0], batches[1]) * 3:
                close(passed(there, *map(Elsewhere, given)), passed(cell, *given))


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
    biased = {usual.get(key, 0.0) for key in ("forget_bias", "output_bias", "update_bias")}
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


@pytest.mark.parametrize("kernel", ["fused", "loop"])
@pytest.mark.parametrize("bias", [0.0, 2.5])
def test_a_gru_starts_to_keep_what_its_update_bias_says(bias: float, kernel: str) -> None:
    cell = build_cell("gru", INPUT, HIDDEN, {"kernel": kernel, "update_bias": bias})
    for part in cell.parameters():
        if part.dim() == 2:
            part.data.zero_()
    h = torch.randn(2, HIDDEN)
    close(cell.step(torch.zeros(2, INPUT), (h,))[0], torch.tensor(bias).sigmoid() * h, 1e-6)


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


def by_autograd(cell: Stepped, x: Tensor, state: State) -> tuple[Tensor, ...]:
    """All parts of the state (T, B, H) by `advance`, whose gradient autograd makes of the operations themselves."""
    uses, steps = cell.begin(), []
    for given in cell.given(x.transpose(0, 1)).unbind(0):
        state, _ = cell.stepped(given, state, uses)
        steps.append(state)
    return tuple(torch.stack(part) for part in zip(*steps))


BY_HAND = [
    (name, {**options, **({"kernel": "loop"} if issubclass(CELLS[name], Fused) else {})}, depth)
    for name, options in CASES
    if issubclass(CELLS[name], Stepped)
    for depth in ((1, 3) if CELLS[name].deepens else (1,))
    if options.get("kernel") != "fused"
]


@pytest.mark.parametrize(("name", "options", "depth"), BY_HAND, ids=str)
@pytest.mark.parametrize("train", [False, True])
def test_a_gradient_by_hand_is_that_of_the_steps(name: str, options: dict[str, Any], depth: int, train: bool) -> None:
    """Of a sum over every part of every state, so that a gradient comes in at every step from above as well."""
    _, x, state = make(name, options)
    cell: Any = build_cell(name, INPUT, HIDDEN, options, transition_depth=depth).double().train(train)
    for parameter in cell.parameters():
        parameter.data.normal_(std=0.5)
    cell.weight_dropout = 0.3
    state = tuple(part.requires_grad_() for part in state)
    wanted = [x.requires_grad_(), *state, *cell.parameters()]
    share = torch.randn(cell.parts, x.size(1), *state[0].shape, dtype=x.dtype)

    def gradients(parts: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return torch.autograd.grad(sum((each * part).sum() for each, part in zip(share, parts)), wanted)

    torch.manual_seed(3)
    noted = cell.parts_of(x.transpose(0, 1), state)
    found = gradients(noted)
    torch.manual_seed(3)
    expected = by_autograd(cell, x, state)
    close(noted, expected)
    close(found, gradients(expected))


def test_what_a_loop_has_noted_goes_with_the_backward_pass() -> None:
    """As autograd's own notes do: a loss that lives on holds no states. Where they are to be kept, they are."""
    cell, x, _ = make("mut1", {})
    kept = []
    advance = cell.advance  # type: ignore[operator]

    def noting(*given: Any) -> Any:
        state, noted = advance(*given)
        kept.append(weakref.ref(noted[3]))
        return state, noted

    cell.advance = noting  # type: ignore[assignment, method-assign]
    loss = cell(x)[0].sum()
    (first,) = torch.autograd.grad(loss, [cell.input.bias], retain_graph=True)  # type: ignore[union-attr, list-item]
    assert all(ref() is not None for ref in kept)
    (second,) = torch.autograd.grad(loss, [cell.input.bias])  # type: ignore[union-attr, list-item]
    close(first, second)
    assert len(kept) == x.size(1) and not any(ref() is not None for ref in kept)
    with pytest.raises(RuntimeError, match="second"):
        loss.backward()


@pytest.mark.skipif(not ONEDNN, reason="the loop's product is not there")
@pytest.mark.parametrize("lengths", [None, [5, 3, 1] * 16])
@pytest.mark.parametrize(("name", "options"), [("rnn", {}), ("rnn", {"nonlinearity": "relu"}), ("gru", {})])
def test_where_a_kernel_is_slow_its_weights_give_the_same(
    name: str, options: dict[str, Any], lengths: list[int] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers so wide that on a CPU the loop is the faster: states and gradients with every weight, and without any."""
    monkeypatch.setattr(fused, "FAVOURED", False)  # which is faster goes by the processor
    torch.manual_seed(1)
    cell: Any = build_cell(name, 20, 128, options).train()
    cell.weight_dropout = 0.4
    x, state = torch.randn(48, 5, 20, requires_grad=True), (torch.randn(48, 128, requires_grad=True),)
    known = None if lengths is None else torch.tensor(lengths)
    real = torch.ones(48, 5, 1) if known is None else (torch.arange(5) < known[:, None]).unsqueeze(2)
    share = torch.randn(48, 5, 128)
    calls = []
    monkeypatch.setattr(cell, "loop", lambda *given: calls.append(given) or type(cell).loop(cell, *given))

    def found(kernel: str) -> tuple[Any, ...]:
        torch.manual_seed(2)
        cell.options = cell.options.model_copy(update={"kernel": kernel})
        states, (end,) = cell(x, state, lengths=known)
        torch.manual_seed(2)
        with torch.no_grad():
            silent = cell(x, state, lengths=known)[0]
        loss = (share * real * states).sum() + (share[:, 0] * end).sum()
        return states * real, end, silent * real, torch.autograd.grad(loss, [x, *state, *cell.parameters()])

    close(found("auto"), found("fused"), 1e-4)
    assert len(calls) == 2  # with a gradient and without
    with torch.autocast("cpu", torch.bfloat16):
        with torch.no_grad():
            expected = cell.eval()(x, state)[0].float()
        cell.options = cell.options.model_copy(update={"kernel": "auto"})
        with torch.inference_mode():
            close(cell(x, state)[0].float(), expected, 0.05)
    assert len(calls) == 3


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
            "kernel = 'fused': torch's kernel has no peepholes; set kernel = 'loop', or leave it out",
        ),
        (
            "lstm",
            {"kernel": "fused", "coupled": True, "zoneout": 0.1},
            "kernel = 'fused': torch's kernel has no coupled and no zoneout; set",
        ),
        (
            "clockwork",
            {"periods": [1, 2, 2]},
            "cell_options.periods: expected whole numbers from 1 on, each greater",
        ),
        (
            "clockwork",
            {"periods": [1, 1025]},
            "cell_options.periods: expected at most 1,024 steps, got [1, 1025]",
        ),
        ("clockwork", {"periods": [*range(1, 202)]}, "cell_options.periods: 201 periods need at least as many units"),
        ("rnn", {"kernel": "fused", "leak": 0.5}, "kernel = 'fused': torch's kernel has no leak; set kernel = 'loop'"),
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
        ConfigError, match=re.escape(f"encoder.cell_options: {message}" if "kernel has no" in message else message)
    ):
        parse(RecurrentConfig, {"cell": name, "cell_options": options}, source="recipe", prefix="encoder")
