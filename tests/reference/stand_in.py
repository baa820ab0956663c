"""An accelerator's manners without an accelerator: a device whose tensors are the CPU's in truth.

Tensors on it say that they are elsewhere, so that code takes the ways that it takes on a GPU, and every operation on
them passes by here. What a GPU would refuse is an error: an operation on tensors of both places. What would make the
program wait for a GPU is noted: reading a value, copies that do not let it go on, shapes that hang on values. So are
the kernels that it would start.

Torch's recurrent kernels, one start each as they are on a GPU, are the CPU's.

What it is asked for can be recorded (`record`), as a GPU's graphs record it: a replay does the same to the same memory,
whatever the program holds by then; memory that nothing of the program referred to when the recording ended is another's
by the next time, that of a later recording of the same pool too; and what a GPU would refuse meanwhile is an error.
"""

from __future__ import annotations

import copy
import math
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from seqtext.nn import fused, graphs

try:
    from torch.utils import backend_registration as registration

    register: Any = registration._setup_privateuseone_for_python_backend
except (ImportError, AttributeError):
    register = None  # an older torch


class _Backend:
    """What torch wants to know of a device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None:
        """Its random numbers are the CPU's."""

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


# Before anything asks for a gradient: autograd counts its devices when it first computes one.
if register is not None:
    register("stand_in", backend_module=_Backend())
DEVICE = torch.device("stand_in" if register is not None else "meta", 0)

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.repeat_interleave.Tensor,
    aten.unique_consecutive.default,
    aten._unique2.default,
}
"""Operations whose result, or its shape, the program has to know before it goes on."""
COPIES = {aten._to_copy.default, aten.copy_.default}
FREE = {aten.detach.default, aten.empty.memory_format, aten.empty_like.default, aten.empty_strided.default}
FREE |= {aten.new_empty.default, aten.new_empty_strided.default}
"""Operations beside views that start no kernel."""
MIXED = {aten._pack_padded_sequence.default, aten._pad_packed_sequence.default}
"""Operations that take lengths on the CPU."""
KERNELS = ("lstm", "gru", "rnn_tanh", "rnn_relu")


class Elsewhere(Tensor):
    """A tensor of `DEVICE`."""

    here: Tensor
    """What it is in truth."""

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, here.size(), here.stride(), here.storage_offset(), dtype=here.dtype, device=DEVICE
        )
        made.here = here
        return made  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"Elsewhere({self.here})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: outside of stand_in()")


