"""The tasks, by the name a recipe gives: one class in one file and one line here.

A task is imported when it is asked for: all of them together take longer than to tag a page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

PLACES = {
    "ner": "ner.Ner",
    "sentiment": "sentiment.Sentiment",
    "lm": "lm.Lm",
    "translation": "translation.TranslationTask",
    "tree-sentiment": "tree_sentiment.TreeSentiment",
    "memory": "memory.Memory",
}
"""Module and class."""


class _Tasks(Mapping[str, type[Any]]):
    """The classes of `PLACES`."""

    def __getitem__(self, name: str) -> type[Any]:
        module, _, kind = PLACES[name].partition(".")
        found: type[Any] = getattr(import_module(f"{__name__}.{module}"), kind)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(PLACES)

    def __len__(self) -> int:
        return len(PLACES)


TASKS: Mapping[str, type[Any]] = _Tasks()
