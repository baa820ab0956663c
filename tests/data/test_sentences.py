"""Words of texts of several sentences: full stops are words of their own, and nothing is lost."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqtext.data.sentences import sentence_spans, split_spaces, split_text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It was bad. I left. ok. fine", "It was bad . | I left . | ok . | fine"),
        ("It wasn't.<br /><br />Was it?<BR>no. (Never.) yes", "It was n't . | Was it ? | no . | ( Never . ) | yes"),
        ("a good\nfilm.\r\n\r\nSee it", "a good | film . | See it"),
        ('He said "No." Then he left...  So?! "Go."', 'He said " No . " | Then he left ... | So ? ! | " Go . "'),
        ("Mr. Smith met (Dr. J. R. Roe) in the U.S. today.", "Mr. Smith met ( Dr. J. R. Roe ) in the U.S. today ."),
        ("My wife and I. We e.g. paid $3.50. At 10 p.m. no", "My wife and I . | We e.g. paid $ 3.50 . | At 10 p.m. no"),
        ("I said no. No. 5 is best, no. 6 is not.", "I said no . | No. 5 is best , no. 6 is not ."),
        ("<br />", ""),
    ],
)  # fmt: skip
def test_sentences_and_words(text, expected):
    found = [" ".join(word for word, _, _ in split_text(text[start:end])) for start, end in sentence_spans(text)]
    assert " | ".join(found) == expected
    assert [word for word, _, _ in split_text(text)] == expected.replace("| ", "").split()


PIECES = st.sampled_from(
    ["a", "Mr", "U.S", "I", "no", "5", ".", "...", "!", '"', "'", ")", " ", "\n", "<br />", "\u2028"]
)


@given(st.lists(PIECES, max_size=25).map("".join))
def test_words_stand_where_they_are_said_to_and_no_letter_is_lost(text):
    words = split_text(text)
    assert all(text[start:end] == word and word.strip() for word, start, end in words)
    ends = [0, *(end for _, _, end in words)]
    starts = [*(start for _, start, _ in words), len(text)]
    between = "".join(text[end:start] for end, start in zip(ends, starts))
    assert all(end <= start for end, start in zip(ends, starts))
    assert not re.sub(r"<br />|\s", "", between)


def test_tokenised_text_is_parted_at_spaces_alone():
    assert split_spaces(" do n't.  go <br />") == [
        ("do", 1, 3),
        ("n't.", 4, 8),
        ("go", 10, 12),
        ("<br", 13, 16),
        ("/>", 17, 19),
    ]