class Seen(TorchDispatchMode):
    """What happened on the stand-in."""

    def __init__(self) -> None:
        super().__init__()
        self.started: Counter[str] = Counter()
        """Kernels by their names."""
        self.waits: list[str] = []
        """What the program had to wait for, and where it stood."""
        self.tape: list[Callable[[], None]] | None = None
        """While it is recorded: each operation again, its result in the place of the first one's."""
        self.made: list[tuple[Any, Tensor]] = []
        """What these gave, and who knows whether the program holds it."""
        self.fresh: set[int] = set()
        """Memory that came with it."""
        self.replays = 0
        self.pools: dict[Any, list[tuple[int, list[Tensor]]]] = {}
        """Free memory for recordings, in bytes, each with what a replay of the one that uses it spoils."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        there = any(isinstance(each, Elsewhere) for each in tensors)
        made_there = any(isinstance(leaf, torch.device) and leaf.type == DEVICE.type for leaf in leaves)
        if not there and not made_there:
            return func(*args, **kwargs)
        with self:  # what is made of other operations comes as these, in inference mode too
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        if func not in COPIES | MIXED and there:
            # As on a GPU: of both places may be only what is a number here.
            strangers = [each for each in tensors if not isinstance(each, Elsewhere) and each.dim()]
            if strangers:
                raise RuntimeError(
                    f"{func}: tensors of two devices, one of them {tuple(strangers[0].shape)} on the CPU"
                )
        waited = self._note(func, args, kwargs)
        given, inside = tree_map(_here, args), {**tree_map(_here, kwargs), **({"device": "cpu"} if made_there else {})}
        if inside.get("pin_memory"):
            inside["pin_memory"] = False
        found = func(*given, **inside)
        if self.tape is not None:
            if waited or (func in COPIES and any(not isinstance(each, Elsewhere) for each in tensors)):
                raise RuntimeError(f"{func}: not while it is recorded: {_where()}")
            self._tape(func, given, inside, found)
        back = func is aten._to_copy.default and not made_there and kwargs.get("device") is not None
        back |= func is aten.copy_.default and not isinstance(args[0], Elsewhere)
        if back:  # fresh, also where a copy to where it is in truth is none
            return found
        if func in MIXED:
            return _there(found[0]), found[1]
        there = return_and_correct_aliasing(func, args, kwargs, tree_map_only(Tensor, _there, found))
        if self.tape is not None:
            self._hold(there)
        return there

    def kernel(self, kernel: Callable[..., Any], args: Any) -> Any:
        """A recurrent kernel while it is recorded, which is done here without a gradient only."""
        if torch.is_grad_enabled():
            raise RuntimeError("a recurrent kernel is recorded with its gradient")
        given = tree_map(_here, args)
        found = kernel(*given)
        self._tape(kernel, given, {}, found)
        there = tuple(map(Elsewhere, found))
        self._hold(there)
        return there

    def _hold(self, there: Any) -> None:
        found = [leaf for leaf in tree_leaves(there) if isinstance(leaf, Elsewhere)]
        self.made += [(torch._C._WeakTensorRef(leaf), leaf.here) for leaf in found]

    def _tape(self, func: Any, args: Any, kwargs: Any, found: Any) -> None:
        """Note an operation on tensors that are here, and what it gave."""
        assert self.tape is not None
        given = {_memory(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        fresh = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor) and _memory(leaf) not in given]
        self.fresh |= set(map(_memory, fresh))

        def again() -> None:
            results = [leaf for leaf in tree_leaves(func(*args, **kwargs)) if isinstance(leaf, Tensor)]
            for old, new in zip(fresh, [each for each in results if _memory(each) not in given]):
                old.copy_(new)

        self.tape.append(again)

    def record(self, run: Callable[[], Any], pool: Any) -> tuple[Any, Callable[[], None]]:
        """A `graphs.Recorder`."""
        self.tape, self.made, self.fresh = [], [], set()
        try:
            with torch.random.fork_rng(devices=[]):  # on a GPU nothing is drawn yet either
                found = run()
            tape, made = self.tape, [each for each in self.made if _memory(each[1]) in self.fresh]
        finally:
            self.tape, self.made = None, []
        held = {_memory(here): here for leaf, here in made if not leaf.expired()}
        passing = {_memory(here): here for _, here in made if _memory(here) not in held}
        spoilt = list(passing.values())
        # What it keeps lies where earlier recordings of the pool had something for a while, as far as there is room.
        free = self.pools.setdefault(pool, [])
        for here in held.values():
            size = here.untyped_storage().nbytes()
            if block := next((each for each in free if each[0] >= size), None):
                free.remove(block)
                block[1].append(here)
        free += [(here.untyped_storage().nbytes(), spoilt) for here in passing.values()]

        def replay() -> None:
            self.replays += 1
            self.started["graph"] += 1
            for again in tape:
                again()
            _spoil(spoilt)

        _spoil([here for _, here in made])  # nor anything computed
        return found, replay

    def _note(self, func: Any, args: Any, kwargs: Any) -> bool:
        waits = func in WAITING
        if func in COPIES:
            blocking = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
            places = {isinstance(each, Elsewhere) for each in args[:2] if isinstance(each, Tensor)}
            device = kwargs.get("device")
            if device is not None:
                places.add(torch.device(device).type == DEVICE.type)
            waits = len(places) == 2 and blocking
        if func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
            waits = any(each is not None and each.dtype == torch.bool for each in args[1])
        if waits:
            self.waits.append(f"{func}: {_where()}")
        views = any(ret.alias_info is not None and not ret.alias_info.is_write for ret in func._schema.returns)
        if not views and func not in FREE:
            self.started[str(func)] += 1
        return waits

    @property
    def starts(self) -> int:
        return sum(self.started.values())


def _here(value: Any) -> Any:
    return value.here if isinstance(value, Elsewhere) else value


def _there(value: Tensor) -> Tensor:
    return value if isinstance(value, Elsewhere) else Elsewhere(value)


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _spoil(tensors: list[Tensor]) -> None:
    """Leave something else in them."""
    for tensor in tensors:
        tensor.fill_(math.nan if tensor.is_floating_point() else 1)


def _where() -> str:
    """The innermost line of the package that runs."""
    lines = [frame for frame in traceback.extract_stack() if "/seqtext/" in frame.filename.replace("\\", "/")]
    return f"{lines[-1].filename}:{lines[-1].lineno}: {lines[-1].line}" if lines else "outside of the package"


@contextmanager
def stand_in() -> Iterator[Seen]:
    """Within, there is such a device, `DEVICE`; outside, its tensors can only be held. Skips where torch has no way."""
    if register is None:
        pytest.skip(f"torch {torch.__version__} lets no device be written in Python")
    seen = Seen()
    functions = {name: _kernel(kernel, seen) for name, kernel in fused.FUNCTIONS.items()}
    modules = {name: _kernel(getattr(torch._VF, name), seen) for name in KERNELS}
    with (
        mock.patch.dict(fused.FUNCTIONS, functions),
        mock.patch.multiple(torch._VF, **modules),
        seen,
        mock.patch.dict(graphs.RECORDERS, {DEVICE.type: seen.record}),
    ):
        torch._C._set_only_lift_cpu_tensors(True)  # or torch.tensor(..., device=DEVICE) does not come by
        try:
            # Nor can tensors like these be made in inference mode: there is none within.
            with mock.patch.multiple(torch.inference_mode, __enter__=_enter, __exit__=torch.no_grad.__exit__):
                yield seen
        finally:
            torch._C._set_only_lift_cpu_tensors(False)


def _enter(mode: Any) -> None:
    """`torch.no_grad.__enter__`, or nothing where a mode is not to be entered."""
    mode.prev = torch.is_grad_enabled()
    if mode.mode:
        torch.set_grad_enabled(False)


def moved(module: nn.Module) -> nn.Module:
    """A module's copy on the stand-in; weights that its parts share are shared there too, which `Module.to` undoes."""
    there, known = copy.deepcopy(module), dict[int, nn.Parameter]()
    for part in there.modules():
        for name, old in part._parameters.items():
            if old is not None:
                if id(old) not in known:
                    known[id(old)] = nn.Parameter(Elsewhere(old.detach()), requires_grad=old.requires_grad)
                part._parameters[name] = known[id(old)]
        for name, value in part._buffers.items():
            part._buffers[name] = value if value is None else Elsewhere(value)
    return there


