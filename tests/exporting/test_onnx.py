"""ONNX graphs answer as the module does, whatever it is made of, padded and alone; labels are the best paths."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys
import unicodedata

import numpy as np
import pyarrow as pa
import pytest
import torch

import seqtext
from seqtext import recipe
from seqtext.config import parse
from seqtext.data.lexicon import SHAPES, shapes
from seqtext.errors import InputError, RunError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from onnx import TensorProto, helper  # noqa: E402

from seqtext.exporting import onnx as exporting  # noqa: E402
from seqtext.exporting.example import SHAPE  # noqa: E402
from seqtext.exporting.graphs import graph_of  # noqa: E402
from seqtext.exporting.viterbi import LABELS, add_labels  # noqa: E402
from seqtext.nn.crf import CRF  # noqa: E402


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_labels_are_the_best_paths_of_the_scores():
    torch.manual_seed(3)
    labels, batch = 5, 6
    allowed = torch.rand(labels, labels) < 0.7
    allowed[0] = True
    for crf in (CRF(labels), CRF(labels, start_allowed=[True] * 4 + [False], transitions_allowed=allowed), None):
        info = [helper.make_tensor_value_info("lengths", TensorProto.INT64, ["batch"])]
        given = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", "time", labels])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "time", labels])
        graph = helper.make_graph([helper.make_node("Identity", ["scores"], ["logits"])], "g", [given, *info], [logits])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        add_labels(model, crf)
        onnx.checker.check_model(model)
        run = session(model)
        for time in (1, 2, 9):
            # Whole numbers, so that many paths are equally good.
            scores = torch.randint(-2, 3, (batch, time, labels)).float()
            if crf is not None:
                for parameter in crf.parameters():
                    parameter.data = torch.randint(-2, 3, parameter.shape).float()
                add = session(rebuilt(model, crf))
            lengths = torch.randint(1, time + 1, (batch,))
            scores[0, int(lengths[0]) :] = 1e9  # padding may hold anything
            found = (run if crf is None else add).run([LABELS], {"scores": scores.numpy(), "lengths": lengths.numpy()})[
                0
            ]
            if crf is None:
                expected = scores.argmax(-1).masked_fill(torch.arange(time) >= lengths[:, None], -1)
            else:
                expected = crf.viterbi(scores, lengths)[1]
            assert np.array_equal(found, expected.numpy())


def rebuilt(model, crf):
    """The same graph with the present scores of `crf`."""
    fresh = onnx.ModelProto()
    fresh.CopyFrom(model)
    del fresh.graph.node[1:], fresh.graph.output[1:], fresh.graph.initializer[:]
    add_labels(fresh, crf)
    return fresh


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A task with what it learned from the sample, by its name."""
    found = {}
    vectors = tmp_path_factory.mktemp("vectors") / "some.txt"
    vectors.write_text("".join(f"{word} {len(word)} 0.5 -1.5\n" for word in ("the", "in", "of", "Berlin")))

    def get(name):
        if name not in found:
            overrides = [f"data.words.vectors={vectors}"] if name == "ner" else []
            chosen = recipe.load(name, overrides)
            found[name] = chosen.task.fit(chosen.data, chosen.task.read(chosen.data, "valid"))
        return found[name]

    return get


SMALL = {"hidden_size": 9}
CLASSIFIERS = {
    "lstm, last": {"encoder": {"name": "lstm", **SMALL}, "pool": {"name": "last"}},
    "gru, attention, characters": {
        "encoder": {"name": "gru", **SMALL},
        "embedding": {"characters": {"name": "rnn"}},
        "pool": {"name": "attention", "size": 7},
    },
    "rnn, mean": {"encoder": {"name": "rnn", "layers": 2, **SMALL}, "pool": {"name": "mean"}, "norm": "layer"},
    "lstm, residual, lp": {
        "encoder": {"name": "lstm", "layers": 2, "skip": "residual", "bidirectional": False, **SMALL},
        "pool": {"name": "lp", "p": 3.0},
        "norm": "batch",
    },
    "cnn, max": {"encoder": {"name": "cnn", "filters": 6, "widths": [2, 3]}},
    "cnn, valid, flatten": {
        "encoder": {"name": "cnn", "filters": 6, "padding": "valid", "widths": [1, 4]},
        "pool": {"name": "flatten"},
    },
}
TAGGERS = {
    "lstm, crf, characters": {"encoder": SMALL, "embedding": {"shapes": 4}},
    "relu, softmax": {
        "encoder": {"cell": "rnn", "cell_options": {"nonlinearity": "relu"}, **SMALL},
        "head": "softmax",
        "embedding": {"characters": {"name": "none"}},
    },
}
MODELS = {
    "lstm, tied": {"embedding_size": 8, "encoder": {"hidden_size": 9, "layers": 2}},
    "gru, adaptive": {
        "embedding_size": 8,
        "tied": False,
        "encoder": {"cell": "gru", "hidden_size": 9, "last_size": 6, "layers": 2},
        "softmax": {"name": "adaptive", "cutoffs": [50]},
    },
}
EVERY = [
    *(("sentiment", name, model) for name, model in CLASSIFIERS.items()),
    *(("ner", name, model) for name, model in TAGGERS.items()),
    *(("lm", name, model) for name, model in MODELS.items()),
]


