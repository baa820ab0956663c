"""`seqtext translate`: what the Python API gives, in order, for any input; its options, and what it refuses."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import seqtext
from seqtext.errors import InputError

ROOT = Path(seqtext.__file__).parent.parent
TEXT = "The cat sees the dog.\n\nThe dog finds the man.\n   \nThe horse hears the woman, and the cat!\nThe woman"
LINES = TEXT.split("\n")


def records(result):
    assert result.status == 0, result.err
    return [json.loads(line) for line in result.lines]


def process(*words, **options):
    """`python -m seqtext` in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-m", "seqtext", *map(str, words)], env=environment, **options)


def test_a_translation_a_line_in_the_order_of_the_input(cli, translator, tmp_path):
    shown = cli("translate", translator, stdin=TEXT.encode())
    assert (shown.status, shown.err) == (0, "")
    assert shown.lines[:4] == ["Die Katze sieht den Hund.", "", "Der Hund findet den Mann.", ""]
    assert shown.lines == [one.text for one in seqtext.predict(translator, LINES)] and all(shown.lines[4:])
    (tmp_path / "a").write_text(TEXT, encoding="utf-8")
    (tmp_path / "b").write_bytes(b"\xef\xbb\xbfThe dog finds the man.\r\n")
    assert (
        cli("translate", translator, tmp_path / "a").out == cli("translate", translator, "-", stdin=TEXT.encode()).out
    )
    several = cli("translate", translator, tmp_path / "b", "-", tmp_path / "b", stdin=TEXT.encode()).lines
    assert several == [shown.lines[2], *shown.lines, shown.lines[2]]
    assert cli("translate", translator, stdin=b"") == (0, "", "")
    assert cli("predict", translator, stdin=TEXT.encode()).out == shown.out


def test_json_gives_what_the_model_predicts(cli, translator):
    found = records(cli("translate", translator, "--json", "--nbest", 3, "--attention", stdin=TEXT.encode()))
    model = seqtext.load(translator)
    predictions = model.predict(LINES, nbest=3, attention=True)
    assert [line["source"] for line in found] == LINES
    assert [line["translation"] for line in found] == [prediction.text for prediction in predictions]
    assert found[1] == {"source": "", "translation": "", "score": None, "log_probability": None}
    for line, prediction in zip(found, predictions):
        if not prediction.candidates:
            continue
        assert [one["text"] for one in line["nbest"]] == [one.text for one in prediction.candidates]
        scores = [one["score"] for one in line["nbest"]]
        assert scores == sorted(scores, reverse=True) and len(set(scores)) == 3 and line["score"] == scores[0]
        attention = line["attention"]
        assert "".join(attention["target"][:-1]).replace("▁", " ").strip() == line["translation"]
        pieces = "".join(attention["source"][:-1]).replace("<0x2C>", ",").replace("<0x21>", "!")
        assert pieces.replace("▁", " ").strip() == line["source"]
        assert attention["source"][-1] == attention["target"][-1] == "</s>"
        assert len(attention["weights"]) == len(attention["target"])
        assert [sum(row) for row in attention["weights"]] == pytest.approx([1.0] * len(attention["target"]), abs=5e-3)
    plain = records(cli("translate", translator, "--json", stdin=TEXT.encode()))
    assert list(plain[0]) == ["source", "translation", "score", "log_probability"]
    # At alpha = 1 a score is the log-probability of a token, the end among them.
    assert plain[0]["log_probability"] / plain[0]["score"] == pytest.approx(len(found[0]["attention"]["target"]))


def test_other_numbers_change_scores_a_little(cli, refused, translator):
    whole = records(cli("translate", translator, "--json", stdin=TEXT.encode()))
    half = records(cli("translate", translator, "--json", "--precision", "bf16", stdin=TEXT.encode()))
    scores = [[line["score"] for line in lines if line["source"].strip()] for lines in (whole, half)]
    assert scores[0] != scores[1] == pytest.approx(scores[0], rel=0.2)
    told = refused("translate", translator, "--precision", "half", stdin=b"A\n")
    assert told == "--precision half: expected float32, bf16 or auto"


def test_n_best_lists_are_those_of_moses(cli, translator):
    shown = cli("translate", translator, "--nbest", 2, "--beam", 4, stdin=TEXT.encode())
    expected = []
    for number, prediction in enumerate(seqtext.predict(translator, LINES, nbest=2, beam=4)):
        lines = [f"{number} ||| {one.text} ||| {one.score:.4f}" for one in prediction.candidates]
        expected += lines or [f"{number} |||  ||| 0.0000"]
    assert len(expected) == 10 and shown.lines == expected
    assert shown.lines[0].startswith("0 ||| Die Katze sieht den Hund. ||| -0.")


