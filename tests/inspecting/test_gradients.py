"""How far gradients come: against the whole graph unrolled by hand, and where the answer is known by algebra."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seqtext.errors import InputError
from seqtext.inspecting.gradients import inspect_gradients, largest_singular, measure, read_cells
from seqtext.nn.cells import CELLS, zero_state
from seqtext.nn.rnn import ForwardConfig, Recurrent
from seqtext.task import Loss

TIME, INPUT, HIDDEN = 7, 3, 4


class Steps:
    """A task whose loss is a sum over steps, of every text up to its own end."""

    def __init__(self, ends: Tensor) -> None:
        self.ends = ends

    def loss(self, module: nn.Module, batch: Tensor, carry: None = None) -> Loss:
        states, _ = module(batch, None, with_state=False)
        inside = torch.arange(TIME) < self.ends[:, None]
        return Loss((states.square().sum(2) * inside).sum(), inside.sum())


def stack(cell: str) -> Recurrent:
    torch.manual_seed(3)
    return Recurrent(INPUT, ForwardConfig(cell=cell, hidden_size=HIDDEN)).double()


@pytest.mark.parametrize("name", CELLS)
def test_norms_and_singular_values_are_those_of_the_graph(name: str) -> None:
    module, ends = stack(name), torch.tensor([7, 5, 6])
    x = torch.randn(3, TIME, INPUT, dtype=torch.float64)
    found = measure(Steps(ends), module, x, name, steps=4, limit=0.01, products=True)
    (cell,) = module.layers[0]
    # A state is one tensor, so that its members do not depend on each other.
    states = [torch.cat(zero_state(cell, x[:, 0]), dim=1).requires_grad_()]
    for step in range(TIME):
        states.append(torch.cat(cell.step(x[:, step], states[-1].chunk(cell.parts, dim=1))[1], dim=1))

    def pulled(value: Tensor, row: int, before: int) -> Tensor:
        """The gradient (F,) of a value in a state of a row."""
        (grad,) = torch.autograd.grad(value, states[before], retain_graph=True, allow_unused=True)
        return torch.zeros_like(states[before][row]) if grad is None else grad[row]

    norms: dict[int, list[float]] = {k: [] for k in range(5)}
    cases = [(row, t) for row in range(3) for t in range(4, int(ends[row]))]
    for row, t in cases:
        loss = states[t + 1][row, :HIDDEN].square().sum()
        for k in range(5):
            norms[k].append(float(pulled(loss, row, t + 1 - k).norm()))
    assert found.cases == len(cases)
    assert found.norms == pytest.approx([sum(norms[k]) / len(norms[k]) for k in range(5)], rel=1e-9)
    picked = [cases[place] for place in (0, (len(cases) - 1) // 2, len(cases) - 1)]
    for k in range(1, 5):
        jacobians = [torch.stack([pulled(unit, row, t + 1 - k) for unit in states[t + 1][row]]) for row, t in picked]
        expected = sum(float(torch.linalg.svdvals(one)[0]) for one in jacobians) / 3
        assert found.singular[k - 1] == pytest.approx(expected, rel=1e-6)
    # Clipped is what the loop would make of all gradients: the mean loss, scaled to the limit.
    module.zero_grad()
    loss = Steps(ends).loss(module, x)
    (loss.total / loss.count).backward()
    whole = float(torch.cat([part.grad.flatten() for part in module.parameters()]).norm())
    assert found.parameters == pytest.approx(whole, rel=1e-6) and found.clipped_parameters == 0.01 < whole
    assert found.clipped == pytest.approx([norm * 0.01 / whole for norm in found.norms], rel=1e-6)


@pytest.mark.parametrize("gain", [0.5, 2.0])
def test_an_orthogonal_recurrence_at_rest_shrinks_and_stretches_by_its_radius(gain: float) -> None:
    module = stack("rnn")
    (cell,) = module.layers[0]
    cell.kernel.weight_hh_l0.data.mul_(gain)
    x = torch.zeros(2, TIME, INPUT, dtype=torch.float64)

    class Sum(Steps):
        def loss(self, module: nn.Module, batch: Tensor, carry: None = None) -> Loss:
            return Loss(module(batch, None, with_state=False)[0][..., 0].sum(), torch.tensor(TIME))

    found = measure(Sum(torch.tensor([7, 7])), module, x, "rnn", steps=6)
    assert found.norms == pytest.approx([gain**k for k in range(7)], rel=1e-6)
    assert found.singular == pytest.approx([gain**k for k in range(1, 7)], rel=1e-6)
    assert found.clipped == found.norms


def test_singular_values_are_found_at_any_scale() -> None:
    matrices = torch.randn(5, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    matrices *= torch.tensor([1e-200, 1e-8, 1.0, 1e8, 0.0]).double().view(5, 1, 1)
    torch.testing.assert_close(largest_singular(matrices), torch.linalg.svdvals(matrices)[:, 0], rtol=1e-9, atol=0.0)


def test_cells_of_a_recipe_show_the_vanishing_the_explosion_and_the_cures() -> None:
    found = inspect_gradients("ner", overrides={"model.encoder.hidden_size": 24}, products=False)
    names = ["rnn (gain 0.8)", "rnn (gain 2)", "lstm", "gru", "lstm (forget_bias 2)", "gru (update_bias 3)"]
    assert [one.name for one in found] == names
    small, large, lstm, gru, open_lstm, open_gru = (one.norms[-1] / one.norms[0] for one in found)
    assert max(small, gru) < 0.01 < 0.02 < lstm < 0.2 < min(open_lstm, open_gru) < max(open_lstm, open_gru) < 1 < large
    assert {(one.cell, len(one.norms), len(one.singular)) for one in found} == {("encoder.layers.0.0", 20, 1)}


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        ("ner-jordan", {}, 'with model.recurrence = "output" no hidden state is carried from step to step, so that'),
        ("lm", {"model.recurrence": "both"}, 'with model.recurrence = "both" a language model\'s gradients go back th'),
        ("ner-esn", {}, "an echo state network: its recurrence stays as it was drawn, with no gates and no gradient"),
    ],
)
def test_what_carries_no_gradient_is_told(recipe: str, overrides: dict[str, str], message: str) -> None:
    with pytest.raises(InputError) as raised:
        inspect_gradients(recipe, overrides=overrides)
    assert str(raised.value).startswith(f"{recipe}: {message}")


def test_a_state_that_is_carried_beside_an_output_is_measured() -> None:
    overrides = {"model.recurrence": "both", "model.feedback.hidden_size": 8}
    (found,) = inspect_gradients("ner-jordan", cells="rnn:gain=0.5", steps=4, overrides=overrides, products=False)
    assert found.cell == "feedback.stack.layers.0.0" and 0.0 < found.norms[-1] < 0.5**4 * found.norms[0]


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ("rnn,lsmt", f"--cells lsmt: 'lsmt' is not one of {', '.join(CELLS)}"),
        ("rnn:gain", "--cells rnn:gain: expected CELL:OPTION=VALUE, got 'gain'"),
        ("rnn:gain=0", "--cells rnn:gain=0: a gain is a number above 0, got 0"),
        (",", "--cells: expected at least one cell, such as rnn,lstm,gru"),
    ],
)
def test_cells_that_do_not_read_are_told(cells: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        read_cells(cells)
    assert str(raised.value) == message
