"""The two directions of a layer on a CPU, each in a thread of its own.

Threads that share a step of few rows wait for each other most of the time; a direction does not need the other. So each
takes half of torch's threads for its whole pass, forward and back. Only for cells that are one kernel, or a loop that
takes no Python: others would wait for Python instead.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seqtext.nn import side_by_side
from seqtext.nn.cell import Cell, State
from seqtext.nn.shared import ends

Result = TypeVar("Result")

LEAST = 1e7
"""FLOPs of a direction's forward pass from which on two threads gain more than it costs to hand the work over."""


def suits(cells: Sequence[Cell], readings: Sequence[Tensor], *, gates: int) -> bool:
    """Whether a layer of such cells, none of which takes Python for long, should take its directions apart."""
    cell, x = cells[0], readings[0]
    weights = gates * cell.hidden_size * (x.size(2) + cell.hidden_size)
    return (
        len(cells) == 2
        and isinstance(getattr(cell, "kernel", None), nn.RNNBase)  # and not what stands in for it in an export
        and x.device.type == "cpu"
        and 2 * x.size(0) * x.size(1) * weights >= LEAST
        and torch.get_num_threads() > 1
        and side_by_side.WORKERS > 1
        and not (cell.training and cell.weight_dropout)  # threads that draw by turns would draw in any order
        and not any(each._forward_hooks or each._forward_pre_hooks for each in cells)  # who watches wants one graph
    )


def apart(
    cells: Sequence[Cell], readings: Sequence[Tensor], starts: Sequence[State | None], lengths: Tensor | None
) -> list[tuple[Tensor, State]]:
    """What `Cell.together` gives."""
    if not torch.is_grad_enabled():
        modes = torch.is_inference_mode_enabled(), torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")

        def run(direction: int) -> tuple[Tensor, State]:
            with torch.inference_mode(modes[0]), torch.no_grad(), torch.autocast("cpu", modes[2], enabled=modes[1]):
                return cells[direction](readings[direction], starts[direction], lengths=lengths)

        return list(_in_two_threads(run))
    given = [[x, *(start or ()), *cell.parameters()] for cell, x, start in zip(cells, readings, starts)]
    owns = [1 + len(start or ()) for start in starts]
    found = _Apart.apply(cells, lengths, owns, len(given[0]), *given[0], *given[1])
    half = len(found) // 2
    return [(part[0], tuple(part[1:])) for part in (found[:half], found[half:])]


class _Apart(torch.autograd.Function):
    """The graph of each direction is its own: made in its thread, and gone back through in it."""

    @staticmethod
    def forward(ctx: Any, cells: Any, lengths: Tensor | None, owns: list[int], size: int, *given: Tensor) -> Any:
        """`owns`: how many of each direction's `size` tensors come from outside; the others are its weights."""
        cast, number = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        ctx.set_materialize_grads(False)

        def run(direction: int) -> tuple[list[Tensor], list[Tensor]]:
            inputs, own = list(given[:size] if direction == 0 else given[size:]), owns[direction]
            for place, tensor in enumerate(inputs[:own]):
                inputs[place] = tensor.detach().requires_grad_(tensor.requires_grad)
            with torch.enable_grad(), torch.autocast("cpu", dtype=number, enabled=cast):
                states, end = cells[direction](inputs[0], tuple(inputs[1:own]) or None, lengths=lengths)
            return inputs, [states, *end]

        ctx.passes = _in_two_threads(run)
        return tuple(output.detach() for _, outputs in ctx.passes for output in outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # type: ignore[override]
        passes, keep, half = ctx.passes, not ends(), len(grads) // 2
        if passes is None:
            raise RuntimeError("a second gradient of one pass: ask for the first with retain_graph=True")

        def run(direction: int) -> list[Tensor | None]:
            inputs, outputs = passes[direction]
            own = grads[:half] if direction == 0 else grads[half:]
            used = [(output, grad) for output, grad in zip(outputs, own) if grad is not None and output.requires_grad]
            wanted = [tensor for tensor in inputs if tensor.requires_grad]
            if not used or not wanted:
                return [None for _ in inputs]
            of, given = zip(*used)
            found = iter(torch.autograd.grad(of, wanted, given, retain_graph=keep, allow_unused=True))
            return [next(found) if tensor.requires_grad else None for tensor in inputs]

        found = _in_two_threads(run)
        if not keep:
            ctx.passes = None
        return None, None, None, None, *found[0], *found[1]


def _in_two_threads(run: Callable[[int], Result]) -> tuple[Result, Result]:
    """`run(0)` in this thread, `run(1)` in another meanwhile, each with half of torch's threads."""
    threads = torch.get_num_threads()
    other = _thread(threads // 2, os.getpid())
    torch.set_num_threads(threads // 2)
    try:
        second = other.submit(run, 1)
        try:
            first = run(0)
        finally:
            second.exception()  # waits for it
        return first, second.result()
    finally:
        torch.set_num_threads(threads)


@functools.cache
def _thread(threads: int, process: int) -> ThreadPoolExecutor:
    """A thread of this process that has so many of torch's; a process that was forked has none of its parent's."""
    return ThreadPoolExecutor(1, "direction", _begin, (threads,))


def _begin(threads: int) -> None:
    torch.set_num_threads(threads)
    # The end of the outermost autocast of a thread throws away the cast weights of all threads. In the middle of a pass
    # of the other one these would be cast again, and their gradients rounded in two parts. So this thread has no end.
    torch.autocast_increment_nesting()
