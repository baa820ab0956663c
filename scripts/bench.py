"""Speed of every task's main recipe: one table a task, without a download.

    python scripts/bench.py [TASK ...] [--device cpu|cuda|auto] [--graphs] [--profile] [--quick] [--repeats 3]
                            [--seconds 1] [--scale 1] [--threads N] [--json FILE]

Tasks are ner, sentiment, lm, translation and tree-sentiment; all, where none is named. Data are seeded and synthetic,
with the lengths and word frequencies of the corpora that the recipes are for; random vectors of the same size stand
for pretrained ones. Figures of one task:

- an epoch of `seqtext train` in a process of its own, for its peak memory; the run that it leaves is what predicts,
- start-up: `seqtext --help`, and `seqtext predict RUN` of one line in a new process, beside `import torch`,
- training by `seqtext.training.loop.fit` from that run's weights, in float32 and in bf16: tokens/s, FLOP/s of the
  products with weights over the machine's rate in large matrix products at that moment, shares of the time in
  recurrent kernels and in matrix products (`measure.shares`),
- prediction by `seqtext.load(RUN)`: all lines together (with FLOP/s of all products that run, padding too, over that
  rate), as a stream, and one at a time; in bf16 too where the task can,
- code of other people beside ours (`compare_outside.py`, `reference_lm.py`), where it is installed: pytorch-crf for
  the tagger, the usual training loop for the language model, and torch's recurrent layers in a table of their own.

Every repeat measures each thing once, so that a change of the machine's load falls on all of them; a figure is the
median over repeats, with the smallest and largest. Ratios within one process are what to compare between machines.
--profile prints instead where the time goes (`profile_parts.py`). --quick is a short look, on a tenth of the data.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import os
import sys
import tempfile
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bench_lm
import compare_outside
import measure
import numpy as np
import profile_parts
from bench_subjects import SUBJECTS, Subject, write_vectors
from measure import Figures

from seqtext.errors import InputError

LATENCIES = 100
"""Lines that are answered one at a time in each repeat, where there are as many."""


@dataclass
class Prepared:
    """A task's data and its run, and what was measured while they were made."""

    subject: Subject
    run: Path
    lines: list[str]
    figures: Figures


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tasks", metavar="TASK", nargs="*", help=f"of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto (default)")
    parser.add_argument("--graphs", action="store_true", help="record what a GPU is asked for (train.graphs = true)")
    parser.add_argument("--profile", action="store_true", help="print where the time goes, instead of speed")
    parser.add_argument("--quick", action="store_true", help="a short look: --repeats 2 --seconds 0.3 --scale 0.1")
    parser.add_argument("--repeats", type=measure.count, help="measurements of each figure (default 3)")
    parser.add_argument("--seconds", type=measure.share, help="of each measurement of training, about (default 1)")
    parser.add_argument("--scale", type=measure.share, help="size of the data, as a share of the usual (default 1)")
    parser.add_argument("--threads", type=measure.count, help="threads of torch; default: what torch chooses")
    parser.add_argument("--json", metavar="FILE", type=measure.new_file, help="also write all figures to this file")
    arguments = parser.parse_args()
    for name, usual, quick in (("repeats", 3, 2), ("seconds", 1.0, 0.3), ("scale", 1.0, 0.1)):
        if getattr(arguments, name) is None:
            setattr(arguments, name, quick if arguments.quick else usual)
    if arguments.threads:  # read by the OpenMP runtime when torch is imported, here and in the processes that follow
        os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="seqtext-bench-") as scratch:
            found = run(arguments, Path(scratch))
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)
    if arguments.json:
        measure.write_json(arguments.json, found)


