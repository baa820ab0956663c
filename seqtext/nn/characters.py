"""A word's vector from its characters: convolutions (Ma & Hovy 2016) or a recurrent layer (Lample 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.cells import build_cell
from seqtext.nn.dropout import LockedDropout
from seqtext.nn.rnn import reversal, reverse


class NoCharacters(Config):
    """Words are read whole."""

    name: Literal["none"] = "none"


class CharacterCNN(Config):
    """Convolutions over a word's characters, the maximum of each filter (Ma & Hovy 2016)."""

    name: Literal["cnn"] = "cnn"
    size: int = Field(default=30, ge=1)
    """Features of a character."""
    filters: int = Field(default=50, ge=1)
    """Filters of each width."""
    widths: list[Annotated[int, Field(ge=1)]] = Field(default=[3], min_length=1)
    """Characters a filter sees."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Locked dropout on characters' features."""


class CharacterRNN(Config):
    """A recurrent layer over a word's characters in both directions, their last states (Lample 2016)."""

    name: Literal["rnn"] = "rnn"
    cell: Literal["rnn", "lstm", "gru"] = "lstm"
    """Which cell reads the characters."""
    size: int = Field(default=30, ge=1)
    """Features of a character."""
    hidden_size: int = Field(default=25, ge=1)
    """Features of a state, in each direction."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Locked dropout on characters' features."""


class CNNOverCharacters(nn.Module):
    """Convolutions of several widths over the characters of a word, maximum over positions.

    A convolution of width w is w matrix products, of the same characters, added with shifts. All of them, for all
    widths and all words, are one product here: with so few channels that is several times faster on a CPU than a
    convolution.
    """

    def __init__(self, vocabulary: int, config: CharacterCNN) -> None:
        super().__init__()
        self.widths, self.filters = config.widths, config.filters
        self.embedding = nn.Embedding(vocabulary, config.size, padding_idx=0)
        self.dropout = LockedDropout(config.dropout)
        self.taps = nn.Linear(config.size, sum(config.widths) * config.filters, bias=False)
        self.bias = nn.Parameter(torch.zeros(len(config.widths) * config.filters))
        self.output_size = config.filters * len(config.widths)
        bound = (3.0 / config.size) ** 0.5
        nn.init.uniform_(self.embedding.weight, -bound, bound)
        self.embedding.weight.data[0].zero_()
        start = 0
        for width in config.widths:  # as torch starts a convolution: by the number of inputs of a filter
            rows = self.taps.weight.data[start : start + width * config.filters]
            nn.init.uniform_(rows, -((width * config.size) ** -0.5), (width * config.size) ** -0.5)
            start += width * config.filters

    def forward(self, *blocks: Tensor) -> Tensor:
        """Words as blocks of (U, L) characters, padded with 0 -> (all U, filters * widths).

        Every window that holds a real character counts, those half outside the word too; padding adds none.
        """
        characters = torch.cat([block.flatten() for block in blocks])  # (N,)
        if self.training:
            rows = self.embedding(characters).split([block.numel() for block in blocks])
            parts = [self.dropout(part.view(*block.shape, -1)).flatten(0, 1) for part, block in zip(rows, blocks)]
            # No two batches have as many characters, and for bfloat16 a CPU has a kernel compiled for each shape.
            with torch.autocast("cpu", enabled=False):
                products = self.taps(torch.cat(parts))
        else:  # without dropout, each character's product is known beforehand
            products = nn.functional.embedding(characters, self.taps(self.embedding.weight), padding_idx=0)
        if torch.is_grad_enabled():
            best = _Maxima.apply(products, blocks, self.widths)
        else:
            best, _ = _maxima(products, blocks, self.widths)
        # A word of no character has no window; it only occurs where a batch was padded with empty words.
        return best.clamp(min=-1e4) + self.bias


