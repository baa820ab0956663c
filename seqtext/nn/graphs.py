"""Passes recorded once and replayed: what some hundred small kernels do then costs a GPU a single start (CUDA graphs).

A recording replays the very kernels that it was made of, over memory of its own: `run` copies the tensors of a call
into it, replays, and hands out copies of what came of it. It holds for one shape; so tensors are filled up with zeros
to a few shapes (`room`) before a body sees them, and what a body does must leave what was there alone by them. The
first call of a shape is computed as it stands, which also sets up the libraries, the second is recorded: both compute
the same kernels over the same filled-up tensors, so that a run that goes on from a checkpoint keeps its numbers.

A body may be any function of tensors and of its owner's weights, with a gradient or without, and may draw random
numbers; it may not wait for the device, nor depend on values that the host knows and a recording does not.
"""

from __future__ import annotations

import contextlib
import functools
import weakref
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from seqtext.errors import DeviceError
from seqtext.nn.room import room
from seqtext.nn.shared import ends

Body: TypeAlias = Callable[..., Any]
"""Tensors -> tensors, in tuples and lists, among which may be None."""
Recorder: TypeAlias = Callable[[Callable[[], Any], Any], tuple[Any, Callable[[], None]]]
"""Runs a function to record it, with memory of a pool -> what it gave, in whose place a replay puts what it gives then;
the replay.

Before the first replay what it gave may hold anything. What a recording of the same pool keeps may lie where an earlier
one has kept something for a while: a replay of that one spoils it. A pool is any object.
"""

WANTED = False
"""Whether passes are recorded where they can be."""
MOST = 64
"""Recordings of an owner; shapes that come when it has so many are computed as they stand."""


class Pool:
    """Memory for recordings."""

    @functools.cached_property
    def of_cuda(self) -> Any:
        return torch.cuda.graph_pool_handle()


PASSING = Pool()
"""For recordings without a gradient: what they give is copied at once, and then nothing of them is needed."""


def _cuda(run: Callable[[], Any], pool: Pool) -> tuple[Any, Callable[[], None]]:
    graph = torch.cuda.CUDAGraph()
    try:
        # Only what this thread does is refused while it records: another one may be copying.
        with torch.cuda.graph(graph, pool=pool.of_cuda, capture_error_mode="thread_local"):
            found = run()
    except RuntimeError as error:
        told = str(error).strip().splitlines()[0]
        raise DeviceError(f"a pass could not be recorded: {told}; go on with train.graphs=false") from error
    return found, graph.replay


RECORDERS: dict[str, Recorder] = {"cuda": _cuda}
"""How passes are recorded, by the type of device."""


def wanted(x: Tensor) -> bool:
    """Whether what is computed from x should be recorded. Not within what is."""
    return WANTED and not _inside and x.device.type in RECORDERS and x.numel() > 0


def run(
    owner: nn.Module,
    body: Body,
    tensors: Sequence[Tensor],
    shapes: Sequence[Sequence[int]],
    *,
    name: Hashable = None,
    constant: int = 0,
) -> Any:
    """`body(*tensors)` of tensors filled up to `shapes`, recorded for the next time.

    What it gives is of the size that goes with these shapes: the caller cuts it. `name` tells bodies of one owner apart
    that have none, or the same. The last `constant` tensors never change: they are copied only when they are others
    than the last time.
    """
    graded, device = torch.is_grad_enabled(), tensors[0].device.type
    weights = [weight for weight in owner.parameters() if weight.requires_grad] if graded else []
    cast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    key = (
        getattr(body, "__name__", None),
        name,
        *((tuple(shape), tensor.dtype, tensor.device, tensor.requires_grad) for tensor, shape in zip(tensors, shapes)),
        *(graded, torch.is_inference_mode_enabled(), cast, owner.training, tuple(map(id, weights))),
    )
    kept: _Recordings = owner.__dict__.setdefault("recordings", _Recordings())
    recording = kept.made.get(key)
    if recording is None and kept.again(key):
        recording = kept.made[key] = _Recording(owner, body, tensors, shapes, weights, cast)
    if recording is None or recording.busy:
        with _within(tensors[0], cast):
            return body(*(_filled(tensor, shape) for tensor, shape in zip(tensors, shapes)))
    if graded:
        found = _Replay.apply(recording, len(tensors), *tensors, *weights)
    else:
        found = recording.forward(tensors, constant=constant)
    return rebuilt(recording.found, iter(found))


