"""A recurrent decoder: it writes a target, conditioned on a source in one of the four usual ways.

    context = "attention"   a mean of the source's states, weighed anew at every step (Bahdanau 2015, Luong 2015)
    context = "initial"     the source as one vector, which the states begin from (Sutskever 2014)
    context = "input"       the same vector as an extra input at every step
    context = "both"        both (Cho 2014)

Attention looks with the states of one layer and is read by all above it and by the output. As no step feeds back what
it attended to into the layers that look, the whole target runs through the fused kernels at once; only where something
is fed back (input feeding, coverage, a decoder's own words) does training go step by step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqtext.nn.attention import Additive, Attention, AttentionConfig, Scaled, build_attention
from seqtext.nn.cells import State
from seqtext.nn.dropout import LockedDropout
from seqtext.nn.products import linear
from seqtext.nn.rnn import ForwardConfig, Recurrent


class DecoderConfig(ForwardConfig):
    """What writes the target."""

    context: Literal["attention", "initial", "input", "both"] = "attention"
    """How it knows the source: by attention; or as one vector, that its state begins from (initial), that it reads at
    every step (input), or both."""
    attention: AttentionConfig = Field(default=Scaled(), discriminator="name")
    """How positions of the source are weighed. Scaled attention finds where to look soonest, at high rates too."""
    attention_layer: int = Field(default=1, ge=1)
    """The layer whose states look at the source, counted from 1; those above it read what it saw."""
    input_feeding: bool = False
    """Let every step read the output of the step before (Luong 2015, section 3.3): it remembers what it attended to,
    and training goes step by step."""

    @model_validator(mode="after")
    def _sensible(self) -> DecoderConfig:
        if self.attention_layer > self.layers:
            raise ValueError(f"attention_layer {self.attention_layer}: the decoder has {self.layers} layers")
        if self.context != "attention" and self.input_feeding:
            raise ValueError(f"input_feeding: there is nothing to remember with context '{self.context}'")
        if self.steps and self.weight_dropout:
            raise ValueError("weight_dropout is one draw for all steps: not with input_feeding or coverage")
        return self

    @property
    def steps(self) -> bool:
        """Whether training must go step by step."""
        covering = isinstance(self.attention, Additive) and self.attention.coverage
        return self.context == "attention" and (self.input_feeding or covering)


class Memory(NamedTuple):
    """What a decoder knows of B sources."""

    values: Tensor
    """(B, S, M): the encoder's states; 0 at padded positions."""
    keys: Tensor
    """(B, S, A): what queries are compared with."""
    real: Tensor
    """(B, S) bool."""
    summary: Tensor
    """(B, M): the source as one vector, the last states of both directions."""


class DecoderState(NamedTuple):
    """What N hypotheses have read."""

    lower: list[State]
    """Of the layers up to the one that attends, each of (N, H)."""
    upper: list[State]
    """Of those above."""
    fed: Tensor | None
    """(N, O): the last output, where it is fed back."""
    weights: Tensor | None
    """(N, S): the attention of the last step."""
    coverage: Tensor | None
    """(N, S): the sum of the attention of all steps, where attention reads it."""


class Masks(NamedTuple):
    """Dropout drawn once for all steps."""

    lower: list[Tensor]
    between: Tensor
    upper: list[Tensor]


class Decoded(NamedTuple):
    """The outputs of a whole target."""

    outputs: Tensor
    """(B, T, O): what words are predicted from."""
    weights: Tensor | None
    """(B, T, S): attention."""


