"""Writing on from a prompt: what is read and carried, when it ends, and text that is given out while it grows."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from seqtext.data.detokenize import detokenize
from seqtext.errors import InputError
from seqtext.search.generate import Growing, Writing, generate, read_prompt
from tests.reference.exhaustive import Rules, exhaustive
from tests.search.toy import Toy

WORDS = ["<pad>", "<unk>", "<eos>", "the", "cat", '"', ",", "do", "n't", "(", ")", ".", "gon", "na"]
EOS = 2


class Words:
    """A task of words between spaces, joined by the Treebank's rules; a quote shows its side by what follows."""

    eos, apart = EOS, False

    def __init__(self, scale=0.6, seed=0):
        self.toy = Toy(len(WORDS), seed=seed, scale=scale)

    def prompt(self, texts):
        return [[WORDS.index(word) if word in WORDS else 1 for word in text.split()] for text in texts]

    def detokenize(self, ids):
        return detokenize([WORDS[id] for id in ids])

    def decoder(self, module, *, label=None):
        return self.toy


class Letters:
    """A task of characters."""

    eos, apart = 2, False
    letters = "\0\1\2abc "

    def prompt(self, texts):
        return [[self.letters.find(letter) if letter in self.letters else 1 for letter in text] for text in texts]

    def detokenize(self, ids):
        return "".join(self.letters[id] for id in ids)

    def decoder(self, module, *, label=None):
        return Toy(7, scale=0.5)


def write(task, prompt="", **options):
    module = nn.Identity()
    return generate(task, module, prompt, settings=Writing(**options), device=torch.device("cpu"))


def streamed(task, prompt, tokens, stop=(), **options):
    """All pieces that come for tokens, and what has grown."""
    grown = Growing(task, read_prompt(task, prompt), stop, **options)
    pieces = []
    for token in tokens:
        pieces.append(grown.add(token))
        if grown.stopped:
            break
    return [*pieces, grown.close()], grown


def whole(task, tokens):
    """The text of all tokens, known at once."""
    lines, line = [], []
    for token in tokens:
        if token == task.eos:
            lines.append(task.detokenize(line) if line else "")
            line = []
        else:
            line.append(token)
    return "\n".join([*lines, task.detokenize(line) if line else ""])


TOKENS = st.lists(st.integers(3, len(WORDS) - 1) | st.just(EOS), max_size=30)


@settings(max_examples=150)
@given(TOKENS)
def test_text_that_comes_in_pieces_is_the_text_of_the_whole(tokens):
    pieces, grown = streamed(Words(), "", tokens)
    assert "".join(pieces) == grown.text == whole(Words(), tokens)
    assert grown.lines == tokens.count(EOS)
    at_ends, grown = streamed(Words(), "", tokens, live=False)
    assert "".join(at_ends) == grown.text == whole(Words(), tokens)
    assert [bool(piece) for piece in at_ends[:-1]] == [token == EOS for token in tokens]


