"""Inputs for fuzzing: valid ones, damaged at random in their bytes, their JSON values, or their safetensors header."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Sequence
from typing import Any

PIECES = [
    *(bytes([byte]) for byte in b"\0\n\r\t \"'\\{}[](),:=#-+.|;*\x0b\x0c\x1c\x7f\x85\xa0\xc3\xf0\xff"),
    b"\r\n",
    b"\n\n",
    b"\xef\xbb\xbf",  # a byte order mark
    b"\xff\xfe",
    b"\xed\xa0\x80",  # half of a surrogate pair, as no UTF-8 has it
    b"\x1f\x8b\x08\x00",  # gzip
    b"\\ud800",
    b"\\u0000",
    *(
        piece.encode()
        for piece in (
            *(
                "\u0301",
                "\u00a0",
                "\u00ad",
                "\u0130",
                "\u200b",
                "\u2028",
                "\u202e",
                "\u2581",
                "\u3000",
                "\ufb01",
                "\ufffd",
            ),
            *("\u00df", "\u0660", "\U0001f600", "\U0001f468\u200d\U0001f469", "\U000e0001", "\U0010ffff"),
            *("0", "-1", "1e999", "-0.0", "NaN", "Infinity", "1_000", "0x10", "2147483648", "9223372036854775808"),
            *("9" * 30, "1" * 5000, "true", "null", '""', "[]", "{}", "<unk>", "<pad>", "</s>", "<0x41>"),
        )
    ),
]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, 2, -1, 7, 10**6, 2**31, 2**63, 10**30, -(10**30), 0.5, -0.0, 1e308, float("nan")),
    *(float("inf"), "", "0", "1", "x", "name", "\0", "\ud800", "\u2028", "None", "../../x", "/dev/full", "a" * 5000),
    *([], {}, [[]], [None], [0, 1], ["a", "b"], {"": 0}, {"name": "x"}, {"a": {"b": {"c": 1}}}, [[0, 1], [2, 3]]),
]
DIGIT = re.compile(rb"\d")
DEPTHS = (50, 900, 100_000)


def damaged(seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """One of the seeds after one to five random changes."""
    data = rng.choice(seeds)
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        data = rng.choice(CHANGES)(data, seeds, rng)
    return data


def _piece(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    return data[:at] + rng.choice(PIECES) + data[at + rng.choice((0, 0, 1, 2)) :]


def _bit(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def _range(data: bytes, rng: random.Random) -> tuple[int, int]:
    start = rng.randint(0, len(data))
    return start, min(len(data), start + rng.choice((1, 4, 20, len(data))))


def _without(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    start, end = _range(data, rng)
    return data[:start] + data[end:]


def _twice(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    start, end = _range(data, rng)
    return data[:end] + data[start:end] * rng.choice((1, 1, 3)) + data[end:]


def _spliced(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    other = rng.choice(seeds)
    return data[: rng.randint(0, len(data))] + other[rng.randint(0, len(other)) :]


def _lines(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """A line repeated (a key twice), moved or gone."""
    lines = data.split(b"\n")
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.choice((0, 1, 2))):
        lines.insert(rng.randint(0, len(lines)), line)
    return b"\n".join(lines)


def _number(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    """Another number where one stands."""
    found = DIGIT.search(data, rng.randint(0, len(data))) or DIGIT.search(data)
    if not found:
        return data
    at = found.start()
    return data[:at] + rng.choice((b"0", b"-", b"9" * 25, b"1e400", b"0.1", b"4294967296", b"7")) + data[at + 1 :]


def _deep(data: bytes, seeds: Sequence[bytes], rng: random.Random) -> bytes:
    if rng.random() < 0.95:  # these are long, and the same thing each time
        return _piece(data, seeds, rng)
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"(a ", b")"), (b"(", b")"), (b"a.", b"")))
    depth = rng.choice(DEPTHS)
    at = rng.randint(0, len(data))
    return data[:at] + opening * depth + rng.choice((b"", b"1", data[:20])) + closing * depth + data[at:]


CHANGES = (_piece, _piece, _bit, _without, _without, _twice, _spliced, _lines, _number, _deep)


def damaged_value(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value in which one or more parts are gone, doubled, or something else."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        parent, key = {"": value}, ""
        while isinstance(parent[key], dict | list) and parent[key] and rng.random() < 0.9:
            parent = parent[key]
            key = rng.choice(list(parent)) if isinstance(parent, dict) else rng.randrange(len(parent))
        if parent.keys() == {""} if isinstance(parent, dict) else False:
            if rng.random() < 0.9:
                continue
            return copy.deepcopy(rng.choice(VALUES))
        parent[key], action = _other(parent[key], rng), rng.random()
        if action < 0.15:
            del parent[key]
        elif action < 0.3 and isinstance(parent, list):
            parent.append(copy.deepcopy(parent[key]))
        elif action < 0.3:
            parent[rng.choice(("x", "", "name", f"{key}x"))] = copy.deepcopy(rng.choice(VALUES))
    return value


def _other(value: Any, rng: random.Random) -> Any:
    """Another value of the same type as often as one of another."""
    if rng.random() < 0.5:
        if isinstance(value, bool):
            return not value
        if isinstance(value, int | float):
            return rng.choice((-value, value + 1, value - 1, value * 2, value * 10**6, value / 3))
        if isinstance(value, str):
            return damaged([value.encode("utf-8", "surrogatepass")], rng).decode("utf-8", "replace")
        if isinstance(value, list) and value:
            return rng.choice((value[:-1], value[::-1], value + value, value[1:]))
    return copy.deepcopy(rng.choice(VALUES))


def damaged_json(text: bytes, rng: random.Random) -> bytes:
    """A JSON text damaged in its bytes, or in its values."""
    if rng.random() < 0.3:
        return damaged([text], rng)
    return json.dumps(damaged_value(json.loads(text), rng), ensure_ascii=rng.random() < 0.5).encode("utf-8", "replace")


def damaged_tensors(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file damaged in its bytes, or in the values of its header, whose length stays true."""
    size = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + size], data[8 + size :]
    kind = rng.random()
    if kind < 0.2:
        return damaged([data], rng)
    if kind < 0.3:
        length = rng.choice((0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1, len(data)))
        return length.to_bytes(8, "little") + data[8:]
    header = damaged_json(header, rng)
    if kind > 0.9:
        rest = damaged([rest], rng)
    return len(header).to_bytes(8, "little") + header + rest
