"""The decoder: its equations, all steps at once as step by step, one draw of dropout for all steps."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn

from seqtext.config import parse
from seqtext.errors import ConfigError
from seqtext.nn.attention import Attention
from seqtext.nn.cells import CELLS, build_cell
from seqtext.nn.decoder import DecoderConfig, DecoderState, Memory, RecurrentDecoder
from seqtext.search.decoder import select
from tests.reference.attention import attend

INPUT, SOURCE, OUTPUT, HIDDEN, TIME = 3, 4, 5, 4, 4
LENGTHS = [3, 1, 5]
KINDS: dict[str, dict[str, Any]] = {
    "additive": {"name": "additive", "size": 3},
    "coverage": {"name": "additive", "size": 3, "coverage": True},
    "dot": {"name": "dot"},
    "general": {"name": "general"},
    "scaled": {"name": "scaled", "size": 3},
    "multihead": {"name": "multihead", "heads": 2, "size": 3},
}
USUAL = ("rnn", "lstm", "gru")
PLAIN = [
    {"context": context, "cell": cell, "layers": layers}
    for context, cell, layers in itertools.product(("initial", "input", "both"), USUAL, (1, 2, 3))
]
ATTENDING = [
    {"cell": cell, "attention": attention, "layers": layers, "attention_layer": attending, "input_feeding": feeding}
    for cell, attention, layers, feeding in itertools.product(USUAL, KINDS.values(), (1, 2, 3), (False, True))
    for attending in range(1, layers + 1)
]
WIRED: list[dict[str, Any]] = [
    *({"context": "initial", "cell": cell, "layers": 1} for cell in CELLS if cell not in USUAL),
    {"context": "both", "cell": "lstm", "layers": 2, "dilation": [2, 3]},
    {"context": "both", "cell": "sru", "layers": 2, "dilation": 2, "skip": "dense"},
    {
        "cell": "gru",
        "attention": KINDS["scaled"],
        "layers": 3,
        "dilation": [1, 2, 1],
        "skip": "highway",
        "input_depth": 2,
    },
    {"cell": "gru", "attention": KINDS["additive"], "layers": 2, "transition_depth": 2, "output_depth": 2},
]
AROUND = {"skip", "input_depth", "output_depth"}
"""What stands around the cells of a layer: `test_rnn.py` has its equations."""
CASES: list[dict[str, Any]] = [*PLAIN, *ATTENDING, *WIRED]


def name(case: dict[str, Any]) -> str:
    kind = next((kind for kind, attention in KINDS.items() if attention == case.get("attention")), "")
    layers = f"{case['layers']} layers" + (
        f", {case['attention_layer']} attends" if kind and "attention_layer" in case else ""
    )
    wired = "".join(f"-{key} {case[key]}" for key in ("dilation", "skip", "transition_depth") if key in case)
    feeding = "-feeding" if case.get("input_feeding") else ""
    return f"{case.get('context', kind)}-{case['cell']}-{layers}{wired}{feeding}"


each_case = pytest.mark.parametrize("case", CASES, ids=name)


def make(case: dict[str, Any], **more: Any) -> tuple[RecurrentDecoder, torch.Tensor, Memory]:
    """A decoder in float64 with sizeable weights, inputs (B, T, E), and a memory of ragged sources."""
    config = parse(DecoderConfig, {"hidden_size": HIDDEN, **case, **more}, source="recipe")
    generator = torch.Generator().manual_seed(3)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    module = RecurrentDecoder(INPUT, SOURCE, OUTPUT, config).double()
    for parameter in module.parameters():
        parameter.data.copy_(0.7 * randn(*parameter.shape))
    real = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)
    values = randn(len(LENGTHS), max(LENGTHS), SOURCE).masked_fill(~real.unsqueeze(2), 0.0)
    keys = values[:, :, :0] if module.attention is None else module.attention.keys(values)
    return module, randn(len(LENGTHS), TIME, INPUT), Memory(values, keys, real, randn(len(LENGTHS), SOURCE))


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def repeated(module: RecurrentDecoder, x: torch.Tensor, memory: Memory, state: DecoderState) -> tuple[Any, Any]:
    """Outputs (N, T, O) and attention (N, T, S), or None, of one step after another."""
    outputs, weights = [], []
    for t in range(x.size(1)):
        output, state = module.step(x[:, t], memory, state)
        outputs.append(output)
        weights.append(state.weights)
    return torch.stack(outputs, 1), None if weights[0] is None else torch.stack(weights, 1)


@each_case
def test_all_steps_at_once_are_one_step_after_another_for_several_hypotheses_too(case: dict[str, Any]) -> None:
    module, x, memory = make(case)
    decoded = module(x, memory)
    close(repeated(module, x, memory, module.start(memory)), tuple(decoded))
    # A replacement that replaces nothing takes the loop where the kernels could run over all steps.
    close(tuple(module(x, memory, lambda t, output: x[:, t])), tuple(decoded))
    # Two hypotheses a source, side by side: as if each had a copy of the source for itself.
    rows = torch.arange(len(LENGTHS)).repeat_interleave(2)
    x = torch.randn(len(rows), TIME, INPUT, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    state = select(module.start(memory), rows)
    close(repeated(module, x, memory, state), tuple(module(x, select(memory, rows))))


@each_case
def test_a_source_alone_gives_what_it_does_among_longer_ones(case: dict[str, Any]) -> None:
    module, x, memory = make(case)
    decoded = module(x, memory)
    for row, length in enumerate(LENGTHS):
        values, keys, real, summary = (part[row : row + 1] for part in memory)
        source = Memory(values[:, :length], keys[:, :length], real[:, :length], summary)
        outputs, weights = module(x[row : row + 1], source)
        close(outputs[0], decoded.outputs[row])
        if weights is not None:
            close(weights[0], decoded.weights[row, :, :length])
            assert (decoded.weights[row, :, length:] == 0).all()
            close(decoded.weights[row].sum(1), torch.ones(TIME, dtype=torch.float64))


def by_the_book(module: RecurrentDecoder, x: torch.Tensor, memory: Memory, row: int) -> list[torch.Tensor]:
    """The outputs of one row, layer by layer, from the equations; cells take their own steps."""
    length = LENGTHS[row]
    values, summary = list(memory.values[row, :length]), memory.summary[row]
    cells = [cells[0] for stack in (module.lower, module.upper) if stack is not None for cells in stack.layers]
    # The state that every layer begins from is tanh(V c) (Cho 2014, appendix A.1.2; Bahdanau 2015, A.2.2), or zero.
    begin = torch.zeros(sum(len(cell.starts) for cell in cells) * HIDDEN, dtype=torch.float64)
    if module.bridge is not None:
        begin = (module.bridge.weight @ summary + module.bridge.bias).tanh()
    parts = iter(begin.split(HIDDEN))
    zero = torch.zeros(1, HIDDEN, dtype=torch.float64)
    states = [tuple(next(parts)[None] if part in cell.starts else zero for part in range(cell.parts)) for cell in cells]
    fed, covered, outputs = torch.zeros(OUTPUT, dtype=torch.float64), torch.zeros(length, dtype=torch.float64), []
    for word in x[row]:
        below = word
        if module.context in ("input", "both"):
            below = torch.cat([word, summary])
        elif module.feeding:
            below = torch.cat([word, fed])
        context = None
        for depth, cell in enumerate(cells):
            if depth == module.depth:  # the first layer above the one that attends
                assert context is not None
                below = torch.cat([below, context])
            _, states[depth] = cell.step(below[None], states[depth])
            below = states[depth][0][0]
            if depth == module.depth - 1:
                attending = below
                if module.attention is not None:
                    context, weights = attend(module.attention, below, values, covered)
                    covered = covered + torch.stack(weights)
        read = [below, word] if context is None else [below, word, context]
        assert attending is not None
        fed = (module.output.weight @ torch.cat(read) + module.output.bias).tanh()
        outputs.append(fed)
    return outputs


@pytest.mark.parametrize("case", [case for case in CASES if not AROUND & case.keys()], ids=name)
def test_outputs_are_those_of_the_equations(case: dict[str, Any]) -> None:
    module, x, memory = make(case)
    found = module(x, memory).outputs
    close(found, torch.stack([torch.stack(by_the_book(module, x, memory, row)) for row in range(len(LENGTHS))]))


FUSED = [
    case
    for case in CASES
    if case["layers"] > 1 and not case.get("input_feeding") and not case.get("attention", {}).get("coverage")
]


@pytest.mark.parametrize("case", FUSED, ids=name)
def test_dropout_of_all_steps_at_once_is_that_of_the_loop(case: dict[str, Any]) -> None:
    module, x, memory = make(case, dropout=0.4)
    quiet = module(x, memory).outputs
    module.train()
    torch.manual_seed(1)
    fused = module(x, memory)
    torch.manual_seed(1)  # masks are drawn in the order of the layers either way
    looped = module(x, memory, lambda t, output: x[:, t])
    assert (looped.outputs - quiet).abs().max() > 1e-3
    close(tuple(looped), tuple(fused))


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_the_loop_draws_its_dropout_once_for_all_steps_and_anew_for_every_target(layer: int) -> None:
    case = {"cell": "gru", "layers": 3, "attention_layer": layer, "input_feeding": True, "hidden_size": 40}
    module, x, memory = make(case, dropout=0.5)
    seen: dict[nn.Module, list[torch.Tensor]] = {}

    def note(cell: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.setdefault(cell, []).append(inputs[0][:, 0, :40] == 0)

    cells: list[Any] = [cells[0] for part in (module.lower, module.upper) if part is not None for cells in part.layers]
    for cell in cells[1:]:
        cell.register_forward_pre_hook(note)
    module.train()
    module(x, memory), module(x, memory)
    assert len(seen) == 2
    for dropped in seen.values():
        first, second = dropped[:TIME], dropped[TIME:]
        assert len(second) == TIME and 0.2 < first[0].double().mean() < 0.8
        assert all(torch.equal(one, first[0]) for one in first) and all(torch.equal(one, second[0]) for one in second)
        assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize(("cell", "options"), [*((name, {}) for name in USUAL), ("rnn", {"nonlinearity": "relu"})])
def test_a_single_step_of_prediction_is_the_kernel_s(cell: str, options: dict[str, Any]) -> None:
    torch.manual_seed(2)
    module = build_cell(cell, INPUT, 17, options)
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(5, INPUT)
    for state in (None, tuple(torch.randn(5, 17) for _ in range(module.parts))):
        expected = module.step(x, state)
        with torch.no_grad():
            torch.testing.assert_close(module.step(x, state), expected)
            torch.testing.assert_close(module.step(x[:0], None)[0], expected[0][:0])
        assert expected[0].requires_grad
    module.bfloat16()
    state = tuple(torch.randn(5, 17).bfloat16() for _ in range(module.parts))
    output, after = module.step(x.bfloat16(), state)
    with torch.no_grad():
        found = module.step(x.bfloat16(), state)
    assert found[0].dtype == torch.bfloat16
    torch.testing.assert_close(found, (output, after), rtol=0.04, atol=0.04)


def test_what_was_attended_to_is_summed_for_attention_that_covers() -> None:
    module, x, memory = make({"cell": "lstm", "attention": KINDS["coverage"]})
    state = module.start(memory)
    assert state.coverage is not None and not state.coverage.any()
    total = torch.zeros_like(state.coverage)
    for t in range(TIME):
        _, state = module.step(x[:, t], memory, state)
        assert state.weights is not None
        total = total + state.weights
        close(state.coverage, total)


def test_an_empty_share_of_a_batch_has_no_output() -> None:
    for case in ({"context": "both"}, {"input_feeding": True}, {"attention": KINDS["coverage"]}):
        module, x, memory = make(case)
        none = module(x[:0], select(memory, torch.zeros(0, dtype=torch.int64)))
        assert none.outputs.shape == (0, TIME, OUTPUT)
        none.outputs.sum().backward()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"layers": 2, "attention_layer": 3}, "attention_layer 3: the decoder has 2 layers"),
        ({"context": "both", "input_feeding": True}, "there is nothing to remember with context 'both'"),
        ({"weight_dropout": 0.1, "input_feeding": True}, "weight_dropout is one draw for all steps"),
        ({"weight_dropout": 0.1, "attention": KINDS["coverage"]}, "weight_dropout is one draw for all steps"),
        ({"bidirectional": True}, "bidirectional: unknown key"),
    ],
)
def test_what_cannot_be_is_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(DecoderConfig, values, source="recipe")


def test_every_kind_of_attention_and_every_context_is_tested_here() -> None:
    built = {type(make(case)[0].attention) for case in ATTENDING if case["layers"] == 1}
    assert built == {kind for kind in _kinds(Attention) if not kind.__subclasses__() or kind in built}
    contexts = DecoderConfig.model_fields["context"].annotation
    assert {case.get("context", "attention") for case in CASES} == set(contexts.__args__)  # type: ignore[union-attr]


def _kinds(base: type[Attention]) -> set[type[Attention]]:
    return {kind for child in base.__subclasses__() for kind in {child, *_kinds(child)}}
