"""`seqtext recipes`: list, show, copy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from seqtext.cli.options import Json, recipe_names

app = typer.Typer(help="List the shipped recipes, show one, or copy one to change.", invoke_without_command=True)

Name = Annotated[str, typer.Argument(help="A recipe's name.", autocompletion=recipe_names)]


@app.callback()
def recipes(context: typer.Context, as_json: Json = False) -> None:
    """List the shipped recipes: task, data, and the score they reached when last run."""
    if context.invoked_subcommand is not None:
        return
    from seqtext.cli.tables import print_table
    from seqtext.shelf import summaries

    found = summaries()
    if as_json:
        for row in found:
            typer.echo(json.dumps(row))
        return
    header = ["recipe", "task", "data", "score"]
    print_table("Recipes", header, [[row[key] for key in header] for row in found])
    typer.echo("next: seqtext train RECIPE, or seqtext recipes show RECIPE", err=True)


@app.command("list", hidden=True)
def listed() -> None:
    """What many try first."""
    from seqtext.errors import InputError

    raise InputError("recipes list: seqtext recipes lists them; its commands are show and copy")


@app.command()
def show(name: Name) -> None:
    """Print a recipe."""
    typer.echo(_text(name)[1], nl=False)


@app.command()
def copy(
    name: Name,
    destination: Annotated[str, typer.Argument(metavar="DEST", help="A file, or a folder to put it in.")],
) -> None:
    """Copy a recipe, to change it and train from the copy."""
    from seqtext.errors import InputError
    from seqtext.files import write_text

    (source, text), target = _text(name), Path(destination)
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise InputError(f"{target}: exists already; remove it or choose another name")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent}: no such folder")
    try:
        write_text(target, text)
    except OSError as error:
        raise InputError(f"{target}: cannot be written: {error.strerror}") from None
    typer.echo(str(target))
    typer.echo(f"next: seqtext check {target}", err=True)


def _text(name: str) -> tuple[Path, str]:
    """A recipe's file and what stands in it. Raises `ConfigError` where it cannot be read as TOML."""
    from seqtext.config import read_toml
    from seqtext.shelf import find

    path = find(name)
    read_toml(path)
    return path, path.read_text(encoding="utf-8")
