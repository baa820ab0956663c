"""Speed of recursive nets: trees per second of training and inference, whole forests against one node at a time.

    python scripts/bench_trees.py [--data DIR] [--recipe tree-sst] [--cell lstm] [--set KEY=VALUE] [--repeats 5]
        [--batches 1 25 256] [--seconds 1] [--threads N] [--json FILE] [--peak]

A step of training is all from arrays in memory to new weights: cutting the batch and its schedule, forward, loss,
backward, the recipe's optimizer. Inference is the same up to the probabilities of all nodes. The recipe's parser is
left out, and leaves are made of word vectors, unless --set says otherwise. The node-by-node reference has the same
weights, sums the same loss (which is checked), and takes the same optimizer; its trees are nested lists beforehand.
Every repeat measures each thing once, in one process, for a second or more (--seconds); a figure is the median over
repeats, with the smallest and largest. Ratios say more than rates; those to the reference are to its rate with batches
of 25, whatever size ours have. It has no leaves that have read the sentence; with such, there are our figures alone.

Batches hold trees of like length, as in training. FLOP/s count the products with weights that leaves and nodes need
(not those of a recurrence that reads the sentence first).
On two cores, published code for a binary Tree-LSTM of 150 on SST, batches of 25, reached 100 trees/s in training and
556 in inference node by node, and 342 and 794 batched (DGL).

Without --data the trees are synthetic: random binary ones over as many words as SST's sentences have.
"""

from __future__ import annotations

import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import measure
import numpy as np
from bench_translation import coined
from measure import Figures

from seqtext.errors import InputError

SIZES = {"train": 4000, "valid": 100, "test": 100}
LENGTHS = (2, 6, 8, 10, 12, 14, 16, 18, 20, 21, 23, 25, 27, 30, 34, 52)
"""Words of SST's sentences, at equal shares of them."""
VOCABULARY = 16_000


def main() -> None:
    parser = measure.options(__doc__, recipe="tree-sst", data="a folder with train, valid and test files of trees")
    parser.add_argument("--cell", help="the composition (default: the recipe's)")
    parser.add_argument("--batches", type=measure.count, nargs="+", default=[1, 25, 256], help="trees a batch")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement, at least (default 1)")
    measure.main(run, parser.parse_args())


