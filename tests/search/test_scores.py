"""Scores of a vocabulary as log-probabilities."""

from __future__ import annotations

import pytest
import torch

from seqtext.search.decoder import ROWS, log_probabilities


@pytest.mark.parametrize("rows", [1, ROWS, 2 * ROWS + 3])
def test_log_probabilities_are_the_log_softmax_of_any_number_of_rows(rows: int) -> None:
    torch.manual_seed(0)
    scores = torch.randn(rows, 7)
    given = scores.clone()
    found = log_probabilities(scores)
    torch.testing.assert_close(found, scores.double().log_softmax(-1).float())
    found.zero_()  # a search writes to them: what the decoder gave must stay as it is
    assert torch.equal(scores, given)
    assert log_probabilities(scores.bfloat16()).dtype == torch.float32
