"""What every task of TASKS must keep to, on its sample data; a new task needs a recipe on the sample that bears its
name, and a line in UNSEEN_LABEL. Language models of labelled documents keep to it, too.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pytest
import torch
from torch import nn

from seqtext import api, recipe, session
from seqtext.errors import DataError
from seqtext.nn import graphs
from seqtext.recipe import Recipe
from seqtext.task import predict_all, to_device
from seqtext.tasks import TASKS
from seqtext.training.config import TrainConfig
from seqtext.training.distributed import Devices, detached
from seqtext.training.loop import fit
from tests.reference.stand_in import DEVICE, moved, stand_in

CPU = torch.device("cpu")
EXAMPLES = {"train": 120, "valid": 40, "test": 30}
ALL = 10**9
"""Tokens enough for all examples in one batch."""


def with_tag(tag: str) -> Callable[[datasets.Dataset], datasets.Dataset]:
    def change(dataset: datasets.Dataset) -> datasets.Dataset:
        rows = dataset.to_list()
        rows[2]["tags"][-1] = tag
        return datasets.Dataset.from_list(rows)

    return change


def with_label(label: str) -> Callable[[datasets.Dataset], datasets.Dataset]:
    def change(dataset: datasets.Dataset) -> datasets.Dataset:
        rows = dataset.to_list()
        rows[2]["label"] = label
        return datasets.Dataset.from_list(rows)

    return change


def with_node_label(label: str) -> Callable[[datasets.Dataset], datasets.Dataset]:
    def change(dataset: datasets.Dataset) -> datasets.Dataset:
        rows = dataset.to_list()
        rows[2]["labels"][0] = label
        return datasets.Dataset.from_list(rows, features=dataset.features)

    return change


UNSEEN_LABEL: dict[str, tuple[Callable[[datasets.Dataset], datasets.Dataset], str] | None] = {
    "lm": None,
    "memory": None,
    "translation": None,
    "ner": (
        with_tag("S-DRAGON"),
        "sentence 3: label 'S-DRAGON' was never seen in training; the labels of the training",
    ),
    "tree-sentiment": (
        with_node_label("9"),
        "tree 3: label '9' was never seen in training; the labels of the training",
    ),
    "sentiment": (
        with_label("so-so"),
        "example 3: label 'so-so' was never seen in training; the labels of the training",
    ),
}
"""How to put a label into a dataset that training never saw, and what `encode` says then; None for no labels."""
IN_ORDER = {"lm"}
"""Tasks that read their examples as one text, each from the state that the last one left."""


class Trained(NamedTuple):
    """A task whose run was trained a little, saved and loaded."""

    folder: Path
    model: api.Model
    recipe: Recipe
    splits: dict[str, Any]


@pytest.fixture(scope="module", params=[*TASKS, "lm-conditioned"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    chosen = recipe.load(request.param, {"train.epochs": 3})
    splits: dict[str, Any] = {
        split: data.select(range(EXAMPLES[split])) for split, data in session.read_splits(chosen).items()
    }
    folder = tmp_path_factory.mktemp(request.param) / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "read_splits", lambda recipe: splits)
        api.train(request.param, overrides={"train.epochs": 3}, out=folder, device="cpu")
    yield Trained(folder, api.load(folder, device="cpu"), chosen, splits)


def predictions(trained: Trained, dataset: Any, **options: Any) -> list[Any]:
    task = trained.model.task
    encoded = task.encode(dataset)
    return predict_all(task, trained.model.module, encoded, task.batches(encoded, **options), CPU)


def losses(
    trained: Trained, dataset: Any, *, precision: str = "float32", **options: Any
) -> tuple[float, float, list[Any]]:
    """Total loss, number of targets and summed gradients over all batches, without dropout."""
    task, module = trained.model.task, trained.model.module.eval()
    module.zero_grad()
    total, count, carry = 0.0, 0.0, None
    for batch in task.batches(task.encode(dataset), **options):
        with Devices(CPU, precision=precision).autocast():
            loss = task.loss(module, batch, carry)
        loss.total.backward()
        carry = detached(loss.carry)
        total, count = total + loss.total.item(), count + loss.count.item()
    gradients = [parameter.grad for parameter in module.parameters()]
    return total, count, gradients


def close_predictions(found: Any, expected: Any) -> None:
    """Equal, numbers nearly."""
    if isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    elif dataclasses.is_dataclass(expected) and not isinstance(expected, type):
        close_predictions(dataclasses.astuple(found), dataclasses.astuple(expected))
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected):
            close_predictions(one, other)
    else:
        assert found == expected


def close_gradients(found: list[Any], expected: list[Any]) -> None:
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * (1.0 + float(other.abs().max())))


def test_what_was_saved_predicts_what_was_trained(trained: Trained) -> None:
    task, dataset = trained.model.task, trained.splits["valid"]
    found = trained.model.predict_encoded(task.encode(dataset))
    records = [json.loads(json.dumps(task.record(row, prediction))) for row, prediction in zip(dataset, found)]
    lines = (trained.folder / "predictions.valid.jsonl").read_text(encoding="utf-8").splitlines()
    assert records == [json.loads(line) for line in lines]  # written by the module in memory, right after training
    for split in ("valid", "test"):
        encoded = task.encode(trained.splits[split])
        scores = task.score(trained.model.predict_encoded(encoded), trained.splits[split])
        assert scores == trained.model.run.meta["scores"][split]
        assert task.goal.key in scores


def test_each_example_alone_predicts_and_loses_what_it_does_in_a_batch(trained: Trained) -> None:
    dataset = trained.splits["valid"]
    close_predictions(predictions(trained, dataset, tokens=1), predictions(trained, dataset, tokens=ALL))
    alone, count, gradients = losses(trained, dataset, tokens=1)
    together, same, expected = losses(trained, dataset, tokens=ALL)
    assert count == same > 0
    assert alone == pytest.approx(together, rel=1e-5)
    close_gradients(gradients, expected)


def test_shares_of_several_processes_add_up_to_the_whole(trained: Trained) -> None:
    dataset, world = trained.splits["valid"], 3
    task = trained.model.task
    shares = [list(task.batches(task.encode(dataset), tokens=50, rank=rank, world=world)) for rank in range(world)]
    assert len({len(share) for share in shares}) == 1
    assert any(len(batch.rows) == 0 for share in shares for batch in share)  # more processes than rows
    total, count, gradients = losses(trained, dataset, tokens=50)
    parts = [losses(trained, dataset, tokens=50, rank=rank, world=world) for rank in range(world)]
    assert sum(part[1] for part in parts) == count
    assert sum(part[0] for part in parts) == pytest.approx(total, rel=1e-5)
    for share in parts:
        assert all(torch.is_tensor(gradient) for gradient in share[2])  # or processes would wait for each other
    module = trained.model.module
    module.zero_grad()
    for rank in range(world):
        carry = None
        for batch in shares[rank]:
            loss = task.loss(module, batch, carry)
            loss.total.backward()
            carry = detached(loss.carry)
    close_gradients([parameter.grad for parameter in module.parameters()], gradients)


def test_predictions_come_in_the_order_of_the_input(trained: Trained) -> None:
    if trained.model.task.name in IN_ORDER:
        pytest.skip("its examples are one text, in one order")
    dataset = trained.splits["valid"]
    order = np.random.default_rng(0).permutation(len(dataset)).tolist()
    found = predictions(trained, dataset, tokens=200)
    close_predictions(predictions(trained, dataset.select(order), tokens=90), [found[row] for row in order])
    close_predictions(predictions(trained, dataset, tokens=90, shuffle=np.random.default_rng(1)), found)
    assert any(one != other for one, other in zip(found, predictions(trained, dataset.select(order), tokens=200)))


def test_every_parameter_gets_a_gradient(trained: Trained) -> None:
    task, chosen = trained.model.task, trained.recipe
    fresh = chosen.task.fit(chosen.data, trained.splits["train"])
    torch.manual_seed(0)
    module = fresh.build(chosen.model).train()
    shuffle = np.random.default_rng(0)
    for batch in task.batches(fresh.encode(trained.splits["train"]), tokens=1000, shuffle=shuffle):
        fresh.loss(module, batch).total.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, f"{name} never learns"


def without_dropout(module: nn.Module) -> nn.Module:
    """The module, never again in training mode."""
    module.eval()
    module.train = lambda mode=True: module  # type: ignore[method-assign]
    return module


@pytest.mark.parametrize("clip", [0.0, 0.02])
def test_gradients_accumulated_over_small_batches_are_those_of_a_large_one(trained: Trained, clip: float) -> None:
    task, data = trained.model.task, trained.splits["train"]
    if task.name in IN_ORDER:
        pytest.skip("its small batches are not parts of a large one: they go on from each other")
    encoded = task.encode(data)
    weights = []
    for tokens, accumulate in ((ALL, 1), (100, 1000)):
        torch.manual_seed(4)
        module = without_dropout(task.build(trained.recipe.model))
        before = [parameter.detach().clone() for parameter in module.parameters()]
        values = {"epochs": 1, "batch_tokens": tokens, "accumulate": accumulate, "clip": clip, "log_every": 1}
        config = TrainConfig.model_validate({**values, "optimizer": {"name": "sgd", "lr": 1.0}})
        *_, last = fit(task, module, encoded, None, config, devices=Devices(CPU), seed=1)
        assert last.step == 1
        weights.append([now.detach() - then for now, then in zip(module.parameters(), before)])
    assert sum(1 for _ in task.batches(encoded, tokens=100)) > 10
    norm = torch.stack([change.square().sum() for change in weights[0]]).sum().sqrt().item()
    # Clipped as one gradient, not batch by batch; and 0 does not clip.
    assert norm == pytest.approx(clip, rel=1e-3) if clip else norm > 0.025
    for one, other in zip(*weights):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)


def test_a_label_unseen_in_training_is_named(trained: Trained) -> None:
    name = trained.model.task.name
    assert name in UNSEEN_LABEL, "say in UNSEEN_LABEL how to put an unseen label into this task's data, or None"
    case = UNSEEN_LABEL[name]
    if case is None:
        pytest.skip(f"{name} has no labels")
    change, message = case
    with pytest.raises(DataError, match=re.escape(message)):
        trained.model.task.encode(change(trained.splits["valid"]))


def test_bf16_trains_and_predicts_as_float32_does_but_for_its_rounding(trained: Trained) -> None:
    task, dataset = trained.model.task, trained.splits["valid"]
    total, count, expected = losses(trained, dataset, tokens=400)
    near, same, found = losses(trained, dataset, tokens=400, precision="bf16")
    assert count == same and total != near == pytest.approx(total, rel=0.02)
    assert all(gradient.dtype == torch.float32 for gradient in found)
    one, other = (torch.cat([gradient.flatten() for gradient in side]) for side in (found, expected))
    assert torch.nn.functional.cosine_similarity(one, other, dim=0) > 0.99
    half = api.load(trained.folder, device="cpu", precision="bf16")
    scores = task.score(half.predict_encoded(task.encode(dataset)), dataset)
    reached = trained.model.run.meta["scores"]["valid"]
    assert scores[task.goal.key] == pytest.approx(reached[task.goal.key], rel=0.05, abs=0.02)


WAITS = {"tree-sentiment": ("cky.py", "span_parser.py")}
"""Files whose code a GPU has to be waited for in training: a parser's chart is searched on the CPU."""
RECORDED = {"ner", "tree-sentiment"}
"""Tasks that have passes to record: a CRF, levels of trees. The recipes' cells are kernels."""


