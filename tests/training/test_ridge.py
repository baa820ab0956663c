"""Ridge regression in closed form: least squares by another way, in any batches, by any number of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import seqtext
from seqtext import recipe, session
from seqtext.errors import ConfigError, InputError
from seqtext.nn.readout import Readout
from seqtext.task import predict_all
from seqtext.training import ridge
from seqtext.training.distributed import Devices, detached
from seqtext.training.loop import Stepped, fit

CPU = torch.device("cpu")
RECIPES = ("ner-esn", "lm-esn", "sentiment-esn")
SMALL = {"model.encoder.size": 30, "model.encoder.density": 0.2, "train.optimizer.penalty": 0.7}
SMALL |= {"train.batch_tokens": 300}


def least_squares(x: Tensor, targets: Tensor, classes: int, penalty: float) -> tuple[Tensor, Tensor]:
    """W and b by a QR decomposition of all rows at once, the penalty as rows of its own."""
    x = torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.float64)], dim=1)
    wall = penalty**0.5 * torch.eye(x.size(1), dtype=torch.float64)[:-1]
    y = torch.nn.functional.one_hot(targets, classes).double()
    y = torch.cat([y, y.new_zeros(len(wall), classes)])
    found = torch.linalg.lstsq(torch.cat([x, wall]), y, driver="gels").solution.t()
    return found[:, :-1], found[:, -1]


def prepared(name: str, **overrides: Any) -> tuple[Any, Any, Any, Any, Any]:
    """Recipe, task, untrained module, its training data encoded and validation data."""
    chosen = recipe.load(name, SMALL | {key.replace("__", "."): value for key, value in overrides.items()})
    splits: Any = {split: data.select(range(60)) for split, data in session.read_splits(chosen).items()}
    task = chosen.task.fit(chosen.data, splits["train"])
    torch.manual_seed(3)
    return chosen, task, task.build(chosen.model), task.encode(splits["train"]), splits["valid"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_read_out_is_the_least_squares_solution_over_all_training_targets(name: str) -> None:
    plain = {} if name == "lm-esn" else {"model__embedding__rare_dropout": 0.0}
    chosen, task, module, encoded, valid = prepared(name, **plain)
    events = list(
        ridge.fit(task, module, encoded, (task.encode(valid), valid), chosen.train, devices=Devices(CPU), seed=1)
    )
    readout = next(part for part in module.modules() if isinstance(part, Readout))
    rows, targets, carry = [], [], None
    with torch.no_grad():
        for batch in ridge.epoch_batches(task, encoded, chosen.train, 1, 0, Devices(CPU)):
            found = task.features(module.train(), batch, carry)
            carry = detached(found.carry)
            rows.append(found.inputs)
            targets.append(found.targets)
    x, y = torch.cat(rows), torch.cat(targets)
    assert len(rows) > 2 and len(x) >= 60
    weight, bias = least_squares(x, y, len(readout.bias), 0.7)
    torch.testing.assert_close(readout.weight.double(), weight, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(readout.bias.double(), bias, rtol=1e-4, atol=1e-6)
    error = (x.double() @ weight.T + bias - torch.nn.functional.one_hot(y, len(bias))).square().sum() / len(y)
    assert events[-2].loss == pytest.approx(error.item(), rel=1e-4)  # type: ignore[union-attr]
    counts = torch.bincount(y, minlength=len(bias)) + 1.0
    torch.testing.assert_close(readout.floor, chosen.train.optimizer.floor * counts / counts.sum())
    evaluated = events[-3]
    again = predict_all(task, module, task.encode(valid), task.batches(task.encode(valid), tokens=8192), CPU)
    assert evaluated.scores == task.score(again, valid)  # type: ignore[union-attr]


def test_weights_count_as_repetitions() -> None:
    generator = torch.Generator().manual_seed(1)
    x, targets = torch.randn(20, 4, generator=generator), torch.randint(3, (20,), generator=generator)
    times = torch.randint(1, 4, (20,), generator=generator)
    one, other = ridge.Sums(4, 3, CPU), ridge.Sums(4, 3, CPU)
    one.add(x, targets, times.float())
    other.add(x.repeat_interleave(times, 0), targets.repeat_interleave(times))
    for found, expected in zip(one.solve(0.5), other.solve(0.5)):
        torch.testing.assert_close(found, expected)
    assert one.error(*one.solve(0.5)) == pytest.approx(other.error(*other.solve(0.5)))


def test_estimates_below_the_floor_are_raised_and_all_add_up_to_one() -> None:
    readout = Readout(2, 3)
    readout.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]))
    readout.floor.copy_(torch.tensor([0.1, 0.2, 0.05]))
    x = torch.tensor([[0.6, 0.3], [0.0, -5.0]])
    expected = torch.tensor([[0.6, 0.3, 0.05], [0.1, 0.2, 0.05]])
    torch.testing.assert_close(readout(x).softmax(1), expected / expected.sum(1, keepdim=True))
    torch.testing.assert_close(readout.log_probabilities(x).exp(), expected / expected.sum(1, keepdim=True))
    losses = readout.nll(x, torch.tensor([2, -1]))
    torch.testing.assert_close(losses, torch.tensor([0.95 / 0.05, 1.0]).log())


class Stopped(Exception):
    """Training was cut off."""


@pytest.mark.parametrize("name", ["ner-esn", "lm-esn"])
def test_a_pass_cut_off_begins_again_to_the_same_bits(name: str, tmp_path: Path) -> None:
    def listen(event: Any) -> None:
        if isinstance(event, Stepped) and event.step == 6:
            raise Stopped

    noise = "model.dropout" if name == "ner-esn" else "model.input_dropout"
    overrides = SMALL | {"train.checkpoint_every": 1, "train.batch_tokens": 4000, noise: 0.3}
    same: dict[str, Any] = {"overrides": overrides, "device": "cpu"}
    whole = seqtext.train(name, out=tmp_path / "whole", **same)
    with pytest.raises(Stopped):
        seqtext.train(name, out=tmp_path / "cut", listen=listen, **same)
    cut = seqtext.train(resume=tmp_path / "cut", device="cpu")
    again = seqtext.train(resume=tmp_path / "cut", device="cpu")  # it is done
    assert cut.meta["scores"] == again.meta["scores"] == whole.meta["scores"]
    for file in ("model.safetensors", "checkpoints/last/state.safetensors"):
        found, expected = load_file(tmp_path / "cut" / file), load_file(tmp_path / "whole" / file)
        assert found.keys() == expected.keys()
        assert [key for key in expected if not torch.equal(found[key], expected[key])] == []


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("ner-esn", {"model.head": "crf"}, 'model.head: a CRF is learned, and readout = "ridge" is solved for: set'),
        (
            "ner-esn",
            {"train.epochs": 3, "train.schedule.name": "cosine"},
            "train: the optimizer ridge takes no steps, "
            'and solves after one pass: set epochs = 1, schedule.name = "constant"',
        ),
        (
            "lm-esn",
            {"model.tied": True},
            "model.tied: no gradient reaches the embedding below a reservoir: set tied =",
        ),
        ("lm-esn", {"model.softmax.name": "adaptive"}, 'model.softmax: with readout = "ridge" every word is scored: '),
        ("lm-esn", {"model.encoder.bidirectional": True}, "model.encoder.bidirectional: a language model reads forw"),
        ("lm-esn", {"model.condition": "input"}, "model.condition: no gradient reaches a label below a reservoir"),
        (
            "ner-esn",
            {"model.encoder.spectral_radius": 0.0},
            "model.encoder.spectral_radius: expected greater than 0, g",
        ),
        (
            "lm-esn",
            {"model.encoder.spectral_radius": -1.0},
            "model.encoder.spectral_radius: expected greater than 0, g",
        ),
        ("lm-esn", {"train.optimizer.penalty": 0.0}, "train.optimizer.penalty: expected greater than 0, got 0.0"),
        ("ner", {"model.encoder.name": "esn", "model.encoder.cell": "gru"}, "model.encoder.cell: unknown key"),
        ("ner", {"model.encoder.name": "lstm"}, "model.encoder.name: unknown key"),
        (
            "ner",
            {"train.epochs": 1, "train.schedule.name": "constant", "train.optimizer.name": "ridge"},
            "train.optimizer.name: 'ridge' solves for the read-out of an echo state network: it needs model.encoder.n",
        ),
        *(
            (
                name,
                {"train.optimizer.name": "adam"},
                "train.optimizer.name: expected 'ridge' with model.encoder.readout = \"ridge\", which has no gradient",
            )
            for name in RECIPES
        ),
    ],
)
def test_what_makes_no_sense_is_told(name: str, overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        recipe.load(name, overrides)
    assert any(fault.startswith(message) for fault in caught.value.faults), caught.value.faults


def test_what_cannot_be_solved_makes_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        seqtext.train("sentiment-esn", overrides={"model.norm": "layer"}, out=tmp_path / "run", device="cpu")
    told = 'train.optimizer.name = "ridge" solves for the read-out alone, and model.norm would be trained'
    assert str(caught.value) == told
    assert not (tmp_path / "run").exists()


def test_a_reservoir_under_a_crf_is_trained_by_gradients(tmp_path: Path) -> None:
    """The recipe of the task with another encoder: what does not recur is dropped from it, nothing below is trained."""
    chosen = recipe.load("ner", {"model.encoder.name": "esn", "model.encoder.size": 30})
    assert not hasattr(chosen.model.encoder, "cell")
    splits = session.read_splits(chosen)
    task: Any = chosen.task.fit(chosen.data, splits["train"])
    module = task.build(chosen.model)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for event in fit(task, module, task.encode(splits["train"]), None, chosen.train, devices=Devices(CPU), seed=1):
        if event.step == 3:
            break
    after = module.state_dict()
    changed = {name.partition(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {"output", "crf"}
