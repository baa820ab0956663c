"""The plain recurrence, the LSTM and the GRU by their equations, for the options that no fused kernel has.

Weights have their own names here, and one bias where the kernels have two: what was trained with one kernel is not for
the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.cell import State
from seqtext.nn.looped import Looped, sigmoid_back, squash, tanh_back
from seqtext.nn.matrix import begun
from seqtext.nn.shared import SharedVector


class FusedOptions(Config):
    """Settings of the cells that torch has a fused kernel for."""

    kernel: Literal["auto", "fused", "loop"] = "auto"
    """What computes it: torch's fused kernel, or a loop over its equations, which has weights of its own. By itself it
    is the kernel where that knows the options, and for `rnn` and `gru` whatever is faster with the kernel's weights."""
    zoneout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Chance that a unit of the state keeps its last value (Krueger 2017)."""

    def unfused(self) -> list[str]:
        """The settings given that the fused kernel does not know."""
        return ["zoneout"] if self.zoneout else []

    @model_validator(mode="after")
    def _forced(self) -> FusedOptions:
        if self.kernel == "fused" and (keys := self.unfused()):
            raise ValueError(
                f"kernel = 'fused': torch's kernel has no {' and no '.join(keys)}; set kernel = 'loop', or leave it out"
            )
        return self


class RNNOptions(FusedOptions):
    nonlinearity: Literal["tanh", "relu"] = "tanh"
    """What squashes the new state."""
    initial: Literal["orthogonal", "identity"] | None = None
    """What the recurrent matrix starts as: by default the identity for relu (Le 2015), otherwise orthogonal."""
    leak: float = Field(default=1.0, gt=0.0, le=1.0)
    """Share of a state that is new at each step: leaky-integrator units (Jaeger 2007). 1 is the plain recurrence."""

    @property
    def identity(self) -> bool:
        return (self.initial or ("identity" if self.nonlinearity == "relu" else "orthogonal")) == "identity"

    def unfused(self) -> list[str]:
        return [*(["leak"] if self.leak != 1.0 else []), *super().unfused()]


class LoopedRNN(Looped):
    """h' = (1 - a) h + a f(W x + U h + b), with the leak a."""

    Options = RNNOptions

    def __init__(self, input_size: int, hidden_size: int, options: RNNOptions | None = None) -> None:
        super().__init__(input_size, hidden_size)
        self.options = options or RNNOptions()
        self.rates = (self.options.zoneout,)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.options.identity:
            matrix: Any = self.recurrent[0]
            nn.init.eye_(matrix.weight)

    def advance(self, given: Tensor, state: State, uses: Sequence[Any]) -> tuple[State, Any]:
        (h,) = state
        new = given + uses[0](h)
        new = squash(new) if self.options.nonlinearity == "tanh" else new.relu()
        return (new if self.options.leak == 1.0 else torch.lerp(h, new, self.options.leak),), (h, new)

    def retreat(self, grads: State, kept: Any, uses: Sequence[Any]) -> tuple[Tensor, State]:
        (grad,), (h, new), leak = grads, kept, self.options.leak
        of_new = grad if leak == 1.0 else grad * leak
        of_new = tanh_back(of_new, new) if self.options.nonlinearity == "tanh" else of_new * (new > 0)
        of_h = uses[0].backward(h, of_new)
        return of_new, (of_h if leak == 1.0 else of_h.add_(grad, alpha=1.0 - leak),)


Gate = Literal["input", "forget", "output"]


class LSTMOptions(FusedOptions):
    forget_bias: float = 1.0
    """Where the forget gate's bias starts; 1 keeps gradients alive early in training (Jozefowicz 2015)."""
    output_bias: float = 0.0
    """Where the output gate's bias starts."""
    peepholes: bool = False
    """Let the gates see the memory, each unit its own (Gers & Schmidhuber 2000)."""
    coupled: bool = False
    """Make the input gate 1 - the forget gate (Greff 2017, CIFG)."""
    without: list[Gate] = Field(default_factory=list)
    """Gates that are left out: they are always 1 (Jozefowicz 2015, Greff 2017)."""
    zoneout_memory: float = Field(default=0.0, ge=0.0, lt=1.0)
    """The same as `zoneout` for the memory."""

    def unfused(self) -> list[str]:
        return [
            name for name in ("peepholes", "coupled", "without", "zoneout", "zoneout_memory") if getattr(self, name)
        ]

    @model_validator(mode="after")
    def _gates(self) -> LSTMOptions:
        if self.coupled and {"input", "forget"} & set(self.without):
            raise ValueError("coupled makes the input gate of the forget gate: without may only name output with it")
        for name in ("forget", "output"):
            if name in self.without and f"{name}_bias" in self.model_fields_set:
                raise ValueError(f"{name}_bias: there is no {name} gate, as without names it")
        return self

    @property
    def blocks(self) -> list[str]:
        """What is computed from x and h: the gates that there are, in torch's order, and the new memory."""
        gone = {*self.without, *(["input"] if self.coupled else [])}
        return [name for name in ("input", "forget", "memory", "output") if name not in gone]


