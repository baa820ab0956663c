"""The nearest neighbours of a word among a run's vocabulary, by the cosine of their vectors."""

from __future__ import annotations

import difflib
from typing import Any, Literal, NamedTuple

import pyarrow as pa
import torch
from torch import Tensor, nn

from seqtext.data.tokenizer import UNKNOWN, Tokenizer
from seqtext.errors import InputError
from seqtext.model import Model
from seqtext.nn.embedding import WordEmbedding
from seqtext.task import TranslatingTask


class Neighbours(NamedTuple):
    """A word, and those nearest to it, nearest first."""

    word: str
    found: list[tuple[str, float]]
    """Each with its cosine, from -1 to 1."""

    def record(self) -> dict[str, Any]:
        nearest = [{"word": word, "cosine": round(cosine, 4)} for word, cosine in self.found]
        return {"word": self.word, "neighbours": nearest}


def inspect_embeddings(
    model: Model, words: list[str], *, k: int = 10, side: Literal["source", "target"] | None = None
) -> list[Neighbours]:
    """The `k` nearest neighbours of each word; of a translator, on this `side`, or the source's.

    A word's vector is its row of the embedding table and its pretrained vector, without what is read of its letters;
    of a model of pieces or characters the vocabulary has those. Raises `InputError` for a word that the run does not
    know, for a model that has no vectors of whole words, and for a side where there is one vocabulary.
    """
    if k < 1:
        raise InputError(f"--k {k}: expected 1 or more")
    tokenizer, vectors = _vectors(model, side)
    size, count = tokenizer.size, len(tokenizer.specials)
    vectors = nn.functional.normalize(vectors.double(), dim=1)  # (V, E)
    vectors[:count] = 0.0
    result = []
    for word in words:
        id = _known(model, tokenizer, word)
        cosines = vectors @ vectors[id]
        cosines[:count], cosines[id] = -2.0, -2.0
        best = cosines.topk(min(k, max(0, size - count - 1)))
        nearest = [
            (tokenizer.token(other), cosine) for cosine, other in zip(best.values.tolist(), best.indices.tolist())
        ]
        result.append(Neighbours(word, nearest))
    return result


def _known(model: Model, tokenizer: Tokenizer, word: str) -> int:
    """The id of a word. Raises `InputError`, with words that are written alike."""
    entries = _entries(tokenizer)
    if tokenizer.unit == "word":
        (id,) = tokenizer.encode_words([word])
        if id != UNKNOWN:
            return id
    else:  # a piece that begins a word, before one that goes on with it
        for entry in (f"▁{word}", word):
            if entry in entries:
                return entries[entry]
    near = difflib.get_close_matches(word, entries, n=3)
    hint = f"; written alike: {', '.join(near)}" if near else ""
    unit = "words" if tokenizer.unit == "word" else f"{tokenizer.unit} entries"
    size = tokenizer.size - len(tokenizer.specials)
    raise InputError(f"{model.run.folder}: '{word}' is not among the {size:,} {unit} of this run{hint}")


def _entries(tokenizer: Tokenizer) -> dict[str, int]:
    return {tokenizer.token(id): id for id in range(len(tokenizer.specials), tokenizer.size)}


def _vectors(model: Model, side: str | None) -> tuple[Tokenizer, Tensor]:
    """The vocabulary, and a vector (V, E) for each of its entries."""
    task: Any = model.task
    module: Any = model.module
    two = isinstance(task, TranslatingTask)
    if side is not None and not two:
        raise InputError(f"--side {side}: {model.run.folder} is a run of the task {task.name}, with one vocabulary")
    with torch.no_grad():
        if two:
            one = task.target if side == "target" else task.source
            table = module.target_embedding if side == "target" else module.source_embedding
            return one, table.weight.detach().float().cpu()
        if not hasattr(module, "embedding"):
            raise InputError(f"{model.run.folder}: this run of the task {task.name} has no vectors of words")
        if not isinstance(module.embedding, WordEmbedding):
            return task.tokenizer, module.embedding.weight.detach().float().cpu()
        embedding: WordEmbedding = module.embedding
        if embedding.table is None:
            raise InputError(
                f"{model.run.folder}: a word of this model is its letters alone (model.embedding.size = 0)"
            )
        tokenizer = task.lexicon.words
        types = task.lexicon.encode(pa.array([tokenizer.token(id) for id in range(tokenizer.size)]))
        given = None if types.vectors is None else torch.from_numpy(types.vectors).to(model.device)
        ids = torch.arange(tokenizer.size, device=model.device)
        return tokenizer, embedding.meanings(
            ids, given, torch.from_numpy(types.pretrained).to(model.device)
        ).float().cpu()
