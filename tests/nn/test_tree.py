"""Forests of every cell against one node at a time, in value and gradient; and what a schedule promises."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from seqtext.data.forest import Trees, chosen, completed, planted, schedule
from seqtext.nn import graphs
from seqtext.nn.shared import Shared
from seqtext.nn.tree import Forest, Parents, grow
from seqtext.nn.tree_cells import TREE_CELLS, build_tree_cell
from seqtext.nn.tree_classifier import TreeClassifierConfig
from tests.reference import trees as reference
from tests.reference.stand_in import Elsewhere, moved, stand_in

Node = Any


class Word:
    """A leaf; each an object of its own, so that nodes can be told apart."""

    def __init__(self, place: int) -> None:
        self.place = place


def random_tree(rng: random.Random, words: int, *, most: int) -> Node:
    """A random tree over words 0 to `words` - 1 whose nodes have two to `most` children."""

    def grown(first: int, last: int) -> Node:
        if last - first == 1:
            return Word(first)
        cuts = sorted(rng.sample(range(first + 1, last), min(rng.randint(1, most - 1), last - first - 1)))
        return [grown(a, b) for a, b in zip([first, *cuts], [*cuts, last])]

    return grown(0, words)


def chain(words: int, *, left: bool) -> Node:
    tree: Node = Word(0 if left else words - 1)
    for step in range(1, words):
        tree = [tree, Word(step)] if left else [Word(words - 1 - step), tree]
    return tree


def level_order(tree: Node) -> list[tuple[Node, int]]:
    """The nodes of a tree with their depths."""
    nodes, level, depth = [], [tree], 0
    while level:
        nodes += [(node, depth) for node in level]
        level = [child for node in level if not isinstance(node, Word) for child in node]
        depth += 1
    return nodes


def as_arrays(forest: list[Node]) -> Trees:
    nodes = [level_order(tree) for tree in forest]
    sizes = np.array([len(each) for each in nodes])
    flat = [pair for each in nodes for pair in each]
    arities = [0 if isinstance(node, Word) else len(node) for node, _ in flat]
    words = [node.place if isinstance(node, Word) else 0 for node, _ in flat]
    columns = [np.array(column, np.int32) for column in (arities, [depth for _, depth in flat], words, words)]
    return planted(columns, sizes)


def as_forest(trees: Trees, time: int) -> tuple[Forest, np.ndarray]:
    found = schedule(trees, np.arange(len(trees.sizes)), time=time)
    columns = (found.leaves, found.weave, found.unweave, found.owners, found.trees)
    return Forest(*(torch.from_numpy(column) for column in columns), found.levels), found.nodes


FORESTS = {
    "random": [random_tree(random.Random(seed), 1 + seed % 9, most=2) for seed in range(12)],
    "one leaf": [Word(0)],
    "leaves": [Word(0), Word(0), [Word(0), Word(1)]],
    "chains": [chain(200, left=True), chain(200, left=False), Word(0), chain(3, left=True)],
}
WIDE = {
    "mixed": [random_tree(random.Random(seed), 1 + seed % 11, most=2 + seed % 4) for seed in range(12)],
    "flat": [[Word(place) for place in range(9)], [Word(0), [Word(1), Word(2), Word(3)]]],
    "unary": [[[Word(0)]], [[Word(0), Word(1)], [Word(2)]]],
}
CASES = [(name, forest) for name in TREE_CELLS for forest in FORESTS]
CASES += [(name, forest) for name, cell in TREE_CELLS.items() if not cell.binary for forest in WIDE]


@pytest.mark.parametrize(("name", "forest"), CASES)
def test_a_forest_is_what_its_nodes_are_one_at_a_time(name: str, forest: str) -> None:
    trees = (FORESTS | WIDE)[forest]
    torch.manual_seed(1)
    config: Any = TreeClassifierConfig.model_validate({"cell": {"name": name, "hidden_size": 5}}).cell
    cell = build_tree_cell(4, config).double()
    for parameter in cell.parameters():  # none at zero, where a mistake would not show
        parameter.data += 0.1 * torch.randn_like(parameter)
    arrays = as_arrays(trees)
    time = 200
    x = torch.randn(len(trees), time, 4, dtype=torch.double, requires_grad=True)
    weights = torch.randn(int(arrays.sizes.sum()), cell.output_size, dtype=torch.double)

    found_forest, nodes = as_forest(arrays, time)
    outputs = cell(x.flatten(0, 1).index_select(0, found_forest.leaves), found_forest)
    found = torch.empty_like(outputs)
    found[torch.from_numpy(nodes)] = outputs
    (found * weights).sum().backward()
    gradients = [x.grad, *(parameter.grad for parameter in cell.parameters())]
    x.grad = None
    cell.zero_grad()

    expected = []
    for row, tree in enumerate(trees):
        states = {id(node): state for node, state in one_by_one(cell, name, x[row], tree)}
        expected += [states[id(node)][: cell.output_size] for node, _ in level_order(tree)]
    expected_outputs = torch.stack(expected)
    torch.testing.assert_close(found, expected_outputs, rtol=1e-9, atol=1e-9)
    (expected_outputs * weights).sum().backward()
    for gradient, parameter in zip(gradients, [x, *cell.parameters()]):
        # A composition that a forest of leaves never uses has no gradient there.
        pair = [torch.zeros_like(parameter) if one is None else one for one in (gradient, parameter.grad)]
        torch.testing.assert_close(*pair, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", TREE_CELLS)
@pytest.mark.parametrize("weight_dropout", [0.0, 0.5])
def test_recorded_levels_are_those_of_the_forests(
    monkeypatch: pytest.MonkeyPatch, name: str, weight_dropout: float
) -> None:
    """Forests of several shapes by turns, which fill the same recordings up, the weights others each time."""
    monkeypatch.setattr(graphs, "WANTED", True)
    torch.manual_seed(1)
    cell_config = {"name": name, "hidden_size": 5, "weight_dropout": weight_dropout}
    config: Any = TreeClassifierConfig.model_validate({"cell": cell_config}).cell
    cell = build_tree_cell(4, config).double()
    forests = [FORESTS["random"], FORESTS["random"][:5], FORESTS["leaves"], FORESTS["one leaf"]]
    forests += [] if cell.binary else [WIDE["mixed"], WIDE["unary"]]
    with stand_in() as seen:
        there = moved(cell)
        for turn in range(3 * len(forests)):
            trees = forests[turn % len(forests)]
            forest, _ = as_forest(as_arrays(trees), 12)
            x = torch.randn(len(forest.leaves), 4, dtype=torch.double)
            found = []
            for one, to in ((cell, Tensor.clone), (there, Elsewhere)):
                over = to(x).requires_grad_()
                torch.manual_seed(turn)
                states = one(over, Forest(*map(to, forest[:-1]), forest.levels))
                gradients = torch.autograd.grad(
                    states.square().sum(), [over, *one.parameters()], materialize_grads=True
                )
                found.append([each.cpu() for each in (states, *gradients)])
                for weight in one.parameters():
                    weight.data.mul_(1.01)
            torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)
        assert seen.replays > len(forests)


def one_by_one(cell: Any, name: str, x: Tensor, tree: Node) -> list[tuple[Node, Tensor]]:
    return reference.states(cell, name, x, tree)


@pytest.mark.parametrize("name", TREE_CELLS)
def test_a_tree_is_what_it_is_alone(name: str) -> None:
    trees = as_arrays(FORESTS["random"])
    config: Any = TreeClassifierConfig.model_validate({"cell": {"name": name, "hidden_size": 5}}).cell
    cell = build_tree_cell(4, config).eval()
    x = torch.randn(len(trees.sizes), 9, 4)
    with torch.inference_mode():
        forest, nodes = as_forest(trees, 9)
        together = torch.empty(len(nodes), 5)
        together[torch.from_numpy(nodes)] = cell(x.flatten(0, 1)[forest.leaves], forest)
        for row, (start, size) in enumerate(zip(trees.starts, trees.sizes)):
            forest, nodes = as_forest(chosen(trees, np.array([row])), 9)
            alone = torch.empty(len(nodes), 5)
            alone[torch.from_numpy(nodes)] = cell(x[row][forest.leaves], forest)
            torch.testing.assert_close(alone, together[start : start + size])


def test_steps_grow_with_the_height_and_not_with_the_nodes() -> None:
    counts = []
    for copies in (1, 50):
        forest, _ = as_forest(as_arrays(FORESTS["random"] * copies), 9)
        steps: list[int] = []

        def compose(children: Tensor, parents: Parents, steps: list[int] = steps) -> Tensor:
            steps.append(parents.number)
            return children.view(parents.number, 2, -1).sum(1)

        sums = grow(torch.ones(len(forest.leaves), 1), forest, compose)
        assert (
            sums[-len(FORESTS["random"]) * copies :].flatten().tolist() == [1 + seed % 9 for seed in range(12)] * copies
        )
        counts.append(len(steps))
    assert counts[0] == counts[1] == len(forest.levels) - 1


def test_a_sentence_without_a_tree_takes_that_of_the_parser() -> None:
    given = as_arrays([[Word(0), Word(1)], Word(0), [Word(0), [Word(1), Word(2)]]])
    holes = planted([part[[0, 1, 2]] for part in given[:4]], np.array([3, 0, 0]))
    whole = completed(holes, given)
    assert whole.sizes.tolist() == [3, 1, 5]
    assert whole.arities.tolist() == given.arities.tolist()
    assert whole.words.tolist() == given.words.tolist()


def test_the_weights_of_a_composition_may_be_masked_and_used_by_two_passes() -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(3, 2, requires_grad=True), torch.randn(3, requires_grad=True)
    x = [torch.randn(n, 2) for n in (4, 1, 5)]
    mask = torch.tensor([1.0, 0.0])
    total = torch.zeros(())
    for _ in range(2):
        shared = Shared(weight * mask, bias)
        total = total + sum(shared(part).square().sum() for part in x)
    total.backward()
    found = weight.grad, bias.grad
    weight.grad = bias.grad = None
    plain = sum((part @ (weight * mask).t() + bias).square().sum() for part in x)
    (2 * plain).backward()
    torch.testing.assert_close(found, (weight.grad, bias.grad))
