"""A tagger, classifier or language model as an ONNX graph, checked against the module that it was made of.

A graph takes numbers, not text: what the run's tokenizers make of it, one entry a position. Any number of texts of any
length go in together, padded to the longest with anything; padding changes nothing.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import shutil
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from seqtext import run as runs
from seqtext.data.lexicon import SHAPES
from seqtext.errors import InputError, RunError
from seqtext.exporting.onnx_cells import traceable, translations
from seqtext.exporting.viterbi import LABELS, add_labels
from seqtext.exporting.weights import check_place, open_finished
from seqtext.files import replacing, write_json
from seqtext.nn.cells import CELLS
from seqtext.nn.classifier import Classifier, Windows
from seqtext.nn.embedding import WordEmbedding, Words
from seqtext.nn.language_model import LanguageModel
from seqtext.nn.reservoir import Reservoir
from seqtext.tasks.lm import Lm
from seqtext.tasks.ner import Ner
from seqtext.tasks.sentiment import Sentiment

TASKS = (Ner, Sentiment, Lm)
TOLERANCE = 1e-4
"""By how much the graph and the module may differ."""
CASES = ((1, 1), (1, 9), (3, 2), (5, 13))
"""Texts and words of the batches that both are compared on."""
WORD_INPUTS = {
    "words": "(batch, time) int64: ids of tokenizer.json, of words as its normalizer writes them; 1 where unknown",
    "characters": "(batch, time, characters) int64: ids of characters.json of each word, 0 after its last; "
    "of a longer word than {most} characters its first and last {half}",
    "shapes": f"(batch, time) int64: letter shape, an index into {', '.join(SHAPES)}",
    "vectors": "(batch, time, features) float32: the pretrained vector of each word, zeros where there is none",
    "pretrained": "(batch, time) bool: whether there is a pretrained vector",
    "lengths": "(batch) int64: words of each text, at least 1",
}


class OnnxExported(NamedTuple):
    """What an export made of a run."""

    folder: Path
    bytes: int
    """Of model.onnx."""
    inputs: dict[str, str]
    """What each input is."""
    outputs: dict[str, str]
    difference: float | None
    """The largest between the graph's outputs and the module's; None where onnxruntime is not installed."""


def export_onnx(run: str | Path, out: str | Path) -> OnnxExported:
    """Write `run` as `out`/model.onnx with the tokenizers and labels that it needs, and a README.md that says how.

    Raises `RunError` for a run that is not finished or was exported, for a folder that is not empty, and where the
    graph differs from the module by more than 1e-4; `InputError` for a task or a model that has no graph, and where
    the extra `onnx` is not installed.
    """
    opened, out = open_finished(run), check_place(out)
    if not isinstance(opened.task, TASKS):
        able = ", ".join(task.name for task in TASKS)
        raise InputError(f"{run}: a run of the task {opened.task.name}; --onnx takes runs of {able}")
    if any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript")):
        raise InputError('--onnx needs packages that are not installed: pip install "seqtext[onnx]"')
    module: Any = opened.task.build(opened.recipe.model)
    runs.load_weights(opened.folder, module)
    graph = _graph(opened.task, module.eval())
    if any(isinstance(part, Reservoir) for part in module.modules()):
        raise InputError(f"{run}: a reservoir (esn) steps through a text and has no ONNX graph; --bf16 takes any model")
    model = _traced(graph)
    if isinstance(graph, TaggerGraph):
        add_labels(model, module.crf)
    try:
        with replacing(out, new=True) as unfinished:
            unfinished.mkdir()
            (unfinished / "model.onnx").write_bytes(model.SerializeToString())
            difference = _checked(unfinished / "model.onnx", graph, run)
            opened.task.save(unfinished)
            shutil.copyfile(opened.folder / "recipe.toml", unfinished / "recipe.toml")
            about = {"inputs": graph.inputs, "outputs": graph.outputs}
            write_json(unfinished / "onnx.json", about | {"run": str(opened.folder.absolute()), **runs.versions()})
            (unfinished / "README.md").write_text(_readme(opened, graph), encoding="utf-8")
            size = (unfinished / "model.onnx").stat().st_size
            if out.is_dir():
                out.rmdir()
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None
    return OnnxExported(out, size, graph.inputs, graph.outputs, difference)


class Graph(nn.Module):
    """A module as a function of plain tensors: what is exported."""

    inputs: dict[str, str]
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
            positions=torch.arange(count).view(batch, time),
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
        kinds: Any = [cells[0] for cells in module.encoder.layers]
        self.sizes = [cell.hidden_size for cell in kinds for _ in range(CELLS_PARTS[type(cell)])]
        self.parts = CELLS_PARTS[type(kinds[0])]
        states = {f"state_{i}": f"(batch, {size}) float32: zeros at the start" for i, size in enumerate(self.sizes)}
        self.inputs = {"tokens": "(batch, time) int64: ids of tokenizer.json, <eos> before the first of a text", **states}
        self.outputs = {
            "log_probabilities": "(batch, time, vocabulary) float32: of the token after each",
            **{f"new_{name}": f"(batch, {size}) float32: after the last position, padding or not" for name, size in
               zip(states, self.sizes)},
        }  # fmt: skip

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


CELLS_PARTS = {cell: cell.parts for cell in CELLS.values()}


def _graph(task: Any, module: Any) -> Graph:
    module.requires_grad_(False)
    if isinstance(task, Ner):
        return TaggerGraph(module, task)
    return ClassifierGraph(module, task) if isinstance(task, Sentiment) else LanguageModelGraph(module)


def _traced(graph: Graph) -> Any:
    """The graph as an ONNX model. Raises `InputError` where torch cannot make one."""
    example = graph.example(3, 7, torch.Generator().manual_seed(1))
    shapes = tuple({axis: torch.export.Dim.DYNAMIC for axis in range(len(graph.axes(name)))} for name in example)
    names = [name for name in graph.outputs if name != LABELS]
    whole: Any = (shapes[0], shapes[1:]) if isinstance(graph, LanguageModelGraph) else (shapes,)
    noisy = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript"), logging.getLogger("torch.export")
    levels = [logger.level for logger in noisy]
    try:
        for logger in noisy:
            logger.setLevel(logging.ERROR)
        # With gradients on, modules take plain operations and not the kernels for prediction, which are no part of ONNX.
        with traceable(graph), warnings.catch_warnings(), torch.enable_grad(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                graph,
                tuple(example.values()),
                dynamo=True,
                dynamic_shapes=whole,
                custom_translation_table=translations(),
                input_names=list(example),
                output_names=names,
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"this model has no ONNX graph by torch {torch.__version__}: {first}") from None
    finally:
        for logger, level in zip(noisy, levels):
            logger.setLevel(level)
    model = program.model_proto
    for value in [*model.graph.input, *model.graph.output]:
        axes = graph.axes(value.name) if value.name in graph.inputs else ("batch", "time")
        for axis, dim in zip(axes, value.type.tensor_type.shape.dim):
            if not (value.name in graph.outputs and axis == "time" and len(value.type.tensor_type.shape.dim) < 3):
                dim.ClearField("dim_value")
                dim.dim_param = axis
    return model


def _checked(path: Path, graph: Graph, run: str | Path) -> float | None:
    """The largest difference between graph and module, padded and alone; None where onnxruntime is not installed.

    Raises `RunError` where it is more than `TOLERANCE`.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(2)
    names = [name for name in graph.outputs if name != LABELS]
    largest = 0.0
    for batch, time in CASES:
        example = graph.example(batch, time, generator)
        with torch.no_grad():
            expected = [tensor.numpy() for tensor in graph(*example.values())]
        found = session.run(names, {name: tensor.numpy() for name, tensor in example.items()})
        ends = example.get("lengths")
        for name, one, other in zip(names, expected, found):
            real = np.ones(one.shape, bool)
            if ends is not None and name == "logits":
                real &= (np.arange(time) < ends.numpy()[:, None])[:, :, None]
            largest = max(largest, float(np.abs(one - other)[real].max()))
    if not largest <= TOLERANCE:
        raise RunError(f"{run}: its ONNX graph differs from it by {largest:.2g}, more than {TOLERANCE:g}; not written")
    return largest


def _readme(run: runs.Run, graph: Graph) -> str:
    def listed(what: Iterable[tuple[str, str]]) -> Sequence[str]:
        return [f"- `{name}`: {text}" for name, text in what]

    lines = [f"# {run.task.name}: {run.recipe.name}", "", "`model.onnx`, made by seqtext from the run "]
    lines[-1] += f"`{run.folder.name}`. Texts of any length go in together, padded with anything."
    lines += ["", "Inputs:", "", *listed(graph.inputs.items()), "", "Outputs:", "", *listed(graph.outputs.items()), ""]
    return "\n".join(lines)
