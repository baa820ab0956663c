"""Where trees come from, read to one form: files in brackets, NLTK's treebanks and the sample, a tree at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from seqtext.data import sources
from seqtext.data.brackets import Check, Tree, parse_trees, read_trees
from seqtext.data.cache import code
from seqtext.data.records import suffix_of
from seqtext.data.sources import Split
from seqtext.data.tree_shapes import prune
from seqtext.errors import DataError

if TYPE_CHECKING:
    from seqtext.data.trees import TreesData

TRACE = "-NONE-"
"""The label of what the Treebank marks and nobody said: traces and other empty words."""
FUNCTION = re.compile("[-=|]")


class Reader(NamedTuple):
    """One split as the source has it, ready to be read as often as needed."""

    place: str | Path
    """What messages call it."""
    format: str
    """`brackets`, `nltk` or `sample`."""
    read: Callable[[Check | None], Iterator[Tree]]
    paths: Sequence[Path]
    """The files that its content depends on."""
    settings: Mapping[str, Any]


def open_reader(data: TreesData, split: Split) -> Reader:
    """What reads a split as the source has it. Raises `MissingSplit` where the source has no such split."""
    match sources.locate(data, split):
        case sources.Hub() as hub:
            raise DataError("trees are not read from hub datasets; save them in brackets", path=f"hub:{hub.name}")
        case sources.Nltk() as nltk:
            return _nltk_reader(nltk, split)
        case sources.Sample():
            paths = code("tree_sample", "sample_words")
            return Reader("sample", "sample", partial(_sample, split), paths, {"sample": split})
        case path:
            penn = suffix_of(path) == ".mrg"
            return Reader(path, "brackets", partial(_file, path, penn), [path], {"penn": penn})


def _file(path: Path, penn: bool, check: Check | None) -> Iterator[Tree]:
    for _, tree in read_trees(path, check=check):
        if kept := _cleaned(tree) if penn else tree:
            yield kept


def _cleaned(tree: Tree) -> Tree | None:
    """A tree of the Penn Treebank without traces and functional tags; None where all its words are traces."""
    pruned = prune(tree, TRACE)
    return pruned and pruned._replace(labels=[_category(label) for label in pruned.labels])


@cache
def _category(label: str) -> str:
    """NP of `NP-SBJ-1`, `NP=2` and `NP|ADJP`; `-LRB-`, which begins with the mark, stays whole."""
    return FUNCTION.split(label, maxsplit=1)[0] or label


def _sample(split: Split, check: Check | None) -> Iterator[Tree]:
    from seqtext.data.tree_sample import tree_sample

    for number, tree in enumerate(tree_sample(split), start=1):
        for label in set(tree.labels) if check else ():
            if check and (fault := check(label)):
                raise DataError(fault, path="sample", line=number)
        yield tree


def _nltk_reader(source: sources.Nltk, split: Split) -> Reader:
    """A corpus of bracketed files, such as treebank: it is training data as a whole."""
    from nltk.corpus.reader import BracketParseCorpusReader

    corpus, place, ids = sources.open_nltk(source)
    if not isinstance(corpus, BracketParseCorpusReader):
        raise DataError("this corpus has no bracketed trees; treebank has", path=place)
    ours = sources.unsplit_files(source, ids, split, place=place)

    def read(check: Check | None) -> Iterator[Tree]:
        for name in ours:
            file = f"{place}: {name}"
            try:
                lines = enumerate(corpus.raw(name).split("\n"), start=1)
            except ValueError as error:  # What NLTK's readers raise for text they cannot decode.
                raise DataError(str(error), path=file) from None
            for _, tree in parse_trees(lines, file, check=check):
                if kept := _cleaned(tree):
                    yield kept

    return Reader(place, "nltk", read, sources.nltk_files(corpus, ours), {"files": ours})
