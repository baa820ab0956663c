"""Records of named fields: JSON lines and Parquet read to the values that are wanted of them, and what messages say of
a field that is missing or holds something else.

`fields` maps keys of `[data]` to names of fields, as in `{"text_field": "body"}`: messages name both.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from seqtext.data.text import open_json
from seqtext.errors import DataError

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
SHOWN = 40
"""Characters of a name or value in a message."""

Record = tuple[int, list[Any]]  # number of the line or row, from 1, and the values of its fields


def suffix_of(path: Path) -> str:
    """What a file's name ends in, in lower case and but for `.gz`: `.csv` of `Train.CSV.gz`."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def open_records(path: Path, form: str, fields: Mapping[str, str]) -> Iterator[Record]:
    """The values of `fields`, line by line of JSON lines (the form `jsonl`) or row by row of Parquet (`parquet`).

    A column that `datasets` wrote from class labels reads as their names, None where a number has no name. Raises
    `DataError` with file and line for a field that is missing, and where the file does not read.
    """
    return {"jsonl": _json, "parquet": _parquet}[form](path, fields)


def _json(path: Path, fields: Mapping[str, str]) -> Iterator[Record]:
    for number, record in open_json(path):
        if problem := missing(fields, record, "key"):
            raise DataError(problem, path=path, line=number)
        yield number, [record[field] for field in fields.values()]


def _parquet(path: Path, fields: Mapping[str, str]) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            if problem := missing(fields, schema.names, "column"):
                raise DataError(problem, path=path)
            names = [_class_names(schema.metadata, field) for field in fields.values()]
            batches = file.iter_batches(batch_size=1000, columns=list(fields.values()))
            columns = ([batch.column(field).to_pylist() for field in fields.values()] for batch in batches)
            rows = (row for found in columns for row in zip(*found, strict=True))
            for number, row in enumerate(rows, start=1):
                yield number, [value if known is None else known.get(value) for value, known in zip(row, names)]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"not a Parquet file, or a damaged one: {error}", path=path) from None


def _class_names(metadata: Mapping[bytes, bytes] | None, field: str) -> dict[int, str] | None:
    """The names by number of a column's class labels, which `datasets` keeps beside the columns it writes."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][field]["names"]
        return dict(enumerate(names))
    except (KeyError, TypeError, ValueError):
        return None


# Messages


def missing(fields: Mapping[str, str], there: Collection[str], kind: str, *, hint: str = "") -> str | None:
    """What to say of those `fields` that are not `there`, None if all are; `kind` is what a field is called there."""
    lacking = {key: field for key, field in fields.items() if field not in there}
    if not lacking:
        return None
    wanted = " and ".join(f"no {kind} {field!r} (data.{key})" for key, field in lacking.items())
    return f"{wanted}; {instead(there, lacking.values(), hint=hint)}"


def instead(there: Iterable[str], lacking: Iterable[str], what: str = "found", *, hint: str = "") -> str:
    """What is `there` instead of what is lacking, a hint, and the name that is probably meant."""
    there = list(there)
    names = {name.lower(): name for name in there}
    near = [found for name in lacking for found in difflib.get_close_matches(name.lower(), names, n=1)]
    listed = ", ".join(name[:SHOWN] for name in there) or "none"
    parts = [f"{what}: {listed}", hint, f"did you mean {names[near[0]]!r}?" if near else ""]
    return "; ".join(part for part in parts if part)


def string(value: object, field: str, place: str | Path, line: int) -> str:
    """The value of a field, if it is a string; else raises `DataError`."""
    if isinstance(value, str):
        return value
    raise unexpected(value, field, "a string", place, line)


def unexpected(value: object, field: str, expected: str, place: str | Path, line: int) -> DataError:
    """The error of a field that holds something else than `expected`."""
    found = "nothing" if value is None else f"{type(value).__name__} {str(value)[:SHOWN]}"
    return DataError(f"{field!r} holds {found}, expected {expected}", path=place, line=line)