@pytest.mark.parametrize("length", [70, 1000])
def test_long_lines_come_in_larger_pieces_and_lose_nothing(length):
    tokens = torch.randint(3, 7, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    task = Letters()
    calls = []
    task.detokenize = lambda ids: calls.append(len(ids)) or Letters.detokenize(task, ids)
    pieces, grown = streamed(task, "", tokens)
    assert "".join(pieces) == grown.text == whole(Letters(), tokens)
    assert sum(calls) <= 70 * length  # linear: the whole line for each token would be 500 times a line of 1000


@settings(max_examples=150)
@given(TOKENS, st.lists(st.text(alphabet="thecadno\"', .()\n", min_size=1, max_size=4), min_size=1, max_size=3))
def test_text_ends_before_the_first_stop_string_and_shows_nothing_of_it(tokens, stops):
    text = whole(Words(), tokens)
    pieces, grown = streamed(Words(), "", tokens, stops)
    ends = [text.find(stop) for stop in stops if stop in text]
    assert "".join(pieces) == grown.text == (text[: min(ends)] if ends else text)
    assert grown.stopped == bool(ends)


def test_text_comes_as_soon_as_it_is_settled():
    ids = [WORDS.index(word) for word in ("the", "cat", "the", '"', "cat", "do", "n't", "the", "cat")]
    pieces, _ = streamed(Words(), "", ids)
    # Two tokens later; which side of a quote its space is on shows when the next word comes.
    assert pieces == ["", "", "the", " cat", " the", ' "', "cat", " do", "n't", " the cat"]
    pieces, _ = streamed(Words(), "", [*ids[:2], EOS, ids[0], EOS])
    assert pieces == ["", "", "the cat\n", "", "the\n", ""]
    pieces, _ = streamed(Letters(), "", [3, 4, 5, 3, 4, 5, 3, 3, 3], ["caba"])
    assert pieces == ["", "", "a", "b", "", "", "", "cab", "", "caaa"]  # what may begin a stop string is held back


@pytest.mark.parametrize(
    ("prompt", "words", "text"),
    [
        ("the cat", "do n't", " don't"),
        ("the cat ", "do n't", "don't"),
        ("the cat", ", the", ", the"),
        ("the  cat", "the", " the"),
        ("the cat\n", "the cat", "the cat"),
        ("the dog", "cat", " cat"),
        ('the "', "cat the", "cat the"),
        ("do", "n't", "n't"),
        ("the (", ") cat", ") cat"),
        ("the", "", ""),
    ],
)
def test_text_goes_on_right_behind_the_prompt(prompt, words, text):
    pieces, grown = streamed(Words(), prompt, [WORDS.index(word) for word in words.split()])
    assert "".join(pieces) == grown.text == text


def test_the_spaces_of_a_prompt_of_characters_are_its_own():
    assert "".join(streamed(Letters(), "ab ", [6, 3])[0]) == " a"
    assert "".join(streamed(Letters(), "ab", [6, 3])[0]) == " a"


def test_a_prompt_is_read_with_the_ends_of_its_lines_and_what_is_unknown_is_told():
    words = read_prompt(Words(), "the dog\n \ncat sees <unk> the dog")
    assert words.ids == [2, 3, 1, 2, 4, 1, 1, 3, 1] and words.line == [4, 1, 1, 3, 1]
    assert words.unknown == ["dog", "sees"]
    assert read_prompt(Words(), "").ids == [2] and read_prompt(Words(), "the\n").ids == [2, 3, 2]
    letters = read_prompt(Letters(), "abba zb\nxa x")
    assert letters.unknown == ["z", "x"] and letters.ids == [2, 3, 4, 4, 3, 6, 1, 4, 2, 1, 3, 6, 1]
    with pytest.raises(InputError, match="--prompt: not UTF-8 text"):
        read_prompt(Letters(), "a\udcff")


def test_nothing_is_read_twice():
    task = Words()
    [one] = write(task, "the cat do n't", max_tokens=20, seed=1)
    assert (one.tokens == 20 and task.toy.batches == [1] * (5 - 1 + 20 + 1 - 1 + 0)) or task.toy.batches == [1] * 24
    task.toy.batches.clear()
    write(task, "the cat do n't", max_tokens=20, seed=1, samples=3)
    assert task.toy.batches == [1] * 4 + [3] * 20


def test_what_is_written_is_what_the_model_says_after_the_prompt():
    task, steps = Words(seed=3), 12
    [found] = write(task, "the cat", greedy=True, max_tokens=steps)
    read, total = [EOS, 3, 4], 0.0
    for _ in range(steps):
        chances = task.toy.log_probabilities(read)
        chances[:2] = -torch.inf  # neither <pad> nor <unk>
        read.append(int(chances.argmax()))
        total += chances[read[-1]].item()
    assert found.prompt + found.text == whole(task, read[1:])
    assert (found.tokens, found.reason) == (steps, "length")
    assert found.log_probability == pytest.approx(total)


def test_samples_come_again_with_the_seed_and_end_for_different_reasons():
    task = Words(scale=0.5)
    options = {"samples": 12, "max_tokens": 25, "lines": 2, "stop": ["n't", "gonna"]}
    texts = write(task, "the", seed=4, **options)
    assert texts == write(task, "the", seed=4, **options) != write(task, "the", seed=8, **options)
    assert {text.reason for text in texts} == {"lines", "stop", "length"}
    assert len({text.text for text in texts}) > 9
    for text in texts:
        assert "<unk>" not in text.text and "<pad>" not in text.text
        assert "n't" not in text.text and "gonna" not in text.text
        assert text.text.count("\n") == 2 if text.reason == "lines" else text.text.count("\n") < 2
        assert text.text.endswith("\n") or text.reason != "lines"
        assert text.tokens == 25 if text.reason == "length" else text.tokens <= 25
    assert write(task, samples=3, max_tokens=9) != write(task, samples=3, max_tokens=9)  # no seed: drawn anew
    unknown = write(task, seed=1, samples=20, max_tokens=20, allow_unknown=True)
    assert any("<unk>" in text.text for text in unknown) and not any("<pad>" in text.text for text in unknown)


def test_what_is_written_as_it_comes_is_the_result():
    task = Words(seed=1)
    for options in ({"seed": 3}, {"greedy": True}, {"beam": 3, "max_tokens": 5}, {"seed": 4, "stop": ["cat"]}):
        pieces = []
        [text] = generate(
            task, nn.Identity(), "the", settings=Writing(**options), device=torch.device("cpu"), write=pieces.append
        )
        assert "".join(pieces) == text.text and all(pieces)
        assert "beam" in options or len(pieces) > 5 or text.reason == "stop"
    with pytest.raises(InputError, match="text can be written as it comes for one sample only"):
        generate(task, nn.Identity(), settings=Writing(samples=2), device=torch.device("cpu"), write=pieces.append)


def test_a_beam_finds_the_most_probable_ends_of_the_line():
    task = Letters()
    toy = task.decoder(None)
    rules = Rules(end=2, max_length=4, forbidden=(0, 1))
    best = exhaustive(lambda tokens: toy.log_probabilities([2, 3, 4, *tokens]).tolist(), rules)[:3]
    found = write(task, "ab", beam=200, samples=3, max_tokens=4)
    assert [text.text for text in found] == [task.detokenize(c.tokens) + "\n" * c.ended for c in best]
    assert [text.log_probability for text in found] == pytest.approx([c.log_probability for c in best])
    assert [(text.tokens, text.reason) for text in found] == [
        (len(c.tokens) + c.ended, "lines" if c.ended else "length") for c in best
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "--samples 0: expected a whole number, 1 or more"),
        ({"max_tokens": -1}, "--max-tokens -1: expected a whole number, 1 or more"),
        ({"lines": 0}, "--lines 0: expected a whole number, 1 or more"),
        ({"stop": "end"}, "stop takes a list of strings, not one: stop=[text]"),
        ({"stop": ["a", ""]}, "--stop '': expected at least one character"),
        ({"temperature": 0.0}, "--temperature 0: expected a number above 0; "),
        ({"greedy": True, "samples": 2}, "--samples 2: --greedy always writes the same; expected 1"),
        ({"greedy": True, "seed": 2}, "--seed: --greedy draws nothing, a seed has no effect"),
        (
            {"beam": 3, "temperature": 2.0, "top_k": 4, "lines": 2, "stop": ["a"], "seed": 0},
            "--beam searches for the best end of the line: --temperature, --top-k, --lines, --stop, --seed cannot go",
        ),
        ({"beam": 3, "samples": 4}, "--samples 4: --beam 3 has at most 3 results"),
        ({"beam": 0}, "--beam 0: expected a whole number, 1 or more"),
    ],
)
def test_settings_out_of_range_are_told_with_what_is_allowed(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Writing(**options)
