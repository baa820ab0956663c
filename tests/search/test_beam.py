"""Beam search against all sequences, a plain beam that never stops early, greedy search, and itself alone."""

from __future__ import annotations

import math
import random
from functools import cache, partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqtext.errors import InputError
from seqtext.search.attending import coverage_penalty
from seqtext.search.beam import Beam, beam_search
from seqtext.search.sampling import Sampling, sample
from tests.reference.exhaustive import Rules, exhaustive, plain_beam
from tests.search.toy import AttendingToy, Toy

EOS, START = 1, 0


def penalty(beam):
    """Straight from the papers."""
    if beam.length_penalty == "average":
        return lambda n: n**beam.alpha
    return lambda n: (5 + n) ** beam.alpha / (5 + 1) ** beam.alpha


def search(toy, beam, *, rows=1, memory=None, **options):
    first = torch.full((rows,), START)
    return beam_search(toy, toy.start(memory), first, settings=beam, eos=EOS, memory=memory, **options)


def same(found, expected, looks):
    """Whether hypotheses are these candidates, ties in any order, with their attention."""
    assert [h.score for h in found] == pytest.approx([c.score for c in expected[: len(found)]], abs=1e-9)
    scores = {(c.tokens, c.ended): c for c in expected}
    for h in found:
        twin = scores[tuple(h.tokens), h.ended]
        assert (h.score, h.log_probability) == pytest.approx((twin.score, twin.log_probability), abs=1e-9)
        rows = [looks(twin.tokens[:step]) for step in range(len(h.tokens) + h.ended)]
        assert h.attention.tolist() == [pytest.approx(row) for row in rows]
        assert h.alignment == [row.index(max(row)) for row in rows[: len(h.tokens)]]


def options_of(seed):
    """Some of all options; drawn evenly, so that most searches are not small ones."""
    pick = random.Random(seed).choice
    return {
        "seed": seed,
        "size": pick([3, 4]),
        "scale": pick([0.3, 1.0, 2.0]),
        "max_length": pick([1, 2, 3, 4, 4, 4, 4, 4]),
        "min_length": pick([0, 0, 1, 2, 3]),
        "forbidden": pick([(), (), (), (), (0,), (0, 2)]),
        "block": pick([None, None, 1, 2, 3]),
        "alpha": pick([0.0, 0.6, 1.0, 2.5]),
        "length_penalty": pick(["average", "wu"]),
        "beta": pick([0.0, 0.2, 2.0]),
        "prefix": pick([(), (), (), (), (0,), (2,), (2, 2), (2, 0, 2), (0, 0, 0, 0)]),
    }


SEARCHES = st.integers(0, 1_000_000).map(options_of)


def case(found):
    toy = AttendingToy(found["size"], seed=found["seed"], scale=found["scale"])
    memory = toy.source([3], seed=found["seed"])
    least = min(found["min_length"], found["max_length"] - 1)
    prefix = found["prefix"][: found["max_length"]]
    shared = {"max_length": found["max_length"], "min_length": least, "forbidden": found["forbidden"]}
    options = {key: found[key] for key in ("alpha", "length_penalty")} | {"block_ngrams": found["block"]}
    chances = cache(lambda tokens: toy.log_probabilities([START, *tokens], memory).tolist())
    looks = cache(lambda tokens: toy.look([START, *tokens], memory).tolist())
    length = penalty(Beam(**options))
    rules = Rules(EOS, block=found["block"], penalty=length, prefix=prefix, beta=found["beta"], looks=looks, **shared)
    given = {"prefix": torch.tensor([[*prefix, -1]])} if prefix else {}
    run = partial(search, toy, memory=memory, align=True, attention=True, **given, **shared)
    return run, chances, rules, options | {"coverage_penalty": found["beta"]}


@settings(max_examples=400)
@given(SEARCHES, st.integers(1, 300))
def test_a_beam_that_holds_everything_is_exhaustive_search(found, nbest):
    run, chances, rules, options = case(found)
    expected = exhaustive(chances, rules)
    width = found["size"] ** found["max_length"]
    beam = Beam(size=width, nbest=min(nbest, width), **options)
    [hypotheses] = run(beam)
    assert len(hypotheses) == min(beam.nbest, len(expected)) > 0
    same(hypotheses, expected, rules.looks)


@settings(max_examples=600)
@given(SEARCHES, st.integers(1, 4), st.integers(1, 4), st.booleans())
def test_stopping_in_time_loses_nothing_that_the_beam_would_have_found(found, size, nbest, early):
    run, chances, rules, options = case(found)
    beam = Beam(size=size, nbest=min(size, nbest), early=early, **options)
    [hypotheses] = run(beam)
    expected = plain_beam(chances, rules, size, early=early)
    assert len(hypotheses) == min(beam.nbest, len(expected)) > 0
    same(hypotheses, expected, rules.looks)


