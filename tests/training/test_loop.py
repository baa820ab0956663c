"""The loop's events, stopping, selection, bad losses and carried state, on tasks of a few points."""

import copy
import math

import pytest
import torch
from torch import nn

from seqtext.task import Goal, Loss
from seqtext.training.checkpoint import load_checkpoint, save_checkpoint
from seqtext.training.config import Adam, AdamW, Exponential, NoAverage, Plateau, Sgd, TrainConfig, Uniform
from seqtext.training.loop import EpochEnded, Evaluated, Finished, Started, Stepped
from seqtext.training.progress import NonFiniteLoss, Progress, Window
from tests.training.toy import Chain, Toy, layered, model, points, training

STILL = Sgd(lr=1e-20)
"""Steps that change no weight."""


def only(kind, events):
    return [event for event in events if isinstance(event, kind)]


def test_events_come_in_order_with_their_numbers():
    config = TrainConfig(epochs=2, batch_tokens=4, log_every=2, optimizer=STILL)
    data, module = points(10), model()
    events = list(training(Toy(), module, config, train=data, valid=points(5, seed=1)))
    epoch = [Stepped, Stepped, Stepped, Evaluated, EpochEnded]
    assert [type(event) for event in events] == [Started, *epoch, *epoch, Finished]
    started, finished = events[0], events[-1]
    assert (started.steps_per_epoch, started.total_steps, started.parameters, started.step) == (3, 6, 21, 0)
    assert [(event.step, event.epoch) for event in only(Stepped, events)] == [
        (1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)
    ]  # fmt: skip
    assert [(event.step, event.epoch) for event in only(EpochEnded, events)] == [(3, 1), (6, 2)]
    assert (finished.step, finished.epoch, finished.reason) == (6, 2, "all epochs done")
    # Tokens are counted from the start of the epoch, and real ones only.
    assert [event.tokens for event in only(EpochEnded, events)] == [int(data.targets.sum())] * 2


def test_losses_are_means_over_targets_since_the_last_report_and_over_the_epoch():
    config = TrainConfig(epochs=1, batch_tokens=3, log_every=2, optimizer=STILL)
    data, module, task = points(15), model(), Toy()
    parts = []
    task.loss = lambda *given: parts.append(Toy.loss(task, *given)) or parts[-1]
    events = list(training(task, module, config, train=data))

    def mean(losses):
        return sum(loss.total.item() for loss in losses) / sum(int(loss.count) for loss in losses)

    reported = [event.loss for event in only(Stepped, events)]
    assert [loss is None for loss in reported] == [True, False, True, False, True]
    assert reported[1::2] == pytest.approx([mean(parts[:2]), mean(parts[2:4])], rel=1e-6)
    assert only(EpochEnded, events)[0].loss == pytest.approx(mean(parts), rel=1e-6)


def test_every_epoch_has_an_order_of_its_own_from_the_seed():
    seen = []
    task = Toy()
    task.loss = lambda module, batch, carry: seen.append(tuple(batch.rows.tolist())) or Toy.loss(task, module, batch)
    config = TrainConfig(epochs=2, batch_tokens=12, optimizer=STILL)
    list(training(task, model(), config, train=points(12)))
    list(training(task, model(), config, train=points(12)))
    assert seen[:2] == seen[2:] and seen[0] != seen[1]
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(12))


def test_the_average_is_scored_and_the_weights_train_on():
    config = TrainConfig(epochs=2, batch_tokens=5, average=Uniform(), optimizer=Sgd(lr=0.1))
    module, valid = model(), points(6, seed=1)
    weights, live = [], None
    for event in training(Toy(), module, config, train=points(10), valid=valid):
        if isinstance(event, Stepped):
            weights.append(copy.deepcopy(module.state_dict()))
            live = weights[-1]
        elif isinstance(event, Evaluated):
            mean = {name: torch.stack([w[name] for w in weights]).mean(0) for name in live}
            torch.testing.assert_close(dict(module.state_dict()), mean)
            scored = model()
            scored.load_state_dict(mean)
            with torch.no_grad():
                assert event.predictions == pytest.approx(scored(valid.x).squeeze(-1).tolist(), abs=1e-6)
        elif isinstance(event, EpochEnded):
            assert all(torch.equal(live[name], value) for name, value in module.state_dict().items())
    assert len(weights) == 4


