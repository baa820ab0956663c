"""Writing on from a prompt with a language model: sampled or searched, as text that grows while tokens come.

A line of text ends with the token `<eos>`, which is also what stands before the first line; so the model reads `<eos>`
and the prompt, token by token, and goes on from there. Its state is carried from token to token and copied for each
sample; nothing is read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from seqtext.data.tokenizer import PAD, SPECIALS, UNKNOWN
from seqtext.errors import InputError
from seqtext.search.beam import Beam, beam_search
from seqtext.search.decoder import Decoder
from seqtext.search.sampling import Sampler, Sampling

LAG = 2
"""Tokens that must come after a piece of text before it is taken to be settled: a detokeniser may join words anew."""
GRAIN = 64
"""A line of n tokens is detokenised every n / 64 tokens: all of it each time, yet in linear time altogether."""


@runtime_checkable
class WritingTask(Protocol):
    """What a task must have to be written with."""

    eos: int
    """The id of `<eos>`, the end of a line."""
    apart: ClassVar[bool]
    """Whether each line stands by itself: nothing is written beyond its end."""

    def prompt(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of the tokens of each text, a line or the beginning of one, without any `<eos>`."""

    def detokenize(self, ids: Sequence[int]) -> str:
        """The text of a line, or of the beginning of one; ids without any `<eos>`."""

    def decoder(self, module: nn.Module, *, label: str | None = None) -> Decoder[Any]:
        """The module as the searches use it; its `start(None)` is the state of one row that has read nothing.

        With a `label` it writes for that. Raises `InputError` for one that it does not know, or where it needs one.
        """


@dataclass(frozen=True, kw_only=True)
class Writing:
    """How to go on from a prompt. Raises `InputError` naming the flag and what it may be."""

    greedy: bool = False
    """The most probable token, always."""
    temperature: float = 1.0
    """Logits are divided by this before a token is drawn."""
    top_k: int | None = None
    """Draw from the k most probable tokens."""
    top_p: float | None = None
    """Draw from the fewest most probable tokens that have this probability together."""
    beam: int | None = None
    """Search for the most probable end of the line, with this many hypotheses."""
    samples: int = 1
    """Texts to write; with `beam`, the n best."""
    max_tokens: int = 100
    """Tokens to write, the ends of lines among them."""
    lines: int | None = None
    """Stop after this many ends of lines; None writes on to `max_tokens`."""
    stop: Sequence[str] = ()
    """Stop where one of these strings comes, and leave it out."""
    seed: int | None = None
    """Of the draws; None takes another one every time."""
    allow_unknown: bool = False
    """Let `<unk>` come as any other token."""
    label: str | None = None
    """What to write for, where the model is conditioned on labels."""

    def __post_init__(self) -> None:
        for flag, value in (("--samples", self.samples), ("--max-tokens", self.max_tokens), ("--lines", self.lines)):
            if value is not None and value < 1:
                raise InputError(f"{flag} {value}: expected a whole number, 1 or more")
        if isinstance(self.stop, str):
            raise InputError("stop takes a list of strings, not one: stop=[text]")
        if not all(self.stop):
            raise InputError("--stop '': expected at least one character")
        _ = self.sampling
        if self.beam is None:
            if self.greedy and self.samples > 1:
                raise InputError(f"--samples {self.samples}: --greedy always writes the same; expected 1")
            if self.greedy and self.seed is not None:
                raise InputError("--seed: --greedy draws nothing, a seed has no effect")
            return
        given = {
            "--greedy": self.greedy,
            "--temperature": self.temperature != 1.0,
            "--top-k": self.top_k is not None,
            "--top-p": self.top_p is not None,
            "--lines": self.lines not in (None, 1),
            "--stop": bool(self.stop),
            "--seed": self.seed is not None,
        }
        unread = [flag for flag, there in given.items() if there]
        if unread:
            raise InputError(f"--beam searches for the best end of the line: {', '.join(unread)} cannot go with it")
        if self.beam >= 1 and self.samples > self.beam:
            raise InputError(f"--samples {self.samples}: --beam {self.beam} has at most {self.beam} results")
        _ = Beam(size=self.beam)

    @property
    def sampling(self) -> Sampling:
        return Sampling(greedy=self.greedy, temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)


class Written(NamedTuple):
    """A text that a model wrote."""

    prompt: str
    text: str
    """What comes after the prompt; the end of a line is a newline."""
    tokens: int
    """How many were written, ends of lines and those of a stop string among them."""
    log_probability: float
    """Of these tokens, given the prompt, under the model itself (no temperature, no filter), in nats."""
    reason: Literal["lines", "stop", "length"]
    """What ended it: the wanted number of lines, a stop string, or `max_tokens`."""


