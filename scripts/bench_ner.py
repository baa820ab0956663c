"""Speed of a tagging recipe: tokens per second of training and tagging, where the time goes, latency, peak memory.

    python scripts/bench_ner.py [--data DIR] [--recipe ner-conll2003] [--repeats 5] [--threads N] [--json FILE] [--peak]

Training is `seqtext.training.loop.fit` itself, tagging what `seqtext.load(run)` does. Every repeat measures each thing
once, so that a change of the machine's load falls on all of them; a figure is the median over repeats, with the
smallest and largest. Ratios within one process say more than rates on a machine that others use too.

Without --data the corpus is synthetic: the words of the embedded sample and coined rare ones, laid out with the sizes,
sentence lengths and vocabulary of CoNLL-2003.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import measure
import numpy as np
from compare_outside import against_pytorch_crf
from measure import Figures

from seqtext.errors import InputError

if TYPE_CHECKING:
    from seqtext.data.sample_words import Split

CONLL_SIZES: dict[Split, int] = {"train": 14041, "valid": 3250, "test": 3453}
# Sentence lengths of CoNLL-2003's training text: the length at each share of its sentences.
CONLL_SHARES = (0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 0.95, 0.99, 0.995, 1)
CONLL_LENGTHS = (1, 2, 3, 5, 7, 8, 10, 13, 19, 22, 26, 32, 37, 46, 49, 113)
COINED = 0.12
"""Share of tokens replaced by coined words, which brings the sample's vocabulary to CoNLL-2003's size."""


def main() -> None:
    parser = measure.options(__doc__, recipe="ner-conll2003", data="a folder with train, valid and test files")
    parser.add_argument(
        "--sentences", type=measure.count, help="use only this many training sentences, and of others a fifth"
    )
    measure.main(run, parser.parse_args())


def run(arguments: argparse.Namespace, scratch: Path) -> tuple[dict[str, Any], Figures]:
    data = Path(arguments.data) if arguments.data else write_corpus(scratch / "corpus", arguments.sentences)
    changes = [*arguments.set, f"data.source={json.dumps(str(data.absolute()))}"]
    figures: Figures = defaultdict(list)
    if arguments.peak:  # first: see `peak_memory`
        print("training an epoch for its memory...", file=sys.stderr)
        command = ["seqtext", "train", arguments.recipe, *changes, "train.epochs=1", "--out", str(scratch / "run")]
        figures["peak memory of training, MB"] = [measure.peak_memory(command, cache=scratch / "cache-peak")]

    import operations
    import torch

    from seqtext import api, recipe, session
    from seqtext.run import Run
    from seqtext.training.distributed import Devices
    from seqtext.training.loop import fit

    chosen = recipe.load(arguments.recipe, changes)
    if chosen.task.name != "ner":
        raise InputError(f"--recipe {arguments.recipe}: this measures taggers; the recipe's task is {chosen.task.name}")
    splits = session.read_splits(chosen)
    if "test" not in splits:
        raise InputError(f"--data {data}: no test split; tagging is measured on it")
    if arguments.data and arguments.sentences:
        sizes = {split: max(1, arguments.sentences // (1 if split == "train" else 5)) for split in splits}
        splits = {split: part.select(range(min(sizes[split], len(part)))) for split, part in splits.items()}
    task = chosen.task.fit(chosen.data, splits["train"])
    train = task.encode(splits["train"])
    torch.manual_seed(chosen.seed)
    settings: dict[str, Any] = {
        "recipe": chosen.name,
        "data": str(data) if arguments.data else "synthetic, after CoNLL-2003",
        "sentences": {split: len(part) for split, part in splits.items()},
        "train tokens": int(train.text.lengths.sum()),
        "vocabulary": task.lexicon.words.size,
        "labels": len(task.labels.names),
        "batch tokens": [chosen.train.batch_tokens, chosen.train.eval_batch_tokens],
        "repeats": arguments.repeats,
    }
    settings = measure.begin(settings)

    # Two trainings from the same start: one timed an epoch at a time, one taken apart a few steps at a time.
    config = chosen.train.model_copy(update={"epochs": 10_000})
    devices = Devices(torch.device("cpu"), precision=chosen.train.precision)
    module = task.build(chosen.model)
    flops, padding = operations.forward_flops(module, task, module, train, chosen)
    whole = measure.epochs(fit(task, module, train, None, config, devices=devices, seed=chosen.seed))
    parts = fit(task, task.build(chosen.model), train, None, config, devices=devices, seed=chosen.seed)
    chunk = measure.chunk(measure.step_tokens(parts), steps=30)
    # The tagger has the weights of that training, whatever they are by then: so its sentences have entities.
    tagger = api.Model(Run(scratch, chosen, task, {}), module, devices.device)
    test = splits["test"]
    tokens = int(task.encode(test).text.lengths.sum())
    lines = [" ".join(words) for words in test["tokens"]]

    def tag_dataset() -> int:
        tagger.predict_encoded(task.encode(test))
        return tokens

    def tag_lines() -> int:
        for _ in tagger.stream(iter(lines), pretokenized=True):
            pass
        return tokens

    def tag_line(line: str) -> None:
        tagger.predict([line], pretokenized=True)

    caches = itertools.count()

    def tag_file() -> int:
        # A cache of its own for each time, so that the file is read and not its cached copy.
        os.environ["SEQTEXT_CACHE"] = str(scratch / f"cache-{next(caches)}")
        read = task.read(chosen.data, "test")
        tagger.predict_encoded(task.encode(read))
        return sum(map(len, read["tokens"]))

    next(whole), chunk(), tag_dataset(), tag_lines(), tag_file()  # warm-up

    def note(name: str, value: float) -> None:
        figures[name].append(value)

    for repeat in range(arguments.repeats):
        matrix = measure.matrix_rates()["torch.mm"]
        trained = next(whole)
        matrix = (matrix + measure.matrix_rates()["torch.mm"]) / 2
        note("training tokens/s", trained)
        note("float32 matrix products GFLOP/s", matrix / 1e9)
        note("training FLOP/s, GFLOP/s", 3 * flops * trained / 1e9)
        note("training FLOP/s / matrix FLOP/s", 3 * flops * trained / matrix)
        for name, measured in measure.shares(chunk).items():
            note(f"training: share of {name}", measured)
        note("tagging tokens/s", measure.rate(tag_dataset))
        note("tagging tokens/s, reading the file too", measure.rate(tag_file))
        note("tagging tokens/s, from lines of text", measure.rate(tag_lines))
        for name, measured in measure.shares(tag_dataset).items():
            note(f"tagging: share of {name}", measured)
        times = measure.latencies(tag_line, measure.in_turn(lines, 200 * repeat, 200))
        for name, values in measure.percentiles(times, "sentence").items():
            figures[name] += values
        batches = task.batches(train, tokens=chosen.train.batch_tokens, shuffle=np.random.default_rng(0))
        for name, measured in against_pytorch_crf(itertools.islice(batches, 20), len(task.labels.names)).items():
            note(name, measured)
    counted = {"training kFLOP a token, forward": flops / 1e3, "padding share of training positions": padding}
    for name, measured in counted.items():
        note(name, measured)
    return settings, figures


def write_corpus(folder: Path, sentences: int | None) -> Path:
    """Write train, valid and test as CoNLL files (word, tag) of CoNLL-2003's sizes, or of `sentences` and a fifth."""
    from seqtext.data.samples import ner_sample

    folder.mkdir()
    for split, size in CONLL_SIZES.items():
        if sentences is not None:
            size = max(1, sentences // (1 if split == "train" else 5))
        rng = random.Random(split)
        lengths = np.interp((np.arange(size) + 0.5) / size, CONLL_SHARES, CONLL_LENGTHS).round().astype(int).tolist()
        rng.shuffle(lengths)
        pairs = (pair for tokens, tags in ner_sample(split, size=10**9) for pair in zip(tokens, tags))
        with (folder / f"{split}.conll").open("w", encoding="utf-8") as file:
            for length in lengths:
                for place, (token, tag) in enumerate(itertools.islice(pairs, length)):
                    if place == 0:  # a cut may fall within an entity
                        tag = tag.replace("I-", "B-")
                    file.write(f"{coin(token, rng)} {tag}\n")
                file.write("\n")
    return folder


def coin(token: str, rng: random.Random) -> str:
    """The token, or now and then a made-up word in its place: most of them rare, a few less so."""
    if rng.random() >= COINED or not token.isalpha():
        return token
    number, word = int(40_000 * rng.random() ** 1.5), ""
    while number or not word:
        number, part = divmod(number, 70)
        word += "bdfgklmnprstvz"[part // 5] + "aeiou"[part % 5]
    return word.capitalize() if token[0].isupper() else word


if __name__ == "__main__":
    main()
