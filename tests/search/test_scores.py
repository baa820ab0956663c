"""The scores of a batch, some sentences at a time."""

from __future__ import annotations

import pytest
import torch

from seqtext.search import decoder
from seqtext.search.beam import Beam, beam_search
from seqtext.search.decoder import log_probabilities, pieces
from tests.search.toy import Toy


@pytest.mark.parametrize(("count", "width", "size"), [(1, 1, 1), (7, 5, 100), (3, 2, decoder.SCORES), (400, 1, 8000)])
def test_pieces_hold_every_sentence_once_and_few_scores(count, width, size):
    cut = list(pieces(count, width, size))
    assert [sentence for piece in cut for sentence in range(count)[piece]] == list(range(count))
    assert all(
        piece.stop - piece.start == 1 or (piece.stop - piece.start) * width * size <= decoder.SCORES for piece in cut
    )


@pytest.mark.parametrize("scores", [1, 30, 75])
def test_a_search_finds_the_same_however_few_are_scored_at_a_time(monkeypatch, scores):
    toy = Toy(5, seed=3)
    memory, first = toy.memory(7), torch.full((7,), 2)
    prefix = torch.tensor([[3, -1]] * 3 + [[-1, -1]] * 2 + [[4, 3]] * 2)

    def search():
        options = {"eos": 1, "max_length": torch.tensor([2, 3, 4, 5, 6, 7, 8]), "min_length": 1, "forbidden": [0]}
        settings = Beam(size=3, nbest=3, block_ngrams=2)
        found = beam_search(toy, toy.start(memory), first, settings=settings, prefix=prefix, memory=memory, **options)
        return [[(one.tokens, pytest.approx(one.score, rel=1e-9), one.ended) for one in some] for some in found]

    expected = search()
    monkeypatch.setattr(decoder, "SCORES", scores)
    assert search() == expected


def test_log_probabilities_are_the_log_softmax_in_float32_at_least():
    scores = torch.randn(3, 7)
    torch.testing.assert_close(log_probabilities(scores), scores.double().log_softmax(-1).float())
    assert log_probabilities(scores.bfloat16()).dtype == torch.float32
    assert log_probabilities(scores.double()).dtype == torch.float64