@pytest.mark.parametrize("flags", [[], ["--beam", 2, "--alpha", 0.5], ["--sample", "--nbest", 2, "--temperature", 2]])
def test_what_stands_beside_a_sentence_changes_nothing(cli, translator, sentences, flags):
    text = (sentences / "test.en").read_text() + TEXT
    shown = cli("translate", translator, *flags, stdin=text.encode())
    assert len({line.partition("|||")[2] for line in shown.lines}) > 10 or len(set(shown.lines)) > 10
    alone = cli("translate", translator, "--batch-tokens", 1, *flags, stdin=text.encode())
    scores = re.compile(r"-?\d+\.\d{4}$")
    assert [scores.sub("", line) for line in alone.lines] == [scores.sub("", line) for line in shown.lines]
    turned = "\n".join(reversed(text.split("\n")))
    if not flags:
        assert cli("translate", translator, stdin=turned.encode()).lines == shown.lines[::-1]


EVERY = {
    "--beam": 7,
    "--nbest": 2,
    "--alpha": 0.5,
    "--length-penalty": "wu",
    "--coverage-penalty": 0.1,
    "--min-length": 3,
    "--max-length": 9,
    "--min-ratio": 0.25,
    "--max-ratio": 0.75,
    "--block-ngrams": 2,
    "--prefix": "Der",
}
DRAWN = {"--temperature": 0.5, "--top-k": 5, "--top-p": 0.5, "--seed": 9}


def named(flags):
    return {flag.removeprefix("--").replace("-", "_"): value for flag, value in flags.items()}


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ([], {}),
        (itertools.chain(*EVERY.items()), named(EVERY)),
        (["--no-early", "--replace-unknown", "--attention", "--json"],
         {"early": False, "replace_unknown": True, "attention": True}),
        (["--early", "--beam", 1], {"early": True, "beam": 1}),
        (["--sample", *itertools.chain(*DRAWN.items())], {"sample": True, **named(DRAWN)}),
    ],
)  # fmt: skip
def test_only_what_is_given_is_asked_of_the_model(cli, translator, monkeypatch, words, options):
    asked = []
    predict = seqtext.load(translator).task.__class__.predict

    def watched(self, module, batch, carry=None, **given):
        asked.append(given)
        return predict(self, module, batch, carry, **given)

    monkeypatch.setattr("seqtext.tasks.translation.TranslationTask.predict", watched)
    assert cli("translate", translator, *words, stdin=b"The cat sees the dog.\n").status == 0
    assert asked == [options]


def test_limits_prefixes_and_blocks_hold(cli, translator, sentences):
    text = (sentences / "test.en").read_bytes()

    def found(*flags):
        return records(cli("translate", translator, "--json", "--attention", *flags, stdin=text))

    def sizes(*flags):
        return [len([token for token in line["attention"]["target"] if token != "</s>"]) for line in found(*flags)]

    assert max(sizes("--max-length", 4)) == 4 and min(sizes("--min-length", 20)) >= 20 > max(sizes())
    begun = [line["translation"] for line in found("--prefix", "Eine Frau hört", "--max-ratio", 0.01)]
    assert all(line.startswith("Eine Frau hört") for line in begun) and len(set(begun)) > 1
    for line in found("--block-ngrams", 1, "--min-length", 20):
        tokens = line["attention"]["target"]
        assert len(set(tokens)) == len(tokens)


def test_unknown_words_are_copied_from_where_the_model_looks(cli, worded):
    text = b"Xaver hears the horse.\nThe cat sees the dog.\n"
    assert "Xaver" not in cli("translate", worded, stdin=text).out
    shown = cli("translate", worded, "--replace-unknown", stdin=text)
    assert shown.lines == ["Xaver hört das Pferd.", "Die Katze sieht den Hund."]


