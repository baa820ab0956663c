"""Schedules by hand and against torch's, averages and update rules in plain Python, accumulation, clipping."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqtext.task import Goal
from seqtext.training.config import (
    Adam,
    AdamW,
    Asgd,
    Constant,
    Cosine,
    Decay,
    Exponential,
    InverseSqrt,
    Linear,
    Plateau,
    Sgd,
    TrainConfig,
    Uniform,
)
from seqtext.training.loop import Stepped
from seqtext.training.optim import Average, Schedule, build_optimizer
from tests.training.toy import Points, Toy, model, points, training

HALF = math.sqrt(0.5)


@pytest.mark.parametrize(
    ("config", "total", "factors"),
    [
        (Constant(), 3, [1, 1, 1, 1]),
        (Constant(warmup=4), 3, [0.25, 0.5, 0.75, 1, 1]),
        (Plateau(warmup=2), 9, [0.5, 1, 1, 1]),
        (Linear(), 4, [1, 0.75, 0.5, 0.25, 0, 0]),
        (Linear(warmup=2, floor=0.1), 6, [0.5, 1, 1, 0.775, 0.55, 0.325, 0.1, 0.1]),
        (Cosine(), 4, [1, (1 + HALF) / 2, 0.5, (1 - HALF) / 2, 0, 0]),
        (Cosine(warmup=1, floor=0.5), 3, [1, 1, 0.75, 0.5]),
        (Decay(factor=0.5, after=2), 20, [1] * 10 + [0.5] * 5 + [0.25] * 5),
        (InverseSqrt(warmup=4), 9, [0.25, 0.5, 0.75, 1, math.sqrt(4 / 5), math.sqrt(4 / 6), math.sqrt(4 / 7), HALF]),
    ],
)
def test_schedules_have_the_values_worked_out_by_hand(config, total, factors):
    schedule = Schedule(config, lr=0.2, steps_per_epoch=5, total_steps=total, goal=Goal("f1", "max"))
    assert [schedule.rate(step) for step in range(len(factors))] == pytest.approx([0.2 * f for f in factors])


@given(
    scores=st.lists(st.integers(0, 4).map(float), max_size=30),
    mode=st.sampled_from(["max", "min"]),
    patience=st.integers(0, 3),
    cut=st.integers(0, 30),
)
@settings(max_examples=60, deadline=None)
def test_plateau_falls_where_torch_lets_it_fall_and_goes_on_from_its_state(scores, mode, patience, cut):
    config = Plateau(factor=0.5, patience=patience)
    ours = Schedule(config, lr=1.0, steps_per_epoch=1, total_steps=1, goal=Goal("score", mode))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode=mode, factor=0.5, patience=patience, threshold=0.0, threshold_mode="abs", eps=0.0
    )
    for i, score in enumerate(scores):
        if i == cut:
            state = json.loads(json.dumps(ours.state()))
            ours = Schedule(config, lr=1.0, steps_per_epoch=1, total_steps=1, goal=Goal("score", mode))
            ours.load(state)
        ours.evaluated(score)
        theirs.step(score)
        assert ours.rate(100) == optimizer.param_groups[0]["lr"]


def exponential(weights, decay):
    mean = None
    for n, weight in enumerate(weights):
        keep = min(decay, (1 + n) / (10 + n))
        mean = weight if mean is None else keep * mean + (1 - keep) * weight
    return mean


@pytest.mark.parametrize(
    ("train", "reference"),
    [
        (TrainConfig(average=Exponential(decay=0.9)), lambda w: exponential(w, 0.9)),
        (TrainConfig(average=Exponential(decay=0.15)), lambda w: exponential(w, 0.15)),
        (TrainConfig(average=Uniform(start=2)), lambda w: sum(w[4:]) / len(w[4:])),
        (TrainConfig(optimizer=Asgd(start=3)), lambda w: sum(w[3:]) / len(w[3:])),
        (TrainConfig(), lambda w: w[-1]),
        (TrainConfig(average=Uniform(start=9)), lambda w: w[-1]),
    ],
)
def test_averages_are_those_of_plain_python(train, reference):
    module = nn.Linear(3, 2, dtype=torch.float64)
    average = Average(module, train, goal=Goal("f1", "max"))
    seen = []
    for step in range(1, 13):  # four steps an epoch
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.copy_(torch.randn_like(parameter))
        average.update(step=step, epoch=1 + (step - 1) // 4)
        seen.append([parameter.detach().clone() for parameter in module.parameters()])
    expected = [reference([weights[i] for weights in seen]) for i in range(2)]

    def now():
        return [parameter.detach().clone() for parameter in module.parameters()]

    live = now()
    average.swap()
    torch.testing.assert_close(now(), expected)
    average.swap()
    assert all(torch.equal(a, b) for a, b in zip(now(), live))

    again = Average(module, train, goal=Goal("f1", "max"))
    again.load(average.tensors(), average.state())
    again.update(step=13, epoch=4)
    average.update(step=13, epoch=4)
    assert all(torch.equal(a, b) for a, b in zip(again.tensors().values(), average.tensors().values(), strict=True))


@pytest.mark.parametrize(
    ("mode", "scores", "starts"),
    [
        ("min", [9, 8, 7, 6, 5, 4], None),
        ("min", [9, 8, 7, 8, 8, 8], 4 * 6),  # 8 is worse than 7, which is three back by then
        ("min", [9, 8, 7, 7.5, 6, 7.5, 7.5, 7], 4 * 6),
        ("max", [1, 2, 1, 1, 1, 5], 4 * 5),  # 1 is worse than 2, which is three back by then
    ],
)
def test_averaging_begins_where_scores_no_longer_improve(mode, scores, starts):
    train = TrainConfig(optimizer=Asgd(trigger=2, start=99))
    module, goal = nn.Linear(1, 1), Goal("score", mode)
    average, step, begun = Average(module, train, goal=goal), 0, None
    for score in scores:
        for _ in range(4):
            step += 1
            average.update(step=step, epoch=1)
            if average.mean is not None and begun is None:
                begun = step - 1
        average.evaluated(score, step=step)
        again = Average(module, train, goal=goal)  # as resumed
        again.load(average.tensors(), json.loads(json.dumps(average.state())))
        average = again
    if begun is None and average.start is not None:
        begun = average.start
    assert begun == starts


def sgd(weight, gradients, config):
    velocity = None
    momentum = getattr(config, "momentum", 0.0)
    for gradient in gradients:
        gradient += config.weight_decay * weight
        velocity = gradient if velocity is None else momentum * velocity + gradient
        weight -= config.lr * (gradient + momentum * velocity if getattr(config, "nesterov", False) else velocity)
    return weight


def adam(weight, gradients, config):
    mean = square = 0.0
    for t, gradient in enumerate(gradients, start=1):
        if isinstance(config, AdamW):
            weight -= config.lr * config.weight_decay * weight
        else:
            gradient += config.weight_decay * weight
        mean = config.beta1 * mean + (1 - config.beta1) * gradient
        square = config.beta2 * square + (1 - config.beta2) * gradient**2
        step = (mean / (1 - config.beta1**t)) / (math.sqrt(square / (1 - config.beta2**t)) + 1e-8)
        weight -= config.lr * step
    return weight


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (Sgd(lr=0.1), sgd),
        (Sgd(lr=0.1, momentum=0.9, weight_decay=0.01), sgd),
        (Sgd(lr=0.1, momentum=0.9, nesterov=True), sgd),
        (Asgd(lr=0.1, weight_decay=0.01), sgd),
        (Adam(lr=0.1, beta1=0.8, beta2=0.95, weight_decay=0.1), adam),
        (AdamW(lr=0.1, weight_decay=0.1), adam),
    ],
)
def test_optimizers_step_by_their_papers(config, rule):
    gradients = [0.5, -1.0, 2.0]
    parameter = nn.Parameter(torch.tensor([1.5], dtype=torch.float64))
    optimizer = build_optimizer([parameter], config)
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    assert parameter.item() == pytest.approx(rule(1.5, list(gradients), config), rel=1e-12)


def test_accumulated_batches_make_the_step_of_the_one_larger_batch():
    data = points(30)  # 4 + 4 + 2 batches of 3, with unlike numbers of targets, are 12 + 12 + 6 points
    found = []
    for tokens, accumulate in ((12, 1), (3, 4)):
        config = TrainConfig(epochs=3, batch_tokens=tokens, accumulate=accumulate, log_every=1, clip=0.7)
        module = model().double()
        train = Points(data.x.double(), data.y.double(), data.targets)
        steps = [event for event in training(Toy(), module, config, train=train) if isinstance(event, Stepped)]
        found.append((module, [(step.step, step.epoch, step.lr) for step in steps], steps))
    (large, at, steps), (small, same, others) = found
    assert at == same and len(at) == 9
    torch.testing.assert_close(dict(small.state_dict()), dict(large.state_dict()), rtol=1e-9, atol=1e-12)
    assert [step.loss for step in steps] == pytest.approx([step.loss for step in others], rel=1e-5)
    assert [step.grad_norm for step in steps] == pytest.approx([step.grad_norm for step in others], rel=1e-5)


@pytest.mark.parametrize("clip", [0.0, 0.3, 1e6])
def test_clipping_bounds_the_update_and_the_norm_reported_is_that_before_it(clip):
    data, module = points(20), model()
    loss = Toy().loss(module, next(Toy().batches(data, tokens=20)))
    gradients = torch.autograd.grad(loss.total / loss.count, list(module.parameters()))
    norm = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    assert norm > 0.5
    before = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    config = TrainConfig(epochs=1, batch_tokens=20, clip=clip, optimizer=Sgd(lr=1.0), log_every=1)
    (step,) = (event for event in training(Toy(), module, config, train=data) if isinstance(event, Stepped))
    after = torch.cat([parameter.detach().flatten() for parameter in module.parameters()])
    assert step.grad_norm == pytest.approx(norm, rel=1e-5)
    assert float((after - before).norm()) == pytest.approx(min(clip or norm, norm), rel=1e-4)


def test_an_average_beside_asgd_is_a_fault():
    with pytest.raises(ValueError, match="unfreeze = 1 needs init_from: without it, random layers would be frozen"):
        TrainConfig(unfreeze=1)
    with pytest.raises(ValueError, match="the optimizer asgd averages the weights itself; average 'exponential' would"):
        TrainConfig(optimizer=Asgd(), average=Exponential())
