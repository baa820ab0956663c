"""Where the time goes, part by part, in training from files to new weights, and in prediction from text to results.

The parts are disjoint and make up the whole. Each is measured on a clock, without torch's profiler:

reading     training: files to a dataset, without the cache. Prediction: text to words.
encoding    training: vocabulary, labels and vectors, and the dataset as numbers. Prediction: words as numbers.
batching    from one step's end to the next one's loss: cutting a batch, padding, copying it to the device.
embedding, recurrence, head
            the modules of that name, their forward passes between entry and exit; their backward passes between the
            moments at which the gradients of their outputs and of their inputs arrive, which hooks on those tensors
            tell (autograd computes what was made last first, so a module's backward pass is one stretch of time). Of a
            translator, the decoder with its attention is recurrence, and so are the compositions of trees; the head is
            CRF, softmax, pooling, or the parser.
optimizer   from the backward pass's end to the step's: clipping, the update, the average of weights.

Python and operators of `embedding`, `recurrence`, `head`, `optimizer` and the rest are told apart by torch's profiler,
which sees the operators only: what is left of a part's time on the clock is "Python overhead", the sum over these
parts (autograd's own bookkeeping and numpy, outside batching, are in it), and the operators of the rest are "other
operations". The profiler slows small operations, so its times are not taken as they are: how long it takes to record
an event is measured first, on a small operation with and without it, and an operator's time is what was recorded of
it, less that for each event within it. The parts' times on the clock are those of passes without the profiler, just
before and just after; no part has more time in operators than it has there.

Batches are predicted one after another here, not side by side as they otherwise are on a processor, and the directions
of a layer are trained so too, not each in a thread of its own. Reading and
encoding are done once, and are set against one epoch. On a GPU every boundary of parts waits for the
device, so that work on both sides of it does not overlap; an operator's time is then that of its kernels, which the
profiler does not slow, and Python overhead is all time in which the GPU waits within a part.
"""

from __future__ import annotations

import functools
import itertools
import os
import statistics
import time
from bisect import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import measure
from measure import Figures

READING, ENCODING, BATCHING = "reading", "encoding", "batching"
EMBEDDING, RECURRENCE, HEAD = "embedding", "recurrence", "head"
OPTIMIZER, OTHER, PYTHON = "optimizer", "other operations", "Python overhead"
PARTS = (READING, ENCODING, BATCHING, EMBEDDING, RECURRENCE, HEAD, OPTIMIZER, OTHER, PYTHON)
SPLIT = (EMBEDDING, RECURRENCE, HEAD, OPTIMIZER, OTHER)
"""The parts whose operators are told from their Python."""
OPERATORS = ("aten::", "mkldnn::")
BEGIN = "profile_parts: begin"

MODULES: dict[str, dict[str, str]] = {
    "ner": {"embedding": EMBEDDING, "encoder": RECURRENCE, "output": HEAD, "crf.nll": HEAD, "crf.viterbi": HEAD},
    "sentiment": {"embedding": EMBEDDING, "encoder": RECURRENCE, "pool": HEAD, "norm": HEAD, "output": HEAD},
    # The whole module begins with its embedding, which has no module that is called.
    "lm": {"": EMBEDDING, "encoder": RECURRENCE, "output_dropout": HEAD, "softmax.loss": HEAD, "softmax.nll": HEAD},
    "translation": {
        "target_embedding": EMBEDDING,
        "encoder": RECURRENCE,
        "decoder": RECURRENCE,
        "decoder.step": RECURRENCE,
        "output_norm": HEAD,
        "output_dropout": HEAD,
        "softmax.loss": HEAD,
        "softmax.logits": HEAD,
    },
    "tree-sentiment": {
        "embedding": EMBEDDING,
        "leaves": RECURRENCE,
        "cell": RECURRENCE,
        "output": HEAD,
        "parser.loss": HEAD,
        "parser.parse": HEAD,
        "parser.encoder": RECURRENCE,
    },
}
"""Of each task's module, what belongs to which part: a submodule's forward pass, or a method."""


