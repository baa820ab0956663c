"""Every command does what its function of the Python API does, and pipes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer.main

import seqtext
from seqtext.cli.app import app
from seqtext.data.samples import ner_sample
from seqtext.shelf import shipped

ROOT = Path(seqtext.__file__).parent.parent
SMALL = [
    "model.encoder.hidden_size=8",
    "model.embedding.characters.name=none",
    "train.epochs=1",
    "train.schedule.name=constant",
]


def process(*words, stdin=b"", **variables):
    """`python -m seqtext` in a process of its own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, "-m", "seqtext", *map(str, words)]
    return subprocess.run(command, input=stdin, env=environment, capture_output=True, timeout=120, check=False)


def commands():
    """Every command with its words."""
    root = typer.main.get_command(app)
    listed = [([], root)]
    for words, command in listed:
        listed += [([*words, name], sub) for name, sub in getattr(command, "commands", {}).items()]
    return listed


@pytest.mark.parametrize(
    ("words", "command"), commands(), ids=lambda value: " ".join(value) if type(value) is list else ""
)
def test_help_documents_every_option_and_argument(words, command, cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    shown = cli(*words, "--help")
    assert shown.status == 0 and command.help
    for parameter in command.params:
        assert getattr(parameter, "help", ""), f"{words}: {parameter.name} has no help"
        if parameter.param_type_name == "option":
            assert all(name in shown.out for name in parameter.opts)
        assert parameter.help.split(";")[0].split(":")[0][:40] in re.sub(r"\s+", " ", shown.out)
    # What is in brackets is there, and not taken for Rich's markup: pip install "seqtext[onnx]".
    texts = [command.help, *(parameter.help for parameter in command.params)]
    for bracketed in re.findall(r"[^\s\\]*\\?\[[^]]*\]", " ".join(texts)):
        assert bracketed.replace("\\[", "[") in shown.out
    assert cli(*words, "-h").out == shown.out


LEAN = """
import sys
from seqtext.cli.app import app
import typer.main, typer.testing
result = typer.testing.CliRunner().invoke(app, sys.argv[1:])
assert result.exit_code == 0, result.output
heavy = {"torch", "datasets", "accelerate", "numpy", "pyarrow", "nltk", "tokenizers", "seqtext.api"}
print(",".join(sorted(heavy & sys.modules.keys())))
"""


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["--version"]])
def test_help_loads_nothing_heavy(words):
    found = subprocess.run([sys.executable, "-c", LEAN, *words], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout == "\n"


@pytest.mark.parametrize("folder", ["run", "translator"])
def test_prediction_from_text_loads_nothing_that_it_does_not_use(folder, request):
    """A cold start is mostly imports: what others load without being asked stays out."""
    heavy = [
        "datasets",
        "pandas",
        "scipy",
        "sklearn",
        "sympy",
        "torch._dynamo",
        "accelerate",
        "sacrebleu",
        "matplotlib",
    ]
    code = (
        f"import atexit, sys\natexit.register(lambda: print([name for name in {heavy} if sys.modules.get(name)]))\n"
        "from seqtext.cli.app import command\ncommand()"
    )
    words = ["predict", str(request.getfixturevalue(folder)), "-"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    found = subprocess.run(
        [sys.executable, "-c", code, *words], input=b"Hello .\n", env=environment, capture_output=True, check=True
    )
    assert found.stdout.decode().splitlines()[-1] == "[]"


def test_the_module_runs_and_a_shell_gets_its_completion():
    assert process("--version").stdout.decode() == f"seqtext {seqtext.__version__}\n"
    script = process(_SEQTEXT_COMPLETE="source_bash").stdout.decode()
    assert "_SEQTEXT_COMPLETE=complete_bash" in script and "_completion seqtext" in script
    asked = {"_SEQTEXT_COMPLETE": "complete_bash", "COMP_WORDS": "seqtext ev", "COMP_CWORD": "1"}
    assert process(**asked).stdout.decode().split() == ["evaluate"]


def test_recipes_are_listed_shown_and_copied(cli, tmp_path):
    rows = [json.loads(line) for line in cli("recipes", "--json").lines]
    assert [row["recipe"] for row in rows] == list(shipped())
    table = cli("recipes").lines
    assert table[1] == "recipe\ttask\tdata\tscore"
    assert table[2:] == ["\t".join(row[key] for key in ("recipe", "task", "data", "score")) for row in rows]
    text = shipped()["ner"].read_text(encoding="utf-8")
    assert cli("recipes", "show", "ner").out == text
    copied = cli("recipes", "copy", "ner", tmp_path)
    assert (copied.out, copied.err) == (f"{tmp_path}/ner.toml\n", f"next: seqtext check {tmp_path}/ner.toml\n")
    assert (tmp_path / "ner.toml").read_text(encoding="utf-8") == text
    assert cli("recipes", "copy", "ner", tmp_path / "mine.toml").status == 0
    assert cli("recipes", "show", tmp_path / "mine.toml").out == text


def test_check_describes_recipe_data_and_one_step(cli, corpus):
    words = ["check", "ner", *SMALL, "--data", corpus, "--device", "cpu"]
    facts = dict(re.split(r"\s{2,}", line, maxsplit=1) for line in cli(*words).lines)
    assert json.loads(cli(*words, "--json").out) == facts
    tokens = [sum(len(tokens) for tokens, _ in ner_sample(split, size=size)) for split, size in SIZES]
    assert facts["recipe"] == "ner: task ner, seed 1" and facts["source"] == str(corpus)
    for (split, size), count in zip(SIZES, tokens):
        assert facts[split].startswith(f"{size} sentences, {count:,} tokens; length median ")
        assert facts[split].endswith("(conll, IOB2 -> BIOES)")
    assert facts["labels"].startswith("17: O, B-LOC, I-LOC, E-LOC, S-LOC, B-MISC")
    assert facts["train cover"] == "vocabulary covers 100.0% of words"
    assert re.fullmatch(r"vocabulary covers \d\d\.\d% of words", facts["test cover"])
    longest = max(len(tokens) for tokens, _ in ner_sample("train", size=400))
    assert re.fullmatch(rf"longest batch \d+ x {longest} tokens: loss \d\.\d+ per target", facts["one step"])
    assert cli(*words).err == f"next: {shlex.join(['seqtext', 'train', 'ner', *SMALL])} --data {corpus}\n"


SIZES = [("train", 400), ("valid", 40), ("test", 60)]


def test_train_leaves_a_run_and_says_what_comes_next(cli, corpus, tmp_path):
    out = tmp_path / "run"
    result = cli("train", "ner", *SMALL, "--data", corpus, "--out", out, "--seed", "3", "--device", "cpu")
    run = seqtext.load(out).run
    valid, test = (run.meta["scores"][split]["f1"] for split in ("valid", "test"))
    assert result.out == f"{out}: valid f1 {valid:.4f}, test f1 {test:.4f}\n"
    assert result.err.endswith(
        f"next: seqtext evaluate {out}\n      seqtext predict {out} FILE\n      seqtext report {out}\n"
    )
    assert re.search(
        r"^epoch 1  loss \d\.\d+  lr \S+  [\d,]+ tokens/s  valid f1 0\.\d+ \(best\)  left 0:00$", result.err, re.M
    )
    assert re.search(r"^done: all epochs done \(1 epochs, \d+ steps\)$", result.err, re.M)
    again = cli("train", "--resume", out, "train.epochs=2", "--device", "cpu", "--json")
    assert json.loads(again.out)["run"] == str(out) and seqtext.load(out).run.recipe.train.epochs == 2
    longer = [*SMALL, "train.epochs=2"]
    same = seqtext.train("ner", data=str(corpus), overrides=longer, out=tmp_path / "b", seed=3, device="cpu")
    assert json.loads(again.out)["scores"] == same.meta["scores"]
    assert (out / "recipe.toml").read_text() == (tmp_path / "b" / "recipe.toml").read_text()


def test_several_seeds_are_summed_up_and_the_same_command_goes_on(cli, corpus, tmp_path, monkeypatch):
    out = tmp_path / "runs"
    words = ["train", "ner", *SMALL, "--data", corpus, "--out", out, "--device", "cpu", "--seed", "4"]
    first = cli(*words, "--seeds", "2")
    scores = [seqtext.evaluate(out / f"seed-{seed}", device="cpu").scores["f1"] for seed in (4, 5)]
    assert first.lines[0] == f"{out}: seeds 4, 5"
    low, high, mean, deviation = min(scores), max(scores), statistics.fmean(scores), statistics.stdev(scores)
    expected = f"mean {mean:.4f}, deviation {deviation:.4f}, minimum {low:.4f}, maximum {high:.4f}"
    assert f"test f1: {expected}" in first.lines
    before = (out / "seed-4" / "model.safetensors").stat().st_mtime_ns
    meta = json.loads((out / "seed-5" / "meta.json").read_text())
    (out / "seed-5" / "meta.json").write_text(json.dumps(meta | {"scores": {}, "finished": ""}))  # as if interrupted
    third = json.loads(cli(*words, "--seeds", "3", "--json").out)
    assert third["seeds"] == [4, 5, 6] and third["folder"] == str(out)
    assert third["test f1"]["minimum"] <= low and third["test f1"]["maximum"] >= high
    assert (out / "seed-4" / "model.safetensors").stat().st_mtime_ns == before
    summary = json.loads((out / "summary.json").read_text())
    assert summary["seeds"] == [4, 5, 6] and summary["test f1"] == third["test f1"]


def test_evaluate_prints_what_the_api_returns(cli, run, corpus):
    result = seqtext.evaluate(run, device="cpu")
    printed = json.loads(cli("evaluate", run, "--json", "--device", "cpu").out)
    assert printed == {"split": "test", "examples": 60, "metric": result.settings, **result.scores}
    assert 0.1 < printed["f1"] < 1.0 and result.scores == seqtext.load(run).run.meta["scores"]["test"]
    lines = cli("evaluate", run).lines
    assert lines[0].startswith("Entities (") and lines[1].split("\t")[:4] == ["type", "precision", "recall", "F1"]
    assert lines[-1] == result.settings
    assert result.settings.endswith(f"; test of {corpus}; seqtext {seqtext.__version__}")
    small = json.loads(cli("evaluate", run, "--json", "--batch-tokens", "1").out)
    assert small == printed


def test_evaluate_takes_other_data_and_says_which(cli, run, corpus, tmp_path):
    file = Path(shutil.copy(corpus / "valid.conll", tmp_path / "letters.txt"))
    printed = json.loads(cli("evaluate", run, "--data", file, "--json").out)
    expected = seqtext.evaluate(run, split="valid")
    assert {key: value for key, value in printed.items() if key not in ("split", "metric")} == {
        "examples": 40, **expected.scores
    }  # fmt: skip
    assert f"; test of {file}; " in printed["metric"]
    assert seqtext.evaluate(run, str(file)).scores == expected.scores
    sample = json.loads(cli("evaluate", run, "--data", "sample", "--split", "valid", "--json").out)
    assert sample["examples"] == 300 and "; valid of sample; " in sample["metric"]


def test_evaluate_reads_data_of_other_columns(cli, refused, run, corpus, tmp_path):
    rows = [line.split() for line in (corpus / "test.conll").read_text(encoding="utf-8").splitlines()]
    turned = "".join(f"{' '.join(['x', *reversed(row)]) if row else ''}\n" for row in rows)
    (tmp_path / "turned.txt").write_text(turned, encoding="utf-8")
    columns = ["data.tag_column=1", "data.token_column=2"]
    printed = json.loads(cli("evaluate", run, *columns, "--data", tmp_path / "turned.txt", "--json").out)
    assert printed["f1"] == seqtext.evaluate(run).scores["f1"]
    assert f"; test of {tmp_path / 'turned.txt'}, data.tag_column=1, data.token_column=2; " in printed["metric"]
    given = seqtext.evaluate(run, overrides={"data.test": str(corpus / "valid.conll")})
    assert given.scores == seqtext.evaluate(run, split="valid").scores

    told = refused(
        "evaluate", run, "my.txt", "data.words.min_frequency=2", "data.scheme=IO", "seed=3", "data=3"
    ).splitlines()
    allowed = "data.source, data.train, data.valid, data.test, data.format, data.separator, data.token_column, "
    allowed += "data.tag_column, data.comment, data.input_scheme, data.misaligned, data.tokens_field, "
    allowed += "data.tags_field"
    fixed = f"fixed in a trained run; only how data reads can change: {allowed}"
    assert told == [
        f"evaluate {run}: 5 faults",
        f"  'my.txt': expected KEY=VALUE with a key among {allowed}; other data is named by --data",
        f"  data.words.min_frequency: {fixed}",
        f"  data.scheme: {fixed}",
        f"  seed: {fixed}",
        f"  data: {fixed}",
    ]
    told = refused("evaluate", run, "data.tag_colum=1")
    assert told == f"evaluate {run}: 1 fault\n  data.tag_colum: unknown key; did you mean 'tag_column'?"


TEXT = "Angela Merkel flew to Berlin.\n\n   \nShe met Bob (her friend) in New York\nno names here"


def test_predict_reads_stdin_and_files_in_order_with_a_result_for_every_line(cli, run, tmp_path):
    (tmp_path / "a").write_text(TEXT, encoding="utf-8")
    (tmp_path / "b").write_bytes(b"\xef\xbb\xbfParis .\r\n")
    expected = [seqtext.load(run).task.show(*pair) for pair in seqtext.load(run).stream(TEXT.split("\n"))]
    assert expected[1:3] == ["", ""] and re.sub(r"\[[A-Z]+ |\]", "", expected[0]) == "Angela Merkel flew to Berlin ."
    assert cli("predict", run, stdin=TEXT.encode()).lines == expected
    assert cli("predict", run, "-", stdin=TEXT.encode()).lines == expected
    assert cli("predict", run, tmp_path / "a").lines == expected
    several = cli("predict", run, tmp_path / "b", "-", tmp_path / "b", stdin=TEXT.encode()).lines
    assert len(several) == 7 and several[1:6] == expected and several[0] == several[6] and "Paris" in several[0]
    assert cli("predict", run, stdin=b"") == (0, "", "")


def test_predict_as_json_is_what_the_model_predicts(cli, run):
    found = [json.loads(line) for line in cli("predict", run, "--json", stdin=TEXT.encode()).lines]
    model = seqtext.load(run)
    predictions = model.predict(TEXT.split("\n"))
    assert [line["tags"] for line in found] == [prediction.tags for prediction in predictions]
    assert found[1] == {"text": "", "tokens": [], "tags": [], "entities": []}
    assert [line["text"] for line in found] == TEXT.split("\n")
    assert found[0]["tokens"] == ["Angela", "Merkel", "flew", "to", "Berlin", "."]
    entities = [entity for line in found for entity in line["entities"]]
    assert entities and all("confidence" not in entity for entity in entities)
    for line in found:
        for entity in line["entities"]:
            assert line["text"][entity["start"] : entity["end"]] == entity["text"]
    assert seqtext.predict(run, TEXT.split("\n")) == predictions


def test_predict_gives_confidence_and_the_best_answers(cli, run):
    found = [json.loads(line) for line in cli("predict", run, "--json", "--nbest", "3", stdin=TEXT.encode()).lines]
    line = found[0]
    assert [len(entry["nbest"]) for entry in found if entry["tokens"]] == [3, 3, 3]
    chances = [answer["probability"] for answer in line["nbest"]]
    assert chances == sorted(chances, reverse=True) and sum(chances) <= 1.0 and line["nbest"][0]["tags"] == line["tags"]
    sure = [json.loads(line) for line in cli("predict", run, "--json", "--confidence", stdin=TEXT.encode()).lines]
    values = [entity["confidence"] for line in sure for entity in line["entities"]]
    assert values and all(0.0 < value <= 1.0 for value in values)
    assert all("nbest" not in line for line in sure)


def test_words_given_apart_stay_so(cli, run):
    line = json.loads(cli("predict", run, "--json", "--pretokenized", stdin=b"don't (stop) Berlin.\n").out)
    assert line["tokens"] == ["don't", "(stop)", "Berlin."]
    assert [len(tags) for tags in (line["tags"],)] == [3]


def test_the_size_of_batches_changes_no_answer(cli, run):
    text = "\n".join(" ".join(tokens) for tokens, _ in ner_sample("test", size=50)).encode()
    assert cli("predict", run, "--batch-tokens", "1", stdin=text) == cli("predict", run, stdin=text)


def test_other_numbers_change_probabilities_a_little_and_figures_tell(cli, run):
    words = ["predict", run, "--json", "--confidence", "-"]
    text = b"Angela Merkel flew to Washington .\nPeter lives in Berlin .\n"
    plain = cli(*words, stdin=text).lines
    assert cli(*words, "--precision", "float32", stdin=text).lines == plain
    half = cli(*words, "--precision", "bf16", stdin=text).lines
    found, expected = ([json.loads(line)["entities"] for line in lines] for lines in (half, plain))
    sure = [[[entity["confidence"] for entity in entities] for entities in side] for side in (found, expected)]
    assert sure[0] != sure[1]
    for some, others in zip(*sure):
        assert some == pytest.approx(others, abs=0.05)
    table = cli("evaluate", run, "--precision", "bf16").out
    assert "computed in bf16" in table and "computed in" not in cli("evaluate", run).out


def test_threads_are_as_many_as_the_command_says(cli, run, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        assert cli("predict", run, "--threads", 3, "-", stdin=b"Hello .\n").status == 0
        assert torch.get_num_threads() == 3 and os.environ["OMP_NUM_THREADS"] == "3"
    finally:
        torch.set_num_threads(1)
    assert cli("predict", run, "--threads", 0, "-").status == 2


def test_a_line_of_20000_words_is_answered(cli, run):
    words = [token for tokens, _ in ner_sample("train", size=1700) for token in tokens][:20_000]
    line = cli("predict", run, "--pretokenized", "--json", stdin=(" ".join(words) + "\nHello .\n").encode())
    found = [json.loads(row) for row in line.lines]
    assert [len(row["tags"]) for row in found] == [20_000, 2]
    assert len(found[0]["entities"]) > 1000


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error(run):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    predict = subprocess.Popen(
        [sys.executable, "-m", "seqtext", "predict", str(run), "-"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    head = subprocess.Popen(["head", "-1"], stdin=predict.stdout, stdout=subprocess.PIPE, text=True)
    predict.stdout.close()
    text = "Hello there .\n" * 20_000  # more than a pipe holds
    try:
        predict.stdin.write(text.encode())
        predict.stdin.close()
    except BrokenPipeError:
        pass
    assert head.communicate(timeout=120)[0].count("\n") == 1
    errors = predict.stderr.read().decode()
    predict.wait(timeout=120)
    assert errors == ""


@pytest.mark.slow
def test_output_is_utf8_whatever_the_locale(run):
    result = process("predict", run, "--json", stdin="Zoë flew to Łódź .\n".encode(), PYTHONIOENCODING="ascii")
    assert (result.returncode, result.stderr) == (0, b"")
    assert json.loads(result.stdout)["tokens"] == ["Zoë", "flew", "to", "Łódź", "."]


def test_each_typed_line_is_answered_before_the_next_is_read(run):
    log = []

    def typed():
        for line in ("Berlin", "Paris", "Rome"):
            log.append(f"read {line}")
            yield line

    for example, _ in seqtext.load(run).stream(typed(), at_once=1):
        log.append(f"answered {example.text}")
    assert log == [f"{did} {line}" for line in ("Berlin", "Paris", "Rome") for did in ("read", "answered")]


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("train n", ["ner", "ner-conll2003", "ner-conll2003-novectors", "ner-esn", "ner-jordan"]),
        ("recipes show ner-c", ["ner-conll2003", "ner-conll2003-novectors"]),
        ("check --device c", ["cpu", "cuda", "cuda:1"]),
        ("evaluate run --split v", ["valid"]),
    ],
)
def test_completion_offers_what_fits(typed, offered):
    words = ["seqtext", *typed.split()]
    environment = os.environ | {
        "_SEQTEXT_COMPLETE": "complete_bash",
        "COMP_WORDS": " ".join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "seqtext"],
        env=environment,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert sorted(done.stdout.split()) == offered
