"""Where recipes stand: found by name or path, and listed without loading what they need to run."""

from __future__ import annotations

import difflib
from pathlib import Path

from seqtext.config import read_toml
from seqtext.errors import ConfigError


def recipes_folder() -> Path:
    """The recipes shipped with the package: inside an installed wheel, or at the top of a checkout."""
    inside = Path(__file__).parent / "recipes"
    return inside if inside.is_dir() else Path(__file__).parent.parent / "recipes"


def shipped() -> dict[str, Path]:
    """All shipped recipes by name; one of a sub-folder has it before its own: `study-cells/tagging`."""
    folder = recipes_folder()
    found = [*sorted(folder.glob("*.toml")), *sorted(folder.glob("*/*.toml"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def name_of(path: Path) -> str:
    """What the recipe in a file is called: as it is shipped, or else as its file."""
    return next((name for name, other in shipped().items() if other == path), path.stem)


def find(name: str) -> Path:
    """The file of a recipe given by name (`ner`, `ner-conll2003`) or by path. Raises `ConfigError`."""
    path, known = Path(name), shipped()
    if name in known and not path.is_file():
        return known[name]
    if path.suffix == ".toml" or path.exists() or "/" in name:
        return path
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"recipes: {', '.join(known)}"
    raise ConfigError(name, [f"no recipe of this name and no such file; {hint}"])


def summaries() -> list[dict[str, str]]:
    """Name, task, data, expected score and description of every shipped recipe."""
    rows = []
    for name, path in shipped().items():
        table = read_toml(path)
        expected = table.get("expected", {})
        rows.append(
            {
                "recipe": name,
                "task": table["task"],
                "data": expected.get("data", table.get("data", {}).get("source", "sample")),
                "score": expected.get("score", ""),
                "description": table.get("description", ""),
            }
        )
    return rows
