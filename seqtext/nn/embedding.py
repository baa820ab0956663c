"""Words as vectors: pretrained and trained embeddings, characters (CNN or recurrent), letter shapes.

Everything that depends on a word alone is computed once for each word type of a batch, then spread over its
positions: a batch of text repeats its words, so this halves the work of the character model and costs nothing exact.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.errors import InputError
from seqtext.nn.cells import build_cell
from seqtext.nn.dropout import LockedDropout, WordDropout
from seqtext.nn.rnn import reversal, reverse


class Words(NamedTuple):
    """The words of a batch: U types, each once, and which type stands where."""

    positions: Tensor
    """(B, T) int64: the type at each position; padding may hold any type."""
    ids: Tensor
    """(U,) int64: ids in the training vocabulary, 1 for an unknown word."""
    characters: tuple[Tensor, ...]
    """Blocks (U', L') int64 of the types in their order: character ids, padded with 0."""
    shapes: Tensor
    """(U,) int64: letter shapes."""
    vectors: Tensor | None
    """(U, P): pretrained vectors, zero where there is none."""
    pretrained: Tensor
    """(U,) bool: whether there is a pretrained vector."""


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


class EmbeddingConfig(Config):
    """What a word's vector is made of."""

    size: int | None = Field(default=None, ge=0)
    """Features of a trained word embedding; 50 if not given. With pretrained vectors it is theirs and is not given."""
    spread: float = Field(default=1.0, gt=0.0)
    """Times the usual spread that trained vectors begin with. With little of it words mean nothing until they are
    learned, and unknown ones nothing at all: so recursive nets begin (Socher 2013)."""
    tune: bool = True
    """Train the pretrained vectors of training words; otherwise they stay as they are."""
    shapes: int = Field(default=0, ge=0)
    """Features of a word's letter shape (lower, Title, UPPER, number, ...); 0 for none."""
    characters: NoCharacters | CharacterCNN | CharacterRNN = Field(default=CharacterCNN(), discriminator="name")
    """How a word's characters are read."""
    rare_dropout: float = Field(default=0.5, ge=0.0, le=1.0)
    """Chance that a word seen once in training is read as the unknown word, which so is learned (Lample 2016)."""
    word_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Chance that all features of a position are dropped."""
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Locked dropout on the features of words."""


class CNNOverCharacters(nn.Module):
    """Convolutions of several widths over the characters of a word, maximum over positions.

    A convolution of width w is w matrix products, of the same characters, added with shifts. All of them, for all
    widths, are one product here: with so few channels that is several times faster on a CPU than a convolution.
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

    def forward(self, characters: Tensor) -> Tensor:
        """characters (U, L) -> (U, filters * widths).

        Every window that holds a real character counts, those half outside the word too; padding adds none.
        """
        margin = max(self.widths) - 1
        if self.training:  # the product of no character is zero: a third of the positions of short words
            # No two batches have as many characters, and for bfloat16 a CPU has a kernel compiled for each shape.
            with torch.autocast("cpu", enabled=False):
                products = self.taps(self.dropout(self.embedding(characters)))
            products = nn.functional.pad(products, (0, 0, margin, margin))  # (U, M + L + M, ...)
        else:  # without dropout, each character's product is known beforehand
            padded = nn.functional.pad(characters, (margin, margin))  # (U, M + L + M)
            products = nn.functional.embedding(padded, self.taps(self.embedding.weight))
        taps = products.unflatten(2, (-1, self.filters)).unbind(2)  # sum of widths times (U, M + L + M, F)
        real = (characters != 0).sum(1, keepdim=True)  # (U, 1)
        size, first, outputs = characters.size(1), 0, []
        for width in self.widths:
            windows = size + width - 1
            start = margin - (width - 1)  # the first window ends on the first character
            shifted = [taps[first + k][:, start + k : start + k + windows] for k in range(width)]
            y = shifted[0]
            for other in shifted[1:]:
                y = y + other  # (U, L + width - 1, F)
            beyond = torch.arange(windows, device=y.device) >= real + width - 1  # (U, L + width - 1)
            outputs.append(y.masked_fill(beyond.unsqueeze(2), -torch.inf).max(1).values)
            first += width
        # A word of no character has no window; it only occurs where a batch was padded with empty words.
        return torch.cat(outputs, dim=1).clamp(min=-1e4) + self.bias


class RNNOverCharacters(nn.Module):
    """The last states of a recurrent layer that reads a word's characters from both ends."""

    def __init__(self, vocabulary: int, config: CharacterRNN) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, config.size, padding_idx=0)
        self.dropout = LockedDropout(config.dropout)
        self.forwards = build_cell(config.cell, config.size, config.hidden_size)
        self.backwards = build_cell(config.cell, config.size, config.hidden_size)
        self.output_size = 2 * config.hidden_size

    def forward(self, characters: Tensor) -> Tensor:
        """characters (U, L) -> (U, 2H)."""
        x = self.dropout(self.embedding(characters))  # (U, L, D)
        real = (characters != 0).sum(1)
        last = (real - 1).clamp(min=0).view(-1, 1, 1)
        ends = []
        for cell, inputs in ((self.forwards, x), (self.backwards, reverse(x, reversal(real, x.size(1), x.device)))):
            states, _ = cell(inputs)
            ends.append(states.gather(1, last.expand(-1, 1, states.size(2))).squeeze(1))
        return torch.cat(ends, dim=1)