class Prompt(NamedTuple):
    """A prompt as a model reads it."""

    text: str
    ids: list[int]
    """`<eos>`, then the tokens, with `<eos>` at the ends of lines; blank lines but the last are left out."""
    line: list[int]
    """The tokens of the last line, which the model goes on with."""
    unknown: list[str]
    """The words, or the characters, that are read as `<unk>`."""


def read_prompt(task: WritingTask, text: str) -> Prompt:
    """The prompt's tokens. Raises `InputError` where it holds what no UTF-8 text does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InputError("--prompt: not UTF-8 text") from None
    *before, last = text.split("\n")
    lines = [line for line in before if line.strip()] + [last]
    encoded = task.prompt(lines)
    ids = [task.eos]
    for line in encoded[:-1]:
        ids += [*line, task.eos]
    unknown = [piece for line, found in zip(lines, encoded) for piece in _unknown(task, line, found)]
    return Prompt(text, ids + encoded[-1], encoded[-1], list(dict.fromkeys(unknown)))


def _unknown(task: WritingTask, line: str, ids: list[int]) -> list[str]:
    """The pieces of a line that are read as `<unk>`: its characters where each has an id, otherwise words."""
    if UNKNOWN not in ids:
        return []
    if len(ids) == len(line):
        return [character for character, id in zip(line, ids) if id == UNKNOWN]
    words = [word for word in line.split() if word != SPECIALS[UNKNOWN]]
    return [word for word, found in zip(words, task.prompt(words)) if UNKNOWN in found]


class Growing:
    """The text of tokens as they come, after a prompt. What was once given out is never taken back.

    How the last words are put together may depend on those that follow (quotes, for one). So a piece of text is given
    out when it has stayed the same while `LAG` more tokens came, and is no beginning of a stop string.
    """

    def __init__(self, task: WritingTask, prompt: Prompt, stop: Sequence[str] = (), *, live: bool = True) -> None:
        """Without `live`, a line is only put together at its end: detokenising may cost as much as a step of a model.

        Stop strings are then looked for at ends of lines only, too.
        """
        self.task, self.stop, self.live = task, stop, live
        self.text = ""
        """What was given out."""
        self.lines = 0
        """Ends of lines among it."""
        self.stopped = False
        """Whether a stop string came: it is not in the text, nor is what stands behind it."""
        self._ids = list(prompt.line)
        self._shown = self._line()  # of the line, whether or not given out
        self._recent: list[str] = []
        self._wait = 0
        self._held = ""  # settled, but perhaps the beginning of a stop string
        # The space that a detokeniser puts before the next word stands in the prompt already.
        self._spaced = bool(self._shown) and prompt.text[-1:].isspace() and not self._shown[-1:].isspace()

    def add(self, token: int) -> str:
        """Take the next token; the text that is settled now."""
        if token == self.task.eos:
            piece = self._settle(self._line()) + "\n"
            self.lines += 1
            self._ids, self._shown, self._recent, self._wait, self._spaced = [], "", [], 0, False
            return self._give(piece)
        self._ids.append(token)
        self._wait -= 1
        if self._wait > 0 or not self.live:
            return ""
        self._wait = len(self._ids) // GRAIN
        self._recent = [*self._recent[-LAG:], self._line()]
        if len(self._recent) <= LAG:
            return ""
        return self._give(self._settle(_common(self._recent)))

    def close(self) -> str:
        """The rest of the text, since no token follows."""
        piece = self._give(self._settle(self._line()))
        if self.stopped:
            return piece
        rest, self._held = self._held, ""
        self.text += rest
        return piece + rest

    def _line(self) -> str:
        return self.task.detokenize(self._ids) if self._ids else ""

    def _settle(self, line: str) -> str:
        """What `line`, which will not change any more, has behind that which was shown of it."""
        if line.startswith(self._shown):
            piece = line[len(self._shown) :]
        elif self._shown.startswith(line):
            return ""
        else:  # The detokeniser changed its mind about spaces further back: go on at the same word.
            piece = line[_place(line, sum(not character.isspace() for character in self._shown)) :]
        self._shown = line
        if piece and self._spaced:
            piece, self._spaced = piece.removeprefix(" "), False
        return piece

    def _give(self, piece: str) -> str:
        if self.stopped:
            return ""
        self._held += piece
        places = [place for place in map(self._held.find, self.stop) if place >= 0]
        if places:
            self.stopped = True
            piece, self._held = self._held[: min(places)], ""
        else:
            kept = max((_overlap(self._held, stop) for stop in self.stop), default=0)
            piece, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        self.text += piece
        return piece


def _common(texts: Sequence[str]) -> str:
    """The longest beginning that all texts share."""
    first, last = min(texts), max(texts)  # whatever these two share lies in all between them
    return first[: next((n for n, (a, b) in enumerate(zip(first, last)) if a != b), len(first))]


def _place(text: str, count: int) -> int:
    """Where so many characters of the text that are no spaces have passed."""
    for place, character in enumerate(text):
        if count == 0:
            return place
        count -= not character.isspace()
    return len(text)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that a stop string begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)


@torch.inference_mode()
def generate(
    task: WritingTask,
    module: nn.Module,
    prompt: str = "",
    *,
    settings: Writing,
    device: torch.device,
    write: Callable[[str], object] | None = None,
) -> list[Written]:
    """Write `settings.samples` texts from a prompt with a module in evaluation mode, the best first with a beam.

    `write` is called with each piece of the text as soon as it is settled, the prompt not among them; together they
    are the text of the one result. Raises `InputError` where it is given and there is more than one sample.
    """
    if write is not None and settings.samples > 1:
        raise InputError("text can be written as it comes for one sample only")
    if task.apart:
        settings = _of_one_line(prompt, settings)
    read = read_prompt(task, prompt)
    decoder = task.decoder(module, label=settings.label)
    state = decoder.start(None)
    ids = torch.tensor(read.ids, dtype=torch.int64, device=device)
    for token in ids[:-1]:
        _, state = decoder.step(token.view(1), state, None)
    forbidden = [PAD] if settings.allow_unknown else [PAD, UNKNOWN]
    if settings.beam is not None:
        return _search(task, decoder, state, ids[-1:], read, forbidden, settings, write)
    return _sample(task, decoder, state, ids[-1:], read, forbidden, settings, write)


def _of_one_line(prompt: str, settings: Writing) -> Writing:
    """The settings for a document, which is one line. Raises `InputError` where more are given, or wanted."""
    if "\n" in prompt:
        raise InputError("--prompt: several lines, and each document of this run is one; give the beginning of one")
    if settings.lines not in (None, 1):
        raise InputError(f"--lines {settings.lines}: each document of this run is one line, and nothing comes after it")
    return replace(settings, lines=1)


def _sample(
    task: WritingTask,
    decoder: Decoder[Any],
    state: Any,
    last: Tensor,
    prompt: Prompt,
    forbidden: list[int],
    settings: Writing,
    write: Callable[[str], object] | None,
) -> list[Written]:
    generator = torch.Generator()
    if settings.seed is None:
        generator.seed()
    else:
        generator.manual_seed(settings.seed)
    count = settings.samples
    if count > 1:
        state = decoder.reorder(state, last.new_zeros(count))
    sampler = Sampler(
        decoder, state, last.expand(count), settings=settings.sampling, generator=generator, forbidden=forbidden
    )
    live = write is not None or bool(settings.stop)
    texts = [Growing(task, prompt, settings.stop, live=live) for _ in range(count)]
    sums, lengths = [0.0] * count, [0] * count
    for _ in range(settings.max_tokens):
        drawn = sampler.draw()
        for row, token, chance in zip(drawn.rows, drawn.tokens.tolist(), drawn.log_probabilities.tolist()):
            piece = texts[row].add(token)
            if piece and write is not None:
                write(piece)
            sums[row] += chance
            lengths[row] += 1
        sampler.end(row for row in drawn.rows if texts[row].stopped or texts[row].lines == settings.lines)
        if not sampler.rows:
            break
    results = []
    for text, total, length in zip(texts, sums, lengths):
        piece = text.close()
        if piece and write is not None:
            write(piece)
        reason: Literal["lines", "stop", "length"] = "lines" if text.lines == settings.lines else "length"
        results.append(Written(prompt.text, text.text, length, total, "stop" if text.stopped else reason))
    return results


def _search(
    task: WritingTask,
    decoder: Decoder[Any],
    state: Any,
    last: Tensor,
    prompt: Prompt,
    forbidden: list[int],
    settings: Writing,
    write: Callable[[str], object] | None,
) -> list[Written]:
    assert settings.beam is not None
    [found] = beam_search(
        decoder,
        state,
        last,
        settings=Beam(size=settings.beam, nbest=settings.samples),
        eos=task.eos,
        max_length=settings.max_tokens,
        forbidden=forbidden,
    )
    results = []
    for hypothesis in found:
        text = Growing(task, prompt, live=False)
        for token in [*hypothesis.tokens, *([task.eos] if hypothesis.ended else [])]:
            text.add(token)
        text.close()
        length = len(hypothesis.tokens) + hypothesis.ended
        reason: Literal["lines", "length"] = "lines" if hypothesis.ended else "length"
        results.append(Written(prompt.text, text.text, length, hypothesis.log_probability, reason))
    if write is not None and results:
        write(results[0].text)
    return results
