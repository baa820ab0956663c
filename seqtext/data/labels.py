"""Tag schemes (IO, IOB1, IOB2, BIOES) and the vocabulary of label names.

A tag is `O` or `PREFIX-TYPE` (`B-PER`), the type being all after the first dash. A prefix without a type (`B`) is a tag
of an untyped corpus. Other families of prefixes are read as BIOES (BILOU, BMEWO: M is I, L is E, U and W are S) and
never written. A tag that does not begin with one character and a dash (`PER`, `person-actor`) is a plain type, and
reads as inside that type, in the IO scheme only; any other scheme needs prefixes.

Every sequence, well formed or not, is read by conlleval's rules (Tjong Kim Sang & Buchholz 2000; E and S as in
spyysalo's and seqeval's versions; the Perl original does not know S). Its tables come down to one sentence: a tag
continues the span before it when both have the same type, the one before is B or I and this one is I or E; any other
tag that is not O begins a span. Schemes: Ramshaw & Marcus 1995 (IOB1), Tjong Kim Sang & Veenstra 1999 (IOB2, IO).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from seqtext.errors import DataError, RunError

SCHEMES = ("IO", "IOB1", "IOB2", "BIOES")
_PREFIXES = {"IO": "I", "IOB1": "BI", "IOB2": "BI", "BIOES": "BIES"}
_READ_AS = {"B": "B", "I": "I", "E": "E", "S": "S", "M": "I", "L": "E", "U": "S", "W": "S"}


class Span(NamedTuple):
    """Words `start` to `end` (exclusive) of a sentence, and what they name."""

    start: int
    end: int
    type: str


class TagError(DataError, ValueError):
    """A tag that the scheme, or the vocabulary, does not have; `tag` is the tag.

    Nothing here knows files: a reader that does raises `error.at(path, line)` instead, looking the line up by `tag`.
    """

    def __init__(self, message: str, tag: str, *, path: str | Path | None = None, line: int | None = None) -> None:
        self.message, self.tag = message, tag
        super().__init__(message, path=path, line=line)

    def at(self, path: str | Path, line: int | None = None) -> TagError:
        """The same error with its place."""
        return TagError(self.message, self.tag, path=path, line=line)


@cache
def split_tag(tag: str) -> tuple[str, str]:
    """Prefix, one of B, I, O, E, S, and type: `B-PER` is ("B", "PER"), `O` is ("O", ""), `L-PER` is ("E", "PER").

    A plain type, as `PER`, has the prefix "". Raises `TagError` for a prefix that is in no scheme.
    """
    if tag == "O":
        return "O", ""
    prefix, dash, kind = tag.partition("-")
    if prefix in _READ_AS:
        return _READ_AS[prefix], kind
    if tag and (len(prefix) > 1 or not dash):
        return "", tag
    allowed = "allowed are B, I, O, E, S (IOB1, IOB2, BIOES) and M, L, U, W, which are read as I, E, S, S"
    given = f"tag {tag!r}: unknown prefix {prefix!r}" if dash else "a tag is empty"
    raise TagError(f"{given}; {allowed}", tag)


class _Tags(dict[str, tuple[str, str]]):
    """The prefix and type of each tag met, as a scheme reads it: one look-up a token instead of one parse."""

    def __init__(self, scheme: str) -> None:
        super().__init__()
        self.scheme = scheme

    def __missing__(self, tag: str) -> tuple[str, str]:
        prefix, kind = split_tag(tag)
        if not prefix:
            if self.scheme != "IO":
                wanted = ", ".join(_PREFIXES[self.scheme])
                raise TagError(
                    f"tag {tag!r}: no prefix; {self.scheme} tags are O or a prefix ({wanted}), a dash and a type", tag
                )
            prefix = "I"
        self[tag] = prefix, kind
        return prefix, kind


_TAGS = {scheme: _Tags(scheme) for scheme in SCHEMES}


def _tags(scheme: str) -> _Tags:
    if scheme not in _TAGS:
        raise ValueError(f"scheme {scheme!r}: allowed are {', '.join(SCHEMES)}")
    return _TAGS[scheme]


def read_tag(tag: str, scheme: str) -> tuple[str, str]:
    """Prefix and type of `tag` in a corpus of `scheme`: as `split_tag`, but a plain type is inside (I) in IO.

    Raises `TagError` for an unknown prefix and, in the other schemes, for a plain type.
    """
    return _tags(scheme)[tag]


def _members(names: Iterable[str], scheme: str) -> list[tuple[str, str]]:
    """Prefix and type of each name. Raises `TagError` for a name the scheme itself would never write."""
    parse, allowed = _tags(scheme), _PREFIXES[scheme]
    for name in names:
        if parse[name][0] not in allowed + "O":
            raise TagError(f"tag {name!r}: prefix not in {scheme}; allowed are {', '.join(allowed)} and O", name)
    return [parse[name] for name in names]


def detect_scheme(sequences: Iterable[Sequence[str]]) -> str:
    """The scheme a whole corpus is written in.

    - E or S (or L, U, W) anywhere: BIOES. This takes in IOE1 and IOE2, whose spans are read rightly all the same.
    - Plain types only: IO.
    - B and I: the scheme with fewer violations. In IOB2 every span begins with B, so each span begun by I is one; in
      IOB1 B stands only between two spans of one type, so each B elsewhere is one. IOB2 where they are equal.
    - I only: IOB1. The IO scheme has the same tags, but IOB1 reads them to the same spans and also reads a B, should
      another part of the corpus have one.
    - O only: IOB2, as nothing tells.

    Raises `TagError` for an unknown prefix, and for a plain type in a corpus whose other tags have prefixes.
    """
    prefixes: set[str] = set()
    plain = prefixed = ""
    begun_by_inside = needless_begin = 0
    for tags in sequences:
        before = None  # type of the span that the tag before is in
        for tag in tags:
            if tag == "O":
                before = None
                continue
            prefix, kind = split_tag(tag)
            prefixes.add(prefix)
            if not prefix:
                plain = plain or tag
            else:
                prefixed = prefixed or tag
            if kind != before:
                begun_by_inside += prefix == "I"
                needless_begin += prefix == "B"
            before = kind
    if plain and prefixed:
        raise TagError(f"tag {plain!r}: no prefix, although other tags have one, such as {prefixed!r}", plain)
    if plain:
        return "IO"
    if prefixes & {"E", "S"}:
        return "BIOES"
    return "IOB1" if begun_by_inside > needless_begin else "IOB2"


def spans(tags: Sequence[str], scheme: str) -> list[Span]:
    """The spans conlleval reads in any sequence, well formed or not, in order; they never overlap.

    Raises `TagError` for an unknown prefix.
    """
    parse = _tags(scheme)
    found: list[Span] = []
    start, kind, open_ = -1, "", False  # open_: the span so far ends in B or I, so the next tag may continue it
    for position, tag in enumerate(tags):
        if tag == "O":
            if start >= 0:
                found.append(Span(start, position, kind))
                start = -1
            continue
        prefix, type_ = parse[tag]
        if start < 0:
            start, kind = position, type_
        elif not (open_ and prefix in "IE" and type_ == kind):
            found.append(Span(start, position, kind))
            start, kind = position, type_
        open_ = prefix in "BI"
    if start >= 0:
        found.append(Span(start, len(tags), kind))
    return found


def _written(length: int, scheme: str, *, touches: bool) -> str:
    """The prefixes of a span of `length` words; `touches`: the word before is of a span of the same type."""
    if scheme == "BIOES":
        return "S" if length == 1 else "B" + "I" * (length - 2) + "E"
    begin = scheme == "IOB2" or (scheme == "IOB1" and touches)
    return ("B" if begin else "I") + "I" * (length - 1)


def from_spans(length: int, spans: Iterable[Span], scheme: str) -> list[str]:
    """The `length` tags of a sentence with these spans, given in any order.

    IO cannot tell two adjoining spans of one type apart, and reads them back as one.
    Raises `ValueError` for a span that is empty, outside the sentence or overlaps another.
    """
    _tags(scheme)
    tags = ["O"] * length
    end, kind = -1, ""
    for span in sorted(spans):
        if not 0 <= span.start < span.end <= length:
            raise ValueError(f"{span}: a span has 0 <= start < end <= {length}, the length of the sentence")
        if span.start < end:
            raise ValueError(f"{span}: overlaps a span that ends at {end}")
        prefixes = _written(span.end - span.start, scheme, touches=span.start == end and span.type == kind)
        tags[span.start : span.end] = [f"{prefix}-{span.type}" for prefix in prefixes] if span.type else prefixes
        end, kind = span.end, span.type
    return tags


def convert(tags: Sequence[str], source: str, target: str) -> list[str]:
    """The tags of scheme `target` with the spans conlleval reads in `tags`: well formed even where `tags` are not."""
    return from_spans(len(tags), spans(tags, source), target)


def well_formed(tags: Sequence[str], span: Span, scheme: str) -> bool:
    """Whether `span`, one of `spans(tags, scheme)`, is tagged just as the scheme writes it."""
    parse = _tags(scheme)
    start, end, kind = span
    touches = start > 0 and tags[start - 1] != "O" and parse[tags[start - 1]][1] == kind
    written = _written(end - start, scheme, touches=touches)
    return all(parse[tag][0] == prefix for tag, prefix in zip(tags[start:end], written, strict=True))


def strict_spans(tags: Sequence[str], scheme: str) -> list[Span]:
    """Only the spans tagged as the scheme writes them: seqeval's strict mode. `O I-PER` has none in IOB2."""
    return [span for span in spans(tags, scheme) if well_formed(tags, span, scheme)]


