"""The CRF by a scan against the CRF one position after another, and what each costs; `test_crf` has both at oracles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from seqtext.nn import crf_decode, crf_scan, crf_sum
from seqtext.nn.crf import CRF
from tests.nn.test_crf import CONSTRAINTS, LABELS, everything, random_batch


def bioes(types: int) -> dict[str, Tensor]:
    """What may follow what: O, then B I E S of each type."""
    outside = torch.tensor([True] + [False, False, True, True] * types)  # O, E, S: no span is open after these
    begins = torch.tensor([True] + [True, False, False, True] * types)  # O, B, S: none is gone on with
    kind = torch.arange(1 + 4 * types).sub(1).div(4, rounding_mode="floor")
    inside = ~outside[:, None] & ~begins & (kind[:, None] == kind)
    return {
        "start_allowed": begins,
        "transitions_allowed": (outside[:, None] & begins) | inside,
        "end_allowed": outside,
    }


@pytest.mark.parametrize("scale", [1.0, 50.0])
@pytest.mark.parametrize("longest", [130, 128, 33])
def test_the_scan_equals_one_step_after_another(longest: int, scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    crf = CRF(17, **bioes(4)).double()
    logits, _, size = random_batch(17, [longest, longest - 1, longest // 2, 17, 16, 2, 1])
    logits = logits.double() * scale
    labels = crf.viterbi(logits * 0, size)[1].clamp(min=0)
    monkeypatch.setattr(crf_scan, "MOST_ENTRIES", 50 * 17**3)  # many chunks, the last not full
    results = []
    for scan in (False, True):
        monkeypatch.setattr(crf_scan, "wanted", lambda values, scan=scan: scan)
        monkeypatch.setattr(crf_decode, "arrays_wanted", lambda logits, scan=scan: not scan)
        crf.zero_grad()
        crf.nll(logits, labels, size).sum().backward()
        with torch.no_grad():
            forward_only = crf.nll(logits, labels, size)
        gradients = [parameter.grad for parameter in crf.parameters()]
        results.append([*everything(crf, logits, labels, size), forward_only, *gradients])
    for steps, scanned in zip(*results, strict=True):
        torch.testing.assert_close(scanned, steps, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("constrained", [False, True])
def test_the_scan_resolves_ties_as_one_step_after_another(constrained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    crf = CRF(5, **(bioes(1) if constrained else {}))
    for parameter in crf.parameters():
        parameter.data.round_()
    logits, _, size = random_batch(5, [70, 64, 33, 5, 1])
    logits = logits.clamp(-1, 1).round()
    monkeypatch.setattr(crf_scan, "wanted", lambda values: False)
    expected = crf.viterbi(logits, size)
    monkeypatch.setattr(crf_scan, "wanted", lambda values: True)
    monkeypatch.setattr(crf_decode, "arrays_wanted", lambda logits: False)
    for scanned, steps in zip(crf.viterbi(logits, size), expected, strict=True):
        assert scanned.equal(steps)


class Operations(TorchDispatchMode):
    """Counts what a device would have to start, and refuses what the host would have to wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        assert name not in {"_local_scalar_dense", "nonzero", "masked_select", "_unique2"}
        if name.startswith("index") and isinstance(args[1], list | tuple):
            assert all(index is None or index.dtype != torch.bool for index in args[1])
        self.count += not func.is_view and "empty" not in name
        return func(*args, **(kwargs or {}))


def loss_and_gradient(p: crf_sum.Potentials, labels: Tensor) -> None:
    crf_sum.LogPartition.apply(*p, labels).sum().backward()


@torch.no_grad()
def best_path(p: crf_sum.Potentials, labels: Tensor) -> None:
    crf_decode.viterbi(p)


@pytest.mark.parametrize("work", [loss_and_gradient, best_path])
@pytest.mark.parametrize("scan", [False, True])
def test_operations_grow_with_the_length_or_with_its_logarithm(
    scan: bool, work: Callable[[crf_sum.Potentials, Tensor], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crf_scan, "wanted", lambda values: scan)
    counts = []
    for longest in (32, 64, 128):
        crf = CRF(LABELS, **CONSTRAINTS)
        logits, labels, size = random_batch(LABELS, [longest, 20, 1])
        p = crf._potentials(logits.requires_grad_(), size)
        with Operations() as operations:
            work(p, labels)
        counts.append(operations.count)
    first, second = counts[1] - counts[0], counts[2] - counts[1]
    if scan:
        assert first == second <= 15
    else:
        assert second == 2 * first and first >= 3 * 32


def test_a_cpu_goes_one_step_after_another() -> None:
    assert not crf_scan.wanted(torch.zeros(100, 2, 4))
