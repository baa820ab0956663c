"""A recurrent language model: embedding, recurrent layers, and a softmax over the vocabulary.

With every kind of dropout set it is the AWD-LSTM (Merity 2018, "Regularizing and Optimizing LSTM Language Models");
with none, the small model of Zaremba 2014.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.errors import InputError
from seqtext.nn import graphs
from seqtext.nn.cells import Cell, State, zero_state
from seqtext.nn.condition import Condition, Conditioning
from seqtext.nn.dropout import LockedDropout
from seqtext.nn.encoders import ForwardStackConfig, build_stack
from seqtext.nn.jordan import Recurrence, WordFeedback, without_memory
from seqtext.nn.products import linear
from seqtext.nn.readout import Readout
from seqtext.nn.reservoir import Echo, ReservoirConfig
from seqtext.nn.rnn import ForwardConfig
from seqtext.nn.softmax import Adaptive, AdaptiveSoftmax, FullSoftmax, Softmax

LABEL_SIZE = 32
"""Features of a label's vector, where the recipe does not say."""


class LanguageModelConfig(Config):
    """[model] of a language model."""

    embedding_size: int = Field(default=200, ge=1)
    """Features of a token."""
    embedding_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Chance that a token is dropped from the embedding, wherever it stands in the batch (Gal & Ghahramani 2016)."""
    input_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Locked dropout on the features of tokens."""
    encoder: ForwardStackConfig = ForwardConfig()
    """What reads the text: recurrent layers, whose `dropout` stands between them, or by `name = "esn"` a reservoir."""
    condition: Condition = "none"
    """How the label of a document (`data.label_field`) tells what to write: the states of all layers begin from it
    (initial), it is an extra input at every step (input), or both."""
    label_size: int | None = Field(default=None, ge=1)
    """Features of a label's vector, where there is a condition; by default 32."""
    recurrence: Recurrence = "hidden"
    """What goes from step to step: hidden states (hidden), or the model's own output (output; Jordan 1986), with no
    hidden state carried, or both. Output recurrence goes step by step, and asks for a softmax at each."""
    feedback: WordFeedback = WordFeedback()
    """What is fed back, with output recurrence."""
    output_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Locked dropout on the states that words are predicted from."""
    softmax: FullSoftmax | AdaptiveSoftmax = Field(default=FullSoftmax(), discriminator="name")
    """How words are scored."""
    tied: bool = True
    """Share the embedding with the output layer (Press & Wolf 2017), by a projection where their sizes differ."""
    activation_regularization: float = Field(default=0.0, ge=0.0)
    """Weight of the mean square of the last layer's states, after dropout (Merity 2018, section 4.6, alpha)."""
    temporal_regularization: float = Field(default=0.0, ge=0.0)
    """Weight of the mean square of their change from step to step, before dropout (Merity 2018, section 4.6, beta)."""
    init_range: float | None = Field(default=None, gt=0.0)
    """Draw all weights uniformly from minus to plus this (Zaremba 2014), instead of each layer's own way."""

    @model_validator(mode="after")
    def _check(self) -> LanguageModelConfig:
        if self.tied and isinstance(self.softmax, AdaptiveSoftmax):
            raise ValueError("an adaptive softmax has clusters of its own sizes: set tied = false with it")
        if self.recurrence == "hidden":
            if self.feedback != WordFeedback():
                raise ValueError('feedback: nothing is fed back with recurrence = "hidden"; set "output" or "both"')
        else:
            self._check_feedback()
        if isinstance(self.encoder, ReservoirConfig):
            self._check_reservoir(self.encoder)
        if self.label_size is not None and self.condition == "none":
            raise ValueError('label_size: no label is read with condition = "none"')
        return self

    def _check_feedback(self) -> None:
        faults = {
            'feedback.of: recurrence = "both" of words is that of every language model: set recurrence = "hidden"': (
                self.recurrence == "both" and self.feedback == WordFeedback(of="word")
            ),
            'softmax: output recurrence reads every word\'s probability: set softmax.name = "full"': not isinstance(
                self.softmax, FullSoftmax
            ),
            "encoder: no gradient reaches an output below a reservoir: name a cell instead": isinstance(
                self.encoder, ReservoirConfig
            ),
            "encoder.weight_dropout is one draw for all steps: not with output recurrence": bool(
                getattr(self.encoder, "weight_dropout", 0.0)
            ),
            'condition: no state is carried with recurrence = "output": set condition = "input"': (
                self.recurrence == "output" and self.condition in ("initial", "both")
            ),
        }
        if any(faults.values()):
            raise ValueError("\n".join(fault for fault, found in faults.items() if found))

    def _check_reservoir(self, encoder: ReservoirConfig) -> None:
        faults = {
            "encoder.bidirectional: a language model reads forward only": encoder.bidirectional,
            "tied: no gradient reaches the embedding below a reservoir: set tied = false with it": self.tied,
            "condition: no gradient reaches a label below a reservoir": self.condition != "none",
            'softmax: with readout = "ridge" every word is scored: set softmax.name = "full"': (
                encoder.readout == "ridge" and not isinstance(self.softmax, FullSoftmax)
            ),
            "regularization: the states of a reservoir cannot change; leave it out": bool(
                self.activation_regularization or self.temporal_regularization
            ),
        }
        if any(faults.values()):
            raise ValueError("\n".join(fault for fault, found in faults.items() if found))


