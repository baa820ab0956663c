"""Recorded passes beside the same passes as they stand; of cells, trees, chains and searches in their tests."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqtext.nn import graphs
from seqtext.nn.cells import build_cell
from seqtext.nn.dropout import LockedDropout
from seqtext.nn.language_model import LanguageModel, LanguageModelConfig
from seqtext.search.beam import Beam, beam_search
from seqtext.tasks.lm import LmDecoder
from tests.reference.stand_in import Elsewhere, moved, stand_in


@pytest.fixture(autouse=True)
def _wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "WANTED", True)


class Twice(nn.Module):
    """A pass of two products and dropout, over rows that may be filled up."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second, self.dropout = nn.Linear(3, 4), nn.Linear(4, 2), LockedDropout(0.0)

    def forward(self, x: Tensor) -> Tensor:
        if not graphs.wanted(x):
            return self.body(x)[0]
        (found,) = graphs.run(self, self.body, [x], [(graphs.room(len(x)), 5, 3)])
        result: Tensor = found[: len(x)]
        return result

    def body(self, x: Tensor) -> list[Tensor]:
        return [self.second(self.dropout(self.first(x).tanh()))]


def drawn(rows: int, seed: int) -> Tensor:
    return torch.randn(rows, 5, 3, generator=torch.Generator().manual_seed(seed))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)


def test_sizes_are_filled_up_to_few() -> None:
    rooms = [graphs.room(count) for count in range(1, 1025)]
    assert all(count <= room <= max(count + 7, count * 1.25) for count, room in enumerate(rooms, 1))
    assert len(set(rooms)) == 24 and all(graphs.room(room) == room for room in rooms)


def test_what_a_pass_gave_stays_when_another_is_replayed() -> None:
    module = Twice()
    with stand_in() as seen, torch.no_grad():
        there = moved(module)
        batches = [drawn(rows, seed) for seed, rows in enumerate((3, 8, 5, 1))]
        found = [there(Elsewhere(x)) for x in batches]
        assert seen.replays == 3
        for one, x in zip(found, batches):
            close(one, module(x))


def test_a_recording_that_waits_for_its_gradient_is_left_alone() -> None:
    """Two passes of one module, then both gradients; and one whose gradient no one ever asks for."""
    module, (x, y) = Twice(), (drawn(4, 1), drawn(6, 2))
    weights = list(module.parameters())
    expected = torch.autograd.grad((module(x) * module(y)[:4]).sum(), weights)
    with stand_in() as seen:
        there = moved(module)
        there(Elsewhere(x))
        there(Elsewhere(x))
        for turn in range(3):
            found = torch.autograd.grad((there(Elsewhere(x)) * there(Elsewhere(y))[:4]).sum(), list(there.parameters()))
            assert seen.replays == 3 + 2 * turn  # one of the two, forward and back
            for one, other in zip(found, expected):
                close(one, other)


def test_gradients_are_added_up_over_batches() -> None:
    module, (x, y) = Twice(), (drawn(4, 1), drawn(6, 2))
    (module(x).square().sum() + module(y).square().sum()).backward()
    with stand_in():
        there = moved(module)
        for _ in range(3):
            there.zero_grad()
            for batch in (x, y):
                there(Elsewhere(batch)).square().sum().backward()
            for one, other in zip(there.parameters(), module.parameters()):
                assert one.grad is not None and other.grad is not None
                close(one.grad, other.grad)


def test_a_second_gradient_needs_the_graph() -> None:
    module, x = Twice(), drawn(4, 1)
    with stand_in():
        there = moved(module)
        there(Elsewhere(x)).sum().backward()
        total = there(Elsewhere(x)).sum()
        first = torch.autograd.grad(total, there.first.weight, retain_graph=True)
        close(torch.autograd.grad(total, there.first.weight)[0], first[0].cpu())
        with pytest.raises(RuntimeError, match="ask for the first with retain_graph=True"):
            torch.autograd.grad(total, there.first.weight)


def test_frozen_weights_bf16_and_other_modes_have_recordings_of_their_own() -> None:
    module, x = Twice(), drawn(4, 1)
    with stand_in():
        there = moved(module)
        for _ in range(3):
            for frozen in (False, True):
                there.first.requires_grad_(not frozen)
                there.zero_grad()
                states = there(Elsewhere(x))
                states.sum().backward()
                assert (there.first.weight.grad is None) == frozen and there.second.weight.grad is not None
                close(states.detach(), module(x).detach())
            with torch.no_grad():
                close(there(Elsewhere(x)), module(x))
        assert len(there.recordings.made) == 3


