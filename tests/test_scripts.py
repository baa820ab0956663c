"""The scripts: the benchmark measures what it names, the shell scripts install once and fail when a part fails."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
import measure  # noqa: E402

SHELL = [ROOT / ".ci" / "run", *sorted((ROOT / "scripts").glob("*.sh"))]


@pytest.mark.slow
def test_the_benchmark_prints_its_figures_and_counts_operations(tmp_path):
    hidden, labels, words = 100, 17, 50 + 8  # of recipes/ner.toml
    command = [sys.executable, str(ROOT / "scripts" / "bench_ner.py"), "--recipe", "ner", "--repeats", "1", "--peak"]
    command += ["--sentences", "40", "--threads", "1", "--json", str(tmp_path / "figures.json")]
    command += ["--set", 'model.embedding.characters.name="none"']
    environment = os.environ | {"SEQTEXT_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "figures.json").read_text())
    figures = {name: values["median"] for name, values in written["figures"].items()}
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
    assert written["settings"]["labels"] == labels
    # Two directions of four gates over a word and a state, and a label's score from both states; two FLOPs a weight.
    weights = 2 * 4 * hidden * (words + hidden) + 2 * hidden * labels
    assert figures["training kFLOP a token, forward"] == pytest.approx(2 * weights / 1e3)


def test_the_benchmark_refuses_data_that_is_not_there(tmp_path):
    command = [sys.executable, str(ROOT / "scripts" / "bench_ner.py"), "--recipe", "ner", "--data", "nowhere"]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 1
    assert done.stderr.startswith("bench_ner.py: ") and "nowhere: no such folder" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_kernel_seconds_tells_recurrence_from_matrix_products(kind):
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


def test_chunks_count_tokens_across_epochs():
    from seqtext.training.loop import Finished, Stepped

    def step(tokens):
        return Stepped(0, 1, tokens, 0.1, None, None, lambda: None)

    # Two epochs of 10 + 5 + 20 and 7 + 30 tokens, each event with its epoch's sum so far.
    events = iter([step(10), step(15), step(35), step(7), step(37), Finished(5, 2, "")])
    take = measure.chunks(events, steps=2)
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
    install = f"pip install --quiet --disable-pip-version-check --editable {checkout}[dev,tensorboard]"
    assert call(checkout, "scripts/test.sh", "-k", "crf", fail="pip install*")[0] != 0
    assert call(checkout, "scripts/test.sh", "-k", "crf")[2] == [
        install,
        "pytest -k crf",
    ]  # there is a torch: none comes
    assert call(checkout, "scripts/test.sh")[2] == ["pytest"]
    (checkout / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    assert call(checkout, "scripts/test.sh")[2] == [install, "pytest"]


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
