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

from seqtext import run as runs
from seqtext.errors import InputError, RunError
from seqtext.exporting.example import example
from seqtext.exporting.graphs import Graph, LanguageModelGraph, TaggerGraph, graph_of
from seqtext.exporting.onnx_cells import traceable, translations
from seqtext.exporting.viterbi import LABELS, add_labels
from seqtext.exporting.weights import check_place, open_finished
from seqtext.files import replacing, write_json
from seqtext.nn.deep import Dilated
from seqtext.nn.looped import Looped
from seqtext.nn.reservoir import Reservoir
from seqtext.nn.scanned import Scanned
from seqtext.tasks.lm import Lm
from seqtext.tasks.ner import Ner
from seqtext.tasks.sentiment import Sentiment

TASKS = (Ner, Sentiment, Lm)
TOLERANCE = 1e-4
"""By how much the graph and the module may differ."""
CASES = ((1, 1), (1, 9), (3, 2), (5, 13))
"""Texts and words of the batches that both are compared on."""


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
    if any(isinstance(part, Reservoir) for part in module.modules()):
        raise InputError(f"{run}: a reservoir (esn) steps through a text and has no ONNX graph; --bf16 takes any model")
    if unknown := sorted({part.name for part in module.modules() if isinstance(part, Looped | Scanned | Dilated)}):
        raise InputError(
            f"{run}: a cell {', '.join(unknown)} with these settings has no ONNX graph; rnn, lstm and gru have one, "
            "with options of their fused kernels, without dilation and transition_depth; --bf16 takes any model"
        )
    if getattr(module, "conditioning", None) is not None:
        raise InputError(f"{run}: a model conditioned on labels has no ONNX graph; --bf16 takes any model")
    if getattr(module, "feedback", None) is not None:
        raise InputError(f"{run}: output recurrence steps through a text and has no ONNX graph; --bf16 takes any model")
    graph = graph_of(opened.task, module.eval())
    model = traced(graph)
    try:
        with replacing(out, new=True) as unfinished:
            unfinished.mkdir()
            (unfinished / "model.onnx").write_bytes(model.SerializeToString())
            difference = largest_difference(unfinished / "model.onnx", graph)
            if difference is not None and not difference <= TOLERANCE:
                told = f"its ONNX graph differs from it by {difference:.2g}, more than {TOLERANCE:g}"
                raise RunError(f"{run}: {told}; nothing was written")
            opened.task.save(unfinished)
            shutil.copyfile(opened.folder / "recipe.toml", unfinished / "recipe.toml")
            about = {"inputs": graph.inputs, "outputs": graph.outputs}
            write_json(unfinished / runs.ONNX, about | {"run": str(opened.folder.absolute()), **runs.versions()})
            (unfinished / "README.md").write_text(_readme(opened, graph), encoding="utf-8")
            size = (unfinished / "model.onnx").stat().st_size
            if out.is_dir():
                out.rmdir()
    except OSError as error:
        raise RunError(f"{out}: cannot be written: {error.strerror or error}") from None
    return OnnxExported(out, size, graph.inputs, graph.outputs, difference)


def traced(graph: Graph) -> Any:
    """The graph as an ONNX model. Raises `InputError` where torch cannot make one."""
    graph.requires_grad_(False)
    example = graph.example(3, 7, torch.Generator().manual_seed(1))
    shapes = tuple({axis: torch.export.Dim.DYNAMIC for axis in range(len(graph.axes(name)))} for name in example)
    names = [name for name in graph.outputs if name != LABELS]
    whole: Any = (shapes[0], shapes[1:]) if isinstance(graph, LanguageModelGraph) else (shapes,)
    noisy = logging.getLogger("torch.onnx"), logging.getLogger("onnxscript"), logging.getLogger("torch.export")
    levels = [logger.level for logger in noisy]
    try:
        for logger in noisy:
            logger.setLevel(logging.ERROR)
        # With gradients on, modules take plain operations and not the kernels for prediction, which ONNX does not have.
        with (
            traceable(graph),
            warnings.catch_warnings(),
            torch.enable_grad(),
            contextlib.redirect_stdout(io.StringIO()),
        ):
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
    if isinstance(graph, TaggerGraph):
        add_labels(model, graph.module.crf)
    return model


def largest_difference(path: Path, graph: Graph) -> float | None:
    """Between an ONNX file and its graph in torch, over random batches; None where onnxruntime is not installed.

    Infinite where a tagger's labels are not the best ones of its scores.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(2)
    largest = 0.0
    for batch, time in CASES:
        example = graph.example(batch, time, generator)
        found = dict(zip(graph.outputs, session.run(list(graph.outputs), {k: v.numpy() for k, v in example.items()})))
        with torch.no_grad():
            expected = [tensor.numpy() for tensor in graph(*example.values())]
        real: Any = True
        if isinstance(graph, TaggerGraph):
            real = (np.arange(time) < example["lengths"].numpy()[:, None])[:, :, None]
            best = graph.best(torch.from_numpy(found["logits"]), example["lengths"])
            largest = largest if np.array_equal(best.numpy(), found[LABELS]) else np.inf
        for one, other in zip(expected, found.values()):
            largest = max(largest, float(np.abs(one - other).max(where=real, initial=0.0)))
    return largest


def _readme(run: runs.Run, graph: Graph) -> str:
    def listed(what: Iterable[tuple[str, str]]) -> Sequence[str]:
        return [f"- `{name}`: {text}" for name, text in what]

    lines = [f"# {run.task.name}: {run.recipe.name}", "", "`model.onnx`, made by seqtext from the run "]
    lines[-1] += f"`{run.folder.name}`. Texts of any length go in together, padded with anything."
    lines += ["", "Inputs:", "", *listed(graph.inputs.items()), "", "Outputs:", "", *listed(graph.outputs.items()), ""]
    unit = run.task.tokenizer.unit if isinstance(run.task, Lm) else "word"
    code = example(graph, None if isinstance(run.task, Lm) else run.recipe.data.words, unit=unit)
    lines += ["An example, to run in this folder; it needs the packages numpy, onnxruntime and tokenizers:", ""]
    return "\n".join([*lines, "```python", code.rstrip("\n"), "```", ""])
