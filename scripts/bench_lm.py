"""Speed of a language model: tokens per second of training, evaluation and generation, against plain PyTorch.

    python scripts/bench_lm.py [--data DIR] [--recipe lm-ptb-small] [--set KEY=VALUE] [--repeats 5] [--threads N]
                               [--precision float32|bf16|both] [--seconds 1] [--json FILE] [--peak]

Training is `seqtext.training.loop.fit` itself, evaluation what it does after an epoch, generation `search.sampling`.
Beside it, repeat by repeat, a usual PyTorch loop of `reference_lm.py` trains on the same text with the same sizes in
float32: the AWD-LSTM where the recipe has weight dropout, else the plain one. Such loops were measured on two cores at
11,200 words/s (2 layers of 200, windows of 20 x 35: those taken where no --recipe is named) and at 1,200 words/s
(AWD-LSTM, 3 layers of 1150, 20 x 70). Every repeat measures each thing for about a second (--seconds); a figure is the
median over repeats, with the smallest and largest. Ratios within one process say more than rates.

Without --data the text is synthetic: 10,000 words of Zipf's frequencies in lines as long as the Penn Treebank's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import measure
import numpy as np
from measure import Figures

from seqtext.errors import InputError

SMALL = "lm-ptb-small"
SMALL_WINDOWS = ["data.window=35", "train.batch_tokens=700"]
"""20 streams of 35 steps, instead of the recipe's 20 of 20."""
WORDS, TOKENS = 9_997, 100_000
"""Synthetic words, which make a vocabulary of 10,000 with <pad>, <unk> and <eos>; and their training text."""
# Words a line of the Penn Treebank's training text: the length at each share of its lines.
PTB_SHARES = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 1)
PTB_LENGTHS = (1, 6, 9, 12, 15, 18, 20, 23, 26, 29, 34, 39, 49, 63, 82)


def main() -> None:
    parser = measure.options(__doc__, recipe=SMALL, data="a folder with train and valid files")
    parser.set_defaults(recipe=None)
    parser.add_argument("--precision", choices=("float32", "bf16", "both"), default="both", help="our number formats")
    parser.add_argument("--tokens", type=measure.count, default=TOKENS, help=f"of a synthetic text (default {TOKENS})")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement, about (default 1)")
    measure.main(run, parser.parse_args())