class WordEmbedding(nn.Module):
    """Pretrained vectors, a trained table, characters and letter shapes, side by side.

    With pretrained vectors the table holds what training adds to them, so it begins at zero for words that have a
    vector; a word first met at prediction then has its vector and nothing added, and the vectors themselves are
    never copied into a run. Words without a vector, and all words where there are none, begin at random.
    """

    rare_from: Tensor

    def __init__(
        self,
        config: EmbeddingConfig,
        *,
        vocabulary: int,
        characters: int,
        shapes: int,
        vector_size: int = 0,
        pretrained: Tensor | None = None,
        rare_from: int | None = None,
    ) -> None:
        """`pretrained` (V,) bool: which ids have a pretrained vector. Ids from `rare_from` on were seen once.

        Raises `InputError` where `config` leaves a word no feature at all.
        """
        super().__init__()
        self.tune, self.rare_dropout = config.tune, config.rare_dropout
        # A buffer, since only the training text knows it and a resumed run needs it.
        self.register_buffer("rare_from", torch.tensor(vocabulary if rare_from is None else rare_from))
        if vector_size and config.size not in (None, vector_size):
            raise InputError(
                f"model.embedding.size = {config.size}: the vectors have {vector_size} features; leave it out"
            )
        size = vector_size or (50 if config.size is None else config.size)
        self.table = nn.Embedding(vocabulary, size, padding_idx=0) if size else None
        self.shapes = nn.Embedding(shapes, config.shapes) if config.shapes else None
        self.characters: CNNOverCharacters | RNNOverCharacters | None = None
        if isinstance(config.characters, CharacterCNN):
            self.characters = CNNOverCharacters(characters, config.characters)
        elif isinstance(config.characters, CharacterRNN):
            self.characters = RNNOverCharacters(characters, config.characters)
        self.output_size = size + config.shapes + (self.characters.output_size if self.characters else 0)
        if not self.output_size:
            raise InputError("model.embedding: a word has no features; give it a size, characters, shapes or vectors")
        self.word_dropout, self.dropout = WordDropout(config.word_dropout), LockedDropout(config.dropout)
        if self.table is not None:
            bound = config.spread * (3.0 / size) ** 0.5
            nn.init.uniform_(self.table.weight, -bound, bound)
            self.table.weight.data[0].zero_()
            if pretrained is not None:
                self.table.weight.data[pretrained] = 0.0

    def forward(self, words: Words) -> Tensor:
        """words of (B, T) positions -> (B, T, output_size)."""
        parts = []
        if self.table is not None:
            ids = words.ids
            if self.training and self.rare_dropout > 0.0:
                chance = torch.rand(ids.shape, device=ids.device) < self.rare_dropout
                ids = torch.where((ids >= self.rare_from) & chance, 1, ids)
            parts.append(self.meanings(ids, words.vectors, words.pretrained))
        if self.characters is not None:
            parts.append(torch.cat([self.characters(block) for block in words.characters]))
        if self.shapes is not None:
            parts.append(self.shapes(words.shapes))
        types = torch.cat([part.to(parts[0].dtype) for part in parts], dim=1)  # (U, E)
        return self.dropout(self.word_dropout(nn.functional.embedding(words.positions, types)))

    def meanings(self, ids: Tensor, vectors: Tensor | None, pretrained: Tensor) -> Tensor:
        """Ids (U,), and vectors and whether there are any as in `Words` -> (U, P): all of a word but its letters."""
        assert self.table is not None
        table = self.table(ids)
        if vectors is None:
            return table
        # The unknown word's embedding is for words without a vector; frozen vectors take nothing added.
        plain = pretrained & (ids == 1) if self.tune else pretrained
        return table.masked_fill(plain.unsqueeze(1), 0.0) + vectors.to(table.dtype)
