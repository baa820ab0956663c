"""Tag schemes against enumeration and round trips; the label vocabulary and its errors."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.data.labels import (
    SCHEMES,
    Labels,
    Span,
    TagError,
    allowed_transitions,
    continues,
    convert,
    detect_scheme,
    from_spans,
    is_valid,
    read_tag,
    spans,
    split_tag,
    strict_spans,
)
from seqtext.errors import InputError, RunError

TELLING = ("IOB1", "IOB2", "BIOES")  # the schemes that tell adjoining spans of one type apart
PIECES = st.lists(st.tuples(st.integers(0, 2), st.integers(1, 4), st.sampled_from(["PER", "A-B", ""])), max_size=5)


@st.composite
def sentences(draw: st.DrawFn, gap: int = 0) -> tuple[int, list[Span]]:
    """A length and spans in order, at least `gap` words apart."""
    found: list[Span] = []
    end = 0
    for before, length, kind in draw(PIECES):
        start = end + before + (gap if found else 0)
        end = start + length
        found.append(Span(start, end, kind))
    return end + draw(st.integers(0, 2)), found


@given(sentences(), st.sampled_from(TELLING), st.sampled_from(TELLING))
def test_schemes_carry_spans_and_convert_into_each_other(sentence, source, target):
    length, true = sentence
    tags = from_spans(length, reversed(true), source)
    assert spans(tags, source) == strict_spans(tags, source) == true
    assert is_valid(tags, source)
    converted = convert(tags, source, target)
    assert converted == from_spans(length, true, target)
    assert convert(converted, target, source) == tags


@given(sentences(gap=1))
def test_io_carries_spans_that_do_not_touch(sentence):
    length, true = sentence
    assert convert(from_spans(length, true, "BIOES"), "BIOES", "IO") == from_spans(length, true, "IO")
    assert spans(from_spans(length, true, "IO"), "IO") == true


def test_io_joins_spans_that_touch():
    tags = from_spans(3, [Span(0, 2, "PER"), Span(2, 3, "PER")], "IO")
    assert spans(tags, "IO") == [Span(0, 3, "PER")]


@pytest.mark.parametrize(
    ("scheme", "written"),
    [
        ("IO", "I-PER I-PER I-PER I-LOC O I-LOC"),
        ("IOB1", "I-PER I-PER B-PER I-LOC O I-LOC"),
        ("IOB2", "B-PER I-PER B-PER B-LOC O B-LOC"),
        ("BIOES", "B-PER E-PER S-PER S-LOC O S-LOC"),
    ],
)
def test_each_scheme_written_out(scheme, written):
    true = [Span(0, 2, "PER"), Span(2, 3, "PER"), Span(3, 4, "LOC"), Span(5, 6, "LOC")]
    assert from_spans(6, true, scheme) == written.split()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_transitions_admit_exactly_the_valid_sequences_and_continues_reads_their_spans(scheme):
    names = Labels.fit([["O", "I-PER", "I"]], scheme=scheme).names  # one type is no type: B, I, ...
    start, follow, end = allowed_transitions(names, scheme)
    goes_on = continues(names, scheme)
    admitted = 0
    for length in range(1, 5):
        for path in itertools.product(range(len(names)), repeat=length):
            tags = [names[label] for label in path]
            admits = start[path[0]] and end[path[-1]] and all(follow[a][b] for a, b in itertools.pairwise(path))
            assert admits == is_valid(tags, scheme), tags
            admitted += admits
            begins = [i for i, label in enumerate(path) if label and not (i and goes_on[path[i - 1]][label])]
            assert [span.start for span in spans(tags, scheme)] == begins, tags
    assert admitted > 0


def test_invalid_sequences_are_read_as_conlleval_reads_them_and_mended_by_convert():
    tags = ["I-PER", "E-PER", "I-PER", "O", "B-LOC", "I-PER", "S-PER", "E-LOC"]
    read = [(0, 2, "PER"), (2, 3, "PER"), (4, 5, "LOC"), (5, 6, "PER"), (6, 7, "PER"), (7, 8, "LOC")]
    assert spans(tags, "BIOES") == read
    assert strict_spans(tags, "BIOES") == [(6, 7, "PER")]
    mended = convert(tags, "BIOES", "BIOES")
    assert mended == ["B-PER", "E-PER", "S-PER", "O", "S-LOC", "S-PER", "S-PER", "S-LOC"]
    assert is_valid(mended, "BIOES") and not is_valid(tags, "BIOES")
    assert strict_spans(["O", "B-PER", "I-PER", "B-PER"], "IOB1") == [(3, 4, "PER")]  # B is for touching spans alone


def test_other_prefix_families_read_as_bioes():
    assert [split_tag(tag) for tag in ("M-X", "L-X", "U-X", "W-X", "B-X-Y", "B")] == [
        ("I", "X"),
        ("E", "X"),
        ("S", "X"),
        ("S", "X"),
        ("B", "X-Y"),
        ("B", ""),
    ]
    bilou = ["U-PER", "U-PER", "B-LOC", "I-LOC", "L-LOC", "O"]
    assert detect_scheme([bilou]) == "BIOES"
    assert convert(bilou, "BIOES", "BIOES") == ["S-PER", "S-PER", "B-LOC", "I-LOC", "E-LOC", "O"]


@given(st.lists(sentences(), max_size=4), st.sampled_from(TELLING))
def test_detect_scheme_finds_the_scheme_written(corpus, scheme):
    touching = (4, [Span(0, 2, "PER"), Span(2, 4, "PER")])
    assert detect_scheme(from_spans(length, true, scheme) for length, true in [*corpus, touching]) == scheme


@pytest.mark.parametrize(
    ("corpus", "scheme"),
    [
        ("O PER PER O person-actor", "IO"),
        ("O I-PER I-PER I-LOC", "IOB1"),  # IO or IOB1: the same spans
        ("B-PER O B-LOC", "IOB2"),
        ("O O", "IOB2"),
        ("B-PER O B-LOC I-LOC I-PER", "IOB2"),  # one slip
        ("I-PER O I-LOC I-LOC B-PER I-PER B-PER I-LOC", "IOB1"),  # one slip
    ],
)
def test_detect_scheme_by_statistics(corpus, scheme):
    assert detect_scheme([corpus.split()]) == scheme


def test_plain_types_are_inside_in_io_only():
    assert convert(["O", "PER", "PER", "person-actor"], "IO", "IOB2") == ["O", "B-PER", "I-PER", "B-person-actor"]
    assert read_tag("PER", "IO") == ("I", "PER")
    with pytest.raises(
        TagError, match=r"^tag 'PER': no prefix; IOB2 tags are O or a prefix \(B, I\), a dash and a type$"
    ):
        spans(["PER"], "IOB2")
    with pytest.raises(TagError, match=r"^tag 'LOC': no prefix, although other tags have one, such as 'B-PER'$"):
        detect_scheme([["B-PER"], ["LOC", "PER"]])


def test_unknown_prefix_names_the_tag_and_takes_its_place_from_the_reader():
    with pytest.raises(
        TagError, match=r"^tag 'X-PER': unknown prefix 'X'; allowed are B, I, O, E, S \(IOB1,"
    ) as caught:
        detect_scheme([["O", "X-PER"]])
    assert caught.value.tag == "X-PER"
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, InputError)
    placed = caught.value.at("train.conll", 7)
    assert str(placed).startswith("train.conll:7: tag 'X-PER': unknown prefix 'X'; ")
    assert (placed.path, placed.line, placed.tag) == ("train.conll", 7, "X-PER")
    for tag, message in (("O-PER", "tag 'O-PER': unknown prefix 'O'"), ("-PER", "prefix ''"), ("", "a tag is empty")):
        with pytest.raises(TagError, match=message):
            split_tag(tag)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([Span(1, 1, "X")], "0 <= start < end <= 3"),
        ([Span(2, 4, "X")], "0 <= start < end <= 3"),
        ([Span(1, 3, "X"), Span(0, 2, "X")], "overlaps a span that ends at 2"),
    ],
)
def test_from_spans_refuses_spans_that_do_not_fit(wrong, message):
    with pytest.raises(ValueError, match=message):
        from_spans(3, wrong, "BIOES")


def test_a_name_or_scheme_that_does_not_exist():
    with pytest.raises(ValueError, match="scheme 'BIO': allowed are IO, IOB1, IOB2, BIOES"):
        spans(["O"], "BIO")
    with pytest.raises(TagError, match="tag 'E-PER': prefix not in IOB2; allowed are B, I and O"):
        allowed_transitions(["O", "E-PER"], "IOB2")


def test_labels_of_a_scheme_have_every_prefix_of_every_type():
    labels = Labels.fit([["O", "S-PER"], ["B-LOC", "E-LOC"]], scheme="BIOES")
    assert labels.names == ("O", "B-LOC", "I-LOC", "E-LOC", "S-LOC", "B-PER", "I-PER", "E-PER", "S-PER")
    assert labels.decode(labels.encode(["E-PER", "O"])) == ["E-PER", "O"]
    assert labels.encode(["O", "S-PER"]) == [0, 8]
    assert Labels.fit([["B", "O"]], scheme="IOB2").names == ("O", "B", "I")


def test_plain_labels_are_sorted_and_take_one_sequence():
    assert Labels.fit([["pos", "neg"], ["O", "neg"]]).names == ("O", "neg", "pos")
    with pytest.raises(TypeError, match="was given the label 'pos' for a sequence"):
        Labels.fit(["pos", "neg"])
    with pytest.raises(ValueError, match="a label name is given twice: a, b, a"):
        Labels(("a", "b", "a"))


def test_unknown_label_names_it_and_the_known_ones():
    labels = Labels.fit([["O", "I-PER"]], scheme="IOB2")
    with pytest.raises(
        TagError, match=r"^label 'B-LOC' is not in the training data; known labels: O, B-PER, I-PER$"
    ) as e:
        labels.encode(["O", "B-LOC"])
    assert str(e.value.at("test.conll", 3)).startswith("test.conll:3: label 'B-LOC'")


def test_labels_survive_the_file(tmp_path):
    path = tmp_path / "labels.json"
    for labels in (Labels.fit([["O", "B-Ort", "I-Straße"]], scheme="BIOES"), Labels(("neg", "pos"))):
        labels.save(path)
        assert Labels.load(path) == labels
    assert json.loads(path.read_text()) == {"names": ["neg", "pos"], "scheme": None}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"names": ["O", "B-P', "damaged; not valid JSON"),
        (b"\xff\xfe", "damaged; not valid JSON"),
        (b'["O"]', 'damaged; expected {"names"'),
        (b'{"names": ["O", 3]}', 'damaged; expected {"names"'),
        (b'{"names": [], "scheme": null}', 'damaged; expected {"names"'),
        (b'{"names": ["O", "O"], "scheme": null}', "damaged; a label name is given twice"),
        (b'{"names": ["O", "E-X"], "scheme": "IOB2"}', "damaged; tag 'E-X': prefix not in IOB2"),
        (b'{"names": ["O"], "scheme": "BIO"}', "scheme 'BIO' is unknown; known are IO, IOB1, IOB2, BIOES"),
        (None, "cannot read the labels: No such file"),
    ],
)
def test_damaged_labels_file_is_named(tmp_path, content, message):
    path = tmp_path / "labels.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        Labels.load(path)
    assert str(caught.value).startswith(f"{path}: {message}")
