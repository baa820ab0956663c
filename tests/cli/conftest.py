"""The command line in this process, and one small run that all its tests use."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import seqtext
from seqtext.cli.app import main
from seqtext.data.samples import ner_sample
from tests.cli import toy


class Result(NamedTuple):
    """What a command left."""

    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


@pytest.fixture
def cli(monkeypatch, capsys):
    """`cli("train", "ner", stdin=b"...")` -> exit status, standard output and standard error."""

    def call(*words, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["seqtext", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code or 0
        return Result(status, *capsys.readouterr())

    return call


@pytest.fixture
def refused(cli):
    """`refused("train", "nerr")` -> the one message of a command that must exit with 2, print nothing, make nothing."""

    def call(*words, stdin=b"", out=""):
        result = cli(*words, stdin=stdin)
        assert (result.status, result.out) == (2, out), result.err
        assert result.err.startswith("seqtext: ") and "Traceback" not in result.err
        assert "\x1b[" not in result.err
        return result.err.removeprefix("seqtext: ").removesuffix("\n")

    return call


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A folder of CoNLL files, some sentences of the sample each."""
    folder = tmp_path_factory.mktemp("data") / "corpus"
    folder.mkdir()
    for split, size in (("train", 400), ("valid", 40), ("test", 60)):
        sentences = ner_sample(split, size=size)
        text = "\n".join("".join(f"{token} {tag}\n" for token, tag in zip(*sentence)) for sentence in sentences)
        (folder / f"{split}.conll").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def run(corpus, tmp_path_factory) -> Path:
    """A run that has learned something; tests leave it as it is."""
    overrides = {"train.epochs": 4, "model.encoder.hidden_size": 32, "train.optimizer.lr": 0.01}
    out = tmp_path_factory.mktemp("runs") / "run"
    return seqtext.train("ner", data=str(corpus), overrides=overrides, out=out, device="cpu").folder


@pytest.fixture(scope="session")
def sentences(tmp_path_factory) -> Path:
    """A folder of parallel files."""
    return toy.write(tmp_path_factory.mktemp("data") / "sentences")


@pytest.fixture(scope="session")
def translator(sentences, tmp_path_factory) -> Path:
    """A run that translates most sentences of pieces; tests leave it as it is but for best.jsonl and worst.jsonl."""
    return toy.trained(sentences, tmp_path_factory.mktemp("runs") / "good", epochs=15, seed=3)


@pytest.fixture(scope="session")
def beginner(sentences, tmp_path_factory) -> Path:
    """A run of the same vocabulary that has learned little; tests leave it as it is."""
    return toy.trained(sentences, tmp_path_factory.mktemp("runs") / "poor", epochs=4, seed=2)


@pytest.fixture(scope="session")
def worded(sentences, tmp_path_factory) -> Path:
    """A run that translates words, and knows no names; tests leave it as it is."""
    return toy.trained(sentences, tmp_path_factory.mktemp("runs") / "words", epochs=15, **toy.WORDS)
