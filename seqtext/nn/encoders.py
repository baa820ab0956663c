"""The encoders of a whole text behind one key: recurrent cells, convolutions, a reservoir, or a mere bag of words.

All have the same face, so that any way of pooling follows any of them:

    encoder(x (B, T, D), lengths (B,))  -> [States (B, T', H), ...]     one or more outputs
    encoder.sizes, encoder.output_lengths(longest)                      features and positions of each output
    encoder.directions                                                  2 where the halves of H read both ways
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Tag
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.cells import CELLS, State
from seqtext.nn.cnn import CNN, CNNConfig
from seqtext.nn.pool import States
from seqtext.nn.reservoir import Echo, Reservoir, ReservoirConfig
from seqtext.nn.rnn import ForwardConfig, Recurrent, RecurrentConfig, Stack


class CellsConfig(Stack):
    """Recurrent layers of the cell that `name` says."""

    name: Literal[tuple(CELLS)] = "lstm"  # type: ignore[valid-type]
    """Which cell."""
    bidirectional: bool = True
    """Read in both directions and join the states."""

    @property  # type: ignore[misc]
    def cell(self) -> str:  # type: ignore[override]
        return self.name


class BagConfig(Config):
    """A bag of words: the mean of the words' vectors, whatever their order; the baseline to beat."""

    name: Literal["bow"] = "bow"


EncoderConfig = CellsConfig | CNNConfig | ReservoirConfig | BagConfig


class NoEncoderConfig(Config):
    """The words' vectors as they are: whatever is above knows nothing of a word's neighbours but by itself."""

    name: Literal["none"] = "none"


class NoEncoder(nn.Module):
    """The same, with the face of `Recurrent`."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.output_size = input_size

    def forward(self, x: Tensor, lengths: Tensor | None, *, with_state: bool = True) -> tuple[Tensor, list[State]]:
        """x (B, T, D) -> the same, and no state."""
        return x, []


def _or_named(recurrent: type[Stack]) -> Discriminator:
    """Tells the others by their names; recurrent layers have none, only a cell."""

    def kind(values: Any) -> str:
        name = values.get("name") if isinstance(values, Mapping) else getattr(values, "name", None)
        return name if name == "esn" or (name == "none" and recurrent is RecurrentConfig) else recurrent.__name__

    return Discriminator(kind)


StackConfig = Annotated[
    Annotated[RecurrentConfig, Tag("RecurrentConfig")]
    | Annotated[ReservoirConfig, Tag("esn")]
    | Annotated[NoEncoderConfig, Tag("none")],
    _or_named(RecurrentConfig),
]
"""What gives taggers a state for each word: recurrent layers or, by `name = "esn"`, a reservoir."""
ForwardStackConfig = Annotated[
    Annotated[ForwardConfig, Tag("ForwardConfig")] | Annotated[ReservoirConfig, Tag("esn")],
    _or_named(ForwardConfig),
]
"""The same for language models, which read forward only."""


def build_stack(input_size: int, config: Stack | ReservoirConfig | NoEncoderConfig) -> Recurrent | Echo | NoEncoder:
    """The recurrent layers, the reservoir or nothing, for inputs of `input_size` features."""
    if isinstance(config, NoEncoderConfig):
        return NoEncoder(input_size)
    return Echo(input_size, config) if isinstance(config, ReservoirConfig) else Recurrent(input_size, config)


class Cells(nn.Module):
    """Stacked recurrent layers; their states of every position."""

    def __init__(self, input_size: int, config: CellsConfig) -> None:
        super().__init__()
        self.stack = Recurrent(input_size, config)
        self.sizes, self.directions = [self.stack.output_size], self.stack.directions

    def output_lengths(self, longest: int) -> list[int]:
        return [longest]

    def forward(self, x: Tensor, lengths: Tensor) -> list[States]:
        """x (B, T, D), lengths (B,) on the CPU -> states (B, T, directions * H)."""
        # Last states are found among the others: asking for them would pack the rows, which is slower.
        states, _ = self.stack(x, lengths, with_state=False)
        return [States(states, lengths)]


class Bag(nn.Module):
    """The words' vectors as they are."""

    directions = 1

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.sizes = [input_size]

    def output_lengths(self, longest: int) -> list[int]:
        return [longest]

    def forward(self, x: Tensor, lengths: Tensor) -> list[States]:
        """x (B, T, D), lengths (B,) on the CPU -> states (B, T, D)."""
        return [States(x, lengths)]


def build_encoder(input_size: int, config: EncoderConfig) -> Cells | CNN | Reservoir | Bag:
    """The encoder of `config`, for words of `input_size` features."""
    if isinstance(config, CellsConfig):
        return Cells(input_size, config)
    if isinstance(config, CNNConfig):
        return CNN(input_size, config)
    if isinstance(config, ReservoirConfig):
        return Reservoir(input_size, config)
    return Bag(input_size)
