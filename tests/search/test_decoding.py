"""How sentences are translated: an encoder-decoder's beam against all targets there are, limits, draws, bad options."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch

from seqtext.config import parse
from seqtext.errors import ConfigError, InputError
from seqtext.nn.seq2seq import Seq2Seq, Seq2SeqConfig
from seqtext.search.beam import Hypothesis
from seqtext.search.decoding import Decoding, decode
from seqtext.search.forced import forced
from seqtext.tasks.translation import TranslationModel
from seqtext.tasks.translator import TranslationDecoder
from tests.reference.exhaustive import Rules, exhaustive, plain_beam

PAD, START, EOS, WORDS = 0, 2, 3, 5
LENGTHS = torch.tensor([3, 1, 5, 2])
SOURCE = torch.randint(1, 8, (4, 5), generator=torch.Generator().manual_seed(1))
SOURCE = SOURCE.masked_fill(torch.arange(5) >= LENGTHS[:, None], PAD)
CONTEXTS: dict[str, dict[str, Any]] = {
    "initial": {"context": "initial", "layers": 2},
    "input": {"context": "input"},
    "both": {"context": "both"},
    "attention": {"layers": 2},
    "coverage and feeding": {"attention": {"name": "additive", "size": 4, "coverage": True}, "input_feeding": True},
}
each_context = pytest.mark.parametrize("context", CONTEXTS)


def make(context: str, *, words: int = WORDS, scale: float = 1.5) -> Seq2Seq:
    """A translator with weights so large that the source matters, and so does all that was written."""
    config = parse(
        Seq2SeqConfig,
        {"embedding_size": 4, "encoder": {"hidden_size": 3}, "decoder": {"hidden_size": 5, **CONTEXTS[context]}},
        source="recipe",
    )
    generator = torch.Generator().manual_seed(6)
    module = Seq2Seq(config, 8, words, joint=False).eval()
    for parameter in module.parameters():
        parameter.data.copy_(scale * torch.randn(parameter.shape, generator=generator))
    if module.decoder.bridge is not None:
        module.decoder.bridge.weight.data.mul_(3.0)
    return module


@torch.no_grad()
def translate(module: Seq2Seq, settings: Decoding, rows: Any = slice(None), **options: Any) -> list[list[Hypothesis]]:
    source, lengths = SOURCE[rows], LENGTHS[rows]
    source = source[:, : int(lengths.max())]
    return decode(
        TranslationDecoder(module),
        module.encode(source, lengths),
        lengths,
        settings,
        **{
            "sources": source,
            "start": START,
            "eos": EOS,
            "forbidden": (PAD, START),
            "device": torch.device("cpu"),
            **options,
        },
    )


def chances_of(module: Seq2Seq, row: int) -> Any:
    """Log-probabilities of the next token, by the forward pass of training over one sentence."""
    length = int(LENGTHS[row])

    @cache
    @torch.no_grad()
    def chances(tokens: tuple[int, ...]) -> list[float]:
        outputs = module(
            SOURCE[row : row + 1, :length], LENGTHS[row : row + 1], torch.tensor([[START, *tokens]])
        ).outputs
        return module.softmax.log_probabilities(outputs[:, -1])[0].tolist()

    return chances


SETTINGS = [
    Decoding(max_length=4, beam=80, nbest=4),
    Decoding(max_length=4, beam=80, nbest=2, alpha=0.6, length_penalty="wu", min_length=1, early=False),
    Decoding(max_length=4, beam=80, nbest=80, alpha=0.0, early=False, block_ngrams=1),
    Decoding(max_length=4, beam=3, nbest=3, early=False),
    Decoding(max_length=4, beam=2, nbest=1, min_ratio=1.0),
]


@pytest.mark.parametrize("number", range(len(SETTINGS)))
@each_context
def test_a_beam_finds_what_all_targets_say(context: str, number: int) -> None:
    """In the vocabulary are, beside what is forbidden, an end and two words: no more than 80 ways to begin a target."""
    module, settings = make(context), SETTINGS[number]
    for row, found in enumerate(translate(module, settings)):
        rules = Rules(
            end=EOS,
            max_length=4,
            min_length=max(settings.min_length, int(settings.min_ratio) * min(3, int(LENGTHS[row]))),
            forbidden=(PAD, START),
            block=settings.block_ngrams,
            penalty=settings.search.penalty,
        )
        chances = chances_of(module, row)
        size = settings.beam
        expected = exhaustive(chances, rules) if size == 80 else plain_beam(chances, rules, size, early=settings.early)
        assert len(found) == min(settings.nbest, len(expected))
        for one, other in zip(found, expected):
            assert (tuple(one.tokens), one.ended) == (other.tokens, other.ended)
            assert one.score == pytest.approx(other.score, abs=1e-4)
            assert one.log_probability == pytest.approx(other.log_probability, abs=1e-4)


WAYS = {
    "beam": Decoding(min_length=4),
    "greedy": Decoding(beam=1, min_length=4),
    "drawn": Decoding(sample=True, nbest=2, temperature=1.5),
}


@pytest.mark.parametrize("way", WAYS)
@each_context
def test_each_sentence_alone_gives_what_it_does_among_others_and_in_any_order(context: str, way: str) -> None:
    settings = WAYS[way]
    module = make(context, words=40, scale=0.9)
    together = translate(module, settings)
    turned = translate(module, settings, [2, 0, 3, 1])
    alone = [translate(module, settings, [row])[0] for row in range(4)]
    assert len({tuple(found[0].tokens) for found in together}) > 1
    for row, (one, other) in enumerate(zip(alone, together)):
        for found in (one, turned[[2, 0, 3, 1].index(row)]):
            assert [hypothesis.tokens for hypothesis in found] == [hypothesis.tokens for hypothesis in other]
            assert found[0].score == pytest.approx(other[0].score, abs=1e-4)


# Limits


@pytest.mark.parametrize(
    ("settings", "least", "most"),
    [
        # Sources of 1, 4 and 200 tokens; the end counts among the most.
        ({}, [0, 0, 0], [12, 18, 250]),
        ({"max_length": 15}, [0, 0, 0], [12, 15, 15]),
        ({"max_ratio": 0.5}, [0, 0, 0], [10, 12, 110]),
        ({"min_length": 3, "min_ratio": 0.5}, [3, 3, 100], [12, 18, 250]),
        # What is too much of the least gives way to the most.
        ({"min_ratio": 2.0, "max_length": 20}, [2, 8, 19], [12, 18, 20]),
        ({"min_length": 14, "max_ratio": 1.0}, [10, 13, 14], [11, 14, 210]),
    ],
)
def test_lengths_are_bounded_outright_and_by_the_source(settings: dict[str, Any], least: Any, most: Any) -> None:
    limits = Decoding(**settings).limits(torch.tensor([1, 4, 200]))
    assert [limit.tolist() for limit in limits] == [least, most]


@each_context
def test_translations_keep_to_their_limits(context: str) -> None:
    module = make(context, words=40, scale=0.9)
    free = translate(module, Decoding(beam=3, nbest=3))
    sizes = [len(one.tokens) for found in free for one in found]
    assert min(sizes) < 6 or max(sizes) > 8  # there is something to bound
    for found in translate(module, Decoding(beam=3, nbest=3, min_length=6, max_length=8)):
        assert all(len(one.tokens) in (6, 7, 8) and len(one.tokens) + one.ended <= 8 for one in found)
    by_source = Decoding(beam=3, nbest=3, max_ratio=2.0, min_ratio=2.0)
    least, most = by_source.limits(LENGTHS)
    for found, low, high in zip(translate(module, by_source), least.tolist(), most.tolist()):
        assert all(low <= len(one.tokens) and len(one.tokens) + one.ended <= high for one in found)


# Draws


@each_context
def test_draws_repeat_with_their_seed_are_scored_and_come_by_sentence(context: str) -> None:
    module = make(context, words=40, scale=0.9)
    settings = Decoding(sample=True, nbest=3, seed=5, temperature=1.3)
    found = translate(module, settings)
    assert translate(module, settings) == found
    assert translate(module, settings.model_copy(update={"seed": 6})) != found
    assert [len(one) for one in found] == [3] * 4
    assert all(len({tuple(one.tokens) for one in drawn}) > 1 for drawn in found)
    # Best first, and ranked as the hypotheses of a search.
    for drawn in found:
        assert [one.score for one in drawn] == sorted((one.score for one in drawn), reverse=True)
        for one in drawn:
            assert one.score == pytest.approx(one.log_probability / (len(one.tokens) + one.ended))
    other = translate(module, settings.model_copy(update={"alpha": 0.6, "length_penalty": "wu"}))
    for drawn, again in zip(found, other):
        assert sorted(one.tokens for one in drawn) == sorted(one.tokens for one in again)
        for one in again:
            assert one.score == pytest.approx(one.log_probability / ((5 + len(one.tokens) + one.ended) / 6) ** 0.6)
    most = settings.limits(LENGTHS)[1].tolist()
    decoder, memory = TranslationDecoder(module), module.encode(SOURCE, LENGTHS)
    for number in range(3):
        drawn = [hypotheses[number] for hypotheses in found]
        written = [[*one.tokens, EOS] if one.ended else one.tokens for one in drawn]
        assert all(len(tokens) <= limit for tokens, limit in zip(written, most))
        assert not any({PAD, START, EOS} & set(one.tokens) for one in drawn)
        tokens = torch.tensor([row + [-1] * (max(map(len, written)) - len(row)) for row in written])
        with torch.no_grad():
            chances = forced(decoder, decoder.start(memory), torch.full((4,), START), tokens, memory=memory).sum(1)
        assert [one.log_probability for one in drawn] == pytest.approx(chances.tolist(), abs=1e-4)


def test_drawing_refuses_what_it_would_not_do() -> None:
    for options in ({"attention": True}, {"align": True}, {"prefix": torch.full((4, 1), 4)}):
        with pytest.raises(ValueError, match="drawing takes no prefix, and gives no attention"):
            translate(make("attention"), Decoding(sample=True), **options)


def test_draws_come_as_often_as_the_model_says() -> None:
    """400 draws for one sentence of its first token."""
    module = make("attention", scale=0.7)
    found = translate(module, Decoding(sample=True, nbest=400, max_length=1, min_length=0), [2], forbidden=())[0]
    expected = torch.tensor(chances_of(module, 2)(())).exp()
    firsts = [(one.tokens[0] if one.tokens else EOS) for one in found]
    for token, chance in enumerate(expected.tolist()):
        share = firsts.count(token) / 400
        assert abs(share - chance) < 5 * (chance * (1 - chance) / 400) ** 0.5 + 1e-3


# Options


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nbest": 6}, "--nbest 6: expected 1 to 5, the size of the beam"),
        ({"nbest": 3, "beam": 2}, "--nbest 3: expected 1 to 2, the size of the beam"),
        ({"nbest": 0}, "--nbest 0: expected 1 to 5, the size of the beam"),
        ({"nbest": 0, "sample": True}, "--nbest 0: expected a whole number, 1 or more"),
        ({"beam": 0}, "--beam 0: expected a whole number, 1 or more"),
        ({"alpha": -1.0}, "--alpha -1: expected a number, 0 or more"),
        ({"block_ngrams": 0}, "--block-ngrams 0: expected a whole number, 1 or more"),
        ({"min_length": -1}, "--min-length -1: expected 0 or more"),
        ({"max_length": 0}, "--max-length 0: expected 1 or more"),
        ({"min_ratio": -0.5}, "--min-ratio -0.5: expected 0 or more"),
        ({"max_ratio": 0.0}, "--max-ratio 0: expected a number above 0"),
        ({"min_length": 9, "max_length": 9}, "--min-length 9: expected less than --max-length 9"),
        ({"min_ratio": 3.0}, "--min-ratio 3: expected at most --max-ratio 2"),
        ({"max_ratio": 0.5, "min_ratio": 0.6}, "--min-ratio 0.6: expected at most --max-ratio 0.5"),
        (
            {"sample": True, "temperature": 0.0},
            "--temperature 0: expected a number above 0; for the most probable tokens leave out --sample",
        ),
        ({"sample": True, "alpha": -1.0}, "--alpha -1: expected a number, 0 or more"),
        ({"temperature": 0.5, "top_k": 3}, "--temperature, --top-k: a beam draws nothing; give --sample with it"),
        ({"top_k": 0}, "--top-k: a beam draws nothing; give --sample with it"),
        ({"sample": True, "beam": 3, "early": True}, "--beam, --early: drawing does not read this; leave out --sample"),
        ({"sample": True, "min_length": 3}, "--min-length: drawing does not read this; leave out --sample"),
        ({"sample": True, "top_p": 1.5}, "--top-p 1.5: expected a number above 0 and at most 1"),
    ],
)
def test_what_cannot_be_is_told_by_its_flag(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as raised:
        Decoding().with_options(options)
    assert str(raised.value) == message


def test_options_change_what_is_given_alone_and_a_smaller_beam_gives_fewer() -> None:
    recipe = Decoding(beam=8, nbest=4, alpha=0.6)
    assert recipe.with_options({"beam": None, "alpha": 0.0}) == Decoding(beam=8, nbest=4, alpha=0.0)
    assert recipe.with_options({"beam": 2}) == Decoding(beam=2, nbest=2, alpha=0.6)
    assert recipe.with_options({"sample": True, "nbest": 20}).nbest == 20
    with pytest.raises(ConfigError, match=r"beam: .*greater than or equal to 1"):
        parse(Decoding, {"beam": 0}, source="recipe")


def test_a_recipe_is_told_every_pair_of_keys_that_cannot_be() -> None:
    search = {"nbest": 9, "min_length": 7, "max_length": 7, "min_ratio": 3.0}
    with pytest.raises(ConfigError) as raised:
        parse(TranslationModel, {"search": search, "embedding_size": 0, "teid": "all"}, source="r.toml", prefix="model")
    assert raised.value.faults == [
        "model.embedding_size: expected greater than or equal to 1, got 0",
        "model.search: nbest 9: the beam has 5 hypotheses",
        "model.search: min_length 7: expected less than max_length, 7",
        "model.search: min_ratio 3: expected at most max_ratio, 2",
        "model.teid: unknown key; did you mean 'tied'?",
    ]
    with pytest.raises(ConfigError) as raised:
        parse(Decoding, {"temperature": 0.0, "top_k": 0, "top_p": 1.5}, source="r.toml")
    assert [fault.partition(":")[0] for fault in raised.value.faults] == ["temperature", "top_k", "top_p"]
