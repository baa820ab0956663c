"""The compositions of recursive nets, behind one key: how the states of a node's children become its own.

`a` and `b` are the states of the left and the right child, [a; b] both, x a word's vector; every map has a bias. In all
of them a leaf is made of its word's vector alone, and only the children matter above it.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.int8 import Int8Linear
from seqtext.nn.products import tanh
from seqtext.nn.shared import Shared, Unshared
from seqtext.nn.tree import Compose, Parents, TreeCell


class TreeCellConfig(Config):
    """What all compositions have."""

    hidden_size: int = Field(default=150, ge=1)
    """Features of a node."""
    weight_dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Chance that an entry of a composition's matrix is dropped, one draw for all nodes of a batch."""


class RecursiveConfig(TreeCellConfig):
    """The recursive net of Socher 2011."""

    name: Literal["rnn"] = "rnn"


class TensorConfig(TreeCellConfig):
    """The recursive neural tensor network of Socher 2013."""

    name: Literal["rntn"] = "rntn"
    hidden_size: int = Field(default=30, ge=1)
    """Features of a node; of these the tensor has twice the third power."""


class MatrixConfig(TreeCellConfig):
    """Matrix-vector recursion, Socher 2012."""

    name: Literal["mvrnn"] = "mvrnn"
    hidden_size: int = Field(default=25, ge=1)
    """Features of a node's vector; its matrix has their square."""
    rank: int = Field(default=3, ge=1)
    """Rank of what a word's matrix has besides its diagonal."""


class LSTMConfig(TreeCellConfig):
    """The binary Tree-LSTM of Tai 2015."""

    name: Literal["lstm"] = "lstm"
    forget_bias: float = 1.0
    """Where the biases of the forget gates start."""


class ChildSumConfig(TreeCellConfig):
    """The child-sum Tree-LSTM of Tai 2015, for nodes of any number of children."""

    name: Literal["childsum"] = "childsum"
    forget_bias: float = 1.0
    """Where the bias of the forget gates starts."""


class GRUConfig(TreeCellConfig):
    """The gated recursive net of Chen 2015, a GRU over two children."""

    name: Literal["gru"] = "gru"


CellConfig = RecursiveConfig | TensorConfig | MatrixConfig | LSTMConfig | ChildSumConfig | GRUConfig


class _Cell(TreeCell):
    """What the cells below share: a map from words to leaves, and dropout on a composition's weights."""

    leaf_parts: ClassVar[int] = 1
    """Times `hidden_size` that a leaf needs of its word."""

    def __init__(self, input_size: int, config: TreeCellConfig) -> None:
        super().__init__()
        self.hidden_size = self.state_size = self.output_size = config.hidden_size
        self.weight_dropout = config.weight_dropout
        self.word = _linear(input_size, self.leaf_parts * config.hidden_size)

    def plant(self, x: Tensor) -> Tensor:
        return self.word(x).tanh()

    def shared(self, layer: nn.Linear | Int8Linear) -> Any:
        """`layer` for one forward pass: a `Shared`, or what does the same for prediction only."""
        if isinstance(layer, Int8Linear):
            return Unshared(layer)
        weight = layer.weight
        if self.training and self.weight_dropout:
            keep = 1.0 - self.weight_dropout
            weight = weight * torch.rand_like(weight).lt_(keep).div_(keep)
        return Shared(weight, layer.bias)


class Recursive(_Cell):
    """h = tanh(W [a; b]) (Socher 2011, eq. 2)."""

    def __init__(self, input_size: int, config: RecursiveConfig) -> None:
        super().__init__(input_size, config)
        self.compose = _adding(self.hidden_size)

    def composer(self) -> Compose:
        compose = self.shared(self.compose)
        return lambda children, parents: compose(children.view(parents.number, -1)).tanh()


class TensorRecursive(_Cell):
    """h = tanh([a; b]^T V [a; b] + W [a; b]), V of (H, 2H, 2H) (Socher 2013, section 4.3).

    What is learned is 2H times V: an optimizer that gives every weight steps of one size, as Adam does, would otherwise
    move a sum of so many products too far at once, and the squashed states would never come back.
    """

    def __init__(self, input_size: int, config: TensorConfig) -> None:
        super().__init__(input_size, config)
        size = self.hidden_size
        self.compose = _adding(size)
        self.tensor = nn.Linear(2 * size, 2 * size * size)
        nn.init.uniform_(self.tensor.weight, -0.5, 0.5)  # of V, a quarter of 1 / H
        nn.init.zeros_(self.tensor.bias)

    def composer(self) -> Compose:
        linear, tensor = self.shared(self.compose), self.shared(self.tensor)

        def compose(children: Tensor, parents: Parents) -> Tensor:
            pair = children.view(parents.number, -1)  # (n, 2H)
            halves = tensor(pair).view(parents.number, self.hidden_size, -1)  # (n, H, 2H)
            quadratic = torch.bmm(halves, pair.unsqueeze(2)).squeeze(2) / pair.size(1)
            return (quadratic + linear(pair)).tanh()

        return compose


