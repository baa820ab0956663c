"""Beam search against all sequences, a plain beam that never stops early, greedy search, and itself alone."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seqtext.errors import InputError
from seqtext.search.beam import Beam, beam_search
from seqtext.search.sampling import Sampling, sample
from tests.reference.exhaustive import Rules, exhaustive, plain_beam
from tests.search.toy import Toy

EOS, START = 1, 0


def penalty(beam):
    """Straight from the papers."""
    if beam.length_penalty == "average":
        return lambda n: n**beam.alpha
    return lambda n: (5 + n) ** beam.alpha / (5 + 1) ** beam.alpha


def chances_of(toy, memory=None):
    return lambda tokens: toy.log_probabilities([START, *tokens], memory).tolist()


def search(toy, beam, *, rows=1, memory=None, **options):
    first = torch.full((rows,), START)
    return beam_search(toy, toy.start(memory), first, settings=beam, eos=EOS, memory=memory, **options)


def same(found, expected):
    """Whether hypotheses are these candidates, ties in any order."""
    assert [h.score for h in found] == pytest.approx([c.score for c in expected[: len(found)]], abs=1e-9)
    scores = {(c.tokens, c.ended): c for c in expected}
    for h in found:
        twin = scores[tuple(h.tokens), h.ended]
        assert (h.score, h.log_probability) == pytest.approx((twin.score, twin.log_probability), abs=1e-9)


SEARCHES = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "size": st.integers(3, 4),
        "scale": st.sampled_from([0.3, 1.0, 2.0]),
        "max_length": st.sampled_from([1, 2, 3, 4, 4, 4]),
        "min_length": st.integers(0, 3),
        "forbidden": st.sampled_from([(), (0,)]),
        "block": st.sampled_from([None, 1, 2, 3]),
        "alpha": st.sampled_from([0.0, 0.6, 1.0, 2.5]),
        "length_penalty": st.sampled_from(["average", "wu"]),
    }
)


def case(found):
    toy = Toy(found["size"], seed=found["seed"], scale=found["scale"])
    least = min(found["min_length"], found["max_length"] - 1)
    shared = {"max_length": found["max_length"], "min_length": least, "forbidden": found["forbidden"]}
    options = {key: found[key] for key in ("alpha", "length_penalty")} | {"block_ngrams": found["block"]}
    rules = Rules(EOS, block=found["block"], penalty=penalty(Beam(**options)), **shared)
    return toy, shared, options, rules


@settings(max_examples=300)
@given(SEARCHES, st.integers(1, 300))
def test_a_beam_that_holds_everything_is_exhaustive_search(found, nbest):
    toy, shared, options, rules = case(found)
    expected = exhaustive(chances_of(toy), rules)
    width = found["size"] ** found["max_length"]
    beam = Beam(size=width, nbest=min(nbest, width), **options)
    [hypotheses] = search(toy, beam, **shared)
    assert len(hypotheses) == min(beam.nbest, len(expected))
    same(hypotheses, expected)


@settings(max_examples=400)
@given(SEARCHES, st.integers(1, 4), st.integers(1, 4))
def test_stopping_early_loses_nothing_that_the_beam_would_have_found(found, size, nbest):
    toy, shared, options, rules = case(found)
    beam = Beam(size=size, nbest=min(size, nbest), **options)
    [hypotheses] = search(toy, beam, **shared)
    expected = plain_beam(chances_of(toy), rules, size)
    assert len(hypotheses) == min(beam.nbest, len(expected))
    same(hypotheses, expected)


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


@pytest.mark.parametrize("options", [{}, {"alpha": 1.0}, {"alpha": 1.0, "early": True, "block_ngrams": 2}])
def test_sentences_together_are_found_as_alone_and_leave_when_done(options):
    toy = Toy(12, seed=7, scale=0.8)
    memory = toy.memory(9)
    longest = torch.tensor([3, 14, 6, 9, 1, 12, 5, 8, 20])
    least = torch.tensor([0, 3, 0, 5, 0, 2, 4, 0, 1])
    beam = Beam(size=4, nbest=3, **options)
    together = search(toy, beam, rows=9, memory=memory, max_length=longest, min_length=least)
    assert toy.batches[0] == 9 and toy.batches[1:] == sorted(toy.batches[1:], reverse=True)
    sizes, steps = list(toy.batches), []
    for row, found in enumerate(together):
        toy.batches.clear()
        alone = (memory[0][row : row + 1],)
        [expected] = search(toy, beam, memory=alone, max_length=int(longest[row]), min_length=int(least[row]))
        steps.append(len(toy.batches))
        assert [h[0] for h in found] == [h[0] for h in expected]
        assert [h[1:3] for h in found] == [pytest.approx(h[1:3]) for h in expected]
        assert all(int(least[row]) <= len(h.tokens) and len(h.tokens) + h.ended <= longest[row] for h in found)
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


def test_a_model_that_leaves_nothing_to_say_has_no_hypothesis():
    toy = Toy(3)
    [found] = search(toy, Beam(size=2, nbest=2), max_length=5, min_length=2, forbidden=(0, 2))
    assert found == []
    [found] = search(toy, Beam(size=2, nbest=2), max_length=5, forbidden=(0, 2))
    assert [(h.tokens, h.ended) for h in found] == [([], True)]
    assert found[0].log_probability == pytest.approx(toy.log_probabilities([START])[EOS].item())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "--beam 0: expected a whole number, 1 or more"),
        ({"size": 2, "nbest": 3}, "--nbest 3: expected 1 to 2, the size of the beam"),
        ({"nbest": 0}, "--nbest 0: expected 1 to 5, the size of the beam"),
        ({"length_penalty": "gnmt"}, "--length-penalty gnmt: expected average or wu"),
        ({"alpha": -1.0}, "--alpha -1: expected a number, 0 or more"),
        ({"alpha": math.nan}, "--alpha nan: expected a number, 0 or more"),
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
