"""Output recurrence: the output of a step, not its hidden state, is what the next step knows of the past.

    h(t) = f(W x(t) + V y(t-1) + b),    y(t) = g(h(t))

(Jordan 1986, "Serial order: a parallel distributed processing approach"; Goodfellow 2016, section 10.2.1), where
`recurrence = "both"` adds the recurrence of Elman 1990, U h(t-1). In training y(t-1) is the truth (teacher forcing):
then no step waits for the one before, and all run at once, or where h is carried too, through the fused kernels. With
a share of teacher forcing below 1, some steps of training read what the model itself put out (scheduled sampling,
Bengio 2015), as all do at prediction. What the output does not tell is forgotten: so such a net is weaker than one with
a hidden recurrence, but for outputs that say all that matters.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.cells import State
from seqtext.nn.rnn import ForwardConfig, Recurrent

Recurrence = Literal["hidden", "output", "both"]


class LabelFeedback(ForwardConfig):
    """Layers above a tagger's encoder, which read its states and the label before."""

    cell: str = "rnn"
    """Which cell: a key of `CELLS`. With `recurrence = "output"` its state is not carried, each step begins at zero."""
    hidden_size: int = 100
    """Features of a state."""
    label_size: int = Field(default=25, ge=1)
    """Features of a label."""
    teacher_forcing: float = Field(default=1.0, ge=0.0, le=1.0)
    """Share of training steps that read the true label before them; the others read the one the tagger put out."""


class WordFeedback(Config):
    """What a language model feeds back."""

    of: Literal["distribution", "word"] = "distribution"
    """The whole distribution over the next word, as the mean of the words' vectors that it gives (distribution), or
    nothing but the word itself, which a language model reads anyway (word): with `recurrence = "output"` its context is
    then that one word."""
    teacher_forcing: float = Field(default=1.0, ge=0.0, le=1.0)
    """Share of training steps that read the true word before them; the others read the one that the model found most
    probable."""


def without_memory(stack: Recurrent, x: Tensor) -> Tensor:
    """x (B, T, D) -> states (B, T, H) of layers whose every step begins at the zero state."""
    states, _ = stack(x.reshape(-1, 1, x.size(2)), None, with_state=False)
    return states.view(x.size(0), x.size(1), states.size(2))


class LabelRecurrence(nn.Module):
    """A tagger's layers that read the label before: greedily, each step its own best one."""

    def __init__(self, input_size: int, labels: int, config: LabelFeedback, recurrence: Recurrence) -> None:
        super().__init__()
        self.carried, self.share, self.first = recurrence == "both", config.teacher_forcing, labels
        self.labels = nn.Embedding(labels + 1, config.label_size)  # the last stands before the first word
        self.stack = Recurrent(input_size + config.label_size, config)
        self.output_size = self.stack.output_size

    def forward(self, x: Tensor, read: Callable[[Tensor], Tensor], labels: Tensor | None = None) -> Tensor:
        """x (B, T, D), labels (B, T) int64 -> logits (B, T, C), float32.

        `read` makes logits of states (B, n, H). Without `labels`, each step reads the best label of the one before it.
        """
        start = torch.full((x.size(0), 1), self.first, device=x.device)
        if labels is not None and (self.share == 1.0 or not self.training):
            return read(self._states(x, torch.cat([start, labels[:, :-1]], dim=1), None)[0]).float()
        before, state, found = start, None, []
        masks = self.stack.masks(x) if self.training else None
        for t in range(x.size(1)):
            states, state = self._states(x[:, t : t + 1], before, state, masks)
            found.append(read(states).float())
            before = found[-1].argmax(2)
            if labels is not None:
                given = torch.rand(before.shape, device=x.device) < self.share
                before = torch.where(given, labels[:, t : t + 1], before)
        return torch.cat(found, dim=1)

    def _states(
        self, x: Tensor, before: Tensor, state: list[State] | None, masks: list[Tensor] | None = None
    ) -> tuple[Tensor, list[State] | None]:
        """x (B, n, D), before (B, n) labels -> states (B, n, H), and the state where it is carried."""
        inputs = torch.cat([x, self.labels(before).to(x.dtype)], dim=2)
        if not self.carried:
            return without_memory(self.stack, inputs), None
        return self.stack(inputs, None, state, masks=masks)
