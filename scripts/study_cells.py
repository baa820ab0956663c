"""The study of cells: every variant with the same number of recurrent weights, on six jobs, some seeds each.

    python scripts/study_cells.py --data-ner DIR --data-ptb DIR --data-sst DIR --processes 2 --out study
    python scripts/study_cells.py --out study --table > table.md
    python scripts/study_cells.py --data-ner DIR --data-ptb DIR --data-sst DIR --out study --speed

A run is one process with one thread, of a recipe of recipes/study-cells; the hidden size of a variant is the one that
brings the weights of its recurrent layers nearest to those of the recipe's own. Figures are appended to
OUT/figures.jsonl, a line a run, as they come; called again, the script runs what is not there yet, so it can be stopped
at any time. What was recorded counts as long as the recipe and the variant are what they were; the commit of every
line is kept, and the table names them. Speed is that of a step of training (forward and backward), measured in turns
with the recipe's own layer on the same batches in the same process, in the runs of the first seed; `--speed` measures
it anew, with the code of today, for the runs that are there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from study_table import show
from study_variants import BASE, VARIANTS

ROOT = Path(__file__).parent.parent


class Job(NamedTuple):
    """A recipe of the study, and the figure that counts."""

    key: str
    """Of the scores on the test split."""
    mode: str
    """Which way is better: max or min."""
    scale: float
    """What the figure is multiplied by in tables."""
    what: str
    data: str | None = None
    """The flag that names its corpus."""


JOBS = {
    "tagging": Job("f1", "max", 100.0, "F1, CoNLL-2003", "data_ner"),
    "words": Job("perplexity", "min", 1.0, "perplexity, PTB", "data_ptb"),
    "sentences": Job("accuracy", "max", 100.0, "accuracy, SST", "data_sst"),
    "adding": Job("mse", "min", 1000.0, "squared error x 1000"),
    "copy": Job("accuracy", "max", 100.0, "symbols right"),
    "brackets": Job("far_accuracy", "max", 100.0, "right, 20 steps on"),
}
BATCHES, ROUNDS = 4, 5
"""Batches of a timing, and how often it is taken, in turns."""


class Plan(NamedTuple):
    """A run that is to be made."""

    job: str
    variant: str
    seed: int
    settings: str
    """Digest of the recipe and the variant."""
    data: str | None

    @property
    def key(self) -> tuple[str, str, int, str]:
        return self.job, self.variant, self.seed, self.settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), metavar="JOB", help=f"{', '.join(JOBS)}")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, metavar="VARIANT", help="; ".join(VARIANTS))
    parser.add_argument("--seeds", type=int, default=3, help="seeds of each, from 1 (default 3)")
    parser.add_argument("--out", type=Path, default=Path("study-cells"), help="where figures are kept")
    parser.add_argument("--processes", type=int, default=1, help="runs at a time")
    for job in JOBS.values():
        if job.data:
            parser.add_argument(f"--{job.data.replace('_', '-')}", metavar="DIR", help=f"corpus of {job.what}")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="change all recipes (for a short try)"
    )
    parser.add_argument("--table", action="store_true", help="print the tables of what is there, and run nothing")
    parser.add_argument("--speed", action="store_true", help="measure the speed of what is there anew, and run nothing")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    from seqtext.errors import InputError

    try:
        failed = study(parser, given)
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
    if failed:
        sys.exit(f"{len(failed)} runs failed: {', '.join(failed)}")


def study(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[str]:
    """What the arguments ask for; the names of the runs that failed."""
    if given.one:
        print(json.dumps(one(Plan(**json.loads(given.one)), given.set, timed_only=given.speed)))
        return []
    if given.seeds < 1 or given.processes < 1:
        parser.error("--seeds and --processes: expected 1 or more")
    for job in JOBS.values():
        data = getattr(given, job.data) if job.data else None
        if data and not Path(data).exists():
            parser.error(f"--{str(job.data).replace('_', '-')} {data}: no such file or folder")
    plans = planned(parser, given)
    path = given.out / "figures.jsonl"
    if (given.table or given.speed) and not path.exists():
        parser.error(f"{path}: no such file; no run has been recorded there")
    there = recorded(path)
    failed = []
    if given.table:
        tell_others(path, there, plans, given.set)
    elif given.speed:
        timed = [plan for plan in plans if "speed" in there.get(plan.key, {})]
        print(f"{len(timed)} runs to time", file=sys.stderr)
        failed = run_all(timed, path, given.processes, given.set, there)
        there = recorded(path)
    else:
        missing = [plan for plan in plans if plan.key not in there]
        print(f"{len(plans)} runs, {len(plans) - len(missing)} of them are there", file=sys.stderr)
        failed = run_all(missing, path, given.processes, given.set)
        there = recorded(path)
    show([there[plan.key] for plan in plans if plan.key in there], JOBS, list(VARIANTS))
    return failed


def planned(parser: argparse.ArgumentParser, given: argparse.Namespace) -> list[Plan]:
    """All runs of the study, seed by seed, so that a study that is not at its end has something of everything.

    A variant of what these cells do not have is left out with a word. Raises `ConfigError` for a change of the recipes
    that one of them cannot have.
    """
    from seqtext.config import override, read_toml
    from seqtext.errors import ConfigError
    from seqtext.recipe import check, load
    from seqtext.shelf import find

    plans: dict[int, list[Plan]] = {seed: [] for seed in range(1, given.seeds + 1)}
    told = set()
    for job in given.jobs:
        data = getattr(given, JOBS[job].data) if JOBS[job].data else None
        if JOBS[job].data and not data and not given.table:
            print(f"left out: {job} (no --{JOBS[job].data.replace('_', '-')})", file=sys.stderr)
            continue
        name = f"study-cells/{job}"
        table = override(read_toml(find(name)), given.set, source="--set")
        check(table, name=name, source=f"{find(name)}{', with --set' if given.set else ''}")
        table = {key: table[key] for key in ("data", "model", "train")}
        for variant in given.variants or VARIANTS:
            try:
                load(name, {"model.encoder": encoder(table["model"]["encoder"], variant)})
            except ConfigError as error:
                if variant not in told:
                    print(f"left out: {variant} ({error.faults[0]})", file=sys.stderr)
                    told.add(variant)
                continue
            text = json.dumps([table, VARIANTS[variant]], sort_keys=True)
            settings = hashlib.sha256(text.encode()).hexdigest()[:12]
            for seed, those in plans.items():
                those.append(Plan(job, variant, seed, settings, str(Path(data).absolute()) if data else None))
    found = [plan for those in plans.values() for plan in those]
    if not found:
        parser.error("nothing to run: name the corpora (--data-ner, --data-ptb, --data-sst) or other --jobs")
    return found


def encoder(table: Mapping[str, Any], variant: str, hidden_size: int | None = None) -> dict[str, Any]:
    """[model.encoder] of a recipe as a variant has it."""
    changes = dict(VARIANTS[variant])
    changes.pop("multiple", None)
    cell, options = changes.pop("cell"), changes.pop("options", {})
    name = "name" if "name" in table else "cell"
    result = {**table, name: cell, "cell_options": options, **changes}
    return result if hidden_size is None else {**result, "hidden_size": hidden_size}


def recorded(path: Path) -> dict[tuple[str, str, int, str], dict[str, Any]]:
    """The lines of a file of figures, by their keys; one that a stop has cut is left out."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        found[row["job"], row["variant"], row["seed"], row["settings"]] = row
    return found


