"""Speed of every cell beside the fused `lstm`: tokens/s of one layer, in training and in prediction, as ratios to it.

    python scripts/bench_cells.py [CELL ...] [--repeats 5] [--seconds 0.3] [--size 32 25 200 256] [--device cpu|cuda]
                                  [--precision float32|bf16] [--threads N] [--json FILE]

A layer reads a batch of full length in one direction: rows, steps, inputs and states are those of `--size`. Training is
a forward and a backward pass, its input's gradient among them; prediction is the forward pass without any. Each repeat
measures `lstm` and then a cell, in turn, in one process; a figure is the median over repeats of the ratio of the two,
with the smallest and largest. With its options, a cell stands in a line of its own. Of `rnn` and `gru` there is also
the ratio to torch's kernel, which a CPU uses for few states only. On a GPU, of cells that are loops there is what they
gain by being recorded (`train.graphs`).
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import measure
from measure import Figures

VARIANTS: dict[str, dict[str, Any]] = {
    "rnn, relu": {"nonlinearity": "relu"},
    "rnn, leak": {"leak": 0.5},
    "lstm, loop": {"kernel": "loop"},
    "lstm, peepholes": {"peepholes": True},
    "lstm, coupled": {"coupled": True},
    "lstm, no input gate": {"without": ["input"]},
    "lstm, no forget gate": {"without": ["forget"]},
    "lstm, no output gate": {"without": ["output"]},
    "lstm, zoneout": {"zoneout": 0.1, "zoneout_memory": 0.1},
    "gru, loop": {"kernel": "loop"},
    "gru, zoneout": {"zoneout": 0.1},
}
"""Options worth a line of their own, by the cell's name and what they are."""
KERNELS = ("rnn", "gru")
"""Cells that are compared with torch's kernel for them."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("cells", metavar="CELL", nargs="*", help="lines to measure, by the start of their names")
    parser.add_argument("--repeats", type=measure.count, default=5, help="measurements of each figure (default 5)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each measurement, about (default 0.3)")
    parser.add_argument(
        "--size", type=measure.count, nargs=4, default=[32, 25, 200, 256], help="rows steps inputs states"
    )
    parser.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="number format of products")
    parser.add_argument("--threads", type=measure.count, help="threads of torch; default: what torch chooses")
    parser.add_argument("--json", metavar="FILE", type=measure.new_file, help="also write all figures to this file")
    arguments = parser.parse_args()
    if arguments.threads:
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    from seqtext.errors import DeviceError
    from seqtext.nn.cells import CELLS
    from seqtext.training.distributed import resolve_device

    lines = {name: (name, {}) for name in CELLS}
    lines |= {line: (line.split(",")[0], options) for line, options in VARIANTS.items()}
    chosen = {line: cell for line, cell in sorted(lines.items()) if line.startswith(tuple(arguments.cells or [""]))}
    if not chosen:
        parser.error(f"{' '.join(arguments.cells)}: no line begins so; there are: {'; '.join(sorted(lines))}")
    try:
        arguments.device = str(resolve_device(arguments.device))
    except DeviceError as error:
        parser.error(str(error))
    rows, steps, inputs, states = arguments.size
    settings = measure.begin(
        {
            "size": arguments.size,
            "device": arguments.device,
            "repeats": arguments.repeats,
            "precision": arguments.precision,
        }
    )
    figures = speed(chosen, arguments)
    print(f"\n== a layer over {rows} x {steps} x {inputs} -> {states}: tokens/s over those of lstm, fused")
    measure.report(figures)
    if arguments.json:
        measure.write_json(arguments.json, {"settings": settings, "figures": measure.summary(figures)})


def speed(chosen: dict[str, tuple[str, dict[str, Any]]], arguments: argparse.Namespace) -> Figures:
    """Ratios of each line."""
    import torch

    from seqtext.nn import graphs
    from seqtext.nn.cells import Cell, build_cell
    from seqtext.nn.looped import Looped

    rows, steps, inputs, states = arguments.size
    x = torch.randn(rows, steps, inputs, device=arguments.device, requires_grad=True)
    figures: Figures = defaultdict(list)
    cast = torch.autocast(arguments.device.split(":")[0], torch.bfloat16, enabled=arguments.precision == "bf16")

    def pair(cell: Cell, *, recorded: bool = False) -> dict[str, Any]:
        def train() -> int:
            cell.train()
            graphs.WANTED = recorded
            with cast:
                output, _ = cell(x)
            output.float().sum().backward()
            return rows * steps

        def predict() -> int:
            cell.eval()
            graphs.WANTED = recorded
            with torch.inference_mode(), cast:
                cell(x)
            return rows * steps

        return {"training": train, "prediction": predict}

    plain = pair(build_cell("lstm", inputs, states).to(arguments.device))
    for name, (cell, options) in chosen.items():
        layer = build_cell(cell, inputs, states, options).to(arguments.device)
        other, beside = pair(layer), {"lstm": plain}
        if name in KERNELS:
            beside["torch's kernel"] = pair(build_cell(cell, inputs, states, {"kernel": "fused"}).to(arguments.device))
        compared = [(name, called, usual, other) for called, usual in beside.items()]
        if isinstance(layer, Looped) and arguments.device != "cpu":
            compared.append((f"{name}, recorded", "as it stands", other, pair(layer, recorded=True)))
        for line, called, usual, ours in compared:
            for what in usual:
                works = [lasting(work, arguments.seconds) for work in (usual[what], ours[what])]
                for _ in range(arguments.repeats):
                    theirs, own = measure.rate(works[0]), measure.rate(works[1])
                    figures[f"{what}: {line} / {called}"].append(own / theirs)
                    if name == "lstm":
                        figures[f"{what}: lstm, tokens/s"].append(theirs)
    return figures


def lasting(work: Callable[[], int], seconds: float) -> Callable[[], int]:
    """So much of `work` as takes about so long."""
    return measure.lasting((work() for _ in itertools.count()), seconds=seconds)


if __name__ == "__main__":
    main()
