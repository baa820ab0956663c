"""The cells that torch has a fused kernel for, where their options leave them as it knows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from seqtext.nn.apart import apart
from seqtext.nn.apart import suits as suits_apart
from seqtext.nn.cell import Cell, State, zero_state
from seqtext.nn.int8 import Int8Kernel
from seqtext.nn.looped import Looped, Stepped
from seqtext.nn.looped_cells import GRUOptions, LoopedGRU, LoopedLSTM, LoopedRNN, LSTMOptions, RNNOptions
from seqtext.nn.matrix import begun, dropped, formatted
from seqtext.nn.products import FAVOURED, ONEDNN, product, tanh, without_gradient
from seqtext.nn.wide_gru import wide_gru
from seqtext.nn.wide_lstm import suits, wide_lstm

FUNCTIONS: dict[str, Any] = {
    "LSTM": torch.lstm,
    "GRU": torch.gru,
    "RNN_TANH": torch.rnn_tanh,
    "RNN_RELU": torch.rnn_relu,
}
"""The fused kernels as functions of their weights."""


class Fused(Stepped):
    """Base of the cells that torch has a fused kernel for.

    Recurrent matrices start orthogonal, gate by gate (Saxe 2014), input matrices Xavier-uniform, biases zero.

    On a CPU the kernels of the plain recurrence and of the GRU are loops as well, which note every operation for
    autograd and have a slower product: where ours is faster, it runs instead, with the kernel's weights.
    """

    deepens = True
    gates: ClassVar[int]
    """Blocks of H rows in the weight matrices."""
    by_equations: ClassVar[type[Looped]]
    """The class for options, and for depths of a step, that the kernel does not know."""
    loops: ClassVar[bool] = False
    """Whether the kernel is a loop on a CPU. Then `advance` and `retreat` are there."""

    def __init__(self, kernel: nn.RNNBase) -> None:
        super().__init__(kernel.input_size, kernel.hidden_size)
        self.kernel: Any = kernel
        self.reset_parameters()

    @classmethod
    def suited(cls, options: Any, *, deep: bool = False) -> type[Cell]:
        return cls.by_equations if deep or options.kernel == "loop" or options.unfused() else cls

    @classmethod
    def together(
        cls, cells: Sequence[Any], readings: Sequence[Tensor], starts: Sequence[State | None], lengths: Tensor | None
    ) -> list[tuple[Tensor, State]]:
        if cls._apart(cells, readings):
            return apart(cells, readings, starts, lengths)
        return super().together(cells, readings, starts, lengths)

    @classmethod
    def _apart(cls, cells: Sequence[Any], readings: Sequence[Tensor]) -> bool:
        """Whether each direction should have a thread of its own: not where they would wait for each other's Python."""
        free = cls._scripted() or not (cls.loops and cells[0]._is_slow(readings[0]))
        return free and suits_apart(cells, readings, gates=cls.gates)

    @classmethod
    def _scripted(cls) -> bool:
        """Whether `loop` takes no Python while it runs."""
        return False

    def reset_parameters(self) -> None:
        """Draw all weights anew from torch's global generator."""
        nn.init.xavier_uniform_(self.kernel.weight_ih_l0)
        for block in self.kernel.weight_hh_l0.data.chunk(self.gates):
            nn.init.orthogonal_(block)
        nn.init.zeros_(self.kernel.bias_ih_l0)
        nn.init.zeros_(self.kernel.bias_hh_l0)

    def forward(self, x: Tensor, state: State | None = None, *, lengths: Tensor | None = None) -> tuple[Tensor, State]:
        if x.size(1) == 1 and x.size(0) and _by_hand(x):
            end = self.once(x.squeeze(1), zero_state(self, x) if state is None else state)
            return end[0].unsqueeze(1), end
        if self.loops and self._is_slow(x):
            return self.loop(x, state, lengths)
        return self.by_kernel(x, state, lengths)

    def by_kernel(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        """What `forward` gives, by the fused kernel."""
        start = self._pack(state)
        if lengths is None or bool((lengths == x.size(1)).all()):
            states, end = self._run(x, start)
        else:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            output, end = self._run(packed, start)
            states, _ = pad_packed_sequence(output, batch_first=True, total_length=x.size(1))
        return states, self._unpack(end)

    def _run(self, x: Tensor | PackedSequence, start: Any) -> tuple[Any, Any]:
        """The fused kernel; in training with entries of its recurrent matrix dropped, where that is asked for.

        The weights of the module are never touched: the kernel is called as a function of those it should use.
        """
        kernel = self.kernel
        if not (self.training and self.weight_dropout):
            return kernel(x, start)
        weights = self._weights()
        data = x.data if isinstance(x, PackedSequence) else x
        if data.device.type != "cpu":
            # cuDNN wants its weights in one piece, and otherwise copies them together at every call, with a warning.
            sizes = [weight.numel() for weight in weights]
            flat = torch.cat([weight.flatten() for weight in weights]).split(sizes)
            weights = [part.view_as(weight) for part, weight in zip(flat, weights)]
        if start is None:
            rows = int(x.batch_sizes[0]) if isinstance(x, PackedSequence) else x.size(0)
            zero = data.new_zeros(1, rows, self.hidden_size)
            start = (zero,) * self.parts if self.parts > 1 else zero
        elif isinstance(x, PackedSequence):
            start = kernel.permute_hidden(start, x.sorted_indices)
        run = FUNCTIONS[kernel.mode]
        if not isinstance(x, PackedSequence):
            states, *end = run(x, start, weights, True, 1, 0.0, True, False, True)
            return states, tuple(end) if len(end) > 1 else end[0]
        output, *end = run(data, x.batch_sizes, start, weights, True, 1, 0.0, True, False)
        end = kernel.permute_hidden(tuple(end) if len(end) > 1 else end[0], x.unsorted_indices)
        return x._replace(data=output), end

    def once(self, x: Tensor, state: State) -> State:
        """One step x (B, D) of prediction: by the cell's equations, for of one step kernels spend most on their setup.

        For few rows, as in decoding, this takes a fraction of their time. A cell without equations here is as slow.
        """
        return self._unpack(self._run(x.unsqueeze(1), self._pack(state))[1])

    def _products(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, D), h (B, H) -> W x + b and U h + c, (B, gates * H) each, without a gradient."""
        kernel = self.kernel
        if isinstance(kernel, Int8Kernel):
            return kernel.products(x, h)
        return product(x, kernel.weight_ih_l0, kernel.bias_ih_l0), product(h, kernel.weight_hh_l0, kernel.bias_hh_l0)

    def _weights(self) -> list[Tensor]:
        """The weights as the kernels take them; in training with entries of the recurrent matrix dropped."""
        kernel = self.kernel
        recurrent = dropped(kernel.weight_hh_l0, self.weight_dropout if self.training else 0.0)
        return [kernel.weight_ih_l0, recurrent, kernel.bias_ih_l0, kernel.bias_hh_l0]

    def _is_slow(self, x: Tensor) -> bool:
        """Whether the kernel is slower for x (B, T, D) than `loop`."""
        return (
            isinstance(self.kernel, nn.RNNBase)  # and not what stands in for it in an export
            and ONEDNN
            and x.device.type == "cpu"
            and x.dtype in (torch.float32, torch.bfloat16)
            and self.options.kernel != "fused"
            and x.numel() > 0
            and self._loop_is_faster(x)
        )

    def _loop_is_faster(self, x: Tensor) -> bool:
        """The same, where there is a choice, by what was measured (docs/performance.md)."""
        # In bf16 the kernel is as fast, but not in inference mode, where autocast casts its weights at every step.
        plain = torch.is_inference_mode_enabled() or not torch.is_autocast_enabled("cpu")
        return not FAVOURED and x.dtype == torch.float32 and plain and self._is_wide(x)

    def _is_wide(self, x: Tensor) -> bool:
        """Whether a step of x (B, T, D) has so many states that its operations take longer than their calls."""
        return self.hidden_size >= WIDE and x.size(0) * self.hidden_size >= MANY

    def begin(self) -> list[Any]:
        _, recurrent, _, bias = (formatted(weight) for weight in self._weights())
        return [begun(recurrent, bias)]

    def given(self, x: Tensor | None) -> Tensor:
        assert x is not None
        kernel = self.kernel
        product = begun(formatted(kernel.weight_ih_l0), formatted(kernel.bias_ih_l0))
        return product(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def _pack(self, state: State | None) -> Any:
        """Our tuple of (B, H) as the (1, B, H) that the kernel takes."""
        if state is None:
            return None
        return state[0].unsqueeze(0)

    def _unpack(self, end: Any) -> State:
        return (end.squeeze(0),)


class RNN(Fused):
    """The plain recurrence h' = f(W x + U h + b) (Elman 1990), f tanh or relu."""

    Options = RNNOptions
    by_equations = LoopedRNN
    loops = True
    advance, retreat = LoopedRNN.advance, LoopedRNN.retreat
    gates = 1

    def __init__(self, input_size: int, hidden_size: int, options: RNNOptions | None = None) -> None:
        self.options = options or RNNOptions()
        nonlinearity = self.options.nonlinearity
        super().__init__(nn.RNN(input_size, hidden_size, batch_first=True, nonlinearity=nonlinearity))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.options.identity:
            nn.init.eye_(self.kernel.weight_hh_l0)

    def once(self, x: Tensor, state: State) -> State:
        given, kept = self._products(x, state[0])
        return (
            (tanh((given + kept).float()) if self.kernel.nonlinearity == "tanh" else (given + kept).relu()).to(x.dtype),
        )


class LSTM(Fused):
    """Long short-term memory (Hochreiter & Schmidhuber 1997) with forget gates (Gers 2000)."""

    Options = LSTMOptions
    by_equations = LoopedLSTM
    gates = 4
    parts = 2
    starts = (0, 1)

    def __init__(self, input_size: int, hidden_size: int, options: LSTMOptions | None = None) -> None:
        self.options = options or LSTMOptions()
        super().__init__(nn.LSTM(input_size, hidden_size, batch_first=True))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        # Torch's gates stand in the order input, forget, cell, output; its two biases add up.
        _, forget, _, output = self.kernel.bias_ih_l0.data.chunk(4)
        nn.init.constant_(forget, self.options.forget_bias)
        nn.init.constant_(output, self.options.output_bias)

    def _pack(self, state: State | None) -> Any:
        return None if state is None else tuple(part.unsqueeze(0) for part in state)

    def _unpack(self, end: Any) -> State:
        return tuple(part.squeeze(0) for part in end)

    def _run(self, x: Tensor | PackedSequence, start: Any) -> tuple[Any, Any]:
        if not isinstance(x, Tensor):
            return super()._run(x, start)
        if more := _missing(x):
            filled = None if start is None else tuple(nn.functional.pad(part, (0, 0, 0, more)) for part in start)
            states, end = self._run(nn.functional.pad(x, (0, 0, 0, 0, 0, more)), filled)
            return states[:-more], tuple(part[:, :-more] for part in end)
        if not suits(x, self.hidden_size):
            return super()._run(x, start)
        if start is None:
            start = (x.new_zeros(1, x.size(0), self.hidden_size),) * 2
        states, h, c = wide_lstm(x, (start[0][0], start[1][0]), self._weights())
        return states, (h.unsqueeze(0), c.unsqueeze(0))

    def once(self, x: Tensor, state: State) -> State:
        kernel = self.kernel
        if isinstance(kernel, Int8Kernel):
            given, kept = self._products(x, state[0])
            gates = given.add_(kept)
        else:  # one product, and no sum of two
            weight = torch.cat([kernel.weight_ih_l0, kernel.weight_hh_l0], dim=1)
            gates = product(torch.cat([x, state[0]], dim=1), weight, kernel.bias_ih_l0 + kernel.bias_hh_l0)
        i, f, g, o = gates.float().chunk(4, dim=1)
        memory = torch.addcmul(i.sigmoid().mul_(tanh(g)), f.sigmoid(), state[1].float())
        return o.sigmoid().mul_(tanh(memory)).to(x.dtype), memory.to(x.dtype)


class GRU(Fused):
    """Gated recurrent unit (Cho 2014), with the reset gate after the recurrent product, as cuDNN has it."""

    Options = GRUOptions
    by_equations = LoopedGRU
    loops = True
    advance, retreat = LoopedGRU.advance, LoopedGRU.retreat
    gates = 3

    def __init__(self, input_size: int, hidden_size: int, options: GRUOptions | None = None) -> None:
        self.options = options or GRUOptions()
        super().__init__(nn.GRU(input_size, hidden_size, batch_first=True))

    def loop(self, x: Tensor, state: State | None, lengths: Tensor | None) -> tuple[Tensor, State]:
        if not self._scripted():
            return super().loop(x, state, lengths)
        (start,) = zero_state(self, x) if state is None else state
        states = wide_gru(x.transpose(0, 1), start, [formatted(weight) for weight in self._weights()])
        return self.ended((states,), (start,), x, lengths)

    @classmethod
    def _scripted(cls) -> bool:
        return FAVOURED or torch.is_grad_enabled()

    def _loop_is_faster(self, x: Tensor) -> bool:
        narrow = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        in_prediction = FAVOURED and (narrow or self._is_wide(x))
        return torch.is_grad_enabled() or in_prediction or super()._loop_is_faster(x)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        # Torch's gates stand in the order reset, update, new.
        nn.init.constant_(self.kernel.bias_ih_l0.data.chunk(3)[1], self.options.update_bias)

    def once(self, x: Tensor, state: State) -> State:
        (xr, xz, xn), (hr, hz, hn) = (part.float().chunk(3, dim=1) for part in self._products(x, state[0]))
        new = tanh(torch.addcmul(xn, (xr + hr).sigmoid(), hn))
        return (torch.lerp(new, state[0].float(), (xz + hz).sigmoid()).to(x.dtype),)


WIDE, MANY = 128, 6144
"""Features of a state, and entries of all rows' states, from which on the loop is the faster of the two."""
EVEN, FROM = 8, 48
"""Rows in bf16 are filled up to a multiple of so many, where they are more than so many: the kernel computes blocks of
as many rows as divide theirs, and takes four times as long for 97 as for 104."""
FEW = 256
"""Rows of a single step in bf16 up to which the equations are faster than the kernel, which lays out weights anew."""


def _by_hand(x: Tensor) -> bool:
    """Whether a single step x (B, 1, D) is computed by a cell's equations."""
    return without_gradient(x) or (x.size(0) <= FEW and without_gradient(x, number=torch.bfloat16))


def _missing(x: Tensor) -> int:
    """How many rows to add to x (B, T, D) for an LSTM's kernel on a CPU."""
    narrow = x.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
    return -x.size(0) % EVEN if narrow and x.device.type == "cpu" and x.size(0) > FROM else 0
