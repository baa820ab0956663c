"""A class for every constituent: words' vectors, leaves made of them, a composition up the tree, a linear layer.

The published models it covers: recursive nets over word vectors alone (Socher 2011, 2012, 2013; Tai 2015), and over the
states of a BiLSTM that has read the sentence (as leaves in Choi 2018). Where there is a parser (`span_parser`), it
reads the same words' vectors and is trained with the rest.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.classifier import TextEmbedding
from seqtext.nn.dropout import LockedDropout
from seqtext.nn.embedding import WordEmbedding, Words
from seqtext.nn.encoders import CellsConfig
from seqtext.nn.products import evenly
from seqtext.nn.rnn import Recurrent
from seqtext.nn.span_parser import SpanParser, SpanParserConfig
from seqtext.nn.tree import Forest
from seqtext.nn.tree_cells import CellConfig, LSTMConfig, build_tree_cell


class WordLeaves(Config):
    """Leaves are made of their words' vectors alone."""

    name: Literal["words"] = "words"


class NoParser(Config):
    """Trees must be given."""

    name: Literal["none"] = "none"


class TreeLossConfig(Config):
    """What counts how much in training."""

    root: float = Field(default=1.0, ge=0.0)
    """Weight of the class of a whole sentence."""
    nodes: float = Field(default=1.0, ge=0.0)
    """Weight of the class of each other constituent and word."""
    parser: float = Field(default=1.0, ge=0.0)
    """Weight of the parser's loss."""

    @model_validator(mode="after")
    def _something(self) -> TreeLossConfig:
        if not (self.root or self.nodes or self.parser):
            raise ValueError("root, nodes and parser are all 0: nothing is left to learn")
        return self


class TreeClassifierConfig(Config):
    """[model] of a classifier of constituents."""

    embedding: TextEmbedding = TextEmbedding()
    """What a word's vector is made of."""
    leaves: WordLeaves | CellsConfig = Field(default=WordLeaves(), discriminator="name")
    """What leaves are made of: `words`, or the states of a recurrent cell that reads the sentence, by its name."""
    cell: CellConfig = Field(default=LSTMConfig(), discriminator="name")
    """How a node's children become one state."""
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Locked dropout of nodes' states before they are classified: one mask a tree."""
    loss: TreeLossConfig = TreeLossConfig()
    """What counts how much in training."""
    parser: NoParser | SpanParserConfig = Field(default=SpanParserConfig(), discriminator="name")
    """What finds the trees of plain text, trained on the same ones."""


class TreeClassifier(nn.Module):
    """Scores of each class for all nodes of a forest."""

    def __init__(self, embedding: WordEmbedding, config: TreeClassifierConfig, *, classes: int) -> None:
        """Without `classes` there is only the parser."""
        super().__init__()
        self.weights = config.loss
        self.embedding = embedding
        size = embedding.output_size
        self.leaves = Recurrent(size, config.leaves) if isinstance(config.leaves, CellsConfig) else None
        self.cell = build_tree_cell(self.leaves.output_size if self.leaves else size, config.cell)
        self.dropout = LockedDropout(config.dropout)
        self.output = nn.Linear(self.cell.output_size, classes) if classes else None
        self.parser = SpanParser(size, config.parser) if isinstance(config.parser, SpanParserConfig) else None

    def embed(self, words: Words) -> Tensor:
        """Words at (B, T) positions -> their vectors (B, T, E)."""
        return self.embedding(words)

    def forward(self, x: Tensor, lengths: Tensor, forest: Forest) -> Tensor:
        """Words' vectors x (B, T, E), lengths (B,) on the CPU -> logits (N, C), float32, in the order of `forest`."""
        assert self.output is not None
        if self.leaves is not None:
            x, _ = self.leaves(x, lengths, with_state=False)
        leaves = x.flatten(0, 1).index_select(0, forest.leaves)
        # Compositions make their own gradients, in one number format; their products are small ones, level by level.
        if torch.is_autocast_enabled(x.device.type):
            leaves = leaves.float()
        with torch.autocast(x.device.type, enabled=False):
            states = self.cell(leaves, forest)  # (N, H)
        if self.training and self.dropout.p:
            mask = self.dropout.mask(x, states.size(1))  # (B, 1, H)
            states = states * mask.squeeze(1).index_select(0, forest.trees)
        return evenly(self.output, states).float()
