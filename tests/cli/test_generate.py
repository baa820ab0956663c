"""`seqtext generate` and `seqtext score` print what the Python API gives, and say what they cannot do."""

from __future__ import annotations

import json
import math

import pytest

import seqtext

LINES = ["the cat sees the dog .", "the dog does n't see the cat .", "a cat and a dog do n't eat .", "the cat sleeps ."]
SMALL = {
    "data.tokenizer.min_frequency": 1,
    "model.embedding_size": 16,
    "model.encoder.hidden_size": 16,
    "model.input_dropout": 0.0,
    "model.output_dropout": 0.0,
    "train.epochs": 8,
    "train.batch_tokens": 70,
    "train.optimizer.lr": 0.02,
}


def trained(folder, **settings):
    for split, count in (("train", 60), ("valid", 4)):
        (folder / f"{split}.txt").write_text("".join(f"{line}\n" for line in LINES) * count, encoding="utf-8")
    overrides = SMALL | {"data.tokenizer.unit": "word"} | settings
    return seqtext.train("lm", data=str(folder), overrides=overrides, out=folder / "run", device="cpu").folder


@pytest.fixture(scope="session")
def words(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="session")
def letters(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("letters"), **{"data.tokenizer.unit": "char"})


def test_generate_prints_prompt_and_text_as_the_model_writes_them(cli, words):
    model = seqtext.load(words, device="cpu")
    [written] = model.generate("the cat", seed=3, max_tokens=30)
    shown = cli("generate", words, "--prompt", "the cat", "--seed", "3", "--max-tokens", "30")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out == "the cat" + written.text + ("" if written.text.endswith("\n") else "\n")
    # What is learned is written in the manner of print.
    greedy = cli("generate", words, "--greedy", "--lines", "2", "--prompt", "the dog does").out
    assert greedy.startswith("the dog doesn't see the ") and greedy.count(".\n") == 2 and " ." not in greedy
    assert cli("generate", words, "--greedy", "--lines", "2", "--prompt", "-", stdin=b"the dog does\n").out == greedy


def test_generate_with_json_tells_all_of_every_sample(cli, letters):
    options = {"samples": 3, "max_tokens": 40, "temperature": 0.9, "top_k": 8, "top_p": 0.95, "seed": 5, "stop": ["do"]}
    written = seqtext.load(letters, device="cpu").generate("a c", **options)
    flags = ["--samples", 3, "--max-tokens", 40, "--temperature", 0.9, "--top-k", 8, "--top-p", 0.95, "--seed", 5]
    shown = cli("generate", letters, "--prompt", "a c", *flags, "--stop", "do", "--json")
    assert [json.loads(line) for line in shown.lines] == [text._asdict() for text in written]
    assert list(json.loads(shown.lines[0])) == ["prompt", "text", "tokens", "log_probability", "reason"]


def test_several_texts_are_parted_unless_each_is_a_line(cli, words):
    model = seqtext.load(words, device="cpu")
    texts = [text.text for text in model.generate("the", samples=3, lines=2, max_tokens=60, seed=1)]
    shown = cli("generate", words, "--prompt", "the", "--samples", 3, "--lines", 2, "--max-tokens", 60, "--seed", 1)
    assert all(text.endswith("\n") for text in texts)
    assert shown.out == "\n".join(f"the{text}" for text in texts)
    assert len(cli("generate", words, "--samples", 5, "--lines", 1, "--seed", 1).lines) == 5
    best = cli("generate", words, "--prompt", "the", "--beam", 6, "--samples", 4).lines
    assert best == [("the" + text.text).rstrip("\n") for text in model.generate("the", beam=6, samples=4)]
    assert len(set(best)) == 4


