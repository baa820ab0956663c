"""Scores of translations against Papineni's equations, sacreBLEU's own functions and counts made by hand."""

from __future__ import annotations

import json
import logging
import math
import random
import subprocess
import sys

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

from seqtext.metrics.translation import by_length, corpus_bleu, quality, sentence_chrf, tokenization_warning
from tests.reference.bleu import bleu, brevity_penalty, precision

WORDS = ["ein", "Mann", "sieht", "den", "Hund"]
# A line on both sides with which some 4-gram always matches, and so nothing is smoothed.
SHARED = ["eins", "zwei", "drei", "vier"]
lines_of_words = st.lists(st.sampled_from(WORDS), max_size=7)


def noisy(lines, chance, seed):
    """Translations that have some of their words wrong."""
    rng = random.Random(seed)
    return [" ".join(rng.choice(WORDS) if rng.random() < chance else word for word in line.split()) for line in lines]


@pytest.fixture(scope="module")
def corpus():
    """60 lines with capitals, commas, umlauts and numbers, translations with some words wrong, one of them empty."""
    rng = random.Random(1)
    words = [*WORDS, "grünen", "3,5", "Kind,", "Straße", "läuft", "Fußball-Trikot"]
    references = [" ".join(rng.choices(words, k=rng.randint(1, 14))) + rng.choice([".", "!", ""]) for _ in range(60)]
    hypotheses = noisy(references, 0.3, 2)
    hypotheses[7] = ""
    hypotheses[8] = hypotheses[8].upper()
    return hypotheses, references


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(lines_of_words, lines_of_words, lines_of_words), max_size=5))
def test_bleu_by_papineni_with_one_and_with_two_references(triples):
    candidates, *references = ([*side, SHARED] for side in (zip(*triples) if triples else ([], [], [])))
    text = [[" ".join(words) for words in side] for side in (candidates, *references)]
    for count in (1, 2):
        alternatives = list(zip(*references[:count]))
        found = quality(text[0], *text[1 : 1 + count])
        assert found.bleu == pytest.approx(100 * bleu(candidates, alternatives))
        expected = [100 * precision(candidates, alternatives, n) for n in range(1, 5)]
        assert found.precisions == pytest.approx(expected)
        assert found.brevity_penalty == pytest.approx(brevity_penalty(candidates, alternatives))
        assert found.signatures["bleu"].startswith(f"nrefs:{count}|case:mixed|eff:no|tok:13a|smooth:exp|")


def test_an_example_by_hand():
    # Of 5 words all but "mat" match, of 4 pairs all but the last, and so on; 5 tokens where 6 are wanted.
    found = quality(["the cat sat on mat"], ["on the cat sat on mats"])
    assert found.precisions == pytest.approx([100 * 4 / 5, 100 * 3 / 4, 100 * 2 / 3, 100 * 1 / 2])
    assert found.brevity_penalty == pytest.approx(math.exp(1 - 6 / 5))
    assert found.bleu == pytest.approx(100 * math.exp(-0.2) * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert (found.hypothesis_tokens, found.reference_tokens, found.length_ratio) == (5, 6, pytest.approx(5 / 6))
    # "on" put in and "mat" changed: 2 edits, 6 words.
    assert found.ter == pytest.approx(100 * 2 / 6)
    # Papineni's example 2: "the" counts twice, as often as one reference has it.
    assert quality(["the " * 7], ["the cat is on the mat"], ["there is a cat on the mat"]).precisions[0] == (
        pytest.approx(100 * 2 / 7)
    )


def test_case_matters_but_to_the_lower_cased_figure():
    found = quality(["EIN MANN LÄUFT ÜBER GRAS."], ["Ein Mann läuft über Gras."])
    assert (found.bleu < 20, found.bleu_lowercased) == (True, pytest.approx(100))
    assert "|case:lc|" in found.signatures["bleu_lowercased"] and "|tok:13a|" in found.signatures["bleu_lowercased"]


def test_equal_to_the_sacrebleu_command(corpus, tmp_path):
    hypotheses, references = corpus
    for name, lines in zip(("hyp", "ref"), corpus):
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "sacrebleu", "ref", "-i", "hyp", "-f", "json", "-w", "10", "-m"]
    found = quality(hypotheses, references)
    rows = found.table()
    for options, wanted in ((["bleu", "chrf", "ter"], rows[:3]), (["bleu", "-lc"], rows[3:])):
        done = subprocess.run([*command, *options], cwd=tmp_path, capture_output=True, text=True, check=True)
        printed = json.loads(done.stdout)
        theirs = printed if isinstance(printed, list) else [printed]
        assert [(row.score, row.signature) for row in wanted] == [
            (pytest.approx(each["score"], abs=1e-10), each["signature"]) for each in theirs
        ]
    assert [row.name for row in rows] == ["BLEU", "chrF2", "TER", "BLEU, lower-cased, tokenised"]
    assert corpus_bleu(hypotheses, references) == found.bleu
    assert 10 < found.bleu < 90  # no score that anything gets


def test_what_goes_into_files(corpus):
    found = quality(*corpus)
    assert list(found.flat()) == [
        *("bleu", "chrf2", "ter", "bleu_lowercased", "brevity_penalty", "length_ratio"),
        *("hypothesis_tokens", "reference_tokens", "precision/1", "precision/2", "precision/3", "precision/4"),
    ]
    assert json.loads(json.dumps(found.flat()))["precision/2"] == found.precisions[1]
    assert found.settings.startswith("BLEU nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:")
    assert "; TER nrefs:1|case:lc|tok:tercom|" in found.settings


