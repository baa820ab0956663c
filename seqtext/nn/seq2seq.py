"""An encoder-decoder: the probability of every next word of a target, given a source and the words before.

memory = module.encode(source (B, S), lengths (B,))                      once a sentence
module(source, lengths, inputs (B, T)) -> Decoded                        all steps of known targets
module.start(memory), .step(tokens (N,), state, memory), .reorder(...)   step by step: what searches ask for
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.errors import InputError
from seqtext.nn import graphs
from seqtext.nn.cells import CELLS
from seqtext.nn.decoder import Decoded, DecoderConfig, DecoderState, Memory, RecurrentDecoder
from seqtext.nn.dropout import LockedDropout, WordDropout
from seqtext.nn.pool import Last, States
from seqtext.nn.rnn import Recurrent, RecurrentConfig
from seqtext.nn.softmax import Softmax


class Always(Config):
    """The decoder always reads the words of the reference."""

    name: Literal["always"] = "always"


class Linear(Config):
    """The share of words read from the reference falls in a straight line (Bengio 2015, section 2.4)."""

    name: Literal["linear"] = "linear"
    steps: int = Field(default=10_000, ge=1)
    """Steps of training over which it falls from 1 to `floor`."""
    floor: float = Field(default=0.5, ge=0.0, le=1.0)
    """Where it stays."""

    def share(self, step: int) -> float:
        return max(self.floor, 1.0 - (1.0 - self.floor) * step / self.steps)


class InverseSigmoid(Config):
    """The share of words read from the reference is k / (k + exp(step / k)) (Bengio 2015, section 2.4)."""

    name: Literal["inverse-sigmoid"] = "inverse-sigmoid"
    k: float = Field(default=1000.0, ge=1.0)
    """The larger it is, the later it falls: to one half at step k ln k."""

    def share(self, step: int) -> float:
        return 1.0 / (1.0 + math.exp(min(step / self.k, 700.0)) / self.k)


class Seq2SeqConfig(Config):
    """An encoder-decoder."""

    embedding_size: int = Field(default=256, ge=1)
    """Features of a token, on either side; also of what target tokens are predicted from."""
    tied: Literal["none", "target", "all"] = "target"
    """Share the target's embedding with the output layer (target; Press & Wolf 2017), and with the source's as well
    (all), which needs one vocabulary for both."""
    word_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Chance that a position, of the source or of the target that is read, loses its token."""
    input_dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    """Locked dropout on the features of tokens."""
    encoder: RecurrentConfig = RecurrentConfig(hidden_size=256)
    """What reads the source. An LSTM's `forget_bias` is 0 here unless `cell_options` says otherwise."""
    decoder: DecoderConfig = DecoderConfig(hidden_size=512)
    """What writes the target."""
    memory_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Locked dropout on the encoder's states."""
    output_dropout: float = Field(default=0.2, ge=0.0, lt=1.0)
    """Locked dropout on what target tokens are predicted from."""
    layer_norm: bool = False
    """Normalise the encoder's states, and what target tokens are predicted from (Ba 2016)."""
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the target's probability that is spread over the vocabulary (Szegedy 2016, section 7)."""
    teacher_forcing: Always | Linear | InverseSigmoid = Field(default=Always(), discriminator="name")
    """Which words the decoder reads in training: those of the reference, or, now and then, its own (scheduled sampling,
    Bengio 2015), for which training goes step by step."""

    @model_validator(mode="after")
    def _sensible(self) -> Seq2SeqConfig:
        if self.decoder.weight_dropout and not isinstance(self.teacher_forcing, Always):
            raise ValueError("decoder.weight_dropout is one draw for all steps: not with scheduled sampling")
        return self


