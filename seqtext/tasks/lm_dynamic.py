"""Dynamic evaluation: a language model that goes on learning from the text that it is scored on.

Krause, Kahembwe, Murray & Renals 2018, "Dynamic evaluation of neural sequence models", sections 3 and 4: each window is
scored first and learned from then, by a step of gradient descent that is normalised by the root mean square gradients
of the training text, with a decay back to the trained weights theta_0:

    theta <- theta - lr g / (sqrt(MS_g) + epsilon) + min(decay R, 1) (theta_0 - theta)
    R = sqrt(MS_g) / mean(sqrt(MS_g))

g is the gradient of a window's mean loss. As in the authors' code, the mean in R is that over tensors of each one's
mean, and MS_g the mean over windows of 100 streams of the training text, 5 steps each, of the squared gradient of the
mean loss: settings published for it hold here. Of a long training text, the first windows of the streams are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import torch
from torch import Tensor, nn

from seqtext.data.stream import Stream, Windows
from seqtext.nn.language_model import Hidden, LanguageModel
from seqtext.nn.softmax import Adaptive

GATHERED = 2000
"""Windows of the training text that mean squared gradients are taken over, at most: 1,000,000 tokens."""
STREAMS = 100
"""Streams that the training text is cut into for them."""
LRS = (2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
"""The grid of lr, which is gone through from 0 upward while it gets better."""
DECAYS = (0.0, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
"""The grid of decay, which is gone through from the default to both sides."""


@dataclass(frozen=True, kw_only=True)
class Dynamic:
    """Settings of dynamic evaluation. The defaults are those of its authors' code, chosen for the AWD-LSTM on PTB."""

    bptt: int = 5
    """Steps of a window: what is scored before it is learned from, and as far as gradients reach back."""
    lr: float = 5e-5
    """Learning rate; 0 learns nothing."""
    decay: float = 0.002
    """Share of the way back to the trained weights that each step takes, on average."""
    epsilon: float = 2e-5
    """Added to the root mean squares."""

    def __str__(self) -> str:
        settings = f"windows of {self.bptt}, lr {self.lr:g}, decay {self.decay:g}, epsilon {self.epsilon:g}"
        return f"dynamic evaluation ({settings})"

    def facts(self) -> dict[str, float]:
        return {"bptt": self.bptt, "lr": self.lr, "decay": self.decay, "epsilon": self.epsilon}


class Learner:
    """A module whose weights learn from window to window."""

    def __init__(self, module: LanguageModel, rms: Sequence[Tensor], settings: Dynamic) -> None:
        """`rms` is what `gather` returns."""
        self.module = module
        self.parameters: list[Tensor] = list(module.parameters())
        mean = torch.stack([part.mean() for part in rms if part.numel()]).mean()
        self.rates = [settings.lr / (part + settings.epsilon) for part in rms]
        self.decays = [(settings.decay * part / mean).clamp_(max=1.0) for part in rms]
        self.trained = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def learn(self, gradients: Sequence[Tensor | None]) -> None:
        """One step by the gradients of a window's mean loss; None is a gradient of 0."""
        torch._foreach_lerp_(self.parameters, self.trained, self.decays)
        moved = [i for i, gradient in enumerate(gradients) if gradient is not None]
        parameters, rates = [self.parameters[i] for i in moved], [self.rates[i] for i in moved]
        torch._foreach_addcmul_(parameters, [gradients[i] for i in moved], rates, value=-1.0)  # type: ignore[misc]

    @contextmanager
    def learning(self) -> Iterator[None]:
        """Within, the weights are to learn; after it, also after an error, they are the trained ones again."""
        try:
            with evaluated(self.module):
                yield
        finally:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, self.trained)


@contextmanager
def evaluated(module: nn.Module) -> Iterator[None]:
    """The module without its dropout, yet fit for gradients: cuDNN has none of a kernel in evaluation mode."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            part.train()  # these kernels have no dropout of their own
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


class Read(NamedTuple):
    """What a window gives."""

    hidden: Hidden
    """Without a graph."""
    nll: Tensor
    """(B, T) loss of each token."""
    gradients: Sequence[Tensor | None]
    """Of their mean, for each parameter; None where it had no part."""


def read(module: LanguageModel, inputs: Tensor, targets: Tensor, carry: object) -> Read:
    """inputs and targets (B, T) int64, none of them missing -> what the window gives.

    The loss is that of the words alone, without the regularisers of training. It is not `softmax.loss`, which is made
    for many rows: with a few, it takes as long again to add up the gradients of large matrices.
    """
    with torch.enable_grad():
        hidden = module(inputs, carry)
        rows, chosen = hidden.outputs.flatten(0, 1), targets.flatten()
        if isinstance(module.softmax, Adaptive):
            nll = module.softmax.layer(rows.float(), chosen).output.neg()
        else:
            nll = module.softmax.log_probabilities(rows).gather(1, chosen.unsqueeze(1)).neg()
        gradients = torch.autograd.grad(nll.mean(), list(module.parameters()), allow_unused=True)
    outputs, states, dropped = (part.detach() for part in hidden[:3])
    ends = [tuple(part.detach() for part in state) for state in hidden.carry]
    return Read(Hidden(outputs, states, dropped, ends), nll.detach().view(targets.shape), gradients)


def gather(
    module: LanguageModel,
    text: Stream,
    device: torch.device,
    *,
    bptt: int,
    listen: Callable[[int, int], None] = lambda done, total: None,
) -> list[Tensor]:
    """sqrt(MS_g) of each parameter over a training text, in the order of `module.parameters()`.

    `listen` is told how many windows are done, and of how many. Raises `DataError` for a text of a single token.
    """
    windows = Windows(text, mode="train", streams=STREAMS, window=bptt)
    squares = [torch.zeros_like(parameter, requires_grad=False) for parameter in module.parameters()]
    count, carry = min(len(windows), GATHERED), None
    with evaluated(module):
        for done, window in enumerate(islice(windows, count), start=1):
            inputs, targets = (torch.from_numpy(part).to(device) for part in (window.inputs, window.targets))
            hidden, _, gradients = read(module, inputs, targets, carry)
            carry = hidden.carry
            for square, gradient in zip(squares, gradients):
                if gradient is not None:
                    square.addcmul_(gradient, gradient)
            listen(done, count)
    return [square.div_(count).sqrt_() for square in squares]