def _maxima(products: Tensor, blocks: Sequence[Tensor], widths: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
    """The maximum over windows of each filter, (all U, F * widths), and which window has it, (U, F) of each block for
    each width.

    `products` (N, F * sum of widths) of all characters of the blocks. Window w of a word ends on character w.
    """
    taps = products.unflatten(1, (sum(widths), -1)).split([block.numel() for block in blocks])
    maxima: list[Tensor] = []
    places: list[Tensor] = []
    first = 0
    for width in widths:
        found = []
        for block, of_block in zip(blocks, taps):
            words, longest = block.shape
            at = of_block.unflatten(0, (words, longest))  # (U, L, taps, F)
            # The character p counts in the windows that end on p to p + width - 1; a window whose first one is padding
            # is none.
            outside = at.new_zeros(words, longest, 1).masked_fill_((block == 0).unsqueeze(2), -torch.inf)
            y = nn.functional.pad(at[:, :, first] + outside, (0, 0, width - 1, 0))  # (U, L + width - 1, F)
            for k in range(1, width):
                y[:, width - 1 - k : width - 1 - k + longest] += at[:, :, first + k]
            found.append(y.max(1))
        maxima.append(torch.cat([values for values, _ in found]))
        places.extend(indices for _, indices in found)
        first += width
    return torch.cat(maxima, dim=1), places


class _Maxima(torch.autograd.Function):
    """`_maxima`, whose gradient goes to the products within the windows that have a maximum."""

    @staticmethod
    def forward(ctx: Any, products: Tensor, blocks: Sequence[Tensor], widths: Sequence[int]) -> Tensor:
        best, places = _maxima(products, blocks, widths)
        ctx.save_for_backward(*places)
        ctx.shapes, ctx.widths, ctx.count = [block.shape for block in blocks], widths, len(products)
        return best

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        places, first = iter(ctx.saved_tensors), 0
        result = grad.new_empty(ctx.count, sum(ctx.widths), grad.size(1) // len(ctx.widths))
        parts = result.split([words * longest for words, longest in ctx.shapes])
        for width, of_width in zip(ctx.widths, grad.chunk(len(ctx.widths), dim=1)):
            of_blocks = of_width.split([words for words, _ in ctx.shapes])
            for part, (words, longest), each in zip(parts, ctx.shapes, of_blocks):
                y = grad.new_zeros(words, longest + width - 1, part.size(2))
                y.scatter_(1, next(places).unsqueeze(1), each.unsqueeze(1))
                at = part.unflatten(0, (words, longest))
                for k in range(width):
                    at[:, :, first + k] = y[:, width - 1 - k : width - 1 - k + longest]
            first += width
        return result.flatten(1), None, None


class RNNOverCharacters(nn.Module):
    """The last states of a recurrent layer that reads a word's characters from both ends."""

    def __init__(self, vocabulary: int, config: CharacterRNN) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, config.size, padding_idx=0)
        self.dropout = LockedDropout(config.dropout)
        self.forwards = build_cell(config.cell, config.size, config.hidden_size)
        self.backwards = build_cell(config.cell, config.size, config.hidden_size)
        self.output_size = 2 * config.hidden_size

    def forward(self, *blocks: Tensor) -> Tensor:
        """Words as blocks of (U, L) characters, padded with 0 -> (all U, 2H)."""
        return torch.cat([self._read(block) for block in blocks])

    def _read(self, characters: Tensor) -> Tensor:
        """characters (U, L) -> (U, 2H)."""
        x = self.dropout(self.embedding(characters))  # (U, L, D)
        real = (characters != 0).sum(1)
        last = (real - 1).clamp(min=0).view(-1, 1, 1)
        ends = []
        for cell, inputs in ((self.forwards, x), (self.backwards, reverse(x, reversal(real, x.size(1), x.device)))):
            states, _ = cell(inputs)
            ends.append(states.gather(1, last.expand(-1, 1, states.size(2))).squeeze(1))
        return torch.cat(ends, dim=1)