@pytest.mark.parametrize(("task", "name", "model"), EVERY, ids=[f"{task}: {name}" for task, name, _ in EVERY])
def test_a_graph_answers_as_its_module_padded_and_alone(task, name, model, tasks, tmp_path):
    torch.manual_seed(1)
    made = tasks(task)
    module = made.build(parse(made.Model, model, source="test")).eval()
    graph = graph_of(made, module)
    found = exporting.traced(graph)
    onnx.checker.check_model(found)
    (tmp_path / "model.onnx").write_bytes(found.SerializeToString())
    assert exporting.largest_difference(tmp_path / "model.onnx", graph) < 1e-5
    assert [value.name for value in found.graph.input] == list(graph.inputs)
    assert [value.name for value in found.graph.output] == list(graph.outputs)

    run = session(found)
    batch = {name: tensor.numpy() for name, tensor in graph.example(4, 11, torch.Generator().manual_seed(5)).items()}
    ends = batch.get("lengths", np.array([3, 11, 1, 6]))
    together = run.run(None, batch)
    for row, end in enumerate(ends.tolist()):
        alone = {name: value[row : row + 1] for name, value in batch.items()}
        alone = {key: value[:, :end] if graph.axes(key)[1:2] == ("time",) else value for key, value in alone.items()}
        for key, one, other in zip(graph.outputs, together, run.run(None, alone)):
            if key.startswith("new_"):
                continue  # of the last position, padding or not
            one = one[row : row + 1, :end] if key != "probabilities" else one[row : row + 1]
            assert np.abs(one - other).max() < 1e-5


