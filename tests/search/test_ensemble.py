"""Several decoders as one, and forced decoding, which is the oracle of what they say."""

from __future__ import annotations

import math

import pytest
import torch

from seqtext.errors import InputError
from seqtext.search.beam import Beam, beam_search
from seqtext.search.decoder import select
from seqtext.search.ensemble import Ensemble
from seqtext.search.forced import forced
from seqtext.search.sampling import Sampling, sample
from tests.reference.exhaustive import Rules, exhaustive
from tests.search.toy import AttendingToy, Toy

EOS, START = 1, 0


class Table:
    """Probabilities of the next token by the last one alone; the state counts what was read."""

    def __init__(self, table, constant=0.0):
        self.table = torch.tensor(table).log() + constant
        self.size = self.table.size(1)

    def start(self, memory):
        return torch.zeros(1 if memory is None else len(memory))

    def step(self, tokens, state, memory):
        return self.table[tokens], state + 1

    def scores(self, output):
        return output.clone()

    def reorder(self, state, rows):
        return select(state, rows)


def search(decoder, beam, *, rows=1, memory=None, **options):
    first = torch.full((rows,), START)
    return beam_search(decoder, decoder.start(memory), first, settings=beam, eos=EOS, memory=memory, **options)


def test_two_tables_say_the_mean_of_their_probabilities():
    one = Table([[0.5, 0.2, 0.3], [1.0, 0.0, 0.0], [0.1, 0.9, 0.0]])
    two = Table([[0.1, 0.1, 0.8], [1.0, 0.0, 0.0], [0.5, 0.3, 0.2]], constant=3.0)
    both = Ensemble([one, two])
    tokens = torch.tensor([[0, 2, 1], [2, 1, -1], [0, 0, 0]])
    memory = (torch.zeros(3), torch.zeros(3))
    found = forced(both, both.start(memory), torch.zeros(3, dtype=torch.int64), tokens, memory=memory)
    by_hand = [[0.3, 0.55, 0.6], [0.55, 0.6, 1.0], [0.3, 0.3, 0.3]]
    assert found.exp().tolist() == [pytest.approx(row, rel=1e-5) for row in by_hand]
    [[best]] = search(both, Beam(), max_length=4)
    assert best.tokens == [2] and best.ended and best.log_probability == pytest.approx(math.log(0.55 * 0.6), rel=1e-5)


def test_a_beam_over_an_ensemble_is_exhaustive_search_over_the_mean():
    toys = [Toy(4, seed=seed, scale=1.0) for seed in range(3)]

    def chances(tokens):
        rows = [toy.log_probabilities([START, *tokens]).exp() for toy in toys]
        return torch.stack(rows).mean(0).log().tolist()

    expected = exhaustive(chances, Rules(EOS, 4))
    [found] = search(Ensemble(toys), Beam(size=256, nbest=20), max_length=4)
    assert [h.log_probability for h in found] == pytest.approx([c.log_probability for c in expected[:20]], abs=1e-9)


@pytest.mark.parametrize("same_source", [False, True])
def test_an_ensemble_of_one_or_of_equals_is_that_one(same_source):
    toy = AttendingToy(8, seed=3, scale=0.7)
    memory = toy.source([4, 2, 5, 3])
    options = {"max_length": torch.tensor([9, 4, 12, 7]), "align": True, "attention": True}
    beam = Beam(size=3, nbest=2, alpha=0.7, coverage_penalty=0.3)
    alone = search(toy, beam, rows=4, memory=memory, **options)
    for count in (1, 3):
        several = Ensemble([toy] * count, same_source=same_source)
        together = search(several, beam, rows=4, memory=(memory,) * count, **options)
        for found, expected in zip(together, alone):
            assert [(h.tokens, h.alignment, h.ended) for h in found] == [
                (h.tokens, h.alignment, h.ended) for h in expected
            ]
            assert [h[1:3] for h in found] == [pytest.approx(h[1:3]) for h in expected]
            for h, twin in zip(found, expected):
                torch.testing.assert_close(h.attention, twin.attention)


