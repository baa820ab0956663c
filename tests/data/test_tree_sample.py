"""The embedded trees: the same everywhere, labelled by rules that are written here once more, and no bag of words."""

import hashlib
import json
import random
from collections import Counter

import numpy as np
import pytest

from seqtext.data.tree_sample import SIZES, VALUES, _drawn, tree_sample, unseen

HASHES = {"train": "a5f9af5f21723339", "valid": "ee316ecc66889044", "test": "d38cfa90c9263f97"}
SPLITS = ("train", "valid", "test")

# What a word makes of the value, from -2 to 2, of what stands to its right.
TURN, RAISE, LOWER, OPEN = [1, 1, 0, -1, -1], [-2, -2, 0, 2, 2], [-1, -1, 0, 1, 1], [0, 0, 0, 0, 0]
ACTS = {
    **dict.fromkeys(["not", "never", "hardly", "barely", "no", "nobody", "doubt", "far"], TURN),
    **dict.fromkeys(["very", "really", "truly", "simply"], RAISE),
    **dict.fromkeys(["fairly", "somewhat", "rather", "mildly"], LOWER),
    **dict.fromkeys(["whether", "if"], OPEN),
}


def words(tree):
    return [word.lower() for word in tree.leaves]


def nested(tree, node=-1):
    """A word, or the two sides of a node."""
    children = tree.children[node]
    return tuple(nested(tree, child) for child in children) or tree.leaves[tree.starts[node]].lower()


def judge(node, found):
    """The value of a node of `nested`; appends the label of each node in post-order."""
    if isinstance(node, str):
        value = VALUES.get(node, 0)
    else:
        (left, right), values = node, [judge(side, found) for side in node]
        if isinstance(left, str) and left in ACTS:
            value = ACTS[left][values[1] + 2]
        elif right[0] in ("but", "yet"):
            value = LOWER[values[1] + 2]
        elif left[0] in ("although", "though"):
            value = values[1]
        else:
            value = int(np.clip(sum(values), -2, 2))
    found.append(str(value + 2))
    return value


@pytest.fixture(scope="module")
def sample():
    return {split: list(tree_sample(split)) for split in SPLITS}


def test_the_trees_are_the_same_on_every_machine(sample):
    # Fixed by value: a change here changes every score measured on the sample, and should be meant.
    found = {split: hashlib.sha256(json.dumps(sample[split]).encode()).hexdigest()[:16] for split in SPLITS}
    assert found == HASHES


def test_size_takes_a_prefix_and_seed_other_trees(sample):
    assert [len(sample[split]) for split in SPLITS] == [SIZES[split] for split in SPLITS] == [4000, 500, 500]
    assert list(tree_sample("train", size=40)) == sample["train"][:40]
    other = {" ".join(tree.leaves) for tree in tree_sample("train", size=300, seed=1)}
    assert len(other & {" ".join(tree.leaves) for tree in sample["train"]}) < 150
    with pytest.raises(ValueError, match="no split 'dev' in the sample; it has train, valid, test"):
        tree_sample("dev")


@pytest.mark.parametrize("split", SPLITS)
def test_the_rules_tell_the_label_of_every_node(sample, split):
    for tree in sample[split]:
        found: list[str] = []
        judge(nested(tree), found)
        assert tree.labels == found, " ".join(tree.leaves)
    roots = Counter(tree.labels[-1] for tree in sample[split])
    assert roots.keys() == set("01234") and min(roots.values()) > 0.08 * len(sample[split])
    assert abs(roots["0"] + roots["1"] - roots["3"] - roots["4"]) < 0.1 * len(sample[split])


@pytest.mark.parametrize("split", SPLITS)
def test_trees_are_well_formed(sample, split):
    lengths = [len(tree.leaves) for tree in sample[split]]
    assert 3 <= min(lengths) <= 4 and 23 <= max(lengths) <= 25
    for tree in sample[split]:
        assert len(tree.labels) == 2 * len(tree.leaves) - 1 and {*map(len, tree.children)} == {0, 2}
        for node, children in enumerate(tree.children):
            edges = [tree.starts[node], *(tree.ends[child] for child in children)]
            if children:
                assert edges[:-1] == [tree.starts[child] for child in children] and edges[-1] == tree.ends[node]
        assert tree.leaves[0][0].isupper()
        polar = [word for word in words(tree) if word in VALUES]
        assert len(set(polar)) == len(polar)


