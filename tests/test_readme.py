"""The README's own commands, run as they stand there, in an empty folder with a corpus and a letter in it.

What a shell would do for `echo "..." | seqtext ... > file` is done here, so that Python and torch start once for all.
"""

import io
import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from seqtext.cli.app import main
from seqtext.data.corpus_sample import corpus_sample
from seqtext.data.samples import ner_sample
from seqtext.data.sentiment_sample import sentiment_sample
from seqtext.data.translation_sample import translation_sample
from seqtext.data.tree_sample import tree_sample

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands():
    """What a reader would type, and what it prints; without scripts and what needs a corpus that is not free."""
    for block in blocks("console"):
        if any(name in block for name in ("conll2003", "--data sst", "--data ptb", "--data multi30k", "scripts/")):
            continue
        lines = block.splitlines()
        for i, line in enumerate(lines):
            if line.startswith("$ "):
                shown = next((j for j in range(i + 1, len(lines)) if lines[j].startswith("$ ")), len(lines))
                yield re.split(r"\s{2,}#", line[2:])[0], lines[i + 1 : shown]


def bracketed(tree):
    """A tree in brackets, from its nodes in post-order."""
    written = []
    for label, start, children in zip(tree.labels, tree.starts, tree.children):
        inside = " ".join(written[child] for child in children) or tree.leaves[start]
        written.append(f"({label} {inside})")
    return written[-1]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    (folder / "my-corpus").mkdir()
    for split, size in (("train", 200), ("valid", 50), ("test", 50)):
        sentences = ner_sample(split, size=size)
        text = "\n".join("".join(f"{token} {tag}\n" for token, tag in zip(*sentence)) for sentence in sentences)
        (folder / "my-corpus" / f"{split}.conll").write_text(text, encoding="utf-8")
    (folder / "my-reviews").mkdir()
    for split, size in (("train", 300), ("valid", 60), ("test", 60)):
        reviews = "".join(f'"{text}",{label}\n' for text, label in sentiment_sample(split, size=size))
        (folder / "my-reviews" / f"{split}.csv").write_text("review,stars\n" + reviews, encoding="utf-8")
        if split == "train":
            (folder / "reviews.csv").write_text("text,label\n" + reviews, encoding="utf-8")
    (folder / "my-text").mkdir()
    for split in ("train", "valid", "test"):
        text = list(corpus_sample(split))[:60]
        (folder / "my-text" / f"{split}.txt").write_text("\n".join(text), encoding="utf-8")
    (folder / "novel.txt").write_text("\n".join(list(corpus_sample("train"))[:100]), encoding="utf-8")
    (folder / "my-pairs").mkdir()
    for split, size in (("train", 300), ("valid", 40), ("test", 40)):
        for language, lines in zip(("en", "de"), zip(*translation_sample(split, size=size))):
            (folder / "my-pairs" / f"{split}.{language}").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "my-trees").mkdir()
    for split, size in (("train", 200), ("valid", 40), ("test", 40)):
        trees = "".join(bracketed(tree) + "\n" for tree in tree_sample(split, size=size))
        (folder / "my-trees" / f"{split}.txt").write_text(trees, encoding="utf-8")
    (folder / "letters.txt").write_text("Dear Angela,\n\ngreetings from Paris .\n", encoding="utf-8")
    return folder


def here(command, monkeypatch):
    """Exit status, standard output and standard error of a line that a shell would have seqtext run, in this folder."""
    fed, words, to = read_line(command)
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(fed.encode()), encoding="utf-8"))
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as ended:
        main()
    if to:
        Path(to).write_text(out.getvalue(), encoding="utf-8")
    return ended.value.code, "" if to else out.getvalue(), err.getvalue()


def read_line(command):
    """What a line of the README feeds, the words of its command, and the file that it writes to, if any."""
    words, fed, to = list(shlex.shlex(command, posix=True, punctuation_chars="|>")), "", ""
    if words[0] == "echo":
        assert words[2] == "|", command
        fed, words = words[1] + "\n", words[3:]
    if words[-2] == ">":
        words, to = words[:-2], words[-1]
    assert words[0] == "seqtext" and not {"|", ">", "&"} & set("".join(words)), command
    return fed, words, to


def run(command, home):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=home, env=environment, capture_output=True, text=True, shell=isinstance(command, str)
    )


@pytest.mark.slow
def test_the_commands_run_and_print_what_the_readme_shows(home, monkeypatch):
    typed = list(commands())
    assert len(typed) >= 15
    monkeypatch.chdir(home)
    for command, shown in typed:
        status, out, err = here(command, monkeypatch)
        assert status == 0, f"{command}\n{err}"
        if shown:
            assert out.splitlines() == shown, command
    # A shell, too, has these do as they did here.
    for command in ("echo 'Angela flew to Paris .' | seqtext predict runs/first -", "seqtext evaluate runs/first"):
        result = run(command, home)
        assert (result.returncode, result.stdout) == (0, here(command, monkeypatch)[1]), result.stderr
    for name, count in (
        ("entities.jsonl", 3),
        ("moods.jsonl", 1),
        ("story.txt", 1),
        ("scores.jsonl", 1),
        ("closing.txt", 1),
    ):
        assert len((home / name).read_text(encoding="utf-8").splitlines()) == count, name
    assert json.loads((home / "moods.jsonl").read_text())["label"] in ("negative", "positive")


@pytest.mark.slow
def test_the_python_examples_run(home):
    for block in blocks("python"):
        result = run([sys.executable, "-c", block], home)
        assert result.returncode == 0, result.stderr
        assert "PER" in result.stdout


def test_the_architecture_names_every_module():
    tree = README.split("## Architecture")[1].split("```")[1]
    modules = [path.stem for path in (ROOT / "seqtext").glob("*.py") if not path.stem.startswith("__")]
    folders = [path.name for path in (ROOT / "seqtext").iterdir() if (path / "__init__.py").exists()]
    missing = [name for name in modules + folders if not re.search(rf"\b{name}\b", tree)]
    assert missing == []
