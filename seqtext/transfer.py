"""Starting a model from a language model (Dai & Le 2015, "Semi-supervised Sequence Learning"; Howard & Ruder 2018).

The embedding is loaded row by row, for a new vocabulary mapped onto the old one; the recurrent layers matrix by matrix
into what reads forward. All that does not fit stays as it was drawn, and the report says why. This happens once, when
training starts: a run has its own weights from then on, and needs the language model's no more.
"""

from __future__ import annotations

import json
import re
import typing
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seqtext import run as runs
from seqtext.data.tokenizer import PAD, Tokenizer
from seqtext.errors import InputError, RunError
from seqtext.nn.cells import Cell
from seqtext.nn.embedding import WordEmbedding
from seqtext.nn.language_model import LanguageModel
from seqtext.nn.layers import recurrence
from seqtext.nn.rnn import Recurrent
from seqtext.nn.softmax import Softmax
from seqtext.run import Run
from seqtext.tasks import TASKS

KEY = "train.init_from"
UNITS = {"word": "words", "char": "characters", "bpe": "BPE pieces", "unigram": "unigram pieces"}
LEAST = 0.01
"""The share of the smaller of two vocabularies that the other must know."""
DIGIT = re.compile(r"\d")

INPUTS = "weight_ih_l0", "input.weight"
"""What the names of matrices of a cell's input end in."""
STARTS = {"initial", "forget_bias", "output_bias", "zoneout", "zoneout_memory"}
"""Options of cells that say how they start or train, and not what they compute."""

Facts = list[tuple[str, str]]
"""What became of each part of a model."""


@dataclass(frozen=True)
class Transferred:
    """An event before training starts: weights of a language model were loaded."""

    facts: Facts


@dataclass(frozen=True)
class Source:
    """A language model to start from."""

    run: Run
    tokenizer: Tokenizer
    module: LanguageModel
    about: str
    """Which it is, and how well it does."""


def open_source(folder: str | Path) -> Source:
    """The language model in a run folder. Raises `RunError` where there is none, or none that was trained."""
    try:
        run = runs.open_run(Path(folder).expanduser())
        if run.recipe.task is not TASKS["lm"]:
            raise RunError(f"{folder}: a run of the task {run.recipe.task.name}, where one of the task lm is expected")
        run.check_trainable()
        task: Any = run.task
        module = task.build(run.recipe.model)
        if not isinstance(module.encoder, Recurrent):
            raise RunError(f"{folder}: an echo state network, of which nothing but the read-out was trained")
        if module.feedback is not None:
            raise RunError(f"{folder}: a model with output recurrence, which reads more than words")
        if module.conditioning is not None:
            raise RunError(f"{folder}: conditioned on labels, which no other model is")
        about = runs.load_weights(run.folder, module)
        if about["step"] == "0":
            raise RunError(f"{folder}: not trained yet: no weights of it have been scored")
    except RunError as error:
        raise RunError(f"{KEY}: {error}") from None
    reached = f"step {int(about['step']):,}, valid perplexity {float(about['perplexity']):.2f}"
    return Source(run, task.tokenizer, module, f"{run.folder}: {reached}")


@torch.no_grad()
def start_from(source: Source, task: Any, module: nn.Module) -> Facts:
    """Load what fits of `source` into the untrained `module` of `task`, and say what became of each part.

    Raises `InputError` where the vocabularies have next to nothing in common, or nothing of the model fits.
    """
    facts: Facts = [("init_from", source.about)]
    embedding: Any = getattr(module, "embedding", None)
    if isinstance(module, LanguageModel):
        rows = matched(task.tokenizer, source)
        loaded, fact = _load_table(embedding, source, rows)
    elif isinstance(embedding, WordEmbedding):
        rows = matched(task.lexicon.words, source)
        if task.lexicon.config.vectors:
            loaded, fact = False, "stays as it is: beside pretrained vectors it holds only what is added to them"
        elif embedding.table is None:
            loaded, fact = False, "there is none: model.embedding.size is 0"
        else:
            loaded, fact = _load_table(embedding.table, source, rows)
    else:
        raise InputError(f"{KEY}: the model of the task {task.name} cannot start from a language model")
    facts.append(("embedding", fact))
    anything = loaded
    stack = recurrence(module)
    if stack is None:
        facts.append(("encoder", "stays random: it does not recur as a language model does"))
    else:
        old: Any = source.module.encoder
        some, found = _load_layers(stack, old, words=loaded)
        facts, anything = facts + found, anything or some
    if isinstance(module, LanguageModel):
        some, found = _load_output(module, source.module, rows)
        facts, anything = facts + found, anything or some
    if not anything:
        raise InputError(f"{KEY}: nothing of {source.run.folder} fits this model; {_wanted(source, task)}")
    return facts


