"""Modules as functions of plain tensors with names, which is what an ONNX graph is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from seqtext.data.lexicon import SHAPES
from seqtext.exporting.viterbi import LABELS
from seqtext.nn.classifier import Classifier, Windows
from seqtext.nn.cnn import CNN
from seqtext.nn.embedding import WordEmbedding, Words
from seqtext.nn.language_model import LanguageModel
from seqtext.tasks.lm import Lm
from seqtext.tasks.ner import Ner
from seqtext.tasks.sentiment import Sentiment

WORD_INPUTS = {
    "words": "(batch, time) int64: ids of tokenizer.json, of words as its normalizer writes them; 1 where unknown",
    "characters": "(batch, time, characters) int64: ids of characters.json of each word, 0 after its last; "
    "of a longer word than {most} characters its first and last {half}",
    "shapes": f"(batch, time) int64: letter shape, an index into {', '.join(SHAPES)}",
    "vectors": "(batch, time, features) float32: the pretrained vector of each word, zeros where there is none",
    "pretrained": "(batch, time) bool: whether there is a pretrained vector",
    "lengths": "(batch) int64: words of each text, at least 1",
}


class Graph(nn.Module):
    """Base: a module, what goes into it and what comes out."""

    inputs: dict[str, str]
    """What each is, by name, in order."""
    outputs: dict[str, str]

    def example(self, batch: int, time: int, generator: torch.Generator) -> dict[str, Tensor]:
        """Random inputs, by their names."""
        raise NotImplementedError

    def axes(self, name: str) -> tuple[str, ...]:
        """The axes of an input that may have any size, from the first on."""
        return ("batch",) if name == "lengths" else ("batch", "time")


class WordsGraph(Graph):
    """What reads words: each position has all that is known of its word, not each type once."""

    def __init__(self, module: Any, task: Ner | Sentiment) -> None:
        super().__init__()
        self.module, self.embedding = module, module.embedding
        embedding: WordEmbedding = module.embedding
        read = {
            "words": embedding.table is not None,
            "characters": embedding.characters is not None,
            "shapes": embedding.shapes is not None,
            "vectors": task.lexicon.vector_size > 0,
            "pretrained": task.lexicon.vector_size > 0,
            "lengths": True,
        }
        most = task.lexicon.config.max_characters
        told = {name: text.format(most=most, half=most // 2) for name, text in WORD_INPUTS.items()}
        self.inputs = {name: told[name] for name, given in read.items() if given}
        self.vector_size = task.lexicon.vector_size
        self.characters = task.lexicon.characters.size
        # So much padding more, so that no text is shorter than a filter that must lie within it.
        filters = [part for part in module.modules() if isinstance(part, CNN) and part.padding == "valid"]
        self.margin = max((max(part.widths) - 1 for part in filters), default=0)

    def axes(self, name: str) -> tuple[str, ...]:
        return ("batch", "time", "characters") if name == "characters" else super().axes(name)

    def example(self, batch: int, time: int, generator: torch.Generator) -> dict[str, Tensor]:
        def numbers(high: int, *shape: int) -> Tensor:
            return torch.randint(1, high, shape, generator=generator)

        letters = numbers(6, batch, time, 1)  # of each word
        characters = numbers(self.characters, batch, time, 5).masked_fill(torch.arange(5) >= letters, 0)
        lengths = numbers(time + 1, batch)
        lengths[-1] = time
        table = self.embedding.table
        every = {
            "words": numbers(table.num_embeddings if table is not None else 2, batch, time),
            "characters": characters,
            "shapes": numbers(len(SHAPES), batch, time),
            "vectors": torch.randn(batch, time, self.vector_size, generator=generator),
            "pretrained": numbers(3, batch, time) == 1,
            "lengths": lengths,
        }
        return {name: every[name] for name in self.inputs}

    def gathered(self, given: dict[str, Tensor]) -> Words:
        """The words of a batch, each position a type of its own."""
        some = next(iter(given.values()))
        batch, time = some.shape[:2]
        count = batch * time
        none = torch.zeros(count, dtype=torch.int64)
        flat = {name: value.flatten(0, 1) for name, value in given.items() if name != "lengths"}
        return Words(
            positions=nn.functional.pad(torch.arange(count).view(batch, time), (0, self.margin)),
            ids=flat.get("words", none),
            characters=(flat["characters"],) if "characters" in flat else (),
            shapes=flat.get("shapes", none),
            vectors=flat.get("vectors"),
            pretrained=flat.get("pretrained", none.bool()),
        )


class TaggerGraph(WordsGraph):
    """Scores of labels; `add_labels` makes labels of them."""

    def __init__(self, module: Any, task: Ner) -> None:
        super().__init__(module, task)
        self.outputs = {
            "logits": "(batch, time, labels) float32: a score of each label of labels.json; arbitrary in the padding",
            LABELS: "(batch, time) int64: the best labels, indices into labels.json; -1 in the padding",
        }

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.inputs, tensors))
        return (self.module(self.gathered(given), given["lengths"]),)

    def best(self, logits: Tensor, lengths: Tensor) -> Tensor:
        """logits (B,T,C), lengths (B,) -> labels (B,T), -1 in the padding."""
        if self.module.crf is not None:
            return self.module.crf.viterbi(logits, lengths)[1]
        real = torch.arange(logits.size(1)) < lengths.unsqueeze(1)
        return logits.argmax(-1).masked_fill(~real, -1)


class ClassifierGraph(WordsGraph):
    """Probabilities of classes."""

    def __init__(self, module: Classifier, task: Sentiment) -> None:
        super().__init__(module, task)
        most = task.data.max_tokens
        self.inputs["lengths"] += f"; the model was trained on at most {most} (data.max_tokens), so cut longer ones"
        self.outputs = {"probabilities": "(batch, classes) float32: of each class of labels.json"}

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self.inputs, tensors))
        lengths = given["lengths"]
        windows = Windows(self.gathered(given), lengths, torch.arange(lengths.size(0)))
        return (self.module(windows, lengths.size(0)).softmax(-1),)


class LanguageModelGraph(Graph):
    """Log-probabilities of what follows each token, and the state to go on from."""

    def __init__(self, module: LanguageModel) -> None:
        super().__init__()
        self.module = module
        layers: Any = module.encoder.layers
        cells = [layer[0] for layer in layers]
        self.parts = cells[0].parts
        self.sizes = [cell.hidden_size for cell in cells for _ in range(self.parts)]
        states = {f"state_{i}": f"(batch, {size}) float32: zeros at the start" for i, size in enumerate(self.sizes)}
        self.inputs = {
            "tokens": "(batch, time) int64: ids of tokenizer.json, <eos> before the first of a text",
            **states,
        }
        after = "float32: after the last position, be it padding or not"
        news = {f"new_{name}": f"(batch, {size}) {after}" for name, size in zip(states, self.sizes)}
        self.outputs = {"log_probabilities": "(batch, time, vocabulary) float32: of the token after each", **news}

    def axes(self, name: str) -> tuple[str, ...]:
        return ("batch", "time") if name == "tokens" else ("batch",)

    def example(self, batch: int, time: int, generator: torch.Generator) -> dict[str, Tensor]:
        size = self.module.embedding.num_embeddings
        tokens = torch.randint(size, (batch, time), generator=generator)
        states = [torch.randn(batch, size, generator=generator).tanh() for size in self.sizes]
        return dict(zip(self.inputs, [tokens, *states]))

    def forward(self, tokens: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        carry = [tuple(states[i : i + self.parts]) for i in range(0, len(states), self.parts)]
        hidden = self.module(tokens, carry)
        scores = self.module.softmax.log_probabilities(hidden.outputs.flatten(0, 1))
        return (scores.view(*tokens.shape, -1), *(part for state in hidden.carry for part in state))


def graph_of(task: Ner | Sentiment | Lm, module: Any) -> Graph:
    """The module of `task`, in evaluation mode, as a graph."""
    if isinstance(task, Ner):
        return TaggerGraph(module, task)
    return ClassifierGraph(module, task) if isinstance(task, Sentiment) else LanguageModelGraph(module)