class MatrixVector(_Cell):
    """h = tanh(W [B a; A b]), M = W_M [A; B]: each node has a vector and a matrix (Socher 2012, eqs. 2 and 3).

    A word's matrix is the identity, a diagonal and a product of low rank (there, eq. 8); unlike there, it is a map of
    the word's vector and no table of its own, so that words with a pretrained vector alone have one too.
    """

    def __init__(self, input_size: int, config: MatrixConfig) -> None:
        super().__init__(input_size, config)
        size = self.hidden_size
        self.rank, self.state_size = config.rank, size + size * size
        self.matrix = _linear(input_size, size + 2 * size * config.rank)
        self.compose = _adding(size)
        self.merge = _adding(size, share=0.5)

    def plant(self, x: Tensor) -> Tensor:
        size = self.hidden_size
        diagonal, left, right = self.matrix(x).split([size, size * self.rank, size * self.rank], dim=1)
        matrix = torch.diag_embed(1.0 + diagonal) + left.view(-1, size, self.rank) @ right.view(-1, self.rank, size)
        return torch.cat([super().plant(x), matrix.flatten(1)], dim=1)

    def composer(self) -> Compose:
        vector, matrix, size = self.shared(self.compose), self.shared(self.merge), self.hidden_size

        def compose(children: Tensor, parents: Parents) -> Tensor:
            vectors, matrices = children.split([size, size * size], dim=1)
            vectors = vectors.reshape(-1, 2, size, 1)  # (n, 2, H, 1)
            matrices = matrices.reshape(-1, 2, size, size)
            turned = matrices.flip(1) @ vectors  # (n, 2, H, 1): B a, A b
            h = vector(turned.reshape(-1, 2 * size)).tanh()
            # W_M multiplies a column of A over the same column of B; columns become rows for it, and rows columns.
            columns = matrices.permute(0, 3, 1, 2).reshape(-1, 2 * size)  # (n H, 2H)
            merged = matrix(columns).view(-1, size, size).transpose(1, 2)  # (n, H, H)
            return torch.cat([h, merged.reshape(-1, size * size)], dim=1)

        return compose


class BinaryLSTM(_Cell):
    """Gates i, o, f_a, f_b and update u, each of [a; b]; c = i u + f_a c_a + f_b c_b, h = o tanh(c).

    The N-ary Tree-LSTM of Tai 2015, eqs. 9 to 14, for N = 2.
    """

    leaf_parts = 3

    def __init__(self, input_size: int, config: LSTMConfig) -> None:
        super().__init__(input_size, config)
        size = self.hidden_size
        self.state_size = 2 * size
        self.gates = _linear(2 * size, 5 * size)
        nn.init.constant_(self.gates.bias.data[2 * size : 4 * size], config.forget_bias)

    def plant(self, x: Tensor) -> Tensor:
        return _leaf_lstm(self.word(x))

    def composer(self) -> Compose:
        gates = self.shared(self.gates)
        return lambda children, parents: _BinaryLSTM.apply(children, gates.token, gates)


class _BinaryLSTM(torch.autograd.Function):
    """The step of a binary Tree-LSTM with its gradient by hand: a third of the operations of autograd's."""

    @staticmethod
    def forward(ctx: Any, children: Tensor, token: Tensor, shared: Shared) -> Tensor:
        size = children.size(1) // 2
        pairs = children.view(-1, 2, 2 * size)
        h = pairs[:, :, :size].reshape(-1, 2 * size)
        c = pairs[:, :, size:]  # (n, 2, H)
        gates = shared.forward(h)  # (n, 5H): i, o, f_a, f_b, u
        i, o, f, u = gates.split([size, size, 2 * size, size], dim=1)
        u.mul_(2.0)
        gates.sigmoid_()
        u.mul_(2.0).sub_(1.0)  # as in `tanh`
        states = torch.empty_like(h)
        memory = states[:, size:]
        torch.mul(i, u, out=memory)
        f = f.unflatten(1, (2, size))
        memory.addcmul_(f[:, 0], c[:, 0]).addcmul_(f[:, 1], c[:, 1])
        squashed = tanh(memory)
        torch.mul(o, squashed, out=states[:, :size])
        ctx.save_for_backward(h, c, gates, squashed)
        ctx.shared = shared
        return states

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        h, c, gates, squashed = ctx.saved_tensors
        size = squashed.size(1)
        i, o, f, u = gates.split([size, size, 2 * size, size], dim=1)
        f = f.unflatten(1, (2, size))
        of_h = grad[:, :size]
        of_c = torch.ops.aten.tanh_backward(of_h * o, squashed).add_(grad[:, size:])
        of_gates = torch.empty_like(gates)
        torch.mul(of_c, u, out=of_gates[:, :size])
        torch.mul(of_h, squashed, out=of_gates[:, size : 2 * size])
        torch.mul(of_c.unsqueeze(1), c, out=of_gates[:, 2 * size : 4 * size].unflatten(1, (2, size)))
        torch.mul(of_c, i, out=of_gates[:, 4 * size :])
        bent, turned = gates[:, : 4 * size], of_gates[:, : 4 * size]
        torch.ops.aten.sigmoid_backward.grad_input(turned, bent, grad_input=turned)
        torch.ops.aten.tanh_backward.grad_input(of_gates[:, 4 * size :], u, grad_input=of_gates[:, 4 * size :])
        of_children = torch.empty(len(grad), 2, 2 * size, dtype=grad.dtype, device=grad.device)
        of_children[:, :, :size] = ctx.shared.backward(h, of_gates).unflatten(1, (2, size))
        torch.mul(of_c.unsqueeze(1), f, out=of_children[:, :, size:])
        return of_children.view(-1, 2 * size), grad.new_empty(0), None