@pytest.mark.parametrize("recorded", [False, True])
def test_the_ways_of_a_gpu_train_as_the_cpu_does_and_wait_for_nothing(
    monkeypatch: pytest.MonkeyPatch, trained: Trained, recorded: bool
) -> None:
    monkeypatch.setattr(graphs, "WANTED", recorded)
    task, encoded = trained.model.task, trained.model.task.encode(trained.splits["train"])
    steps = 9 if recorded else 3  # shapes come again
    values = {"epochs": 9, "batch_tokens": 400, "log_every": 100, "optimizer": {"name": "adam", "lr": 0.001}}
    config = TrainConfig.model_validate(values | {"average": {"name": "exponential"}})
    torch.manual_seed(4)
    start = task.build(trained.recipe.model)

    def train(module: nn.Module, devices: Devices) -> list[torch.Tensor]:
        torch.manual_seed(5)
        for event in fit(task, module, encoded, None, config, devices=devices, seed=1):
            if event.step == steps:
                return [parameter.detach() for parameter in module.parameters()]
        raise AssertionError(f"fewer than {steps} steps")

    expected = train(copy.deepcopy(start), Devices(CPU))
    with stand_in() as seen:
        there = moved(start)
        seen.waits.clear()
        found = train(there, Devices(DEVICE))
        waits = list(seen.waits)
        for one, other, before in zip(found, expected, start.parameters()):
            assert one.device == DEVICE
            torch.testing.assert_close(one.cpu(), other, rtol=1e-4, atol=1e-6)
            assert not torch.equal(other, before)
    waits = [wait for wait in waits if "/progress.py:" not in wait]  # of the ends of epochs
    assert bool(seen.replays) == (recorded and task.name in RECORDED)
    allowed = WAITS.get(task.name, ())
    assert [wait for wait in waits if not any(f"/{file}:" in wait for file in allowed)] == []
    assert bool(waits) == bool(allowed), "waits for less than it says: mend WAITS, and what docs/performance.md says"


