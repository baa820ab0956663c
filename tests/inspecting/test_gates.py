"""Gates are shown of the states that a model really had, however they went from step to step."""

from __future__ import annotations

import pytest
import torch

from seqtext.config import parse
from seqtext.inspecting.gates import gates_of
from seqtext.inspecting.watching import cells_of, watching
from seqtext.nn.language_model import LanguageModel, LanguageModelConfig
from seqtext.report.figures import scale_of


@pytest.mark.parametrize("recurrence", ["hidden", "output", "both", "output of words"])
def test_states_are_those_of_the_model(recurrence: str) -> None:
    values = {"embedding_size": 3, "recurrence": recurrence.split()[0], "encoder": {"hidden_size": 4}}
    if recurrence == "output of words":
        values["feedback"] = {"of": "word"}
    torch.manual_seed(2)
    module = LanguageModel(parse(LanguageModelConfig, values, source="test"), 9).eval()
    for part in module.parameters():
        part.data.normal_()
    with torch.no_grad(), watching(cells_of(module)) as seen:
        states = module(torch.tensor([[1, 5, 2, 8, 5]])).states
    (only,) = seen.values()
    torch.testing.assert_close(gates_of(only)["state"], states[0])


def test_the_steps_that_a_clockwork_counts_are_no_memory() -> None:
    encoder = {"cell": "clockwork", "cell_options": {"periods": [1, 3]}, "hidden_size": 4}
    values = {"embedding_size": 3, "encoder": encoder}
    module = LanguageModel(parse(LanguageModelConfig, values, source="test"), 9).eval()
    with torch.no_grad(), watching(cells_of(module)) as seen:
        module(torch.tensor([[1, 5, 2]]))
    (only,) = seen.values()
    assert list(gates_of(only)) == ["state"]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"cell": "gru", "transition_depth": 2},
            ["reset", "update", "candidate", "reset 2", "update 2", "candidate 2"],
        ),
        ({"cell": "lstm", "dilation": 2}, ["input", "forget", "candidate", "output"]),
        ({"cell": "lstm", "dilation": 2, "transition_depth": 2, "cell_options": {"peepholes": True}}, None),
    ],
)
def test_cells_made_of_cells_tell_their_gates(settings: dict[str, object], expected: list[str] | None) -> None:
    values = {"embedding_size": 3, "encoder": {"hidden_size": 4, **settings}}
    torch.manual_seed(4)
    module = LanguageModel(parse(LanguageModelConfig, values, source="test"), 9).eval()
    with torch.no_grad(), watching(cells_of(module)) as seen:
        states = module(torch.tensor([[1, 5, 2, 8, 5]])).states
    (only,) = seen.values()
    found = gates_of(only)
    torch.testing.assert_close(found["state"], states[0])
    for name, values in found.items():  # what a picture shows them on
        low, high = scale_of(name, float(values.abs().max()))
        assert low <= values.min() and values.max() <= high
    if expected is not None:
        assert list(found) == [*expected, "state", *(["memory"] if settings["cell"] == "lstm" else [])]
