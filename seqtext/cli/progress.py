"""How training looks on stderr: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from seqtext.cli.tables import figure
from seqtext.session import Doubted, Filtered
from seqtext.training.loop import EpochEnded, Evaluated, Event, Finished, Started, Stepped
from seqtext.training.precision import Choice
from seqtext.transfer import Transferred


class Display:
    """A listener of training events."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.bar: Progress | None = None
        self.job: Any = None
        self.scored: Evaluated | None = None
        self.started = 0.0
        self.first = self.total = 0
        # The epoch under way, and the tokens and the time since which its rate is taken.
        self.epoch, self.counted, self.since = 0, 0, 0.0
        self.loss, self.rate = "", 0.0

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def __call__(self, event: Event | Transferred | Doubted | Filtered | Choice) -> None:
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, Transferred):
            for part, fact in event.facts:
                self.console.print(f"{part}: {fact}", markup=False)
        elif isinstance(event, Choice):
            self.console.print(f"precision {event.precision}: {event.why}", markup=False)
        elif isinstance(event, Filtered):
            found = "; ".join(f"{split}: {left_out}" for split, left_out in event.left_out.items())
            self.console.print(f"left out of {found}", markup=False)
        elif isinstance(event, Doubted):
            for warning in event.warnings:
                self.console.print(f"warning: {warning}", markup=False)
        elif isinstance(event, Stepped):
            if event.loss is not None:
                self.loss = f"loss {event.loss:.4f}"
            self._advance(event)
        elif isinstance(event, Evaluated):
            self.scored = event
        elif isinstance(event, EpochEnded):
            self._line(event)
        elif isinstance(event, Finished):
            self.close()
            self.console.print(f"done: {event.reason} ({event.epoch} epochs, {event.step:,} steps)")

    def _start(self, event: Started) -> None:
        self.close()
        self.started, self.first, self.total = time.perf_counter(), event.step, event.total_steps
        at = f", from step {event.step:,}" if event.step else ""
        self.console.print(
            f"{event.parameters:,} parameters on {event.device}; {event.steps_per_epoch:,} steps an epoch{at}"
        )
        if sys.stderr.isatty():
            columns = (
                TextColumn("epoch {task.fields[epoch]}"),
                BarColumn(),
                TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[note]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self.bar = Progress(*columns, console=self.console, refresh_per_second=4)
            self.job = self.bar.add_task("train", total=event.total_steps, completed=event.step, epoch=1, note="")
            self.bar.start()

    def _advance(self, event: Stepped) -> None:
        if self.bar is None:
            return
        now = time.perf_counter()
        if event.epoch != self.epoch:
            self.epoch, self.counted, self.since = event.epoch, event.tokens, now
        elif now - self.since > 0.5:
            self.rate = (event.tokens - self.counted) / (now - self.since)
        best = f"best {figure(self.scored.goal, self.scored.best_score)}" if self.scored else ""
        note = f"{self.rate:,.0f} tokens/s {self.loss} {best}"
        self.bar.update(self.job, completed=event.step, epoch=event.epoch, note=note)

    def _line(self, event: EpochEnded) -> None:
        self.rate = event.tokens / max(event.seconds, 1e-9)
        parts = [f"epoch {event.epoch}", f"loss {event.loss:.4f}", f"lr {event.lr:.3g}", f"{self.rate:,.0f} tokens/s"]
        if self.scored is not None:
            key = self.scored.goal
            parts.append(
                f"valid {key} {figure(key, self.scored.scores[key])}" + (" (best)" if self.scored.best else "")
            )
        done = (event.step - self.first) / max(1, self.total - self.first)
        left = (time.perf_counter() - self.started) * max(0.0, 1.0 - done) / max(done, 1e-9)  # epochs differ a little
        parts.append(f"left {int(left // 60)}:{int(left % 60):02d}")
        self.console.print("  ".join(parts))
