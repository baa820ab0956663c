"""Tagged text: from wherever it is to rows of tokens and tags in the Arrow cache.

Rows are `tokens` and `tags`, the tags converted to the recipe's scheme. Reading is two passes of a stream, the first
to detect the scheme that tags are written in (left out where it is known), the second to convert and to write the
cache, so that memory does not grow with the corpus.
"""

from __future__ import annotations

import itertools
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from seqtext.data.cache import Write, cached, code, fingerprint
from seqtext.data.labels import Labels, TagError, detect_scheme, from_spans, read_tag, spans, split_tag
from seqtext.data.sources import MissingSplit, SourceData, Split
from seqtext.data.tagging_files import Check, Reader, open_reader
from seqtext.errors import DataError

if TYPE_CHECKING:
    import datasets

BATCH = 10_000
"""Sentences in memory at a time."""

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

    learned: ClassVar[frozenset[str]] = frozenset({"scheme"})


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


def read_tagging(data: TaggingData, split: Split) -> datasets.Dataset:
    """The sentences of a split, memory-mapped: `tokens` and `tags` (in `data.scheme`), lists of strings of one length.

    `dataset.info.description` says how it was read (`conll, IOB1 -> BIOES`). Sentences of no token are left out.
    Raises `DataError` for all that does not read as it should, and for a split that has no sentence or no entity.
    """
    return open_tagging(data, split).dataset


def open_tagging(data: TaggingData, split: Split) -> TaggingSplit:
    """As `read_tagging`, with the facts that were found."""
    reader = open_reader(data, split)
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
    key = fingerprint([*reader.paths, *code("tagging*", "labels", "records", "text")], settings)

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
