"""Several pieces of work side by side on a processor, each with its share of torch's threads.

A recurrent step is many small operations, and threads that share each of them spend much of their time waiting for each
other. Threads that have a batch of their own do not; what they share is Python, of which a batch has little.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

WORKERS = 4
"""Pieces of work at a time, at most: more would wait for Python, and each needs its memory."""


def side_by_side(work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """`map(work, items)`, in order, several at a time; the first error is raised in its place.

    As many at a time as torch has threads, `WORKERS` at most, each in a thread of its own with the modes of the one
    that calls: inference, gradient, autocast. No more items are taken than are worked on or wait to be given back.
    """
    items = iter(items)
    threads = torch.get_num_threads()
    first = list(islice(items, min(threads, WORKERS)))
    if len(first) < 2:
        yield from map(work, chain(first, items))
        return
    modes = torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    number = torch.get_autocast_dtype("cpu")

    def run(item: Item) -> Result:
        with torch.inference_mode(modes[0]), torch.set_grad_enabled(modes[1] and not modes[0]):
            if not modes[2]:
                return work(item)
            with torch.autocast("cpu", dtype=number):
                return work(item)

    pool = ThreadPoolExecutor(len(first), initializer=torch.set_num_threads, initargs=(threads // len(first),))
    waiting: deque[Future[Result]] = deque()
    try:
        waiting.extend(pool.submit(run, item) for item in first)
        waiting.extend(pool.submit(run, item) for item in islice(items, len(first)))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(run, item) for item in islice(items, 1))
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what threads that are yet to start will have