@pytest.mark.parametrize(
    ("mode", "scores", "best", "stopped"),
    [
        ("max", [1, 3, 3, 2, 9, 9], [True, True, False, False], 4),  # an equal score is no better one
        ("min", [5, 6, 4, 4, 3, 5, 3, 0], [True, False, True, False, True, False, False], 7),
        ("max", [float("nan"), 1, float("nan"), 2, 0, 0], [False, True, False, True, False, False], 6),
    ],
)
def test_training_stops_early_and_marks_the_best_by_the_goal(mode, scores, best, stopped):
    task = Toy(goal=Goal("score", mode), scores=scores)
    config = TrainConfig(epochs=20, batch_tokens=10, patience=2, optimizer=STILL)
    events = list(training(task, model(), config, train=points(10), valid=points(4)))
    assert [event.best for event in only(Evaluated, events)] == best
    real = [score for score in scores[:stopped] if not math.isnan(score)]
    assert only(Evaluated, events)[-1].best_score == {"max": max, "min": min}[mode](real)
    finished = events[-1]
    assert (finished.epoch, finished.reason) == (stopped, "no better score for 2 epochs")


def test_a_loss_that_is_not_finite_stops_with_step_examples_and_advice():
    data = points(12)
    data.y[7] = float("nan")
    rows = []
    task = Toy()
    task.loss = lambda module, batch, carry: rows.append(batch.rows.tolist()) or Toy.loss(task, module, batch)
    events = []
    with pytest.raises(NonFiniteLoss) as caught:
        events.extend(training(task, model(), TrainConfig(epochs=1, batch_tokens=3), train=data))
    step = next(i for i, batch in enumerate(rows, start=1) if 7 in batch)
    shown = ", ".join(str(row + 1) for row in rows[step - 1])
    assert str(caught.value) == (
        f"the loss is nan at step {step} (training examples {shown}, counted from 1); "
        "no weights were scored yet. "
        "Try a smaller train.optimizer.lr, train.clip = 1.0, a warm-up (train.schedule.warmup), or "
        "train.precision = 'float32'; if it comes back at the same examples, look at them"
    )
    assert len(rows) == step  # no later batch was computed with the spoilt weights


def test_a_finite_loss_with_a_gradient_that_is_not_stops_too():
    task = Toy()
    task.loss = lambda module, batch, carry: Loss((0.0 * module(batch.x)).sqrt().sum(), torch.tensor(len(batch.x)))
    with pytest.raises(NonFiniteLoss, match=r"^the norm of the gradient is nan at step 1 \(training examples "):
        list(training(task, model(), TrainConfig(epochs=1, batch_tokens=3, clip=0.0), train=points(6)))


def test_a_step_without_a_target_changes_nothing_and_is_no_nan():
    task, module = Toy(), nn.Linear(3, 1)
    task.loss = lambda module, batch, carry: Loss(0.0 * module(batch.x).sum(), torch.tensor(0))
    before = module.weight.detach().clone()
    list(training(task, module, TrainConfig(epochs=1, batch_tokens=3, optimizer=Sgd()), train=points(6)))
    assert torch.equal(module.weight, before)


def test_weights_that_diverge_stop_before_anything_is_saved():
    config = TrainConfig(epochs=50, batch_tokens=5, clip=0.0, optimizer=Sgd(lr=1e6))
    module = nn.Linear(3, 1)
    with pytest.raises(NonFiniteLoss, match=r"is (inf|nan) at step"):
        for event in training(Toy(), module, config, train=points(20), valid=points(5)):
            if isinstance(event, Started | Stepped | EpochEnded):
                snapshot = event.snapshot()
                assert all(torch.isfinite(value.float()).all() for value in snapshot.tensors.values())


def test_a_bad_loss_that_no_report_has_seen_yet_makes_no_checkpoint():
    window = Window(torch.device("cpu"))
    window.every = False  # as on a GPU, which is not asked at every step
    for total in (1.0, float("inf"), 1.0):
        batch = next(Toy().batches(points(2), tokens=2))
        window.add(torch.tensor(total), torch.tensor(2), torch.tensor(1.0), [batch])
        assert not window.full
    with pytest.raises(NonFiniteLoss, match="the loss is inf at step 9 "):
        window.check(Progress(step=10))


def test_state_is_carried_through_an_epoch_detached_and_begins_anew_with_the_next():
    task = Chain()
    list(training(task, nn.Linear(3, 1), TrainConfig(epochs=2, batch_tokens=4, accumulate=2), train=points(10)))
    assert [given is None for given in task.given] == [True, False, False] * 2
    for (state, nothing), (double,) in (given for given in task.given if given is not None):
        assert state.grad_fn is None and not state.requires_grad and nothing is None
        assert torch.equal(double, 2.0 * state) and float(state) != 0.0


def test_what_cannot_be_carried_is_refused():
    task = Toy()
    task.loss = lambda module, batch, carry: Toy.loss(task, module, batch)._replace(carry={"h": torch.zeros(1)})
    with pytest.raises(TypeError, match="a carry is a tensor, None, or tuples of them, not dict"):
        list(training(task, model(), TrainConfig(epochs=1, batch_tokens=4), train=points(8)))


LAYERS = ("embedding", "encoder", "output")


def weights(module):
    return {name: torch.cat([p.detach().flatten() for p in getattr(module, name).parameters()]) for name in LAYERS}