def test_attention_is_the_mean_for_one_source_and_that_of_the_first_otherwise():
    one, two, blind = AttendingToy(5, seed=1), AttendingToy(5, seed=2), Toy(5, seed=3)
    memory = one.source([3], seed=1), two.source([3], seed=2)
    looks = [toy.look([START], part) for toy, part in zip((one, two), memory)]
    beam = Beam(size=1, early=True)

    def first_look(decoders, memory, **options):
        [[best]] = search(Ensemble(decoders, **options), beam, memory=memory, max_length=3, attention=True)
        return best.attention[0]

    torch.testing.assert_close(first_look([one, two], memory, same_source=True), (looks[0] + looks[1]) / 2)
    torch.testing.assert_close(first_look([one, two], memory), looks[0])
    longer = memory[0], two.source([6])
    torch.testing.assert_close(first_look([one, two], longer), looks[0])
    sources = memory[0], blind.memory(1)
    torch.testing.assert_close(first_look([one, blind], sources, same_source=True), looks[0])
    torch.testing.assert_close(first_look([blind, one], sources[::-1], same_source=True), looks[0])
    with pytest.raises(InputError, match="need a model with attention; this has none"):
        first_look([blind, one], sources[::-1])


def test_without_a_source_an_ensemble_is_a_language_model():
    toys = [Toy(6, seed=seed, scale=1.0) for seed in range(2)]
    both = Ensemble(toys)
    settings = Sampling(greedy=True)
    drawn = list(sample(both, both.start(None), torch.tensor([START]), settings=settings, max_tokens=5))
    read = [START]
    for token in torch.stack(drawn).flatten().tolist():
        assert token == int(sum(toy.log_probabilities(read).exp() for toy in toys).argmax())
        read.append(token)


def test_members_that_do_not_suit_each_other_are_told():
    with pytest.raises(InputError) as caught:
        Ensemble([Toy(5), Toy(5), Toy(7)])
    wanted = "an ensemble needs models of one target vocabulary; these have 5, 5, 7 entries"
    assert str(caught.value) == wanted
    with pytest.raises(InputError, match="an ensemble needs at least one model"):
        Ensemble([])


def test_forced_decoding_finds_the_probability_that_a_search_gave():
    toy = AttendingToy(10, seed=5, scale=0.8)
    memory = toy.source([4, 2, 6])
    prefix = torch.tensor([[3, 3], [-1, -1], [4, -1]])
    options = {"max_length": 8, "min_length": 2, "prefix": prefix, "forbidden": (0, 5)}
    found = search(toy, Beam(size=4, nbest=4, alpha=1.0, block_ngrams=2), rows=3, memory=memory, **options)
    read = [[*h.tokens, *([EOS] if h.ended else [])] for best in found for h in best]
    assert [len(best) for best in found] == [4, 4, 4] and len({len(row) for row in read}) > 1
    width = max(map(len, read))
    tokens = torch.tensor([row + [-1] * (width - len(row)) for row in read])
    state = toy.reorder(toy.start(memory), torch.arange(3).repeat_interleave(4))
    chances = forced(toy, state, torch.full((12,), START), tokens, memory=memory)
    assert chances.sum(1).tolist() == pytest.approx([h.log_probability for best in found for h in best])
    assert chances[tokens < 0].tolist() == [0.0] * int((tokens < 0).sum())
    for row, (words, own) in enumerate(zip(read, chances.tolist())):
        by_step = [
            toy.log_probabilities([START, *words[:t]], memory.row(row // 4))[token] for t, token in enumerate(words)
        ]
        assert own[: len(words)] == pytest.approx([float(chance) for chance in by_step])


def test_tokens_with_a_gap_are_refused():
    toy = Toy(3)
    with pytest.raises(ValueError, match="expected tokens with -1 behind their ends only"):
        forced(toy, toy.start(None), torch.tensor([START]), torch.tensor([[2, -1, 2]]))