def is_valid(tags: Sequence[str], scheme: str) -> bool:
    """Whether every span of the sequence is tagged as the scheme writes it."""
    return all(well_formed(tags, span, scheme) for span in spans(tags, scheme))


def allowed_transitions(names: Sequence[str], scheme: str) -> tuple[list[bool], list[list[bool]], list[bool]]:
    """Which labels may begin a sentence (C,), follow which (C, C) and end it (C,), in `names` order.

    `transitions[i][j]`: label j may come right after label i. The sequences allowed are just those `is_valid` accepts.
    Raises `TagError` for a name the scheme does not have.
    """
    tags = _members(names, scheme)

    def follows(before: tuple[str, str], after: tuple[str, str]) -> bool:
        same = before[0] != "O" and before[1] == after[1]
        if scheme == "IOB1":
            return after[0] != "B" or same
        if scheme == "IOB2":
            return after[0] != "I" or same
        if scheme == "BIOES":
            return same and after[0] in "IE" if before[0] in "BI" else after[0] in "OBS"
        return True

    outside = ("O", "")
    start = [follows(outside, tag) for tag in tags]
    transitions = [[follows(before, after) for after in tags] for before in tags]
    end = [follows(tag, outside) for tag in tags]
    return start, transitions, end


def continues(names: Sequence[str], scheme: str) -> list[list[bool]]:
    """(C, C) table: `[i][j]` when label j right after label i goes on with the span i is in, as `spans` reads it."""
    tags = _members(names, scheme)
    return [[a in "BI" and b in "IE" and kind == other for b, other in tags] for a, kind in tags]


