"""The tasks, by the name a recipe gives: one class in one file and one line here."""

from __future__ import annotations

from typing import Any

from seqtext.tasks.lm import Lm
from seqtext.tasks.memory import Memory
from seqtext.tasks.ner import Ner
from seqtext.tasks.sentiment import Sentiment
from seqtext.tasks.translation import TranslationTask
from seqtext.tasks.tree_sentiment import TreeSentiment

TASKS: dict[str, type[Any]] = {
    "ner": Ner,
    "sentiment": Sentiment,
    "lm": Lm,
    "translation": TranslationTask,
    "tree-sentiment": TreeSentiment,
    "memory": Memory,
}
