"""The CRF against enumeration of all paths, against pytorch-crf, and against itself under padding and batching."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call
from torchcrf import CRF as OutsideCRF

from seqtext.nn import crf_decode, crf_scan, graphs
from seqtext.nn.crf import CRF
from tests.reference.enumerate_crf import EnumeratedChain
from tests.reference.stand_in import Elsewhere, moved, stand_in

LABELS = 4
# O, B-x, I-x, B-y: I-x goes on from B-x or I-x only; no sentence ends in B-y, which has nothing to end with.
CONSTRAINTS = {
    "start_allowed": [True, True, False, True],
    "transitions_allowed": [
        [True, True, False, True],
        [True, True, True, True],
        [True, True, True, True],
        [True, True, False, False],
    ],
    "end_allowed": [True, True, True, False],
}
RAGGED = [[5, 1, 3, 2, 4], [1], [4], [2, 2], [3, 0, 1]]


@pytest.fixture(params=["arrays", "steps", "scan"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU's way, and those of a GPU: one position after another, and by a scan; whatever device and length."""
    monkeypatch.setattr(crf_scan, "wanted", lambda values: request.param == "scan")
    if request.param != "arrays":
        monkeypatch.setattr(crf_decode, "arrays_wanted", lambda logits: False)


all_ways = pytest.mark.usefixtures("way")


def make(seed: int, lengths: list[int], *, constrained: bool, scale: float = 1.0) -> tuple[CRF, Tensor, Tensor, Tensor]:
    """A CRF with sizeable weights, float64 logits with NaN in the padding, labels that keep to the rules, lengths."""
    generator = torch.Generator().manual_seed(seed)
    crf = CRF(LABELS, **(CONSTRAINTS if constrained else {})).double()
    for parameter in crf.parameters():
        parameter.data.normal_(generator=generator)
    size = torch.tensor(lengths)
    logits = torch.randn(len(lengths), max(lengths), LABELS, generator=generator, dtype=torch.float64) * scale
    logits[torch.arange(max(lengths)) >= size[:, None]] = math.nan
    labels = torch.full((len(lengths), max(lengths)), -1)
    for row, n in enumerate(lengths):
        paths = [path for path, score in enumerate_chain(crf, logits[row, :n]).scores.items() if score > -math.inf]
        pick = int(torch.randint(len(paths), (), generator=generator))
        labels[row, :n] = torch.tensor(paths[pick], dtype=torch.int64)
    return crf, logits, labels, size


def enumerate_chain(crf: CRF, logits: Tensor) -> EnumeratedChain:
    weights = []
    for name in ("start", "transitions", "end"):
        weight, allowed = getattr(crf, name), getattr(crf, f"{name}_allowed")
        weights.append(weight.masked_fill(~allowed, -math.inf).tolist())
    return EnumeratedChain(logits.tolist(), *weights)


def enumerate_batch(crf: CRF, logits: Tensor, lengths: Tensor) -> list[EnumeratedChain]:
    return [enumerate_chain(crf, row[:n]) for row, n in zip(logits, lengths.tolist(), strict=True)]


def close(actual: Tensor, expected: object, tolerance: float = 1e-9) -> None:
    expected = torch.as_tensor(expected, dtype=actual.dtype)
    torch.testing.assert_close(actual.detach(), expected, rtol=tolerance, atol=tolerance)