class Rows(NamedTuple):
    """The rows of an old table that each entry of a new vocabulary starts from."""

    old: Tensor
    """(M,) int64: rows of the old table."""
    new: Tensor
    """(M,) int64: the entry that each is for."""
    plain: Tensor
    """(P,) int64: all rows of the old table but those of special entries."""
    size: int
    """Entries of the new vocabulary."""
    fact: str
    same: bool
    """Whether the two vocabularies are one."""

    def take(self, table: Tensor) -> Tensor:
        """table (V', ...) of the old vocabulary -> (V, ...): for each entry the mean of its rows, else that of all."""
        counts = self.new.bincount(minlength=self.size).view(-1, *[1] * (table.dim() - 1))
        sums = table.new_zeros(self.size, *table.shape[1:]).index_add_(0, self.new, table[self.old])
        return torch.where(counts > 0, sums / counts.clamp(min=1), table[self.plain].mean(0))


def matched(new: Tokenizer, source: Source) -> Rows:
    """Which rows of the language model the entries of the vocabulary `new` start from.

    A special entry starts from the same special one. Any other starts from the entry that is written alike, else from
    that which is written like it in lower case, with each digit as 0, or both; else from the mean of all that are
    written like it after the same has been done to them. An entry that has none starts from the mean of all.
    Raises `InputError` where their units differ, or too few are found.
    """
    old = source.tokenizer
    if new.unit != old.unit:
        raise InputError(
            f"{KEY}: vocabulary mismatch: {source.run.folder} is a model of {UNITS[old.unit]}, "
            f"which cannot start one of {UNITS[new.unit]}"
        )
    old_specials, new_specials = set(old.specials), set(new.specials)
    places = {token: row for row in range(old.size) if (token := old.token(row)) not in old_specials}
    folded = defaultdict(list)
    for token, row in places.items():
        folded[_fold(token)].append(row)
    pairs: list[tuple[int, int]] = []
    exact = alike = 0
    for entry in range(new.size):
        token = new.token(entry)
        if token in new_specials:
            pairs += [(old.id(token), entry)] if token in old_specials else []
        elif token in places:
            pairs.append((places[token], entry))
            exact += 1
        else:
            forms = (token.lower(), DIGIT.sub("0", token), _fold(token))
            found = next(([places[form]] for form in forms if form in places), folded.get(_fold(token), []))
            pairs += [(row, entry) for row in found]
            alike += bool(found)
    unit, entries = UNITS[new.unit], new.size - len(new_specials)
    if exact + alike < LEAST * min(entries, len(places)) or not exact + alike:
        raise InputError(
            f"{KEY}: vocabulary mismatch: {source.run.folder} knows {exact + alike:,} of the {entries:,} {unit} of the "
            f"training data; is it a model of another language?"
        )
    share = (exact + alike) / entries
    fact = f"{exact + alike:,} of {entries:,} {unit} ({share:.1%})"
    if alike:
        fact += f", {alike:,} of them by their form in lower case or with other digits"
    if exact + alike < entries:
        fact += f"; the others start at the mean of all {unit}"
    return Rows(
        old=torch.tensor([row for row, _ in pairs]),
        new=torch.tensor([entry for _, entry in pairs]),
        plain=torch.tensor(list(places.values())),
        size=new.size,
        fact=fact,
        same=[old.token(row) for row in range(old.size)] == [new.token(entry) for entry in range(new.size)],
    )


def _fold(token: str) -> str:
    """How words are told alike: in lower case, every digit a 0."""
    return DIGIT.sub("0", token.lower())


def _load_table(table: nn.Embedding, source: Source, rows: Rows) -> tuple[bool, str]:
    old = source.module.embedding.weight
    if table.embedding_dim != old.size(1):
        return False, f"stays random: {table.embedding_dim} features, the language model's {old.size(1)}"
    found = rows.take(old)
    if table.padding_idx is not None:
        found[PAD] = 0.0
    table.weight.copy_(found)
    return True, rows.fact


def _load_layers(new: Recurrent, old: Recurrent, *, words: bool) -> tuple[bool, Facts]:
    """Load the layers of `old` into the forward ones of `new`; `words`: whether their embedding was loaded."""
    facts: Facts = []
    anything, below = False, words
    cells: Any
    for depth, cells in enumerate(new.layers):
        name = f"encoder.layers.{depth}"
        if depth < len(old.layers):
            theirs: Any = old.layers[depth]
            rest = "those of characters and shapes" if depth == 0 else "those of the backward direction"
            below, fact = _load_cell(cells[0], theirs[0], below=below, rest=rest)
            anything = anything or below
        else:
            count = len(old.layers)
            fact = f"stays random: the language model has {count} layer{'s' if count > 1 else ''}"
        facts.append((f"{name} forward", fact))
        if new.directions == 2:
            facts.append((f"{name} backward", "stays random: a language model reads forward only"))
    return anything, facts


