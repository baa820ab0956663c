"""Recursive nets the slow way: one node at a time, by recursion, each cell by the equations of its paper."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Tree = Any
"""A leaf has the `place` of its word, an inner node is the list of its children."""


def linear(layer: Any, x: Tensor) -> Tensor:
    return layer.weight @ x + layer.bias


def rnn(cell: Any, children: list[Tensor]) -> Tensor:
    return torch.tanh(linear(cell.compose, torch.cat(children)))


def rntn(cell: Any, children: list[Tensor]) -> Tensor:
    pair, size = torch.cat(children), cell.hidden_size
    slices = cell.tensor.weight.view(size, 2 * size, 2 * size)
    biases = cell.tensor.bias.view(size, 2 * size)
    bilinear = torch.stack([(v @ pair + b) @ pair for v, b in zip(slices, biases)]) / len(pair)
    return torch.tanh(bilinear + linear(cell.compose, pair))


def mvrnn(cell: Any, children: list[Tensor]) -> Tensor:
    size = cell.hidden_size
    (a, upper_a), (b, upper_b) = ((state[:size], state[size:].view(size, size)) for state in children)
    h = torch.tanh(linear(cell.compose, torch.cat([upper_b @ a, upper_a @ b])))
    matrix = cell.merge.weight @ torch.cat([upper_a, upper_b]) + cell.merge.bias.unsqueeze(1)
    return torch.cat([h, matrix.flatten()])


def lstm(cell: Any, children: list[Tensor]) -> Tensor:
    size = cell.hidden_size
    (left, c_left), (right, c_right) = (state.split(size) for state in children)
    i, o, f_left, f_right, u = linear(cell.gates, torch.cat([left, right])).split(size)
    c = i.sigmoid() * u.tanh() + f_left.sigmoid() * c_left + f_right.sigmoid() * c_right
    return torch.cat([o.sigmoid() * c.tanh(), c])


def childsum(cell: Any, children: list[Tensor]) -> Tensor:
    size = cell.hidden_size
    states = [state.split(size) for state in children]
    total = torch.stack([h for h, _ in states]).sum(0)
    i, o, u = linear(cell.gates, total).split(size)
    c = i.sigmoid() * u.tanh()
    for h, memory in states:
        c = c + linear(cell.forget, h).sigmoid() * memory
    return torch.cat([o.sigmoid() * c.tanh(), c])


def gru(cell: Any, children: list[Tensor]) -> Tensor:
    a, b = children
    reset_a, reset_b = linear(cell.reset, torch.cat([a, b])).sigmoid().chunk(2)
    new = torch.tanh(linear(cell.compose, torch.cat([reset_a * a, reset_b * b])))
    z = linear(cell.update, torch.cat([a, b, new])).view(3, -1).exp()
    return (z[0] * a + z[1] * b + z[2] * new) / z.sum(0)


def leaf(cell: Any, name: str, x: Tensor) -> Tensor:
    """The state of a word with the vector x (D,)."""
    size = cell.hidden_size
    if name in ("lstm", "childsum"):
        i, o, u = linear(cell.word, x).split(size)
        c = i.sigmoid() * u.tanh()
        return torch.cat([o.sigmoid() * c.tanh(), c])
    h = torch.tanh(linear(cell.word, x))
    if name != "mvrnn":
        return h
    parts = linear(cell.matrix, x)
    left, right = parts[size : size + size * cell.rank].view(size, -1), parts[size + size * cell.rank :].view(-1, size)
    return torch.cat([h, (torch.eye(size, dtype=x.dtype) + torch.diag(parts[:size]) + left @ right).flatten()])


COMPOSE = {"rnn": rnn, "rntn": rntn, "mvrnn": mvrnn, "lstm": lstm, "childsum": childsum, "gru": gru}


def states(cell: Any, name: str, x: Tensor, tree: Tree) -> list[tuple[Tree, Tensor]]:
    """Every node of a tree with its state, children before their parent; x (T, D) are the words' vectors.

    With a list for a stack, so that a chain may be deeper than Python recurses.
    """
    done: dict[int, Tensor] = {}
    found: list[tuple[Tree, Tensor]] = []
    todo: list[tuple[Tree, bool]] = [(tree, False)]
    while todo:
        node, ready = todo.pop()
        if hasattr(node, "place"):
            state = leaf(cell, name, x[node.place])
        elif ready:
            state = COMPOSE[name](cell, [done[id(child)] for child in node])
        else:
            todo.append((node, True))
            todo += [(child, False) for child in reversed(node)]
            continue
        done[id(node)] = state
        found.append((node, state))
    return found
