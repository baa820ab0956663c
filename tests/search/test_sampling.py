"""Filters against plain Python, draws against the probabilities they should have, rows against rows alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from seqtext.errors import InputError
from seqtext.search.sampling import Sampler, Sampling, choose, keep_top_k, keep_top_p, sample, temper
from tests.search.toy import Toy

LOGITS = st.lists(st.integers(-40, 40).map(lambda n: n / 8) | st.just(-math.inf), min_size=1, max_size=9).filter(
    lambda row: max(row) > -math.inf
)


def kept(logits):
    return {i for i, value in enumerate(logits[0].tolist()) if value > -math.inf}


def chances(row):
    weights = [math.exp(value) for value in row]
    return [weight / math.fsum(weights) for weight in weights]


@given(LOGITS, st.integers(1, 12))
def test_top_k_keeps_the_k_largest_and_their_equals(row, k):
    least = sorted(row, reverse=True)[:k][-1]
    filtered = keep_top_k(torch.tensor([row]), k)
    assert kept(filtered) == {i for i, value in enumerate(row) if value >= least and value > -math.inf}
    assert all(filtered[0, i] == row[i] for i in kept(filtered))


@given(LOGITS, st.floats(0.01, 1.0))
def test_the_nucleus_is_the_smallest_set_that_reaches_p(row, p):
    filtered = keep_top_p(torch.tensor([row]), p)
    found, weights = kept(filtered), chances(row)
    assert found and all(filtered[0, i] == row[i] for i in found)
    inside = math.fsum(weights[i] for i in found)
    assert inside >= p - 1e-6
    # It holds the most probable tokens, and without its least probable one it would not reach p.
    left_out = [weights[i] for i in range(len(row)) if i not in found]
    assert min(weights[i] for i in found) >= max(left_out, default=0.0) - 1e-9
    assert inside - min(weights[i] for i in found) < p + 1e-6 or p == 1.0


def test_filters_work_row_by_row():
    rows = torch.tensor([[0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]])
    assert keep_top_k(rows, 2).isinf().tolist() == [[True, True, False, False], [False, False, True, True]]
    assert keep_top_p(rows, 0.7).isinf().tolist() == [[True, True, False, False], [False, False, True, True]]


@pytest.mark.parametrize(
    "settings",
    [
        Sampling(),
        Sampling(temperature=0.5),
        Sampling(temperature=3.0, top_k=4),
        Sampling(top_p=0.8),
        Sampling(temperature=2.0, top_k=5, top_p=0.9),
    ],
)
def test_tokens_are_drawn_as_often_as_they_are_probable(settings):
    row = [1.5, -0.5, 0.25, 2.0, -math.inf, 1.0, -3.0, 0.75]
    expected = chances([value / settings.temperature for value in row])
    if settings.top_k is not None:
        best = sorted(expected)[-settings.top_k]
        expected = [chance if chance >= best else 0.0 for chance in expected]
        expected = [chance / sum(expected) for chance in expected]
    if settings.top_p is not None:
        order = sorted(range(len(row)), key=lambda i: -expected[i])
        inside = [i for n, i in enumerate(order) if sum(expected[j] for j in order[:n]) < settings.top_p]
        expected = [chance if i in inside else 0.0 for i, chance in enumerate(expected)]
        expected = [chance / sum(expected) for chance in expected]
    n = 20_000
    points = (torch.arange(n, dtype=torch.float64) + 0.5) / n  # spread evenly: each stretch gets its share of points
    tokens = choose(torch.tensor([row]).expand(n, -1), settings, points)
    found = torch.bincount(tokens, minlength=len(row)) / n
    assert found.tolist() == pytest.approx(expected, abs=2 / n)
    assert all(count == 0 for count, chance in zip(found.tolist(), expected) if chance == 0.0)


@given(LOGITS, st.sampled_from([0.0, 1.0 - 2**-53]), st.floats(1e-300, 1e300))
def test_the_ends_of_the_line_fall_on_tokens_that_can_come(row, point, temperature):
    settings = Sampling(temperature=temperature)
    logits = torch.tensor([row])
    token = int(choose(logits, settings, torch.tensor([point], dtype=torch.float64)))
    assert row[token] > -math.inf
    assert not temper(logits, temperature).isnan().any()
    if temperature < 1e-3:
        assert row[token] == max(row)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "--temperature 0: expected a number above 0; --greedy takes the most probable token"),
        ({"temperature": -0.5}, "--temperature -0.5: expected a number above 0"),
        ({"temperature": math.nan}, "--temperature nan: expected a number above 0"),
        ({"temperature": math.inf}, "--temperature inf: expected a number above 0"),
        ({"top_k": 0}, "--top-k 0: expected a whole number, 1 or more"),
        ({"top_p": 0.0}, "--top-p 0: expected a number above 0 and at most 1"),
        ({"top_p": 1.01}, "--top-p 1.01: expected a number above 0 and at most 1"),
        ({"top_p": math.nan}, "--top-p nan: expected a number above 0 and at most 1"),
        ({"greedy": True, "top_k": 3}, "--greedy draws nothing: --temperature, --top-k and --top-p have no effect"),
    ],
)
def test_settings_out_of_range_are_told_with_what_is_allowed(options, message):
    with pytest.raises(InputError) as caught:
        Sampling(**options)
    assert str(caught.value).startswith(message)


def begin(toy, rows):
    """A start of several rows that differ by their memory."""
    memory = toy.memory(rows)
    return toy.start(memory), torch.zeros(rows, dtype=torch.int64), memory


def test_greedy_takes_the_most_probable_token_after_all_that_was_read():
    toy = Toy(7, seed=3)
    state, first, memory = begin(toy, 4)
    steps = list(sample(toy, state, first, settings=Sampling(greedy=True), max_tokens=6, memory=memory))
    for row, tokens in enumerate(torch.stack(steps, 1).tolist()):
        alone, read = (memory[0][row : row + 1],), [0]
        for token in tokens:
            assert token == int(toy.log_probabilities(read, alone).argmax())
            read.append(token)


def test_rows_end_at_a_stop_token_leave_the_batch_and_change_nothing_for_the_others():
    toy = Toy(5, seed=1, scale=1.0)
    state, first, memory = begin(toy, 6)

    def run(**options):
        generator = torch.Generator().manual_seed(5)
        drawn = sample(
            toy, state, first, settings=Sampling(), max_tokens=12, generator=generator, memory=memory, **options
        )
        return torch.stack(list(drawn), 1).tolist()

    whole = run()
    assert toy.batches == [6] * 12
    toy.batches.clear()
    stopped = run(stop=(2, 3))
    lengths = [next((n for n, token in enumerate(row, 1) if token in (2, 3)), 12) for row in whole]
    assert len({*lengths}) > 2 and max(lengths) <= 12
    width = max(lengths)
    assert stopped == [row[:n] + [-1] * (width - n) for row, n in zip(whole, lengths)]
    assert toy.batches == [sum(n > step for n in lengths) for step in range(width)]


def test_what_is_forbidden_never_comes_and_probabilities_are_the_models_own():
    toy = Toy(4, seed=2, scale=1.0)
    state, first, memory = begin(toy, 5)
    settings = Sampling(temperature=2.0, top_k=2)
    sampler = Sampler(toy, state, first, settings=settings, forbidden=(1, 3), memory=memory)
    read = [[0] for _ in range(5)]
    seen = set()
    for _ in range(8):
        drawn = sampler.draw()
        assert drawn.rows == [0, 1, 2, 3, 4]
        for row, token, chance in zip(drawn.rows, drawn.tokens.tolist(), drawn.log_probabilities.tolist()):
            own = toy.log_probabilities(read[row], (memory[0][row : row + 1],))
            assert chance == pytest.approx(own[token].item(), abs=1e-9)
            read[row].append(token)
            seen.add(token)
    assert seen == {0, 2}


def test_the_same_seed_draws_the_same_and_another_seed_does_not():
    toy = Toy(50, seed=4, scale=0.5)
    state, first, memory = begin(toy, 3)

    def run(seed):
        generator = torch.Generator().manual_seed(seed)
        steps = sample(toy, state, first, settings=Sampling(), max_tokens=20, generator=generator, memory=memory)
        return torch.stack(list(steps)).tolist()

    assert run(1) == run(1) != run(2)


@pytest.mark.parametrize("settings", [Sampling(), Sampling(temperature=1.5, top_k=4), Sampling(greedy=True)])
def test_rows_with_a_memory_are_drawn_as_each_alone(settings):
    toy = Toy(9, seed=8, scale=0.7)
    state, first, memory = begin(toy, 7)
    generator = torch.Generator().manual_seed(6)
    options = {"settings": settings, "max_tokens": 30, "stop": (1, 2), "generator": generator, "memory": memory}
    together = torch.stack(list(sample(toy, state, first, **options)), 1).tolist()
    generator.manual_seed(6)
    points = [torch.rand(7, generator=generator, dtype=torch.float64) for _ in range(30)]
    for row, drawn in enumerate(together):
        alone, read = (memory[0][row : row + 1],), [0]
        while len(read) <= 30 and read[-1] not in (1, 2):
            logits = toy.log_probabilities(read, alone).unsqueeze(0)
            read.append(int(choose(logits, settings, points[len(read) - 1][row : row + 1])))
        assert drawn == read[1:] + [-1] * (len(drawn) - len(read) + 1)
    assert len({row.count(-1) for row in together}) > 2


@pytest.mark.parametrize("ends", [(), (1, 2)])
def test_several_samples_of_a_source_share_its_row_of_the_memory(ends):
    toy = Toy(9, seed=8, scale=0.7)
    memory = toy.memory(3)
    rows = torch.arange(3).repeat_interleave(4)
    own = (memory[0][rows],)

    def run(memory):
        state = toy.reorder(toy.start(memory), rows if len(memory[0]) == 3 else torch.arange(12))
        generator = torch.Generator().manual_seed(2)
        options = {"settings": Sampling(), "max_tokens": 20, "stop": ends, "generator": generator, "memory": memory}
        return torch.stack(list(sample(toy, state, torch.zeros(12, dtype=torch.int64), **options)), 1).tolist()

    shared = run(memory)
    assert shared == run(own)
    assert len({tuple(row) for row in shared}) == 12
    assert len({row.index(-1) for row in shared if -1 in row}) > 2 or not ends
