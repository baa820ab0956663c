"""Dynamic evaluation and the neural cache: against slow loops written from their equations, and what they are good for.

The text that they are good for here: words come in spells of a few, out of many that are all as frequent.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from seqtext import api
from seqtext.cli.app import main
from seqtext.config import parse
from seqtext.data.stream import Stream, encode_lines
from seqtext.errors import InputError
from seqtext.nn.language_model import LanguageModelConfig
from seqtext.run import Run
from seqtext.task import Adapting, Passing, predict_all
from seqtext.tasks.lm import Lm, LmData, evaluation
from seqtext.tasks.lm_adapt import Adapter, Chosen
from seqtext.tasks.lm_cache import Cache, History, log_cached, mixed
from seqtext.tasks.lm_dynamic import STREAMS, Dynamic, gather

CPU = torch.device("cpu")
KINDS: dict[str, dict[str, Any]] = {
    "tied": {"encoder": {"cell": "lstm", "hidden_size": 8, "layers": 2}, "output_dropout": 0.5},
    "projected": {"encoder": {"cell": "gru", "hidden_size": 5, "weight_dropout": 0.5}, "embedding_dropout": 0.5},
    "adaptive": {
        "encoder": {"cell": "rnn", "hidden_size": 8},
        "tied": False,
        "softmax": {"name": "adaptive", "cutoffs": [6, 40], "div_value": 2.0},
        "activation_regularization": 2.0,
    },
}


def spells(seed: object, tokens: int, *, words: int = 60, length: int = 20) -> list[str]:
    """Lines of ten tokens, their ends counted; every `length` tokens, four other words are all that is spoken of."""
    rng, lines = random.Random(repr(seed)), []
    for start in range(0, tokens, 10):
        if start % length == 0:
            spoken = rng.sample(range(words), 4)
        lines.append(" ".join(f"w{rng.choice(spoken)}" for _ in range(9)))
    return lines


def make(kind: str = "tied", *, tokens: int = 150, train: int = 1200) -> tuple[Lm, Any, Stream, Stream]:
    """A task, a module with random weights that are far from 0, a training text and another."""
    data = parse(LmData, {"window": 7, "pretokenized": "yes"}, source="recipe")
    texts = spells("train", train), spells("other", tokens)
    import datasets

    task = Lm.fit(data, datasets.Dataset.from_dict({"text": texts[0]}))
    torch.manual_seed(5)
    module = task.build(parse(LanguageModelConfig, {"embedding_size": 8, **KINDS[kind]}, source="recipe"))
    for parameter in module.parameters():
        parameter.data.normal_(std=0.4)
    read, other = (encode_lines(text, task.tokenizer, pretokenized=True) for text in texts)
    return task, module, read, other


def weights(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in module.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def adapter(task: Lm, module: Any, **settings: Any) -> Adapter:
    return Adapter(module, CPU, evaluation, task.data.window, 4096, **settings)


def loop_of_the_cache(
    states: list[Any], words: list[int], nll: list[float], *, size: int, theta: float, weight: float
) -> list[float]:
    """Equations 3 to 5, step by step. `words` are one more than `states`: words[i + 1] comes after states[i]."""
    losses = []
    for t in range(len(states)):
        before = range(max(0, t - size), t)
        strengths = [math.exp(theta * float(np.dot(states[t], states[i]))) for i in before]
        hits = [strength for strength, i in zip(strengths, before) if words[i + 1] == words[t + 1]]
        chance = math.exp(-nll[t])
        losses.append(-math.log((1 - weight) * chance + weight * sum(hits) / sum(strengths) if before else chance))
    return losses


@given(
    st.integers(0, 10**6), st.integers(1, 3), st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(1, 12)
)
def test_the_cache_is_that_of_a_slow_loop_over_window_borders(
    seed: int, streams: int, windows: list[int], size: int
) -> None:
    rng = np.random.default_rng(seed)
    steps = sum(windows)
    states = rng.normal(size=(streams, steps, 3))
    words = rng.integers(0, 4, (streams, steps + 1))
    nll = rng.exponential(2.0, (streams, steps))
    warm = rng.integers(0, steps, streams)  # steps that are not scored
    thetas, shares = [0.0, 0.3, 2.0], [0.0, 0.1, 0.7]
    history: History | None = None
    losses, start = [], 0
    for length in windows:
        part = slice(start, start + length)
        targets = words[:, 1:][:, part].copy()
        targets[np.arange(steps)[part] < warm[:, None]] = -1
        tensors = [torch.from_numpy(x.copy()) for x in (states[:, part], words[:, part], targets)]
        with torch.inference_mode():
            cached, history = log_cached(*tensors, history, size=size, thetas=thetas)
            losses.append(mixed(torch.from_numpy(nll[:, part].copy()), cached, shares))
        start += length
    assert history is not None and history.states.size(1) == history.tokens.size(1) == min(size, steps)
    found = torch.cat(losses, -1).numpy()  # (L, G, B, S)
    for row in range(streams):
        for g, theta in enumerate(thetas):
            for s, weight in enumerate(shares):
                expected = loop_of_the_cache(
                    list(states[row]), words[row].tolist(), nll[row].tolist(), size=size, theta=theta, weight=weight
                )
                real = slice(int(warm[row]), None)
                np.testing.assert_allclose(found[s, g, row, real], expected[real], rtol=1e-9)


def test_the_cache_of_half_precision_states_is_computed_in_full() -> None:
    torch.manual_seed(0)
    states, words = torch.randn(2, 30, 16) * 4, torch.randint(0, 3, (2, 31))
    half = states.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, history = log_cached(half, words[:, :-1], words[:, 1:], None, size=9, thetas=[0.5])
    expected, _ = log_cached(half.double(), words[:, :-1], words[:, 1:], None, size=9, thetas=[0.5])
    assert found.dtype == torch.float32 and history.states.dtype == torch.bfloat16
    torch.testing.assert_close(found.double().exp(), expected.exp(), rtol=1e-4, atol=1e-6, equal_nan=True)


def test_a_run_with_a_cache_is_the_loop_in_several_streams_and_lambda_0_is_no_cache() -> None:
    _, module, _, text = make(tokens=1300)

    def cut(text: Stream, *, tokens: int, window: int, kept: int) -> Any:
        from seqtext.data.stream import Windows
        from seqtext.tasks.lm import Batches

        return Batches(Windows(text, mode="eval", streams=3, window=window, warm_up=11), window)

    for cache in (Cache(size=6, theta=0.8, weight=0.3), Cache(size=6, weight=0.0)):
        adapting = Adapter(module.eval(), CPU, cut, 7, 4096)
        found: Any = list(adapting.losses(text, Chosen(None, cache), []))
        plain: Any = list(adapting.losses(text, Chosen(None, None), []))
        assert len(found) == len(plain) > 5
        joined = [torch.cat([losses for _, losses in part], 1) for part in (found, plain)]
        if cache.weight == 0.0:
            torch.testing.assert_close(joined[0], joined[1])
            continue
        inputs = torch.cat([batch.inputs for batch, _ in found], 1)
        targets = torch.cat([batch.targets for batch, _ in found], 1)
        with torch.inference_mode():
            states = module(inputs).outputs
            for row in range(3):
                real = targets[row] >= 0
                nll = module.nll(module(inputs[row : row + 1]), torch.cat([inputs[row, 1:], targets[row, -1:]])[None])
                words = [*inputs[row].tolist(), int(targets[row, -1])]
                expected = loop_of_the_cache(
                    list(states[row].double().numpy()), words, nll[0].tolist(), size=6, theta=0.8, weight=0.3
                )
                np.testing.assert_allclose(joined[0][row][real], np.array(expected)[real], rtol=1e-4)
                assert not joined[0][row][~real].any()


def mean_gradient(module: Any, inputs: Any, targets: Any, state: Any) -> tuple[torch.Tensor, list[Any], Any]:
    """The losses of a window, the gradient of their mean, and the state after it: by autograd and nothing else."""
    module.zero_grad()
    hidden = module(torch.as_tensor(inputs, dtype=torch.int64), state)
    scores = module.softmax.log_probabilities(hidden.outputs.flatten(0, 1))
    losses = nn.functional.nll_loss(scores, torch.as_tensor(targets, dtype=torch.int64).flatten(), reduction="none")
    losses.mean().backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in module.parameters()]
    return losses.detach(), gradients, [tuple(part.detach() for part in one) for one in hidden.carry]


def loop_of_mean_squares(module: Any, text: Stream, bptt: int) -> list[torch.Tensor]:
    ids = text.slice(0, text.tokens).astype(np.int64)
    each = len(ids) // STREAMS
    before = np.concatenate([[text.eos], ids[:-1]])
    inputs, targets = (part[: each * STREAMS].reshape(STREAMS, each) for part in (before, ids))
    squares, state = [], None
    for start in range(0, each, bptt):
        part = slice(start, start + bptt)
        _, gradients, state = mean_gradient(module, inputs[:, part], targets[:, part], state)
        squares.append([gradient.square() for gradient in gradients])
    return [torch.stack(parts).mean(0).sqrt() for parts in zip(*squares)]


def loop_of_dynamic_evaluation(module: Any, text: Stream, rms: list[torch.Tensor], settings: Dynamic) -> torch.Tensor:
    """The losses of all tokens, each window's before its step; the weights stay as they have become."""
    ids = text.slice(0, text.tokens).astype(np.int64).tolist()
    inputs, trained, state = [text.eos, *ids[:-1]], weights(module), None
    mean = torch.stack([part.mean() for part in rms if part.numel()]).mean()
    losses, clipped = [], 0
    for start in range(0, len(ids), settings.bptt):
        part = slice(start, start + settings.bptt)
        loss, gradients, state = mean_gradient(module, [inputs[part]], [ids[part]], state)
        losses.append(loss)
        for parameter, gradient, root, origin in zip(module.parameters(), gradients, rms, trained):
            decay = (settings.decay * root / mean).clamp(max=1.0)
            clipped += int((decay == 1.0).sum())
            step = -settings.lr * gradient / (root + settings.epsilon) + decay * (origin - parameter.data)
            parameter.data = parameter.data + step
    assert clipped
    return torch.cat(losses)


