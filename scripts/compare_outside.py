"""Other people's code beside ours, as ratios: `pytorch-crf`, and `torch.nn.LSTM` and `nn.GRU` over packed sequences.

Both do the same work in the same process and take turns, one round after another, the order turned round every time,
so that a change of the machine's load falls on both. A ratio is their time over ours. The usual loops of language
models, which `bench.py` trains beside ours in the same way, are in `reference_lm.py`.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import measure
from measure import Figures

if TYPE_CHECKING:
    import torch

BATCH, TIME, INPUT, HIDDEN = 32, 25, 200, 256
"""Of the recurrent layer, in each of its two directions."""
CELLS = ("lstm", "gru")
CRF_SIZE = (32, 100, 17)
"""Sentences, words and labels of the large batch for a CRF."""


class Tagged(NamedTuple):
    """A batch as a CRF sees it."""

    labels: torch.Tensor
    lengths: torch.Tensor


def paired(jobs: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, float]:
    """Seconds that each job takes, the median over rounds, after one to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for job in jobs.values():
        job()
    for number in range(rounds):
        for name, job in list(jobs.items())[:: 1 if number % 2 else -1]:
            began = measure.now()
            job()
            seconds[name].append(measure.now() - began)
    return {name: statistics.median(times) for name, times in seconds.items()}


def against_pytorch_crf(
    batches: Iterable[Any], labels: int, *, device: str = "cpu", rounds: int = 5
) -> dict[str, float]:
    """Time of the pytorch-crf package over ours, for the loss with its gradient and for the best path.

    Batches have `labels` (B, T) and `lengths` (B,). Nothing where that package is not installed.
    """
    try:
        import torchcrf
    except ImportError:
        told = "no pytorch-crf here to compare the CRF with: pip install 'seqtext[bench]' brings it"
        print(told, file=sys.stderr)
        return {}
    import torch

    from seqtext.nn.crf import CRF

    ours, theirs = CRF(labels).to(device), torchcrf.CRF(labels, batch_first=True).to(device)
    seconds: dict[str, float] = defaultdict(float)
    for batch in batches:
        gold, lengths = batch.labels.to(device), batch.lengths
        logits = torch.randn(*gold.shape, labels, requires_grad=True, device=device)
        mask = torch.arange(gold.size(1), device=device) < lengths.to(device)[:, None]
        jobs: dict[str, Callable[[], object]] = {
            "our loss": lambda: ours.nll(logits, gold, lengths).sum().backward(),  # noqa: B023
            "their loss": lambda: (-theirs(logits, gold, mask, reduction="sum")).backward(),  # noqa: B023
            "our path": lambda: ours.viterbi(logits, lengths),  # noqa: B023
            "their path": lambda: theirs.decode(logits, mask),  # noqa: B023
        }
        for name, spent in paired(jobs, rounds=rounds).items():
            seconds[name] += spent
    return {
        "CRF loss and gradient: time of pytorch-crf / ours": seconds["their loss"] / seconds["our loss"],
        "CRF best path: time of pytorch-crf / ours": seconds["their path"] / seconds["our path"],
    }


def large_batch() -> Iterator[Tagged]:
    """One batch of full length."""
    import torch

    batch, time, labels = CRF_SIZE
    yield Tagged(torch.randint(labels, (batch, time)), torch.full((batch,), time))


def recurrent_layer(*, repeats: int, device: str) -> Figures:
    """A layer in both directions, padded as ours and packed as usual: time of the two, and FLOP/s of ours.

    Rows are of like length, as in a bucketed batch: 20 to 25 steps. Ratios are of forward and backward pass together,
    and of the forward pass alone without a gradient.
    """
    import torch

    figures: Figures = defaultdict(list)
    lengths = torch.randint(20, TIME + 1, (BATCH,), generator=torch.Generator().manual_seed(1))
    lengths[0] = TIME
    for _ in range(repeats):
        matrix = measure.matrix_rates(device)
        for cell in CELLS:
            ours, theirs, weights = _layers(cell, lengths, device)
            for precision in ("float32", "bf16"):
                cast = torch.autocast(device.split(":")[0], torch.bfloat16, enabled=precision == "bf16")
                for what, gradients, passes in (("training", True, 3), ("inference", False, 1)):

                    def job(run: Callable[[], torch.Tensor]) -> None:
                        with torch.set_grad_enabled(gradients), cast:  # noqa: B023
                            states = run()
                        if gradients:  # noqa: B023
                            states.float().sum().backward()

                    rounds = 20 if gradients else 40
                    spent = paired({"ours": lambda: job(ours), "theirs": lambda: job(theirs)}, rounds=rounds)  # noqa: B023
                    name = f"{cell} layer {what} {precision}"
                    figures[f"{name}: time of torch's, packed / ours"].append(spent["theirs"] / spent["ours"])
                    flops = passes * 2 * weights * int(lengths.sum()) / spent["ours"]
                    figures[f"{name}: FLOP/s / float32 matrix FLOP/s"].append(flops / matrix["float32"])
                    figures[f"{name}, ms"].append(1e3 * spent["ours"])
    return figures


def _layers(
    cell: str, lengths: torch.Tensor, device: str
) -> tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor], int]:
    """Our layer and torch's, both to be called for their states, and how many weights either has in its matrices."""
    import torch
    from torch import nn
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    from seqtext.nn.rnn import Recurrent, RecurrentConfig

    ours = Recurrent(INPUT, RecurrentConfig(cell=cell, hidden_size=HIDDEN)).to(device)
    kind: Any = {"lstm": nn.LSTM, "gru": nn.GRU}[cell]
    theirs = kind(INPUT, HIDDEN, batch_first=True, bidirectional=True).to(device)
    x = torch.randn(BATCH, TIME, INPUT, requires_grad=True, device=device)

    def padded() -> torch.Tensor:
        return ours(x, lengths, with_state=False)[0]

    def packed() -> torch.Tensor:
        found, _ = theirs(pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False))
        return pad_packed_sequence(found, batch_first=True)[0]

    return padded, packed, sum(weight.numel() for weight in theirs.parameters() if weight.dim() == 2)