def test_what_the_model_does_not_know_of_the_prompt_is_told(cli, words, letters):
    shown = cli("generate", words, "--prompt", "the zebra", "--lines", "1", "--greedy")
    assert shown.err == "note: the model does not know 'zebra', and reads <unk> instead\n"
    assert shown.status == 0 and shown.out.startswith("the zebra")
    shown = cli("generate", letters, "--prompt", "the Käfer", "--lines", "1", "--greedy")
    assert shown.err == "note: the model does not know 'K', 'ä', 'f', 'r', and reads <unk> instead\n"
    assert shown.out.startswith("the Käfer")
    many = "".join(map(chr, range(0x4E00, 0x4E0F)))
    told = cli("generate", letters, "--prompt", many, "--max-tokens", "1").err
    assert told.count("'") == 20 and told.endswith(" and 5 more, and reads <unk> instead\n")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--temperature", "0"], "--temperature 0: expected a number above 0; --greedy takes the most probable token"),
        (["--temperature", "-1"], "--temperature -1: expected a number above 0"),
        (["--top-p", "1.5"], "--top-p 1.5: expected a number above 0 and at most 1"),
        (["--top-p", "0"], "--top-p 0: expected a number above 0 and at most 1"),
        (["--top-k", "0"], "--top-k 0: expected a whole number, 1 or more"),
        (["--max-tokens", "0"], "--max-tokens 0: expected a whole number, 1 or more"),
        (["--stop", ""], "--stop '': expected at least one character"),
        (["--beam", "2", "--samples", "3"], "--samples 3: --beam 2 has at most 2 results"),
    ],
)
def test_options_out_of_range_are_refused_before_the_run_is_looked_for(refused, flags, message):
    assert refused("generate", "no-run", *flags).startswith(message)


def test_a_run_that_writes_nothing_is_refused(refused, run):
    assert refused("generate", run) == f"{run}: a run of the task ner; seqtext generate needs a language model's"
    assert (
        refused("score", run)
        == f"{run}: a run of the task ner; seqtext score needs a language model's or a translator's"
    )
    assert refused("score", "no-run", "no-file") == "no-file: no such file"
    assert refused("generate", "no-run") == "no-run: no such run folder"


TEXT = "the cat sleeps .\n\nthe the the .\nthe zebra sleeps .\ncat sleeps the .\n"


def test_score_gives_each_line_its_probability_in_order(cli, words, tmp_path):
    model = seqtext.load(words, device="cpu")
    expected = [model.task.record(*pair) for pair in model.stream(TEXT.splitlines())]
    shown = cli("score", words, stdin=TEXT.encode())
    rows = [line.split("\t") for line in shown.lines]
    assert len(rows) == 5 and rows[1] == ["0.0000", "nan", "0", "0"] and rows[1][0] != "-0.0000"
    for row, record in zip(rows, expected):
        if record["tokens"]:
            assert row == [
                f"{record['log_probability']:.4f}",
                f"{record['perplexity']:.4f}",
                str(record["tokens"]),
                str(record["unknown"]),
            ]
    log_probabilities = [float(row[0]) for row in rows]
    assert log_probabilities[0] > log_probabilities[4] > -1000 and log_probabilities[0] > log_probabilities[2]
    assert [row[2:] for row in rows] == [["5", "0"], ["0", "0"], ["5", "0"], ["5", "1"], ["5", "0"]]
    assert float(rows[0][1]) == pytest.approx(math.exp(-float(rows[0][0]) / 5), rel=1e-4)
    (tmp_path / "text").write_text(TEXT, encoding="utf-8")
    assert cli("score", words, tmp_path / "text").out == shown.out
    assert cli("score", words, "-", "--batch-tokens", 1, stdin=TEXT.encode()).lines == shown.lines
    found = [json.loads(line) for line in cli("score", words, "--json", stdin=TEXT.encode()).lines]
    assert [record["text"] for record in found] == TEXT.splitlines()
    assert list(found[0]) == ["text", "log_probability", "perplexity", "tokens", "unknown"]
    assert found[1]["perplexity"] is None


def test_a_line_scores_what_it_was_written_with(cli, words):
    """The probability of greedy text while it was written is the one that scoring gives it afterwards."""
    [written] = seqtext.load(words, device="cpu").generate("", greedy=True, lines=1)
    line = " ".join(written.text.replace("n't", " n't").replace(".", " .").split())
    scored = json.loads(cli("score", words, "--json", stdin=line.encode()).out)
    assert scored["tokens"] == written.tokens
    assert scored["log_probability"] == pytest.approx(written.log_probability, abs=1e-4)
