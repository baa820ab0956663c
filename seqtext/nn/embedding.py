"""Words as vectors: pretrained and trained embeddings, characters (CNN or recurrent), letter shapes.

Everything that depends on a word alone is computed once for each word type of a batch, then spread over its
positions: a batch of text repeats its words, so this halves the work of the character model and costs nothing exact.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.errors import InputError
from seqtext.nn.characters import CharacterCNN, CharacterRNN, CNNOverCharacters, NoCharacters, RNNOverCharacters
from seqtext.nn.dropout import LockedDropout, WordDropout


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
            parts.append(self.characters(*words.characters))
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