def _load_cell(new: Cell, old: Cell, *, below: bool, rest: str) -> tuple[bool, str]:
    """Load one cell. The features that it knows come first in the input of the new one, where `below` they are there.

    `rest` says what other features there are.
    """
    kinds = [_kind(cell) for cell in (new, old)]
    if kinds[0] != kinds[1]:
        return False, f"stays random: its cell is {kinds[0]}, the language model's {kinds[1]}"
    if new.hidden_size != old.hidden_size:
        return False, f"stays random: hidden size {new.hidden_size}, the language model's {old.hidden_size}"
    width, known = new.input_size, old.input_size
    mine, theirs = dict(new.named_parameters()), dict(old.named_parameters())
    rows = {name: parameter for name, parameter in mine.items() if name.endswith(INPUTS)}
    if mine.keys() != theirs.keys() or any(
        parameter.shape[: 1 if name in rows else None] != theirs[name].shape[: 1 if name in rows else None]
        for name, parameter in mine.items()
    ):
        return False, f"stays random: of {width} inputs, the language model's of {known}, its weights have other shapes"
    for name, parameter in mine.items():
        if name not in rows:
            parameter.copy_(theirs[name])
        elif below:
            parameter[:, :known] = theirs[name]
    if not below:
        return True, "recurrent matrix and biases loaded; what its input matrix reads was not, so that stays random"
    return True, "loaded" if width == known else f"loaded; {width - known} of {width} inputs stay random: {rest}"


def _kind(cell: Cell) -> str:
    """What a cell's weights are for, in words: its name and those of its options that say what it computes."""
    usual = cell.Options()
    told = [
        f"{key} = {json.dumps(value)}"
        for key, value in cell.options.model_dump().items()
        if key not in STARTS and value != getattr(usual, key)
    ]
    return f"{cell.name} with {', '.join(told)}" if told else cell.name


def _load_output(new: LanguageModel, old: LanguageModel, rows: Rows) -> tuple[bool, Facts]:
    """Load what a language model predicts words by."""
    facts: Facts = []
    anything = False
    if new.projection is not None:
        if old.projection is not None and new.projection.weight.shape == old.projection.weight.shape:
            new.projection.load_state_dict(old.projection.state_dict())
            facts.append(("projection", "loaded"))
            anything = True
        else:
            facts.append(("projection", "stays random: the language model has none of its size"))
    mine, theirs = new.softmax, old.softmax
    if isinstance(mine, Softmax) and isinstance(theirs, Softmax):
        mine.bias.copy_(rows.take(theirs.bias))
        if mine.weight is new.embedding.weight:
            fact = "biases loaded; its matrix is the embedding"
        elif mine.weight.size(1) != theirs.weight.size(1):
            sizes = f"{mine.weight.size(1)} features, the language model's {theirs.weight.size(1)}"
            fact = f"biases loaded; its matrix stays random: {sizes}"
        else:
            mine.weight.copy_(rows.take(theirs.weight))
            fact, anything = "loaded, with the rows of the embedding", True
    elif rows.same and _shapes(mine) == _shapes(theirs):
        mine.load_state_dict(theirs.state_dict())
        fact, anything = "loaded", True
    else:
        fact = "stays random: clusters of an adaptive softmax are loaded for the same vocabulary and cutoffs only"
    return anything, [*facts, ("softmax", fact)]


def _shapes(module: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in module.state_dict().items()}


def _wanted(source: Source, task: Any) -> str:
    """The settings by which a recipe of `task` has the sizes of the language model."""
    model, fields = source.run.recipe.model, task.Model.model_fields
    encoder = fields["encoder"].annotation
    schemas = typing.get_args(encoder) or (encoder,)  # of a choice: that of recurrent layers is the first
    schema: Any = (typing.get_args(schemas[0]) or schemas)[0]
    cell = "cell" if "cell" in schema.model_fields else "name"
    sizes = [f"model.embedding{'_' if 'embedding_size' in fields else '.'}size={model.embedding_size}"]
    sizes += [f"model.encoder.{cell}={model.encoder.cell}", f"model.encoder.hidden_size={model.encoder.hidden_size}"]
    if model.encoder.last_size is not None and model.encoder.layers > 1:
        sizes += [f"model.encoder.layers={model.encoder.layers}", f"model.encoder.last_size={model.encoder.last_size}"]
    elif model.encoder.last_size is not None:
        sizes[-1] = f"model.encoder.hidden_size={model.encoder.last_size}"
    vectors = hasattr(task, "lexicon") and task.lexicon.config.vectors
    return f"its sizes are {' '.join(sizes)}" + (", without data.words.vectors" if vectors else "")