class Seq2Seq(nn.Module):
    """p(y_t | y_1 ... y_{t-1}, x) for every t."""

    steps: Tensor
    """() int64: steps of training taken, where words of its own are read."""

    def __init__(self, config: Seq2SeqConfig, source_vocabulary: int, target_vocabulary: int, *, joint: bool) -> None:
        """Raises `InputError` where the parts do not suit each other."""
        super().__init__()
        if config.tied == "all" and not joint:
            raise InputError(
                'model.tied = "all" needs one vocabulary for both sides: set model.tied=target, or data.joint=true'
            )
        size = config.embedding_size
        self.size = target_vocabulary
        self.target_embedding = nn.Embedding(target_vocabulary, size)
        self.source_embedding = self.target_embedding if config.tied == "all" else nn.Embedding(source_vocabulary, size)
        for table in dict.fromkeys((self.source_embedding, self.target_embedding)):  # in order, whatever their hashes
            nn.init.normal_(table.weight, std=size**-0.5)
        self.word_dropout, self.input_dropout = WordDropout(config.word_dropout), LockedDropout(config.input_dropout)
        self.encoder = Recurrent(size, _forgetting(config.encoder))
        source_size = self.encoder.output_size
        self.summary = Last(source_size, directions=self.encoder.directions)
        try:
            self.decoder = RecurrentDecoder(size, source_size, size, config.decoder)
        except ValueError as error:
            raise InputError(f"model.decoder.attention: {error}") from None
        self.memory_norm = nn.LayerNorm(source_size) if config.layer_norm else nn.Identity()
        self.output_norm = nn.LayerNorm(size) if config.layer_norm else nn.Identity()
        self.memory_dropout, self.output_dropout = map(LockedDropout, (config.memory_dropout, config.output_dropout))
        tied = self.target_embedding.weight if config.tied != "none" else None
        self.softmax = Softmax(size, target_vocabulary, tied=tied)
        self.smoothing = config.label_smoothing
        self.teacher = config.teacher_forcing
        if not isinstance(self.teacher, Always):
            self.register_buffer("steps", torch.zeros((), dtype=torch.int64))  # a resumed run knows how far it is

    def encode(self, source: Tensor, lengths: Tensor) -> Memory:
        """source (B, S) int64, lengths (B,) on the CPU -> what the decoder knows of it."""
        if not torch.is_grad_enabled() and graphs.wanted(source):  # few lengths, so that recorded steps are used again
            source = nn.functional.pad(source, (0, graphs.room(source.size(1)) - source.size(1)))
        x = self.input_dropout(self.word_dropout(self.source_embedding(source)))
        states, _ = self.encoder(x, lengths, with_state=False)
        real = States(states, lengths).real()  # (B, S, 1)
        values = self.memory_dropout(self.memory_norm(states)).masked_fill(~real, 0.0)
        attention = self.decoder.attention
        keys = values[:, :, :0] if attention is None else attention.keys(values)
        return Memory(values, keys, real.squeeze(2), self.summary(States(values, lengths)))

    def forward(self, source: Tensor, lengths: Tensor, inputs: Tensor) -> Decoded:
        """source (B, S), lengths (B,) of it on the CPU, inputs (B, T), a mark of the beginning first -> `Decoded`."""
        memory = self.encode(source, lengths)
        x = self.word_dropout(self.target_embedding(inputs))
        mask = self.input_dropout.mask(x, x.size(2))
        replace = None
        if self.training and not isinstance(self.teacher, Always):
            share = self.teacher.share(int(self.steps))
            self.steps += 1

            def replace(t: int, output: Tensor) -> Tensor:
                with torch.no_grad():
                    own = self.softmax.logits(self.output_norm(output)).argmax(1)
                given = torch.rand(len(own), 1, device=own.device) < share
                written = self.word_dropout(self.target_embedding(own).unsqueeze(1)).squeeze(1)
                return torch.where(given, x[:, t], written) * mask[:, 0]

        decoded = self.decoder(x * mask, memory, replace)
        return decoded._replace(outputs=self.output_dropout(self.output_norm(decoded.outputs)))

    def loss(self, decoded: Decoded, targets: Tensor) -> tuple[Tensor, Tensor]:
        """targets (B, T) int64, -1 where there is none -> () summed loss with smoothed labels, () number of targets."""
        outputs = decoded.outputs.flatten(0, 1)
        return self.softmax.loss(outputs, targets.flatten(), smoothing=self.smoothing), (targets >= 0).sum()

    def nll(self, decoded: Decoded, targets: Tensor) -> Tensor:
        """targets (B, T) int64, -1 where there is none -> (B, T) loss of each token, without smoothing or gradient."""
        return self.softmax.nll(decoded.outputs.flatten(0, 1), targets.flatten()).view(targets.shape)

    # What the searches ask for.

    def start(self, memory: Memory) -> DecoderState:
        return self.decoder.start(memory)

    def step(self, tokens: Tensor, state: DecoderState, memory: Memory) -> tuple[Tensor, DecoderState]:
        """tokens (N,) int64 -> what the next token is predicted from (N, E), state."""
        return graphs.step(self, self._step, tokens, state, memory)

    def _step(self, tokens: Tensor, state: DecoderState, memory: Memory) -> tuple[Tensor, DecoderState]:
        output, state = self.decoder.step(self.target_embedding(tokens), memory, state)
        return self.output_norm(output), state


def _forgetting(config: RecurrentConfig) -> RecurrentConfig:
    """With a forget bias of 0 where the cell has any and none is given.

    With the usual 1 every state of an LSTM begins by remembering the whole source: all positions look alike, and it
    takes attention epochs to find where to look.
    """
    gone = "forget" in config.cell_options.get("without", [])
    if gone or "forget_bias" not in CELLS[config.cell].Options.model_fields:
        return config
    return config.model_copy(update={"cell_options": {"forget_bias": 0.0, **config.cell_options}})
