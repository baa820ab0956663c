"""`seqtext export`: what it prints is what the API returns, and the other commands take what it leaves."""

from __future__ import annotations

import json
import re

import pytest

import seqtext
from seqtext.exporting import measure


@pytest.fixture(autouse=True)
def short_timings(monkeypatch):
    for name, value in {"BULK": 20, "SINGLE": 3, "ROUNDS": 1, "SECONDS": 0.0}.items():
        monkeypatch.setattr(measure, name, value)


def test_tables_say_what_has_how_many_bits_and_what_changed(cli, run, tmp_path):
    out = tmp_path / "small"
    result = cli("export", run, "-o", out, "--int8")
    assert (result.status, result.err) == (0, "")
    numbers = r"[\d,]+"
    sizes = [(folder / "model.safetensors").stat().st_size / 1e6 for folder in (run, out)]
    f1 = [seqtext.evaluate(folder, device="cpu").scores["f1"] for folder in (run, out)]
    expected = [
        rf"{re.escape(str(out))}: weights",
        "\tnumbers\tkept in\tcomputed in",
        rf"embeddings\t{numbers}\tint8\t(int8|float32)",
        rf"linear layers\t{numbers}\tint8\t(int8|float32)",
        rf"recurrent layers\t{numbers}\tint8\tfloat32",
        rf"everything else\t{numbers}\tfloat32\tfloat32",
        "Before and after",
        "\tfloat32\tint8\tafter / before",
        rf"size of the weights\t{sizes[0]:.2f} MB\t{sizes[1]:.2f} MB\t{sizes[1] / sizes[0]:.2f}",
        rf"texts a second, in bulk\t{numbers}\t{numbers}\t\d+\.\d\d",
        r"one text at a time, p50\t[\d.]+ ms\t[\d.]+ ms\t\d+\.\d\d",
        rf"f1 on test\t{f1[0]:.4f}\t{f1[1]:.4f}\t{re.escape(f'{f1[1] - f1[0]:+.4f}')}",
    ]
    assert len(result.lines) == len(expected)
    for line, pattern in zip(result.lines, expected):
        assert re.fullmatch(pattern, line), line
    text = b"Angela Merkel flew to Berlin .\n"
    assert cli("predict", out, "--pretokenized", stdin=text) == cli("predict", run, "--pretokenized", stdin=text)


def test_json_says_the_same_and_a_translator_translates(cli, translator, tmp_path):
    out = tmp_path / "half"
    found = json.loads(cli("export", translator, "--out", out, "--bf16", "--json").out)
    count = sum(parameter.numel() for parameter in seqtext.load(translator).module.parameters())
    assert found["layers"] == [{"kind": "all weights", "numbers": count, "kept": "bf16", "computed": "bf16"}]
    assert (found["run"], found["weights"], found["split"], found["examples"]) == (str(out), "bf16", "test", 30)
    assert 0.45 < found["after"]["bytes"] / found["before"]["bytes"] < 0.55
    assert found["after"]["scores"].items() <= json.loads(cli("evaluate", out, "--json").out).items()
    assert all(found[when][key] > 0 for when in ("before", "after") for key in ("texts_per_second", "p50_ms"))
    assert cli("translate", out, stdin=b"The cat sees the dog.\n").out == "Die Katze sieht den Hund.\n"
    assert cli("score", out, stdin=b"The cat sees the dog.\tDie Katze sieht den Hund.\n").status == 0


def test_what_cannot_be_exported_is_refused(refused, run, tmp_path):
    none = "seqtext export takes one of --int8, --bf16 and --onnx; given: "
    assert refused("export", run, "-o", tmp_path / "a") == none + "none"
    assert refused("export", run, "-o", tmp_path / "a", "--int8", "--onnx") == none + "--int8 and --onnx"
    assert refused("export", tmp_path / "no", "-o", tmp_path / "a", "--int8") == f"{tmp_path}/no: no such run folder"
    (tmp_path / "file").write_text("")
    message = f"{tmp_path}/file/a: cannot be made: {tmp_path}/file is a file"
    assert refused("export", run, "-o", tmp_path / "file" / "a", "--int8") == message
    message = f"{run}: exists already and is not empty; choose another --out"
    assert refused("export", run, "-o", run, "--bf16") == message
    assert not (tmp_path / "a").exists()


def test_a_graph_is_named_with_what_it_differs_by(cli, run, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    out = tmp_path / "graph"
    size = r"\d+\.\d\d MB"
    message = rf"{re.escape(str(out))}/model.onnx: {size}; its outputs differ from the run's by \d\.\de-0\d at most"
    assert re.fullmatch(message, cli("export", run, "-o", out, "--onnx").out.strip())
    assert sorted(path.name for path in out.iterdir()) == [
        *("README.md", "characters.json", "labels.json", "model.onnx", "onnx.json", "recipe.toml", "tokenizer.json"),
    ]
