"""Readers of tagged text: CoNLL columns, JSON lines, hub datasets, NLTK corpora and the sample, all to one form.

Rows are `tokens` and `tags`, the tags converted to the recipe's scheme. Reading is two passes of a stream, the first
to detect the scheme that tags are written in (left out where it is known), the second to convert and to write the
cache, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from seqtext.data import sources
from seqtext.data.cache import Write, cached, code, fingerprint
from seqtext.data.labels import Labels, Span, TagError, detect_scheme, from_spans, read_tag, spans, split_tag
from seqtext.data.sources import MissingSplit, SourceData, Split
from seqtext.data.text import first_line, open_columns, open_json, open_text
from seqtext.errors import DataError

if TYPE_CHECKING:
    import datasets

BATCH = 10_000
"""Sentences in memory at a time."""
DOCSTART = "-DOCSTART-"
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")

Scheme = Literal["IO", "IOB1", "IOB2", "BIOES"]


class TaggingData(SourceData):
    """Tagged text: where it is, how it reads, and the scheme of the tags to learn."""

    format: Literal["auto", "conll", "jsonl"] = "auto"
    """How files read: `conll` columns, `jsonl` with tokens and tags, or text and entities; `auto` looks at the file."""
    separator: str | None = None
    """What stands between columns; by default any run of spaces and tabs."""
    token_column: int = 0
    """The column of the token, from 0; negative counts from the right."""
    tag_column: int = -1
    """The column of the tag, from 0; negative counts from the right."""
    comment: str = ""
    """Lines that begin with this are skipped; by default none are, since `#` is a token of many corpora."""
    input_scheme: Literal["auto", "IO", "IOB1", "IOB2", "BIOES"] = "auto"
    """The scheme the data is written in; `auto` detects it on the training data, for all splits."""
    scheme: Scheme = "BIOES"
    """The scheme that the tagger learns; tags are converted to it."""
    misaligned: Literal["error", "expand"] = "error"
    """What to do with an entity of character offsets that splits a token: an `error`, or `expand` to whole tokens."""
    tokens_field: str = "tokens"
    """The column of a hub dataset that holds the tokens."""
    tags_field: str = "ner_tags"
    """The column of a hub dataset that holds the tags, as strings or as class labels."""


class TaggingFacts(NamedTuple):
    """What was found in a split."""

    format: str
    """`conll`, `jsonl tokens`, `jsonl entities`, `hub`, `nltk` or `sample`."""
    input_scheme: str
    """The scheme the tags were written in, or `offsets` for entities given by characters."""
    scheme: str
    """The scheme they are in now."""
    sentences: int
    tokens: int
    entities: int
    fingerprint: str
    """Of the content and the settings it was read by."""

    def __str__(self) -> str:
        return f"{self.format}, {self.input_scheme} -> {self.scheme}"


class TaggingSplit(NamedTuple):
    dataset: datasets.Dataset
    """Columns `tokens` and `tags`, lists of strings of one length."""
    facts: TaggingFacts


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


def read_tagging(data: TaggingData, split: Split) -> datasets.Dataset:
    """The sentences of a split, memory-mapped: `tokens` and `tags` (in `data.scheme`), lists of strings of one length.

    `dataset.info.description` says how it was read (`conll, IOB1 -> BIOES`). Sentences of no token are left out.
    Raises `DataError` for all that does not read as it should, and for a split that has no sentence or no entity.
    """
    return open_tagging(data, split).dataset


def open_tagging(data: TaggingData, split: Split) -> TaggingSplit:
    """As `read_tagging`, with the facts that were found."""
    reader = _reader(data, split)
    strict = data.input_scheme != "auto" and reader.known is None
    scheme = reader.known or (data.input_scheme if strict else None)
    if scheme is None and split != "train":
        scheme = _train_scheme(data)
    settings = {
        "format": reader.format,
        "from": scheme,
        "strict": strict,
        "to": data.scheme,
        "columns": [data.separator, data.token_column, data.tag_column, data.comment],
        "misaligned": data.misaligned,
        **reader.settings,
    }
    key = fingerprint([*reader.paths, *code("tagging", "labels")], settings)

    import pyarrow as pa

    strings = pa.list_(pa.string())
    dataset, found = cached(
        key,
        schema=pa.schema([("tokens", strings), ("tags", strings)]),
        build=partial(_build, reader, scheme, strict, data.scheme),
        kind="tagging",
    )
    facts = TaggingFacts(**found, fingerprint=key)
    dataset.info.description = str(facts)
    return TaggingSplit(dataset, facts)


def _train_scheme(data: TaggingData) -> str | None:
    """The scheme of the training data; None where there is none, or it is not written in tags."""
    try:
        scheme = open_tagging(data, "train").facts.input_scheme
    except MissingSplit:
        return None
    return None if scheme == "offsets" else scheme


def _build(reader: Reader, scheme: str | None, strict: bool, target: str, write: Write) -> dict[str, Any]:
    if scheme is None:
        check = Check(reader.place, split_tag)
        try:
            scheme = detect_scheme(sentence.tags for sentence in reader.read(check))
        except TagError as error:
            raise (error if error.path else error.at(reader.place, check.lines.get(error.tag))) from None
    # A scheme that was stated is held to; one that was detected only has to read, which B, I, E and S all do.
    rule = partial(_in_scheme if strict else read_tag, scheme=scheme)
    counts = dict.fromkeys(("sentences", "tokens", "entities"), 0)
    sentences = reader.read(Check(reader.place, rule))
    while batch := list(itertools.islice(sentences, BATCH)):
        found = [spans(sentence.tags, scheme) for sentence in batch]
        tags = [from_spans(len(sentence.tags), here, target) for sentence, here in zip(batch, found)]
        write({"tokens": [sentence.tokens for sentence in batch], "tags": tags})
        counts["sentences"] += len(batch)
        counts["tokens"] += sum(map(len, tags))
        counts["entities"] += sum(map(len, found))
    if not counts["sentences"]:
        raise DataError("no sentence in it", path=reader.place)
    if not counts["entities"]:
        amount = f"{counts['sentences']:,} sentence" + ("s" if counts["sentences"] > 1 else "")
        raise DataError(f"no entity in {amount}: {reader.hint}", path=reader.place)
    written = "offsets" if reader.format == "jsonl entities" else scheme
    return {"format": reader.format, "input_scheme": written, "scheme": target, **counts}


def _in_scheme(tag: str, scheme: str) -> None:
    Labels((tag,), scheme)  # Raises where the scheme does not have the tag.


def _reader(data: TaggingData, split: Split) -> Reader:
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
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    is_json = suffix in JSON_SUFFIXES or (line.startswith("{") and line.rstrip().endswith("}"))
    if data.format == "conll" or (data.format == "auto" and not is_json):
        hint = f"is data.tag_column = {data.tag_column} right? the first line is {_first_row(path, data)!r}"
        return Reader(path, "conll", partial(_conll, path, data), [path], hint=hint)
    number, record = next(open_json(path))
    if "tokens" in record:
        return Reader(path, "jsonl tokens", partial(_json_tokens, path), [path], hint="every tag is O")
    if "text" in record:
        settings = {"nltk": importlib.metadata.version("nltk")}
        read = partial(_json_entities, path, data.misaligned == "expand")
        paths = [path, *code("tokenizer")]
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