def test_an_ensemble_translates_by_the_mean_of_its_members(cli, refused, translator, beginner, worded, run):
    text = TEXT.encode()

    def scores(*flags):
        return [line["score"] for line in records(cli("translate", translator, "--json", *flags, stdin=text))]

    alone, twice = scores(), scores("--ensemble", translator)
    assert [score or 0.0 for score in twice] == pytest.approx([score or 0.0 for score in alone], abs=1e-4)
    mixed = scores("--ensemble", beginner, "--ensemble", translator)
    assert mixed[0] < alone[0] - 0.01  # the beginner is not so sure
    # What is written has the probability that scoring gives it.
    model = seqtext.load(translator, ensemble=[beginner], device="cpu")
    [best] = model.predict(LINES[:1])[0].candidates
    [(_, forced)] = model.stream_prepared([model.task.prepare_pair(LINES[0], best.text)], forced=True)
    assert -forced.nll == pytest.approx(best.log_probability, abs=1e-4)

    same = "they must have the same source vocabulary and target vocabulary"
    told = refused("translate", translator, "--ensemble", beginner, "--ensemble", worded, stdin=text)
    assert told == f"{translator} and {worded} cannot be one ensemble: {same}"
    told = refused("translate", translator, "--ensemble", run)
    assert told == f"{run}: a run of the task ner, and {translator} one of translation: they cannot be one ensemble"
    assert refused("translate", run, "--ensemble", translator) == (
        f"{run}: a run of the task ner, of which there are no ensembles"
    )


def test_an_ensemble_of_other_languages_is_refused(refused, translator, tmp_path):
    other = Path(shutil.copytree(translator, tmp_path / "other"))
    recipe = (other / "recipe.toml").read_text()
    (other / "recipe.toml").write_text(recipe.replace('target_language = "de"', 'target_language = "nl"'))
    told = refused("translate", translator, "--ensemble", other)
    assert told == f"{translator} and {other} cannot be one ensemble: they must have the same pair of languages"