def printed(folder):
    """What the example in an export's README prints, in that folder."""
    (code,) = re.findall(r"^```python\n(.*?)^```", (folder / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert "seqtext" not in code and "torch" not in code
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    small = {"model.encoder.hidden_size": 16, "train.epochs": 2}
    out = tmp_path_factory.mktemp("runs") / "run"
    return seqtext.train("ner", overrides=small, out=out, device="cpu").folder


def test_a_graph_labels_sentences_as_predict_does(tagger, tmp_path):
    done = seqtext.export(tagger, tmp_path / "out", form="onnx")
    assert done.difference < 1e-4 and done.bytes == (tmp_path / "out" / "model.onnx").stat().st_size
    model = seqtext.load(tagger, device="cpu")
    sentences = [
        "Angela Merkel flew from Berlin to Washington .",
        "Hello .",
        "Peter Miller met 3 people in Paris today .",
    ]
    task, names = model.task, json.loads((tmp_path / "out" / "labels.json").read_text())["names"]
    words = [sentence.split() for sentence in sentences]
    time, widest = max(map(len, words)), max(len(word) for word in itertools.chain(*words))
    given = {
        "words": np.zeros((3, time), np.int64),
        "characters": np.zeros((3, time, widest), np.int64),
        "shapes": np.zeros((3, time), np.int64),
        "lengths": np.array([len(row) for row in words]),
    }
    encoded = task.inputs([task.prepare(sentence, pretokenized=True) for sentence in sentences])
    for row, (start, length) in enumerate(zip(encoded.text.starts, encoded.text.lengths)):
        codes = encoded.text.codes[start : start + length]
        given["words"][row, :length] = encoded.types.ids[codes]
        given["shapes"][row, :length] = encoded.types.shapes[codes]
        characters = encoded.types.characters[codes][:, :widest]
        given["characters"][row, :length, : characters.shape[1]] = characters
    run = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    (labels,) = run.run(["labels"], given)
    found = [[names[label] for label in row[: len(each)]] for row, each in zip(labels, words)]
    assert found == [prediction.tags for prediction in model.predict(sentences, pretokenized=True)]
    assert any(tag != "O" for tag in found[0])
    tagged = zip(["Angela Merkel flew from Berlin to Washington .", "It was not bad ."], printed(tmp_path / "out"))
    for text, line in tagged:
        [prediction] = model.predict([text], pretokenized=True)
        assert line == " ".join(f"{word}/{tag}" for word, tag in zip(text.split(), prediction.tags, strict=True))
    readme = (tmp_path / "out" / "README.md").read_text()
    assert all(f"- `{name}`: " in readme for name in [*given, "logits", "labels"])
    assert json.loads((tmp_path / "out" / "onnx.json").read_text())["inputs"].keys() == given.keys()
    with pytest.raises(RunError) as caught:
        seqtext.load(tmp_path / "out")
    assert str(caught.value) == (
        f"{tmp_path / 'out'}: an ONNX export, for onnxruntime as its README.md says; seqtext predicts with the run "
        f"that it was made of, {tagger}"
    )


def test_letter_shapes_are_told_without_seqtext_as_with_it():
    rng, told = random.Random(1), {"unicodedata": unicodedata}
    exec(SHAPE, told)
    words = ["".join(rng.choices("abcABC012.-'éÉßǅªⅷ中Ωω̈", k=rng.randint(1, 6))) for _ in range(3000)]
    expected = shapes(pa.array(words)).tolist()
    assert set(expected) == set(range(len(SHAPES)))
    assert [(word, told["shape"](word)) for word in words] == list(zip(words, expected))


@pytest.mark.parametrize("unit", ["classes", "word", "bpe"])
def test_the_example_in_the_readme_runs_as_it_stands_and_answers_as_the_run_does(unit, tmp_path):
    small = {"train.epochs": 1, "model.encoder.hidden_size": 8}
    if unit == "classes":
        sentences = ["Angela Merkel flew from Berlin to Washington .", "It was not bad ."]
        for split in ("train", "valid"):
            rows = "It was bad .\t0\nIt was GOOD in 1999 .\t1\n" * 8
            (tmp_path / f"{split}.tsv").write_text(f"text\tlabel\n{rows}")
        every = small | {"model.embedding.characters.name": "cnn", "model.embedding.shapes": 4}
        run = seqtext.train("sentiment", data=str(tmp_path), overrides=every, out=tmp_path / "run", device="cpu").folder
        found = seqtext.load(run, device="cpu").predict(sentences, pretokenized=True)
        expected = [f"{one.label} {max(one.probabilities):.4f} {text}" for text, one in zip(sentences, found)]
    else:
        for split in ("train", "valid"):
            (tmp_path / f"{split}.txt").write_text("The value of a string .\nThe end of it .\n" * 20)
        small |= {"data.tokenizer.unit": unit} | ({"data.tokenizer.max_size": 40} if unit == "bpe" else {})
        run = seqtext.train("lm", data=str(tmp_path), overrides=small, out=tmp_path / "run", device="cpu").folder
        model = seqtext.load(run, device="cpu")
        read = model.task.inputs([model.task.prepare("The value of")]).stream
        ids = [read.eos, *read.slice(0, read.tokens - 1).tolist()]
        with torch.no_grad():
            chances = model.module.softmax.log_probabilities(model.module(torch.tensor([ids])).outputs[0])
        told = chances[range(len(ids) - 1), ids[1:]].sum().item()
        best = [model.task.tokenizer.token(token) for token in chances[-1].topk(3).indices.tolist()]
        expected = [f"{told:.4f} The value of", " ".join(["next:", *best])]
    seqtext.export(run, tmp_path / "out", form="onnx")
    assert printed(tmp_path / "out") == expected


def test_what_has_no_graph_says_so(tagger, tmp_path, monkeypatch):
    def refused(run, message, kind=InputError):
        with pytest.raises(kind) as caught:
            seqtext.export(run, tmp_path / "out", form="onnx")
        assert str(caught.value) == message
        assert not (tmp_path / "out").exists()

    tiny = {"train.epochs": 1, "model.parser.name": "none"}
    trees = seqtext.train("tree-sentiment", overrides=tiny, out=tmp_path / "trees", device="cpu").folder
    refused(trees, f"{trees}: a run of the task tree-sentiment; --onnx takes runs of ner, sentiment, lm")
    echo = {"model.encoder.name": "esn", "model.encoder.size": 10, "train.epochs": 1}
    run = seqtext.train("sentiment", overrides=echo, out=tmp_path / "esn", device="cpu").folder
    refused(run, f"{run}: a reservoir (esn) steps through a text and has no ONNX graph; --bf16 takes any model")
    peeping = {"model.encoder.cell_options": {"peepholes": True}, "model.encoder.hidden_size": 4, "train.epochs": 1}
    run = seqtext.train("sentiment", overrides=peeping, out=tmp_path / "peeping", device="cpu").folder
    refused(
        run,
        f"{run}: a cell lstm with these settings has no ONNX graph; rnn, lstm and gru have one, with options of their "
        "fused kernels, without dilation and transition_depth; --bf16 takes any model",
    )
    monkeypatch.setattr(exporting, "largest_difference", lambda path, graph: 0.5)
    refused(tagger, f"{tagger}: its ONNX graph differs from it by 0.5, more than 0.0001; nothing was written", RunError)
    find = exporting.importlib.util.find_spec
    monkeypatch.setattr(
        exporting.importlib.util, "find_spec", lambda name: None if name == "onnxscript" else find(name)
    )
    refused(tagger, '--onnx needs packages that are not installed: pip install "seqtext[onnx]"')
