"""Output recurrence: with the truth all at once, with its own outputs as a slow loop, and nothing else is carried."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seqtext.config import parse
from seqtext.errors import ConfigError
from seqtext.nn.jordan import LabelFeedback, LabelRecurrence
from seqtext.nn.language_model import LanguageModel, LanguageModelConfig
from seqtext.tasks.ner import NerModel

LABELS, SIZE, WORDS = 4, 3, 11
KINDS = [("output", "rnn"), ("output", "lstm"), ("both", "rnn"), ("both", "lstm"), ("both", "gru")]


def layers(recurrence: Any, cell: str, **values: Any) -> tuple[LabelRecurrence, nn.Linear, Tensor]:
    config = parse(LabelFeedback, {"cell": cell, "hidden_size": 5, "layers": 2, **values}, source="recipe")
    torch.manual_seed(2)
    module = LabelRecurrence(SIZE, LABELS, config, recurrence).double()
    read = nn.Linear(5, LABELS).double()
    for parameter in [*module.parameters(), *read.parameters()]:
        nn.init.normal_(parameter)
    return module, read, torch.randn(6, 7, SIZE, dtype=torch.float64)


def by_hand(module: LabelRecurrence, read: nn.Linear, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
    """One row, step by step: logits (T, C) and the labels that were read before each, (T,)."""
    before, states, found, seen = LABELS, [None] * 2, [], []
    for t, word in enumerate(x):
        inputs = torch.cat([word, module.labels.weight[before]])
        for depth, (cell,) in enumerate(module.stack.layers):  # type: ignore[misc]
            inputs, state = cell.step(inputs[None], states[depth] if module.carried else None)
            inputs, states[depth] = inputs[0], state
        seen.append(before)
        found.append(read(inputs))
        before = int(found[-1].argmax()) if labels is None else int(labels[t])
    return torch.stack(found), torch.tensor(seen)


@pytest.mark.parametrize(("recurrence", "cell"), KINDS)
def test_a_tagger_reads_the_true_labels_or_its_own_as_a_slow_loop_does(recurrence: str, cell: str) -> None:
    module, read, x = layers(recurrence, cell)
    labels = torch.randint(LABELS, (6, 7))
    forced, free = module.train()(x, read, labels), module.eval()(x, read)
    differ = False
    for row in range(6):
        logits, _ = by_hand(module, read, x[row], labels[row])
        torch.testing.assert_close(forced[row], logits.float(), rtol=1e-5, atol=1e-5)
        logits, seen = by_hand(module, read, x[row], None)
        torch.testing.assert_close(free[row], logits.float(), rtol=1e-5, atol=1e-5)
        assert seen[1:].tolist() == free[row].argmax(1)[:-1].tolist()
        differ |= bool((seen[1:] != labels[row, :-1]).any())
    assert differ
    torch.testing.assert_close(module(x, read, labels), forced)  # what is held out is scored with the truth, too
    torch.testing.assert_close(module(x[:, :3], read), free[:, :3])


@pytest.mark.parametrize("recurrence", ["output", "both"])
def test_scheduled_sampling_mixes_the_truth_and_its_own(recurrence: str) -> None:
    module, read, x = layers(recurrence, "rnn", teacher_forcing=0.5)
    labels = torch.randint(LABELS, (6, 7))
    own, true = module.eval()(x, read), module(x, read, labels)
    module.share = 0.0
    torch.testing.assert_close(module.train()(x, read, labels), own)
    module.share = 0.5
    torch.manual_seed(1)
    mixed = module.train()(x, read, labels)
    steps = (mixed - true).abs().amax(2) > 1e-6  # (B, T)
    assert 0 < steps.sum() < steps.numel() and not steps[:, 0].any()
    if recurrence == "output":  # every step is that of the one label or the other, for it knows no more
        for row, step in steps.nonzero().tolist():
            rest, before = x[row : row + 1, step : step + 1], mixed[row, step - 1].argmax().view(1, 1)
            torch.testing.assert_close(read(module._states(rest, before, None)[0])[0, 0].float(), mixed[row, step])


def model(recurrence: str, of: str = "distribution", **values: Any) -> LanguageModel:
    encoder = {"hidden_size": 6, "layers": 2, "cell": values.pop("cell", "lstm")}
    values = {"embedding_size": 5, "encoder": encoder, "recurrence": recurrence, "init_range": 1.0, **values}
    feedback = {"of": of, "teacher_forcing": values.pop("teacher_forcing", 1.0)}
    torch.manual_seed(1)
    return LanguageModel(parse(LanguageModelConfig, values | {"feedback": feedback}, source="recipe"), WORDS)


@pytest.mark.parametrize(
    ("recurrence", "of", "cell"),
    [("output", "distribution", "rnn"), ("output", "word", "lstm"), ("both", "distribution", "gru")],
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_feeds_its_distribution_back(recurrence: str, of: str, cell: str, tied: bool) -> None:
    module = model(recurrence, of, cell=cell, tied=tied).eval()
    tokens = torch.randint(WORDS, (3, 8))
    whole = module(tokens)
    first = module(tokens[:, :3])
    second = module(tokens[:, 3:], first.carry)
    torch.testing.assert_close(torch.cat([first.outputs, second.outputs], 1), whole.outputs)
    state: Any = None
    fed, states = torch.zeros(3, 5), [None, None]
    for t in range(8):
        output, state = module.step(tokens[:, t], state)
        torch.testing.assert_close(output, whole.outputs[:, t])
        x = module.embedding(tokens[:, t])
        if of == "distribution":
            x = torch.cat([x, fed], dim=1)
        for depth, (layer,) in enumerate(module.encoder.layers):
            x, states[depth] = layer.step(x, states[depth] if recurrence == "both" else None)
        expected = x if module.projection is None else module.projection(x)
        torch.testing.assert_close(output, expected)
        fed = module.softmax.log_probabilities(expected).exp() @ module.embedding.weight
    torch.testing.assert_close(state, whole.carry)
    other = tokens.clone()
    other[:, 0] = (tokens[:, 0] + 1) % WORDS
    reach = (module(other).outputs - whole.outputs).abs().amax((0, 2)) > 1e-7
    assert reach[:2].tolist() == [True, of == "distribution"]  # fed back the word alone, its context is one word
    if of == "word":
        assert not reach[1:].any()


def test_a_language_model_may_read_its_own_words_in_training() -> None:
    module = model("output", "word", teacher_forcing=0.0).train()
    tokens = torch.randint(WORDS, (4, 6))
    outputs = module(tokens).outputs
    module.eval()
    before = tokens[:, 0]
    for t in range(6):
        output, _ = module.step(before)
        torch.testing.assert_close(outputs[:, t], output)
        before = module.softmax.log_probabilities(output).argmax(1)


@pytest.mark.parametrize(
    ("schema", "values", "message"),
    [
        (
            NerModel,
            {"recurrence": "output"},
            "model.head: a CRF weighs whole taggings, and the labels fed back are of",
        ),
        (
            NerModel,
            {"feedback": {"cell": "gru"}},
            'model.feedback: no label is fed back with recurrence = "hidden"; s',
        ),
        (NerModel, {"recurrence": "jordan"}, "model.recurrence: expected 'hidden', 'output' or 'both', got 'jordan'"),
        (
            LanguageModelConfig,
            {"feedback": {"of": "word"}},
            'model.feedback: nothing is fed back with recurrence = "h',
        ),
        (
            LanguageModelConfig,
            {"recurrence": "both", "feedback": {"of": "word"}},
            'model.feedback.of: recurrence = "b',
        ),
        (
            LanguageModelConfig,
            {"recurrence": "output", "tied": False, "softmax": {"name": "adaptive"}},
            "model.softmax: output recurrence reads every word's probability: set softmax.name",
        ),
        (
            LanguageModelConfig,
            {"recurrence": "output", "condition": "both"},
            "model.condition: no state is carried wi",
        ),
        (
            LanguageModelConfig,
            {"recurrence": "both", "encoder": {"weight_dropout": 0.1}},
            "model: encoder.weight_dropout is one draw for all steps: not with output recurrence",
        ),
    ],
)
def test_what_cannot_be_is_told(schema: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(schema, values, source="recipe", prefix="model")
    assert caught.value.faults[0].startswith(message), caught.value.faults
