"""The span parser against its equations one span at a time, and its loss against enumeration of all trees."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from seqtext.nn.cky import bracketing
from seqtext.nn.span_parser import SpanParser, SpanParserConfig, Spans, crossing
from tests.reference import cky as reference

LENGTHS = [6, 1, 3, 2, 7, 5]


def make(seed: int = 0, *, margin: float = 1.0, **options: Any) -> tuple[SpanParser, Tensor, Tensor]:
    """A parser in float64 whose scores differ by about as much as the margin, words, lengths."""
    torch.manual_seed(seed)
    config = SpanParserConfig(hidden_size=5, span_size=7, state_dropout=0.0, margin=margin, **options)
    parser = SpanParser(4, config).double().eval()
    for parameter in parser.parameters():  # large weights, so that trees of all shapes are the best of some sentence
        nn.init.normal_(parameter)
    return parser, torch.randn(len(LENGTHS), max(LENGTHS), 4, dtype=torch.float64), torch.tensor(LENGTHS)


def spans(trees: list[list[tuple[int, int]]]) -> Spans:
    found = [(row, *span) for row, tree in enumerate(trees) for span in tree]
    return Spans(*torch.tensor(found, dtype=torch.int64).view(-1, 3).T)


def drawn(length: int, share: float, generator: random.Random) -> list[tuple[int, int]]:
    """Some spans of a random tree, in any order; now and then twice, and with single words among them."""
    tree = generator.choice(reference.trees(0, length))
    chosen = [span for span in sorted(tree) if generator.random() < share]
    generator.shuffle(chosen)
    return chosen + chosen[:1] + [(0, 1)]


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_scores_are_those_of_the_equation(cell: str) -> None:
    parser, x, lengths = make(cell=cell, layers=2)
    scores = parser(x, lengths)
    with torch.no_grad():
        quick = parser(x, lengths)
    torch.testing.assert_close(quick, scores)
    for row, n in enumerate(LENGTHS):
        sentence = torch.cat([parser.edges[:1], x[row, :n], parser.edges[1:]])  # <s> words </s>
        states = parser.encoder(sentence[None], None)[0][0]
        forward, backward = states[:, :5], states[:, 5:]
        for start in range(n):
            for end in range(start + 2, n + 1):
                # Before `start` has been read what stands up to position `start`, <s> being position 0.
                ahead = forward[end] - forward[start]
                back = backward[end + 1] - backward[start + 1]
                hidden = (parser.project.weight @ torch.cat([ahead, back]) + parser.bias).relu()
                wanted = parser.score.weight[0] @ hidden
                assert scores[row, start, end].item() == pytest.approx(wanted.item(), abs=1e-9)


def test_a_sentence_alone_and_without_padding_gives_the_same() -> None:
    parser, x, lengths = make()
    gold = [drawn(n, 0.7, random.Random(n)) for n in LENGTHS]
    scores, splits = parser(x, lengths), parser.parse(x, lengths)
    total, count = parser.loss(x, lengths, spans(gold))
    losses = []
    for row, n in enumerate(LENGTHS):
        one, length = x[row : row + 1, :n], lengths[row : row + 1]
        torch.testing.assert_close(parser(one, length)[0], scores[row, :n, : n + 1])
        assert parser.parse(one, length)[0].equal(splits[row, :n, : n + 1])
        losses.append(parser.loss(one, length, spans([gold[row]]))[0])
    torch.testing.assert_close(total, torch.stack(losses).sum())
    assert count.item() == sum(LENGTHS)


@pytest.mark.parametrize("share", [1.0, 0.5, 0.2, 0.0], ids=["binary", "wide", "wider", "none"])
@pytest.mark.parametrize("seed", range(8))
def test_the_loss_equals_that_of_the_enumeration(seed: int, share: float) -> None:
    parser, x, lengths = make(seed)
    generator = random.Random(seed)
    gold = [drawn(n, share, generator) for n in LENGTHS]
    tables = parser(x, lengths).tolist()
    expected = [
        reference.hinge(table, tree, n, margin=1.0) for table, tree, n in zip(tables, gold, LENGTHS, strict=True)
    ]
    assert parser.loss(x, lengths, spans(gold))[0].item() == pytest.approx(sum(expected), abs=1e-9)
    wrong = crossing(spans(gold), lengths, max(LENGTHS))
    for row, n in enumerate(LENGTHS):
        for start in range(n):
            for end in range(start + 1, n + 1):
                assert wrong[row, start, end] == any(reference.crosses((start, end), other) for other in gold[row])


def test_the_loss_is_zero_exactly_while_the_gold_tree_wins_by_the_margin() -> None:
    parser, x, lengths = make(3)
    row = LENGTHS.index(7)
    one, length = x[row : row + 1], lengths[row : row + 1]
    table = parser(one, length)[0].tolist()
    ranked = sorted(reference.trees(0, 7), key=lambda tree: -reference.score(tree, table))
    gold = sorted(ranked[0])
    # What it wins by, for each span that another tree has and it has not.
    lead = min(
        (reference.score(ranked[0], table) - reference.score(tree, table)) / len(tree - ranked[0])
        for tree in ranked[1:]
    )
    for factor in (0.5, 0.999, 1.001, 2.0):
        parser.margin = lead * factor
        parser.zero_grad()
        total, _ = parser.loss(one, length, spans([gold]))
        total.backward()
        if factor < 1.0:
            assert total.item() == 0.0 and parser.score.weight.grad.eq(0.0).all()
        else:
            assert total.item() > 0.0 and parser.score.weight.grad.ne(0.0).any()


@pytest.mark.parametrize("share", [1.0, 0.5], ids=["binary", "wide"])
def test_gradients_of_the_loss(share: float) -> None:
    parser, x, lengths = make(1)
    generator = random.Random(1)
    gold = spans([drawn(n, share, generator) for n in LENGTHS])
    names = [name for name, _ in parser.named_parameters()]

    def loss(x: Tensor, *weights: Tensor) -> Tensor:
        parameters = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(parser, parameters, (x, lengths, gold))

    parser.forward = parser.loss  # type: ignore[method-assign,assignment]
    inputs = [x, *(parameter.detach().clone() for parameter in parser.parameters())]
    first = lambda *inputs: loss(*inputs)[0]  # noqa: E731
    assert loss(*inputs)[0] > 1.0
    assert torch.autograd.gradcheck(first, [tensor.requires_grad_() for tensor in inputs], fast_mode=True)


def test_gold_spans_that_cross_are_told() -> None:
    parser, x, lengths = make()
    gold = spans([[(0, 2), (2, 4)], [], [(0, 2), (1, 3)]])
    with pytest.raises(ValueError, match="gold: spans of sentence 2 cross each other"):
        parser.loss(x, lengths, gold)


def test_scores_that_are_no_numbers_make_no_perfect_loss() -> None:
    parser, x, lengths = make()
    x[0, 2, 1] = torch.nan
    assert parser.loss(x, lengths, spans([[(0, 2), (0, 3)]]))[0].isnan()


class Largest(TorchDispatchMode):
    """Notes the numbers in the largest tensor that any operation gives."""

    numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor) and tensor.dtype != torch.uint8:  # which a kernel's own workspace is
                self.numbers = max(self.numbers, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_hidden_layers_of_all_spans_never_exist_at_once_nor_are_they_kept() -> None:
    time, size = 120, 64
    parser = SpanParser(8, SpanParserConfig(hidden_size=8, span_size=size))
    x, lengths = torch.randn(1, time, 8), torch.tensor([time])
    gold = Spans(*torch.tensor([(0, start, time) for start in range(time - 1)]).T)
    kept = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel() if tensor.dtype == torch.float32 else 0)
        return tensor

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        parser.parse(x, lengths)
        parser.loss(x, lengths, gold)[0].backward()
    hidden = (time - 1) * time // 2 * size
    assert largest.numbers <= 2 * (time + 1) ** 2 < hidden / 10
    assert sum(kept) < hidden / 4


def expression(generator: random.Random, depth: int) -> list[Any]:
    """A sum of products of numbers and sums in brackets, as nested pairs: what binds tighter stands deeper."""

    def atom(depth: int) -> Any:
        if depth and generator.random() < 0.4:
            return ["(", [expression(generator, depth - 1), ")"]]
        return generator.choice("xyz")

    def chain(parts: list[Any], operator: str) -> Any:
        tree = parts[-1]
        for part in reversed(parts[:-1]):
            tree = [part, [operator, tree]]
        return tree

    products = [
        chain([atom(depth) for _ in range(generator.randint(1, 2))], "*") for _ in range(generator.randint(1, 3))
    ]
    return chain(products, "+")


def flatten(tree: Any, words: list[str], found: list[tuple[int, int]]) -> None:
    """Append the words of nested pairs, and the spans of the pairs."""
    if isinstance(tree, str):
        words.append(tree)
        return
    start = len(words)
    for part in tree:
        flatten(part, words, found)
    found.append((start, len(words)))


def test_learns_which_operator_binds_tighter() -> None:
    generator, vocabulary = random.Random(0), "()+*xyz"
    sentences: dict[str, list[tuple[int, int]]] = {}
    while len(sentences) < 700:
        words: list[str] = []
        found: list[tuple[int, int]] = []
        flatten(expression(generator, 2), words, found)
        if 5 <= len(words) <= 25:
            sentences["".join(words)] = found
    held_out, examples = list(sentences.items())[:100], list(sentences.items())[100:]
    torch.manual_seed(0)
    parser = SpanParser(len(vocabulary), SpanParserConfig(hidden_size=16, span_size=32, state_dropout=0.0))
    optimizer = torch.optim.Adam(parser.parameters(), lr=0.01)

    def batch(part: list[tuple[str, list[tuple[int, int]]]]) -> tuple[Tensor, Tensor, Spans]:
        lengths = torch.tensor([len(text) for text, _ in part])
        ids = [torch.tensor([vocabulary.index(word) for word in text]) for text, _ in part]
        x = nn.functional.one_hot(nn.utils.rnn.pad_sequence(ids, batch_first=True), len(vocabulary)).float()
        return x, lengths, spans([tree for _, tree in part])

    for _ in range(6):
        generator.shuffle(examples)
        for first in range(0, len(examples), 20):
            total, count = parser.loss(*batch(examples[first : first + 20]))
            optimizer.zero_grad()
            (total / count).backward()
            optimizer.step()
    x, lengths, _ = batch(held_out)
    trees = bracketing(parser.eval().parse(x, lengths), lengths)
    right = wanted = 0
    for row, (text, gold) in enumerate(held_out):
        mine = (trees.rows == row) & (trees.arities > 0)
        both = set(zip(trees.starts[mine].tolist(), trees.ends[mine].tolist(), strict=True)) & set(gold)
        right, wanted = right + len(both - {(0, len(text))}), wanted + len(text) - 2
    assert right / wanted >= 0.95


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same() -> None:
    parser, x, lengths = make()
    gold = spans([drawn(n, 0.7, random.Random(n)) for n in LENGTHS])
    splits, (total, count) = parser.parse(x, lengths), parser.loss(x, lengths, gold)
    parser, x = parser.cuda(), x.cuda()
    assert bracketing(parser.parse(x, lengths), lengths).starts.equal(bracketing(splits, lengths).starts)
    other, same = parser.loss(x, lengths, gold)
    torch.testing.assert_close(other.cpu(), total)
    assert same.item() == count.item()
