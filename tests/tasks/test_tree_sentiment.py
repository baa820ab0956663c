"""The classifier of constituents: text and brackets, shapes, labels, losses, and how it is scored and shown."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from seqtext import api, recipe
from seqtext.config import parse
from seqtext.data.brackets import parse_trees
from seqtext.data.tree_shapes import level_order
from seqtext.data.trees import shape
from seqtext.errors import ConfigError, DataError, InputError
from seqtext.nn.tree_classifier import TreeClassifierConfig
from seqtext.run import Run
from seqtext.tasks.tree_sentiment import TreeSentiment, TreeSentimentData

TREES = [
    "(3 (2 It) (3 (2 is) (4 fine)))",
    "(1 (2 (2 The) (2 plot)) (1 (2 is) (0 dull)))",
    "(4 fine)",
    "(1 (2 not) (4 fine))",
    "(2 (1 (0 dull) (2 ,)) (3 (2 but) (3 fun)))",
    "(2 (2 The) (2 plot))",
]
WIDE = ["(3 (2 So) (2 ,) (3 (2 very) (4 fine)) (2 .))", "(1 (2 a) (0 dull) (2 plot))"]
SMALL: dict[str, Any] = {
    "embedding": {"size": 4},
    "cell": {"name": "lstm", "hidden_size": 5},
    "parser": {"name": "spans", "hidden_size": 3, "span_size": 3},
}
BARE: dict[str, Any] = {"parser": {"name": "none"}}


def dataset(texts: list[str], settings: TreeSentimentData) -> datasets.Dataset:
    """What `read` gives for these trees."""
    rows = []
    for _, tree in parse_trees(enumerate(texts, start=1), None):
        shaped = shape(tree, settings)
        rows.append({"tokens": shaped.leaves, **level_order(shaped)._asdict()})
    texts_, number = datasets.Sequence(datasets.Value("string")), datasets.Sequence(datasets.Value("int32"))
    names = dict.fromkeys(("arities", "starts", "ends", "depths"), number)
    return datasets.Dataset.from_list(rows, features=datasets.Features({"tokens": texts_, "labels": texts_, **names}))


def make(data: dict[str, Any] | None = None, *, texts: list[str] = TREES, sharp: float = 5.0, **model: Any) -> Any:
    """A classifier with random weights, `sharp` times their usual size in the output."""
    settings = parse(TreeSentimentData, data or {}, source="recipe")
    task: Any = TreeSentiment.fit(settings, dataset(texts, settings))
    torch.manual_seed(8)
    module = task.build(parse(TreeClassifierConfig, {**SMALL, **model}, source="recipe")).eval()
    if module.output is not None:
        module.output.weight.data.mul_(sharp)
    return api.Model(Run(Path("none"), recipe.load("tree-sentiment"), task, {}), module, torch.device("cpu"))


def spans(found: Any) -> list[tuple[int, int]]:
    return list(zip(found.nodes.starts, found.nodes.ends))


def flat(found: Any) -> list[float]:
    """All probabilities of a prediction."""
    return [chance for chances in found.nodes.probabilities for chance in chances]


def evaluated(model: Any, texts: list[str] = TREES) -> tuple[list[Any], datasets.Dataset]:
    rows = dataset(texts, model.task.data)
    return model.predict_encoded(model.task.encode(rows)), rows


def test_text_and_brackets_in_one_call_are_each_what_they_are_alone() -> None:
    model = make()
    mixed = [TREES[1], "The plot is dull", "", "fine", "  " + TREES[2], "but not dull , not fine at all", TREES[4]]
    together = model.predict(mixed, batch_tokens=10**6)
    for text, found in zip(mixed, together):
        (alone,) = model.predict([text])
        assert (found.label, spans(found), found.own) == (alone.label, spans(alone), None)
        assert flat(found) == pytest.approx(flat(alone), abs=1e-6)
    assert together[2] == model.task.empty
    # A tree that is given is taken, and the parser's is binary over the same words.
    assert spans(together[0]) == [(0, 4), (0, 2), (2, 4), (0, 1), (1, 2), (2, 3), (3, 4)]
    assert len(spans(together[1])) == 7 and spans(together[1])[0] == (0, 4)
    assert spans(together[3]) == spans(together[4]) == [(0, 1)] and together[3].label == together[4].label
    for found in together:
        for chances in found.nodes.probabilities:
            assert sum(chances) == pytest.approx(1.0, abs=1e-6)
    # The parser's own tree, given in brackets, gives what its text gives.
    lone = make(**BARE)
    lone.module.load_state_dict(model.module.state_dict(), strict=False)
    assert [flat(found) for found in lone.predict([TREES[1]])] == [pytest.approx(flat(together[0]), abs=1e-6)]


def test_probabilities_are_those_of_the_logits_in_level_order() -> None:
    model = make(**BARE)
    (tree,) = (tree for _, tree in parse_trees([(1, TREES[4])], None))
    found = model.predict([TREES[4]])[0]
    gold = level_order(tree)
    assert (list(found.nodes.arities), spans(found)) == (gold.arities, list(zip(gold.starts, gold.ends)))
    # A subtree's root has the probabilities of the subtree alone: leaves are words, whatever stands around them.
    for text, node in (("(1 (0 dull) (2 ,))", 1), ("(3 (2 but) (3 fun))", 2), ("(3 fun)", 6)):
        assert model.predict([text])[0].nodes.probabilities[0] == pytest.approx(
            found.nodes.probabilities[node], abs=1e-6
        )
    names = model.task.names
    assert names == ["0", "1", "2", "3", "4"]
    assert found.label == names[max(range(5), key=lambda place: found.nodes.probabilities[0][place])]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, [(0, 4), (0, 1), (1, 4), (1, 2), (2, 4), (2, 3), (3, 4)]),
        ({"binarize": "left"}, [(0, 4), (0, 3), (3, 4), (0, 2), (2, 3), (0, 1), (1, 2)]),
        ({"structure": "balanced"}, [(0, 4), (0, 2), (2, 4), (0, 1), (1, 2), (2, 3), (3, 4)]),
        ({"binarize": "none"}, [(0, 4), (0, 1), (1, 2), (2, 3), (3, 4)]),
    ],
)
def test_a_tree_that_is_given_gets_the_shape_that_the_data_wants(data: dict[str, Any], expected: list[Any]) -> None:
    model = make(data, cell={"name": "childsum", "hidden_size": 5}, texts=[*TREES, *WIDE])
    assert spans(model.predict(["(3 (2 a) (2 b) (X (X (2 c))) (4 d))"])[0]) == expected


@pytest.mark.parametrize(
    ("structure", "brackets"),
    [
        ("left", "(X (X (X (X a) (X b)) (X c)) (X d))"),
        ("right", "(X (X a) (X (X b) (X (X c) (X d))))"),
        ("balanced", "(X (X (X a) (X b)) (X (X c) (X d)))"),
    ],
)
def test_text_needs_no_parser_where_all_trees_have_one_shape(structure: str, brackets: str) -> None:
    model = make({"structure": structure}, **BARE)
    gold = make(**BARE)
    gold.module.load_state_dict(model.module.state_dict())
    (found,), (wanted,) = model.predict(["a b c d"]), gold.predict([brackets])
    assert spans(found) == spans(wanted) and flat(found) == pytest.approx(flat(wanted), abs=1e-6)
    # Brackets are shaped like that as well.
    assert flat(model.predict(["(1 (1 (1 a) (1 (1 b) (1 c))) (1 d))"])[0]) == pytest.approx(flat(found), abs=1e-6)
    assert model.predict(["  "]) == [model.task.empty]


def test_text_without_a_parser_is_refused() -> None:
    model = make(**BARE)
    message = (
        'this run has no parser (model.parser.name = "none"), so that it needs trees, as (3 (2 So) (3 good)); '
        "a line of them begins with a bracket"
    )
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        model.predict([TREES[0], "So good"])


def test_brackets_that_do_not_read_are_told_and_may_be_text() -> None:
    model = make()
    for text, told in {
        "(1 (2 a) b": 'column 1: the tree that begins here never ends: 1 bracket is not closed; expected ")"; '
        "what begins with a bracket is read as a tree",
        "(1 a) (1 b)": "2 trees in a line; expected one",
        "(Sighs) Good": "column 1: node 'Sighs' has no word and no node in it; expected (label word) or "
        "(label (label word) ...); what begins with a bracket is read as a tree",
    }.items():
        with pytest.raises(DataError, match=f"^{re.escape(told)}$"):
            model.predict([text])
        example = model.task.prepare(text, trees=False)
        assert example.levels is None and "(" in example.words


def test_only_a_composition_of_any_number_takes_wide_nodes() -> None:
    wide = {"binarize": "none"}
    for cell in ("rnn", "rntn", "mvrnn", "lstm", "gru"):
        with pytest.raises(InputError) as caught:
            make(wide, cell={"name": cell})
        assert str(caught.value) == (
            f'data.binarize = "none" keeps nodes of more than two children, and model.cell.name = "{cell}" takes two: '
            'set data.binarize = "right" or "left", or model.cell.name = "childsum"'
        )
        make(wide | {"structure": "left"}, cell={"name": cell}, **BARE)  # all binary
    model = make(wide, cell={"name": "childsum", "hidden_size": 5}, texts=WIDE)
    found, rows = evaluated(model, WIDE)
    assert [each.nodes.arities[0] for each in found] == [4, 3] and rows["arities"][0][0] == 4
    # A sum of children does not know their order.
    one, other = model.predict(["(3 (2 So) (3 fine) (2 .))", "(3 (2 .) (2 So) (3 fine))"])
    assert one.nodes.probabilities[0] == pytest.approx(other.nodes.probabilities[0], abs=1e-6)
    # Text gets a tree of the parser's, which is binary.
    assert max(model.predict(["So very fine ."])[0].nodes.arities) == 2


@pytest.mark.parametrize(
    ("data", "model", "message"),
    [
        ({"goal": "bracketing"}, BARE, 'data.goal = "bracketing" needs a parser, and model.parser.name = "none"'),
        (
            {"labels": "none", "goal": "bracketing"},
            {"loss": {"parser": 0.0}},
            'nothing is left to learn: data.labels = "none", model.parser.name = "spans", '
            "model.loss of root 1, nodes 1, parser 0",
        ),
        (
            {},
            BARE | {"loss": {"root": 0.0, "nodes": 0.0}},
            'nothing is left to learn: data.labels = "all", model.parser.name = "none", '
            "model.loss of root 0, nodes 0, parser 1",
        ),
    ],
)
def test_what_does_not_go_together_is_told(data: dict[str, Any], model: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        make(data, **model)


def test_a_goal_that_can_never_be_scored_is_told() -> None:
    told = 'data.goal = "binary_root" needs an order of classes (the whole numbers from 0, or names such as negative, '
    with pytest.raises(InputError, match=f"^{re.escape(told)}positive\\); found: NP, S$"):
        make({"goal": "binary_root"}, texts=["(S (NP a) (S b))"])
    with pytest.raises(ConfigError, match='labels = "none" leaves the parser alone: goal must be "bracketing", got "r'):
        make({"labels": "none"})


def test_without_labels_there_is_a_parser_alone() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = make({"labels": "none", "goal": "bracketing"})
    assert model.task.goal.key == "bracketing" and "bracketing" in model.task.metric
    found, rows = evaluated(model)
    assert set(model.task.score(found, rows)) == {"bracketing"}
    assert [table.title.split(" (")[0] for table in model.task.tables(found, rows)] == ["Unlabelled bracketing"]
    assert model.task.listings(found, rows, count=5) == []
    (encoded,) = model.task.batches(model.task.encode(rows), tokens=10**6)
    loss = model.task.loss(model.module.train(), encoded)
    loss.total.backward()
    assert loss.count.item() == sum(map(len, rows["tokens"]))
    learning = {name.split(".")[0] for name, value in model.module.named_parameters() if value.grad is not None}
    assert learning == {"embedding", "parser"}
    model.module.eval()
    example = model.task.prepare("not (8 fine)")
    (plain,) = model.predict(["not (8 fine)"])
    record = model.task.record(example, plain)
    assert record["label"] is None and "probabilities" not in record
    assert [(node["start"], node["end"]) for node in record["nodes"]] == spans(plain)
    assert all(set(node) == {"start", "end", "children"} for node in record["nodes"])
    assert [node["children"] for node in record["nodes"]] == list(plain.nodes.arities)
    assert [record["text"][start:end] for start, end in record["offsets"]] == record["tokens"]
    # The line of text is a tree that reads as the same.
    line = model.task.show(example, plain)
    (tree,) = (tree for _, tree in parse_trees([(1, line)], None))
    levels = level_order(tree)
    assert tree.leaves == ["not", "(", "8", "fine", ")"] and list(zip(levels.starts, levels.ends)) == spans(plain)
    given = "(S (A a) (B (C b) (D c)))"
    assert model.task.show(model.task.prepare(given), model.predict([given])[0]) == "(X (X a) (X (X b) (X c)))"
    assert model.task.show(model.task.prepare(""), model.task.empty) == ""
    with pytest.raises(InputError, match="this run learned no labels"):
        model.task.labelled(example, plain)


def test_two_classes_leave_neutral_nodes_out() -> None:
    model = make({"labels": "binary", "scale": 5})
    assert model.task.names == ["negative", "positive"]
    texts = [text for text in TREES if not text.startswith("(2")]
    found, rows = evaluated(model, texts)
    scores = model.task.score(found, rows)
    gold = [label for labels in rows["labels"] for label in labels]
    likeliest = ["negative" if a > b else "positive" for each in found for a, b in each.nodes.probabilities]
    right = [one == other for one, other in zip(likeliest, gold) if other]
    assert "" in gold and scores["nodes"] == scores["binary_nodes"] == pytest.approx(sum(right) / len(right))
    assert scores["root"] == scores["binary_root"]
    # Where no root has a label and nothing else counts, there is nothing to learn from.
    model = make({"labels": "binary"}, loss={"nodes": 0.0, "parser": 0.0})
    rows = dataset([TREES[4], TREES[5]], model.task.data)
    (batch,) = model.task.batches(model.task.encode(rows), tokens=10**6)
    loss = model.task.loss(model.module, batch)
    assert loss.total.item() == 0.0 and loss.count.item() == 0


@pytest.mark.parametrize("weights", [(1.0, 1.0), (2.0, 0.0), (0.0, 0.5), (0.25, 3.0)])
def test_the_loss_weighs_roots_and_other_nodes(weights: tuple[float, float]) -> None:
    root, nodes = weights
    model = make(loss={"root": root, "nodes": nodes}, **BARE)
    rows = dataset(TREES, model.task.data)
    (batch,) = model.task.batches(model.task.encode(rows), tokens=10**6)
    loss = model.task.loss(model.module, batch)
    total = count = 0.0
    for text, labels in zip(TREES, rows["labels"]):
        (found,) = model.predict([text])
        for place, (label, chances) in enumerate(zip(labels, found.nodes.probabilities)):
            weight = nodes if place else root
            total -= weight * float(torch.tensor(chances[int(label)]).log())
            count += weight
    assert loss.total.item() == pytest.approx(total, rel=1e-4) and loss.count.item() == pytest.approx(count)


def test_a_parser_alone_may_learn_where_there_are_labels() -> None:
    model = make(loss={"root": 0.0, "nodes": 0.0, "parser": 2.0})
    rows = dataset(TREES, model.task.data)
    (batch,) = model.task.batches(model.task.encode(rows), tokens=10**6)
    loss = model.task.loss(model.module, batch)
    words = model.module.embed(batch.words)
    cost, count = model.module.parser.loss(words, batch.lengths, batch.gold)
    assert loss.total.item() == pytest.approx(2 * cost.item()) and loss.count.item() == count.item() > 0


@pytest.mark.parametrize("tune", [True, False])
def test_the_parser_trains_the_words_it_reads_or_nothing_but_itself(tune: bool) -> None:
    model = make(parser={**SMALL["parser"], "tune": tune})
    (batch,) = model.task.batches(model.task.encode(dataset(TREES, model.task.data)), tokens=10**6)
    grads = []
    for weight in (0.0, 7.0):
        model.module.weights = model.module.weights.model_copy(update={"parser": weight})
        model.module.zero_grad()
        model.task.loss(model.module, batch).total.backward()
        grads.append(
            {name: value.grad.clone() for name, value in model.module.named_parameters() if value.grad is not None}
        )
    assert any(name.startswith("parser.") for name in grads[1])
    for name, gradient in grads[0].items():
        same = torch.allclose(grads[1][name], gradient, rtol=1e-5, atol=1e-6)
        assert same == (not tune or not name.startswith("embedding.")), name


def test_scores_beside_a_parser_are_those_of_its_trees() -> None:
    model = make()
    found, rows = evaluated(model)
    scores = model.task.score(found, rows)
    assert set(scores) >= {"root", "nodes", "binary_root", "binary_nodes", "bracketing", "parsed_root"}
    plain = model.predict([" ".join(words) for words in rows["tokens"]], pretokenized=True)
    gold = [labels[0] for labels in rows["labels"]]
    assert scores["parsed_root"] == pytest.approx(sum(a.label == b for a, b in zip(plain, gold)) / len(gold))
    assert scores["root"] == pytest.approx(sum(a.label == b for a, b in zip(found, gold)) / len(gold))
    sided = [(a.nodes.probabilities[0], int(b)) for a, b in zip(plain, gold) if b != "2"]
    right = [(chances[3] + chances[4] > chances[0] + chances[1]) == (label > 2) for chances, label in sided]
    assert scores["parsed_binary_root"] == pytest.approx(sum(right) / len(right))
    for each, other in zip(found, plain):
        assert spans(each._replace(nodes=each.own)) == spans(other)
    hits = true = guessed = 0
    for each, starts, ends in zip(found, rows["starts"], rows["ends"]):
        inside = [
            {(a, b) for a, b in pairs if 2 <= b - a < ends[0]} for pairs in (zip(starts, ends), zip(*each.own[1:3]))
        ]
        hits, true, guessed = hits + len(inside[0] & inside[1]), true + len(inside[0]), guessed + len(inside[1])
    assert scores["bracketing"] == pytest.approx(2 * hits / (true + guessed))
    alone = make(**BARE)
    found, rows = evaluated(alone)
    assert not {"bracketing", "parsed_root"} & set(alone.task.score(found, rows))
    assert all(each.own is None for each in found)


def test_tables_show_what_the_scores_say() -> None:
    model = make()
    found, rows = evaluated(model)
    scores = model.task.score(found, rows)
    accuracy, lengths, parsing = model.task.tables(found, rows)
    shown = {row[0]: row[1:] for row in accuracy.rows}
    nodes = sum(map(len, rows["labels"]))
    right = round(scores["nodes"] * nodes)
    assert shown["all nodes"] == [f"{100 * scores['nodes']:.2f}", str(right), str(nodes)]
    assert shown["root, by the parser's trees"] == [f"{100 * scores['parsed_root']:.2f}", "", ""]
    assert lengths.rows == [["1 to 9", str(len(TREES)), shown["root"][0], shown["all nodes"][0]]]
    # The inner spans of the data are (1, 3), (0, 2) and (2, 4) twice.
    assert parsing.rows[0] == ["the parser", f"{100 * scores['bracketing']:.2f}"]
    assert parsing.rows[1:] == [
        ["all left-branching", f"{100 * 2 * 2 / (5 + 5):.2f}"],
        ["all right-branching", f"{100 * 2 * 3 / (5 + 5):.2f}"],
        ["all balanced", f"{100 * 2 * 4 / (5 + 5):.2f}"],
    ]


def test_listings_have_the_roots_it_is_most_sure_of_and_wrong() -> None:
    model = make()
    found, rows = evaluated(model)
    wrong = [
        (max(each.nodes.probabilities[0]), number)
        for number, (each, labels) in enumerate(zip(found, rows["labels"]), start=1)
        if each.label != labels[0]
    ]
    wrong.sort(reverse=True)
    assert len(wrong) > 2
    (listing,) = model.task.listings(found, rows, count=2)
    assert [line["example"] for line in listing.examples] == [number for _, number in wrong[:2]]
    first = listing.examples[0]
    assert first["text"] == " ".join(rows["tokens"][first["example"] - 1])
    assert (first["gold"], first["probability"]) == (
        rows["labels"][first["example"] - 1][0],
        pytest.approx(wrong[0][0], abs=1e-6),
    )


def test_records_have_every_span_with_its_probabilities() -> None:
    model = make()
    for text, words in ((TREES[0], ["It", "is", "fine"]), ("It is fine", ["It", "is", "fine"])):
        (found,) = model.predict([text])
        record = model.task.record(model.task.prepare(text), found)
        assert json.loads(json.dumps(record)) == record
        assert (record["text"], record["tokens"], record["label"]) == (text, words, found.label)
        assert record["nodes"][0]["probabilities"] == record["probabilities"]
        for node, (start, end), chances in zip(record["nodes"], spans(found), found.nodes.probabilities, strict=True):
            assert (node["start"], node["end"]) == (start, end)
            assert list(node["probabilities"]) == model.task.names
            assert list(node["probabilities"].values()) == pytest.approx(chances, abs=1e-6)
            assert node["label"] == max(node["probabilities"], key=node["probabilities"].__getitem__)
    found, rows = evaluated(model)
    assert model.task.record(rows[1], found[1])["gold"] == "1"
    assert model.task.record(model.task.prepare(""), model.task.empty) == {
        "text": "",
        "tokens": [],
        "label": None,
        "nodes": [],
    }


def test_sentences_that_are_long_for_a_parser_are_told() -> None:
    rows = {"tokens": [["so"] * 401, ["so"]]}
    told = TreeSentiment.warnings(None, {"train": datasets.Dataset.from_dict(rows)})  # type: ignore[arg-type]
    assert told == [
        "train: a sentence of 401 words; the time that a parser takes grows with the third power of that; "
        "model.parser.name=none leaves it out"
    ]
    assert TreeSentiment.warnings(None, {"test": datasets.Dataset.from_dict({"tokens": [["so"] * 400]})}) == []  # type: ignore[arg-type]


def test_a_label_unseen_in_training_is_told_without_the_missing_ones() -> None:
    model = make()
    with pytest.raises(DataError) as caught:
        model.task.encode(dataset([TREES[0], "(3 (2 a) (2 (7 b) (2 c)))"], model.task.data))
    assert str(caught.value) == (
        "tree 2: label '7' was never seen in training; the labels of the training data are 0, 1, 2, 3, 4"
    )
