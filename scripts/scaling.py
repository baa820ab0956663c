"""What several processes cost and gain: measured with one and two processes here, predicted for more over other links.

    python scripts/scaling.py [RECIPE ...] [--steps 20] [--repeats 3] [--faster 1] [--json FILE]

Two processes of one thread each train the recipes (by default that of each task) on their samples, in turn, repeat by
repeat: the first alone with whole batches and with halves; both at once with halves, without a word between them; both
together under DistributedDataParallel. So the cost of a step is known in parts, and a model of it can be checked:

    step(N) = fixed + tokens / N * cost a token + exchange(N)
    exchange(N) = 2 (N - 1) (latency + bytes / N / bandwidth) + 4 ceil(log2 N) latency * 2

The first part of the exchange is the ring that sums the gradients (Patarasuk & Yuan 2009, "Bandwidth optimal all-reduce
algorithms for clusters of workstations"), the second the small sums of a step: loss and targets, which parameters were
used, whether to stop, and the barrier they make. What of the ring overlaps with the backward pass is told as a range:
from nothing to all that the backward pass, two thirds of the computation, lasts. Latency and bandwidth between the two
processes are measured; those of other links are assumed, as printed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import time
from itertools import islice, pairwise
from typing import Any, NamedTuple

import measure

RECIPES = ("sentiment", "ner", "lm", "translation", "tree-sentiment")
WORKERS = (2, 4, 8, 64)
PHASES = ("whole", "half", "halves", "two")
"""What is measured: one process with whole batches and with halves; both with halves, each alone; both together."""
SMALL_SUMS = 4
BACKWARD = 2 / 3


class Link(NamedTuple):
    """What joins two workers."""

    name: str
    latency: float
    """Seconds before the first byte of a message arrives."""
    bandwidth: float
    """Bytes a second."""


LINKS = (
    Link("1 Gbit/s Ethernet", 50e-6, 0.118e9),
    Link("10 Gbit/s Ethernet", 25e-6, 1.18e9),
    Link("100 Gbit/s InfiniBand", 5e-6, 11.8e9),
    Link("NVLink", 3e-6, 300e9),
)


class Cost(NamedTuple):
    """What a step of a recipe costs one worker."""

    fixed: float
    """Seconds that do not depend on the number of tokens: the optimizer, Python, the launch of kernels."""
    token: float
    """Seconds a token."""
    tokens: float
    """Of a step, on all workers together."""
    size: int
    """Bytes of the gradient."""


def ring(workers: int, size: float, link: Link) -> float:
    """Seconds in which a ring of workers sums `size` bytes: each passes on 1/N of them 2 (N - 1) times."""
    return 2 * (workers - 1) * (link.latency + size / workers / link.bandwidth)


def step(cost: Cost, workers: int, link: Link, *, weak: bool = False) -> tuple[float, float]:
    """Seconds of a step with the most overlap and with none; `weak`: each worker has a whole batch, not a share."""
    compute = cost.fixed + cost.token * cost.tokens / (1 if weak else workers)
    if workers == 1:
        return compute, compute
    small = SMALL_SUMS * 2 * math.ceil(math.log2(workers)) * link.latency
    exchange = ring(workers, cost.size, link)
    return compute + small + max(0.0, exchange - BACKWARD * compute), compute + small + exchange


# What each of the two processes runs.


class Share:
    """A task of which this process has every `world`-th example, and nobody has the others."""

    def __init__(self, task: Any, rank: int, world: int) -> None:
        self.task, self.rank, self.world = task, rank, world

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def batches(self, encoded: Any, *, tokens: int, shuffle: Any = None, rank: int = 0, world: int = 1) -> Any:
        return self.task.batches(encoded, tokens=tokens, shuffle=shuffle, rank=self.rank, world=self.world)


def seconds(task: Any, chosen: Any, encoded: Any, group: Any, steps: int) -> tuple[float, float, int]:
    """Seconds and tokens of a step of training, the mean over `steps` after some others; and bytes of the gradient."""
    import torch

    from seqtext.training.distributed import Devices
    from seqtext.training.loop import Stepped, fit

    torch.manual_seed(1)
    module = task.build(chosen.model)
    train = chosen.train.model_copy(update={"epochs": 10_000})
    devices = Devices(torch.device("cpu"), precision=train.precision, group=group)
    events = fit(task, module, encoded, None, train, devices=devices, seed=1)
    stepped = ((event.epoch, event.tokens) for event in events if isinstance(event, Stepped))
    found = [*islice(stepped, 3)]
    began = time.perf_counter()
    found += islice(stepped, steps)
    taken = time.perf_counter() - began
    events.close()
    # An event counts the tokens of its epoch so far.
    tokens = [b - (a if epoch == before else 0) for (before, a), (epoch, b) in pairwise(found)][-steps:]
    size = sum(4 * parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return taken / steps, sum(tokens) / steps, size


def link_here(group: Any) -> tuple[float, float]:
    """Latency and bandwidth between two processes, from sums of little and of much."""
    import torch

    def lasting(numbers: int, times: int) -> float:
        value, found = torch.ones(numbers), []
        for _ in range(times):
            began = time.perf_counter()
            group.sum(value)
            found.append(time.perf_counter() - began)
        return statistics.median(found)

    # Two messages of half the bytes each: ring(2, size).
    small, large = lasting(1, 200), lasting(1 << 22, 10)
    return small / 2, (1 << 24) / (large - small)


def work(recipes: list[str], steps: int, repeats: int) -> dict[str, Any]:
    """All that is measured, of the first process."""
    import torch

    from seqtext import recipe, session
    from seqtext.training.processes import ALONE, join

    torch.set_num_threads(1)
    group = join("cpu")
    found: dict[str, Any] = {"link": link_here(group), "recipes": {}}
    for name in recipes:
        chosen = recipe.load(name)
        with group.together():
            train = session.read_splits(chosen)["train"]
            task = chosen.task.fit(chosen.data, train)
            encoded = task.encode(train)
        half = Share(task, group.rank, 2)
        rows: dict[str, list[Any]] = {phase: [] for phase in PHASES}
        for _ in range(repeats):
            for what, other in (("whole", task), ("half", half)):
                with group.together():
                    if group.first:
                        rows[what].append(seconds(other, chosen, encoded, ALONE, steps))
            group.wait()
            rows["halves"].append(seconds(half, chosen, encoded, ALONE, steps))
            group.wait()
            rows["two"].append(seconds(task, chosen, encoded, group, steps))
        found["recipes"][name] = rows
    return found


# The parent.


def two_processes(words: list[str]) -> Any:
    """What the first of two processes of this script measures."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    environment |= {"LOCAL_WORLD_SIZE": "2", "OMP_NUM_THREADS": "1", "TORCH_CPP_LOG_LEVEL": "ERROR"}
    running = [
        subprocess.Popen(
            [sys.executable, __file__, *words, "--worker"],
            env=environment | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        sys.exit("scaling.py: a process has failed")
    return json.loads(outputs[0])


def report(found: dict[str, Any], faster: float) -> dict[str, Any]:
    """Print the tables; the numbers behind them are returned."""
    here = Link("here", *found["link"])
    print(f"between the two processes: {here.latency * 1e6:.0f} us, {here.bandwidth / 1e9:.2f} GB/s")
    print("\none step, ms (the quickest of the repeats)")
    heads = ("recipe", "tokens", "gradient KB", "us/token", "fixed", *PHASES, "exchange", "two/model")
    print(("{:<15}" + "{:>12}" * (len(heads) - 1)).format(*heads))
    costs, numbers = {}, {}
    for name, rows in found["recipes"].items():
        whole, half, halves, two = (min(row[0] for row in rows[phase]) for phase in PHASES)
        tokens, size = rows["whole"][0][1:]
        share = rows["half"][0][1]
        each = min(max(0.0, (whole - half) / (tokens - share)), whole / tokens)
        cost = costs[name] = Cost(whole - each * tokens, each, tokens, size)
        # The model adds the exchange to what both compute at once, which is slower than one alone where cores share
        # a memory. Neighbours in time are compared, for another load of the machine to change both.
        exchange = step(cost._replace(fixed=0.0, token=0.0), 2, here)[1]
        ratios = [two[0] / (apart[0] + exchange) for apart, two in zip(rows["halves"], rows["two"])]
        milliseconds = (1e3 * value for value in (cost.fixed, whole, half, halves, two, exchange))
        values = (tokens, size / 1e3, each * 1e6, *milliseconds, statistics.median(ratios))
        spread = f"  ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"{name:<15}" + "".join(f"{value:>12,.1f}" for value in values[:-1]) + f"{values[-1]:>12.2f}" + spread)
        numbers[name] = dict(zip(heads[1:], values))
    print(f"\npredicted speed-up over one worker, no overlap - full overlap; computing {faster:g} times as fast")
    for weak in (False, True):
        print("\nthe same batch, shared" if not weak else "\na batch as large for each worker")
        for link in LINKS:
            print(f"{link.name}: {link.latency * 1e6:g} us, {link.bandwidth / 1e9:g} GB/s")
            print(f"  {'':<15}" + "".join(f"{f'N = {count}':>16}" for count in WORKERS))
            for name, cost in costs.items():
                scaled = cost._replace(fixed=cost.fixed / faster, token=cost.token / faster)
                alone = step(scaled, 1, link)[0]
                cells = []
                for count in WORKERS:
                    best, worst = step(scaled, count, link, weak=weak)
                    gain = (count if weak else 1) * alone
                    cells.append(f"{gain / worst:.2f} - {gain / best:.2f}")
                print(f"  {name:<15}" + "".join(f"{cell:>16}" for cell in cells))
    return {"link": here._asdict(), "recipes": numbers}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="by default the recipe of each task")
    parser.add_argument("--steps", type=measure.count, default=20, help="of each measurement (default 20)")
    parser.add_argument("--repeats", type=measure.count, default=3, help="of all measurements (default 3)")
    parser.add_argument(
        "--faster", type=measure.share, default=1.0, help="suppose workers that compute so many times faster"
    )
    parser.add_argument("--json", metavar="FILE", type=measure.new_file, help="also write the figures to this file")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    recipes = arguments.recipes or list(RECIPES)
    if arguments.worker:
        found = work(recipes, arguments.steps, arguments.repeats)
        if os.environ["RANK"] == "0":
            print(json.dumps(found))
        return
    from seqtext import recipe
    from seqtext.errors import InputError

    for name in recipes:
        try:
            recipe.load(name)
        except InputError as error:
            parser.error(str(error))
    os.environ["OMP_NUM_THREADS"] = "1"
    settings = measure.begin({"recipes": ", ".join(recipes), "steps": arguments.steps, "repeats": arguments.repeats})
    found = two_processes([*recipes, "--steps", str(arguments.steps), "--repeats", str(arguments.repeats)])
    figures = report(found, arguments.faster)
    if arguments.json:
        measure.write_json(arguments.json, {"settings": settings, **figures})


if __name__ == "__main__":
    main()
