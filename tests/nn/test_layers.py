"""Layers from input to output: every weight that is trained is in exactly one, whatever the module."""

from __future__ import annotations

from typing import Any

import datasets
import pytest
from torch import nn

from seqtext.config import parse
from seqtext.nn.language_model import LanguageModel, LanguageModelConfig
from seqtext.nn.layers import layers
from seqtext.tasks.ner import Ner, NerData
from seqtext.tasks.sentiment import Sentiment, SentimentData

ROWS = {"tokens": [["a", "b"]], "tags": [["O", "O"]], "label": ["good"], "text": ["a b"]}
STACK = {"hidden_size": 3, "layers": 2}


def build(task: Any, data: Any, **model: Any) -> nn.Module:
    fitted = task.fit(data, datasets.Dataset.from_dict(ROWS))
    module: nn.Module = fitted.build(parse(task.Model, model, source="recipe"))
    return module


def language_model(**settings: Any) -> LanguageModel:
    values = {"embedding_size": 4, "encoder": STACK, **settings}
    return LanguageModel(parse(LanguageModelConfig, values, source="recipe"), 9)


CASES = {
    "tagger": (build(Ner, NerData(), encoder=STACK), {"embedding": "embedding", "head": "output crf"}),
    "classifier": (
        build(Sentiment, SentimentData(), encoder={"name": "gru", **STACK}, pool={"name": "attention"}, norm="batch"),
        {"embedding": "embedding", "head": "pool norm output"},
    ),
    "convolutions": (
        build(Sentiment, SentimentData(), encoder={"name": "cnn"}),
        {"embedding": "embedding", "encoder": "encoder", "head": "output"},
    ),
    "bag": (
        build(Sentiment, SentimentData(), encoder={"name": "bow"}),
        {"embedding": "embedding", "head": "output"},
    ),
    "reservoir, which trains no word": (build(Sentiment, SentimentData(), encoder={"name": "esn"}), {"head": "output"}),
    "language model": (language_model(tied=False), {"embedding": "embedding", "head": "softmax"}),
    # What is tied to the output layer is trained with it.
    "tied": (language_model(), {"head": "embedding projection softmax"}),
    "another": (nn.Sequential(nn.Linear(2, 2), nn.Tanh()), {"head": "0"}),
}


@pytest.mark.parametrize("name", CASES)
def test_layers_part_the_weights_from_input_to_output(name: str) -> None:
    module, expected = CASES[name]
    found = layers(module)
    names = {parameter: name for name, parameter in module.named_parameters()}
    recurs = name in ("tagger", "classifier", "language model", "tied")
    middle = [f"encoder.layers.{depth}" for depth in (0, 1)] * recurs + ["encoder"] * ("encoder" in expected)
    order = ["embedding"] * ("embedding" in expected) + middle + ["head"]
    assert [layer.name for layer in found] == order
    for layer in found:
        inside = {names[parameter] for parameter in layer.parameters}
        if layer.name in expected:
            assert {each.partition(".")[0] for each in inside} == set(expected[layer.name].split()), layer.name
        else:
            depth = layer.name.rpartition(".")[2]
            assert {each.partition("layers.")[2].partition(".")[0] for each in inside} == {depth}
            directions = len({each.split("layers.")[1].split(".")[1] for each in inside})
            assert len(inside) == 4 * directions
    parted = [parameter for layer in found for parameter in layer.parameters]
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    assert len(parted) == len(trained) and set(parted) == set(trained)
