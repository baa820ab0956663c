"""The language modelling task: every token is scored once with its whole past, lines alone as if they were first."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from seqtext import api
from seqtext.config import parse
from seqtext.errors import DataError, RunError
from seqtext.nn.language_model import LanguageModelConfig
from seqtext.run import Run
from seqtext.task import predict_all
from seqtext.tasks import lm
from seqtext.tasks.lm import Lm, LmData

CPU = torch.device("cpu")
TEXT = """\
the cat sat on the mat .
a dog that no one knew
the dog saw <unk> cats and ran

the mat was on the cat
"""


def make(folder: Path, *, text: str = TEXT, unit: str = "word", **data: Any) -> tuple[Any, Any, Any]:
    """Task, an untrained module that is sure of itself, and the text."""
    (folder / "train.txt").write_text(text, encoding="utf-8")
    sizes = {"max_size": 40} if unit in ("bpe", "unigram") else {}
    values = {"source": str(folder), "window": 3, "tokenizer": {"unit": unit, **sizes}, **data}
    settings = parse(LmData, values, source="recipe")
    dataset = Lm.read(settings, "train")
    task: Any = Lm.fit(settings, dataset)
    torch.manual_seed(1)
    encoder = {"hidden_size": 6, "layers": 2}
    model = parse(LanguageModelConfig, {"embedding_size": 6, "encoder": encoder, "init_range": 1.5}, source="recipe")
    return task, task.build(model).eval(), dataset


def by_hand(task: Any, module: Any, ids: list[int]) -> list[float]:
    """The loss of every token, read one by one from the zero state."""
    losses, state, before = [], None, task.eos
    with torch.inference_mode():
        for token in ids:
            output, state = module.step(torch.tensor([before]), state)
            losses.append(-module.softmax.log_probabilities(output)[0, token].item())
            before = token
    return losses


@pytest.mark.parametrize("unit", ["word", "char", "bpe", "unigram"])
def test_a_text_is_scored_token_by_token_with_all_that_went_before(tmp_path: Path, unit: str) -> None:
    task, module, dataset = make(tmp_path, unit=unit)
    stream = task.encode(dataset)
    assert len(stream) == len(dataset) == 4  # the blank line is none
    ids = stream.slice(0, stream.tokens).tolist()
    assert ids.count(task.eos) == 4
    expected = by_hand(task, module, ids)
    found = predict_all(task, module, stream, task.batches(stream, tokens=8192), CPU)
    ends = [place + 1 for place, token in enumerate(ids) if token == task.eos]
    for score, start, end in zip(found, [0, *ends[:-1]], ends, strict=True):
        assert score.nll == pytest.approx(sum(expected[start:end]), rel=1e-5)
        assert score.targets == end - start
        assert score.unknown == ids[start:end].count(1)
    scores = task.score(found, dataset)
    assert scores["perplexity"] == pytest.approx(math.exp(sum(expected) / len(expected)), rel=1e-5)
    characters = sum(len(line) + 1 for line in TEXT.split("\n") if line)
    assert scores["bits_per_character"] == pytest.approx(sum(expected) / math.log(2) / characters, rel=1e-5)
    assert scores["targets"] == len(ids) and scores["unknown"] == (unit == "word")


def test_streams_side_by_side_differ_at_their_beginnings_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, module, dataset = make(tmp_path, text=TEXT * 30)
    stream = task.encode(dataset)

    def total(tokens: int) -> float:
        return sum(score.nll for score in predict_all(task, module, stream, task.batches(stream, tokens=tokens), CPU))

    exact = total(1)
    monkeypatch.setattr(lm, "EVALUATED", 60)
    warmed = total(30)
    monkeypatch.setattr(lm, "WARM_UP", 0)
    cold = total(30)
    assert task.batches(stream, tokens=30).windows.streams == 10
    assert abs(warmed - exact) < 1e-5 * exact < abs(cold - exact) < 0.02 * exact


def test_lines_are_scored_each_from_the_zero_state_in_their_order(tmp_path: Path) -> None:
    task, module, _ = make(tmp_path)
    model = api.Model(Run(tmp_path, None, task, {}), module, CPU)  # type: ignore[arg-type]
    lines = ["the cat", "", "a zebra sat on the mat .", "dog", "   "]
    for tokens in (1, 12, 10**6):
        found = model.predict_prepared([task.prepare(line) for line in lines], batch_tokens=tokens)
        for line, score in zip(lines, found, strict=True):
            if not line.strip():
                assert score == task.empty
                continue
            [ids] = task.prompt([line])
            assert score.nll == pytest.approx(sum(by_hand(task, module, [*ids, task.eos])), rel=1e-5)
            assert (score.targets, score.unknown) == (len(ids) + 1, int("zebra" in line))
    record = task.record(task.prepare(lines[2]), found[2])
    assert record["text"] == lines[2] and record["tokens"] == 8 and record["unknown"] == 1
    assert record["perplexity"] == pytest.approx(math.exp(-record["log_probability"] / 8))
    assert task.record(task.prepare(""), found[1])["perplexity"] is None
    assert task.show(task.prepare("dog"), found[3]) == f"{-found[3].nll:.4f}\tdog"


def test_random_windows_weigh_by_their_length_and_read_all(tmp_path: Path) -> None:
    import numpy as np

    task, module, dataset = make(tmp_path, text=TEXT * 40, window=20, random_windows=True)
    stream = task.encode(dataset)
    batches = list(task.batches(stream, tokens=80, shuffle=np.random.default_rng(1)))
    assert {batch.inputs.shape[0] for batch in batches} == {4}
    lengths = [batch.inputs.shape[1] for batch in batches]
    assert len(set(lengths[:-1])) > 3
    assert [task.loss(module, batch).rate for batch in batches] == [length / 20 for length in lengths]
    assert sum(batch.targets.numel() for batch in batches) == stream.tokens // 4 * 4


def test_a_run_keeps_how_its_text_was_split(tmp_path: Path) -> None:
    task, _, _ = make(tmp_path)
    assert task.pretokenized  # the text has <unk> in it
    task.save(tmp_path)
    again: Any = Lm.load(tmp_path, task.data)
    assert again.pretokenized and again.prompt(["can't stop"]) == task.prompt(["can't stop"])
    (tmp_path / "text.json").write_text("[]")
    with pytest.raises(RunError, match=r"text.json: damaged"):
        Lm.load(tmp_path, task.data)


def test_a_text_of_one_token_is_refused(tmp_path: Path) -> None:
    import numpy as np

    task, _, dataset = make(tmp_path, text="word\n")
    with pytest.raises(DataError, match="a text of one token, line ends apart: a language model needs at least two"):
        list(task.batches(task.encode(dataset), tokens=700, shuffle=np.random.default_rng(0)))