class RecurrentDecoder(nn.Module):
    """Layers of one kind of cell over the target, and an output read from state, context and input (Bahdanau 2015)."""

    def __init__(self, input_size: int, source_size: int, output_size: int, config: DecoderConfig) -> None:
        """Raises `ValueError` where sizes do not suit the attention."""
        super().__init__()
        self.context, self.feeding = config.context, config.input_feeding
        attending = config.context == "attention"
        self.attention: Attention | None = None
        extra = source_size if config.context in ("input", "both") else output_size if self.feeding else 0
        depth = config.attention_layer if attending else config.layers
        sizes = config.sizes
        below = {"layers": depth, "last_size": sizes[depth - 1], "dilation": config.dilations[:depth]}
        if depth < config.layers:
            below["output_depth"] = 1
        self.lower = Recurrent(input_size + extra, config.model_copy(update=below))
        self.upper: Recurrent | None = None
        if attending:
            self.attention = build_attention(sizes[depth - 1], source_size, config.attention)
        if depth < config.layers:
            above = config.model_copy(update={"layers": config.layers - depth, "dilation": config.dilations[depth:]})
            self.upper = Recurrent(sizes[depth - 1] + source_size, above)
        # The states of all layers, memories included, begin as functions of the source.
        layers: list[Any] = [*self.lower.layers, *(self.upper.layers if self.upper is not None else [])]
        self.cells: list[tuple[int, int, tuple[int, ...]]] = [
            (cell.hidden_size, cell.parts, cell.starts) for (cell,) in layers
        ]
        """Size, parts of the state and those of them that begin anywhere, of each layer's cell."""
        self.depth = depth
        begun = [size for size, _, starts in self.cells for _ in starts]
        self.bridge = nn.Linear(source_size, sum(begun)) if config.context != "input" else None
        self.dropout = LockedDropout(config.dropout)
        self.output = nn.Linear(sizes[-1] + (source_size if attending else 0) + input_size, output_size)

    @property
    def steps(self) -> bool:
        """Whether training must go step by step."""
        return self.feeding or (self.attention is not None and self.attention.covering)

    def start(self, memory: Memory) -> DecoderState:
        """The state of one row for each source, before the first word."""
        count, like = len(memory.summary), memory.summary
        begun: Iterator[Tensor] = iter(())
        if self.bridge is not None:
            sizes = [size for size, _, starts in self.cells for _ in starts]
            # In one number format with the states that follow: autocast would make the first of another.
            begun = iter(linear(self.bridge, like).tanh().to(like.dtype).split(sizes, dim=1))
        states: list[State] = []
        for size, parts, starts in self.cells:
            zero = like.new_zeros(count, size)
            states.append(tuple(next(begun, zero) if part in starts else zero for part in range(parts)))
        fed = like.new_zeros(count, self.output.out_features) if self.feeding else None
        covering = self.attention is not None and self.attention.covering
        coverage = like.new_zeros(memory.real.shape) if covering else None
        return DecoderState(states[: self.depth], states[self.depth :], fed, None, coverage)

    def forward(self, x: Tensor, memory: Memory, replace: Callable[[int, Tensor], Tensor] | None = None) -> Decoded:
        """x (B, T, E) -> `Decoded`, from the state that `start` gives.

        `replace(t, output (B, O))`, where it is given, makes the input (B, E) of step t from the output of the step
        before: for a decoder that reads its own words.
        """
        state = self.start(memory)
        if not self.steps and replace is None:
            outputs, state, weights = self._run(x, memory, state)
            return Decoded(outputs, weights)
        # In the order of the layers, so that the same seed drops the same either way.
        lower, between = self.lower.masks(x), self.dropout.mask(x, self.lower.output_size)
        masks = Masks(lower, between, self.upper.masks(x) if self.upper is not None else [])
        found: list[Tensor] = []
        seen: list[Tensor] = []
        for t in range(x.size(1)):
            now = replace(t, found[-1]) if replace is not None and t else x[:, t]
            output, state, weights = self._run(now.unsqueeze(1), memory, state, masks)
            found.append(output.squeeze(1))
            if weights is not None:
                seen.append(weights.squeeze(1))
        return Decoded(torch.stack(found, dim=1), torch.stack(seen, dim=1) if seen else None)

    def step(self, x: Tensor, memory: Memory, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """x (N, E), state of N rows -> output (N, O), state. Rows n // (N / B) look at source n."""
        output, state, _ = self._run(x.unsqueeze(1), memory, state)
        return output.squeeze(1), state

    def _run(
        self, x: Tensor, memory: Memory, state: DecoderState, masks: Masks | None = None
    ) -> tuple[Tensor, DecoderState, Tensor | None]:
        """x (N, T, E) -> outputs (N, T, O), state, weights (N, T, S); T is 1 wherever N is not B."""
        count, time = x.size(0), x.size(1)
        width = count // max(1, len(memory.summary))  # a process may have an empty share of a batch
        inputs = [x]
        if self.context in ("input", "both"):
            inputs.append(memory.summary.repeat_interleave(width, 0).unsqueeze(1).expand(-1, time, -1))
        if state.fed is not None:
            inputs.append(state.fed.unsqueeze(1))
        states, lower = self.lower(_joined(inputs), None, state.lower, masks=masks and masks.lower)
        weights, coverage, seen = None, state.coverage, None
        upper: list[State] = []
        read = [x]
        if self.attention is not None:
            context, weights = self._attend(states, memory, coverage)
            read.append(context)
            seen = weights[:, -1]
            coverage = None if coverage is None else coverage + seen
            if self.upper is not None:
                dropped = self.dropout(states) if masks is None else states * masks.between
                states, upper = self.upper(_joined([dropped, context]), None, state.upper, masks=masks and masks.upper)
        outputs = linear(self.output, _joined([states, *read])).tanh()
        fed = outputs[:, -1] if state.fed is not None else None
        return outputs, DecoderState(lower, upper, fed, seen, coverage), weights

    def _attend(self, states: Tensor, memory: Memory, coverage: Tensor | None) -> tuple[Tensor, Tensor]:
        """states (N, T, H) -> context (N, T, M), weights (N, T, S)."""
        assert self.attention is not None
        (count, time), rows, length = states.shape[:2], *memory.real.shape
        steps = count * time // max(1, rows)
        # The hypotheses of one source stand as its time steps.
        queries = states.reshape(rows, steps, states.size(2))
        if coverage is not None:
            coverage = coverage.view(rows, steps, length)
        context, weights = self.attention(queries, memory.values, memory.keys, memory.real, coverage)
        return context.reshape(count, time, context.size(2)), weights.reshape(count, time, length)


def _joined(parts: list[Tensor]) -> Tensor:
    """(B, T, ...) parts side by side."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
