"""One label for a whole text: an encoder over its words, pooling, and a linear layer.

The published models it covers: convolutions with max pooling (Kim 2014), recurrent nets with the last state or a
maximum over states (Conneau 2017), additive attention (Yang 2016), and the mean of word vectors to compare them with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.embedding import CharacterCNN, CharacterRNN, EmbeddingConfig, NoCharacters, WordEmbedding, Words
from seqtext.nn.encoders import BagConfig, CellsConfig, EncoderConfig, build_encoder
from seqtext.nn.norm import build_norm
from seqtext.nn.pool import MaxConfig, MeanConfig, Pool, PoolConfig
from seqtext.nn.products import evenly
from seqtext.nn.readout import build_output
from seqtext.nn.reservoir import ReservoirConfig


class TextEmbedding(EmbeddingConfig):
    """What a word's vector is made of; of a text's meaning, spelling tells little."""

    characters: NoCharacters | CharacterCNN | CharacterRNN = Field(default=NoCharacters(), discriminator="name")
    """How a word's characters are read."""


class ClassifierConfig(Config):
    """[model] of a classifier."""

    embedding: TextEmbedding = TextEmbedding()
    """What a word's vector is made of."""
    encoder: EncoderConfig = Field(default=CellsConfig(), discriminator="name")  # type: ignore[call-arg]
    """What reads the text: a recurrent cell by its name, `cnn`, `esn` or `bow`."""
    pool: PoolConfig = Field(default=MaxConfig(), discriminator="name")
    """How the states of a text become one vector; a bag of words is always their mean."""
    norm: Literal["none", "batch", "layer"] = "none"
    """Normalise that vector over the batch, or over its features."""
    dropout: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Dropout on that vector."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weigh each example's loss so that all classes count alike: by N / (C N_c), the share of its class (balanced)."""

    @model_validator(mode="before")
    @classmethod
    def _pool_of_a_bag(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and "pool" not in values:
            encoder = values.get("encoder")
            if isinstance(encoder, BagConfig) or (isinstance(encoder, Mapping) and encoder.get("name") == "bow"):
                return {**values, "pool": {"name": "mean"}}
        return values

    @model_validator(mode="after")
    def _check(self) -> ClassifierConfig:
        if isinstance(self.encoder, BagConfig) and not isinstance(self.pool, MeanConfig):
            raise ValueError(
                f"pool.name: encoder 'bow' is the mean of its words' vectors, so pool is 'mean', not {self.pool.name!r}"
            )
        return self


class Windows(NamedTuple):
    """W windows of at most T words: what is read of B texts."""

    words: Words
    lengths: Tensor
    """(W,) int64, CPU: words of each window."""
    owner: Tensor
    """(W,) int64: the text, in the batch, that each window is of; rising."""


class Classifier(nn.Module):
    """Embedding, encoder, pooling, and a score for each class."""

    class_weights: Tensor | None

    def __init__(
        self,
        embedding: WordEmbedding,
        config: ClassifierConfig,
        *,
        classes: int,
        max_tokens: int,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.embedding = embedding
        self.encoder = build_encoder(embedding.output_size, config.encoder)
        if isinstance(config.encoder, ReservoirConfig):
            embedding.requires_grad_(False)  # no gradient comes back through a reservoir
        lengths = self.encoder.output_lengths(max_tokens)
        self.pool = Pool(config.pool, self.encoder.sizes, lengths=lengths, directions=self.encoder.directions)
        self.norm = build_norm(config.norm, self.pool.output_size)
        self.dropout = nn.Dropout(config.dropout)
        self.output = build_output(self.pool.output_size, classes, config.encoder)
        self.register_buffer("class_weights", class_weights)

    def features(self, windows: Windows) -> Tensor:
        """W windows -> (W, F): what classes are read from."""
        pooled = self.pool(self.encoder(self.embedding(windows.words), windows.lengths))
        return self.dropout(self.norm(pooled))

    def forward(self, windows: Windows, texts: int) -> Tensor:
        """The windows of `texts` texts -> logits (texts, C), float32: the mean over each text's windows."""
        logits = evenly(self.output, self.features(windows)).float()  # (W, C)
        if len(logits) == texts:
            return logits
        sums = logits.new_zeros(texts, logits.size(1)).index_add(0, windows.owner, logits)
        return sums / windows.owner.bincount(minlength=texts).unsqueeze(1)