def step(owner: nn.Module, body: Callable[..., Any], tokens: Tensor, state: Any, memory: Any) -> Any:
    """`body(tokens, state, memory)`, one step of N hypotheses of B sentences as searches take it, by a recording.

    State, memory and what the body gives are made of tensors with N or B rows, None, and tuples or lists of these.
    """
    if not wanted(tokens):
        return body(tokens, state, memory)
    of_state, of_memory = leaves(state), leaves(memory)
    rows = len(of_memory[0]) if of_memory else len(tokens)
    wide = room(rows) * (len(tokens) // rows)
    given = [tokens, *of_state, *of_memory]
    sizes = [wide] * (1 + len(of_state)) + [room(rows)] * len(of_memory)

    def filled(tokens: Tensor, *rest: Tensor) -> Any:
        parts = iter(rest)
        return body(tokens, rebuilt(state, parts), rebuilt(memory, parts))

    shapes = [(size, *each.shape[1:]) for size, each in zip(sizes, given)]
    found = run(owner, filled, given, shapes, name=(form(state), form(memory)), constant=len(of_memory))
    return rebuilt(found, iter([each[: len(tokens)] for each in leaves(found)]))


_inside = False


@contextlib.contextmanager
def _within(x: Tensor, cast: torch.dtype | None) -> Iterator[None]:
    """The context of a body: nothing within is recorded by itself.

    Autocast keeps no cast weights: within a recording they would be those of another time.
    """
    global _inside
    device = x.device.type
    kept = torch.autocast(device, dtype=cast, cache_enabled=False) if cast else contextlib.nullcontext()
    _inside = True
    try:
        with kept:
            yield
    finally:
        _inside = False


@contextlib.contextmanager
def _named(owner: nn.Module, others: dict[int, Tensor]) -> Iterator[None]:
    """The context in which weights of a module, by their ids, are others."""
    places: list[tuple[dict[str, Any], str, Any]] = [
        (module._parameters, name, weight)
        for module in owner.modules()
        for name, weight in module._parameters.items()
        if id(weight) in others
    ]
    for place, name, weight in places:
        place[name] = others[id(weight)]
    try:
        yield
    finally:
        for place, name, weight in places:
            place[name] = weight


class _Recordings:
    """Those of one owner, by what they are of."""

    def __init__(self) -> None:
        self.seen: set[Hashable] = set()
        self.made: dict[Hashable, _Recording] = {}

    def __deepcopy__(self, memo: Any) -> _Recordings:
        return _Recordings()  # they are of the weights of the one copied

    def again(self, key: Hashable) -> bool:
        """Whether this was asked before, and there is room for one more."""
        known = key in self.seen
        self.seen.add(key)
        return known and len(self.made) < MOST


class _Recording:
    """A body, and its gradient where one is wanted, over tensors that stay where they are."""

    def __init__(
        self,
        owner: nn.Module,
        body: Body,
        tensors: Sequence[Tensor],
        shapes: Sequence[Sequence[int]],
        weights: Sequence[Tensor],
        cast: torch.dtype | None,
    ) -> None:
        self.busy = False
        """Whether a pass forward waits for its gradient, for which this holds what it needs. A second pass meanwhile is
        computed as it stands."""
        record, graded = RECORDERS[tensors[0].device.type], torch.is_grad_enabled()
        # What waits for its gradient must not lie where another recording, replayed meanwhile, keeps its sums.
        pool = Pool() if graded else PASSING
        self.inputs = [
            tensor.detach().new_zeros(shape).requires_grad_(tensor.requires_grad)
            for tensor, shape in zip(tensors, shapes)
        ]
        self.shapes = [torch.Size(shape) for shape in shapes]
        """Of what was copied into each of them; behind that are zeros."""
        self.constants: list[weakref.ref[Tensor] | None] = [None for _ in shapes]
        """What was copied, of what does not change."""
        # Autograd knows of weights since another stream used them, and would have that one wait for what is recorded.
        # These are the same numbers under another name.
        own = [weight.detach().requires_grad_() for weight in weights]
        sources = [each for each in (*self.inputs, *own) if each.requires_grad]
        self.wanted = [each.requires_grad for each in (*self.inputs, *own)]

        def forward() -> Any:
            with _within(tensors[0], cast), _named(owner, dict(zip(map(id, weights), own))):
                return body(*self.inputs)

        self.found, self._forward = record(forward, pool)
        self.outputs = leaves(self.found)
        self.grown = [place for place, output in enumerate(self.outputs) if output.requires_grad]
        if not self.grown:
            return
        outputs = [self.outputs[place] for place in self.grown]
        self.grads = [torch.zeros_like(output) for output in outputs]
        # The graph is kept, and with it what its nodes have saved: that is what a replay reads.
        self.gradients, self._backward = record(
            lambda: torch.autograd.grad(outputs, sources, self.grads, retain_graph=True, allow_unused=True), pool
        )

    @torch.no_grad()
    def forward(self, tensors: Sequence[Tensor], *, constant: int = 0) -> list[Tensor]:
        into, sources = [], []
        for place, (own, tensor) in enumerate(zip(self.inputs, tensors)):
            if place >= len(tensors) - constant:
                last = self.constants[place]
                if last is not None and last() is tensor:
                    continue
                self.constants[place] = weakref.ref(tensor)
            if tensor.shape != self.shapes[place]:
                self.shapes[place] = tensor.shape
                own.zero_()
            into.append(own[tuple(map(slice, tensor.shape))])
            sources.append(tensor)
        _copy(into, sources)
        self._forward()
        return _copies(self.outputs)

    @torch.no_grad()
    def backward(self, grads: Sequence[Tensor | None]) -> list[Tensor | None]:
        """The gradients of the inputs and of the weights, from those of the outputs."""
        given = [(own, grads[place]) for own, place in zip(self.grads, self.grown)]
        for own, grad in given:
            if grad is None:
                own.zero_()
        _copy([own for own, grad in given if grad is not None], [grad for _, grad in given if grad is not None])
        self._backward()
        found = iter(self.gradients)
        each = [next(found) if wanted else None for wanted in self.wanted]
        copies = iter(_copies([grad for grad in each if grad is not None]))
        return [None if grad is None else next(copies) for grad in each]


def _copy(into: Sequence[Tensor], sources: Sequence[Tensor]) -> None:
    """Each into its own, those of one number format in one start where they lie in one piece."""
    pairs: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for own, source in zip(into, sources):
        alike = pairs.setdefault(own.dtype, ([], []))
        alike[0].append(own)
        alike[1].append(source)
    for alike in pairs.values():
        torch._foreach_copy_(*alike)


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    found = [torch.empty_like(tensor) for tensor in tensors]
    _copy(found, [tensor.detach() for tensor in tensors])
    return found


class _Lease:
    """A recording's use from a pass forward on, until its gradient is there or no one can ask for it."""

    def __init__(self, recording: _Recording) -> None:
        self.recording = recording
        recording.busy = True

    def __del__(self) -> None:
        self.recording.busy = False


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: _Recording, count: int, *given: Tensor) -> tuple[Tensor, ...]:
        """`count` tensors, then the weights."""
        ctx.set_materialize_grads(False)
        ctx.shapes = [tensor.shape for tensor in given[:count]]
        found = recording.forward(given[:count])
        if recording.grown:
            ctx.lease = _Lease(recording)
        ctx.mark_non_differentiable(*(each for place, each in enumerate(found) if place not in recording.grown))
        return tuple(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> Any:  # type: ignore[override]
        if ctx.lease is None:
            raise RuntimeError("a second gradient of one pass: ask for the first with retain_graph=True")
        found = ctx.lease.recording.backward(grads)
        if ends():
            ctx.lease = None
        for place, shape in enumerate(ctx.shapes):
            grad = found[place]
            found[place] = None if grad is None else grad[tuple(map(slice, shape))]
        return None, None, *found


def _filled(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """The tensor with zeros behind it in every dimension, up to a shape."""
    if tensor.shape == torch.Size(shape):
        return tensor
    more = [size for had, wanted in zip(tensor.shape[::-1], shape[::-1]) for size in (0, wanted - had)]
    return nn.functional.pad(tensor, more)


def leaves(structure: Any) -> list[Tensor]:
    """The tensors of a structure of tuples and lists, in their order."""
    if isinstance(structure, Tensor):
        return [structure]
    return [] if structure is None else [leaf for part in structure for leaf in leaves(part)]


def rebuilt(structure: Any, tensors: Iterator[Tensor]) -> Any:
    """The structure with the next of `tensors` in the place of each of its own."""
    if isinstance(structure, Tensor):
        return next(tensors)
    if structure is None:
        return None
    parts = [rebuilt(part, tensors) for part in structure]
    return type(structure)(*parts) if hasattr(structure, "_fields") else type(structure)(parts)


def form(structure: Any) -> Hashable:
    """What structures have in common that differ in their tensors only."""
    if structure is None or isinstance(structure, Tensor):
        return structure is None
    return (type(structure), *map(form, structure))
