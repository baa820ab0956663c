"""The commands with trees: text and brackets in, trees drawn, as pages and as JSON, and what is refused."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

import seqtext
from seqtext.draw import html, terminal

TREES = """
(3 (2 It) (3 (2 is) (4 fine)))
(1 (2 (2 The) (2 plot)) (1 (2 is) (0 dull)))
(4 (2 A) (4 (4 superb) (2 film)))
(1 (2 It) (1 (2 is) (1 (2 not) (4 fine))))
(2 (2 The) (2 plot))
(0 (2 So) (0 dull))
""".strip().splitlines()
SMALL = {
    "train.epochs": 2,
    "model.embedding.size": 8,
    "model.cell.hidden_size": 6,
    "model.parser.hidden_size": 4,
    "model.parser.span_size": 4,
}
WORDS = [*(f"{key}={value}" for key, value in SMALL.items()), "--device", "cpu"]


def write(folder, **splits):
    folder.mkdir()
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text(splits.get(split, "\n".join(TREES * 4)) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def treebank(tmp_path_factory):
    """A folder of trees."""
    return write(tmp_path_factory.mktemp("data") / "treebank")


@pytest.fixture(scope="module")
def trained(treebank, tmp_path_factory):
    """A run with a parser; tests leave it as it is but for errors.jsonl."""
    out = tmp_path_factory.mktemp("runs") / "run"
    return seqtext.train("tree-sentiment", data=str(treebank), overrides=SMALL, out=out, device="cpu").folder


@pytest.fixture(scope="module")
def unparsed(treebank, tmp_path_factory):
    """A run without a parser."""
    settings = {key: value for key, value in SMALL.items() if "parser" not in key} | {"model.parser.name": "none"}
    out = tmp_path_factory.mktemp("runs") / "unparsed"
    return seqtext.train("tree-sentiment", data=str(treebank), overrides=settings, out=out, device="cpu").folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def made(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


INPUT = f"The plot is dull .\n{TREES[3]}\n\n  fine\n"
TEXTS = ["The plot is dull .", "It is not fine", "", "fine"]


def drawings(run, lines):
    """The trees that a run finds of these lines."""
    model = seqtext.load(run, device="cpu")
    pairs = [(model.task.prepare(line), found) for line, found in zip(lines, model.predict(lines))]
    return [model.task.labelled(*pair) for pair in pairs if len(pair[0])]


def test_predict_prints_label_probability_and_text_for_lines_and_brackets(cli, trained):
    lines = INPUT.splitlines()
    found = seqtext.predict(trained, lines)
    shown = cli("predict", trained, "-", stdin=INPUT.encode())
    assert shown.lines == [
        f"{each.label}\t{max(each.nodes.probabilities[0]):.4f}\t{text}" if text else ""
        for each, text in zip(found, TEXTS)
    ]
    assert shown.err == ""
    records = [json.loads(line) for line in cli("predict", trained, "--json", stdin=INPUT.encode()).lines]
    assert records == seqtext.load(trained).records(lines)
    assert [record["tokens"] for record in records] == [text.split() for text in TEXTS]
    assert [len(record["nodes"]) for record in records] == [9, 7, 0, 1]
    assert {(node["start"], node["end"]) for node in records[1]["nodes"] if node["end"] - node["start"] > 1} == {
        (0, 4),
        (1, 4),
        (2, 4),
    }


def test_draw_prints_a_tree_for_every_line(cli, trained):
    one, other, last = drawings(trained, INPUT.splitlines())
    shown = cli("predict", trained, "--draw", "-", stdin=INPUT.encode())
    trees = [terminal(tree, colour=False, width=100) + "\n" for tree in (one, other, last)]
    assert shown.out == trees[0] + trees[1] + "\n" + trees[2]
    assert "\x1b" not in shown.out  # no terminal
    assert [line.split()[-1] for line in trees[2].splitlines() if line] == ["fine"]
    assert trees[0].count("\n") == 9 + 1 and shown.err == ""


def test_a_page_has_a_tree_for_every_line_and_a_picture_one(cli, refused, trained, folder):
    shown = cli("predict", trained, "--html", "trees.html", "--json", stdin=INPUT.encode())
    assert shown.err == "3 trees in trees.html\n" and len(shown.lines) == 4
    page = (folder / "trees.html").read_text(encoding="utf-8")
    assert page == html(drawings(trained, INPUT.splitlines()))
    root = ElementTree.fromstring(page.partition("\n")[2])  # after the doctype
    figures = list(root.iter("figure"))
    assert ["".join(figure.find("figcaption/p").itertext()) for figure in figures] == [text for text in TEXTS if text]
    assert [len(list(figure.iter("{http://www.w3.org/2000/svg}rect"))) for figure in figures] == [9, 7, 1]

    shown = cli("predict", trained, "--html", "one.svg", "--draw", stdin=b"\nThe plot <is> dull\n\n")
    assert shown.err == "1 tree in one.svg\n"
    picture = ElementTree.parse(folder / "one.svg").getroot()
    assert picture.tag == "{http://www.w3.org/2000/svg}svg"
    assert picture.get("aria-label") == " ".join(seqtext.load(trained).task.prepare("The plot <is> dull").words)

    before = made(folder)
    for stdin, count in ((b"one\ntwo\n", "2 trees"), (b"\n", "0 trees")):
        told = cli("predict", trained, "--html", "two.svg", stdin=stdin)
        assert told.status == 2
        assert told.err == f"seqtext: --html two.svg: {count}, and an .svg file has one; write to an .html file\n"
    told = refused("predict", trained, "--html", "tree.pdf", stdin=b"\xff")
    assert told == "--html tree.pdf: expected a name that ends in .html, or in .svg for a single tree"
    assert refused("predict", trained, "--html", "no/a.html", stdin=b"\xff") == "--html no/a.html: no such folder: no"
    assert made(folder) == before


def test_with_text_a_line_that_begins_with_a_bracket_is_no_tree(cli, trained):
    (line,) = cli("predict", trained, "--text", "--json", stdin=b"(1 (2 not) (4 fine))\n").lines
    assert json.loads(line)["tokens"] == seqtext.load(trained).task.prepare("(1 (2 not) (4 fine))", trees=False).words
    assert "(" in json.loads(line)["tokens"]
    (line,) = cli("predict", trained, "--text", "--pretokenized", "--json", stdin=b"(so) fine\n").lines
    assert json.loads(line)["tokens"] == ["(so)", "fine"]


HINT = "; what begins with a bracket is read as a tree; with --text it is text"
UNREAD = [
    ("(1 (2 a) (3 b)", 'column 1: the tree that begins here never ends: 1 bracket is not closed; expected ")"' + HINT),
    ("(1 (2 a)) b)", "column 11: found 'b)' outside"),
    ("(1 (2 a) ())", "column 10: empty node; expected (label word) or (label (label word) ...)" + HINT),
    ("(Laughs) Good .", "column 1: node 'Laughs' has no word and no node in it; expected "),
    ("(1 a) (2 b)", "2 trees in a line; expected one; with --text it is text"),
]


@pytest.mark.parametrize(("line", "message"), UNREAD)
def test_brackets_that_do_not_read_are_told_by_file_line_and_column(cli, trained, folder, line, message):
    (folder / "first.txt").write_text("fine\n", encoding="utf-8")
    (folder / "reviews.txt").write_text(f"fine\n{line}\nfine\n", encoding="utf-8")
    found = cli("predict", trained, "first.txt", "reviews.txt")
    message = message.replace("'b)' outside", "'b' outside")
    assert found.status == 2 and len(found.lines) == 1  # what came before is answered, a window at a time
    assert found.err.startswith(f"seqtext: reviews.txt:2: {message}") and "Traceback" not in found.err
    found = cli("predict", trained, stdin=f"{line}\n".encode())
    assert found.status == 2 and found.err.startswith(f"seqtext: standard input:1: {message}")
    assert cli("predict", trained, "--text", "reviews.txt").status == 0


def test_text_for_a_run_without_a_parser_is_refused(refused, cli, unparsed):
    assert len(cli("predict", unparsed, stdin="\n".join(TREES).encode()).lines) == len(TREES)
    told = refused("predict", unparsed, stdin=b"So good .\n")
    assert told == (
        'this run has no parser (model.parser.name = "none"), so that it needs trees, as (3 (2 So) (3 good)); '
        "a line of them begins with a bracket"
    )


@pytest.mark.parametrize("flags", [["--draw"], ["--html", "a.html"], ["--text"]])
def test_options_of_trees_are_refused_for_other_tasks(refused, run, folder, flags):
    told = refused("predict", run, *flags, stdin=b"\xff\n")
    assert told == f"{flags[0]}: a run of the task ner, whose results are no trees"
    assert made(folder) == []


def test_options_that_exclude_each_other_and_those_of_other_tasks_are_refused(refused, trained):
    assert refused("predict", trained, "--draw", "--json", stdin=b"\xff") == "--draw and --json: one or the other"
    told = refused("predict", trained, "--json", "--nbest", "2", stdin=b"\xff")
    assert told == f"{trained}: a run of the task tree-sentiment, which has no option nbest; its options: none"
    told = refused("evaluate", trained, "--beam", "2")
    assert told == f"{trained}: a run of the task tree-sentiment, which has no option beam; its options: none"


def test_evaluate_prints_the_four_figures_and_the_parsers(cli, trained):
    scores = seqtext.load(trained).run.meta["scores"]["test"]
    shown = cli("evaluate", trained)
    assert shown.lines[0] == "Accuracy"
    for name, title in {
        "root": "root",
        "nodes": "all nodes",
        "binary_root": "root, two classes",
        "binary_nodes": "all nodes, two classes",
        "parsed_root": "root, by the parser's trees",
        "parsed_binary_root": "root, two classes, by the parser's trees",
        "bracketing": "the parser",
    }.items():
        pattern = rf"^{re.escape(title)}\s+{100 * scores[name]:.2f}(\s|$)"
        assert len([line for line in shown.lines if re.search(pattern, line)]) == 1, title
    assert [line.split()[:2] for line in shown.lines if line.startswith("all ") and "branching" in line] == [
        ["all", "left-branching"],
        ["all", "right-branching"],
    ]
    assert shown.lines[-1].startswith("accuracy over the classes at roots and at all labelled nodes, leaves included; ")
    values = json.loads(cli("evaluate", trained, "--json").out)
    assert {key: values[key] for key in scores} == scores
    wrong = [json.loads(line) for line in (trained / "errors.jsonl").read_text(encoding="utf-8").splitlines()]
    count = round((1 - scores["root"]) * 4 * len(TREES))
    assert len(wrong) == count and shown.err.startswith(f"{trained / 'errors.jsonl'}: the {count} example")
    assert all(line["gold"] != line["predicted"] for line in wrong)


def test_check_describes_trees_and_tries_a_step(cli, treebank):
    shown = cli("check", "tree-sentiment", *WORDS, "data.scale=5", "--data", treebank)
    facts = dict(line.split("  ", 1) for line in shown.lines if "  " in line)
    found = {name.strip(): fact.strip() for name, fact in facts.items()}
    assert found["train"].startswith("24 trees, 72 tokens; length median 3, 95% 4, longest 4 ")
    assert found["train"].endswith("(brackets, 5 labels, binarized to the right)")
    assert found["test shape"] == "120 nodes, up to 2 children each; height median 2, most 3"
    assert found["valid labels"].startswith("120 of 120 nodes: 0 10.0%, 1 16.7%, 2 50.0%, 3 6.7%, 4 16.7%")
    assert found["one step"].startswith("longest batch 24 x 4 tokens: loss ")


OTHERS = "\n".join(TREES)
WRONG = [
    ("train", f"{OTHERS}\n(3 (2 I\0t) (3 good))\n", [], "{file}:7: a NUL character at 8 of the line; this is no text"),
    ("train", f"{OTHERS}\n(3 (2 It)\n", [], "{file}:7: column 1: the tree that begins here never ends: 1 bracket is "),
    ("train", f"{OTHERS}\n(3 (2 It) ())\n", [], "{file}:7: column 11: empty node; expected (label word) or (label "),
    ("valid", "(3 (2 It)))", [], '{file}:1: column 11: ")" closes nothing: one bracket too many'),
    (
        "test",
        f"{OTHERS}\nfine\n",
        [],
        "{file}:7: column 1: found 'fine' outside of brackets; expected (label word) or ",
    ),
    ("train", f"{OTHERS}\n(3 (2 It) (5 is))", ["data.scale=5"], "{file}:7: column 12: label '5'; expected a whole "),
    ("train", f"{OTHERS}\n(NP (2 It) (3 is))", ["data.labels=binary"], "{file}:7: column 2: label 'NP', but data.lab"),
    ("train", f"{OTHERS}\n(3 (2 It) (3))", [], "{file}:7: column 11: node '3' has no word and no node in it; expect"),
    ("train", f"{OTHERS}\n((2 It) (3 is))", [], "{file}:7: column 1: the root of this tree has no label; expected one"),
    ("valid", "\n", [], "{file}: no tree: it is empty or blank; expected (label (label word) ...)"),
    ("train", "(2 (2 a) (2 b))", [], "{file}: all nodes have the label '2'; at least two are needed, or data.labels"),
    ("valid", "(3 (2 It) (7 is))", [], "{folder} (valid): tree 1: label '7' was never seen in training; the labels of"),
    ("train", OTHERS, ["data.binarize=none"], 'data.binarize = "none" keeps nodes of more than two children, and '),
    ("train", OTHERS, ["data.labels=none"], '{recipe}: 1 fault\n  data: labels = "none" leaves the parser alone: go'),
    ("train", OTHERS, ["model.cell.name=crf"], "{recipe}: 1 fault\n  model.cell.name: expected one of rnn, rntn, "),
]


@pytest.mark.parametrize(("split", "content", "settings", "message"), WRONG)
@pytest.mark.parametrize("command", ["train", "check"])
def test_trees_that_do_not_do_are_told_and_make_nothing(refused, folder, command, split, content, settings, message):
    mine = write(folder / "mine", **{split: content})
    before = made(folder)
    told = refused(command, "tree-sentiment", *settings, "--data", mine)
    recipe = seqtext.shelf.find("tree-sentiment")
    assert told.startswith(message.format(file=mine / f"{split}.txt", folder=mine, recipe=recipe))
    assert made(folder) == before


def test_other_trees_are_evaluated_by_the_same_rules(cli, refused, trained, folder):
    (folder / "test.txt").write_text(f"{OTHERS}\n(3 (2 It\n", encoding="utf-8")
    told = refused("evaluate", trained, "--data", "test.txt")
    assert told.startswith("test.txt:7: column 1: the tree that begins here never ends: 2 brackets are not closed")
    (folder / "test.txt").write_text(OTHERS, encoding="utf-8")
    values = json.loads(cli("evaluate", trained, "--data", "test.txt", "--json").out)
    scores = seqtext.load(trained).run.meta["scores"]["test"]
    assert values["examples"] == len(TREES) and values["root"] == pytest.approx(scores["root"])
    assert made(folder) == ["test.txt"]