def _kernel(kernel: Callable[..., Any], seen: Seen) -> Callable[..., Any]:
    """A recurrent kernel that takes tensors of the stand-in too."""

    def run(*args: Any) -> Any:
        if not any(isinstance(leaf, Elsewhere) for leaf in tree_leaves(args)):
            return kernel(*args)
        if seen.tape is not None:
            return seen.kernel(kernel, args)
        return _Kernel.apply(kernel, args, *(leaf for leaf in tree_leaves(args) if isinstance(leaf, Elsewhere)))

    return run


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernel: Callable[..., Any], args: Any, *leaves: Any) -> Any:
        ctx.given = []

        def lay(value: Elsewhere) -> Tensor:
            ctx.given.append(value.here.detach().requires_grad_(value.here.is_floating_point()))
            return ctx.given[-1]

        with torch.enable_grad():
            ctx.made = kernel(*tree_map_only(Elsewhere, lay, args))
        return tuple(Elsewhere(each.detach()) for each in ctx.made)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        wanted = [each for each in ctx.given if each.requires_grad]
        made = [(each, grad.here) for each, grad in zip(ctx.made, grads) if grad is not None]
        outputs, of_outputs = zip(*made)
        found = iter(torch.autograd.grad(outputs, wanted, of_outputs, allow_unused=True))
        gradients = (next(found) if each.requires_grad else None for each in ctx.given)
        return None, None, *(None if grad is None else Elsewhere(grad) for grad in gradients)