@pytest.mark.parametrize("options", [{}, {"alpha": 1.0, "early": True}, {"alpha": 2.0, "early": True}])
def test_a_beam_of_one_is_greedy_search(options):
    for seed in range(5):
        toy = Toy(6, seed=seed, scale=1.0)
        memory = toy.memory(8, seed=seed)
        first = torch.full((8,), START)
        drawn = sample(
            toy, toy.start(memory), first, settings=Sampling(greedy=True), max_tokens=9, stop=(EOS,), memory=memory
        )
        greedy = [[token for token in row if token >= 0] for row in torch.stack(list(drawn), 1).tolist()]
        toy.batches.clear()
        found = search(toy, Beam(size=1, **options), rows=8, memory=memory, max_length=9)
        assert [h.tokens + [EOS] * h.ended for [h] in found] == greedy
        lengths = [len(row) for row in greedy]
        assert len(set(lengths)) > 1
        assert toy.batches == [sum(n > step for n in lengths) for step in range(max(lengths))]  # each stops in time


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"alpha": 1.0},
        {"alpha": 1.0, "early": True, "block_ngrams": 2},
        {"alpha": 0.5, "coverage_penalty": 0.5, "early": True},
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_sentences_together_are_found_as_alone_and_leave_when_done(options, begun):
    toy = AttendingToy(12, seed=7, scale=0.8)
    memory = toy.source([4, 9, 1, 3, 6, 2, 9, 5, 7])
    longest = torch.tensor([3, 14, 6, 9, 1, 12, 5, 8, 20])
    least = torch.tensor([0, 3, 0, 5, 0, 2, 4, 0, 1])
    prefix = torch.full((9, 5), -1)
    for row, words in enumerate([[3], [4, 4, 4, 4], [], [5, 6], [2], [], [9, 3, 9, 3, 9], [], [8]] if begun else []):
        prefix[row, : len(words)] = torch.tensor(words)
    beam = Beam(size=4, nbest=3, **options)
    shared = {"align": True, "attention": True}
    together = search(toy, beam, rows=9, memory=memory, max_length=longest, min_length=least, prefix=prefix, **shared)
    assert toy.batches[0] == 9 and toy.batches[1:] == sorted(toy.batches[1:], reverse=True)
    sizes, steps = list(toy.batches), []
    for row, found in enumerate(together):
        toy.batches.clear()
        lengths = {"max_length": int(longest[row]), "min_length": int(least[row])}
        words = prefix[row][prefix[row] >= 0]
        [expected] = search(toy, beam, memory=memory.row(row), prefix=words.unsqueeze(0), **lengths, **shared)
        steps.append(len(toy.batches))
        assert [(h.tokens, h.alignment) for h in found] == [(h.tokens, h.alignment) for h in expected]
        assert [h[1:3] for h in found] == [pytest.approx(h[1:3]) for h in expected]
        assert all(int(least[row]) <= len(h.tokens) and len(h.tokens) + h.ended <= longest[row] for h in found)
        assert all(h.tokens[: len(words)] == words.tolist() for h in found)
        for h, twin in zip(found, expected):
            torch.testing.assert_close(h.attention, twin.attention)
        # As long as there is one way to go on, one row goes it.
        assert toy.batches == ([1] * (len(words) + 1) + [4] * 20)[: len(toy.batches)]
    assert sizes == [4 * sum(n > step for n in steps) if step else 9 for step in range(len(sizes))]
    assert len(set(steps)) > 3


def test_blocked_sequences_do_not_occur_and_without_the_block_they_do():
    toy = Toy(5, seed=11, scale=2.0)

    def repeats(tokens, n):
        grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
        return len(grams) - len(set(grams))

    for n in (1, 2, 3):
        lengths = {"max_length": 4 if n == 1 else 14, "min_length": 3 if n == 1 else 12}
        [free] = search(toy, Beam(size=4, nbest=4), **lengths)
        [blocked] = search(toy, Beam(size=4, nbest=4, block_ngrams=n), **lengths)
        assert sum(repeats(h.tokens, n) for h in free) > 0 and blocked
        assert [repeats(h.tokens, n) for h in blocked] == [0] * len(blocked)


def test_where_nothing_can_go_on_the_best_so_far_is_cut():
    toy = Toy(3)
    [found] = search(toy, Beam(size=2, nbest=2, alpha=1.0), max_length=5, min_length=2, forbidden=(0, 2))
    assert [h[:4] for h in found] == [([], 0.0, 0.0, False)]
    [found] = search(toy, Beam(size=2, nbest=2), max_length=5, forbidden=(0, 2))
    assert [(h.tokens, h.ended) for h in found] == [([], True)]
    assert found[0].log_probability == pytest.approx(toy.log_probabilities([START])[EOS].item())
    # Each of two tokens once, and no end before the fourth.
    [found] = search(toy, Beam(size=2, nbest=2, block_ngrams=1), max_length=9, min_length=4)
    assert sorted(h.tokens for h in found) == [[0, 2], [2, 0]] and not any(h.ended for h in found)
    assert found[0].score == found[0].log_probability > found[1].score


