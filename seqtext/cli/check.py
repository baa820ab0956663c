"""`seqtext check`."""

from __future__ import annotations

import json
import shlex
from typing import Annotated

import typer

from seqtext.cli.options import Device, Json, Threads, recipe_names


def check(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe by name or file.", autocompletion=recipe_names)
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings to change, such as train.epochs=20.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A folder or source name in place of the recipe's own.")] = None,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Find all faults of a recipe, describe its data, and try one training step on the longest batch."""
    from seqtext.cli.library import api

    facts = api.check(recipe, data=data, overrides=overrides or [], device=device)
    if as_json:
        typer.echo(json.dumps(dict(facts)))
        return
    width = max(len(name) for name, _ in facts)
    for name, fact in facts:
        typer.echo(f"{name:<{width}}  {fact}")
    words = ["seqtext", "train", recipe, *(overrides or []), *(["--data", data] if data else [])]
    typer.echo(f"next: {shlex.join(words)}", err=True)
