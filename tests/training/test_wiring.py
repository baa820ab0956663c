"""Skips that get past no layer are refused, and recurrences that reach farther than any text are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import seqtext
from seqtext import api
from seqtext.errors import ConfigError
from seqtext.nn.attention import Additive
from seqtext.nn.decoder import DecoderConfig, RecurrentDecoder
from seqtext.nn.rnn import Recurrent, RecurrentConfig
from seqtext.session import Doubted
from seqtext.training.wiring import check_skips

SAME = "a layer whose output has the size of its input"
SMALL: dict[str, Any] = {"data.examples": 6, "data.held_out": 2, "train.epochs": 1, "model.encoder.hidden_size": 4}


@pytest.mark.parametrize(
    ("settings", "inputs", "needs"),
    [
        ({"skip": "residual"}, 3, SAME),
        ({"skip": "highway"}, 3, SAME),
        ({"skip": "dense"}, 8, "two layers"),
        ({"skip": "residual", "layers": 2, "last_size": 3}, 3, SAME),
        ({"skip": "residual"}, 8, None),
        ({"skip": "highway", "layers": 2}, 3, None),
        ({"skip": "dense", "layers": 2}, 3, None),
        ({"skip": "none"}, 3, None),
    ],
    ids=str,
)
def test_a_skip_past_no_layer_is_refused(settings: dict[str, Any], inputs: int, needs: str | None) -> None:
    stack = Recurrent(inputs, RecurrentConfig.model_validate({"hidden_size": 4, **settings}))
    x, lengths = torch.randn(2, 5, inputs), torch.tensor([5, 5])
    skipping, _ = stack(x, lengths)
    stack.skip = "none"
    if needs or settings["skip"] != "dense":  # without a dense skip, layers would not have the sizes they are built for
        assert torch.equal(stack(x, lengths)[0], skipping) == (needs is not None or settings["skip"] == "none")
    stack.skip = settings["skip"]
    module = nn.ModuleDict({"encoder": nn.ModuleDict({"stack": stack})})
    if needs is None:
        check_skips(module, place="mine.toml")
        return
    with pytest.raises(ConfigError) as caught:
        check_skips(module, place="mine.toml")
    told = f"'{settings['skip']}' does nothing here, for it needs {needs}; set 'none', or more layers"
    assert str(caught.value) == f"mine.toml: 1 fault\n  model.encoder.skip: {told}"


def test_a_skip_in_one_half_of_a_decoder_is_enough() -> None:
    for layers, right in ((3, True), (2, False)):
        config = DecoderConfig(attention=Additive(), layers=layers, attention_layer=1, skip="residual", hidden_size=4)
        module = nn.ModuleDict({"decoder": RecurrentDecoder(3, 5, 6, config)})
        if right:
            check_skips(module, place="mine.toml")
        else:
            with pytest.raises(ConfigError, match=r"model\.decoder\.skip: 'residual' does nothing here"):
                check_skips(module, place="mine.toml")


def test_nothing_is_made_where_a_skip_does_nothing(tmp_path: Path) -> None:
    for command in (api.check, lambda *given, **options: seqtext.train(*given, out=tmp_path / "run", **options)):
        with pytest.raises(ConfigError, match=r"model\.encoder\.skip: 'dense' does nothing here"):
            command("memory", overrides=SMALL | {"model.encoder.skip": "dense"}, device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_reach_beyond_every_text_is_told(tmp_path: Path) -> None:
    for number, (settings, steps) in enumerate(
        (
            ({"model.encoder.layers": 2, "model.encoder.dilation": [1, 61]}, 61),
            ({"model.encoder.cell": "clockwork", "model.encoder.cell_options.periods": [1, 80]}, 80),
            ({"model.encoder.dilation": 60}, None),
        )
    ):
        told = f"model.encoder: dilation or periods of {steps} steps, and no training example has more than 60 tokens"
        facts = api.check("memory", overrides=SMALL | settings, device="cpu")
        assert [fact for name, fact in facts if name == "warning"] == ([told] if steps else [])
        heard: list[Any] = []
        out = tmp_path / str(number)
        seqtext.train("memory", overrides=SMALL | settings, out=out, device="cpu", listen=heard.append)
        assert [event.warnings for event in heard if isinstance(event, Doubted)] == ([[told]] if steps else [])