class Blind(AttendingToy):
    """One that nobody may ask where it looks."""

    def attention(self, state):
        raise AssertionError("asked for attention")


def test_attention_is_looked_at_only_if_needed():
    toy = Blind(5)
    memory = toy.source([3, 2])
    [[plain], _] = search(toy, Beam(alpha=1.0), rows=2, memory=memory, max_length=5)
    assert plain.alignment is None and plain.attention is None
    for options, wanted in ({"coverage_penalty": 0.1}, {}), ({}, {"align": True}), ({}, {"attention": True}):
        with pytest.raises(AssertionError, match="asked for attention"):
            search(toy, Beam(**options), rows=2, memory=memory, max_length=5, **wanted)


def test_what_is_not_asked_for_changes_no_result():
    toy = AttendingToy(8, seed=3)
    memory = toy.source([4, 2, 6])
    found = {}
    for name, wanted in (
        ("all", {"align": True, "attention": True}),
        ("alignment", {"align": True}),
        ("attention", {"attention": True}),
        ("none", {}),
    ):
        found[name] = search(toy, Beam(size=3, coverage_penalty=0.4), rows=3, memory=memory, max_length=7, **wanted)
        assert [[one[:4] for one in row] for row in found[name]] == [[one[:4] for one in row] for row in found["all"]]
    for [full], [places], [weights], [bare] in zip(*found.values()):
        assert (places.alignment, places.attention) == (full.alignment, None)
        assert weights.alignment is None and torch.equal(weights.attention, full.attention)
        assert (bare.alignment, bare.attention) == (None, None)


class Unseeing(AttendingToy):
    """Has the method, and nothing to tell."""

    def attention(self, state):
        return None


@pytest.mark.parametrize("kind", [Toy, Unseeing])
def test_a_model_without_attention_is_told(kind):
    toy = kind(3)
    memory = toy.memory(1) if kind is Toy else toy.source([2])
    with pytest.raises(InputError) as caught:
        search(toy, Beam(coverage_penalty=0.1), memory=memory, max_length=5)
    wanted = "a coverage penalty, alignments and attention weights need a model with attention; this has none"
    assert str(caught.value) == wanted


def test_a_source_token_without_any_attention_costs_much_and_not_everything():
    covered = torch.tensor([[0.0, 1.5, 0.5], [0.25, 0.0, 9.0]])
    real = torch.tensor([[True, True, True], [True, False, False]])
    least = math.log(torch.finfo(torch.float32).tiny)
    assert coverage_penalty(covered, real).tolist() == pytest.approx([least + math.log(0.5), math.log(0.25)])


def test_a_model_that_gives_no_numbers_is_told():
    toy = Toy(3)
    toy.output[1] = math.nan
    for size in (1, 3):
        with pytest.raises(InputError, match=r"the model's scores are not numbers \(NaN\): its training must have"):
            search(toy, Beam(size=size), max_length=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "--beam 0: expected a whole number, 1 or more"),
        ({"size": 2, "nbest": 3}, "--nbest 3: expected 1 to 2, the size of the beam"),
        ({"nbest": 0}, "--nbest 0: expected 1 to 5, the size of the beam"),
        ({"length_penalty": "gnmt"}, "--length-penalty gnmt: expected average or wu"),
        ({"alpha": -1.0}, "--alpha -1: expected a number, 0 or more"),
        ({"alpha": math.nan}, "--alpha nan: expected a number, 0 or more"),
        ({"coverage_penalty": -0.5}, "--coverage-penalty -0.5: expected a number, 0 or more"),
        ({"coverage_penalty": math.inf}, "--coverage-penalty inf: expected a number, 0 or more"),
        ({"block_ngrams": 0}, "--block-ngrams 0: expected a whole number, 1 or more"),
    ],
)
def test_settings_out_of_range_are_told_with_what_is_allowed(options, message):
    with pytest.raises(InputError) as caught:
        Beam(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize("lengths", [{"max_length": 0}, {"max_length": 3, "min_length": 3}])
def test_lengths_that_leave_no_sequence_are_refused(lengths):
    with pytest.raises(ValueError, match="expected a max_length of 1 or more and a min_length below it"):
        search(Toy(3), Beam(), **lengths)


@pytest.mark.parametrize(
    ("prefix", "message"),
    [
        ([2, -1, 2], "expected prefixes of tokens below 3 but 1, the <eos>, with -1 behind their ends"),
        ([2, EOS, -1], "expected prefixes of tokens below 3 but 1, the <eos>"),
        ([3, -1, -1], "expected prefixes of tokens below 3 but 1, the <eos>"),
        ([2, 2, 2], "expected prefixes no longer than the max_length"),
    ],
)
def test_prefixes_that_cannot_begin_a_hypothesis_are_refused(prefix, message):
    with pytest.raises(ValueError, match=message):
        search(Toy(3), Beam(), max_length=2, prefix=torch.tensor([prefix]))