@pytest.mark.parametrize("recorded", [False, True])
def test_the_ways_of_a_gpu_predict_as_the_cpu_does(
    monkeypatch: pytest.MonkeyPatch, trained: Trained, recorded: bool
) -> None:
    monkeypatch.setattr(graphs, "WANTED", recorded)
    task, dataset = trained.model.task, trained.splits["valid"].select(range(6 if recorded else 12))
    encoded = task.encode(dataset)
    with stand_in() as seen:
        there = moved(trained.model.module)
        for _ in range(2 if recorded else 1):
            found = predict_all(task, there, encoded, task.batches(encoded, tokens=100), DEVICE)
    assert bool(seen.replays) == (recorded and task.name in RECORDED | {"translation"})  # the steps of its search
    close_predictions(found, predictions(trained, dataset, tokens=100))


@pytest.mark.gpu
@pytest.mark.parametrize("recorded", [False, True])
def test_a_gpu_computes_what_the_cpu_does(monkeypatch: pytest.MonkeyPatch, trained: Trained, recorded: bool) -> None:
    dataset = trained.splits["valid"]
    task, there = trained.model.task, api.load(trained.folder, device="cuda")
    monkeypatch.setattr(graphs, "WANTED", recorded)  # loading a run says what its recipe does
    encoded = task.encode(dataset)
    total = sum(
        task.loss(there.module, to_device(batch, there.device)).total.item()
        for batch in task.batches(encoded, tokens=100)
    )
    # A GPU's products are of ten bits; so may be a prediction that hangs in the balance.
    assert total == pytest.approx(losses(trained, dataset, tokens=100)[0], rel=1e-2)
    found, expected = there.predict_encoded(encoded), trained.model.predict_encoded(encoded)
    scores, wanted = task.score(found, dataset), task.score(expected, dataset)
    assert scores[task.goal.key] == pytest.approx(wanted[task.goal.key], rel=5e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("recorded", [False, True])
def test_steps_on_a_gpu_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch, trained: Trained, recorded: bool) -> None:
    monkeypatch.setattr(graphs, "WANTED", recorded)
    task, encoded = trained.model.task, trained.model.task.encode(trained.splits["train"])
    steps = 6 if recorded else 2
    values = {"epochs": steps, "batch_tokens": 400, "clip": 0.0, "optimizer": {"name": "sgd", "lr": 0.1}}
    changes = []
    for device in (CPU, torch.device("cuda")):
        torch.manual_seed(4)
        module = without_dropout(task.build(trained.recipe.model).to(device))
        before = torch.nn.utils.parameters_to_vector(module.parameters()).detach()
        config = TrainConfig.model_validate(values)
        for event in fit(task, module, encoded, None, config, devices=Devices(device), seed=1):
            if event.step == steps:
                break
        changes.append((torch.nn.utils.parameters_to_vector(module.parameters()).detach() - before).cpu())
    # Products of ten bits on the GPU: a thousandth each.
    torch.testing.assert_close(changes[1], changes[0], rtol=1e-2, atol=5e-3 * changes[0].abs().max().item())
    assert torch.nn.functional.cosine_similarity(*changes, dim=0) > 0.999
