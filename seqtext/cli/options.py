"""Options that several commands have."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer


def recipe_names(incomplete: str) -> list[str]:
    """For shell completion."""
    from seqtext.shelf import shipped

    return [name for name in shipped() if name.startswith(incomplete)]


def _among(*values: str) -> Callable[[str], list[str]]:
    """For shell completion."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


Device = Annotated[
    str,
    typer.Option(
        help="Where to compute: auto, cpu, cuda or cuda:N.", autocompletion=_among("auto", "cpu", "cuda", "cuda:1")
    ),
]
SplitName = Annotated[
    str, typer.Option(help="Which part: train, valid or test.", autocompletion=_among("train", "valid", "test"))
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, as training left it.")]


def _use(threads: int | None) -> None:
    """Have torch compute with so many threads, whether it is loaded yet or not."""
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
        if torch := sys.modules.get("torch"):
            torch.set_num_threads(threads)


Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        callback=_use,
        help="Threads to compute with; by default OMP_NUM_THREADS, or else the cores that it may use, 4 at most.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="float32|bf16|auto",
        help="Numbers to compute with; bf16 is faster on newer processors and changes scores a little.",
        autocompletion=_among("float32", "bf16", "auto"),
    ),
]
BatchTokens = Annotated[
    int | None, typer.Option(min=1, help="Padded tokens of a batch, at most: more is faster and takes more memory.")
]