def run(arguments: Any, scratch: Path) -> tuple[dict[str, Any], Figures]:
    data = Path(arguments.data) if arguments.data else write_trees(scratch / "trees")
    source = f"data.source={json.dumps(str(data.absolute()))}"
    plain = ['model.leaves={name="words"}', 'model.parser={name="none"}', "data.goal=root"]
    changes = [source, *plain, *arguments.set]
    if arguments.cell:
        changes.append(f"model.cell.name={arguments.cell}")
    figures: Figures = defaultdict(list)
    if arguments.peak:  # first: see `peak_memory`
        print("training an epoch for its memory...", file=sys.stderr)
        command = ["seqtext", "train", arguments.recipe, *changes, "train.epochs=1", "--out", str(scratch / "run")]
        figures["peak memory of training, MB"] = [measure.peak_memory(command, cache=scratch / "cache-peak")]

    import torch
    from reference_trees import NodeByNode

    from seqtext import recipe, session
    from seqtext.training.optim import build_optimizer

    name = recipe.load(arguments.recipe).task.name
    if name != "tree-sentiment":
        raise InputError(f"--recipe {arguments.recipe}: this measures recursive nets; its task is {name}")
    chosen = recipe.load(arguments.recipe, changes)
    dataset = session.read_splits(chosen)["train"]
    task: Any = chosen.task.fit(chosen.data, dataset)
    encoded = task.encode(dataset)
    torch.manual_seed(chosen.seed)
    module: Any = task.build(chosen.model)
    slow: Any = NodeByNode(module) if NodeByNode.covers(module) else None
    cell = chosen.model.cell
    settings = measure.begin(
        {
            "recipe": chosen.name,
            "data": str(data) if arguments.data else "synthetic, of SST's lengths",
            "trees": len(encoded),
            "nodes a tree": round(len(encoded.trees.arities) / len(encoded), 1),
            "cell": f"{cell.name} {cell.hidden_size}",
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "repeats": arguments.repeats,
        }
    )
    flops = flops_per_tree(module, encoded.trees)
    sampler = np.random.default_rng(chosen.seed)

    def groups(size: int) -> Iterator[np.ndarray]:
        """Rows of batches of `size` trees of like length, without end."""
        lengths = encoded.text.lengths
        while True:
            order = np.argsort(lengths * (1 + 0.1 * (2 * sampler.random(len(lengths)) - 1)), kind="stable")
            cuts = sampler.permutation(max(1, len(order) // size))
            yield from (order[size * cut : size * (cut + 1)] for cut in cuts)

    optimizer = build_optimizer(list(module.parameters()), chosen.train.optimizer)

    def batch_of(rows: np.ndarray) -> Any:
        return task.batch(encoded, rows)

    def train(rows: np.ndarray) -> float:
        module.train()
        optimizer.zero_grad()
        loss = task.loss(module, batch_of(rows))
        (loss.total / loss.count).backward()
        optimizer.step()
        return float(loss.total.detach())

    def infer(rows: np.ndarray) -> None:
        module.eval()
        with torch.inference_mode():
            batch = batch_of(rows)
            module(module.embed(batch.words), batch.lengths, batch.forest).softmax(-1)

    def train_slowly(rows: np.ndarray) -> float:
        module.train()
        optimizer.zero_grad()
        total, count = slow.loss(task, encoded, rows)
        (total / count).backward()
        optimizer.step()
        return float(total.detach())

    def infer_slowly(rows: np.ndarray) -> None:
        module.eval()
        with torch.inference_mode():
            for logits in slow.logits(encoded, rows):
                logits.softmax(-1)

    if slow is None:
        print("no node-by-node reference for leaves that have read the sentence: ours alone", file=sys.stderr)
    else:
        check(task, module, slow, encoded, next(groups(8)))
    for _ in range(arguments.repeats):
        matrix = measure.matrix_rates()
        figures["float32 matrix products, GFLOP/s"].append(matrix["float32"] / 1e9)
        rates: dict[tuple[str, int], float] = {}
        for size in arguments.batches:
            for name, work, factor in (("training", train, 3), ("inference", infer, 1)):
                rate = measure.rate(lasting(work, groups(size), arguments.seconds))
                rates[name, size] = rate
                label = f"{name}, batches of {size}"
                figures[f"{label}, trees/s"].append(rate)
                figures[f"{label}, FLOP/s / matrix FLOP/s"].append(factor * flops * rate / matrix["float32"])
        if slow is None:
            continue
        for name, work in (("training", train_slowly), ("inference", infer_slowly)):
            rate = measure.rate(lasting(work, groups(25), arguments.seconds))
            figures[f"{name} node by node, batches of 25, trees/s"].append(rate)
            for size in arguments.batches:
                figures[f"{name}, batches of {size} / node by node"].append(rates[name, size] / rate)
    figures["MFLOP a tree, forward"].append(flops / 1e6)
    return settings, figures


def lasting(work: Callable[[np.ndarray], Any], groups: Iterator[np.ndarray], seconds: float) -> Callable[[], int]:
    """Batch after batch for so many seconds, after two to warm up; gives the trees."""
    for rows in itertools.islice(groups, 2):
        work(rows)

    def chunk() -> int:
        trees, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            rows = next(groups)
            work(rows)
            trees += len(rows)
        return trees

    return chunk


def check(task: Any, module: Any, slow: Any, encoded: Any, rows: np.ndarray) -> None:
    """That both sum the same loss, without dropout. Raises `InputError` where not: figures would mean nothing."""
    import torch

    module.eval()
    with torch.no_grad():
        ours = float(task.loss(module, task.batch(encoded, rows)).total)
        theirs = float(slow.loss(task, encoded, rows)[0])
    if abs(ours - theirs) > 1e-4 * max(1.0, abs(theirs)):
        raise InputError(f"the reference has another loss: {theirs} instead of {ours}")


def flops_per_tree(module: Any, trees: Any) -> float:
    """FLOPs of the products with weights of one tree, forward, 2 a weight and row; the mean over `trees`."""
    leaves = int((trees.arities == 0).sum())
    inner, nodes = len(trees.arities) - leaves, len(trees.arities)
    total = nodes * module.output.weight.numel()
    # A matrix is merged column by column, and a child-sum forgets child by child; other maps are used once a node.
    rows = {"word": leaves, "matrix": leaves, "merge": inner * module.cell.hidden_size}
    rows["forget"] = nodes - len(trees.sizes)
    for name, layer in module.cell.named_children():
        total += rows.get(name, inner) * layer.weight.numel()
    return 2 * total / len(trees.sizes)


def write_trees(folder: Path, sizes: Mapping[str, int] = SIZES) -> Path:
    """Write train, valid and test as files of random trees, a tree a line."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    chances = 1.0 / np.arange(1, VOCABULARY + 1)
    chances /= chances.sum()
    coins = coined(np.random.default_rng(2), VOCABULARY)
    for split, size in sizes.items():
        shares = rng.random(size) * (len(LENGTHS) - 1)
        lengths = np.interp(shares, np.arange(len(LENGTHS)), LENGTHS).round().astype(int)
        lines = []
        for length in lengths.tolist():
            words = [coins[word] for word in rng.choice(VOCABULARY, size=length, p=chances).tolist()]
            parts = [(1, f"({label(rng, 1)} {word})") for word in words]
            while len(parts) > 1:  # two neighbours become one node, until one is left
                place = int(rng.integers(len(parts) - 1))
                (left, one), (right, other) = parts[place : place + 2]
                parts[place : place + 2] = [(left + right, f"({label(rng, left + right)} {one} {other})")]
            lines.append(parts[0][1] + "\n")
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    return folder


def label(rng: np.random.Generator, words: int) -> int:
    """One of five; the neutral one mostly for words, and for a fifth of the sentences, as in SST."""
    return 2 if rng.random() < 0.9 * words**-0.5 else (0, 1, 3, 4)[int(rng.integers(4))]


if __name__ == "__main__":
    main()
