"""From a hidden state to a word of a large vocabulary: the output layer of language models and decoders.

The loss of a full softmax is computed together with the layer before it, some rows at a time, gradients included: the
logits of a batch never exist at once, nothing of them is kept for the backward pass, and of the passes over them that
a log-softmax and its gradient take, most fall away. For one row of logits z = W h + b and its target y,

    loss = log sum_v exp(z_v) - z_y        d loss / d z = softmax(z) - onehot(y)

so that the gradients of h, W and b are matrix products of the softmax, which is at hand while the loss is computed.
Labels smoothed by e (Szegedy 2016, section 7) put e / V on every word and 1 - e more on y: then z_y gives way to
(1 - e) z_y + e mean(z), and onehot(y) to (1 - e) onehot(y) + e / V.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from seqtext.config import Config
from seqtext.nn.int8 import Int8Linear
from seqtext.nn.products import add_product, product, product_into
from seqtext.nn.room import filled

CHUNK = 1 << 21
"""Logits that exist at a time, at most: 8 MB. Twice as many where products are in fewer bits and so take less of the
time. Their memory is taken once for all chunks: on a CPU it takes as long to get it as to fill it."""


class FullSoftmax(Config):
    """Every word is scored."""

    name: Literal["full"] = "full"


class AdaptiveSoftmax(Config):
    """Rare words in clusters that are scored only where they are needed (Grave 2017, "Efficient softmax
    approximation for GPUs"): for vocabularies of more than some 100,000 words, numbered by falling frequency."""

    name: Literal["adaptive"] = "adaptive"
    cutoffs: list[int] = Field(default=[4000, 40000], min_length=1)
    """The first id of each cluster of rarer words."""
    div_value: float = Field(default=4.0, ge=1.0)
    """What the features of each further cluster are divided by."""

    @model_validator(mode="after")
    def _rising(self) -> AdaptiveSoftmax:
        if self.cutoffs[0] < 1 or any(one >= other for one, other in pairwise(self.cutoffs)):
            raise ValueError(f"cutoffs must rise from 1 or more, got {self.cutoffs}")
        return self


class _Total(torch.autograd.Function):
    """The summed loss over all rows, with the gradients computed on the way."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor, smoothing: float) -> Tensor:
        """hidden (N, D), targets (N,) int64, -1 where there is none, weight (V, D), bias (V,) -> ()."""
        wanted = any(ctx.needs_input_grad)
        rows = _rows(hidden, weight.size(0))
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if wanted else None
        # Kept as (D, V): so the products that add up to it need no copy of the wide softmax.
        grad_weight = torch.zeros(weight.size(1), weight.size(0), dtype=torch.float32, device=hidden.device)
        grad_bias = torch.zeros_like(bias, dtype=torch.float32)
        buffers = torch.empty(2, rows, weight.size(0), dtype=torch.float32, device=hidden.device)
        for start in range(0, hidden.size(0), rows):
            part, chosen = hidden[start : start + rows], targets[start : start + rows].unsqueeze(1)
            real = chosen >= 0  # (n, 1)
            chosen = chosen.clamp(min=0)
            logits, chances = buffers[:, : len(part)].unbind()  # (n, V)
            product_into(logits, part, weight, bias.to(weight.dtype))
            torch.softmax(logits, 1, out=chances)
            # A chance too small for a float still has a loss, if not the exact one: 103 nats.
            losses = chances.gather(1, chosen).clamp(min=1e-45).log().neg()
            if smoothing:
                losses += smoothing * (logits.gather(1, chosen) - logits.mean(1, keepdim=True))
            total += losses.masked_fill(~real, 0.0).sum()
            if not wanted:
                continue
            assert grad_hidden is not None
            if smoothing:
                chances -= smoothing / chances.size(1)
            chances.scatter_add_(1, chosen, chances.new_full((1, 1), smoothing - 1.0).expand_as(chosen))
            if real.device.type != "cpu" or not bool(real.all()):  # a GPU would have to be waited for to know
                chances *= real
            grad_bias += chances.sum(0)
            chances = chances.to(weight.dtype)
            product_into(grad_hidden[start : start + rows], chances, weight.t())
            add_product(grad_weight, part.t(), chances.t())
        if wanted:
            ctx.save_for_backward(grad_hidden, grad_weight.t(), grad_bias)
            ctx.types = weight.dtype, bias.dtype
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # type: ignore[override]
        hidden, weight, bias = ctx.saved_tensors
        of_weight, of_bias = (weight * grad).to(ctx.types[0]), (bias * grad).to(ctx.types[1])
        return (hidden * grad).to(hidden.dtype), None, of_weight, of_bias, None


class Softmax(nn.Module):
    """A score for every word: W h + b, W shared with the input embedding where the two are tied (Press & Wolf 2017)."""

    def __init__(self, input_size: int, vocabulary: int, *, tied: Tensor | None = None) -> None:
        """`tied` (V, D): the parameter to share. Raises `ValueError` where it is of another shape."""
        super().__init__()
        if tied is not None and tied.shape != (vocabulary, input_size):
            raise ValueError(f"tied weights are {tuple(tied.shape)}, not {(vocabulary, input_size)}")
        self.weight: Tensor = nn.Parameter(torch.empty(vocabulary, input_size)) if tied is None else tied
        self.bias = nn.Parameter(torch.zeros(vocabulary))
        if tied is None:
            nn.init.uniform_(self.weight, -0.1, 0.1)

    def loss(self, hidden: Tensor, targets: Tensor, *, smoothing: float = 0.0) -> Tensor:
        """hidden (N, D), targets (N,) int64 with -1 where there is none -> () summed loss, of smoothed labels."""
        hidden, weight = _as_autocast(hidden, self.weight)
        with torch.autocast(hidden.device.type, enabled=False):
            return _Total.apply(*_evened(hidden, targets), weight, self.bias, smoothing)

    @torch.no_grad()
    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """hidden (N, D), targets (N,) int64 with -1 where there is none -> (N,) loss of each, without a gradient."""
        count = len(hidden)
        hidden, targets = _evened(_as_autocast(hidden)[0], targets)
        rows = _rows(hidden, len(self.bias))
        buffers = torch.empty(2, rows, len(self.bias), device=hidden.device)
        write, parts = self.writer(), []
        for part, chosen in zip(hidden.split(rows), targets.split(rows)):
            scores, logits = buffers[:, : len(part)].unbind()
            write(scores, part)
            torch.log_softmax(scores, 1, out=logits)
            parts.append(
                logits.gather(1, chosen.clamp(min=0).unsqueeze(1)).squeeze(1).neg().masked_fill(chosen < 0, 0.0)
            )
        return torch.cat(parts)[:count] if parts else hidden.new_zeros(0, dtype=torch.float32)

    def writer(self) -> Callable[[Tensor, Tensor], object]:
        """A function of out (N, V) float32 and hidden (N, D) that writes the logits there, without a gradient."""
        weight, bias = _as_autocast(self.weight, self.bias)
        return lambda out, hidden: product_into(out, hidden, weight, bias)

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (N, D) -> (N, V) float32."""
        hidden, weight = _as_autocast(hidden, self.weight)
        bias = self.bias.to(weight.dtype)
        if torch.is_grad_enabled():
            return nn.functional.linear(hidden, weight, bias).float()
        return product(hidden, weight, bias).float()

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        """hidden (N, D) -> (N, V) float32."""
        return self.logits(hidden).log_softmax(1)


class Int8Softmax(Softmax):
    """The same for prediction, W being whole numbers of 8 bits."""

    def __init__(self, softmax: Softmax) -> None:
        nn.Module.__init__(self)
        self.bias = softmax.bias
        self.layer = Int8Linear(softmax.weight, softmax.bias, engine="onednn")

    def writer(self) -> Callable[[Tensor, Tensor], object]:
        return lambda out, hidden: out.copy_(self.layer(hidden))

    def logits(self, hidden: Tensor) -> Tensor:
        """hidden (N, D) -> (N, V) float32."""
        return self.layer(hidden)


class Adaptive(nn.Module):
    """The same face for an adaptive softmax, by torch's own module."""

    def __init__(self, input_size: int, vocabulary: int, config: AdaptiveSoftmax) -> None:
        """Raises `ValueError` where a cluster would begin beyond the vocabulary, or would have no feature left."""
        super().__init__()
        if config.cutoffs[-1] >= vocabulary:
            raise ValueError(f"cutoffs {config.cutoffs} must be less than the size of the vocabulary, {vocabulary}")
        clusters = len(config.cutoffs)
        if input_size < config.div_value**clusters:
            told = f"div_value {config.div_value:g} leaves the last of {clusters} clusters no feature of {input_size}"
            most = math.floor(100 * input_size ** (1 / clusters)) / 100
            raise ValueError(f"{told}: it must be at most {most:g}, or the states larger")
        self.layer = nn.AdaptiveLogSoftmaxWithLoss(
            input_size, vocabulary, config.cutoffs, div_value=config.div_value, head_bias=True
        )

    def loss(self, hidden: Tensor, targets: Tensor) -> Tensor:
        # Which rows are real, and in torch's module which rows each cluster has, decides how much is computed: a GPU is
        # waited for once for each of them. Otherwise all rows would go through all clusters, which exist to be spared.
        real = targets >= 0
        return self.layer(hidden[real].float(), targets[real]).output.sum().neg()

    @torch.no_grad()
    def nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        real = targets >= 0
        result = hidden.new_zeros(len(targets), dtype=torch.float32)
        result[real] = self.layer(hidden[real].float(), targets[real]).output.neg()
        return result

    def log_probabilities(self, hidden: Tensor) -> Tensor:
        return self.layer.log_prob(hidden.float())


def _evened(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """hidden (N, D), targets (N,), filled up to as many rows as suit the kernels, with no target there."""
    hidden = filled(hidden)
    return hidden, nn.functional.pad(targets, (0, len(hidden) - len(targets)), value=-1)


def _rows(hidden: Tensor, vocabulary: int) -> int:
    """Rows of hidden (N, D) that are scored at a time."""
    most = CHUNK * (1 if hidden.dtype == torch.float32 else 2)
    return max(1, min(len(hidden), most // vocabulary))


def _as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the number format of autocast, where it is on; gradients come back in their own."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return tensors
    return tuple(tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors)
