"""The reservoir: its equations step by step, its matrix, and that it forgets as its spectral radius says."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from seqtext.nn.reservoir import Reservoir, ReservoirConfig, draw

LENGTHS = torch.tensor([5, 1, 3])


def by_the_book(network: Reservoir, text: Tensor) -> Tensor:
    """Lukosevicius 2012, eq. 2-3, for one text (N, D)."""
    state, states = torch.zeros(len(network.bias), dtype=text.dtype), []
    for word in text:
        new = torch.tanh(network.inputs @ word + network.bias + network.recurrent @ state)
        state = (1 - network.leak) * state + network.leak * new
        states.append(state)
    return torch.stack(states)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_states_are_those_of_the_equations(bidirectional: bool) -> None:
    torch.manual_seed(3)
    network = Reservoir(4, ReservoirConfig(size=6, density=0.5, leak=0.3, bidirectional=bidirectional)).double()
    x = torch.randn(3, 5, 4, dtype=torch.float64)
    x[torch.arange(5) >= LENGTHS[:, None]] = 1e30
    (output,) = network(x, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        text = x[row, :length]
        expected = by_the_book(network, text)
        if bidirectional:
            expected = torch.cat([expected, by_the_book(network, text.flip(0)).flip(0)], dim=1)
        torch.testing.assert_close(output.values[row, :length], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("size", "density"), [(1, 0.1), (40, 0.1), (40, 0.001), (60, 1.0)])
def test_the_matrix_has_the_radius_and_the_density_asked_for(size: int, density: float) -> None:
    for seed in range(5):
        torch.manual_seed(seed)
        matrix = draw(size, density, 0.8)
        assert torch.linalg.eigvals(matrix.double()).abs().max().item() == pytest.approx(0.8, rel=1e-4)
        assert (matrix != 0).sum(1).tolist() == [max(1, round(size * density))] * size


def test_it_forgets_where_its_radius_is_small_and_not_where_it_is_large() -> None:
    differences = {}
    for radius in (0.5, 3.0):
        torch.manual_seed(1)
        network = Reservoir(4, ReservoirConfig(size=50, density=0.2, spectral_radius=radius, leak=1.0)).double()
        texts = torch.randn(1, 60, 4, dtype=torch.float64).repeat(2, 1, 1)
        texts[1, 0] += 1.0  # texts that differ in their first word
        (output,) = network(texts, torch.tensor([60, 60]))
        differences[radius] = (output.values[0] - output.values[1]).norm(dim=1)
    assert differences[0.5][0] > 0.1 and differences[0.5][-1] < 1e-9
    assert differences[3.0][-1] > 0.1


def test_nothing_in_it_learns() -> None:
    network = Reservoir(4, ReservoirConfig(size=6))
    x = torch.randn(3, 5, 4, requires_grad=True)
    (output,) = network.train()(x, LENGTHS)
    assert not output.values.requires_grad and not list(network.parameters())
    assert set(network.state_dict()) == {"inputs", "bias", "recurrent"}
