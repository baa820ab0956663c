"""Every form that tagged text comes in, read to one: CoNLL columns, JSON lines with tags or with character offsets, hub
datasets, NLTK corpora and the sample, a sentence at a time.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seqtext.data import sources
from seqtext.data.cache import code
from seqtext.data.labels import Span, TagError, from_spans
from seqtext.data.records import JSON_SUFFIXES, suffix_of
from seqtext.data.sources import Split
from seqtext.data.text import first_line, open_columns, open_json, open_text
from seqtext.errors import DataError

if TYPE_CHECKING:
    from seqtext.data.tagging import TaggingData

DOCSTART = "-DOCSTART-"


class Sentence(NamedTuple):
    tokens: list[str]
    tags: list[str]


class Check:
    """Checks each distinct tag once, and keeps the line where it first stands; `rule(tag)` raises `TagError`."""

    def __init__(self, place: str | Path, rule: Callable[[str], object]) -> None:
        self.place, self.rule = place, rule
        self.lines: dict[str, int] = {}

    def __call__(self, tag: str, line: int) -> None:
        if tag not in self.lines:
            try:
                self.rule(tag)
            except TagError as error:
                raise error.at(self.place, line) from None
            self.lines[tag] = line


class Reader(NamedTuple):
    """One split, ready to be read as often as needed."""

    place: str | Path
    """What messages call it."""
    format: str
    read: Callable[[Check], Iterator[Sentence]]
    paths: Sequence[Path]
    """The files that its content depends on."""
    known: str | None = None
    """The scheme, where the format fixes it."""
    hint: str = "every tag is O"
    """What to look at when there is no entity."""
    settings: Mapping[str, Any] = {}
    """What else its content depends on."""


def open_reader(data: TaggingData, split: Split) -> Reader:
    """What reads a split as the source has it. Raises `MissingSplit` where the source has no such split."""
    match sources.locate(data, split):
        case sources.Hub() as hub:
            return _hub_reader(hub, data, split)
        case sources.Nltk() as nltk:
            return _nltk_reader(nltk, split)
        case sources.Sample():
            read = partial(_sample, split)
            return Reader("sample", "sample", read, code("sample*"), "IOB2", settings={"split": split})
        case path:
            return _file_reader(path, data)


def _file_reader(path: Path, data: TaggingData) -> Reader:
    line = first_line(path)
    if line is None:
        raise DataError("no sentence: the file is empty or blank", path=path)
    is_json = suffix_of(path) in JSON_SUFFIXES or (line.startswith("{") and line.rstrip().endswith("}"))
    if data.format == "conll" or (data.format == "auto" and not is_json):
        hint = f"is data.tag_column = {data.tag_column} right? the first line is {_first_row(path, data)!r}"
        return Reader(path, "conll", partial(_conll, path, data), [path], hint=hint)
    number, record = next(open_json(path))
    if "tokens" in record:
        return Reader(path, "jsonl tokens", partial(_json_tokens, path), [path], hint="every tag is O")
    if "text" in record:
        settings = {"nltk": importlib.metadata.version("nltk")}
        read = partial(_json_entities, path, data.misaligned == "expand")
        paths = [path, *code("tokenizer*")]
        return Reader(path, "jsonl entities", read, paths, "IOB2", 'every "entities" is empty', settings)
    keys = ", ".join(map(repr, record)) or "none"
    expected = 'expected "tokens" and "tags", or "text" and "entities"'
    raise DataError(f"found keys {keys}; {expected}", path=path, line=number)


# CoNLL columns


def _conll(path: Path, data: TaggingData, check: Check) -> Iterator[Sentence]:
    """Sentences end at blank lines and at -DOCSTART- lines."""
    token_column, tag_column = data.token_column, data.tag_column
    known = check.lines
    tokens: list[str] = []
    tags: list[str] = []
    width = first = 0
    for number, columns in open_columns(path, separator=data.separator, comment=data.comment):
        if not columns or DOCSTART in columns:
            if tokens:
                yield Sentence(tokens, tags)
                tokens, tags = [], []
            continue
        if len(columns) != width:
            _check_width(columns, width, first, data, path, number)
            if not width:
                width, first = len(columns), number
        token, tag = columns[token_column], columns[tag_column]
        if not token:
            raise DataError(f"the token (column {token_column}) is empty", path=path, line=number)
        if tag not in known:
            check(tag, number)
        tokens.append(token)
        tags.append(tag)
    if tokens:
        yield Sentence(tokens, tags)


def _first_row(path: Path, data: TaggingData) -> str:
    rows = open_columns(path, separator=data.separator, comment=data.comment)
    return next((" ".join(columns) for _, columns in rows if columns and DOCSTART not in columns), "")


def _check_width(columns: list[str], width: int, first: int, data: TaggingData, path: Path, line: int) -> None:
    """Raises `DataError` unless a line has as many columns as it needs; `width` is that of the first, 0 for it."""
    token, tag, count = data.token_column, data.tag_column, len(columns)
    found = f"found {count} column" + ("" if count == 1 else "s")
    least = max(2, *(column + 1 if column >= 0 else -column for column in (token, tag)))
    settings = f"data.token_column = {token}, data.tag_column = {tag}"
    if count < least:
        expected = f"expected {width} as on line {first}" if width > least else f"expected at least {least}"
        hint = _comment_hint(columns, path, first, data)
        raise DataError(f"{found}, {expected} ({settings}){hint}", path=path, line=line)
    if token % count == tag % count:
        raise DataError(f"{found}, and token and tag are the same one ({settings})", path=path, line=line)
    if width and min(token, tag) < 0:
        # Counted from the right, the columns of a line of another width are other columns.
        advice = 'columns that hold spaces need data.separator = "\\t"; if widths rightly differ, count from the left'
        advice += _comment_hint(columns, path, first, data)
        raise DataError(f"{found}, expected {width} as on line {first}; {advice} ({settings})", path=path, line=line)


def _comment_hint(columns: list[str], path: Path, first: int, data: TaggingData) -> str:
    """What to add to a message where this line or the first one looks like a comment."""
    opening = next((line for number, line in open_text(path) if number == first), "") if first else ""
    if data.comment or not (opening.startswith("# ") or columns[0].startswith("#")):
        return ""
    return '; if lines that begin with # are comments, set data.comment = "#"'


# JSON lines


def _json_tokens(path: Path, check: Check) -> Iterator[Sentence]:
    for number, record in open_json(path):
        if not _is_empty(record.get("tokens"), record.get("tags")):
            yield _sentence(record.get("tokens"), record.get("tags"), check, number, names=("tokens", "tags"))


def _is_empty(tokens: object, tags: object) -> bool:
    return tokens == [] and tags == []


def _sentence(tokens: Any, tags: Any, check: Check, line: int, *, names: tuple[str, str]) -> Sentence:
    """Checked tokens and tags. Raises `DataError` where they are not lists of strings of one length."""
    for name, values in zip(names, (tokens, tags), strict=True):
        if not isinstance(values, list) or not all(isinstance(value, str) and value for value in values):
            problem = "is missing" if values is None else "is not a list of strings that are not empty"
            raise DataError(f'"{name}" {problem}', path=check.place, line=line)
    if len(tokens) != len(tags):
        raise DataError(f'{len(tokens)} "{names[0]}" and {len(tags)} "{names[1]}"', path=check.place, line=line)
    for tag in tags:
        check(tag, line)
    return Sentence(tokens, tags)


def _json_entities(path: Path, expand: bool, check: Check) -> Iterator[Sentence]:
    """Tokens and IOB2 tags of texts with character offsets; raises for split tokens at the end, having counted all."""
    from seqtext.data.tokenizer import split_words

    split: list[tuple[int, str]] = []
    for number, record in open_json(path):
        text, entities = record.get("text"), record.get("entities")
        if not isinstance(text, str) or not isinstance(entities, list):
            problem = '"text" is no string' if not isinstance(text, str) else '"entities" is no list'
            raise DataError(f"{problem}, or is missing", path=path, line=number)
        words = split_words(text)
        starts, ends = [start for _, start, _ in words], [end for _, _, end in words]
        found: list[Span] = []
        for index, entity in enumerate(entities):
            start, end, kind = _offsets(entity, index, text, path, number)
            # Words that the entity touches: an entity may begin or end in the space between words.
            span = Span(bisect_right(ends, start), bisect_left(starts, end), kind)
            name = f"entity {text[start:end]!r} ({kind}, characters {start} to {end})"
            if span.start >= span.end:
                raise DataError(f"{name} has no token in it", path=path, line=number)
            for word in (span.start, span.end - 1):
                if not expand and (starts[word] < start or ends[word] > end):
                    split.append((number, f"{name} splits the token {words[word][0]!r}"))
                    break
            found.append(span)
        found.sort()
        for before, after in itertools.pairwise(found):
            if after.start < before.end and not split:
                one, other = (text[starts[span.start] : ends[span.end - 1]] for span in (before, after))
                message = f"entities {one!r} ({before.type}) and {other!r} ({after.type}) overlap; a token has one tag"
                raise DataError(message, path=path, line=number)
        if words and not split:
            yield Sentence([word for word, _, _ in words], from_spans(len(words), found, "IOB2"))
    if split:
        line, message = split[0]
        count = len(split) - 1
        others = f"; so {'does 1 other entity' if count == 1 else f'do {count} other entities'} of this file"
        advice = 'mend the offsets, or set data.misaligned = "expand" to widen entities to whole tokens'
        raise DataError(f"{message}{others if count else ''}; {advice}", path=path, line=line)


def _offsets(entity: Any, index: int, text: str, path: Path, line: int) -> tuple[int, int, str]:
    """Start, end and type of an entity: `{"start", "end", "label" or "type"}` or `[start, end, label]`."""
    if isinstance(entity, dict):
        values = [entity.get("start"), entity.get("end"), entity.get("label", entity.get("type"))]
    else:
        values = entity if isinstance(entity, list) and len(entity) == 3 else [None] * 3
    start, end, kind = values
    if type(start) is not int or type(end) is not int or not isinstance(kind, str) or not kind:
        expected = '{"start": 0, "end": 5, "label": "PER"} or [0, 5, "PER"]'
        raise DataError(f"entity {index}: found {json.dumps(entity)[:80]}, expected {expected}", path=path, line=line)
    if not 0 <= start < end <= len(text):
        within = f"0 <= start < end <= {len(text)}, the characters of the text"
        raise DataError(f"entity {index}: start {start} and end {end} are not {within}", path=path, line=line)
    return start, end, kind


# Other sources


def _sample(split: Split, check: Check) -> Iterator[Sentence]:
    from seqtext.data.samples import ner_sample

    return (Sentence(tokens, tags) for tokens, tags in ner_sample(split))


def _hub_reader(hub: sources.Hub, data: TaggingData, split: Split) -> Reader:
    fields = (data.tokens_field, data.tags_field)
    dataset = sources.load_hub(hub, split)
    place = f"hub:{hub.name}"
    sources.check_fields(dataset, {"tokens_field": fields[0], "tags_field": fields[1]}, place=place)

    def read(check: Check) -> Iterator[Sentence]:
        for row, (tokens, tags) in enumerate(sources.hub_rows(dataset, fields), start=1):
            if not _is_empty(tokens, tags):
                yield _sentence(tokens, tags, check, row, names=fields)

    paths, settings = sources.hub_origin(dataset, fields)
    return Reader(place, "hub", read, paths, hint=f"is data.tags_field = {data.tags_field!r} right?", settings=settings)


def _nltk_reader(source: sources.Nltk, split: Split) -> Reader:
    corpus, name, paths = sources.load_nltk(source, split)
    place = f"nltk:{source.corpus}: {name}"
    if not hasattr(corpus, "iob_sents"):
        raise DataError("this corpus has no IOB tags; conll2000 and conll2002 do", path=place)

    def read(check: Check) -> Iterator[Sentence]:
        try:
            for number, sentence in enumerate(corpus.iob_sents(name), start=1):
                if sentence:
                    tokens, _, tags = map(list, zip(*sentence, strict=True))
                    yield _sentence(tokens, tags, check, number, names=("tokens", "tags"))
        except DataError:
            raise
        except ValueError as error:  # What NLTK's readers raise for text they cannot parse or decode.
            raise DataError(str(error), path=place) from None

    return Reader(place, "nltk", read, paths, settings={"file": name})