class Stopwatch:
    """Seconds of each part, one of which runs at a time."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.part: str | None = None
        self.since = 0.0
        self.switches: list[tuple[float, str | None]] = []

    def to(self, part: str | None) -> None:
        """End the part that runs and begin another, or none."""
        now = measure.now()
        if self.part is not None:
            self.seconds[self.part] += now - self.since
        self.part, self.since = part, now
        self.switches.append((now, part))

    def take(self) -> Counter[str]:
        """The seconds so far, which begin anew."""
        found, self.seconds, self.switches = self.seconds, Counter(), []
        return found

    def timed(self, call: Callable[..., Any], part: str, *, after: str | None = None) -> Callable[..., Any]:
        """`call`, with its time and that of its backward pass counted for `part`; `after` it, what ran before it."""

        def wrapper(*arguments: Any, **options: Any) -> Any:
            outer = self.part
            for tensor in _graph(arguments):
                self._at_gradient(tensor, outer)
            self.to(part)
            result = call(*arguments, **options)
            for tensor in _graph((result,)):
                self._at_gradient(tensor, part)
            self.to(after or outer)
            return result

        return wrapper

    def _at_gradient(self, tensor: Any, part: str | None) -> None:
        """Begin a part when the gradient of `tensor` is there, unless another part does so."""
        if getattr(tensor, "_timed", False):
            return
        tensor._timed = True
        tensor.register_hook(lambda gradient: self.to(part))

    @contextmanager
    def watching(self, watched: Sequence[tuple[Any, str, str, str | None]]) -> Iterator[None]:
        """Within, methods (owner, name, part, the part after it or None) are timed."""
        with ExitStack() as undo:
            for owner, name, part, after in watched:
                timed = self.timed(getattr(owner, name), part, after=after)
                undo.enter_context(mock.patch.object(owner, name, timed))
            yield


def _graph(value: Any) -> Iterator[Any]:
    """The tensors within tuples and lists that a gradient passes through."""
    import torch

    if isinstance(value, torch.Tensor):
        if value.grad_fn is not None:
            yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _graph(part)


def modules(task: Any, module: Any) -> list[tuple[Any, str, str, str | None]]:
    """What to watch of a task's module."""
    from torch import nn

    watched = []
    for path, part in MODULES[task.name].items():
        owner, name, found = None, "", module
        for step in filter(None, path.split(".")):
            owner, name, found = found, step, getattr(found, step, None)
            if found is None:
                break
        if isinstance(found, nn.Module):
            watched.append((found, "forward", part, None))
        elif found is not None:
            watched.append((owner, name, part, None))
    return watched


@measure.one_by_one()
def training(
    chosen: Any, task: Any, module: Any, train: Any, devices: Any, *, seconds: float, repeats: int, scratch: Path
) -> Figures:
    """Shares of a first epoch of training on the encoded split `train`, from the files on."""
    from seqtext.training.loop import fit

    config = chosen.train.model_copy(update={"epochs": 10_000})
    tokens = measure.step_tokens(fit(task, module, train, None, config, devices=devices, seed=chosen.seed))
    clock = Stopwatch()

    def step() -> int:
        clock.to(BATCHING)
        count = next(tokens)
        clock.to(None)
        return count

    steps = iter(step, None)
    watched = [*modules(task, module), (task, "loss", OTHER, None), (devices, "backward", OTHER, OPTIMIZER)]
    whole = int(sum(batch.lengths.sum() for batch in task.batches(train, tokens=chosen.train.batch_tokens)))
    found: Figures = {part: [] for part in PARTS}
    with clock.watching(watched):
        work = measure.lasting(steps, seconds=seconds)
        for number in range(repeats):
            spent = _split(work, clock)  # a token
            files = _files(chosen, scratch / f"profile-{number}")
            spent.update({part: took / whole for part, took in files.items()})
            _note(found, spent)
    return found


def _files(chosen: Any, cache: Path) -> dict[str, float]:
    """Seconds that it takes to read and to encode a recipe's training data, with an empty cache."""
    with mock.patch.dict(os.environ, {"SEQTEXT_CACHE": str(cache)}):
        times = [time.perf_counter()]
        dataset = chosen.task.read(chosen.data, "train")
        times.append(time.perf_counter())
        chosen.task.fit(chosen.data, dataset).encode(dataset)
        times.append(time.perf_counter())
    return dict(zip((READING, ENCODING), (after - before for before, after in itertools.pairwise(times))))