def run(arguments: argparse.Namespace, scratch: Path) -> tuple[dict[str, Any], Figures]:
    data = Path(arguments.data) if arguments.data else write_corpus(scratch / "corpus", arguments.tokens)
    name, changes = (arguments.recipe, []) if arguments.recipe else (SMALL, SMALL_WINDOWS)
    changes = [*changes, *arguments.set, f"data.source={json.dumps(str(data.absolute()))}"]
    figures: Figures = defaultdict(list)
    if arguments.peak:  # first: see `peak_memory`
        print("training an epoch for its memory...", file=sys.stderr)
        command = ["seqtext", "train", name, *changes, "train.epochs=1", "--out", str(scratch / "run")]
        figures["peak memory of training, MB"] = [measure.peak_memory(command, cache=scratch / "cache-peak")]

    import torch

    from seqtext import recipe, session
    from seqtext.training.distributed import Devices
    from seqtext.training.loop import fit

    chosen = recipe.load(name, changes)
    if chosen.task.name != "lm":
        raise InputError(f"--recipe {name}: this measures language models; the recipe's task is {chosen.task.name}")
    splits = session.read_splits(chosen)
    task = chosen.task.fit(chosen.data, splits["train"])
    train, valid = task.encode(splits["train"]), task.encode(splits["valid"])
    torch.manual_seed(chosen.seed)
    window, streams = chosen.data.window, max(1, chosen.train.batch_tokens // chosen.data.window)
    theirs, title = reference(chosen, task, train, streams)
    settings = measure.begin(
        {
            "recipe": chosen.name,
            "data": str(data) if arguments.data else "synthetic, after the Penn Treebank",
            "tokens": {"train": train.tokens, "valid": valid.tokens},
            "vocabulary": task.tokenizer.size,
            "window": f"{streams} x {window}",
            "layers": chosen.model.encoder.sizes,
            "reference": title,
            "repeats": arguments.repeats,
        }
    )

    config = chosen.train.model_copy(update={"epochs": 10_000})
    precisions = ("float32", "bf16") if arguments.precision == "both" else (arguments.precision,)
    cpu = {precision: Devices(torch.device("cpu"), precision=precision) for precision in precisions}
    module = task.build(chosen.model).eval()  # for all but training
    flops = count_flops(task, module, train, chosen)
    training, scoring = {}, {}
    for precision, devices in cpu.items():
        events = fit(task, task.build(chosen.model), train, None, config, devices=devices, seed=chosen.seed)
        training[precision] = measure.lasting(measure.step_tokens(events), seconds=arguments.seconds)
        scoring[precision] = evaluation(task, module, valid, chosen, devices, seconds=arguments.seconds)
        scoring[precision]()  # warm-up
    usual = measure.lasting(theirs, seconds=arguments.seconds) if theirs else None
    generation = {rows: measure.lasting(generate(task, module, rows), seconds=arguments.seconds) for rows in (1, 64)}
    one = generate(task, module, 1)
    next(one)

    def note(name: str, value: float) -> None:
        figures[name].append(value)

    for _ in range(arguments.repeats):
        for kernel, measured in measure.matrix_rates().items():
            note(f"{kernel} matrix products, GFLOP/s", measured / 1e9)
        plain = measure.rate(usual) if usual else None
        if plain:
            note("training of the reference, tokens/s", plain)
        for precision in precisions:
            trained = measure.rate(training[precision])
            note(f"training {precision}, tokens/s", trained)
            if plain:
                note(f"training {precision}, ours / reference", trained / plain)
            note(f"training {precision}, GFLOP/s", 3 * flops * trained / 1e9)
            matrix = figures[f"{precision} matrix products, GFLOP/s"][-1]
            note(f"training {precision}, FLOP/s / matrix FLOP/s", 3 * flops * trained / 1e9 / matrix)
            for part, measured in measure.shares(training[precision]).items():
                note(f"training {precision}: share of {part}", measured)
            note(f"evaluation {precision}, tokens/s", measure.rate(scoring[precision]))
        for rows, work in generation.items():
            note(f"generation, {rows} at once, tokens/s", measure.rate(work))
        for label, values in measure.percentiles(measure.latencies(lambda _: next(one), range(200)), "token").items():
            figures[label] += values
    note("kFLOP a token, forward", flops / 1e3)
    return settings, figures


def evaluation(task: Any, module: Any, valid: Any, chosen: Any, devices: Any, *, seconds: float) -> Callable[[], int]:
    """A function that scores the text from its beginning for about so long, and gives the tokens that it scored."""
    from seqtext.task import predict_all

    def work() -> int:
        tokens, began = 0, time.perf_counter()

        def batches() -> Iterator[Any]:
            nonlocal tokens
            for batch in task.batches(valid, tokens=chosen.train.eval_batch_tokens):
                yield batch
                tokens += int(batch.lengths.sum())
                if time.perf_counter() - began > seconds:
                    return

        with devices.autocast():
            predict_all(task, module, valid, batches(), devices.device)
        return tokens

    return work


def generate(task: Any, module: Any, rows: int) -> Iterator[int]:
    """Draw tokens without end for so many texts at once; the tokens of each step."""
    import torch

    from seqtext.search.sampling import Sampler, Sampling

    decoder = task.decoder(module)
    last = torch.full((rows,), task.eos)
    sampler = Sampler(
        decoder, decoder.start(None), last, settings=Sampling(), generator=torch.Generator().manual_seed(1)
    )
    while True:
        yield len(sampler.draw().tokens)


def reference(
    chosen: Any, task: Any, train: Any, streams: int, *, device: str = "cpu"
) -> tuple[Iterator[int] | None, str]:
    """The usual loop with the sizes of the recipe, and what it is; no loop where it has nothing like the recipe."""
    import reference_lm as usual

    model, encoder, config = chosen.model, chosen.model.encoder, chosen.train
    keys = "cell", "skip", "dilation", "input_depth", "transition_depth", "output_depth"
    plain = all(getattr(encoder, key) == getattr(type(encoder)(), key) for key in keys)
    plain = plain and not set(encoder.cell_options) - {"forget_bias", "output_bias"}
    alike = plain and model.softmax.name == "full"
    if not alike or (model.tied and encoder.sizes[-1] != model.embedding_size):
        return None, "none: it is for plain stacks of LSTMs with a full softmax, without projection"
    data = usual.streams(train.slice(0, train.tokens), streams).to(device)
    vocabulary, size = task.tokenizer.size, model.embedding_size
    lr, clip, window = config.optimizer.lr, config.clip or float("inf"), chosen.data.window
    if not encoder.weight_dropout:
        if len(set(encoder.sizes)) > 1:
            return None, "none: without weight dropout it is for layers of one size"
        plain = usual.PlainModel(
            vocabulary, size, encoder.hidden_size, encoder.layers, dropout=encoder.dropout, tied=model.tied
        )
        return usual.train_plain(plain.to(device), data, window=window, lr=lr, clip=clip), "plain PyTorch, nn.LSTM"
    awd = usual.AwdModel(
        vocabulary,
        size,
        encoder.sizes,
        tied=model.tied,
        embedding_dropout=model.embedding_dropout,
        input_dropout=model.input_dropout,
        hidden_dropout=encoder.dropout,
        output_dropout=model.output_dropout,
        weight_dropout=encoder.weight_dropout,
    )
    alpha, beta, decay = model.activation_regularization, model.temporal_regularization, config.optimizer.weight_decay
    tokens = usual.train_awd(awd.to(device), data, window=window, lr=lr, decay=decay, clip=clip, alpha=alpha, beta=beta)
    return tokens, "plain PyTorch, AWD-LSTM"


def count_flops(task: Any, module: Any, train: Any, chosen: Any) -> float:
    """Forward FLOPs a token in matrix products with weights; the backward pass takes twice as much again.

    Of an adaptive softmax, those of the clusters that some text of the training split needs.
    """
    import operations
    import torch

    from seqtext.nn.softmax import Softmax

    tokens = 0
    with torch.inference_mode(), operations.counted_flops(module) as flops:
        for batch in itertools.islice(task.batches(train, tokens=chosen.train.batch_tokens), 10):
            targets = int(batch.targets.numel())
            module.nll(module(batch.inputs), batch.targets)
            if isinstance(module.softmax, Softmax):  # no linear layer: its product is part of its loss
                flops.append(2 * targets * module.softmax.weight.numel())
            tokens += targets
    return sum(flops) / tokens


def write_corpus(folder: Path, tokens: int) -> Path:
    """Write train and, of two fifths as many tokens, valid as lines of words."""
    folder.mkdir()
    words = min(WORDS, tokens // 4)
    for seed, (split, size) in enumerate({"train": tokens, "valid": 2 * tokens // 5}.items()):
        rng = np.random.default_rng(seed)
        lengths = np.interp(rng.random(size), PTB_SHARES, PTB_LENGTHS).round().astype(int)
        lengths = lengths[: int(np.searchsorted(np.cumsum(lengths + 1), size))]  # with <eos>
        chances = 1.0 / np.arange(1, words + 1)
        drawn = rng.choice(words, size=lengths.sum(), p=chances / chances.sum())
        if split == "train":  # each word once at least, for a vocabulary of a known size
            drawn[:words] = np.arange(words)
            rng.shuffle(drawn)
        lines = np.split(drawn, np.cumsum(lengths)[:-1])
        text = "".join(" ".join(f"w{word}" for word in line) + "\n" for line in lines)
        (folder / f"{split}.txt").write_text(text, encoding="utf-8")
    return folder


if __name__ == "__main__":
    main()
