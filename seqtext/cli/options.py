"""Options that several commands have."""

from __future__ import annotations

from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON lines.")]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, as training left it.")]
BatchTokens = Annotated[
    int | None, typer.Option(min=1, help="Padded tokens of a batch, at most: more is faster and takes more memory.")
]