@all_ways
@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_sums_and_searches_equal_enumeration(lengths: list[int], constrained: bool, scale: float) -> None:
    crf, logits, labels, size = make(sum(lengths), lengths, constrained=constrained, scale=scale)
    chains = enumerate_batch(crf, logits, size)
    log_partition = [chain.log_sum() for chain in chains]
    gold = [chain.scores[tuple(labels[row, :n].tolist())] for row, (chain, n) in enumerate(zip(chains, lengths))]

    close(crf.log_partition(logits, size), log_partition)
    with torch.no_grad():  # another recursion: forward only
        close(crf.log_partition(logits, size), log_partition)
        close(crf.nll(logits, labels, size), [z - s for z, s in zip(log_partition, gold)])
    close(crf.score(logits, labels, size), gold)
    close(crf.nll(logits, labels, size), [z - s for z, s in zip(log_partition, gold)])

    scores, paths = crf.viterbi(logits, size)
    k = 7
    many_scores, many_paths = crf.kbest(logits, size, k)
    marginals = crf.marginals(logits, size)
    longest = max(lengths)
    for row, (chain, n) in enumerate(zip(chains, lengths)):
        ranked = chain.ranked()[:k]
        fill = [-1] * (longest - n)
        assert paths[row].tolist() == [*ranked[0][1], *fill]
        close(scores[row], ranked[0][0])
        missing = k - len(ranked)
        assert many_paths[row].tolist() == [[*path, *fill] for _, path in ranked] + [[-1] * longest] * missing
        close(many_scores[row], [score for score, _ in ranked] + [-math.inf] * missing)
        expected = [
            [chain.probability(lambda path, t=t, c=c: path[t] == c) for c in range(LABELS)] for t in range(n)
        ]  # fmt: skip
        close(marginals[row, :n], torch.tensor(expected, dtype=torch.float64).view(n, LABELS))
        assert marginals[row, n:].eq(0).all()


@all_ways
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("lengths", RAGGED, ids=str)
def test_span_probabilities_equal_enumeration(lengths: list[int], constrained: bool) -> None:
    crf, logits, paths, size = make(sum(lengths), lengths, constrained=constrained)
    continues = torch.rand(LABELS, LABELS, generator=torch.Generator().manual_seed(1)) < 0.4
    if constrained and lengths[0] > 2:
        paths[0, 1:3] = torch.tensor([0, 2])  # a forbidden step: no span over it can occur, spans beside it can
    spans = [(row, s, e) for row, n in enumerate(lengths) for s, e in itertools.combinations(range(n + 1), 2)]
    chains = enumerate_batch(crf, logits, size)
    expected = [
        chains[row].span_probability(start, tuple(paths[row, start:end].tolist()), continues.tolist())
        for row, start, end in spans
    ]
    rows, starts, ends = torch.tensor(spans).T
    close(crf.span_probabilities(logits, size, paths, rows, starts, ends, continues), expected)


@all_ways
@pytest.mark.parametrize("constrained", [False, True])
def test_gradient_equals_that_of_the_enumerated_sum(constrained: bool) -> None:
    lengths = [4, 1, 3]
    crf, logits, _, size = make(3, lengths, constrained=constrained)
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    inputs = [logits.requires_grad_(), *crf.parameters()]
    actual = torch.autograd.grad((crf.log_partition(logits, size) * weight).sum(), inputs)

    total = torch.zeros((), dtype=torch.float64)
    for row, n in enumerate(lengths):
        paths = torch.tensor(list(itertools.product(range(LABELS), repeat=n)))  # (P,n)
        score = logits[row, torch.arange(n), paths].sum(-1)
        score = score + crf.start[paths[:, 0]] + crf.end[paths[:, -1]]
        score = score + crf.transitions[paths[:, :-1], paths[:, 1:]].sum(-1)
        allowed = crf.start_allowed[paths[:, 0]] & crf.end_allowed[paths[:, -1]]
        allowed &= crf.transitions_allowed[paths[:, :-1], paths[:, 1:]].all(-1)
        total = total + weight[row] * score[allowed].logsumexp(0)
    for got, wanted in zip(actual, torch.autograd.grad(total, inputs), strict=True):
        close(got, wanted)
    forbidden = ~crf.transitions_allowed
    assert actual[2][forbidden].eq(0).all()


