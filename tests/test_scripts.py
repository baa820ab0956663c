"""The scripts: the benchmark measures what it names, the shell scripts install once and fail when a part fails."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from seqtext.data.translation_sample import translation_sample
from seqtext.nn.products import linear
from seqtext.nn.rnn import Recurrent, RecurrentConfig

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import measure  # noqa: E402
import operations  # noqa: E402
import reference_lm  # noqa: E402

SHELL = [ROOT / ".ci" / "run", *sorted((ROOT / "scripts").glob("*.sh"))]


def bench(script, *arguments, cwd):
    """Run a benchmark once, on one thread: what it did, its settings, and the medians of its figures."""
    command = [sys.executable, str(ROOT / "scripts" / script), *arguments, "--repeats", "1", "--threads", "1"]
    environment = os.environ | {"SEQTEXT_CACHE": str(cwd / "cache"), "PYTHONPATH": str(ROOT)}
    command += ["--json", str(cwd / "figures.json")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cwd)
    assert done.returncode == 0, done.stderr
    written = json.loads((cwd / "figures.json").read_text())
    return done, written["settings"], {name: values["median"] for name, values in written["figures"].items()}


@pytest.mark.slow
def test_the_benchmark_of_cells_sets_each_beside_the_fused_lstm(tmp_path):
    size = ["--size", "2", "3", "4", "5"]
    done, settings, figures = bench(
        "bench_cells.py", "mingru", "lstm", *size, "--repeats", "1", "--seconds", "0.001", cwd=tmp_path
    )
    assert settings["size"] == [2, 3, 4, 5] and "== a layer over 2 x 3 x 4 -> 5" in done.stdout
    lines = {name.split(": ")[1].split(" /")[0] for name in figures if " / " in name}
    assert {"lstm", "mingru", "lstm, peepholes"} <= lines and "gru" not in lines
    assert all(
        0 < figures[f"{what}: {line} / lstm"] < math.inf for what in ("training", "prediction") for line in lines
    )
    command = [sys.executable, str(ROOT / "scripts" / "bench_cells.py"), "nosuch"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2 and "nosuch: no line begins so; there are: clockwork; gru; " in refused.stderr
    refused = subprocess.run([*command[:2], "--device", "nosuch"], capture_output=True, text=True)
    assert refused.returncode == 2 and "--device nosuch: expected auto, cpu, cuda or cuda:N" in refused.stderr
    short = ["--repeats", "1", "--seconds", "0.001", "--precision", "bf16"]
    _, settings, figures = bench("bench_cells.py", "rnn", *size, *short, cwd=tmp_path)
    assert settings["precision"] == "bf16"
    beside = {name.split(" / ")[1] for name in figures if ": rnn /" in name}
    assert beside == {"lstm", "torch's kernel"} and not any(": rnn, relu / torch" in name for name in figures)


@pytest.mark.slow
def test_the_benchmark_prints_its_figures_and_counts_operations(tmp_path):
    hidden, labels, words = 100, 17, 50 + 8  # of recipes/ner.toml
    changes = ["--set", 'model.embedding.characters.name="none"']
    done, settings, figures = bench(
        "bench_ner.py", "--recipe", "ner", "--peak", "--sentences", "40", *changes, cwd=tmp_path
    )
    for name in (
        "training tokens/s",
        "training FLOP/s / matrix FLOP/s",
        "training: share of the recurrence",
        "training: share of matrix products",
        "tagging tokens/s",
        "tagging tokens/s, reading the file too",
        "tagging tokens/s, from lines of text",
        "tagging: share of the recurrence",
        "latency of a sentence, p50 ms",
        "latency of a sentence, p95 ms",
        "peak memory of training, MB",
    ):
        assert f"  {name} " in done.stdout
        assert 0 < figures[name] < math.inf, name
    assert "synthetic, after CoNLL-2003" in done.stdout
    assert done.stdout.index("ratios") < done.stdout.index("figures, median")
    assert settings["labels"] == labels
    # Two directions of four gates over a word and a state, and a label's score from both states; two FLOPs a weight.
    weights = 2 * 4 * hidden * (words + hidden) + 2 * hidden * labels
    assert figures["training kFLOP a token, forward"] == pytest.approx(2 * weights / 1e3)


@pytest.mark.slow
def test_the_language_model_benchmark_compares_both_formats_with_a_reference(tmp_path):
    size, words = 200, 1000 + 3  # of recipes/lm-ptb-small.toml; and a quarter of the tokens, with <pad>, <unk>, <eos>
    done, settings, figures = bench("bench_lm.py", "--tokens", "4000", "--seconds", "0.1", cwd=tmp_path)
    for name in (
        "training of the reference, tokens/s",
        *(
            f"{name} {precision}{rest}"
            for precision in ("float32", "bf16")
            for name, rest in (
                ("training", ", tokens/s"),
                ("training", ", ours / reference"),
                ("training", ", FLOP/s / matrix FLOP/s"),
                ("training", ": share of the recurrence"),
                ("training", ": share of matrix products"),
                ("evaluation", ", tokens/s"),
            )
        ),
        "generation, 1 at once, tokens/s",
        "generation, 64 at once, tokens/s",
        "latency of a token, p50 ms",
        "latency of a token, p95 ms",
    ):
        assert f"  {name} " in done.stdout
        assert 0 < figures[name] < math.inf, name
    assert settings["vocabulary"] == words and settings["window"] == "20 x 35"
    assert settings["reference"] == "plain PyTorch, nn.LSTM"
    # Two layers of four gates over an input and a state, and a score for every word; two FLOPs a weight.
    weights = 2 * 4 * size * 2 * size + size * words
    assert figures["kFLOP a token, forward"] == pytest.approx(2 * weights / 1e3)


@pytest.mark.slow
def test_the_translation_benchmark_measures_both_ways_of_searching(tmp_path):
    for split, size in (("train", 300), ("valid", 20), ("test", 20)):
        for language, lines in zip(("en", "de"), zip(*translation_sample(split, size=size))):
            (tmp_path / f"{split}.{language}").write_text("\n".join(lines), encoding="utf-8")
    changes = ["--set", "data.tokenizer.max_size=400", "--set", "train.batch_tokens=512", "--warmup", "4"]
    given = ["--recipe", "translation", "--data", str(tmp_path), "--precision", "both", "--sentences", "8"]
    done, _, figures = bench("bench_translation.py", *given, *changes, cwd=tmp_path)
    for name in (
        *(
            f"training {precision}{rest}"
            for precision in ("float32", "bf16")
            for rest in (
                ", target tokens/s",
                ", FLOP/s / matrix FLOP/s",
                ": share of the recurrence",
                ": share of matrix products",
            )
        ),
        *(
            f"{search}, {rest}"
            for search in ("greedy", "greedy in bf16", "beam 5", "beam 5 in bf16")
            for rest in ("sentences/s", "latency of a sentence, p50 ms", "latency of a sentence, p95 ms")
        ),
    ):
        assert f"  {name} " in done.stdout
        assert 0 < figures[name] < math.inf, name
    assert figures["beam 5, latency of a sentence, p50 ms"] <= figures["beam 5, latency of a sentence, p95 ms"]


@pytest.mark.slow
def test_the_tree_benchmark_measures_forests_against_single_nodes(tmp_path):
    data = tmp_path / "trees"
    data.mkdir()
    for split in ("train", "valid", "test"):
        trees = "(3 (2 So) (4 good))\n(1 (2 not) (3 (2 very) (4 good)))\n(1 (2 not) (3 (2 at) (3 all)))\n" * 20
        (data / f"{split}.txt").write_text(trees, encoding="utf-8")
    batches = ["--batches", "1", "8", "--seconds", "0.05"]
    # Of a recipe with a parser, which is no part of it.
    given = ["--recipe", "tree-sentiment", "--data", str(data), *batches]
    done, settings, figures = bench("bench_trees.py", *given, cwd=tmp_path)
    for name in (
        *(
            f"{what}, batches of {size}{rest}"
            for what in ("training", "inference")
            for size in (1, 8)
            for rest in (", trees/s", ", FLOP/s / matrix FLOP/s", " / node by node")
        ),
        "training node by node, batches of 25, trees/s",
        "inference node by node, batches of 25, trees/s",
    ):
        assert f"  {name} " in done.stdout
        assert 0 < figures[name] < math.inf, name
    assert settings["cell"] == "lstm 48" and settings["trees"] == 60 and settings["nodes a tree"] == 4.3
    # Of 8 leaves and 5 inner nodes in three trees: three gates of a word, five of two states, and four classes.
    weights = 8 * 3 * 48 * 32 + 5 * 5 * 48 * 96 + 13 * 48 * 4
    assert figures["MFLOP a tree, forward"] == pytest.approx(2 * weights / 3 / 1e6)
    # Synthetic trees, over states that the reference does not have: ours alone.
    leaves = 'model.leaves={name="rnn", hidden_size=16}'  # of both directions together as wide as a word's vector
    given = ["--recipe", "tree-sentiment", "--cell", "childsum", "--set", "model.cell.hidden_size=7", *batches]
    given += ["--set", leaves]
    done, settings, figures = bench("bench_trees.py", *given, cwd=tmp_path)
    assert "no node-by-node reference" in done.stderr
    assert settings["cell"] == "childsum 7" and not any("node by node" in name for name in figures)
    assert figures["training, batches of 8, trees/s"] > 0 and settings["data"] == "synthetic, of SST's lengths"
    # A binary tree of n leaves: n - 1 inner nodes, whose 2 n - 2 children are forgotten one by one.
    leaves = (settings["nodes a tree"] + 1) / 2
    weights = leaves * 3 * 7 * 32 + (leaves - 1) * 3 * 7 * 7 + 2 * (leaves - 1) * 7 * 7 + (2 * leaves - 1) * 7 * 5
    assert figures["MFLOP a tree, forward"] == pytest.approx(2 * weights / 1e6, rel=5e-3)


@pytest.mark.parametrize("cell", ["lstm", "childsum", "gru", "rnn", "rntn", "mvrnn"])
def test_the_reference_is_the_same_recursive_net(cell, tmp_path):
    import reference_trees

    from seqtext import recipe, session

    changes = [f"model.cell.name={cell}", "model.cell.hidden_size=5", "model.parser.name=none"]
    changes += ["model.loss.root=0.25", "model.loss.nodes=3", "model.dropout=0.3", f"data.source={tmp_path}"]
    for split in ("train", "valid"):
        trees = "(3 (2 So) (4 good))\n(2 fine)\n(1 (2 not) (3 (2 (2 very) (3 (2 ,) (3 very))) (4 good)))\n"
        (tmp_path / f"{split}.txt").write_text(trees, encoding="utf-8")
    chosen = recipe.load("tree-sentiment", changes)
    dataset = session.read_splits(chosen)["train"]
    task = chosen.task.fit(chosen.data, dataset)
    encoded = task.encode(dataset)
    torch.manual_seed(2)
    module = task.build(chosen.model).eval()
    assert reference_trees.NodeByNode.covers(module)
    rows = np.array([2, 0, 1])
    found = task.loss(module, task.batch(encoded, rows))
    found.total.backward()
    gradients = {name: value.grad.clone() for name, value in module.named_parameters()}
    module.zero_grad()
    total, count = reference_trees.NodeByNode(module).loss(task, encoded, rows)
    total.backward()
    torch.testing.assert_close((found.total, found.count), (total, count))
    for name, value in module.named_parameters():
        torch.testing.assert_close(gradients[name], value.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_the_tree_benchmark_refuses_other_tasks(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "bench_trees.py"), "--recipe", "ner"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 1
    assert done.stderr == "bench_trees.py: --recipe ner: this measures recursive nets; its task is ner\n"


def test_operations_of_an_adaptive_softmax_are_those_of_the_clusters_that_are_needed():
    layer = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [10], div_value=2.0)
    with operations.counted_flops(layer) as flops:
        layer(torch.randn(5, 8), torch.tensor([0, 3, 9, 10, 19]))
    head, down, up = 5 * 8 * 11, 2 * 8 * 4, 2 * 4 * 10
    assert sum(flops) == 2 * (head + down + up)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_operations_as_they_run_are_those_of_all_rows_by_whatever_kernel(cell, precision):
    layer = Recurrent(6, RecurrentConfig(cell=cell, hidden_size=8, bidirectional=True))
    head, x = nn.Linear(16, 3), torch.randn(4, 8, 6)  # as many rows as products in bf16 are filled up to

    def predict():
        states, _ = layer(x, torch.full((4,), 8))
        scores = linear(head, states)
        return (scores @ scores.mT).size(0)  # the states' own product is one too

    with torch.inference_mode(), torch.autocast("cpu", precision, enabled=precision == torch.bfloat16):
        found = operations.as_run(predict)
    gates = {"lstm": 4, "gru": 3, "rnn": 1}[cell]
    weights = 2 * gates * 8 * (6 + 8) + 16 * 3
    assert found == (2 * 4 * 8 * weights + 2 * 4 * 8 * 8 * 3) / 4


@pytest.mark.parametrize("awd", [False, True])
def test_the_reference_is_the_same_language_model(awd):
    from seqtext.nn.language_model import LanguageModel, LanguageModelConfig
    from seqtext.nn.rnn import ForwardConfig

    torch.manual_seed(1)
    encoder = ForwardConfig(hidden_size=6, layers=2, last_size=4 if awd else None)
    ours = LanguageModel(LanguageModelConfig(embedding_size=4, encoder=encoder, tied=awd), 11).eval()
    if awd:
        chances = dict.fromkeys(
            [f"{name}_dropout" for name in ("embedding", "input", "hidden", "output", "weight")], 0.5
        )
        theirs = reference_lm.AwdModel(11, 4, [6, 4], tied=True, **chances).eval()
    else:
        theirs = reference_lm.PlainModel(11, 4, 6, 2, dropout=0.5, tied=False).eval()
    renamed = {
        "embedding.weight": "embedding.weight",
        "softmax.weight": "output.weight",
        "softmax.bias": "output.bias",
    }
    for depth in range(2):
        for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            name = f"layers.{depth}.lstm.{part}_l0" if awd else f"lstm.{part}_l{depth}"
            if awd and part == "weight_hh":
                name = f"layers.{depth}.raw"
            renamed[f"encoder.layers.{depth}.0.kernel.{part}_l0"] = name
    weights = ours.state_dict()
    theirs.load_state_dict({new: weights[old] for old, new in renamed.items()})
    tokens, carry, state = torch.randint(11, (3, 5)), None, None
    for _ in range(2):  # the second window goes on from the first one's state
        hidden = ours(tokens, state)
        state = hidden.carry
        scores, *_, carry = theirs(tokens.t(), carry)
        expected = torch.nn.functional.cross_entropy(scores, tokens.t().flatten(), reduction="sum")
        torch.testing.assert_close(ours.loss(hidden, tokens)[0], expected)


@pytest.mark.parametrize("script", ["bench_ner.py", "bench_lm.py"])
def test_a_benchmark_refuses_data_that_is_not_there(script, tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / script), "--data", "nowhere"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{script}: ") and "nowhere: no such folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_kernel_seconds_tells_recurrence_from_matrix_products(kind, capfd):
    x = torch.randn(3, 5, 8, requires_grad=True)

    def seconds(module):
        with profile(activities=[ProfilerActivity.CPU]) as profiler:
            result = module(x)
            (result[0] if isinstance(result, tuple) else result).sum().backward()
        return measure.kernel_seconds(profiler.events())

    # Of a recurrent layer, every product is the recurrence's, the backward pass's too; of a linear one, none.
    recurrence, products = seconds(kind(8, 8, batch_first=True))
    assert recurrence > 0 and products == 0
    recurrence, products = seconds(nn.Linear(8, 8))
    assert recurrence == 0 and products > 0
    assert capfd.readouterr().err == ""  # the profiler itself says nothing


def test_a_stream_refuses_a_limit_that_python_itself_would_not_keep(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "stream.py"), "--limit", "450", "--folder", str(tmp_path / "new")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    message = "--limit 450: 20,000,000 tokens take 452 MiB or more on 2 cores, and 8 MiB more with each further thread"
    assert done.returncode == 2 and done.stderr.endswith(f"stream.py: error: {message}\n")
    assert not (tmp_path / "new").exists()


def test_steps_count_their_tokens_across_epochs():
    from seqtext.training.loop import Finished, Stepped

    def step(tokens):
        return Stepped(0, 1, tokens, 0.1, None, None, lambda: None)

    # Two epochs of 10 + 5 + 20 and 7 + 30 tokens, each event with its epoch's sum so far.
    events = iter([step(10), step(15), step(35), step(7), step(37), Finished(5, 2, "")])
    take = measure.chunk(measure.step_tokens(events), steps=2)
    assert [take(), take(), take()] == [15, 27, 30]


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_shell_scripts_parse(script):
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True, text=True).stderr == ""


@pytest.fixture
def checkout(tmp_path):
    """A checkout of scripts alone whose .venv has a Python that notes each `-m` call and obeys $FAIL, a pattern."""
    for name in ("scripts", ".ci"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        '#!/usr/bin/env bash\nif [[ $1 != -m ]]; then exec "$REAL" "$@"; fi\n'
        'echo "${*:2}" >>"$NOTES"\n[[ -z $FAIL || "${*:2}" != $FAIL ]]\n'
    )
    python.chmod(0o755)
    pretend_torch(tmp_path, "2.13.0+cpu")
    return tmp_path


def pretend_torch(checkout, version):
    (checkout / "modules").mkdir(exist_ok=True)
    (checkout / "modules" / "torch.py").write_text(f'__version__ = "{version}"\n')


def call(checkout, script, *arguments, fail="", **variables):
    """Exit code, stderr and the calls of `python -m`, less the look whether there is a pip."""
    notes = checkout / "notes"
    notes.write_text("")
    environment = os.environ | {"REAL": sys.executable, "NOTES": str(notes), "FAIL": fail}
    environment |= {"PYTHONPATH": str(checkout / "modules")} | variables
    done = subprocess.run(
        ["bash", str(checkout / script), *arguments], capture_output=True, text=True, env=environment, cwd="/"
    )
    return done.returncode, done.stderr, [line for line in notes.read_text().splitlines() if line != "pip --version"]


def test_the_tests_install_once_and_again_when_the_requirements_change(checkout):
    run = "pytest -n auto --dist loadfile --no-loadscope-reorder"
    install = f"pip install --quiet --disable-pip-version-check --editable {checkout}[dev,tensorboard]"
    assert call(checkout, "scripts/test.sh", "-k", "crf", fail="pip install*")[0] != 0
    assert call(checkout, "scripts/test.sh", "-k", "crf")[2] == [
        install,
        f"{run} -k crf",
    ]  # there is a torch: none comes
    assert call(checkout, "scripts/test.sh")[2] == [run]
    (checkout / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    assert call(checkout, "scripts/test.sh")[2] == [install, run]


@pytest.mark.parametrize("version", ["2.8.1", "2.14.0+cpu"])
def test_torch_is_installed_first_where_there_is_none_that_fits(checkout, version):
    pretend_torch(checkout, version)
    calls = call(checkout, "scripts/test.sh")[2]
    assert [line.rpartition(" ")[2] for line in calls[:2]] == ["torch==2.13.0", f"{checkout}[dev,tensorboard]"]


def test_quickstart_trains_evaluates_and_tags(checkout):
    (checkout / "runs" / "quickstart" / "old").mkdir(parents=True)
    (checkout / "runs" / "other").mkdir()
    code, _, calls = call(checkout, "scripts/quickstart.sh")
    assert code == 0
    run = "runs/quickstart"
    assert calls[1:] == [f"seqtext train ner --out {run}", f"seqtext evaluate {run}", f"seqtext predict {run} -"]
    assert [path.name for path in (checkout / "runs").iterdir()] == ["other"]
    assert call(checkout, "scripts/quickstart.sh", fail="seqtext evaluate*")[0] == 1


@pytest.mark.parametrize("failing", ["", "ruff check*", "ruff format*", "mypy*", "pytest*"])
def test_ci_runs_every_part_and_fails_if_one_does(checkout, failing):
    code, errors, calls = call(checkout, ".ci/run", fail=failing)
    assert [line.split()[0] for line in calls[1:]] == ["ruff", "ruff", "mypy", "pytest"]
    assert code == (1 if failing else 0)
    assert ("failed: " in errors) == (failing not in ("", "pytest*"))


def test_an_old_or_missing_python_is_refused(checkout):
    shutil.rmtree(checkout / ".venv")
    old = checkout / "python3.9"
    old.write_text("#!/usr/bin/env bash\n[[ $1 == --version ]] && { echo Python 3.9.1; exit 0; }\nexit 1\n")
    old.chmod(0o755)
    code, message, _ = call(checkout, "scripts/quickstart.sh", PYTHON=str(old))
    assert code == 2 and "is Python 3.9.1, and seqtext needs Python 3.11 or newer" in message
    code, message, _ = call(checkout, "scripts/quickstart.sh", PYTHON="no-such-python")
    assert code == 2 and message.startswith("no-such-python: not found; install Python 3.11 or newer")
    assert not (checkout / ".venv").exists()
