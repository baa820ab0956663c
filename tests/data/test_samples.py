"""The embedded sample: the same everywhere, well formed, new names in every split, and no use to a word list."""

import hashlib
import json
import re
from collections import Counter

import pytest

from seqtext.data.sample_words import FIXED, NOUN_NAMES
from seqtext.data.samples import NER, SIZES, expand, ner_sample
from seqtext.metrics import entities

SPLITS = ("train", "valid", "test")
TYPES = {"PER", "ORG", "LOC", "MISC"}


@pytest.fixture(scope="module")
def sample():
    return {split: list(ner_sample(split)) for split in SPLITS}


def names(sentences):
    """The words within entities, whatever their case."""
    return {token.casefold() for tokens, tags in sentences for token, tag in zip(tokens, tags) if tag != "O"}


def test_the_sentences_are_the_same_on_every_machine():
    # Fixed by value: a change here changes every score measured on the sample, and should be meant.
    found = {split: hashlib.sha256(json.dumps(list(ner_sample(split))).encode()).hexdigest()[:16] for split in SPLITS}
    assert found == {"train": "f059c5262e382d51", "valid": "bc99a822352a5f88", "test": "e5544baa31301c57"}


def test_size_takes_a_prefix_and_seed_other_sentences(sample):
    assert [len(sample[split]) for split in SPLITS] == [SIZES[split] for split in SPLITS] == [1500, 300, 300]
    assert list(ner_sample("train", size=40)) == sample["train"][:40]
    assert list(ner_sample("train", size=0)) == []
    other = {tuple(tokens) for tokens, _ in ner_sample("train", size=300, seed=1)}
    assert len(other & {tuple(tokens) for tokens, _ in sample["train"]}) < 15


def test_an_unknown_split_is_named_before_anything_is_drawn():
    with pytest.raises(ValueError, match="no split 'dev' in the sample; it has train, valid, test"):
        ner_sample("dev")


@pytest.mark.parametrize("split", SPLITS)
def test_tags_are_iob2_and_sentences_differ(sample, split):
    assert {tag.partition("-")[2] for _, tags in sample[split] for tag in tags} == TYPES | {""}
    for tokens, tags in sample[split]:
        assert len(tokens) == len(tags) > 0
        assert all(token and not token.isspace() and not re.search(r"[<>\[\]]", token) for token in tokens)
        for before, tag in zip(["O", *tags], tags):
            assert tag == "O" or tag[:2] == "B-" or before[2:] == tag[2:], (tokens, tags)
    assert len({tuple(tokens) for tokens, _ in sample[split]}) > 0.97 * len(sample[split])
    # Also with every name masked by its type few sentences are alike: the grammar varies, not its names alone.
    shapes = {tuple(tag if tag != "O" else token for token, tag in zip(*sentence)) for sentence in sample[split]}
    assert len(shapes) > 0.75 * len(sample[split])
    without = sum(set(tags) == {"O"} for _, tags in sample[split]) / len(sample[split])
    assert 0.03 < without < 0.2


def test_tokens_are_treebank_tokens(sample):
    from nltk.tokenize import NLTKWordTokenizer

    tokenizer = NLTKWordTokenizer()
    for tokens, _ in sample["train"]:
        again = [token.replace("``", '"').replace("''", '"') for token in tokenizer.tokenize(" ".join(tokens))]
        assert again == tokens


@pytest.mark.parametrize("seed", [0, 7])
def test_names_of_one_split_are_in_no_other(sample, seed):
    # What may be shared stands in the grammar within brackets (Bank, of, United) or among the fixed words (initials).
    spans = re.findall(r"\[[A-Z]+ (.*?) \]", "\n".join(NER.values()))
    literal = {word.casefold() for span in spans for word in span.split() if not word.startswith("<")}
    assert {"bank", "united", "of"} <= literal
    literal |= {word.casefold() for words in FIXED.values() for word in words.split()}
    drawn = {split: names(ner_sample(split, seed=seed)) - literal for split in ("valid", "test")}
    drawn["train"] = names(sample["train"]) - literal
    assert all(len(words) > 300 for words in drawn.values())
    for one, other in (("train", "valid"), ("train", "test"), ("valid", "test")):
        assert not drawn[one] & drawn[other]
    # Nor does a held-out name occur in training outside entities, unless it is a common word too (Baker, a baker).
    common = {word.casefold() for words in NOUN_NAMES.values() for word in words.split()}
    outside = {token.casefold() for tokens, _ in sample["train"] for token in tokens}
    assert not (drawn["valid"] | drawn["test"]) & outside - common


def test_one_surface_has_several_types(sample):
    types = {}
    for tokens, tags in sample["test"] + sample["train"]:
        for token, tag in zip(tokens, tags):
            types.setdefault(token, set()).add(tag[2:])
    several = Counter(frozenset(found) for found in types.values() if len(found) > 1)
    for wanted in ({"LOC", "ORG"}, {"PER", "ORG"}, {"LOC", "MISC"}, {"PER", ""}):
        assert sum(count for found, count in several.items() if wanted <= found) >= 5, wanted


@pytest.mark.parametrize("unseen", ["O", *sorted(TYPES)])
def test_a_word_list_does_badly(sample, unseen):
    counts = {}
    for tokens, tags in sample["train"]:
        for token, tag in zip(tokens, tags):
            counts.setdefault(token, Counter())[tag] += 1
    known = {token: tags.most_common(1)[0][0] for token, tags in counts.items()}

    def tag(tokens):
        tags = []
        for token in tokens:
            inside = unseen != "O" and tags and tags[-1][2:] == unseen
            tags.append(known.get(token, "O" if unseen == "O" else f"{'I' if inside else 'B'}-{unseen}"))
        return tags

    f1 = {}
    for split in ("train", "test"):
        gold = [tags for _, tags in sample[split]]
        f1[split] = entities.score(gold, [tag(tokens) for tokens, _ in sample[split]], scheme="IOB2").f1
    assert f1["test"] < 0.6 < f1["train"]  # it learns its own text: the names, not the grammar, defeat it


def test_every_symbol_can_be_drawn_and_a_misspelt_one_is_an_error():
    import random

    rng = random.Random(0)
    for symbol in {name for text in NER.values() for name in re.findall(r"<([^>]+)>", text)}:
        for split in SPLITS:
            assert list(expand(NER, symbol, split, rng))
    with pytest.raises(KeyError, match="surnam"):
        list(expand({"s": "<surnam>"}, "s", "train", rng))