class LoopedLSTM(Looped):
    """c' = f * c + i * tanh(g), h' = o * tanh(c'), with gates i, f (which see c by peepholes) and o (which sees c')."""

    Options = LSTMOptions
    parts = 2
    starts = (0, 1)

    def __init__(self, input_size: int, hidden_size: int, options: LSTMOptions | None = None) -> None:
        self.options = options or LSTMOptions()
        self.blocks = self.options.blocks
        super().__init__(input_size, hidden_size, gates=len(self.blocks))
        self.rates = self.options.zoneout, self.options.zoneout_memory
        seeing = [name for name in self.blocks if name != "memory"] if self.options.peepholes else []
        self.peepholes = nn.ParameterDict({name: nn.Parameter(torch.empty(hidden_size)) for name in seeing})
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        assert self.input.bias is not None
        for name, bias in zip(self.blocks, self.input.bias.data.chunk(len(self.blocks))):
            if name in ("forget", "output"):
                nn.init.constant_(bias, self.options.forget_bias if name == "forget" else self.options.output_bias)
        for weight in self.peepholes.values():
            nn.init.zeros_(weight)

    def begin(self) -> list[Any]:
        return [*super().begin(), *(SharedVector(weight) for weight in self.peepholes.values())]

    def advance(self, given: Tensor, state: State, uses: Sequence[Any]) -> tuple[State, Any]:
        (h, c), peepholes = state, dict(zip(self.peepholes, uses[1:]))
        values = dict(zip(self.blocks, (given + uses[0](h)).chunk(len(self.blocks), dim=1)))

        def gate(name: str, memory: Tensor) -> Tensor | None:
            if name not in values:
                return None
            seen = peepholes[name].value.to(c.dtype) * memory if name in peepholes else None
            return (values[name] if seen is None else values[name] + seen).sigmoid()

        new, i, f = squash(values["memory"]), gate("input", c), gate("forget", c)
        into = new - f * new if self.options.coupled and f is not None else new if i is None else i * new
        after = (c if f is None else f * c) + into
        squashed, o = squash(after), gate("output", after)
        return (squashed if o is None else o * squashed, after), (h, c, i, f, new, o, after, squashed)

    def retreat(self, grads: State, kept: Any, uses: Sequence[Any]) -> tuple[Tensor, State]:
        (of_h, of_c), (h, c, i, f, new, o, after, squashed) = grads, kept
        peepholes, found = dict(zip(self.peepholes, uses[1:])), {}

        def back(name: str, grad: Tensor, gate: Tensor, memory: Tensor) -> Tensor | float:
            """Notes the gradient of a gate's sum; that of the memory that it saw."""
            found[name] = sigmoid_back(grad, gate)
            if name not in peepholes:
                return 0.0
            peepholes[name].gather((found[name] * memory).sum(0))
            return found[name] * peepholes[name].value

        of_after = of_c + tanh_back(of_h if o is None else of_h * o, squashed)
        if o is not None:
            of_after = of_after + back("output", of_h * squashed, o, after)
        of_before = of_after if f is None else of_after * f
        of_new = of_after
        if self.options.coupled:
            of_new = of_after - of_before
        elif i is not None:
            of_new = of_after * i
            of_before = of_before + back("input", of_after * new, i, c)
        if f is not None:
            of_before = of_before + back("forget", of_after * (c - new if self.options.coupled else c), f, c)
        found["memory"] = tanh_back(of_new, new)
        of_sums = torch.cat([found[name] for name in self.blocks], dim=1)
        return of_sums, (uses[0].backward(h, of_sums), of_before)


class GRUOptions(FusedOptions):
    update_bias: float = 0.0
    """Where the update gate's bias starts; above 0 units keep their last value for longer, as with an LSTM's
    `forget_bias`."""


class LoopedGRU(Looped):
    """n = tanh(W x + b + r * (U h + c)), h' = (1 - z) * n + z * h, with gates r and z."""

    Options = GRUOptions
    gates = 3

    def __init__(self, input_size: int, hidden_size: int, options: GRUOptions | None = None) -> None:
        super().__init__(input_size, hidden_size)
        self.options = options or GRUOptions()
        self.rates = (self.options.zoneout,)
        self.bias = nn.Parameter(torch.empty(hidden_size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        assert self.input.bias is not None
        nn.init.constant_(self.input.bias.data.chunk(3)[1], self.options.update_bias)
        nn.init.zeros_(self.bias)

    def begin(self) -> list[Any]:
        matrix: Any = self.recurrent[0]
        weight, _ = matrix.drawn(drop=self.weight_dropout if self.training else 0.0)
        none = self.bias.new_zeros(2 * self.hidden_size)
        return [begun(weight, torch.cat([none, self.bias]).to(weight.dtype))]

    def advance(self, given: Tensor, state: State, uses: Sequence[Any]) -> tuple[State, Any]:
        (h,), size = state, 2 * self.hidden_size
        kept = uses[0](h)
        gates = (given[:, :size] + kept[:, :size]).sigmoid()
        r, z = gates.chunk(2, dim=1)
        seen = kept[:, size:]
        new = squash(torch.addcmul(given[:, size:], r, seen))
        return (torch.lerp(new, h, z),), (h, gates, seen, new)

    def retreat(self, grads: State, kept: Any, uses: Sequence[Any]) -> tuple[Tensor, State]:
        (grad,), (h, gates, seen, new) = grads, kept
        r, z = gates.chunk(2, dim=1)
        held = grad * z
        of_new = tanh_back(grad - held, new)
        of_gates = sigmoid_back(torch.cat([of_new * seen, grad * (h - new)], dim=1), gates)
        of_h = uses[0].backward(h, torch.cat([of_gates, of_new * r], dim=1))
        return torch.cat([of_gates, of_new], dim=1), (of_h.add_(held),)
