"""Entity scores against conlleval written out and against seqeval, on sequences valid and invalid."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from seqeval.metrics import accuracy_score
from seqeval.metrics.sequence_labeling import get_entities, precision_recall_fscore_support
from seqeval.scheme import IOB1, IOB2, IOBES, Tokens

from seqtext.data.labels import spans, strict_spans
from seqtext.metrics.entities import Counts, score

conlleval = runpy.run_path(str(Path(__file__).parents[1] / "reference" / "conlleval.py"))["conlleval"]
PREFIXES = {"IO": "I", "IOB1": "BI", "IOB2": "BI", "BIOES": "BIES"}


def corpora(prefixes: str, types: tuple[str, ...] = ("PER", "LOC")) -> st.SearchStrategy:
    """Gold and predicted sentences of random tags; the two agree often enough for long spans to be correct."""
    tag = st.sampled_from(["O", *(f"{prefix}-{kind}" if kind else prefix for prefix in prefixes for kind in types)])
    pair = st.one_of(tag.map(lambda both: (both, both)), st.tuples(tag, tag))
    corpus = st.lists(st.lists(pair, max_size=8), max_size=4)
    return corpus.map(lambda c: ([[a for a, _ in s] for s in c], [[b for _, b in s] for s in c]))


def check(corpus, scheme, expected):
    result = score(*corpus, scheme=scheme)
    kinds = sorted(expected.gold.keys() | expected.predicted.keys())
    assert list(result.types) == kinds
    for kind in kinds:
        assert result.types[kind] == (expected.gold[kind], expected.predicted[kind], expected.correct[kind])
    totals = [sum(counter.values()) for counter in (expected.gold, expected.predicted, expected.correct)]
    assert result.total == tuple(totals)
    assert (result.tokens, result.correct_tokens) == (expected.tags, expected.correct_tags)


@given(corpora("BIES", ("PER", "A-B", "")))
def test_equals_conlleval_on_any_tags(corpus):
    check(corpus, "BIOES", conlleval(*corpus))


@given(corpora("BI", ("PER", "LOC", "")), st.sampled_from(["IO", "IOB1", "IOB2"]))
def test_equals_the_original_conlleval_on_any_iob_tags(corpus, scheme):
    check(corpus, scheme, conlleval(*corpus, original=True))


def test_where_the_original_conlleval_is_not_followed():
    """The Perl program joins what S, and B after E, set apart; the later versions and seqeval do not."""
    for tags in (["S-PER", "S-PER"], ["B-PER", "E-PER", "B-PER", "E-PER"]):
        assert conlleval([tags], [tags], original=True).gold["PER"] == 1
        assert conlleval([tags], [tags]).gold["PER"] == len(spans(tags, "BIOES")) == 2
        assert len(get_entities(tags)) == 2


@given(corpora("BIES"))
def test_equals_seqeval_by_default(corpus):
    result = score(*corpus, scheme="BIOES")
    assume(result.tokens)  # seqeval refuses an empty corpus
    expected = precision_recall_fscore_support(*corpus, average="micro", zero_division=0)[:3]
    assert (result.precision, result.recall, result.f1) == pytest.approx(expected)
    assert result.accuracy == pytest.approx(accuracy_score(*corpus))


@given(st.sampled_from([("IOB2", IOB2), ("BIOES", IOBES)]), st.data())
def test_strict_score_equals_strict_seqeval(schemes, data):
    ours, theirs = schemes
    gold, predicted = data.draw(corpora(PREFIXES[ours]))
    expected, found = [], []
    for side in (gold, predicted):
        expected.append({e.to_tuple() for n, tags in enumerate(side) for e in Tokens(tags, theirs, sent_id=n).entities})
        found.append({(n, s.type, s.start, s.end) for n, tags in enumerate(side) for s in strict_spans(tags, ours)})
    assert found == expected
    counts = Counts(len(expected[0]), len(expected[1]), len(expected[0] & expected[1]))
    assert score(gold, predicted, scheme=ours).strict == counts


@pytest.mark.filterwarnings("ignore:U-PER seems not to be NE tag")
def test_where_seqeval_is_not_followed():
    """By default it knows no U and so joins what U sets apart; its strict IOB1 begins a span at any I after B."""
    assert get_entities(["U-PER", "U-PER"]) == [("PER", 0, 1)]  # its ends are inclusive
    assert spans(["U-PER", "U-PER"], "BIOES") == [(0, 1, "PER"), (1, 2, "PER")]
    slip = ["O", "B-PER", "I-PER"]
    assert [(e.start, e.end) for e in Tokens(slip, IOB1).entities] == [(2, 3)]
    assert strict_spans(slip, "IOB1") == []


def worked_example():
    gold = [["B-PER", "E-PER", "O", "S-LOC", "O"], ["S-LOC", "O", "S-ORG"], []]
    predicted = [["B-PER", "E-PER", "O", "S-LOC", "S-LOC"], ["I-LOC", "O", "S-PER"], []]
    tokens = [["Ada", "Xu", "saw", "Rome", "today"], ["Oslo", "met", "Acme"], []]
    return gold, predicted, tokens


def test_a_worked_example():
    gold, predicted, tokens = worked_example()
    known = ["Ada", "saw", "Rome", "today", "met"]
    result = score(gold, predicted, scheme="BIOES", tokens=tokens, known_words=known)
    assert result.total == Counts(gold=4, predicted=5, correct=3)
    assert result.types == {"LOC": (2, 3, 2), "ORG": (1, 0, 0), "PER": (1, 2, 1)}
    assert result.strict == (4, 4, 2)  # `I-LOC` alone is an entity to conlleval, and none to the strict score
    assert (result.sentences, result.invalid) == (3, 1)
    assert result.seen == (1, 2, 1)  # Rome; predicted: Rome, today
    assert result.unseen == (3, 3, 2)  # Ada Xu, Oslo, Acme: one unknown word is enough
    assert result.settings == "conlleval, micro F1, scheme BIOES"
    by_function = score(gold, predicted, scheme="BIOES", tokens=tokens, known_words=lambda word: word in known)
    assert by_function == result

    flat = result.flat()
    assert (flat["precision"], flat["recall"], flat["f1"]) == pytest.approx((3 / 5, 3 / 4, 2 / 3))
    assert flat["accuracy"] == pytest.approx(5 / 8)
    assert (flat["strict_f1"], flat["seen_f1"], flat["unseen_f1"]) == pytest.approx((1 / 2, 2 / 3, 2 / 3))
    assert (flat["f1/LOC"], flat["f1/ORG"], flat["invalid"]) == pytest.approx((4 / 5, 0, 1))
    rows = result.table()
    assert [row.name for row in rows] == [
        *("LOC", "ORG", "PER", "all", "all, strict", "all words in training", "a word not in training")
    ]
    assert rows[3][1:] == (3 / 5, 3 / 4, pytest.approx(2 / 3), 4, 5, 3)


def test_without_words_there_is_no_split_by_words_and_nothing_divides_by_zero():
    result = score([["O", "O"]], [["O", "O"]], scheme="IOB2")
    assert result.seen is None and not any("seen" in name for name in result.flat())
    assert [row.name for row in result.table()] == ["all", "all, strict"]
    assert (result.precision, result.recall, result.f1, result.accuracy) == (0, 0, 0, 1)
    assert score([], [], scheme="IOB2").accuracy == 0


@pytest.mark.parametrize(
    ("gold", "predicted", "more", "message"),
    [
        ([["O"]], [], {}, "1 gold sentences, but 0 of predicted tags"),
        ([["O"], ["O"]], [["O"], []], {}, "sentence 1, counted from 0: 1 gold tags, but 0 predicted tags"),
        ([["O"]], [["O"]], {"tokens": [["a", "b"]], "known_words": ()}, "1 gold tags, but 2 tokens"),
        ([["O"]], [["O"]], {"tokens": [["a"]]}, "tokens and known_words go together"),
        ([["O"]], [["X-PER"]], {}, "tag 'X-PER': unknown prefix 'X'"),
    ],
)
def test_input_that_does_not_match(gold, predicted, more, message):
    with pytest.raises(ValueError, match=message):
        score(gold, predicted, scheme="IOB2", **more)