def run(arguments: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure, print a table a task, and give all figures as a JSON object."""
    names = list(dict.fromkeys(arguments.tasks)) or list(SUBJECTS)
    if unknown := [name for name in names if name not in SUBJECTS]:
        raise InputError(f"{', '.join(unknown)}: no such task; expected {', '.join(SUBJECTS)}")
    from seqtext.training.distributed import resolve_device

    device = str(resolve_device(arguments.device))
    if arguments.graphs and device == "cpu":
        raise InputError("--graphs: only a GPU records what it is asked for, and this is the cpu")
    os.environ["SEQTEXT_CACHE"] = str(scratch / "cache")
    # All of this first, as long as this process is small: see `measure.peak_memory`.
    prepared = {name: prepare(name, arguments, scratch / name, device) for name in names}
    settings = measure.begin(
        {"device": device, "graphs": arguments.graphs, "repeats": arguments.repeats, "scale": arguments.scale}
    )
    found: dict[str, Any] = {"settings": settings, "tasks": {}}
    for name, subject in prepared.items():
        told: dict[str, Any] = {"recipe": subject.subject.recipe}
        if arguments.profile:
            profiles = profile(subject, arguments, device, scratch)
            print(f"\n== {name}: {subject.subject.recipe}")
            profile_parts.report(profiles)
            told["profile"] = {what: measure.summary(shares) for what, shares in profiles.items()}
        else:
            figures = speed(name, subject, arguments, device)
            print(f"\n== {name}: {subject.subject.recipe}")
            measure.report(figures)
            told["figures"] = measure.summary(figures)
        sys.stdout.flush()
        found["tasks"][name] = told
    if not arguments.profile:
        figures = compare_outside.recurrent_layer(repeats=arguments.repeats, device=device)
        layer = compare_outside
        size = f"{layer.BATCH} x {layer.TIME} x {layer.INPUT} -> {layer.HIDDEN}"
        print(f"\n== recurrent layers in both directions, {size}, beside torch's over packed sequences")
        measure.report(figures)
        found["layers"] = measure.summary(figures)
    return found


def prepare(name: str, arguments: argparse.Namespace, folder: Path, device: str) -> Prepared:
    """Write a corpus, train an epoch and start up, each in processes of their own."""
    subject = SUBJECTS[name]
    print(f"{name}: training an epoch...", file=sys.stderr)
    folder.mkdir()
    data, figures = folder / "corpus", defaultdict(list)
    subject.write(data, arguments.scale)
    changes = [
        f"data.source={json.dumps(str(data))}",
        "train.epochs=1",
        f"train.graphs={str(arguments.graphs).lower()}",
    ]
    if subject.vectors:
        changes.append(f"data.words.vectors={json.dumps(str(write_vectors(data, folder / 'vectors.txt')))}")
    lines = subject.lines(data)
    (folder / "lines.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    run, where = str(folder / "run"), ["--device", device]
    command = ["seqtext", "train", subject.recipe, *changes, "--out", run, *where]
    figures["peak memory of training, MB"] = [measure.peak_memory(command, cache=folder / "cache")]
    if not arguments.profile:
        flags = ["--pretokenized"] if subject.options else []
        command = ["seqtext", "predict", run, str(folder / "lines.txt"), *flags, *where]
        figures["peak memory of predicting, MB"] = [measure.peak_memory(command, cache=folder / "cache")]
        for _ in range(arguments.repeats):
            torch = measure.start_up("-c", "import torch")
            cold = measure.start_up("-m", "seqtext", "predict", run, "-", *where, given=lines[0] + "\n")
            figures["start-up of seqtext predict, one line, s"].append(cold)
            figures["start-up of seqtext predict, one line / import torch"].append(cold / torch)
            figures["start-up of seqtext --help, s"].append(measure.start_up("-m", "seqtext", "--help"))
    return Prepared(subject, Path(run), lines, figures)


def speed(name: str, prepared: Prepared, arguments: argparse.Namespace, device: str) -> Figures:
    """All figures of a task."""
    import operations
    import torch

    from seqtext import api
    from seqtext.training.distributed import Devices
    from seqtext.training.loop import fit

    subject, figures = prepared.subject, prepared.figures
    print(f"{name}: measuring...", file=sys.stderr)
    model = api.load(prepared.run, device=device)
    chosen, task = model.run.recipe, model.task
    train = task.encode(task.read(chosen.data, "train"))
    counts = {what: count(train) for what, count in subject.counts.items()}
    flops = subject.flops(copy.deepcopy(model.module).cpu(), task, train, chosen)
    config = chosen.train.model_copy(update={"epochs": 10_000})
    training = {}
    for precision in ("float32", "bf16"):
        torch.manual_seed(chosen.seed)
        devices = Devices(torch.device(device), precision=precision)
        events = fit(task, copy.deepcopy(model.module), train, None, config, devices=devices, seed=chosen.seed)
        training[precision] = measure.lasting(measure.step_tokens(events), seconds=arguments.seconds)
    usual = None
    if name == "lm":
        streams = max(1, chosen.train.batch_tokens // chosen.data.window)
        theirs, _ = bench_lm.reference(chosen, task, train, streams, device=device)
        usual = measure.lasting(theirs, seconds=arguments.seconds) if theirs else None
    models = {"float32": model}
    with suppress(InputError):  # where a task predicts in float32 only
        models["bf16"] = api.load(prepared.run, device=device, precision="bf16")
    words = sum(len(line.split()) for line in prepared.lines)

    def together(one: Any) -> int:
        one.predict(prepared.lines, **subject.options)
        return words

    def streamed(one: Any) -> int:
        for _ in one.stream(iter(prepared.lines), **subject.options):
            pass
        return words

    executed = {}
    for precision, one in models.items():
        together(one), streamed(one)  # warm-up
        executed[precision] = operations.as_run(lambda one=one: together(one))  # type: ignore[misc]

    def note(name: str, value: float) -> None:
        figures[name].append(value)

    answers = min(LATENCIES, len(prepared.lines))
    for repeat in range(arguments.repeats):
        matrix = measure.matrix_rates(device)
        for number in ("float32", "bf16"):
            note(f"{number} matrix products, GFLOP/s", matrix[number] / 1e9)
        plain = measure.rate(usual) if usual else None
        if plain:
            note("training of the usual loop, float32, tokens/s", plain)
        for precision, work in training.items():
            if measure.on_gpu():
                torch.cuda.reset_peak_memory_stats()
            trained = measure.rate(work)
            if measure.on_gpu():
                note(f"peak GPU memory, training {precision}, MB", torch.cuda.max_memory_allocated() / 1e6)
            note(f"training {precision}, tokens/s", trained)
            for what, each in counts.items():
                note(f"training {precision}, {what}/s", each * trained)
            for number in ("float32", "bf16") if precision == "bf16" else ("float32",):
                note(f"training {precision}, FLOP/s / {number} matrix FLOP/s", 3 * flops * trained / matrix[number])
            if plain:
                note(f"training {precision}, ours / the usual loop, float32", trained / plain)
            for part, measured in measure.shares(work).items():
                note(f"training {precision}: share of {part}", measured)
        lines = measure.in_turn(prepared.lines, answers * repeat, answers)
        for precision, one in models.items():

            def answer(line: str, one: Any = one) -> None:
                one.predict([line], **subject.options)

            label = "predicting" if precision == "float32" else f"predicting {precision}"
            bulk = measure.rate(lambda one=one: together(one))  # type: ignore[misc]
            times = measure.latencies(answer, lines)
            alone = sum(len(line.split()) for line in lines) / sum(times)
            note(f"{label}, together / one at a time", bulk / alone)
            note(f"{label}, tokens/s", bulk)
            for number in ("float32", "bf16") if precision == "bf16" else ("float32",):
                ratio = executed[precision] * bulk / matrix[number]
                note(f"{label}, FLOP/s with padding / {number} matrix FLOP/s", ratio)
            note(f"{label}, lines/s", bulk * len(prepared.lines) / words)
            note(f"{label}, as a stream, tokens/s", measure.rate(lambda one=one: streamed(one)))  # type: ignore[misc]
            for what, values in measure.percentiles(times, "line").items():
                figures[f"{label}, {what}"] += values
            for part, measured in measure.shares(lambda one=one: together(one)).items():  # type: ignore[misc]
                note(f"{label}: share of {part}", measured)
        if name == "ner":
            cut = task.batches(train, tokens=chosen.train.batch_tokens, shuffle=np.random.default_rng(0))
            size = " x ".join(map(str, compare_outside.CRF_SIZE))
            for where, batches, labels, rounds in (
                ("the recipe's batches", itertools.islice(cut, 10), len(task.labels.names), 5),
                (size, compare_outside.large_batch(), compare_outside.CRF_SIZE[-1], 30),
            ):
                beside = compare_outside.against_pytorch_crf(batches, labels, device=device, rounds=rounds)
                for what, measured in beside.items():
                    note(f"{where}, {what}", measured)
    note("training, kFLOP a token, forward", flops / 1e3)
    return figures


def profile(prepared: Prepared, arguments: argparse.Namespace, device: str, scratch: Path) -> dict[str, Figures]:
    """Where the time of training goes, in both number formats, and that of prediction."""
    import torch

    from seqtext import api
    from seqtext.training.distributed import Devices

    model = api.load(prepared.run, device=device)
    chosen, task = model.run.recipe, model.task
    train = task.encode(task.read(chosen.data, "train"))
    profiles = {}
    for precision in ("float32", "bf16"):
        devices = Devices(torch.device(device), precision=precision)
        module = copy.deepcopy(model.module)
        profiles[f"training {precision}"] = profile_parts.training(
            chosen,
            task,
            module,
            train,
            devices,
            seconds=arguments.seconds,
            repeats=arguments.repeats,
            scratch=prepared.run.parent / precision,
        )
    predicted = profile_parts.prediction(model, prepared.lines, repeats=arguments.repeats, **prepared.subject.options)
    return profiles | {"prediction": predicted}


if __name__ == "__main__":
    main()