@dataclass(frozen=True)
class Labels:
    """The label names of a task, in the order of their indices; `scheme` is None for labels that mark no spans.

    `O`, where there is one, is first; the others are sorted. Raises `ValueError` for a name given twice.
    """

    names: tuple[str, ...]
    scheme: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(self.names))
        if len(self.index) < len(self.names):
            raise ValueError(f"a label name is given twice: {', '.join(self.names)}")
        if self.scheme is not None:
            _members(self.names, self.scheme)

    @classmethod
    def fit(cls, sequences: Iterable[Sequence[str]], *, scheme: str | None = None) -> Labels:
        """The labels of a corpus; plain labels, one an example, are one sequence: `Labels.fit([labels])`.

        With a scheme, a type that was seen gets every prefix of the scheme, for a CRF must be able to leave each span
        it enters, and a type seen only in long spans in training may well make short ones later.
        Raises `TagError` for a tag that is not of the scheme.
        """
        seen: set[str] = set()
        for sequence in sequences:
            if isinstance(sequence, str):
                raise TypeError(f"fit takes sequences of labels, and was given the label {sequence!r} for a sequence")
            seen.update(sequence)
        if scheme is None:
            return cls((*(["O"] if "O" in seen else []), *sorted(seen - {"O"})))
        types = sorted({kind for prefix, kind in _members(sorted(seen), scheme) if prefix != "O"})
        names = [f"{prefix}-{kind}" if kind else prefix for kind in types for prefix in _PREFIXES[scheme]]
        return cls(("O", *names), scheme)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def index(self) -> dict[str, int]:
        """Name to index."""
        return {name: position for position, name in enumerate(self.names)}

    def encode(self, sequence: Sequence[str]) -> list[int]:
        """The index of each label. Raises `TagError` for one that is not in the vocabulary."""
        index = self.index
        try:
            return [index[name] for name in sequence]
        except KeyError as error:
            name = error.args[0]
            known = ", ".join(self.names[:30]) + (", ..." if len(self.names) > 30 else "")
            raise TagError(f"label {name!r} is not in the training data; known labels: {known}", name) from None

    def decode(self, indices: Iterable[int]) -> list[str]:
        """The label of each index."""
        names = self.names
        return [names[position] for position in indices]

    def save(self, path: str | Path) -> None:
        """Write `labels.json`."""
        values = {"names": list(self.names), "scheme": self.scheme}
        Path(path).write_text(json.dumps(values, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Labels:
        """Read what `save` wrote. Raises `RunError` naming the file where it is missing or damaged."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise RunError(f"{path}: cannot read the labels: {error.strerror}") from None
        except ValueError as error:
            raise RunError(f"{path}: damaged; not valid JSON: {error}") from None
        names = values.get("names") if isinstance(values, dict) else None
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise RunError(f'{path}: damaged; expected {{"names": [label, ...], "scheme": name or null}}')
        scheme = values.get("scheme")
        if scheme is not None and scheme not in SCHEMES:
            raise RunError(f"{path}: scheme {scheme!r} is unknown; known are {', '.join(SCHEMES)}")
        try:
            return cls(tuple(names), scheme)
        except ValueError as error:
            raise RunError(f"{path}: damaged; {error}") from None
