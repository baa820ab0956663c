"""The batches of a language model: windows of a text that go on from each other, or lines that stand apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqtext.data.batching import bucketed
from seqtext.data.stream import Stream, Windows


class Batch(NamedTuple):
    """A window of B streams, or B lines, of T steps."""

    rows: Tensor
    """(N,) int64, CPU: the lines that it scores; none in training."""
    lengths: Tensor
    """(B,) int64, CPU: targets of each stream or line."""
    inputs: Tensor
    """(B, T) int64."""
    targets: Tensor
    """(B, T) int64: the tokens to predict, -1 where there is none."""
    lines: Tensor | None
    """(B, T) int64: which of `rows` each target belongs to, 0 where there is none; None in training."""
    first: bool
    """Whether no state is carried into it."""
    rate: float = 1.0
    """Factor on the learning rate."""
    labels: Tensor | None = None
    """(B,) int64: the label of each document, where there are labels."""


@dataclass(frozen=True)
class Lines:
    """Lines that are read each by itself."""

    stream: Stream
    labels: np.ndarray | None = None
    """(L,) int64: the label of each line that is a document, where it is known."""

    def __len__(self) -> int:
        return len(self.stream)


@dataclass(frozen=True)
class Batches:
    """The windows of a pass as batches; `len` is their number."""

    windows: Windows
    window: int

    def __len__(self) -> int:
        return len(self.windows)

    def __iter__(self) -> Iterator[Batch]:
        for inputs, targets, lines, first in self.windows:
            rows, places = torch.zeros(0, dtype=torch.int64), None
            if lines is not None:
                found, inverse = np.unique(lines.clip(min=0), return_inverse=True)
                rows, places = torch.from_numpy(found), torch.from_numpy(inverse.reshape(lines.shape))
            lengths = torch.from_numpy((targets >= 0).sum(1))
            rate = inputs.shape[1] / self.window
            yield Batch(rows, lengths, torch.from_numpy(inputs), torch.from_numpy(targets), places, first, rate)


def alone(
    lines: Lines,
    *,
    eos: int,
    tokens: int,
    window: int | None = None,
    shuffle: np.random.Generator | None = None,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Batches of lines of like length, each from its own beginning: whole, or `window` steps at a time.

    The windows of the same lines follow each other, the state carried over, as many as the longest of all ranks has.
    """
    found = [lines.stream.line(number) for number in range(len(lines))]
    lengths = np.fromiter(map(len, found), np.int64, count=len(found))
    for together in bucketed(lengths, tokens=tokens, widest=window, shuffle=shuffle):
        rows, longest = together[rank::world], int(lengths[together].max())
        targets = np.full((len(rows), longest), -1, np.int64)
        inputs = np.full(targets.shape, eos, np.int64)
        for number, line in enumerate(rows.tolist()):
            targets[number, : lengths[line]] = found[line]
            inputs[number, 1 : lengths[line]] = found[line][:-1]
        labels = None if lines.labels is None else torch.from_numpy(lines.labels[rows])
        for first in range(0, longest, window or longest):
            given, wanted = (
                torch.from_numpy(part[:, first : first + (window or longest)]) for part in (inputs, targets)
            )
            places = torch.arange(len(rows)).unsqueeze(1).expand_as(wanted).contiguous()
            read = (wanted >= 0).sum(1)
            yield Batch(torch.from_numpy(rows), read, given, wanted, places, first=first == 0, labels=labels)