@pytest.mark.parametrize("kind", KINDS)
def test_dynamic_evaluation_is_that_of_a_slow_loop_and_leaves_the_weights_as_they_were(kind: str) -> None:
    task, module, train, text = make(kind)
    module.train()
    before = weights(module)
    rms = gather(module, train, CPU, bptt=5)
    settings = Dynamic(lr=2e-3, decay=0.5, epsilon=1e-4)
    with torch.no_grad():  # whatever the caller computes with
        found: Any = list(adapter(task, module).losses(text, Chosen(settings, None), rms))
    assert same(weights(module), before) and all(parameter.grad is None for parameter in module.parameters())
    assert module.training and all(part.training for part in module.modules())
    with torch.inference_mode():
        plain = list(adapter(task, module).losses(text, Chosen(None, None), []))
    module.eval()
    for mine, theirs in zip(rms, loop_of_mean_squares(module, train, 5), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-8)
    expected = loop_of_dynamic_evaluation(module, text, rms, settings)
    losses = torch.cat([losses[0] for _, losses in found])
    torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-3)
    apart = (losses - torch.cat([losses[0] for _, losses in plain])).abs()
    assert not apart[:5].max() > 1e-5 and apart[5:].max() > 0.1  # what it is about is not lost in the tolerance


def test_dynamic_evaluation_with_a_rate_of_0_is_the_plain_one_in_one_stream() -> None:
    task, module, train, text = make()
    rms = gather(module, train, CPU, bptt=5)
    plain = predict_all(task, module, text, task.batches(text, tokens=1), CPU)
    for settings in (Dynamic(lr=0.0), Dynamic(lr=1e-30)):
        result: Any = [0.0] * len(text)
        for batch, losses in adapter(task, module).losses(text, Chosen(settings, None), rms):
            assert losses.size(1) in ((7, text.tokens % 7) if settings.lr == 0.0 else (5, text.tokens % 5))
            for place, loss in zip(batch.lines.flatten().tolist(), losses.flatten().tolist()):  # type: ignore[union-attr]
                result[int(batch.rows[place])] += loss
        assert result == pytest.approx([line.nll for line in plain], rel=1e-6)


