"""The commands with a classifier: what they print, the errors that evaluation lists, and what they refuse."""

from __future__ import annotations

import csv
import json
import shutil

import pytest

import seqtext
from seqtext.data.sentiment_sample import sentiment_sample
from seqtext.errors import InputError

SMALL = {"train.epochs": 3, "model.encoder.hidden_size": 16, "model.embedding.size": 16}
WORDS = [f"{key}={value}" for key, value in SMALL.items()] + ["--device", "cpu"]


@pytest.fixture(scope="session")
def reviews(tmp_path_factory):
    """A folder of CSV files, some texts of the sample each."""
    folder = tmp_path_factory.mktemp("data") / "reviews"
    folder.mkdir()
    for split, size in (("train", 300), ("valid", 40), ("test", 120)):
        with (folder / f"{split}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *sentiment_sample(split, size=size)])
    return folder


@pytest.fixture(scope="session")
def trained(reviews, tmp_path_factory):
    """A run that is often wrong; tests leave it as it is but for errors.jsonl."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return seqtext.train("sentiment", data=str(reviews), overrides=SMALL, out=out, device="cpu").folder


def read(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def made(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_train_says_the_accuracy_and_what_comes_next(cli, reviews, tmp_path):
    shown = cli("train", "sentiment", *WORDS, "--data", reviews, "--out", tmp_path / "run")
    scores = seqtext.load(tmp_path / "run").run.meta["scores"]
    valid, test = (f"{split} accuracy {scores[split]['accuracy']:.4f}" for split in ("valid", "test"))
    assert shown.out == f"{tmp_path / 'run'}: {valid}, {test}\n"
    assert [line for line in shown.err.splitlines() if "(best)" in line][-1].count(f"  {valid} (best)  left ") == 1
    commands = ["evaluate {}", "predict {} FILE", "report {}"]
    commands = [f"seqtext {command.format(tmp_path / 'run')}\n" for command in commands]
    assert shown.err.endswith("next: " + "      ".join(commands))


TEXT = "The plot isn't dull.\n\n I  loved\tthe cast !\n"


def test_predict_prints_label_probability_and_text(cli, trained):
    lines = TEXT.splitlines()
    predictions = seqtext.predict(trained, lines)
    texts = ["The plot isn't dull.", "", "I loved the cast !"]  # no tab, so that there are three columns
    assert cli("predict", trained, stdin=TEXT.encode()).lines == [
        f"{label}\t{max(chances):.4f}\t{text}" if text else "" for (label, chances), text in zip(predictions, texts)
    ]
    records = [json.loads(line) for line in cli("predict", trained, "--json", stdin=TEXT.encode()).lines]
    assert records == seqtext.load(trained).records(lines)
    assert [list(record["probabilities"]) for record in records] == [
        ["negative", "positive"],
        [],
        ["negative", "positive"],
    ]
    assert sum(records[0]["probabilities"].values()) == pytest.approx(1.0, abs=2e-6)
    assert (records[0]["label"], records[1]["label"]) == (predictions[0].label, None)


def test_texts_that_are_not_read_whole_are_told_by_every_command(cli, reviews, tmp_path):
    settings = [*WORDS, "train.epochs=1", "data.max_tokens=4"]
    shown = cli("train", "sentiment", *settings, "--data", reviews, "--out", tmp_path / "run")
    told = [line for line in shown.err.splitlines() if line.startswith("warning: ")]
    rule = 'longer than data.max_tokens = 4: only their first 4 tokens are read (data.long = "head")'
    assert [line.split(":")[1].strip() for line in told] == ["train", "valid", "test"]
    assert all(line.endswith(rule) for line in told)
    assert told[2] in cli("evaluate", tmp_path / "run").err.splitlines()
    lines = b"Good .\nNot very good at all .\nBad .\nI did not like it .\n"
    assert cli("predict", tmp_path / "run", stdin=lines).err.splitlines()[-2:] == [
        'note: line 2: 4 of 6 tokens are read (data.long = "head")',
        "note: 2 of 4 lines were not read whole",
    ]
    whole = cli("train", "sentiment", *settings, "data.long=windows", "--data", reviews, "--out", tmp_path / "other")
    assert "warning: " not in whole.err


@pytest.mark.parametrize(
    ("flags", "options", "name"),
    [(["--nbest", "2"], {"nbest": 2}, "nbest"), (["--confidence"], {"confidence": True}, "confidence")],
)
def test_options_of_other_tasks_are_refused_before_a_line_is_read(refused, trained, flags, options, name):
    message = f"{trained}: a run of the task sentiment, which has no option {name}; its options: none"
    assert refused("predict", trained, "--json", *flags, stdin=b"\xff\n") == message
    model = seqtext.load(trained)
    model.task.prepare = None  # whoever prepares a text fails
    calls = (model.predict, model.records, model.stream, model.predict_prepared, model.predict_encoded)
    for call in calls:
        with pytest.raises(InputError) as caught:
            call(["fine"], **options)
        assert str(caught.value) == message


def test_a_tagger_names_the_options_it_has(run):
    with pytest.raises(InputError, match=r"task ner, which has no option best; its options: confidence, nbest$"):
        seqtext.predict(run, ["fine"], best=2)


def test_evaluate_writes_what_it_is_most_confidently_wrong_about(cli, trained, reviews, tmp_path):
    examples = list(sentiment_sample("test", size=120))
    predictions = seqtext.predict(trained, [text for text, _ in examples])
    wrong = [
        (max(chances), number, text, gold, label)
        for number, ((text, gold), (label, chances)) in enumerate(zip(examples, predictions), start=1)
        if label != gold
    ]
    wrong.sort(key=lambda entry: (-entry[0], entry[1]))
    assert len(wrong) > 20
    plain = cli("evaluate", trained, "--json")
    file = trained / "errors.jsonl"
    assert plain.err == f"{file}: the {min(50, len(wrong))} examples that it is most confidently wrong about\n"
    found = read(file)
    assert len(found) == min(50, len(wrong))
    facts = {"split": "test", "data": str(reviews)}
    for line, (chance, number, text, gold, label) in zip(found, wrong):
        assert line == facts | {
            "example": number,
            "gold": gold,
            "predicted": label,
            "probability": pytest.approx(chance, abs=1e-4),
            "text": text,
        }
    elsewhere = tmp_path / "few.jsonl"
    before = file.read_bytes()
    few = cli("evaluate", trained, "--json", "--worst", "3", "--errors", elsewhere)
    assert few.err == f"{elsewhere}: the 3 examples that it is most confidently wrong about\n"
    assert read(elsewhere) == found[:3] and file.read_bytes() == before and few.out == plain.out
    one = cli("evaluate", trained, "--worst", "1", "--split", "valid")
    assert one.err == f"{file}: the 1 example that it is most confidently wrong about\n"
    assert [line["split"] for line in read(file)] == ["valid"]
    assert not [name for name in made(trained) if name.endswith(".tmp")]


def test_a_run_folder_that_cannot_be_written_is_evaluated_all_the_same(cli, refused, trained, tmp_path):
    mine = shutil.copytree(trained, tmp_path / "mine", ignore=shutil.ignore_patterns("errors.jsonl"))
    (mine / "errors.jsonl").mkdir()
    shown = cli("evaluate", mine)
    assert shown.status == 0 and shown.lines[0] == "All classes"
    assert shown.err.startswith(f"note: {mine / 'errors.jsonl'}: cannot be written: ")
    assert shown.err.endswith("; --errors FILE writes the errors elsewhere\n") and shown.err.count("\n") == 1
    assert made(mine / "errors.jsonl") == [] and not [name for name in made(mine) if name.endswith(".tmp")]
    # What was asked for by name is a fault, and told before anything is computed.
    assert refused("evaluate", "no-run", "--errors", mine) == (f"--errors {mine}: this is a folder; a file is expected")
    assert refused("evaluate", "no-run", "--errors", mine / "no" / "e.jsonl") == (
        f"--errors {mine / 'no' / 'e.jsonl'}: {mine / 'no'}: no such folder"
    )


@pytest.mark.parametrize("flags", [["--errors", "e.jsonl"], ["--worst", "3"]])
def test_a_task_that_lists_no_errors_says_so(refused, run, flags, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused("evaluate", run, *flags) == f"{run}: a run of the task ner, which has no list of errors"
    assert made(tmp_path) == [] and not (run / "errors.jsonl").exists()


ROWS = "text,label\n" + "It is dull,bad\nIt is fun,good\n" * 4
WRONG = [
    ("train", "text,stars\nIt is dull,1\n", [], "{file}:1: no column 'label' (data.label_field); found: text, stars; "),
    (
        "train",
        "text,label\nIt is dull,bad\nSo dull,bad\n",
        [],
        "{file}: all 2 examples have the label 'bad'; at least ",
    ),
    ("train", ROWS + " ,bad\n", [], "{file}:10: empty text ('text')"),
    (
        "test",
        ROWS + "So so,meh\n",
        [],
        "{folder} (test): example 9: label 'meh' was never seen in training; the labels ",
    ),
    ("valid", "text,label\n", [], "{file}: no row in it"),
    ("train", ROWS, ["data.labels=binary"], "{file}:2: label 'bad', but data.labels = \"binary\" needs labels from 0 "),
    ("train", ROWS, ["data.phrases=true"], "{file}: data.phrases = true needs trees, and this is csv"),
    ("train", ROWS, ["data.label_field=stars"], "{file}:1: no column 'stars' (data.label_field); found: text, label; "),
    ("train", ROWS, ["data.max_tokens=0"], "{recipe}: 1 fault\n  data.max_tokens: "),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with a folder of data in it."""
    (tmp_path / "mine").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "mine" / f"{split}.csv").write_text(ROWS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("split", "content", "settings", "message"), WRONG)
@pytest.mark.parametrize("command", ["train", "check"])
def test_data_that_does_not_do_is_told_and_makes_nothing(refused, folder, command, split, content, settings, message):
    file = folder / "mine" / f"{split}.csv"
    file.write_text(content, encoding="utf-8")
    before = made(folder)
    told = refused(command, "sentiment", *settings, "--data", folder / "mine")
    recipe = seqtext.shelf.find("sentiment")
    assert told.startswith(message.format(file=file, folder=folder / "mine", recipe=recipe))
    assert made(folder) == before


def test_a_class_that_only_the_evaluated_data_has_is_told(refused, trained, folder):
    told = refused("evaluate", trained, "--data", "mine/test.csv")
    assert told == (
        "mine/test.csv (test): example 1: label 'bad' was never seen in training; "
        "the labels of the training data are negative, positive"
    )