def test_a_copy_has_recordings_of_its_own_weights() -> None:
    module, x = Twice(), drawn(4, 1)
    with stand_in(), torch.no_grad():
        there = moved(module)
        for _ in range(2):
            there(Elsewhere(x))
        other = copy.deepcopy(module)
        other.second.weight.zero_(), other.second.bias.fill_(3.0)
        beside = moved(other)
        for _ in range(3):
            close(beside(Elsewhere(x)), torch.full((4, 5, 2), 3.0))
        assert not copy.deepcopy(there.recordings).made and "recordings" not in str(there.state_dict().keys())


def test_one_replay_spares_what_another_keeps_for_its_gradient() -> None:
    """Two modules in one pass, whose shapes come again at different times, so that either was recorded before."""
    first, second = Twice(), Twice()
    with stand_in() as seen:
        there = moved(first), moved(second)
        for turn, rows in enumerate([(8, 8), (16, 8), (8, 16), (8, 8), (16, 16), (16, 8), (8, 16), (24, 8), (24, 16)]):
            batches = [drawn(count, turn + count) for count in rows]
            wanted = [first(batches[0]).sin().sum(), second(batches[1]).sin().sum()]
            found = [one(Elsewhere(x)).sin().sum() for one, x in zip(there, batches)]
            for one, other, loss, total in zip(there, (first, second), found, wanted):
                gradients = torch.autograd.grad(loss, list(one.parameters()))
                for each, expected in zip(gradients, torch.autograd.grad(total, list(other.parameters()))):
                    close(each, expected)
        assert seen.replays > 20


def test_an_owner_has_so_many_recordings_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "MOST", 2)
    module = Twice()
    with stand_in() as seen, torch.no_grad():
        there = moved(module)
        for _ in range(3):
            for rows in (8, 16, 24):
                close(there(Elsewhere(drawn(rows, rows))), module(drawn(rows, rows)))
        assert seen.replays == 4 and len(there.recordings.made) == 2


@pytest.mark.parametrize("cell", ["mut1", "lnlstm", "mogrifier"])
def test_what_a_replay_starts_does_not_grow_with_the_steps(cell: str) -> None:
    torch.manual_seed(1)
    loop, starts = build_cell(cell, 3, 4), dict[tuple[int, int], int]()
    with stand_in() as seen:
        there = moved(loop)
        for turn in range(3):
            for steps in (8, 64):
                before = seen.starts
                there(Elsewhere(torch.randn(8, steps, 3)))[0].sum().backward()
                starts[turn, steps] = seen.starts - before
    assert starts[2, 8] == starts[2, 64] < starts[0, 8] < starts[0, 64] / 5


class Waiting(Twice):
    def body(self, x: Tensor) -> list[Tensor]:
        return [x * float(x.sum())]


def test_a_body_may_not_wait() -> None:
    with stand_in(), torch.no_grad():
        there = moved(Waiting())
        there(Elsewhere(drawn(4, 1)))
        with pytest.raises(RuntimeError, match="not while it is recorded"):
            there(Elsewhere(drawn(4, 1)))


@pytest.mark.parametrize("cell", ["lstm", "gru", "mut1", "sru"])
def test_language_models_write_the_same_by_recorded_steps(cell: str) -> None:
    torch.manual_seed(1)
    encoder = {"cell": cell, "hidden_size": 6, "layers": 2}
    config = LanguageModelConfig.model_validate({"embedding_size": 5, "encoder": encoder})
    module = LanguageModel(config, 11).double().eval()

    def written(module: nn.Module, to: Any) -> list[list[tuple[list[int], float]]]:
        decoder: Any = LmDecoder(module, 11)
        first = to(torch.tensor([4, 7, 7, 2]))
        found = beam_search(decoder, None, first, settings=Beam(size=3, nbest=3), eos=1, max_length=9, min_length=6)
        return [[(each.tokens, pytest.approx(each.log_probability)) for each in of_one] for of_one in found]

    graphs.WANTED = False
    expected = written(module, Tensor.clone)
    graphs.WANTED = True
    with stand_in() as seen:
        there = moved(module)
        assert written(there, Elsewhere) == expected and written(there, Elsewhere) == expected
        assert seen.replays > 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("cell", ["mut1", "lnlstm", "clockwork", "mogrifier"])
def test_cuda_records_what_it_computes(monkeypatch: pytest.MonkeyPatch, cell: str) -> None:
    torch.manual_seed(1)
    loop = build_cell(cell, 6, 16).double().cuda()
    results: dict[bool, list[list[Tensor]]] = {False: [], True: []}
    for wanted, found in results.items():
        monkeypatch.setattr(graphs, "WANTED", wanted)
        for turn in range(5):
            x = torch.randn(5 + turn % 2, 9, 6, generator=torch.Generator().manual_seed(turn)).double().cuda()
            states, end = loop(x.requires_grad_())
            total = torch.stack([part.square().sum() for part in (states, *end)]).sum()
            found.append([states, *torch.autograd.grad(total, [x, *loop.parameters()])])
    for one, other in zip(*results.values(), strict=True):
        torch.testing.assert_close(one, other)
    assert loop.recordings.made
