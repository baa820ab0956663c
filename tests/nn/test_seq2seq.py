"""The encoder-decoder as a whole: its two ways to run, padding, gradients, scheduled sampling, tying, smoothing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from seqtext.config import parse
from seqtext.errors import ConfigError, InputError
from seqtext.nn import graphs
from seqtext.nn.decoder import Decoded
from seqtext.nn.rnn import RecurrentConfig
from seqtext.nn.seq2seq import InverseSigmoid, Linear, Seq2Seq, Seq2SeqConfig
from seqtext.search.beam import Beam, Hypothesis, beam_search
from seqtext.search.decoder import select
from seqtext.tasks.translator import TranslationDecoder
from tests.reference.stand_in import Elsewhere, moved, stand_in

SOURCE_WORDS, TARGET_WORDS, START = 11, 9, 2
LENGTHS = torch.tensor([4, 1, 6])
TIMES = [3, 5, 2]
CONTEXTS: list[dict[str, Any]] = [
    {"context": "initial"},
    {"context": "input"},
    {"context": "both"},
    {"attention": {"name": "general"}},
    {"attention": {"name": "additive", "size": 5}},
    {"attention": {"name": "additive", "size": 5, "coverage": True}},
    {"attention": {"name": "multihead", "heads": 2, "size": 3}},
    {"attention": {"name": "scaled", "size": 5}, "input_feeding": True},
]
CASES: list[dict[str, Any]] = [
    {"encoder": {"cell": cell, "bidirectional": two}, "decoder": {"cell": cell, "layers": layers, **context}}
    for cell, context, (layers, two) in itertools.product(("rnn", "lstm", "gru"), CONTEXTS, [(1, True), (2, False)])
] + [
    {"layer_norm": True, "tied": "all", "encoder": {"layers": 2, "skip": "residual"}},
    {"encoder": {"cell": "sru", "dilation": 2}, "decoder": {"cell": "lnlstm", "skip": "highway"}},
    {"layer_norm": True, "tied": "none", "decoder": {"layers": 3, "attention_layer": 2, "skip": "residual"}},
    # States of 6 on either side, as the dot product needs.
    {"encoder": {"hidden_size": 3}, "decoder": {"attention": {"name": "dot"}, "input_feeding": True}},
]
FREE = {"input_dropout": 0.0, "output_dropout": 0.0, "label_smoothing": 0.0}


def name(case: dict[str, Any]) -> str:
    words = []
    for key, value in case.items():
        words += (
            [name(value)] if isinstance(value, dict) else [str(value) if isinstance(value, str) else f"{key}={value}"]
        )
    return "-".join(words)


each_case = pytest.mark.parametrize("case", CASES, ids=name)


def config_of(case: dict[str, Any]) -> Seq2SeqConfig:
    sizes = {key: {"hidden_size": size, **case.get(key, {})} for key, size in (("encoder", 4), ("decoder", 6))}
    return parse(Seq2SeqConfig, {"embedding_size": 5, **FREE, **case, **sizes}, source="recipe")


def make(case: dict[str, Any], *, seed: int = 1) -> Seq2Seq:
    torch.manual_seed(seed)
    joint = case.get("tied") == "all"
    module = Seq2Seq(config_of(case), TARGET_WORDS if joint else SOURCE_WORDS, TARGET_WORDS, joint=joint)
    for parameter in module.parameters():  # sizeable, biases too
        if parameter.dim() == 1 or parameter.shape[0] == 1:
            nn.init.normal_(parameter, std=0.5)
    return module.eval()


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """source (B, S), inputs (B, T), targets (B, T); padded with 0 and -1."""
    generator = torch.Generator().manual_seed(2)
    source = torch.randint(1, TARGET_WORDS, (3, 6), generator=generator)
    source = source.masked_fill(torch.arange(6) >= LENGTHS[:, None], 0)
    targets = torch.randint(1, TARGET_WORDS, (3, 5), generator=generator)
    targets = targets.masked_fill(torch.arange(5) >= torch.tensor(TIMES)[:, None], -1)
    inputs = torch.cat([torch.full((3, 1), START), targets[:, :-1].clamp(min=0)], 1)
    return source, inputs, targets


def scores(module: Seq2Seq, decoded: Decoded) -> torch.Tensor:
    """(B, T, V)"""
    return module.softmax.logits(decoded.outputs.flatten(0, 1)).unflatten(0, decoded.outputs.shape[:2])


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@each_case
def test_known_targets_all_at_once_score_what_they_do_step_by_step(case: dict[str, Any]) -> None:
    module, (source, inputs, targets) = make(case), batch()
    whole = scores(module, module(source, LENGTHS, inputs))
    memory = module.encode(source, LENGTHS)
    # Two hypotheses a sentence: one as it is, the other in the order of the last.
    rows = torch.arange(3).repeat_interleave(2)
    both = torch.stack([inputs, inputs.flip(0)], 1).flatten(0, 1)  # (2 B, T)
    other = scores(module, module(source, LENGTHS, inputs.flip(0)))
    for state, tokens, expected in (
        (module.start(memory), inputs, whole),
        (select(module.start(memory), rows), both, torch.stack([whole, other], 1).flatten(0, 1)),
    ):
        for t in range(tokens.size(1)):
            for enabled in (True, False):  # where there is no gradient, other kernels run
                with torch.set_grad_enabled(enabled):
                    output, after = module.step(tokens[:, t], state, memory)
                    found = module.softmax.logits(output)
                close(found.detach(), expected[:, t].detach())
            state = after
    nll = module.nll(module(source, LENGTHS, inputs), targets)
    chances = whole.log_softmax(2).gather(2, targets.clamp(min=0).unsqueeze(2)).squeeze(2)
    close(nll, -chances.detach().masked_fill(targets < 0, 0.0))
    total, count = module.loss(module(source, LENGTHS, inputs), targets)
    close(total, nll.sum())
    assert count == sum(TIMES)


@each_case
def test_a_sentence_alone_and_what_stands_at_padding_change_nothing(case: dict[str, Any]) -> None:
    module, (source, inputs, targets) = make(case), batch()
    together = scores(module, module(source, LENGTHS, inputs))
    for row, (length, time) in enumerate(zip(LENGTHS.tolist(), TIMES)):
        alone = module(source[row : row + 1, :length], LENGTHS[row : row + 1], inputs[row : row + 1, :time])
        close(scores(module, alone)[0], together[row, :time])
    other = torch.where(source == 0, 7, source)
    later = torch.where(torch.arange(5) < torch.tensor(TIMES)[:, None], inputs, 7)
    found = scores(module, module(other, LENGTHS, later))
    for row, time in enumerate(TIMES):
        close(found[row, :time], together[row, :time])
    # Nor do gradients come from there.
    gradients = []
    for texts in ((source, inputs), (other, later)):
        total, _ = module.loss(module(texts[0], LENGTHS, texts[1]), targets)
        gradients.append(torch.autograd.grad(total, list(module.parameters())))
    close(*gradients)


@each_case
def test_every_parameter_learns(case: dict[str, Any]) -> None:
    module, (source, inputs, targets) = make(case), batch()
    module.train()
    total, _ = module.loss(module(source, LENGTHS, inputs), targets)
    total.backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 1e-7, key


@pytest.mark.parametrize("case", [CASES[0], CASES[6], CASES[15], CASES[-2]], ids=name)
def test_bfloat16_gives_nearly_the_same(case: dict[str, Any]) -> None:
    module, (source, inputs, targets) = make(case), batch()
    total, _ = module.loss(module(source, LENGTHS, inputs), targets)
    expected = torch.autograd.grad(total, list(module.parameters()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded, _ = module.loss(module(source, LENGTHS, inputs), targets)
        memory = module.encode(source, LENGTHS)
        output, _ = module.step(inputs[:, 0], module.start(memory), memory)
        step = module.softmax.logits(output)
    found = torch.autograd.grad(rounded, list(module.parameters()))
    assert rounded.item() == pytest.approx(total.item(), rel=0.02)
    norm = sum(float(gradient.square().sum()) for gradient in expected) ** 0.5
    apart = sum(float((one - other).square().sum()) for one, other in zip(found, expected)) ** 0.5
    assert apart < 0.05 * norm
    wanted = scores(module, module(source, LENGTHS, inputs))[:, 0]
    assert step.dtype == torch.float32 and (step - wanted).norm() < 0.05 * wanted.norm()


def test_smoothed_labels_are_those_of_torch() -> None:
    source, inputs, targets = batch()
    for smoothing in (0.0, 0.1, 0.6):
        module = make({"label_smoothing": smoothing})
        logits = scores(module, module(source, LENGTHS, inputs)).flatten(0, 1)
        expected = nn.functional.cross_entropy(
            logits, targets.flatten(), ignore_index=-1, reduction="sum", label_smoothing=smoothing
        )
        total, _ = module.loss(module(source, LENGTHS, inputs), targets)
        close(total, expected)
        close(
            module.nll(module(source, LENGTHS, inputs), targets).sum(),
            make({}).nll(module(source, LENGTHS, inputs), targets).sum(),
        )


def test_tables_are_shared_as_they_should_be_and_drawn_from_the_seed_alone() -> None:
    none, target, everything = (make({"tied": tied}) for tied in ("none", "target", "all"))
    for module, shared in ((none, 3), (target, 2), (everything, 1)):
        tables = [module.source_embedding.weight, module.target_embedding.weight, module.softmax.weight]
        assert len({id(table) for table in tables}) == shared
    assert target.softmax.weight is target.target_embedding.weight
    # Tables of one size, told apart by the order in which they are drawn.
    torch.manual_seed(1)
    module = Seq2Seq(config_of({"tied": "none"}), 50, 50, joint=False)
    torch.manual_seed(1)
    for _ in range(2):
        nn.Embedding(50, 5)  # draws its own values first
    expected = [nn.init.normal_(torch.empty(50, 5), std=5**-0.5) for _ in range(2)]
    close([module.source_embedding.weight.data, module.target_embedding.weight.data], expected)


# Scheduled sampling


def test_the_share_of_the_reference_falls_as_the_paper_says() -> None:
    line = Linear(steps=200, floor=0.4)
    assert [line.share(step) for step in (0, 50, 100, 200, 10**9)] == pytest.approx([1.0, 0.85, 0.7, 0.4, 0.4])
    curve = InverseSigmoid(k=100.0)
    for step in (0, 1, 250, 900):
        assert curve.share(step) == pytest.approx(100 / (100 + math.exp(step / 100)))
    assert InverseSigmoid(k=50.0).share(round(50 * math.log(50))) == pytest.approx(0.5, abs=5e-3)
    assert curve.share(10**9) == pytest.approx(0.0, abs=1e-300)


def sampled(case: dict[str, Any], **teacher: Any) -> Seq2Seq:
    return make({**case, "teacher_forcing": {"name": "linear", **teacher}}).train()


def own_words(module: Seq2Seq, given: torch.Tensor) -> torch.Tensor:
    """Outputs (B, T, O) where a word comes from the reference if `given` (B, T), and else is the best one so far."""
    source, inputs, _ = batch()
    memory = module.encode(source, LENGTHS)
    state, tokens, outputs = module.start(memory), inputs[:, 0], []
    for t in range(inputs.size(1)):
        output, state = module.decoder.step(module.target_embedding(tokens), memory, state)
        outputs.append(module.output_norm(output))
        if t + 1 < inputs.size(1):
            best = (outputs[-1] @ module.softmax.weight.t() + module.softmax.bias).argmax(1)
            tokens = torch.where(given[:, t + 1], inputs[:, t + 1], best)
    return torch.stack(outputs, 1)


SAMPLED = [{"decoder": {"layers": 2, **context}} for context in CONTEXTS] + [{"layer_norm": True, "tied": "none"}]


@pytest.mark.parametrize("case", SAMPLED, ids=name)
def test_the_decoder_reads_the_reference_its_own_words_or_some_of_both(case: dict[str, Any]) -> None:
    source, inputs, _ = batch()
    always = sampled(case, floor=1.0)
    close(tuple(always(source, LENGTHS, inputs)), tuple(make(case)(source, LENGTHS, inputs)))
    never, half = (sampled(case, steps=1, floor=floor) for floor in (0.0, 0.5))
    for module in (never, half):
        module.steps.fill_(1)
    none = torch.zeros_like(inputs, dtype=torch.bool)
    close(never(source, LENGTHS, inputs).outputs, own_words(never, none))
    torch.manual_seed(8)
    given = torch.cat([none[:, :1], *(torch.rand(3, 1) < 0.5 for _ in range(4))], 1)
    assert 2 < given.sum() < 10
    torch.manual_seed(8)
    close(half(source, LENGTHS, inputs).outputs, own_words(half, given))
    # In evaluation, which measures the references' probability, it reads them.
    close(tuple(half.eval()(source, LENGTHS, inputs)), tuple(make(case)(source, LENGTHS, inputs)))


def test_words_of_its_own_lose_their_features_with_those_of_the_reference() -> None:
    """Locked dropout of the input is one mask for a sentence, and dropped words are dropped wherever they come from."""
    source, inputs, _ = batch()
    dropping = {"embedding_size": 60, "input_dropout": 0.5, "word_dropout": 0.4}
    module = sampled(dropping, steps=1, floor=0.5)
    module.steps.fill_(1)
    seen: list[torch.Tensor] = []
    module.decoder.lower.layers[0][0].register_forward_pre_hook(lambda _, given: seen.append(given[0][:, 0]))
    module(source, LENGTHS, inputs)
    x = torch.stack(seen, 1)  # (B, T, E)
    words = (x != 0).any(2)
    assert words.any() and not words[:, 1:].all()
    for row, there in zip(x, words):
        dropped = row[there] == 0
        assert (dropped == dropped[:1]).all() and (not there.any() or 0.2 < dropped.double().mean() < 0.8)


def test_steps_of_training_are_counted_and_kept() -> None:
    source, inputs, _ = batch()
    module = sampled({}, steps=10, floor=0.0)
    for _ in range(3):
        module(source, LENGTHS, inputs)
    module.eval()(source, LENGTHS, inputs)
    assert module.steps.item() == 3
    again = sampled({}, steps=10, floor=0.0)
    again.load_state_dict(module.state_dict())
    assert again.steps.item() == 3
    assert "steps" not in make({}).state_dict()


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (
            {"tied": "all"},
            InputError,
            r'model.tied = "all" needs one vocabulary for both sides: set model.tied=target, or data.joint=true',
        ),
        (
            {"decoder": {"attention": {"name": "dot"}}},
            InputError,
            r"model.decoder.attention: 'dot' compares .* 6 .* 8:",
        ),
        (
            {"decoder": {"weight_dropout": 0.1}, "teacher_forcing": {"name": "linear"}},
            ConfigError,
            "decoder.weight_dropout is one draw for all steps: not with scheduled sampling",
        ),
    ],
)
def test_what_cannot_be_is_told(values: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Seq2Seq(config_of(values), SOURCE_WORDS, TARGET_WORDS, joint=False)


@pytest.mark.parametrize(("options", "bias"), [({}, 0.0), ({"forget_bias": 1.0}, 1.0)])
def test_an_encoder_forgets_unless_it_is_told_otherwise(options, bias):
    encoder = RecurrentConfig(hidden_size=3, cell_options=options)
    module = Seq2Seq(Seq2SeqConfig(embedding_size=4, encoder=encoder, tied="none"), 7, 7, joint=False)
    for cells in module.encoder.layers:
        for cell in cells:
            assert cell.kernel.bias_ih_l0[3:6].tolist() == [bias] * 3
    assert module.decoder.lower.layers[0][0].options.forget_bias == 1.0


OF_ONE_CELL = [case for case in CASES if case.get("encoder", {}).get("cell") not in ("rnn", "lstm")]


@pytest.mark.parametrize("case", OF_ONE_CELL, ids=name)
def test_searches_by_recorded_steps_find_what_others_do(monkeypatch: pytest.MonkeyPatch, case: dict[str, Any]) -> None:
    module, (source, _, _) = make(case).double(), batch()
    attending = module.decoder.attention is not None

    def found(module: Seq2Seq, to: Callable[[torch.Tensor], torch.Tensor]) -> list[list[Hypothesis]]:
        memory, first = module.encode(to(source), LENGTHS), to(torch.full((3,), START))
        return beam_search(
            TranslationDecoder(module),
            module.start(memory),
            first,
            settings=Beam(size=3, nbest=3),
            eos=3,
            max_length=torch.tensor([9, 4, 12]),
            min_length=torch.tensor([7, 3, 10]),
            memory=memory,
            attention=attending,
        )

    expected = found(module, torch.Tensor.clone)
    monkeypatch.setattr(graphs, "WANTED", True)
    with stand_in() as seen:
        there = moved(module)
        for _ in range(2):
            for ours, theirs in zip(found(there, Elsewhere), expected, strict=True):
                for one, other in zip(ours, theirs, strict=True):
                    assert one.tokens == other.tokens and one.ended == other.ended
                    close(one.log_probability, other.log_probability)
                    if one.attention is not None and other.attention is not None:
                        close(one.attention.cpu()[:, : source.size(1)], other.attention)
        assert seen.replays >= 15
