"""Recipes as frozen, typed values: TOML in, TOML out, overrides `a.b=c`, and every fault named by its dotted key.

A schema is a `Config` subclass; the docstring of a field is its help. Choices that bring their own settings (an
optimizer, a schedule, a way of reading characters) are tagged unions on `name`, so that a setting the choice does
not read is an unknown key and so an error, never ignored.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from seqtext.errors import ConfigError


class Config(BaseModel):
    """Base of every schema: immutable; an unknown key, a value of another type and a number not finite are errors.

    A field that may be None must be None by default, since TOML has no None; a sequence is a `list`, as TOML's is.
    """

    # A command uses a few of all the schemas: deferring the others' validators saves every command a tenth of a second.
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, defer_build=True, strict=True, allow_inf_nan=False
    )

    @classmethod
    def place_of(cls, key: str) -> str:
        """What to say of a key that is not one of this table but of one within it: "; it is ...", or nothing."""
        return ""


C = TypeVar("C", bound=Config)
WHOLE = "(recipe)"
"""Stands for the key of a whole recipe."""
KEY = re.compile(r"[a-z_]+(\.\w+)*: ")
TWINS = {"name": "cell", "cell": "name"}
"""Keys that are mistaken for each other: a tagger's encoder has a `cell`, a classifier's, of more kinds, a `name`."""
SHOWN = 100
"""Characters of a value in a message."""
DEEPEST = 20
"""Tables within tables of a recipe."""
LONGEST = 20_000
"""Characters of a recipe; Python's reader of TOML can take minutes over longer ones."""


def parse(schema: type[C], values: Mapping[str, Any], *, source: str, prefix: str = "") -> C:
    """Check `values` against `schema`.

    Raises `ConfigError` with all faults at once: dotted key, what was given, what is allowed, and for an unknown key
    the closest known one. `prefix` is the dotted path of `values` within the recipe.
    """
    try:
        return schema.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(source, faults(schema, error, prefix=prefix)) from None


def faults(schema: type[Config], error: ValidationError, *, prefix: str = "") -> list[str]:
    """One line a fault, in the order of the schema; the alternatives of a plain union share a line."""
    lines: dict[tuple[str, str], list[str]] = {}
    for item in error.errors():
        path, owner, annotation = _walk(schema, item["loc"])
        key = ".".join([*([prefix] if prefix else []), *path]) or WHOLE
        kind, given, message = item["type"], item["input"], item["msg"]
        names = [str(tag) for tag in _tagged(annotation)]
        if kind == "extra_forbidden":
            known = sorted(owner.model_fields) if owner else []
            hint = (owner.place_of(path[-1]) if owner else "") or _twin(path[-1], known) or _near(path[-1], known)
            line = f"{key}: unknown key" + (hint or f"; known keys here: {', '.join(known)}")
        elif kind == "missing":
            line = f"{key}: missing; a value is required"
        elif kind == "union_tag_not_found":
            line = f"{key}.name: missing; it must be one of {', '.join(names)}"
        elif kind == "union_tag_invalid":
            given = given["name"]
            line = f"{key}.name: expected one of {', '.join(names)}, got {_shown(given)}{_near(given, names)}"
        elif kind in ("value_error", "assertion_error"):
            # A check of a whole table may find several faults, a line each; one may begin with a key of the table.
            own = {field for member in _members(annotation) if _is_table(member) for field in member.model_fields}
            for fault in message.partition(", ")[2].split("\n"):
                joint = "." if (found := KEY.match(fault)) and re.split(r"[.:]", found[0])[0] in own else ": "
                lines[f"{key}{joint}{fault}" if key != WHOLE or joint == ": " else fault, ""] = []
            continue
        elif kind in ("model_type", "model_attributes_type", "dict_type"):
            line = f"{key}: expected a table{' with a name' if names else ''}, got {_shown(given)}"
        elif message.startswith("Input should be "):
            wanted = "true or false" if kind == "bool_type" else message.removeprefix("Input should be ")
            lines.setdefault((f"{key}: expected ", f", got {_shown(given)}"), []).append(wanted)
            continue
        else:
            line = f"{key}: {message[0].lower()}{message[1:]}, got {_shown(given)}"
        lines[line, ""] = []
    return [head + " or ".join(wanted) + tail for (head, tail), wanted in lines.items()]


def _twin(given: str, known: Sequence[str]) -> str:
    """The key that means there what `given` means elsewhere."""
    other = TWINS.get(given)
    return f"; did you mean '{other}'?" if other in known else ""