def test_no_sentence_is_in_two_splits_or_twice_in_one(sample):
    sentences = {split: [" ".join(words(tree)) for tree in sample[split]] for split in SPLITS}
    other = [" ".join(words(tree)) for tree in tree_sample("test", size=200, seed=3)]  # whatever the seed
    assert len(set().union(*sentences.values())) == sum(map(len, sentences.values()))
    assert not set(other) & {*sentences["train"], *sentences["valid"]}


def test_some_pairs_of_words_are_met_in_valid_and_test_only(sample):
    apart = {split: sum(map(unseen, sample[split])) for split in SPLITS}
    assert not apart["train"] and apart["valid"] > 150 and apart["test"] > 150
    # The words themselves are all known.
    known = {word for tree in sample["train"] for word in words(tree)}
    assert {word for split in SPLITS for tree in sample[split] for word in words(tree)} == known
    assert VALUES.keys() < known and not VALUES.keys() & ACTS.keys()


def test_unseen_pairs_by_hand(sample):
    def pairs(tree):
        """Every pair of an acting and a polar word, or of polar words on the sides of a turn, by recursion."""

        def polar(node):
            return [node] * (node in VALUES) if isinstance(node, str) else polar(node[0]) + polar(node[1])

        def visit(node):
            if isinstance(node, str):
                return
            left, right = node
            turn = right[0] in ("but", "yet") or left[0] in ("although", "though")
            acting = polar(left) if turn else [left] * (isinstance(left, str) and left in ACTS)
            found.update((one, other) for one in acting for other in polar(right))
            visit(left)
            visit(right)

        found = set()
        visit(nested(tree))
        return found

    met = set().union(*map(pairs, sample["train"]))
    for split in ("valid", "test"):
        for tree in sample[split]:
            # A pair that is kept apart is not met in training; nearly all others are (measured: 0.87).
            assert not unseen(tree) or pairs(tree) - met
        others = [tree for tree in sample[split] if not unseen(tree)]
        assert sum(pairs(tree) <= met for tree in others) > 0.8 * len(others)


def accuracy(train, test):
    """Of five classes and of the two sides of neutral: a softmax regression on which words are in a sentence."""
    numbers = {word: number for number, word in enumerate(sorted({word for tree in train for word in words(tree)}))}
    inputs = [np.zeros((len(trees), len(numbers) + 1)) for trees in (train, test)]
    for matrix, trees in zip(inputs, (train, test)):
        matrix[:, -1] = 1.0
        for row, tree in enumerate(trees):
            matrix[row, [numbers[word] for word in words(tree)]] = 1.0
    roots = [np.array([int(tree.labels[-1]) for tree in trees]) for trees in (train, test)]
    weights = velocity = np.zeros((len(numbers) + 1, 5))
    for _ in range(150):
        scores = np.exp(inputs[0] @ weights)
        slope = inputs[0].T @ (scores / scores.sum(1, keepdims=True) - np.eye(5)[roots[0]]) / len(train)
        velocity = 0.9 * velocity + slope
        weights = weights - 0.5 * velocity
    scores = np.exp(inputs[1] @ weights)
    polar = roots[1] != 2
    side = (scores[:, 3] + scores[:, 4] > scores[:, 0] + scores[:, 1]) == (roots[1] > 2)
    return float((scores.argmax(1) == roots[1]).mean()), float(side[polar].mean())


def test_a_bag_of_words_fails(sample):
    fine, binary = accuracy(sample["train"], sample["valid"] + sample["test"])
    # Measured with seeds 0, 1, 2: 0.56, 0.55, 0.55 and 0.56, 0.55, 0.54. The most frequent class alone would be 0.3.
    assert 0.45 < fine < 0.65 and binary < 0.65


@pytest.mark.parametrize(
    ("shape", "value"),
    [
        (("not", ("very", "good")), -1),
        (("not", "superb"), -1),
        (("not", "bad"), 1),
        (("really", ("not", "good")), -2),
        (("not", ("really", "good")), -1),
        (("very", "good"), 2),
        (("mildly", "dreadful"), -1),
        (("good", ("but", "expensive")), -1),
        (("dull", ("but", "superb")), 1),
        ((("although", "dull"), (",", "superb")), 2),
        (("superb", ("and", "good")), 2),
        (("whether", "superb"), 0),
        ((("the", "plot"), ("is", "thin")), -1),
        (("good", "bad"), None),  # no reviewer writes this
        (("good", ("but", "superb")), None),
    ],
)
def test_rules_by_example(shape, value):
    part = _drawn(shape, random.Random(0))
    assert part is None if value is None else part.value == value
