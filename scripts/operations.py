"""Operations of matrix products, counted: those with weights that a result needs, or all as they run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


@contextmanager
def counted_flops(module: nn.Module, rows: Callable[[Tensor], int] | None = None) -> Iterator[list[int]]:
    """Within, the FLOPs of matrix products with weights, 2 a weight and row, are appended layer by layer as they run.

    Counted are linear and recurrent layers. `rows` gives the rows of a layer's input that count; without it, all do.
    """
    counts: list[int] = []

    def count(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        x = inputs[0]
        wanted = rows(x) if rows else x.numel() // x.size(-1)
        counts.append(2 * wanted * sum(weight.numel() for weight in layer.parameters() if weight.dim() == 2))

    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.RNNBase)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def forward_flops(part: nn.Module, task: Any, module: Any, train: Any, chosen: Any) -> tuple[float, float]:
    """Forward FLOPs a real token in the layers of `part` of a module that reads sentences, and the share of padding.

    Positions of padding count for nothing, since no result needs them; the backward pass takes twice as much again.
    """
    tokens = positions = 0
    batch: Any = None

    def rows(x: Tensor) -> int:
        count, longest = len(batch.lengths), int(batch.lengths.max())
        # A parser reads a mark before and after each sentence.
        marks = x.size(1) - longest if x.dim() == 3 and x.size(0) == count else -1
        return int(batch.lengths.sum()) + marks * count if 0 <= marks <= 2 else x.numel() // x.size(-1)

    shuffle = np.random.default_rng(chosen.seed)
    module.eval()
    with counted_flops(part, rows) as flops:  # with gradients: without them, other kernels take some products
        for batch in itertools.islice(task.batches(train, tokens=chosen.train.batch_tokens, shuffle=shuffle), 50):
            task.loss(module, batch)
            tokens += int(batch.lengths.sum())
            positions += len(batch.lengths) * int(batch.lengths.max())
    return sum(flops) / tokens, 1 - tokens / positions


class AsRun(TorchDispatchMode):
    """Counts, in `total`, the FLOPs of matrix products as they run within: those of padding too, and of states with
    states.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in WEIGHTS:
            matrices = [weight for weight in WEIGHTS[func](args) if weight.dim() == 2]
            self.total += 2 * args[0].shape[:-1].numel() * sum(weight.numel() for weight in matrices)
        elif func._overloadpacket in flop_registry:
            found = func(*args, **kwargs)
            self.total += flop_registry[func._overloadpacket](*args, **kwargs, out_val=found)
            return found
        else:
            with self:  # what is made of other operations is counted by these
                found = func.decompose(*args, **kwargs)
            if found is not NotImplemented:
                return found
        return func(*args, **kwargs)


WEIGHTS: dict[Any, Callable[[Any], list[Tensor]]] = {
    torch.ops.aten.mkldnn_rnn_layer.default: lambda args: list(args[1:3]),
    torch.ops.aten._cudnn_rnn.default: lambda args: list(args[1]),
}
"""Kernels that torch's own counting does not know, and the weights among their arguments: of each 2 FLOPs a row."""
if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
    WEIGHTS[torch.ops.mkldnn._linear_pointwise.default] = lambda args: [args[1]]


def as_run(work: Callable[[], int]) -> float:
    """FLOPs of matrix products for each of the tokens that `work` gives the number of."""
    import measure

    with measure.one_by_one(), AsRun() as counted:
        tokens = work()
    return counted.total / tokens