def _near(given: Any, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(str(given), known, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


def _shown(given: Any) -> str:
    """A value as messages show it."""
    text = repr(given)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _walk(schema: type[Config], location: Sequence[int | str]) -> tuple[list[str], type[Config] | None, Any]:
    """Follow an error's location through the schemas: the keys a user wrote, the last table's schema, the value's type.

    The parts by which pydantic tells the members of a union apart (a tag, the name of a type) are no keys.
    """
    path: list[str] = []
    owner: type[Config] | None = None
    annotation: Any = schema
    for part in location:
        members = _members(annotation)
        if len(members) > 1:
            named = {_branch(member): member for member in members} | _tagged(annotation)
            annotation = named.get(str(part).partition("[")[0])
            continue
        kind = members[0] if members else None
        origin, inner = typing.get_origin(kind), typing.get_args(kind)
        path.append(str(part))
        if isinstance(kind, type) and issubclass(kind, Config):
            owner = kind
            field = owner.model_fields.get(str(part))
            annotation = field.annotation if field else None
        elif isinstance(origin, type) and issubclass(origin, Mapping):
            annotation = inner[1]
        else:
            annotation = inner[0] if inner else None
    return path, owner, annotation


def _members(annotation: Any) -> list[Any]:
    """The types that an annotation allows, without None."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _members(inner[0])
    if origin in (typing.Union, types.UnionType):
        return [member for part in inner for member in _members(part)]
    return [] if annotation in (None, types.NoneType) else [annotation]


def _is_table(member: Any) -> bool:
    return isinstance(member, type) and issubclass(member, Config)


def _branch(member: Any) -> str:
    """How pydantic names a member of a plain union in a location, up to its bracket."""
    origin = typing.get_origin(member) or member
    return "literal" if origin is typing.Literal else getattr(origin, "__name__", str(origin))


def _tagged(annotation: Any) -> dict[str, type[Config]]:
    """The schemas of a choice by their `name`."""
    fields = [
        (member, member.model_fields["name"])
        for member in _members(annotation)
        if _is_table(member) and "name" in member.model_fields
    ]
    return {str(tag): member for member, field in fields for tag in typing.get_args(field.annotation)}


def override(
    values: Mapping[str, Any],
    assignments: Sequence[str] | Mapping[str, Any],
    *,
    source: str,
    schemas: Mapping[str, type[Config]] | None = None,
) -> dict[str, Any]:
    """A copy of `values` with dotted keys set, from `["train.epochs=3"]` or `{"train.epochs": 3}`.

    A value is read as TOML (`3`, `true`, `[1, 2]`, `"text"`); what is not TOML is taken as a plain string, so that a
    shell needs no second layer of quotes. Changing the `name` of a choice drops the recipe's other settings of that
    choice, which belonged to the old one, unless `schemas`, those of the tables in `values`, have one for both. Raises
    `ConfigError` with every assignment that cannot be made.
    """
    result = _copy(values)
    faults: list[str] = []
    made: set[str] = set()
    pairs = assignments.items() if isinstance(assignments, Mapping) else (_assignment(text) for text in assignments)
    for key, value in pairs:
        *parents, last = key.split(".")
        if not all([*parents, last]):
            faults.append(f"{value!r}: an override is written KEY=VALUE, for example train.epochs=3")
            continue
        table = result
        for depth, parent in enumerate(parents):
            table = table.setdefault(parent, {})
            if not isinstance(table, dict):
                faults.append(f"{key}: '{'.'.join(parents[: depth + 1])}' is a value, not a table")
                break
        else:
            renamed = parents and last == "name" and table.get("name") != value
            if renamed and not _share_a_table(schemas or {}, parents, table.get("name"), value):
                above = key.removesuffix("name")
                for other in list(table):
                    if not any(f"{name}.".startswith(f"{above}{other}.") for name in made):
                        del table[other]
            table[last] = _copy(value)
            made.add(key)
    if faults:
        raise ConfigError(source, faults)
    return result


def _share_a_table(schemas: Mapping[str, type[Config]], path: Sequence[str], one: Any, other: Any) -> bool:
    """Whether two names of the choice at `path` have one schema, so that the settings of one are those of the other."""
    annotation: Any = schemas.get(path[0])
    default: Any = None
    for part in path[1:]:
        tables = [member for member in _members(annotation) if _is_table(member) and part in member.model_fields]
        if not tables:
            return False
        field = tables[0].model_fields[part]
        annotation, default = field.annotation, field.get_default(call_default_factory=True)
    tagged = _tagged(annotation)
    first = tagged.get(str(getattr(default, "name", None) if one is None else one))
    return first is not None and first is tagged.get(str(other))


def _assignment(text: str) -> tuple[str, Any]:
    """Key and value of `KEY=VALUE`; without a key, the whole text as the value."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        return "", text
    if len(value) > LONGEST:
        return key, value
    try:
        table = tomllib.loads(f"value = {value}")
    except (ValueError, RecursionError):  # not TOML, or thousands of digits or brackets
        return key, value
    return key, table["value"] if len(table) == 1 and _is_flat(table, DEEPEST) else value


def _copy(values: Any) -> Any:
    return {key: _copy(value) for key, value in values.items()} if isinstance(values, Mapping) else values


def read_toml(path: Path) -> dict[str, Any]:
    """The table in a TOML file. Raises `ConfigError` naming file and line where it is not TOML."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        if len(text) > LONGEST:
            raise ConfigError(str(path), [f"{len(text):,} characters; a recipe has at most {LONGEST:,}"])
        values = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(str(path), ["no such file"]) from None
    except IsADirectoryError:
        raise ConfigError(str(path), ["this is a folder; a recipe is a TOML file"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"byte {error.start} is not UTF-8; a recipe is a UTF-8 TOML file"]) from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(str(path), [f"not valid TOML: {error}"]) from None
    if not _is_flat(values, DEEPEST):
        raise ConfigError(str(path), [f"tables and lists within each other, more than {DEEPEST} deep"])
    return values


def _is_flat(values: Any, depth: int) -> bool:
    """Whether tables and lists are at most so deep within each other."""
    inside = values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
    return depth >= 0 and all(_is_flat(value, depth - 1) for value in inside)


def to_toml(values: Mapping[str, Any]) -> str:
    """TOML text of a table; `None` values, which TOML does not have, are left out."""
    import tomli_w

    return tomli_w.dumps(_without_none(values))


def _without_none(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {key: _without_none(value) for key, value in values.items() if value is not None}
    if isinstance(values, (list, tuple)):
        return [_without_none(value) for value in values]
    return values
