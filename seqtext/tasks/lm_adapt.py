"""Evaluation of a language model that adapts to the text it scores: dynamic evaluation, neural cache, their settings.

Each window is scored from what was read before it and nothing else, so that the figures are perplexities as any other.
Settings are chosen on the validation text: dynamic evaluation's by going along its grids, the rate first, then the
decay; the cache's from a whole grid in one pass, in which the model, where both are asked for, learns as was chosen.
Not to adapt is in every grid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from seqtext.data.stream import Stream
from seqtext.nn.language_model import Hidden, LanguageModel
from seqtext.task import Adapting, Passing, Split, to_device
from seqtext.tasks.lm_cache import THETAS, WEIGHTS, Cache, History, log_cached, mixed
from seqtext.tasks.lm_dynamic import DECAYS, LRS, Dynamic, Learner, evaluated, gather, read

if TYPE_CHECKING:
    from seqtext.tasks.lm_batches import Batch, Batches

CHECKED = 64
"""Windows after which a pass looks whether it can still be the best, and tells how far it is."""


class Cut(Protocol):
    """How a text is cut into batches for an evaluation."""

    def __call__(self, text: Stream, *, tokens: int, window: int, kept: int) -> Batches:
        """Of at most `tokens`, in windows of `window` steps; `kept` is how many steps back a cache holds."""


@dataclass(frozen=True)
class Chosen:
    """How to adapt."""

    dynamic: Dynamic | None
    cache: Cache | None


@dataclass(frozen=True)
class Adapter:
    """A module, and all that its adaptation depends on."""

    module: LanguageModel
    device: torch.device
    cut: Cut
    window: int
    """Steps of a window where nothing is learned."""
    tokens: int
    """Tokens of a batch where nothing is learned."""
    listen: Callable[[Passing], None] = lambda passing: None

    def choose(self, how: Adapting, text: Callable[[Split], Stream]) -> tuple[Chosen, list[Tensor]]:
        """The settings to adapt with, and the mean gradients (`gather`) that they need; `text` gives a split's."""
        dynamic = Dynamic() if how.dynamic else None
        cache = Cache(size=how.cache) if how.cache else None
        rms: list[Tensor] = []
        if dynamic:
            tell = partial(self._tell, "gradients of the training text")
            rms = gather(self.module, text("train"), self.device, bptt=dynamic.bptt, listen=tell)
        if how.tune:
            valid = text("valid")
            if dynamic:
                dynamic = self._tuned(dynamic, valid, rms)
            if cache:
                cache = self._tuned_cache(cache, dynamic, valid, rms)
        return Chosen(dynamic, cache), rms

    def losses(self, text: Stream, chosen: Chosen, rms: list[Tensor]) -> Generator[tuple[Batch, Tensor]]:
        """Each batch of a text and the loss (B, T) of its targets, 0 where there is none."""
        history: History | None = None
        cache, total = chosen.cache, _Total(self.device)
        batches = self._batches(text, chosen.dynamic, cache.size if cache else 0)
        with closing(self._read(batches, chosen.dynamic, rms)) as windows:
            for done, (batch, hidden, nll) in enumerate(windows, start=1):
                if cache:
                    cached, history = log_cached(
                        hidden.outputs, batch.inputs, batch.targets, history, size=cache.size, thetas=[cache.theta]
                    )
                    nll = mixed(nll, cached, [cache.weight])[0, 0].masked_fill(batch.targets < 0, 0.0)
                total.add(nll, batch.targets)
                if done % CHECKED == 0 or done == len(batches):
                    self._tell("scoring", done, len(batches), total.perplexity())
                yield batch, nll

    def _tuned(self, settings: Dynamic, text: Stream, rms: list[Tensor]) -> Dynamic:
        best, value = replace(settings, lr=0.0), self._loss(text, None, rms)
        for lr in LRS:
            tried = replace(settings, lr=lr)
            found = self._loss(text, tried, rms, limit=value)
            if not found < value:
                break
            best, value = tried, found
        if best.lr == 0.0:
            return best
        start = DECAYS.index(settings.decay)
        for side in (DECAYS[start + 1 :], DECAYS[:start][::-1]):
            for decay in side:
                tried = replace(best, decay=decay)
                found = self._loss(text, tried, rms, limit=value)
                if not found < value:
                    break
                best, value = tried, found
            if best.decay != settings.decay:
                break
        return best

    def _loss(self, text: Stream, dynamic: Dynamic | None, rms: list[Tensor], *, limit: float = math.inf) -> float:
        """The summed loss of a text; infinite where it is above `limit`, which stops the pass as soon as it is sure."""
        name = f"valid, {dynamic}" if dynamic else "valid, without adaptation"
        batches, total = self._batches(text, dynamic, 0), _Total(self.device)
        with closing(self._read(batches, dynamic, rms)) as windows:
            for done, (batch, _, nll) in enumerate(windows, start=1):
                total.add(nll, batch.targets)
                if done % CHECKED and done != len(batches):
                    continue
                over = not float(total.loss) <= limit  # a sum of losses only grows; NaN is over as well
                self._tell(name, done, len(batches), total.perplexity())
                if over:
                    return math.inf
        return float(total.loss)

    def _tuned_cache(self, cache: Cache, dynamic: Dynamic | None, text: Stream, rms: list[Tensor]) -> Cache:
        losses = torch.zeros(len(WEIGHTS), len(THETAS), dtype=torch.float64, device=self.device)
        history: History | None = None
        batches, total = self._batches(text, dynamic, cache.size), _Total(self.device)
        with closing(self._read(batches, dynamic, rms)) as windows:
            for done, (batch, hidden, nll) in enumerate(windows, start=1):
                cached, history = log_cached(
                    hidden.outputs, batch.inputs, batch.targets, history, size=cache.size, thetas=THETAS
                )
                unscored = batch.targets < 0
                losses += mixed(nll, cached, WEIGHTS).masked_fill(unscored, 0.0).sum((2, 3), dtype=torch.float64)
                total.add(nll, batch.targets)
                if done % CHECKED == 0 or done == len(batches):
                    best = float(losses.min()) / max(1, int(total.count))
                    self._tell("valid, settings of the cache", done, len(batches), _exp(best))
        weight, theta = divmod(int(losses.argmin()), len(THETAS))
        return replace(cache, theta=THETAS[theta], weight=WEIGHTS[weight])

    def _batches(self, text: Stream, dynamic: Dynamic | None, kept: int) -> Batches:
        """What learns reads the text as one stream, in its order; without, as `cut` does."""
        if dynamic and dynamic.lr:
            return self.cut(text, tokens=dynamic.bptt, window=dynamic.bptt, kept=kept)
        tokens = self.window if dynamic else self.tokens
        return self.cut(text, tokens=tokens, window=self.window, kept=kept)

    def _read(
        self, batches: Batches, dynamic: Dynamic | None, rms: list[Tensor]
    ) -> Generator[tuple[Batch, Hidden, Tensor]]:
        """Batches on the device, what the module computes for each and the loss (B, T) of its targets."""
        learner = Learner(self.module, rms, dynamic) if dynamic and dynamic.lr else None
        carry: Any = None
        with learner.learning() if learner else evaluated(self.module):
            for batch in batches:
                batch = to_device(batch, self.device)
                carry = None if batch.first else carry
                if learner is None:
                    with torch.inference_mode():
                        hidden = self.module(batch.inputs, carry)
                        nll = self.module.nll(hidden, batch.targets)
                else:
                    hidden, nll, gradients = read(self.module, batch.inputs, batch.targets, carry)
                carry = hidden.carry
                yield batch, hidden, nll
                if learner is not None:
                    learner.learn(gradients)

    def _tell(self, what: str, done: int, total: int, perplexity: float | None = None) -> None:
        self.listen(Passing(what, done, total, perplexity))


class _Total:
    """The losses of a pass added up, on the device."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.count = torch.zeros((), dtype=torch.int64, device=device)

    def add(self, losses: Tensor, targets: Tensor) -> None:
        """losses (B, T), 0 where targets (B, T) are -1."""
        self.loss += losses.sum(dtype=torch.float64)
        self.count += (targets >= 0).sum()

    def perplexity(self) -> float:
        return _exp(float(self.loss) / max(1, int(self.count)))


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf


def facts(chosen: Chosen, how: Adapting) -> dict[str, Any]:
    """The settings as a JSON object."""
    found: dict[str, Any] = {"tuned": how.tune}
    if chosen.dynamic:
        found["dynamic"] = chosen.dynamic.facts()
    if chosen.cache:
        found["cache"] = chosen.cache.facts()
    return found


def summary(chosen: Chosen, how: Adapting) -> str:
    """The same as a line."""
    parts = [str(part) for part in (chosen.dynamic, chosen.cache) if part]
    return " and ".join(parts) + (", chosen on valid" if how.tune else ", default settings")