def test_attention_is_drawn_for_every_line_that_has_words(cli, refused, translator, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "pictures"
    shown = cli("translate", translator, "--plot", folder, stdin=TEXT.encode())
    assert shown == cli("translate", translator, stdin=TEXT.encode())
    assert sorted(path.name for path in folder.iterdir()) == ["1.png", "3.png", "5.png", "6.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())
    records(cli("translate", translator, "--json", "--plot", folder, "--plot-format", "svg", stdin=TEXT.encode()))
    assert "attention" not in cli("translate", translator, "--json", "--plot", folder, stdin=b"The cat\n").out
    drawn = (folder / "1.svg").read_text(encoding="utf-8")
    model = seqtext.load(translator)
    [attention] = [prediction.attention for prediction in model.predict(LINES[:1], attention=True)]
    for token in (*attention.source[:-1], *attention.target[:-1]):
        assert f">{token}</text>" in drawn
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    told = refused("translate", "no-run", "--plot", folder)
    assert told == '--plot needs matplotlib: pip install "seqtext[plot]"'


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--beam", 0], "--beam 0: expected a whole number, 1 or more"),
        (["--nbest", 6], "--nbest 6: expected 1 to 5, the size of the beam"),
        (["--nbest", 3, "--beam", 2], "--nbest 3: expected 1 to 2, the size of the beam"),
        (["--alpha", -1], "--alpha -1: expected a number, 0 or more"),
        (["--length-penalty", "log"], "--length-penalty log: expected average or wu"),
        (["--max-length", 0], "--max-length 0: expected 1 or more"),
        (["--min-length", 9, "--max-length", 9], "--min-length 9: expected less than --max-length 9"),
        (["--temperature", 0.5], "--temperature: a beam draws nothing; give --sample with it"),
        (["--top-k", 5, "--seed", 1], "--top-k, --seed: a beam draws nothing; give --sample with it"),
        (["--sample", "--temperature", 0],
         "--temperature 0: expected a number above 0; for the most probable tokens leave out --sample$"),
        (["--min-ratio", 3], "--min-ratio 3: expected at most --max-ratio 2"),
        (["--sample", "--plot", "pictures"], "--plot: this needs a beam; leave out --sample"),
        (["--sample", "--beam", 3], "--beam: drawing does not read this; leave out --sample"),
        (["--sample", "--prefix", "Der", "--replace-unknown"],
         "--replace-unknown, --prefix: this needs a beam; leave out --sample"),
        (["--prefix", "Der Hund sieht", "--max-length", 2],
         r"--prefix Der Hund sieht: \d tokens, more than --max-length 2"),
        (["--attention"], "--attention needs --json, which has room for it; --plot draws it"),
        (["--plot-format", "pdf"], "--plot-format pdf: expected png or svg"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_are_refused_before_a_line_is_read(refused, translator, flags, message):
    assert re.match(message, refused("translate", translator, *flags, stdin=b"\xff\n"))


def test_what_cannot_be_read_or_translated_is_one_message(refused, cli, translator, worded, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told = refused("translate", run)
    assert told == f"{run}: a run of the task ner; seqtext translate needs a translator's"
    assert refused("translate", "no-run") == "no-run: no such run folder"
    assert refused("translate", translator, "no-file") == "no-file: no such file"
    Path("letter").write_bytes(b"The dog finds the man.\nM\xfcnchen\n")
    told = refused("translate", translator, "letter", out="Der Hund findet den Mann.\n")
    assert told == "letter:2: byte 0xfc at byte 2 of the line is not UTF-8; convert the file to UTF-8"
    Path("letter").write_bytes(b"The dog finds the man.\nThe c\0t\n")
    nul = "letter:2: a NUL character at 6 of the sentence; this is no text, or it is UTF-16"
    for command in ("translate", "predict"):
        assert refused(command, translator, "letter", out="Der Hund findet den Mann.\n") == nul
    assert refused("score", translator, stdin=b"The c\0t\tDie Katze\n") == nul.replace("letter:2", "standard input:1")
    with pytest.raises(InputError, match=r"^a NUL character at 6 of the sentence"):
        seqtext.predict(translator, ["The c\0t"])
    told = refused("predict", translator, "--pretokenized")
    assert told == "--pretokenized: a translator reads plain text as it is written; leave this out"
    with pytest.raises(InputError, match=r"^--pretokenized: a translator"):
        seqtext.load(translator).predict(["The cat"], pretokenized=True)
    told = refused("translate", worded, "--prefix", "Der Zebra")
    assert told == "--prefix Der Zebra: the model has no token for 'Zebra'"
    assert refused("translate", translator, "--plot", "letter") == "--plot letter: this is a file; a folder is expected"
    assert refused("translate", translator, "--plot", "no/pictures") == "--plot no/pictures: no: no such folder"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letter"]


def test_a_model_without_attention_says_what_needs_it(refused, cli, sentences, tmp_path, monkeypatch):
    settings = ["train.epochs=1", "model.decoder.context=initial", "data.tokenizer.max_size=300"]
    out = tmp_path / "run"
    shown = cli("train", "translation", *settings, "--data", sentences, "--out", out, "--device", "cpu")
    scores = seqtext.load(out).run.meta["scores"]
    assert shown.out == f"{out}: " + ", ".join(f"{split} bleu {scores[split]['bleu']:.2f}" for split in scores) + "\n"
    assert shown.err.endswith(
        f"next: seqtext translate {out} FILE\n      seqtext evaluate {out}\n      seqtext report {out}\n"
    )
    flags = ["--replace-unknown", "--coverage-penalty", 0.5]
    told = refused("translate", out, *flags, stdin=b"\xff\n")
    assert told == "--replace-unknown, --coverage-penalty: this needs a model with attention, and this one has none"
    needs = "this needs a model with attention, and this one has none"
    monkeypatch.chdir(tmp_path)
    assert refused("translate", out, "--plot", "pictures") == f"--plot: {needs}"
    assert refused("translate", out, "--json", "--attention", "--plot", "pictures") == f"--attention, --plot: {needs}"
    assert refused("translate", out, "--json", "--attention") == f"--attention: {needs}"
    assert cli("translate", out, stdin=b"The cat\n").status == 0


def test_a_source_of_5000_tokens_is_translated_whole_up_to_the_maximum_length(cli, translator):
    text = " ".join(["The cat sees the dog, and finds the man!"] * 500)
    [line] = records(cli("translate", translator, "--json", "--attention", "--max-length", 60, stdin=text.encode()))
    attention = line["attention"]
    assert len(attention["source"]) > 5000 and {len(row) for row in attention["weights"]} == {len(attention["source"])}
    assert line["source"] == text and 0 < len(attention["target"]) <= 60
    [short] = cli("translate", translator, "--max-length", 60, stdin=text.encode()).lines
    assert short == line["translation"]


def test_endless_input_is_answered_as_it_comes(translator):
    read = []

    def endless():
        for number in itertools.count():
            read.append(number)
            yield LINES[number % 3]

    model = seqtext.load(translator, device="cpu")
    results = model.stream(endless(), beam=1)
    first = [next(results)[1].text for _ in range(100)]
    assert first[:3] == ["Die Katze sieht den Hund.", "", "Der Hund findet den Mann."] and first[99] == first[0]
    assert len(read) < 200
    with pytest.raises(InputError, match="no option bean; its options: alpha, attention, beam"):
        model.stream(endless(), bean=1)


@pytest.mark.slow
def test_a_reader_that_leaves_early_ends_an_endless_stream(translator):
    pipe = subprocess.PIPE
    yes = subprocess.Popen(["yes", "The cat sees the dog."], stdout=pipe)
    translate = process("translate", translator, "--beam", 1, stdin=yes.stdout, stdout=pipe, stderr=pipe)
    head = subprocess.Popen(["head", "-2"], stdin=translate.stdout, stdout=pipe, text=True)
    yes.stdout.close()
    translate.stdout.close()
    assert head.communicate(timeout=120)[0] == "Die Katze sieht den Hund.\n" * 2
    assert translate.stderr.read() == b""
    assert translate.wait(timeout=120) == 128 + signal.SIGPIPE
    yes.wait(timeout=120)


@pytest.mark.slow
@pytest.mark.parametrize("words", [["translate"], ["translate", "--json"], ["predict"], ["score"]])
def test_every_command_ends_the_same_where_nobody_reads_its_output(translator, words):
    ours, theirs = os.pipe()
    os.close(ours)
    text = b"The cat\tDie Katze\n" if words == ["score"] else b"The cat\n"
    command, *flags = words
    left = process(command, translator, *flags, stdin=subprocess.PIPE, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    assert left.communicate(text, timeout=120)[1] == b"" and left.returncode == 128 + signal.SIGPIPE


@pytest.mark.slow
def test_a_terminal_gets_a_prompt_and_each_answer_at_once(translator):
    ours, theirs = pty.openpty()
    translate = process("translate", translator, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)

    def shown():
        """What comes until the next prompt."""
        text = b""
        while not text.endswith(b"> ") and select.select([ours], [], [], 60)[0]:
            text += os.read(ours, 1000)
        return text.decode().replace("\r\n", "\n")

    assert shown() == "type a sentence a line; Ctrl-D ends\n> "
    for line, answer in (("The cat sees the dog.", "Die Katze sieht den Hund."), ("", "")):
        os.write(ours, f"{line}\n".encode())
        assert shown() == f"{line}\n{answer}\n> "
    os.write(ours, b"\x04")
    assert translate.wait(timeout=60) == 0
    os.close(ours)


@pytest.mark.slow
def test_an_interruption_ends_the_line_of_the_prompt(translator):
    ours, theirs = pty.openpty()
    translate = process("translate", translator, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    text = b""
    while not text.endswith(b"> ") and select.select([ours], [], [], 60)[0]:
        text += os.read(ours, 1000)
    for _ in range(20):  # a signal just before read() would wait for it to return; the next one interrupts it
        translate.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            translate.wait(timeout=3)
            break
    assert translate.returncode == 128 + signal.SIGINT
    assert os.read(ours, 1000) == b"\r\n"
    os.close(ours)


def test_training_tells_what_filters_left_out_as_check_does(cli, sentences, tmp_path):
    settings = ["train.epochs=1", "data.max_length=5", "data.max_ratio=9.0", "data.drop_duplicates=true"]
    words = ["translation", *settings, "data.tokenizer.max_size=300", "--data", sentences, "--device", "cpu"]
    rows = set((sentences / "train.en").read_text(encoding="utf-8").splitlines())
    size = len(rows)
    left = f"0 longer than 5 words, 0 of a length ratio over 9.0, {2 * size} duplicates"
    shown = cli("train", *words, "--out", tmp_path / "run")
    assert shown.err.splitlines()[0] == f"left out of train: {left}"
    facts = json.loads((tmp_path / "run" / "meta.json").read_text(encoding="utf-8"))["data"]
    assert (facts["train"]["left_out"], facts["train"]["examples"]) == (left, size)
    assert "left_out" not in facts["valid"]
    checked = json.loads(cli("check", *words, "--json").out)
    assert checked["train"].endswith(f"; text files en-de; left out: {left}")


@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        ("data.joint=false", "needs one vocabulary for both sides: set model.tied=target, or data.joint=true"),
        ("data.tokenizer.unit=word", "and unit is 'word': set data.tokenizer.byte_fallback=false"),
        ("data.tokenizer.unit=char", "and unit is 'char': set data.tokenizer.byte_fallback=false"),
        ("data.tokenizer.byte_fallback=false", None),
        ("model.tied=target", None),
    ],
)
def test_a_setting_that_needs_another_names_it(cli, refused, sentences, setting, advice):
    words = ["check", "translation", setting, "--data", sentences, "--device", "cpu"]
    if advice is None:
        assert cli(*words).status == 0
        return
    told = refused(*words)
    assert told.endswith(advice)
    more = advice.partition(": set ")[2].partition(",")[0]
    assert cli(*words, more).status == 0
