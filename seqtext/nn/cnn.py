"""Convolutions over the words of a text (Kim 2014, eq. 1-2), several widths side by side.

A filter of width F over a text of N words has N - F + 1 outputs where every window lies within the text ("valid"), or
N where the text goes on with zeros around it ("same"; of an even width, one zero more after it than before).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.pool import States

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "gelu": nn.functional.gelu,
    "none": lambda x: x,
}


class CNNConfig(Config):
    """Convolutions over words."""

    name: Literal["cnn"] = "cnn"
    widths: list[Annotated[int, Field(ge=1)]] = Field(default=[3, 4, 5], min_length=1)
    """Words a filter sees."""
    filters: int = Field(default=100, ge=1)
    """Filters of each width."""
    padding: Literal["same", "valid"] = "same"
    """Zeros around a text, so that there are as many outputs as words (same), or none (valid)."""
    activation: Literal["relu", "tanh", "gelu", "none"] = "relu"
    """What a filter's sum goes through."""


class CNN(nn.Module):
    """Convolutions of several widths, each an output of its own."""

    directions = 1

    def __init__(self, input_size: int, config: CNNConfig) -> None:
        super().__init__()
        self.padding, self.activation = config.padding, ACTIVATIONS[config.activation]
        self.widths = config.widths
        self.sizes = [config.filters] * len(config.widths)
        # Torch's own kernel was 1.5 times as fast, with its gradient, as one product of shifted or unfolded windows.
        self.convolutions = nn.ModuleList(
            nn.Conv1d(input_size, config.filters, width, padding=(width - 1) // 2 if config.padding == "same" else 0)
            for width in config.widths
        )

    def output_lengths(self, longest: int) -> list[int]:
        """Positions of each output for a text of `longest` words."""
        if self.padding == "same":
            return [longest] * len(self.widths)
        return [max(longest - width, 0) + 1 for width in self.widths]

    def forward(self, x: Tensor, lengths: Tensor) -> list[States]:
        """x (B, T, D), lengths (B,) on the CPU -> states (B, T', filters) of each width.

        With "valid" a text shorter than a filter has one output, over the text and zeros after it.
        """
        x = x.masked_fill(~States(x, lengths).real(), 0.0).transpose(1, 2)  # (B, D, T)
        outputs = []
        for width, convolution in zip(self.widths, self.convolutions):
            if self.padding == "same":
                real, more = lengths, 1 - width % 2
            else:
                real, more = (lengths - width).clamp(min=0) + 1, max(0, width - x.size(2))
            sums = convolution(nn.functional.pad(x, (0, more)) if more else x)  # (B, filters, T')
            outputs.append(States(self.activation(sums).transpose(1, 2), real))
        return outputs