@all_ways
@pytest.mark.parametrize("constrained", [False, True])
@pytest.mark.parametrize("lengths", [[4, 1, 3], [1], [2, 0]], ids=str)
def test_gradcheck_of_the_loss(lengths: list[int], constrained: bool) -> None:
    crf, logits, labels, size = make(5, lengths, constrained=constrained)
    names = [name for name, _ in crf.named_parameters()]

    def loss(logits: Tensor, *weights: Tensor) -> Tensor:
        return functional_call(crf, dict(zip(names, weights)), (logits, labels, size))  # type: ignore[no-any-return]

    crf.forward = crf.nll  # type: ignore[method-assign]
    inputs = [logits.nan_to_num(3.0), *(parameter.detach().clone() for parameter in crf.parameters())]
    assert torch.autograd.gradcheck(loss, [tensor.requires_grad_() for tensor in inputs])


def random_batch(labels: int, lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(lengths), max(lengths), labels, generator=generator) * 2
    return logits, torch.randint(labels, logits.shape[:2], generator=generator), torch.tensor(lengths)


@all_ways
def test_loss_and_decoding_equal_pytorch_crf() -> None:
    logits, labels, size = random_batch(17, [40, 1, 25, 33, 2, 40])
    mask = torch.arange(40) < size[:, None]
    ours, outside = CRF(17), OutsideCRF(17, batch_first=True)
    outside.load_state_dict(
        {"start_transitions": ours.start, "transitions": ours.transitions, "end_transitions": ours.end}
    )
    a, b = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    loss, expected = ours.nll(a, labels, size), -outside(b, labels, mask=mask, reduction="none")
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-4)
    loss.sum().backward()
    expected.sum().backward()
    pairs = [(a, b), (ours.start, outside.start_transitions), (ours.end, outside.end_transitions)]
    for mine, theirs in [*pairs, (ours.transitions, outside.transitions)]:
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-4)
    paths = [path[:n].tolist() for path, n in zip(ours.viterbi(logits, size)[1], size)]
    assert paths == outside.decode(logits, mask=mask)


def everything(crf: CRF, logits: Tensor, labels: Tensor, size: Tensor) -> list[Tensor]:
    """All results for a batch, padded to no length in particular."""
    rows = torch.arange(len(size)).repeat_interleave(2)
    starts, ends = torch.zeros_like(rows), size.repeat_interleave(2)
    starts[1::2] = size - 1  # the whole sentence, and its last word
    continues = torch.eye(crf.num_labels, dtype=torch.bool)
    logits = logits.clone().requires_grad_()
    loss = crf.nll(logits, labels, size)
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return [
        *(crf.log_partition(logits, size), crf.score(logits, labels, size), loss, gradient),
        *(*crf.viterbi(logits, size), *crf.kbest(logits, size, 3), crf.marginals(logits, size)),
        crf.span_probabilities(logits, size, labels, rows, starts, ends, continues).view(-1, 2),
    ]


@all_ways
def test_a_sentence_alone_and_without_padding_gives_the_same() -> None:
    logits, labels, size = random_batch(9, [30, 1, 17, 2])
    crf = CRF(9)
    together = everything(crf, logits, labels, size)
    for row, n in enumerate(size.tolist()):
        alone = everything(crf, logits[row : row + 1, :n], labels[row : row + 1, :n], size[row : row + 1])
        for batched, single in zip(together, alone, strict=True):
            batched = batched[row : row + 1]
            for axis in range(1, batched.dim()):  # cut the padding off
                batched = batched.narrow(axis, 0, single.size(axis))
            torch.testing.assert_close(batched, single, rtol=1e-5, atol=1e-5)


@all_ways
def test_random_logits_never_break_a_constraint() -> None:
    crf = CRF(LABELS, **CONSTRAINTS)
    logits, _, size = random_batch(LABELS, [12] * 16 + [1, 2, 3])
    crf.log_partition(logits * 5, size).sum().backward()
    counts = crf.transitions.grad
    assert counts is not None and counts[~crf.transitions_allowed].eq(0).all()
    close(counts.sum(), float((size - 1).sum()), 1e-5)  # the rest share all steps among them

    _, best = crf.viterbi(logits * 5, size)
    _, many = crf.kbest(logits * 5, size, 4)
    for path in [*best.tolist(), *many.flatten(0, 1).tolist()]:
        labels = [label for label in path if label >= 0]
        if labels:  # a sentence of one word has fewer than 4 paths
            assert CONSTRAINTS["start_allowed"][labels[0]] and CONSTRAINTS["end_allowed"][labels[-1]]
            assert all(CONSTRAINTS["transitions_allowed"][a][b] for a, b in itertools.pairwise(labels))


