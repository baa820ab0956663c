"""The commands with a language model: its perplexity on the way, what comes next, and what they refuse."""

from __future__ import annotations

import json
import re

import pytest

import seqtext

LINES = ["the cat sees the dog .", "the dog does n't see the cat .", "a cat and a dog do n't eat .", "the cat sleeps ."]
SMALL = ["model.embedding_size=8", "model.encoder.hidden_size=8", "train.epochs=2", "train.batch_tokens=70"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a folder of text in it."""
    (tmp_path / "mine").mkdir()
    for split, count in (("train", 30), ("valid", 2)):
        text = "".join(f"{line}\n" for line in LINES) * count
        (tmp_path / "mine" / f"{split}.txt").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def made(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_train_says_the_perplexity_and_what_comes_next(cli, refused, folder):
    words = ["train", "lm", *SMALL, "--data", "mine", "--device", "cpu"]
    shown = cli(*words, "--out", "runs/seed-1")
    reached = seqtext.load("runs/seed-1").run.meta["scores"]["valid"]["perplexity"]
    assert shown.out == f"runs/seed-1: valid perplexity {reached:.2f}\n"
    assert re.search(rf"^epoch 2  loss .*  valid perplexity {reached:.2f} \(best\)  left 0:00$", shown.err, re.M)
    commands = ["generate runs/seed-1 --prompt TEXT", "score runs/seed-1 FILE", "report runs/seed-1"]
    assert shown.err.endswith("next: " + "      ".join(f"seqtext {command}\n" for command in commands))
    # Of several seeds the smallest perplexity is the minimum, not called the best.
    lines = cli(*words, "--out", "runs", "--seeds", "2").lines
    values = [seqtext.load(f"runs/seed-{seed}").run.meta["scores"]["valid"]["perplexity"] for seed in (1, 2)]
    assert values[0] == reached != values[1]
    assert lines[0] == "runs: seeds 1, 2"
    assert re.fullmatch(
        rf"valid perplexity: mean \d+\.\d\d, deviation \d+\.\d\d, minimum {min(values):.2f}, maximum {max(values):.2f}",
        lines[1],
    )

    for flags, name in ((["--confidence"], "confidence"), (["--nbest", "2"], "nbest")):
        told = refused("predict", "runs/seed-1", "--json", *flags)
        assert told == f"runs/seed-1: a run of the task lm, which has no option {name}; its options: none"
    assert refused("evaluate", "runs/seed-1", "--split", "valid", "--worst", "3") == (
        "runs/seed-1: a run of the task lm, which has no list of errors"
    )
    [line, empty] = cli("predict", "runs/seed-1", stdin=b"the cat sleeps .\n\n").lines
    [record, _] = [
        json.loads(row) for row in cli("score", "runs/seed-1", "--json", stdin=b"the cat sleeps .\n\n").lines
    ]
    assert line == f"{record['log_probability']:.4f}\tthe cat sleeps ." and empty == "0.0000\t"


def test_one_file_is_cut_in_its_order_and_evaluated_on_the_same_cut(cli, folder):
    text = [f"{line}\n" for line in LINES * 10]
    (folder / "story.txt").write_text("".join(text), encoding="utf-8")
    (folder / "parts").mkdir()
    for split, lines in (("train", text[:32]), ("valid", text[32:36]), ("test", text[36:])):
        (folder / "parts" / f"{split}.txt").write_text("".join(lines), encoding="utf-8")
    words = ["train", "lm", *SMALL, "--device", "cpu"]
    shown = cli(*words, "--data", "story.txt", "data.hold_out=0.1", "--out", "run")
    cli(*words, "--data", "parts", "--out", "other")
    run, other = (seqtext.load(name).run for name in ("run", "other"))
    assert run.meta["scores"] == other.meta["scores"] and set(run.meta["scores"]) == {"valid", "test"}
    assert shown.out.startswith("run: valid perplexity ")
    found = seqtext.evaluate("run", device="cpu")
    assert found.scores == run.meta["scores"]["test"]
    assert f"; test (hold_out 0.1) of {folder / 'story.txt'}; " in found.settings
    # Other data is taken whole.
    whole = seqtext.evaluate("run", "story.txt", device="cpu")
    assert whole.examples == 40 and "; test of story.txt; " in whole.settings
    assert seqtext.train(resume="run", overrides={"train.epochs": 3}, device="cpu").meta["epochs"] == 3


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("cat\n", [], "{mine} (train): a text of one token, line ends apart: a language model needs at least two"),
        ("\n", [], "{mine}/train.txt: no text: it is empty or blank"),
        (
            "a cat\n",
            ["data.tokenizer.unit=bpe"],
            "{recipe}: 1 fault\n  data.tokenizer: max_size must be given for the ",
        ),
        ("a cat\n", ["data.window=0"], "{recipe}: 1 fault\n  data.window: "),
    ],
)
@pytest.mark.parametrize("command", ["train", "check"])
def test_text_that_does_not_do_is_told_and_makes_nothing(refused, folder, command, text, settings, message):
    (folder / "mine" / "train.txt").write_text(text, encoding="utf-8")
    before = made(folder)
    told = refused(command, "lm", *settings, "--data", folder / "mine")
    assert told.startswith(message.format(mine=folder / "mine", recipe=seqtext.shelf.find("lm")))
    assert made(folder) == before


def test_a_label_is_given_to_every_command_that_needs_it(cli, refused, folder):
    rows = "".join(f"{line}\t{label}\n" for line, label in zip(LINES * 20, ["calm", "wild", "wild"] * 30))
    (folder / "moods").mkdir()
    for split in ("train", "valid"):
        (folder / "moods" / f"{split}.tsv").write_text("line\tmood\n" + rows, encoding="utf-8")
    fields = ["data.text_field=line", "data.label_field=mood"]
    shown = cli("train", "lm-conditioned", *SMALL, *fields, "--data", "moods", "--device", "cpu", "--out", "run")
    assert "next: seqtext generate run --label calm --prompt TEXT\n" in shown.err
    lines = cli("evaluate", "run", "--split", "valid").out.splitlines()
    place = lines.index("Documents by label")
    assert lines[place + 1] == "label\tdocuments\ttokens\tperplexity" and lines[place + 2].startswith("calm\t27\t")
    model, ends = seqtext.load("run", device="cpu"), []
    for label in ("calm", "wild"):
        [written] = model.generate("the cat", label=label, greedy=True)
        found = cli("generate", "run", "--label", label, "--prompt", "the cat", "--greedy").out
        assert found == "the cat" + written.text + ("" if written.text.endswith("\n") else "\n")
        [record] = model.records([LINES[0]], label=label)
        [line] = cli("score", "run", "--label", label, stdin=f"{LINES[0]}\n".encode()).lines
        assert line.startswith(f"{record['log_probability']:.4f}\t{record['perplexity']:.4f}\t")
        [line] = cli("predict", "run", "--label", label, stdin=f"{LINES[0]}\n".encode()).lines
        assert line.startswith(f"{record['log_probability']:.4f}\t")
        (seen,) = map(json.loads, cli("inspect", "gates", "run", LINES[0], "--label", label, "--json").lines)
        ends.append(seen["gates"]["state"][-1])
    assert ends[0] != ends[1]
    needed = "this language model is conditioned on a label: give one by --label; its labels: calm, wild"
    for command in (["generate", "run"], ["score", "run"], ["inspect", "gates", "run", LINES[0]]):
        assert refused(*command) == needed
        unknown = "--label loud: this language model knows no such label; its labels: calm, wild"
        assert refused(*command, "--label", "loud") == unknown
    assert refused("generate", "run", "--prompt", "the cat") == needed
    told = refused("train", "lm-conditioned", "data.label_field=feeling", "data.text_field=line", "--data", "moods")
    assert "moods/train.tsv:1: " in told and "'feeling'" in told and "data.label_field" in told
    cli("train", "lm", *SMALL, "--data", "mine", "--device", "cpu", "--out", "other")
    for command in ("generate", "score"):
        told = refused(command, "other", "--label", "calm")
        assert told == "--label calm: this language model was trained without labels (data.label_field)"
