"""The encoders behind one key: what a recipe may say of each, and that every cell is one of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from pydantic import Field

from seqtext.config import Config, parse
from seqtext.errors import ConfigError
from seqtext.nn.cells import CELLS
from seqtext.nn.encoders import CellsConfig, EncoderConfig, build_encoder
from seqtext.nn.rnn import Recurrent, RecurrentConfig


class Model(Config):
    encoder: EncoderConfig = Field(default=CellsConfig(), discriminator="name")


def read(values: dict[str, Any]) -> Any:
    return parse(Model, {"encoder": values}, source="recipe.toml", prefix="model").encoder


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_by_name_is_the_same_stack_as_by_cell(cell: str) -> None:
    settings = {"hidden_size": 4, "layers": 2, "bidirectional": False}
    torch.manual_seed(1)
    named: Any = build_encoder(2, read({"name": cell, **settings}))
    torch.manual_seed(1)
    stack = Recurrent(2, RecurrentConfig.model_validate({"cell": cell, **settings}))
    x, lengths = torch.randn(2, 4, 2), torch.tensor([4, 2])
    (output,) = named(x, lengths)
    assert torch.equal(output.values, stack(x, lengths, with_state=False)[0]) and named.sizes == [4]


NAMES = ", ".join([*CELLS, "cnn", "esn", "bow"])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "lstmm"}, f".name: expected one of {NAMES}, got 'lstmm'; did you mean 'lstm'?"),
        ({"hidden_size": 3}, f".name: missing; it must be one of {NAMES}"),
        (
            {"name": "gru", "cell_options": {"nonlinearity": "relu"}},
            ".cell_options: cell 'gru' has no option 'nonlinearity'; cells that have it: rnn",
        ),
        ({"name": "bow", "hidden_size": 3}, ".hidden_size: unknown key; known keys here: name"),
        ({"name": "cnn", "width": [3]}, ".width: unknown key; did you mean 'widths'?"),
        ({"name": "cnn", "widths": [3, 0]}, ".widths.1: expected greater than or equal to 1, got 0"),
        ({"name": "cnn", "padding": "full"}, ".padding: expected 'same' or 'valid', got 'full'"),
        ({"name": "esn", "leak": 0.0}, ".leak: expected greater than 0, got 0.0"),
        ({"name": "esn", "density": 2.0}, ".density: expected less than or equal to 1, got 2.0"),
    ],
)
def test_what_a_recipe_may_not_say(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"model.encoder{message}") + "$"):
        read(values)