@all_ways
@given(st.lists(st.lists(st.integers(-2, 2), min_size=LABELS, max_size=LABELS), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_of_equal_paths_viterbi_takes_the_smallest_and_kbest_loses_none(rows: list[list[int]]) -> None:
    crf = CRF(LABELS)
    for parameter in crf.parameters():
        parameter.data.zero_()
    logits, size = torch.tensor([rows], dtype=torch.float32), torch.tensor([len(rows)])
    chain = enumerate_chain(crf, logits[0])
    ranked = chain.ranked()
    assert tuple(crf.viterbi(logits, size)[1][0].tolist()) == ranked[0][1]
    scores, paths = crf.kbest(logits, size, 9)
    found = [tuple(path) for path in paths[0].tolist() if path[0] >= 0]
    assert len(set(found)) == min(9, len(ranked))
    assert scores[0, : len(found)].tolist() == [score for score, _ in ranked[:9]] == [chain.scores[p] for p in found]


@all_ways
def test_half_precision_logits_and_autocast_lose_nothing() -> None:
    logits, labels, size = random_batch(7, [20, 9])
    crf, half = CRF(7), logits.bfloat16().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = crf.nll(half, labels, size)
        loss.sum().backward()
    expected = crf.nll(half.detach().double(), labels, size)
    torch.testing.assert_close(loss, expected.float(), rtol=1e-6, atol=1e-6)
    assert half.grad is not None and half.grad.dtype == torch.bfloat16


@all_ways
def test_logits_out_of_range_stay_finite() -> None:
    logits, labels, size = random_batch(LABELS, [25, 8])
    crf, wild = CRF(LABELS, **CONSTRAINTS), (logits * 1e5).requires_grad_()
    labels = crf.viterbi(wild, size)[1]
    loss = crf.nll(wild, labels, size)
    loss.sum().backward()
    assert loss.isfinite().all() and wild.grad is not None and wild.grad.isfinite().all()


@all_ways
def test_a_sentence_without_any_allowed_path() -> None:
    # 0 -> 1 -> nothing: two words have one path, three have none.
    crf = CRF(2, start_allowed=[True, False], transitions_allowed=[[False, True], [False, False]])
    logits, size = torch.zeros(2, 3, 2), torch.tensor([2, 3])
    total = crf.log_partition(logits, size)
    expected = crf.start[0].double() + crf.transitions[0, 1].double() + crf.end[1].double()
    assert total[0].item() == pytest.approx(expected.item())
    assert total[1].item() == crf.viterbi(logits, size)[0][1].item() == -math.inf
    (gradient,) = torch.autograd.grad(total[0], crf.transitions)
    assert gradient.tolist() == [[0.0, 1.0], [0.0, 0.0]]
    assert crf.kbest(logits, size, 2)[1].tolist() == [[[0, 1, -1], [-1] * 3], [[-1] * 3] * 2]


@all_ways
@pytest.mark.parametrize(("batch", "time"), [(2, 0), (0, 3), (0, 0)])
def test_batches_of_empty_sentences_and_of_none(batch: int, time: int) -> None:
    crf, logits = CRF(3), torch.zeros(batch, time, 3)
    labels, size = torch.zeros(batch, time, dtype=torch.int64), torch.zeros(batch, dtype=torch.int64)
    crf.nll(logits, labels, size).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.eq(0).all() for parameter in crf.parameters())
    assert crf.score(logits, labels, size).tolist() == crf.viterbi(logits, size)[0].tolist() == [0.0] * batch
    scores, paths = crf.kbest(logits, size, 2)
    assert scores.tolist() == [[0.0, -math.inf]] * batch and paths.shape == (batch, 2, time)
    assert crf.viterbi(logits, size)[1].shape == (batch, time) and crf.marginals(logits, size).shape == logits.shape
    nothing = size[:0]
    assert crf.span_probabilities(logits, size, labels, nothing, nothing, nothing, torch.eye(3) > 0).shape == (0,)


@all_ways
def test_a_label_that_falls_out_of_range_and_comes_back_does_no_harm() -> None:
    crf = CRF(2, transitions_allowed=torch.eye(2), end_allowed=[True, False])  # so the one path is all 0
    logits, labels, size = torch.zeros(1, 40, 2), torch.zeros(1, 40, dtype=torch.int64), torch.tensor([40])
    logits[0, :20, 1], logits[0, 20:, 1] = -60.0, 60.0  # prefixes of 1 fall to 1200 nats below those of 0
    close(crf.log_partition(logits, size), crf.score(logits, labels, size))
    close(crf.marginals(logits, size)[0], [[1.0, 0.0]] * 40)


def test_wrong_shapes_are_named() -> None:
    with pytest.raises(ValueError, match=r"transitions_allowed: shape \(3,\), expected \(4, 4\) for 4 labels"):
        CRF(4, transitions_allowed=[True, False, True])
    with pytest.raises(ValueError, match="start_allowed: nothing is allowed"):
        CRF(2, start_allowed=[False, False])
    crf, logits = CRF(4), torch.zeros(2, 5, 4)
    with pytest.raises(ValueError, match=r"logits: shape \(2, 4, 5\), expected \(batch, time, 4\)"):
        crf.viterbi(logits.transpose(1, 2), torch.tensor([5, 5]))
    with pytest.raises(ValueError, match="lengths: 6 is more than the 5 steps of the logits"):
        crf.viterbi(logits, torch.tensor([6, 5]))
    with pytest.raises(ValueError, match="k: 0, expected at least 1"):
        crf.kbest(logits, torch.tensor([5, 5]), 0)


@all_ways
def test_recorded_losses_and_searches_are_those_of_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """All batches are filled up to the same shape: what stood there before must not matter."""
    monkeypatch.setattr(graphs, "WANTED", True)
    batches = [random_batch(LABELS, lengths) for lengths in ([30, 1, 17, 2], [25], [26, 0, 31])]
    crf = CRF(LABELS, **CONSTRAINTS)
    with stand_in() as seen:
        there = moved(crf)
        for turn in range(7):
            logits, labels, size = batches[turn % 3]
            found = []
            for one, to in ((crf, Tensor.clone), (there, Elsewhere)):
                over = to(logits).requires_grad_()
                losses = one.nll(over, to(labels), size)
                gradients = torch.autograd.grad(
                    (losses * to(torch.arange(1.0, 1 + len(size)))).sum(), [over, *one.parameters()]
                )
                found.append([each.cpu() for each in (losses, *gradients, *one.viterbi(over, size))])
            for one, other in zip(*found):
                close(other, one)
            for weight in (*crf.parameters(), *there.parameters()):
                weight.data.mul_(1.1)
        assert seen.replays == 3 * 6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_gives_the_same_and_never_waits_for_the_device() -> None:
    logits, labels, size = random_batch(9, [30, 1, 17, 2])
    crf = CRF(9)
    expected = everything(crf, logits, labels, size)
    crf, logits, labels = crf.cuda(), logits.cuda().requires_grad_(), labels.cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss = crf.nll(logits, labels, size)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
        results = [loss, gradient, *crf.viterbi(logits, size), *crf.kbest(logits, size, 3), crf.marginals(logits, size)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for actual, wanted in zip(results, expected[2:9], strict=True):
        torch.testing.assert_close(actual.cpu(), wanted, rtol=1e-5, atol=1e-5)