@pytest.mark.parametrize("optimizer", [Sgd(lr=0.1, momentum=0.9), Adam(lr=0.1)])
def test_each_layer_takes_steps_of_its_own_size(optimizer):
    moved = []
    for decay in (1.0, 0.25):
        config = TrainConfig(epochs=1, batch_tokens=5, layer_decay=decay, optimizer=optimizer, clip=0.0)
        module = layered()
        before = weights(module)
        step = next(event for event in training(Toy(), module, config, train=points(10)) if isinstance(event, Stepped))
        assert step.lr == 0.1  # that of the last layer
        moved.append({name: value - before[name] for name, value in weights(module).items()})
    for name, share in zip(LAYERS, (0.0625, 0.25, 1.0)):
        assert moved[0][name].abs().max() > 0
        torch.testing.assert_close(moved[1][name], share * moved[0][name], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("average", [NoAverage(), Exponential(decay=0.5)])
def test_layers_are_unfrozen_from_the_last_down(average):
    """Frozen, a layer does not decay either, counts nothing in the gradient's norm, and is its own average."""
    config = TrainConfig(
        epochs=7,
        batch_tokens=5,
        init_from="lm",
        unfreeze=2,
        optimizer=AdamW(lr=0.01, weight_decay=0.1),
        average=average,
        log_every=1,
    )
    module, data = layered(), points(10)
    start = before = weights(module)
    moving, scored = [], []
    for event in training(Toy(), module, config, train=data, valid=points(4)):
        if isinstance(event, Stepped):
            trained = [name for name in LAYERS if getattr(module, name).weight.requires_grad]
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            assert len(gradients) == 2 * len(trained)
            norm = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()
            assert norm == pytest.approx(min(event.grad_norm, config.clip), rel=1e-4)
        elif isinstance(event, Evaluated):
            scored.append([name for name in LAYERS if not torch.equal(weights(module)[name], start[name])])
        elif isinstance(event, EpochEnded):
            now = weights(module)
            moving.append([name for name in LAYERS if not torch.equal(now[name], before[name])])
            before = now
    head, middle = ["output"], ["encoder", "output"]
    assert moving == scored == [head, head, middle, middle, [*LAYERS], [*LAYERS], [*LAYERS]]


def test_a_module_whose_training_is_over_is_not_frozen():
    module = layered()
    list(training(Toy(), module, TrainConfig(epochs=1, init_from="lm", unfreeze=1), train=points(4)))
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_what_a_task_has_frozen_stays_so():
    module = layered()
    module.encoder.requires_grad_(False)
    before = weights(module)
    config = TrainConfig(epochs=3, batch_tokens=5, init_from="lm", unfreeze=1, layer_decay=0.5)
    list(training(Toy(), module, config, train=points(10)))
    assert [name for name in LAYERS if torch.equal(weights(module)[name], before[name])] == ["encoder"]
    assert not module.encoder.weight.requires_grad


def facts(event):
    """What an event says, less the clock."""
    kept = {name: value for name, value in vars(event).items() if name not in ("snapshot", "seconds", "tokens")}
    return type(event).__name__, kept


@pytest.mark.parametrize(
    ("kind", "build", "settings"),
    [(Toy, model, {}), (Chain, model, {}), (Toy, layered, {"init_from": "lm", "unfreeze": 1, "layer_decay": 0.5})],
)
def test_a_run_resumed_anywhere_says_and_ends_the_same(kind, build, settings, tmp_path):
    config = TrainConfig(
        **settings,
        epochs=3,
        batch_tokens=2,
        accumulate=2,
        log_every=3,
        patience=2,
        clip=1.0,
        optimizer=Adam(lr=0.05),
        schedule=Plateau(warmup=2, patience=0),
        average=Exponential(decay=0.8),
    )
    train, valid = points(14), points(6, seed=1)
    dropout = 0.3 if kind is Toy else 0.0

    def begin(resume=None):
        module = build(dropout=dropout)
        torch.manual_seed(11)
        return module, training(kind(), module, config, train=train, valid=valid, resume=resume)

    module, events = begin()
    said, cuts = [], []
    for event in events:
        said.append(event)
        if isinstance(event, Started | Stepped | EpochEnded):
            place = tmp_path / str(len(said))
            save_checkpoint(place, event.snapshot())
            cuts.append((place, len(said)))
    final = module.state_dict()
    assert len(cuts) == 1 + 3 * (4 + 1)
    for place, done in cuts:
        module, events = begin(load_checkpoint(place))
        torch.manual_seed(99)  # whatever happened to the generator before the first step
        rest = list(events)[1:]
        assert [facts(event) for event in rest] == [facts(event) for event in said[done:]], place
        assert all(torch.equal(value, final[name]) for name, value in module.state_dict().items()), place