def prediction(model: Any, lines: Sequence[str], *, repeats: int, **options: Any) -> Figures:
    """Shares of predicting all lines together."""
    clock = Stopwatch()
    task = model.task

    def work() -> int:
        clock.to(BATCHING)
        model.predict(lines, **options)
        clock.to(None)
        return len(lines)

    watched = [*modules(task, model.module), (task, "predict", OTHER, None)]
    watched += [(task, "prepare", READING, None), (task, "inputs", ENCODING, None)]
    found: Figures = {part: [] for part in PARTS}
    with measure.one_by_one(), clock.watching(watched):
        work()
        for _ in range(repeats):
            _note(found, _split(work, clock))
    return found


def _split(work: Callable[[], int], clock: Stopwatch) -> Counter[str]:
    """Seconds of each part for each token (or whatever `work` counts), Python apart."""
    from torch.profiler import profile, record_function

    clock.take()
    count = work()
    with profile(activities=measure.activities()) as profiler:
        before = clock.take()
        with record_function(BEGIN):
            began = measure.now()
        profiled = work()
    switches, _ = clock.switches, clock.take()
    count += work()
    plain = Counter({part: (before[part] + spent) / count for part, spent in clock.take().items()})
    inside = _operators(profiler.events(), switches, began)
    result = Counter({part: plain[part] for part in plain if part not in SPLIT})
    for part in SPLIT:
        result[part] = min(plain[part], max(0.0, inside[part] / profiled))
        result[PYTHON] += plain[part] - result[part]
    return result


def _operators(events: Any, switches: Sequence[tuple[float, str | None]], began: float) -> Counter[str | None]:
    """Seconds that operators take in each part: as recorded, less what recording those within them took."""
    start = next(event for event in events if event.name == BEGIN).time_range.end / 1e6
    times = [now - began + start for now, _ in switches]
    cost = 0.0 if measure.on_gpu() else _event_cost()
    spent: Counter[str | None] = Counter()
    for event in events:
        top = _top(event)
        if top is None:
            continue
        # By its middle, since a backward operator begins just before the hook that begins its part.
        middle = (top.time_range.start + top.time_range.end) / 2e6
        part = switches[max(0, bisect(times, middle) - 1)][1]
        spent[part] += measure.microseconds(event) / 1e6 if top is event else -cost
    return spent


@functools.cache
def _event_cost() -> float:
    """Seconds that the profiler takes to record an event: a loop's time with it less that without."""
    import torch
    from torch.profiler import profile

    small = torch.zeros(2, 2)

    def loop() -> float:
        began = time.perf_counter()
        for _ in range(1000):
            torch.nn.functional.linear(small, small)
        return time.perf_counter() - began

    loop()
    plain = min(loop() for _ in range(5))
    costs = []
    for _ in range(5):
        with profile(activities=measure.activities()) as profiler:
            seconds = loop()
        costs.append((seconds - plain) / len(profiler.events()))
    return max(0.0, min(costs))


def _top(event: Any) -> Any:
    """The outermost operator that an event is, or is part of; None where there is none."""
    top = None
    while event is not None:
        if event.name.startswith(OPERATORS):
            top = event
        event = event.cpu_parent
    return top


def _note(found: Figures, spent: Counter[str]) -> None:
    total = sum(spent.values())
    for part in PARTS:
        found[part].append(spent[part] / total)


def report(profiles: dict[str, Figures]) -> None:
    """Print the shares as a table, a column for each that was profiled: median (smallest-largest)."""
    print("\nwhere the time goes, share of it, median (min-max)")
    print(f"  {'':<18}" + "".join(f"{name:>26}" for name in profiles))
    for part in PARTS:
        cells = []
        for found in profiles.values():
            low, middle, high = min(found[part]), statistics.median(found[part]), max(found[part])
            cells.append(f"{middle:.3f}" + (f" ({low:.3f}-{high:.3f})" if len(found[part]) > 1 else ""))
        print(f"  {part:<18}" + "".join(f"{cell:>26}" for cell in cells))
