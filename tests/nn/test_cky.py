"""CKY against enumeration of all binary trees, with ties, ragged and alone; trees in level order against a queue."""

from __future__ import annotations

import math
from collections import deque

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from seqtext.nn.cky import Bracketing, bracketing, cky
from tests.reference import cky as reference

RAGGED = [[7, 1, 4, 2, 6], [1], [6], [2, 2], [3, 0, 5], [0]]


def random_scores(lengths: list[int], seed: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Scores with NaN wherever there is no span of two words or more; lengths."""
    generator = torch.Generator().manual_seed(seed)
    size, time = torch.tensor(lengths), max(lengths)
    scores = torch.randn(len(lengths), time, time + 1, generator=generator, dtype=dtype)
    starts, ends = torch.arange(time)[:, None], torch.arange(time + 1)
    return scores.masked_fill((ends - starts < 2) | (ends > size[:, None, None]), math.nan), size


def spans_of(trees: Bracketing) -> list[set[tuple[int, int]]]:
    """The spans of two words or more of each tree."""
    found: list[set[tuple[int, int]]] = [set() for _ in trees.sizes]
    columns = (column.tolist() for column in (trees.rows, trees.starts, trees.ends))
    for row, start, end in zip(*columns, strict=True):
        if end - start > 1:
            found[row].add((start, end))
    return found


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_the_best_tree_is_that_of_the_enumeration(lengths: list[int], seed: int) -> None:
    scores, size = random_scores(lengths, seed)
    best, splits = cky(scores, size)
    found = spans_of(bracketing(splits, size))
    for row, n in enumerate(lengths):
        table = scores[row].tolist()
        wanted = max(reference.trees(0, n), key=lambda tree: reference.score(tree, table))
        assert found[row] == wanted
        assert best[row].item() == pytest.approx(reference.score(wanted, table), rel=1e-12, abs=1e-12)


@given(st.integers(2, 6), st.data())
def test_of_equal_trees_the_one_with_the_shortest_left_parts(n: int, data: st.DataObject) -> None:
    cells = st.lists(st.integers(-1, 1), min_size=n + 1, max_size=n + 1)
    table = data.draw(st.lists(cells, min_size=n, max_size=n))
    best, splits = cky(torch.tensor([table], dtype=torch.float32), torch.tensor([n]))
    # They are enumerated in this order, and `max` takes the first of equals.
    wanted = max(reference.trees(0, n), key=lambda tree: reference.score(tree, table))
    assert spans_of(bracketing(splits, torch.tensor([n]))) == [wanted]
    assert best.item() == reference.score(wanted, table)


def test_a_sentence_alone_and_without_padding_gives_the_same() -> None:
    lengths = [30, 1, 17, 2, 44]
    scores, size = random_scores(lengths, 5, torch.float32)
    best, splits = cky(scores, size)
    together = bracketing(splits, size)
    parts = [column.split(together.sizes.tolist()) for column in together[:4]]
    for row, n in enumerate(lengths):
        only, split = cky(scores[row : row + 1, :n, : n + 1], size[row : row + 1])
        assert only.item() == best[row].item()
        alone = bracketing(split, size[row : row + 1])
        assert alone.sizes.tolist() == [together.sizes[row]] == [2 * n - 1]
        for batched, single in zip(parts, alone[:4], strict=True):
            assert batched[row].tolist() == single.tolist()


def test_scores_of_half_precision_are_summed_in_full() -> None:
    scores, size = random_scores([40, 40], 6, torch.float32)
    half = scores.bfloat16()
    best, splits = cky(half, size)
    wide, same = cky(half.float(), size)
    assert best.dtype == torch.float32 and best.equal(wide) and splits.equal(same)


def test_no_tree_has_a_forbidden_span_and_without_one_the_best_is_minus_infinity() -> None:
    scores = torch.zeros(2, 3, 4)
    scores[:, 0, 2] = -math.inf
    scores[1, 1, 3] = -math.inf
    best, splits = cky(scores, torch.tensor([3, 3]))
    assert best.tolist() == [0.0, -math.inf]
    assert spans_of(bracketing(splits, torch.tensor([3, 3])))[0] == {(0, 3), (1, 3)}


def level_order(splits: Tensor, n: int) -> list[tuple[int, int, int, int]]:
    """Arity, start, end and depth of each node, by a queue of one node at a time."""
    queue, nodes = deque([(0, n, 0)] if n else []), []
    while queue:
        start, end, depth = queue.popleft()
        nodes.append((2 * (end - start > 1), start, end, depth))
        if end - start > 1:
            middle = int(splits[start, end])
            queue += [(start, middle, depth + 1), (middle, end, depth + 1)]
    return nodes


@pytest.mark.parametrize("seed", range(4))
def test_nodes_stand_in_level_order(seed: int) -> None:
    lengths = [9, 1, 0, 23, 2]
    generator = torch.Generator().manual_seed(seed)
    starts, ends = torch.arange(23)[:, None], torch.arange(24)
    gaps = (ends - starts - 1).clamp(min=1)
    splits = starts + 1 + torch.randint(1 << 30, (5, 23, 24), generator=generator) % gaps
    trees = bracketing(splits, torch.tensor(lengths))
    nodes = list(zip(*(column.tolist() for column in trees[:4]), strict=True))
    expected = [level_order(splits[row], n) for row, n in enumerate(lengths)]
    assert nodes == [node for tree in expected for node in tree]
    assert trees.sizes.tolist() == [len(tree) for tree in expected]
    assert trees.rows.tolist() == [row for row, tree in enumerate(expected) for _ in tree]


def test_a_long_chain() -> None:
    n = 1000
    splits = (torch.arange(n)[:, None] + 1).expand(1, n, n + 1)  # a first word and the rest, over and over
    trees = bracketing(splits, torch.tensor([n]))
    assert trees.depths[-1] == n - 1
    assert trees.starts[::2].tolist() == list(range(n)) and trees.ends[::2].eq(n).all()


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"scores: shape \(2, 4, 4\), expected \(batch, time, time \+ 1\)"):
        cky(torch.zeros(2, 4, 4), torch.tensor([4, 4]))
    with pytest.raises(ValueError, match=r"lengths: shape \(3,\), expected \(2,\)"):
        cky(torch.zeros(2, 4, 5), torch.tensor([4, 4, 1]))
