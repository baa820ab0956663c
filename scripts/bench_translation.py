"""Speed of a translator: target tokens per second of training, sentences per second and latency of translation.

    python scripts/bench_translation.py [--data DIR] [--recipe translation-multi30k] [--small] [--set KEY=VALUE]
        [--repeats 5] [--threads N] [--precision float32|bf16|both] [--warmup 200 | --run RUN] [--json FILE] [--peak]

Training is `seqtext.training.loop.fit` itself, translation what `seqtext.load(run)` does, from text to text: greedily
and with a beam of 5, all lines of the test split together, and one at a time. What is translated with was trained for
--warmup steps, so that it ends its sentences about where the references do; or it is a finished run, by --run. How long
the translations come out is among the figures. Every repeat measures each thing once; a figure is the median over
repeats, with the smallest and largest. Ratios within one process say more than rates.

--small sets the sizes that small recurrent systems were measured with: embeddings of 256, a bidirectional LSTM of 256,
an LSTM of 512 with attention, 7,000 joint pieces, batches of about 64 sentences. On two cores, JoeyNMT trained such at
2,300 target tokens/s and translated 237 sentences/s greedily and 111 with a beam of 5; OpenNMT-py 6,300, 1,000 and 294.

Without --data the text is synthetic: words of Zipf's frequencies in lines as long as Multi30k's, and each word's
counterpart in the other language, neighbours now and then exchanged.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import measure
import numpy as np
from measure import Figures

from seqtext.errors import InputError

SMALL = [
    "data.joint=true",
    'data.tokenizer={unit="bpe", max_size=7000, byte_fallback=true}',
    "model.embedding_size=256",
    'model.encoder={cell="lstm", hidden_size=256}',
    'model.decoder={cell="lstm", hidden_size=512}',
    "train.batch_tokens=1024",
]
SIZES = {"train": 29_000, "valid": 1014, "test": 1000}
WORDS = 7_500
# Words a line of Multi30k's English training text: the length at each share of its lines.
SHARES = (0, 0.007, 0.03, 0.09, 0.18, 0.29, 0.41, 0.52, 0.62, 0.71, 0.79, 0.84, 0.89, 0.94, 0.97, 0.99, 0.999, 1)
LENGTHS = (3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 23, 29, 37)
BEAMS = {"greedy": 1, "beam 5": 5}
LATENCIES = 100
"""Sentences that are translated one at a time in each repeat, where there are as many."""


def main() -> None:
    parser = measure.options(__doc__, recipe="translation-multi30k", data="a folder with train, valid and test files")
    parser.add_argument("--small", action="store_true", help="the sizes of small published systems (see above)")
    parser.add_argument("--precision", choices=("float32", "bf16", "both"), default="float32", help="of training")
    parser.add_argument("--warmup", type=measure.count, default=200, help="steps trained first (default 200)")
    parser.add_argument("--run", metavar="RUN", help="a finished run to translate with, instead")
    parser.add_argument("--sentences", type=measure.count, default=1000, help="translated at a time (default 1000)")
    measure.main(run, parser.parse_args())


def run(arguments: argparse.Namespace, scratch: Path) -> tuple[dict[str, Any], Figures]:
    data = Path(arguments.data) if arguments.data else write_corpus(scratch / "corpus")
    changes = [*(SMALL if arguments.small else []), *arguments.set]
    changes.append(f"data.source={json.dumps(str(data.absolute()))}")
    figures: Figures = defaultdict(list)
    if arguments.peak:  # first: see `peak_memory`
        print("training an epoch for its memory...", file=sys.stderr)
        command = ["seqtext", "train", arguments.recipe, *changes, "train.epochs=1", "--out", str(scratch / "run")]
        figures["peak memory of training, MB"] = [measure.peak_memory(command, cache=scratch / "cache-peak")]

    import torch

    from seqtext import api, recipe, session
    from seqtext.run import Run
    from seqtext.training.distributed import Devices
    from seqtext.training.loop import fit

    chosen = recipe.load(arguments.recipe, changes)
    if chosen.task.name != "translation":
        raise InputError(
            f"--recipe {arguments.recipe}: this measures translators; the recipe's task is {chosen.task.name}"
        )
    splits = session.read_splits(chosen)
    if "test" not in splits:
        raise InputError(f"--data {data}: no test split; translation is measured on it")
    task: Any = chosen.task.fit(chosen.data, splits["train"])
    train = task.encode(splits["train"])
    test = splits["test"].select(range(min(arguments.sentences, len(splits["test"]))))
    lines = list(test["source"])
    torch.manual_seed(chosen.seed)
    model = chosen.model
    settings = measure.begin(
        {
            "recipe": chosen.name + (" with --small" if arguments.small else ""),
            "data": str(data) if arguments.data else "synthetic, after Multi30k",
            "sentences": {"train": len(train), "test": len(test)},
            "tokens a sentence": [round(float(side.lengths.mean()), 2) for side in (train.source, train.target)],
            "vocabulary": [task.source.size, task.target.size],
            "encoder": f"{model.encoder.cell} {model.encoder.sizes}, both directions: {model.encoder.bidirectional}",
            "decoder": f"{model.decoder.cell} {model.decoder.sizes}, {context(model.decoder)}",
            "batch tokens": [chosen.train.batch_tokens, chosen.train.eval_batch_tokens],
            "translated with": arguments.run or f"what {arguments.warmup} steps of training made",
            "repeats": arguments.repeats,
        }
    )

    config = chosen.train.model_copy(update={"epochs": 10_000})
    module = task.build(model)
    flops, batch_size = count_flops(module, task, train, chosen)
    precisions = ("float32", "bf16") if arguments.precision == "both" else (arguments.precision,)
    training = {}
    for precision in precisions:
        first = precision == precisions[0]  # the one to translate with
        devices, counted = Devices(torch.device("cpu"), precision=precision), Counted(task)
        trained: Any = module if first else task.build(model)
        steps = counted.steps(fit(counted, trained, train, None, config, devices=devices, seed=chosen.seed))
        for _ in itertools.islice(steps, arguments.warmup if first else 5):
            pass
        training[precision] = measure.chunk(steps, steps=30)
    kept = copy.deepcopy(module).eval()  # as it is now: training goes on, and its translations would change
    frozen = {"": kept, " in bf16": copy.deepcopy(kept).to(torch.bfloat16)}
    run = Run(scratch, chosen, task, {})
    translators = {name: api.Model(run, one, torch.device("cpu")) for name, one in frozen.items()}
    if arguments.run:
        numbers = {"": "float32", " in bf16": "bf16"}
        translators = {name: api.load(arguments.run, device="cpu", precision=numbers[name]) for name in translators}

    def tokens(texts: Iterable[str]) -> int:
        return sum(len(task.target.encode(text).ids) + 1 for text in texts)

    wanted = tokens(test["target"])

    def translate(translator: api.Model, beam: int) -> Callable[[], int]:
        def work() -> int:
            translator.predict(lines, beam=beam)
            return len(lines)

        return work

    ways = {search + numbers: (translators[numbers], beam) for search, beam in BEAMS.items() for numbers in translators}
    work = {name: translate(*way) for name, way in ways.items()}

    def note(name: str, value: float) -> None:
        figures[name].append(value)

    answers = min(LATENCIES, len(lines))
    for repeat in range(arguments.repeats):
        for precision in precisions:
            matrix = measure.matrix_rates()
            rate = measure.rate(training[precision])
            kernel = "torch.mm" if precision == "float32" else "bf16"
            note(f"{kernel} matrix products, GFLOP/s", matrix[kernel] / 1e9)
            note(f"training {precision}, target tokens/s", rate)
            note(f"training {precision}, GFLOP/s", 3 * flops * rate / 1e9)
            note(f"training {precision}, FLOP/s / matrix FLOP/s", 3 * flops * rate / matrix[kernel])
            for part, measured in measure.shares(training[precision]).items():
                note(f"training {precision}: share of {part}", measured)
        for name, (translator, beam) in ways.items():
            # First what is not timed: the machine is measured as a user meets it in bulk, with memory at hand.
            found = tokens(prediction.text for prediction in translator.predict(lines, beam=beam))
            note(f"{name}, tokens / those of the references", found / wanted)
            note(f"{name}, sentences/s", measure.rate(work[name]))
            for part, measured in measure.shares(work[name]).items():
                note(f"{name}: share of {part}", measured)
            one = partial(translate_one, translator, beam)
            times = measure.latencies(one, measure.in_turn(lines, answers * repeat, answers))
            for label, values in measure.percentiles(times, "sentence").items():
                figures[f"{name}, {label}"] += values
    note("kFLOP a target token, forward", flops / 1e3)
    note("sentences a batch", batch_size)
    return settings, figures


def context(decoder: Any) -> str:
    """How it knows the source."""
    if decoder.context != "attention":
        return str(decoder.context)
    return f"attention {decoder.attention.name}" + (", input feeding" if decoder.input_feeding else "")


class Counted:
    """A task, with the targets of its losses counted."""

    def __init__(self, task: Any) -> None:
        self.task, self.targets = task, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def loss(self, module: Any, batch: Any, carry: Any = None) -> Any:
        found = self.task.loss(module, batch, carry)
        self.targets += int(found.count)
        return found

    def steps(self, events: Iterator[Any]) -> Iterator[int]:
        """Target tokens of one step after another."""
        from seqtext.training.loop import Stepped

        for event in events:
            if isinstance(event, Stepped):
                before, self.targets = self.targets, 0
                yield before


def translate_one(translator: Any, beam: int, line: str) -> None:
    translator.predict([line], beam=beam)


def count_flops(module: Any, task: Any, train: Any, chosen: Any) -> tuple[float, float]:
    """Forward FLOPs a target token in matrix products with weights (2 a weight and row), and sentences a batch.

    Positions of padding count for nothing, since no result needs them, nor do attention's products of states with
    states, which are few; the backward pass takes twice as much again.
    """
    import operations
    import torch

    counts: Counter[str] = Counter()
    real = 0

    def rows(x: torch.Tensor) -> int:
        return real if x.dim() == 3 else x.size(0)

    shuffle = np.random.default_rng(chosen.seed)
    module.eval()
    # With gradients: without them, other kernels take some products.
    with operations.counted_flops(module, rows) as flops:
        for batch in itertools.islice(task.batches(train, tokens=chosen.train.batch_tokens, shuffle=shuffle), 20):
            targets = int((batch.targets >= 0).sum())
            real = int(batch.lengths.sum())
            memory = module.encode(batch.source, batch.lengths)
            real = targets
            # Where training goes step by step, one step stands for all.
            inputs = batch.inputs[:, :1] if module.decoder.steps else batch.inputs
            module.decoder(module.target_embedding(inputs), memory)
            flops.append(2 * targets * module.softmax.weight.numel())  # no linear layer: part of its loss
            counts["targets"] += targets
            counts["sentences"] += len(batch.rows)
            counts["batches"] += 1
    return sum(flops) / counts["targets"], counts["sentences"] / counts["batches"]


def write_corpus(folder: Path, sizes: Mapping[str, int] = SIZES) -> Path:
    """Write train, valid and test as parallel files, of Multi30k's sizes or of `sizes`."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    words = {language: coined(rng, WORDS) for language in ("en", "de")}
    chances = 1.0 / np.arange(1, WORDS + 1)
    chances /= chances.sum()
    for split, size in sizes.items():
        lengths = np.interp(rng.random(size), SHARES, LENGTHS).round().astype(int)
        lines: dict[str, list[str]] = {"en": [], "de": []}
        for length in lengths.tolist():
            drawn = rng.choice(WORDS, size=length, p=chances).tolist()
            turned = drawn[:]
            for place in range(0, length - 1, 2):
                if rng.random() < 0.3:
                    turned[place], turned[place + 1] = turned[place + 1], turned[place]
            for language, order in (("en", drawn), ("de", turned)):
                lines[language].append(" ".join(words[language][word] for word in order))
        for language, text in lines.items():
            (folder / f"{split}.{language}").write_text("".join(f"{line}\n" for line in text), encoding="utf-8")
    return folder


def coined(rng: np.random.Generator, count: int) -> list[str]:
    """So many different words, the first ones short, as frequent words are."""
    found: dict[str, None] = {}
    while len(found) < count:
        syllables = 1 + int(rng.integers(0, 1 + min(3, len(found) // 60)))
        parts = rng.integers(0, 14 * 5, size=syllables).tolist()
        ending = "nrst"[int(rng.integers(4))]
        found["".join("bdfgklmnprstvz"[part // 5] + "aeiou"[part % 5] for part in parts) + ending] = None
    return list(found)


if __name__ == "__main__":
    main()
