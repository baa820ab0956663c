"""Pictures that have to fit a page."""

from __future__ import annotations

import pytest
import torch

from seqtext.inspecting.gates import Gated

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("length", [1, 7, 400])
def test_gates_of_any_sentence_are_no_wider_than_a_page(length: int) -> None:
    from seqtext.report.figures import WIDEST, gate_figure

    gates = {name: torch.rand(length, 5) for name in ("input", "forget", "candidate", "output", "state", "memory")}
    few = {name: torch.rand(length, 5) for name in ("state",)}
    figure = gate_figure([Gated(name, "cell", ["token"] * length, some) for name, some in (("a", gates), ("b", few))])
    assert figure.get_size_inches()[0] <= WIDEST
    maps = [axes.get_title() for axes in figure.axes if axes.get_visible() and axes.get_title()]
    assert maps == [*gates, "state"]
    assert [text.get_fontsize() >= 5 for text in figure.axes[0].get_xticklabels()] == [True] * min(length, 100)