@pytest.mark.parametrize("where", ["within a pass", "where its losses go"])
def test_weights_are_restored_after_an_error(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task, module, train, text = make()
    before = weights(module)

    def fail(*_: object) -> None:
        if not same(weights(module), before):
            raise KeyboardInterrupt

    if where == "where its losses go":
        monkeypatch.setattr("seqtext.tasks.lm.line_scores", lambda *given: fail() or [])
    listen = fail if where == "within a pass" else lambda passing: None
    how = Adapting(dynamic=True)
    with pytest.raises(KeyboardInterrupt) as kept:  # which keeps all frames of the error alive
        task.adapt(module, text, how, lambda split: train, tokens=4096, device=CPU, listen=listen)
    assert kept and same(weights(module), before) and module.training


def test_gradients_are_gathered_over_a_bounded_part_of_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    _, module, train, _ = make(train=6000)
    monkeypatch.setattr("seqtext.tasks.lm_dynamic.GATHERED", 4)
    told: list[tuple[int, int]] = []
    rms = gather(module, train, CPU, bptt=5, listen=lambda *passed: told.append(passed))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]
    monkeypatch.setattr("seqtext.tasks.lm_dynamic.GATHERED", 12)
    assert not same(rms, gather(module, train, CPU, bptt=5))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A small model of a text of spells."""
    folder = tmp_path_factory.mktemp("spells")
    for split, tokens in (("train", 4000), ("valid", 600), ("test", 300)):
        (folder / f"{split}.txt").write_text("\n".join(spells(split, tokens, length=60)) + "\n", encoding="utf-8")
    overrides = {
        "train.epochs": 3,
        "model.embedding_size": 16,
        "model.encoder.hidden_size": 16,
        "train.batch_tokens": 350,
    }
    return api.train("lm", data=str(folder), overrides=overrides, out=folder / "run", device="cpu")


def test_both_are_better_where_words_repeat_and_what_is_tuned_is_never_worse(run: Run) -> None:
    """Measured on valid: plain 62.0, dynamic 57.3 and tuned 19.7, cache 33.5 and tuned 10.1, both tuned 9.6."""
    valid: dict[str, float] = {}
    passes: list[Passing] = []
    for name, how in {
        "plain": {},
        "dynamic": {"dynamic": True},
        "cache": {"cache": 30},
        "dynamic tuned": {"dynamic": True, "tune": True},
        "cache tuned": {"cache": 30, "tune": True},
        "both tuned": {"dynamic": True, "cache": 30, "tune": True},
    }.items():
        result = api.evaluate(run.folder, split="valid", device="cpu", listen=passes.append, **how)  # type: ignore[arg-type]
        valid[name] = result.scores["perplexity"]
        assert (result.adaptation is None) == (not how)
        assert (", chosen on valid; " in result.settings) == ("tune" in how)
    assert valid["dynamic"] < 0.99 * valid["plain"] and valid["cache"] < 0.8 * valid["plain"]
    assert valid["dynamic tuned"] <= valid["dynamic"] and valid["cache tuned"] < valid["cache"]
    assert valid["both tuned"] <= min(valid["cache tuned"], valid["dynamic tuned"])
    # What was chosen is as good on its pass over the validation text as in the end.
    assert [passing.perplexity for passing in passes if passing.what.endswith("the cache")][-1] == pytest.approx(
        valid["both tuned"], rel=1e-5
    )


def test_where_adapting_does_no_good_tuning_leaves_it_out() -> None:
    """A text in which no word comes again before all others have come."""
    task, module, _, _ = make()
    words = [token for token in map(task.tokenizer.token, range(task.tokenizer.size)) if token.startswith("w")]
    lines = [" ".join(words[i % len(words)] for i in range(start, start + 9)) for start in range(0, 540, 9)]
    text = encode_lines(lines, task.tokenizer, pretokenized=True)
    for parameter in module.parameters():
        parameter.data.zero_()  # so that all words are as probable, the ends of lines apart
    module.softmax.bias.data[:2] = -30.0  # <pad> and <unk>, which do not come
    module.softmax.bias.data[text.eos] = math.log(len(words) / 9)
    found = task.adapt(module, text, Adapting(cache=20, tune=True), lambda split: text, tokens=4096, device=CPU)
    plain = predict_all(task, module, text, task.batches(text, tokens=1), CPU)
    assert found.settings == {"tuned": True, "cache": {"size": 20, "theta": 0.0, "lambda": 0.0}}
    assert [line.nll for line in found.predictions] == pytest.approx([line.nll for line in plain], rel=1e-6)


def test_what_it_was_done_with_stands_with_the_figures(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["seqtext", "evaluate", str(run.folder), "--cache", "30", "--dynamic", "--device", "cpu", "--json"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as stopped:
        main()
        raise SystemExit(0)
    out, err = capsys.readouterr()
    assert not stopped.value.code
    record = json.loads(out)
    assert record["adaptation"] == {
        "tuned": False,
        "dynamic": {"bptt": 5, "lr": 5e-5, "decay": 0.002, "epsilon": 2e-5},
        "cache": {"size": 30, "theta": 0.3, "lambda": 0.1},
    }
    how = (
        "dynamic evaluation (windows of 5, lr 5e-05, decay 0.002, epsilon 2e-05) and "
        "neural cache of 30 pairs (theta 0.3, lambda 0.1), default settings; test of "
    )
    assert how in record["metric"]
    assert err.splitlines() == ["gradients of the training text", f"scoring: perplexity {record['perplexity']:.2f}"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tune": True}, "--tune chooses settings of --dynamic and --cache: give one of them, or both"),
        (
            {"cache": 9, "precision": "bf16"},
            "--precision bf16: --dynamic and --cache compute in float32; leave one of them out",
        ),
        ({"cache": -1}, "--cache -1: expected how many steps it holds, 1 or more, or 0 for none"),
        (
            {"dynamic": True, "batch_tokens": 100},
            "--batch-tokens: with --dynamic the text is read as one stream, a few tokens at a time",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        api.evaluate("no such run", **options)
    assert str(error.value) == message


def test_a_task_that_cannot_adapt_says_so(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    small = {"model.encoder.hidden_size": 4, "train.epochs": 1, "train.batch_tokens": 4096}
    api.train("ner", overrides=small, out=folder, device="cpu")
    for options, flag in (({"dynamic": True, "cache": 5}, "--dynamic"), ({"cache": 5}, "--cache")):
        with pytest.raises(InputError) as error:
            api.evaluate(folder, **options)  # type: ignore[arg-type]
        assert str(error.value) == f"{folder}: a run of the task ner, which has no {flag}"


@pytest.mark.gpu
def test_a_gpu_gives_what_a_cpu_does() -> None:
    task, module, train, text = make()
    results = []
    for device in (CPU, torch.device("cuda")):
        module.to(device)
        how = Adapting(dynamic=True, cache=20)
        found = task.adapt(module, text, how, lambda split: train, tokens=4096, device=device)
        results.append([line.nll for line in found.predictions])
    assert results[0] == pytest.approx(results[1], rel=1e-3)