class ChildSumLSTM(_Cell):
    """Gates i, o and update u of the sum of the children's h, a forget gate of each child's (Tai 2015, eqs. 2-8)."""

    binary = False
    leaf_parts = 3

    def __init__(self, input_size: int, config: ChildSumConfig) -> None:
        super().__init__(input_size, config)
        size = self.hidden_size
        self.state_size = 2 * size
        self.gates, self.forget = _linear(size, 3 * size), _linear(size, size)
        nn.init.constant_(self.forget.bias, config.forget_bias)

    def plant(self, x: Tensor) -> Tensor:
        return _leaf_lstm(self.word(x))

    def composer(self) -> Compose:
        gates, forget, size = self.shared(self.gates), self.shared(self.forget), self.hidden_size

        def compose(children: Tensor, parents: Parents) -> Tensor:
            h, c = children.split(size, dim=1)  # (K, H)
            kept = torch.cat([h, forget(h).sigmoid() * c], dim=1)
            sums = kept.new_zeros(parents.number, 2 * size).index_add(0, parents.owners, kept)  # (n, 2H)
            new = gates(sums[:, :size])
            io, u = new[:, : 2 * size].sigmoid(), new[:, 2 * size :].tanh()
            c = torch.addcmul(sums[:, size:], io[:, :size], u)
            return torch.cat([io[:, size:] * c.tanh(), c], dim=1)

        return compose


class BinaryGRU(_Cell):
    """Resets r_a, r_b of [a; b]; new = tanh(W [r_a a; r_b b]); h mixes a, b and new by gates of all three.

    The gates add up to 1, feature by feature (Chen 2015, section 3; Cho 2014 mixes so too, without resets).
    """

    def __init__(self, input_size: int, config: GRUConfig) -> None:
        super().__init__(input_size, config)
        size = self.hidden_size
        self.reset, self.compose = _linear(2 * size, 2 * size), _adding(size)
        self.update = _linear(3 * size, 3 * size)

    def composer(self) -> Compose:
        reset, new, update = (self.shared(layer) for layer in (self.reset, self.compose, self.update))

        def compose(children: Tensor, parents: Parents) -> Tensor:
            pair = children.view(parents.number, -1)  # (n, 2H)
            fresh = new(reset(pair).sigmoid() * pair).tanh()
            three = torch.cat([pair, fresh], dim=1)  # (n, 3H)
            shares = update(three).unflatten(1, (3, -1)).softmax(1)
            return (shares * three.unflatten(1, (3, -1))).sum(1)

        return compose


TREE_CELLS: dict[str, type[_Cell]] = {
    "rnn": Recursive,
    "rntn": TensorRecursive,
    "mvrnn": MatrixVector,
    "lstm": BinaryLSTM,
    "childsum": ChildSumLSTM,
    "gru": BinaryGRU,
}
"""The compositions by the name a recipe gives: one class, one schema and one line here."""


def build_tree_cell(input_size: int, config: CellConfig) -> TreeCell:
    """The composition of `config`, over words of `input_size` features."""
    kind: Any = TREE_CELLS[config.name]
    cell: TreeCell = kind(input_size, config)
    return cell


def _linear(inputs: int, outputs: int) -> nn.Linear:
    layer = nn.Linear(inputs, outputs)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _adding(size: int, *, share: float = 1.0) -> nn.Linear:
    """A map from two children that begins near their sum, so that words reach the root from the first step on.

    With `share` one half it is their mean, which is what matrices need: sums of them grow twofold with every level.
    """
    layer = nn.Linear(2 * size, size)
    nn.init.uniform_(layer.weight, -(size**-0.5) / 4, (size**-0.5) / 4)
    with torch.no_grad():
        layer.weight += share * torch.eye(size).repeat(1, 2)
    nn.init.zeros_(layer.bias)
    return layer


def _leaf_lstm(gates: Tensor) -> Tensor:
    """The state of a leaf, which has no child to forget: gates (M, 3H) -> (M, 2H)."""
    i, o, u = gates.chunk(3, dim=1)
    c = i.sigmoid() * tanh(u)
    return torch.cat([o.sigmoid() * tanh(c), c], dim=1)
