"""Running text as lines: plain files, JSON lines, Parquet, hub datasets, NLTK corpora and the sample, all to one form.

A row is one line in a column `text`, without the spaces at its ends. Every line end stands for an `<eos>` later on (the
convention of the Penn Treebank; see `stream`). Reading streams and writes the cache in bounded batches, so that memory
does not grow with the corpus; only a single line has to fit into it.

Texts with a label each (`data.label_field`) are documents that stand apart: a row is one of them, with its label in a
column `label`, and the readers are those of `classification`.

Where a text has no validation or test part, its last lines may be held out for them (`data.hold_out`): views of the
one memory-mapped text, in its order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import Field, ValidationError, model_validator

from seqtext.data import sources
from seqtext.data.cache import Write, cached, code, fingerprint
from seqtext.data.classification import ClassificationData, read_classification
from seqtext.data.records import JSON_SUFFIXES, open_records, string, suffix_of
from seqtext.data.sources import MissingSplit, SourceData, Split, held_parts
from seqtext.data.text import open_text, refuse_nul
from seqtext.data.tokenizer import TokenizerConfig
from seqtext.errors import DataError

if TYPE_CHECKING:
    import datasets

BATCH_LINES = 10_000
BATCH_CHARACTERS = 4_000_000
"""A batch of rows ends at whichever comes first."""
LONGEST = 100_000
"""Characters of the longest row; a longer line is cut at spaces."""
LOOKED_AT = 2_000
"""Lines of the training text that tell whether it is already tokenised."""
APART = 0.95
"""The share of punctuation marks that stand apart, in a text that is already tokenised."""
MARKS = frozenset(',;?!"()')

Line = tuple[int, str]  # number, from 1, in the file or of the row; and text


class CorpusData(SourceData):
    """Text to model: where it is, how it reads, and what its entries are."""

    format: Literal["auto", "text", "jsonl", "parquet", "csv", "tsv", "folder", "trees"] = "auto"
    """How files read; `auto` goes by the name: .jsonl, .ndjson and .json, .parquet, and all else is plain text. With a
    `label_field` there are no plain texts but csv, tsv, a folder a class, and trees, as the task sentiment has them."""
    text_field: str = "text"
    """The field of JSON lines, or the column of Parquet files and hub datasets, that holds the text."""
    label_field: str | None = None
    """The column or key of a label: each text is then a document by itself, which is read from its own beginning, and
    its label may condition the model (`model.condition`). `sample` is that of the task sentiment."""
    separator: str | None = None
    """With a `label_field`: what stands between columns; by default a comma in CSV and a tab in TSV."""
    quotes: bool = True
    """With a `label_field`: fields of CSV and TSV in double quotes may hold separators and line ends."""
    blank_lines: bool = False
    """Keep blank lines, each of them an <eos> by itself (the convention of WikiText); by default they are dropped."""
    pretokenized: Literal["auto", "yes", "no"] = "auto"
    """Whether words are what stands between spaces (`yes`), or raw text is split by the Treebank's rules (`no`);
    `auto` looks at the first lines of the training text, for all splits. Only the unit `word` reads it."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """What the entries of the model are: words, characters or pieces."""
    hold_out: float = Field(default=0.0, ge=0.0, lt=0.5)
    """Share of the lines of the training text held out for validation where there is no other text for it, and as much
    again for test. A text has an order, so they are its end: the test part last, the validation part before it; of
    labelled texts they are drawn, stratified."""

    learned: ClassVar[frozenset[str]] = frozenset({"pretokenized", "tokenizer"})

    @model_validator(mode="after")
    def _columns(self) -> Self:
        if self.label_field is not None:
            if self.format == "text":
                raise ValueError('format "text" has no labels: leave label_field out, or give the format of the files')
            if self.blank_lines:
                raise ValueError("blank_lines: a document with a label is one row, and no row is blank")
            try:
                self.labelled()
            except ValidationError as error:
                raise ValueError(error.errors()[0]["msg"].removeprefix("Value error, ")) from None
            return self
        if self.format in ("csv", "tsv", "folder", "trees"):
            raise ValueError(f'format "{self.format}" is one of labelled texts: name their label by label_field')
        for name in ("separator", "quotes"):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name}: only tables of labelled texts have it: name their label by label_field")
        return self

    def labelled(self) -> ClassificationData:
        """The same for the reader of labelled texts."""
        keys = [*SourceData.model_fields, "format", "text_field", "label_field", "separator", "quotes", "hold_out"]
        return ClassificationData(**{key: getattr(self, key) for key in keys})

    def uncut(self) -> Self:
        return self.model_copy(update={"hold_out": 0.0})

    def part(self, split: Split) -> str:
        if self.label_field is not None:
            return self.labelled().part(split)
        parts = held_parts(split, self.hold_out, partial(_reader, self))
        return f"{split} (hold_out {self.hold_out})" if parts else split


class CorpusFacts(NamedTuple):
    """What was found in a split."""

    format: str
    """`text`, `jsonl`, `parquet`, `hub`, `nltk` or `sample`."""
    lines: int
    characters: int
    """Of all lines, each line end counted as one."""
    pretokenized: bool
    """Whether its words are what stands between spaces: what the recipe says, or else what the training text shows."""
    fingerprint: str
    """Of the content and the settings it was read by."""

    def __str__(self) -> str:
        return f"{self.format}, {'already tokenised' if self.pretokenized else 'raw text'}"


class CorpusSplit(NamedTuple):
    dataset: datasets.Dataset
    """One column, `text`: a line a row."""
    facts: CorpusFacts


class Reader(NamedTuple):
    """One split, ready to be read."""

    place: str | Path
    """What messages call it."""
    format: str
    read: Callable[[], Iterator[Line]]
    paths: Sequence[Path]
    """The files that its content depends on."""
    settings: Mapping[str, Any]


def read_corpus(data: CorpusData, split: Split) -> datasets.Dataset:
    """A split with the column `text`, one row a line, memory-mapped; with `data.label_field` one row a document, and a
    column `label` beside it.

    A line longer than `LONGEST` characters (running text without line ends) is cut at spaces into rows of at most that.
    Raises `MissingSplit` where there is no such split and none is held out, and `DataError` with file and line (or row)
    where text is missing, not UTF-8, has a NUL character in it, or is blank altogether, and where it has too few lines
    for what is held out.
    """
    if data.label_field is not None:
        return read_classification(data.labelled(), split)
    return open_corpus(data, split).dataset


def open_corpus(data: CorpusData, split: Split) -> CorpusSplit:
    """As `read_corpus`, with the facts that were found."""
    import pyarrow as pa

    if parts := held_parts(split, data.hold_out, partial(_reader, data)):
        return _open_part(data, split, parts)
    try:
        reader = _reader(data, split)
    except MissingSplit as error:
        if split == "train":
            raise
        advice = "data.hold_out = 0.1 takes the last tenth of the training text for it"
        raise MissingSplit(f"{error}; {advice}") from None
    settings = {"format": reader.format, "blank_lines": data.blank_lines, **reader.settings}
    key = fingerprint([*reader.paths, *code("corpus", "corpus_sample", "records", "text")], settings)
    dataset, found = cached(
        key,
        schema=pa.schema([("text", pa.string())]),
        build=partial(_build, reader, data.blank_lines),
        kind="corpus",
    )
    tokenized = found.pop("tokenized")
    if data.pretokenized != "auto":
        tokenized = data.pretokenized == "yes"
    elif split != "train":
        tokenized = _train_is_tokenized(data, tokenized)
    facts = CorpusFacts(**found, pretokenized=tokenized, fingerprint=key)
    dataset.info.description = str(facts)
    return CorpusSplit(dataset, facts)


def is_pretokenized(data: CorpusData, train: datasets.Dataset) -> bool:
    """Whether the words of a training text are what stands between spaces: what `data` says, or what the text shows."""
    if data.pretokenized == "auto":
        return is_tokenized(train[:LOOKED_AT]["text"])
    return data.pretokenized == "yes"


def is_tokenized(lines: Iterable[str]) -> bool:
    """Whether a text is already tokenised, by its first `LOOKED_AT` lines.

    It is where some word is `<unk>`, or where at least `APART` of the marks , ; ? ! " ( ) and of the full stops at line
    ends stand apart: are no beginning or end of a longer word. A text without any such mark counts as raw.
    """
    apart = attached = 0
    for line in islice(lines, LOOKED_AT):
        words = line.split()
        if "<unk>" in words:
            return True
        for word in words:
            if word[0] in MARKS or word[-1] in MARKS:
                if all(character in MARKS for character in word):
                    apart += 1
                else:
                    attached += 1
        if words and words[-1].endswith("."):
            apart, attached = (apart + 1, attached) if words[-1] == "." else (apart, attached + 1)
    return apart > 0 and apart >= APART * (apart + attached)


def _open_part(data: CorpusData, split: Split, parts: tuple[Split, ...]) -> CorpusSplit:
    """A part of the training text: a view of its rows."""
    import pyarrow.compute as pc

    whole, facts = open_corpus(data.uncut(), "train")
    held = round(facts.lines * data.hold_out)
    sizes = {other: held for other in parts[1:]}
    sizes["train"] = facts.lines - sum(sizes.values())
    if not all(sizes.values()):
        none, lines = next(other for other in parts if not sizes[other]), "line" if facts.lines == 1 else "lines"
        message = f"data.hold_out = {data.hold_out} leaves nothing for {none}: the text has {facts.lines:,} {lines}"
        raise DataError(message, path=_reader(data, "train").place)
    first = sum(sizes[other] for other in parts[: parts.index(split)])
    dataset = whole.select(range(first, first + sizes[split]))
    dataset._fingerprint = key = fingerprint([], {"whole": facts.fingerprint, "first": first, "size": sizes[split]})
    chunks = dataset.data.column("text").chunks  # each by itself, for the lengths of all lines may not fit in memory
    characters = sum(pc.sum(pc.utf8_length(chunk)).as_py() or 0 for chunk in chunks) + sizes[split]
    # What the training part shows, as a reader of that part alone would find.
    tokenized = is_pretokenized(data, whole.select(range(min(sizes["train"], LOOKED_AT))))
    facts = facts._replace(lines=sizes[split], characters=characters, pretokenized=tokenized, fingerprint=key)
    dataset.info.description = f"{facts}, cut from the training text"
    return CorpusSplit(dataset, facts)


def _train_is_tokenized(data: CorpusData, otherwise: bool) -> bool:
    try:
        return open_corpus(data, "train").facts.pretokenized
    except MissingSplit:
        return otherwise


def _build(reader: Reader, blank_lines: bool, write: Write) -> dict[str, Any]:
    rows: list[str] = []
    first: list[str] = []
    lines = characters = held = 0
    for text in _rows(reader, blank_lines):
        rows.append(text)
        held += len(text)
        if len(rows) == BATCH_LINES or held >= BATCH_CHARACTERS:
            write({"text": rows})
            lines, characters = lines + len(rows), characters + held
            first += rows[: max(0, LOOKED_AT - len(first))]
            rows, held = [], 0
    if rows:
        write({"text": rows})
    lines, characters = lines + len(rows), characters + held
    first += rows[: max(0, LOOKED_AT - len(first))]
    if not characters:
        raise DataError("no text: it is empty or blank", path=reader.place)
    found = {"format": reader.format, "lines": lines, "characters": characters + lines}
    return {**found, "tokenized": is_tokenized(first)}


def _rows(reader: Reader, blank_lines: bool) -> Iterator[str]:
    """Checked lines; a text of several lines (a field of JSON, say) is as many rows."""
    for number, text in reader.read():
        refuse_nul(text, path=reader.place, line=number, what="line")
        for line in text.removesuffix("\n").split("\n") if "\n" in text else [text]:
            line = line.strip()
            if line or blank_lines:
                yield from _short(line) if len(line) > LONGEST else [line]


def _short(line: str) -> Iterator[str]:
    """A long line in pieces, cut at the last space that leaves at most `LONGEST` characters, if there is one."""
    first = 0
    while len(line) - first > LONGEST:
        last = line.rfind(" ", first + 1, first + LONGEST + 1)
        last = last if last > 0 else first + LONGEST
        yield line[first:last].rstrip()
        first = last
        while line[first].isspace():  # the last character of a line is no space
            first += 1
    yield line[first:]


# Sources


def _reader(data: CorpusData, split: Split) -> Reader:
    match sources.locate(data, split):
        case sources.Hub() as hub:
            return _hub_reader(hub, data, split)
        case sources.Nltk() as nltk:
            return _nltk_reader(nltk, split)
        case sources.Sample():
            from seqtext.data.corpus_sample import corpus_sample, sample_fingerprint

            read = partial(_numbered, corpus_sample(split))
            return Reader("sample", "sample", read, [], {"split": split, "text": sample_fingerprint()})
        case path:
            return _file_reader(path, data)


def _numbered(texts: Iterable[str]) -> Iterator[Line]:
    return enumerate(texts, start=1)


def _file_reader(path: Path, data: CorpusData) -> Reader:
    suffix = suffix_of(path)
    by_name = "jsonl" if suffix in JSON_SUFFIXES else "parquet" if suffix == ".parquet" else "text"
    chosen = by_name if data.format == "auto" else data.format
    if chosen == "text":
        return Reader(path, chosen, partial(open_text, path), [path], {})
    read = partial(_strings, path, chosen, data.text_field)
    return Reader(path, chosen, read, [path], {"field": data.text_field})


def _strings(path: Path, form: str, field: str) -> Iterator[Line]:
    for number, (value,) in open_records(path, form, {"text_field": field}):
        yield number, string(value, field, path, number)


def _hub_reader(hub: sources.Hub, data: CorpusData, split: Split) -> Reader:
    field = data.text_field
    dataset = sources.load_hub(hub, split)
    place = f"hub:{hub.name}"
    sources.check_fields(dataset, {"text_field": field}, place=place)

    def read() -> Iterator[Line]:
        for row, (value,) in enumerate(sources.hub_rows(dataset, [field]), start=1):
            yield row, string(value, field, place, row)

    paths, settings = sources.hub_origin(dataset, [field])
    return Reader(place, "hub", read, paths, settings)


def _nltk_reader(source: sources.Nltk, split: Split) -> Reader:
    """Sentences, a line each, words parted by spaces, where the corpus has them marked; else its raw lines."""
    corpus, name, paths = sources.load_nltk(source, split)
    place = f"nltk:{source.corpus}: {name}"

    def read() -> Iterator[Line]:
        from nltk.corpus.reader import PlaintextCorpusReader

        try:
            if isinstance(corpus, PlaintextCorpusReader):
                yield from _numbered(re.split(r"\r?\n", corpus.raw(name)))
            elif hasattr(corpus, "sents"):
                yield from _numbered(" ".join(sentence) for sentence in corpus.sents(name))
            else:
                raise DataError("this corpus has neither sentences nor plain text", path=place)
        except ValueError as error:  # What NLTK's readers raise for text they cannot parse or decode.
            raise DataError(str(error), path=place) from None

    return Reader(place, "nltk", read, paths, {"file": name})