def tell_others(path: Path, there: Mapping[Any, Any], plans: Sequence[Plan], changes: Sequence[str]) -> None:
    """Say which runs of these jobs and variants are in the file with other settings, and how to see them."""
    known = {plan.key for plan in plans}
    wanted = {(plan.job, plan.variant, plan.seed) for plan in plans}
    others = [row for key, row in there.items() if key[:3] in wanted and key not in known]
    for used, count in Counter(tuple(row["set"]) if "set" in row else None for row in others).items():
        jobs = dict.fromkeys(row["job"] for row in others if tuple(row.get("set", ())) == used)
        how = "of recipes or variants that have changed since"
        if used is None:
            how += ", or with a --set of then"
        elif used != tuple(changes):
            how = f"shown by --jobs {' '.join(jobs)} --set {' '.join(used)}" if used else "shown without --set"
        print(f"{path}: {count} runs with other settings are not in the tables: {how}", file=sys.stderr)


def run_all(
    plans: Sequence[Plan],
    path: Path,
    processes: int,
    changes: Sequence[str],
    timed: Mapping[Any, dict[str, Any]] | None = None,
) -> list[str]:
    """Run these, several at a time, and append a line for each; the names of those that failed.

    Of `timed`, lines that are there, only the speed is made anew.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    lock, failed, done = Lock(), [], []
    began = time.monotonic()

    def run(plan: Plan) -> None:
        command = [sys.executable, __file__, "--one", json.dumps(plan._asdict())]
        command += ["--set", *changes] if changes else []
        command += ["--speed"] if timed else []
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        with lock:
            name = f"{plan.job}, {plan.variant}, seed {plan.seed}"
            if ended.returncode == 130:  # stopped, as this process is
                return
            if ended.returncode:
                failed.append(name)
                print(f"failed: {name}\n{ended.stderr[-2000:]}", file=sys.stderr, flush=True)
                return
            row = json.loads(ended.stdout.splitlines()[-1])
            row |= {"speed_commit": commit.strip()} if "speed" in row else {}
            row = timed[plan.key] | row if timed else row | {"commit": commit.strip()}
            with path.open("a+b") as file:
                whole = not file.tell() or (file.seek(-1, os.SEEK_END), file.read())[1] == b"\n"
                file.write((b"" if whole else b"\n") + json.dumps(row).encode() + b"\n")  # after a line that a stop cut
            done.append(plan)
            left = (time.monotonic() - began) / len(done) * (len(plans) - len(done) - len(failed)) / 60
            if timed:
                told = f"{row['speed']:.2f} of {BASE}'s tokens/s"
            else:
                told = row.get("failed") or f"{JOBS[plan.job].key} {row['test'][JOBS[plan.job].key]:.4f}"
                told += f", {row['seconds']:.0f} s"
            print(f"{name}: {told}; left {left:.0f} min", file=sys.stderr, flush=True)

    with ThreadPoolExecutor(processes) as pool:
        try:
            for future in [pool.submit(run, plan) for plan in plans]:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return failed


def one(plan: Plan, changes: Sequence[str], *, timed_only: bool = False) -> dict[str, Any]:
    """The figures of one run, in this process; or none but its speed."""
    import torch

    import seqtext
    from seqtext import session
    from seqtext.config import override, read_toml, to_toml
    from seqtext.recipe import choose
    from seqtext.shelf import find
    from seqtext.training.precision import processor
    from seqtext.training.progress import NonFiniteLoss

    torch.set_num_threads(1)
    began = time.perf_counter()
    table = override(read_toml(find(f"study-cells/{plan.job}")), changes, source="--set")
    own = table["model"]["encoder"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"

        def written(layer: Mapping[str, Any]) -> Any:
            path.write_text(to_toml({**table, "model": {**table["model"], "encoder": layer}}), encoding="utf-8")
            return choose(str(path), data=plan.data, seed=plan.seed)

        base = written(own)
        train = session.read_splits(base)["train"]
        task = base.task.fit(base.data, train)
        modules = {BASE: task.build(base.model)}
        budget, inputs = weights(modules[BASE])
        size = sized(base, own, plan.variant, budget, inputs)
        modules["variant"] = task.build(written(encoder(own, plan.variant, size)).model)
        row: dict[str, Any] = {**plan._asdict(), "set": list(changes), "hidden_size": size, "budget": budget}
        del row["data"]
        row["weights"] = weights(modules["variant"])[0]
        if plan.seed == 1:  # the seed changes nothing of it, and it takes its time
            row["speed"] = speed(task, modules, task.encode(train), base.train.batch_tokens)
            row["machine"] = processor()
        if timed_only:
            return {key: row[key] for key in ("speed", "machine")}
        out = Path(folder) / "run"
        try:
            run = seqtext.train(str(path), data=plan.data, seed=plan.seed, out=out, device="cpu")
            row |= run.meta["scores"]
            lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
            rates = [line["tokens_per_second"] for line in lines if line["kind"] == "epoch"]
            row["tokens_per_second"] = statistics.median(rates)
        except NonFiniteLoss as error:
            row["failed"] = str(error).partition(";")[0]
    return row | {"seconds": round(time.perf_counter() - began, 1)}


def weights(module: Any) -> tuple[int, int]:
    """How many weights the recurrent layers of a module have, and how many features they read."""
    from seqtext.nn.rnn import Recurrent

    (stack,) = (part for part in module.modules() if isinstance(part, Recurrent))
    return sum(parameter.numel() for parameter in stack.parameters()), stack.layers[0][0].input_size


def sized(base: Any, table: Mapping[str, Any], variant: str, budget: int, inputs: int) -> int:
    """The hidden size at which a variant has nearest to `budget` recurrent weights, by bisection."""
    import torch

    from seqtext.nn.rnn import Recurrent

    multiple = VARIANTS[variant].get("multiple", 1)
    schema = type(base.model.encoder)

    def count(steps: int) -> int:
        config = schema.model_validate(encoder(table, variant, steps * multiple))
        with torch.device("meta"):
            return sum(parameter.numel() for parameter in Recurrent(inputs, config).parameters())

    high = 1
    while count(high) < budget:
        high *= 2
    low = high // 2
    while high - low > 1:  # fewer weights than the budget at `low`, as many or more at `high`
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) < budget else (low, middle)
    return multiple * min((steps for steps in (low, high) if steps), key=lambda steps: abs(count(steps) - budget))


def speed(task: Any, modules: Mapping[str, Any], encoded: Any, tokens: int) -> float:
    """Tokens a second of a variant's step over those of the recipe's own layer: the median of turns."""
    import itertools

    import numpy as np

    batches = list(itertools.islice(task.batches(encoded, tokens=tokens, shuffle=np.random.default_rng(0)), BATCHES))

    def seconds(module: Any) -> float:
        began = time.perf_counter()
        for batch in batches:
            task.loss(module, batch).total.backward()
        return time.perf_counter() - began

    for module in modules.values():
        seconds(module)
    turns = [(seconds(modules[BASE]), seconds(modules["variant"])) for _ in range(ROUNDS)]
    return statistics.median(own / other for own, other in turns)


if __name__ == "__main__":
    main()