class Hidden(NamedTuple):
    """What a language model computes for a batch of windows."""

    outputs: Tensor
    """(B, T, E): what words are predicted from."""
    states: Tensor
    """(B, T, H): the last layer's states, before dropout."""
    dropped: Tensor
    """(B, T, H): the same after dropout."""
    carry: list[State]
    """The state after the last step."""


class LanguageModel(nn.Module):
    """p(x_t | x_1 ... x_{t-1}) for every t."""

    def __init__(self, config: LanguageModelConfig, vocabulary: int, labels: int = 0) -> None:
        """Raises `InputError` where the softmax does not suit the vocabulary, and for a condition without `labels`."""
        super().__init__()
        self.alpha, self.beta = config.activation_regularization, config.temporal_regularization
        self.embedding = nn.Embedding(vocabulary, config.embedding_size)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        self.embedding_dropout = config.embedding_dropout
        self.input_dropout = LockedDropout(config.input_dropout)
        conditioned = config.condition != "none"
        if conditioned and not labels:
            told = f'model.condition = "{config.condition}" needs a label for each text'
            raise InputError(f"{told}: data.label_field names the column that has it")
        label_size = config.label_size or LABEL_SIZE
        extra = label_size if config.condition in ("input", "both") else 0
        self.feedback = config.feedback if config.recurrence != "hidden" else None
        self.carried = config.recurrence != "output"
        self.fed = config.embedding_size if self.feedback and self.feedback.of == "distribution" else 0
        self.encoder: Any = build_stack(config.embedding_size + extra + self.fed, config.encoder)
        if isinstance(self.encoder, Echo):
            self.embedding.requires_grad_(False)  # no gradient comes back through a reservoir
        self.conditioning: Conditioning | None = None
        if conditioned:
            self.conditioning = Conditioning(labels, label_size, config.condition, _state_sizes(self.encoder))
        self.output_dropout = LockedDropout(config.output_dropout)
        size = self.encoder.output_size
        self.projection: nn.Linear | None = None
        if config.tied and size != config.embedding_size:
            self.projection = nn.Linear(size, config.embedding_size)
            size = config.embedding_size
        self.softmax: Softmax | Adaptive
        if isinstance(config.encoder, ReservoirConfig) and config.encoder.readout == "ridge":
            self.softmax = Readout(size, vocabulary)
        elif isinstance(config.softmax, AdaptiveSoftmax):
            try:
                self.softmax = Adaptive(size, vocabulary, config.softmax)
            except ValueError as error:
                raise InputError(f"model.softmax: {error}") from None
        else:
            self.softmax = Softmax(size, vocabulary, tied=self.embedding.weight if config.tied else None)
        if config.init_range is not None:
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -config.init_range, config.init_range)

    def forward(self, tokens: Tensor, state: Any = None, labels: Tensor | None = None) -> Hidden:
        """tokens (B, T) int64, state as `Hidden.carry`, labels (B,) int64 where there is a condition -> `Hidden`.

        Without a state, each row begins from the zero state, or from that of its label.
        """
        x = self.input_dropout(self._embed(tokens))
        if self.conditioning is not None:
            assert labels is not None, "a conditioned model reads labels"
            state = self.conditioning.start(labels) if state is None else state
            x = self.conditioning(x, labels)
        if self.feedback is not None:
            return self._feed_back(x, state)
        states, carry = self.encoder(x, None, state)
        dropped = self.output_dropout(states)
        return Hidden(self._projected(dropped), states, dropped, carry)

    def _projected(self, states: Tensor) -> Tensor:
        """(..., H) -> what words are scored from."""
        return states if self.projection is None else linear(self.projection, states)

    def _feed_back(self, x: Tensor, state: list[State] | None) -> Hidden:
        """x (B, T, D) -> `Hidden`, step by step; the carry is the state of the layers, and what was fed back last."""
        assert self.feedback is not None
        layers = (state or [])[: len(self.encoder.layers)] if self.carried else []
        fed = state[-1][0] if state and len(state) > len(layers) else x.new_zeros(x.size(0), self.fed)
        forcing = self.feedback.teacher_forcing if self.training else 1.0
        if forcing == 1.0 and not self.fed:  # no step waits for another
            states = without_memory(self.encoder, x)
            dropped = self.output_dropout(states)
            return Hidden(self._projected(dropped), states, dropped, [(fed,)])
        size, softmax = self.embedding.embedding_dim, self.softmax
        assert isinstance(softmax, Softmax)
        masks, output_mask = self.encoder.masks(x), self.output_dropout.mask(x, self.encoder.output_size)
        found: list[tuple[Tensor, ...]] = []
        for t in range(x.size(1)):
            now = x[:, t]
            if t and forcing < 1.0:
                own = self.embedding(softmax.logits(found[-1][0].detach()).argmax(1))
                given = torch.rand(len(own), 1, device=x.device) < forcing
                now = torch.cat([torch.where(given, now[:, :size], own), now[:, size:]], dim=1)
            inputs = torch.cat([now, fed.to(x.dtype)], dim=1).unsqueeze(1)
            states, after = self.encoder(inputs, None, layers or None, masks=masks)
            layers = after if self.carried else []
            dropped = states * output_mask
            outputs = self._projected(dropped)
            if self.fed:
                chances = softmax.logits(outputs[:, 0]).softmax(1)
                fed = (chances.to(x.dtype) @ self.embedding.weight.to(x.dtype)).to(x.dtype)
            found.append((outputs[:, 0], states[:, 0], dropped[:, 0]))
        outputs, states, dropped = (torch.stack(parts, dim=1) for parts in zip(*found))
        return Hidden(outputs, states, dropped, [*layers, (fed,)])

    def step(self, tokens: Tensor, state: Any = None, labels: Tensor | None = None) -> tuple[Tensor, list[State]]:
        """tokens (N,) int64 -> what the next token is predicted from (N, O), state."""
        return graphs.step(self, self._step, tokens, state, labels)

    def _step(self, tokens: Tensor, state: Any, labels: Tensor | None) -> tuple[Tensor, list[State]]:
        hidden = self(tokens.unsqueeze(1), state, labels)
        return hidden.outputs[:, 0], hidden.carry

    def loss(self, hidden: Hidden, targets: Tensor) -> tuple[Tensor, Tensor]:
        """targets (B, T) int64, -1 where there is none -> () summed loss with the regularisers, () number of targets.

        The regularisers are means over all states, so they are added once for each target.
        """
        count = (targets >= 0).sum()
        total = self.softmax.loss(hidden.outputs.flatten(0, 1), targets.flatten())
        if self.alpha:
            total = total + count * self.alpha * _mean_square(hidden.dropped)
        if self.beta and hidden.states.size(1) > 1:
            total = total + count * self.beta * _mean_square(hidden.states.diff(dim=1))
        return total, count

    def nll(self, hidden: Hidden, targets: Tensor) -> Tensor:
        """targets (B, T) int64, -1 where there is none -> (B, T) loss of each token, without a gradient."""
        return self.softmax.nll(hidden.outputs.flatten(0, 1), targets.flatten()).view(targets.shape)

    def _embed(self, tokens: Tensor) -> Tensor:
        """tokens (B, T) -> (B, T, E), in training with whole rows of the table dropped."""
        if not self.training or self.embedding_dropout == 0.0:
            return self.embedding(tokens)
        table, keep = self.embedding.weight, 1.0 - self.embedding_dropout
        table = table * torch.rand(table.size(0), 1, device=table.device).lt_(keep).div_(keep)
        return nn.functional.embedding(tokens, table)


def _state_sizes(encoder: Any) -> list[tuple[int, ...]]:
    """Features of each part of each layer's state."""
    like = torch.empty(1, 0)
    layers: Any = encoder.layers
    cells: list[Cell] = [cell for layer in layers for cell in layer]
    return [tuple(part.size(1) for part in zero_state(cell, like)) for cell in cells]


def _mean_square(x: Tensor) -> Tensor:
    """() float32; of nothing it is 0: a process may have no stream of a window."""
    return x.float().square().sum() / max(1, x.numel())
