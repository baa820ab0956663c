"""The benchmark of all tasks: its rows, its JSON, its shares, and what it compares."""

import itertools
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import compare_outside  # noqa: E402
import profile_parts  # noqa: E402


def bench(*arguments, cwd):
    command = [sys.executable, str(ROOT / "scripts" / "bench.py"), *arguments]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)


def few(cwd):
    sizes = ["--scale", "0.02", "--seconds", "0.1", "--repeats", "1", "--threads", "1"]
    return [*sizes, "--json", str(cwd / "found.json")]


@pytest.mark.slow
def test_a_table_a_task_with_ratios_first_and_the_same_as_json(tmp_path):
    done = bench("sentiment", *few(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert list(found["tasks"]) == ["sentiment"] and "sentiment: sentiment-sst2" in done.stdout
    figures = found["tasks"]["sentiment"]["figures"]
    for name in (
        "peak memory of training, MB",
        "start-up of seqtext predict, one line, s",
        "start-up of seqtext predict, one line / import torch",
        "start-up of seqtext --help, s",
        *(
            f"training {precision}{rest}"
            for precision in ("float32", "bf16")
            for rest in (", tokens/s", ", texts/s", ", FLOP/s / float32 matrix FLOP/s", ": share of the recurrence")
        ),
        "training bf16, FLOP/s / bf16 matrix FLOP/s",
        "predicting, together / one at a time",
        "predicting, tokens/s",
        "predicting, FLOP/s with padding / float32 matrix FLOP/s",
        "predicting bf16, FLOP/s with padding / bf16 matrix FLOP/s",
        "predicting, as a stream, tokens/s",
        "predicting, latency of a line, p50 ms",
        "predicting, latency of a line, p95 ms",
    ):
        assert f"  {name} " in done.stdout
        assert 0 < figures[name]["median"] < math.inf and len(figures[name]["all"]) == 1, name
    assert done.stdout.index("ratios") < done.stdout.index("figures, median")
    # What an LSTM of 150 in both directions and the rest take: two FLOPs a weight, the recurrence most of it.
    recurrence = 2 * 2 * 4 * 150 * (50 + 150) / 1e3
    assert recurrence < figures["training, kFLOP a token, forward"]["median"] < 1.5 * recurrence
    for cell in ("lstm", "gru"):
        assert found["layers"][f"{cell} layer training bf16: time of torch's, packed / ours"]["median"] > 0


@pytest.mark.slow
def test_the_shares_of_the_parts_are_disjoint_and_make_up_the_whole(tmp_path):
    tasks = ["ner", "lm", "translation", "tree-sentiment"]
    done = bench(*tasks, "--profile", *few(tmp_path), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("where the time goes") == 4 and done.stdout.count("  Python overhead") == 4
    found = json.loads((tmp_path / "found.json").read_text())["tasks"]
    for task, what in itertools.product(tasks, ("training float32", "training bf16", "prediction")):
        shares = {part: share["median"] for part, share in found[task]["profile"][what].items()}
        assert list(shares) == list(profile_parts.PARTS) and sum(shares.values()) == pytest.approx(1)
        # The language model's loss and what is around it are in its head; its predictions have no optimizer.
        none = {part for part, share in shares.items() if share == 0}
        assert none <= {"optimizer", "other operations"}, (task, what)
        assert ("optimizer" in none) == (what == "prediction"), (task, what)


def test_another_task_is_one_message(tmp_path):
    done = bench("ner", "tagging", cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    tasks = "ner, sentiment, lm, translation, tree-sentiment"
    assert done.stderr == f"bench.py: tagging: no such task; expected {tasks}\n"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--json", "none/figures.json", "none/figures.json: cannot be written"),
        ("--json", ".", ".: is a folder, expected a file"),
        ("--scale", "-1", "-1: expected more than 0"),
    ],
)
def test_what_could_not_end_well_is_told_before_anything_is_measured(option, value, message, tmp_path):
    done = bench("ner", option, value, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.endswith(f"bench.py: error: argument {option}: {message}\n")


class Slow(torch.autograd.Function):
    """Takes so many seconds forward, and as many backward."""

    @staticmethod
    def forward(ctx, x, forward, backward):
        ctx.seconds = backward
        time.sleep(forward)
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        time.sleep(ctx.seconds)
        return grad, None, None


class Step(nn.Module):
    def __init__(self, forward, backward):
        super().__init__()
        self.seconds = forward, backward

    def forward(self, x):
        return Slow.apply(x, *self.seconds)


def test_the_stopwatch_gives_each_part_its_forward_and_its_backward_pass():
    clock = profile_parts.Stopwatch()
    first, second, third = Step(0.01, 0.04), Step(0.02, 0.05), nn.Identity()
    x = torch.zeros(2, requires_grad=True)
    watched = [(first, "forward", "embedding", None), (second, "forward", "recurrence", None)]
    watched.append((third, "forward", "head", None))  # its output is the tensor that it was given
    with clock.watching(watched):
        clock.to("other operations")
        y = third(second(Slow.apply(first(x * 1), 0.03, 0.06)))
        Slow.apply(y, 0.0, 0.07).sum().backward()
        clock.to(None)
    assert "forward" not in vars(first)
    order = [part for _, part in clock.switches]
    rest = "other operations"
    forward = [rest, "embedding", rest, "recurrence", rest, "head", rest]
    assert order == [*forward, "recurrence", rest, "embedding", rest, None]
    for part, least in (("embedding", 0.05), ("recurrence", 0.07), (rest, 0.16)):
        assert clock.seconds[part] >= least


def test_jobs_take_turns_the_order_turned_round_every_time():
    called = []
    jobs = {name: lambda name=name: called.append(name) for name in ("ours", "theirs")}
    spent = compare_outside.paired(jobs, rounds=2)
    assert called == ["ours", "theirs", "theirs", "ours", "ours", "theirs"] and set(spent) == {"ours", "theirs"}


def test_the_layers_that_are_compared_have_the_same_weights_and_shapes():
    lengths = torch.full((compare_outside.BATCH,), compare_outside.TIME)
    ours, theirs, weights = compare_outside._layers("lstm", lengths, "cpu")
    states = compare_outside.BATCH, compare_outside.TIME, 2 * compare_outside.HIDDEN
    assert ours().shape == theirs().shape == states
    assert weights == 2 * 4 * compare_outside.HIDDEN * (compare_outside.INPUT + compare_outside.HIDDEN)