def test_chrf_of_each_sentence(corpus):
    hypotheses, references = corpus
    found = sentence_chrf(hypotheses, references)
    theirs = [sacrebleu.sentence_chrf(line, [other]).score for line, other in zip(hypotheses, references)]
    assert found == theirs
    assert found[7] == 0
    # The better one of two references counts.
    assert sentence_chrf(["ein Hund"], ["eine Katze"], ["ein Hund"]) == [pytest.approx(100)]


def test_buckets_hold_each_sentence_once_by_the_words_of_its_source(corpus):
    hypotheses, references = corpus
    lengths = [number % 12 for number in range(len(references))]
    sources = [" ".join(["word"] * length) for length in lengths]
    buckets = by_length(sources, hypotheses, references, edges=(3, 4, 9, 20))
    ranges = [(0, 2), (3, 3), (4, 8), (9, 19)]  # nothing from 20 on
    assert [(bucket.shortest, bucket.longest) for bucket in buckets] == ranges
    assert [bucket.sentences for bucket in buckets] == [15, 5, 25, 15]
    for bucket, (shortest, longest) in zip(buckets, ranges):
        chosen = [number for number, length in enumerate(lengths) if shortest <= length <= longest]
        alone = quality([hypotheses[number] for number in chosen], [references[number] for number in chosen])
        assert (bucket.bleu, bucket.length_ratio) == (alone.bleu, alone.length_ratio)
    (whole,) = by_length(["far " * 99] * 60, hypotheses, references)
    assert (whole.shortest, whole.longest, whole.sentences) == (50, None, 60)
    assert whole.bleu == corpus_bleu(hypotheses, references)


def test_nothing_translated():
    found = quality(["", ""], ["Ein Hund.", "Ein Mann."])
    assert (found.bleu, found.chrf2, found.ter, found.length_ratio, found.brevity_penalty) == (0, 0, 100, 0, 0)
    found = quality([""], [""])
    assert (found.bleu, found.ter, found.length_ratio) == (0, 0, 0)


DETOKENIZED = ["Ein Mann, der läuft.", "Die Frau's Hund; er schläft."] * 5


@pytest.mark.parametrize(
    ("line", "sign"),
    [
        ("Ein Mann , der läuft .", "a space before a full stop, comma or semicolon"),
        ("Ein Mann ; er", "a space before a full stop, comma or semicolon"),
        ("Ein Ma@@ nn", "the mark @@ of subwords"),
        ("▁Ein ▁Ma nn", "the mark ▁ of subwords"),
        ("ein weiß @-@ grüner", "Moses' @-@ for a hyphen"),
        ("Frau &apos;s", "Moses' escapes, as in &apos;"),
    ],
)
def test_tokenised_text_is_told(line, sign):
    tokenised = [*DETOKENIZED[2:], line, line]
    seen = f"({sign} in 2 of 10 lines, as in {line!r})"
    assert tokenization_warning(tokenised, DETOKENIZED) == (
        f"the hypotheses look tokenised and the references do not {seen}; detokenise the hypotheses first"
    )
    assert tokenization_warning(DETOKENIZED, tokenised) == (
        f"the references look tokenised and the hypotheses do not {seen}; detokenise the references first"
    )
    assert tokenization_warning(tokenised, tokenised) is None
    assert tokenization_warning([*DETOKENIZED[1:], line], DETOKENIZED) is None  # a tenth may be chance


def test_plain_text_does_not_look_tokenised(caplog):
    lines = ["Um 3 .5 Uhr ...", "nutzer@@example", "a , b"]  # of 30
    assert tokenization_warning([*DETOKENIZED * 3, *lines], DETOKENIZED) is None
    assert tokenization_warning([], []) is None
    # sacreBLEU's own warning is off: it begins at a hundred such lines.
    with caplog.at_level(logging.DEBUG):
        corpus_bleu(["Ein Mann ."] * 200, ["Ein Mann."] * 200)
    assert not caplog.records


@pytest.mark.parametrize("function", [quality, corpus_bleu, sentence_chrf, lambda *sides: by_length([], *sides)])
@pytest.mark.parametrize(
    ("sides", "message"),
    [
        (([], []), "nothing to score: no hypotheses"),
        ((["a"],), "nothing to score against: no references"),
        ((["a"] * 1000, ["a"] * 998), "998 references, but 1,000 hypotheses"),
        ((["a"], ["a"], ["a", "b"]), "2 references, but 1 hypotheses"),
    ],
)
def test_sides_that_do_not_fit(function, sides, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        function(*sides)


def test_buckets_that_make_no_sense():
    with pytest.raises(ValueError, match=r"^edges \[5, 5\]: expected positive numbers, each larger than"):
        by_length(["a"], ["a"], ["a"], edges=(5, 5))
    with pytest.raises(ValueError, match=r"^edges \[0\]: expected positive"):
        by_length(["a"], ["a"], ["a"], edges=(0,))
    with pytest.raises(ValueError, match=r"^2 sources, but 1 hypotheses$"):
        by_length(["a", "b"], ["a"], ["a"])
