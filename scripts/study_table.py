"""What `study_cells.py` prints, in Markdown: figures, sizes, and which conclusions of Jozefowicz 2015 hold here."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from study_variants import BASE, CLOSE, GATES

Rows = Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]
"""The runs of each job and variant."""


class Mean(NamedTuple):
    """Figures of some seeds, larger better: of a job whose figures are better smaller, their negatives."""

    mean: float
    deviation: float | None
    """None of one seed, which has none."""
    count: int


def show(rows: Sequence[Mapping[str, Any]], jobs: Mapping[str, Any], variants: Sequence[str]) -> None:
    """Print all there is to say of these runs."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["job"], row["variant"]), []).append(row)
    there = [job for job in jobs if any(key[0] == job for key in found)]
    names = [variant for variant in variants if any(key[1] == variant for key in found)]
    if not found:
        print("no run is there yet")
        return
    _figures(found, {job: jobs[job] for job in there}, names)
    _speeds(found, there, names)
    _sizes(found, there, names)
    _conclusions(found, {job: jobs[job] for job in there}, names)
    _footer(rows)


def _footer(rows: Sequence[Mapping[str, Any]]) -> None:
    timed = [row for row in rows if "speed" in row]
    if timed:
        machines = ", ".join(sorted({row.get("machine", "a machine not recorded") for row in timed}))
        told = ", ".join(sorted({row.get("speed_commit", row["commit"]) for row in timed}))
        print(f"\nSpeed was measured in {len(timed)} of the runs, with one thread a run: {machines}; commits {told}.")
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    print(f"\n{len(rows)} runs, {sum(row['seconds'] for row in rows) / 3600:.1f} hours of one core; commits {commits}")


def mean_of(found: Rows, jobs: Mapping[str, Any], job: str, variant: str) -> Mean | None:
    """None where there is no run that came to its end."""
    about = jobs[job]
    sign = 1.0 if about.mode == "max" else -1.0
    values = [sign * about.scale * row["test"][about.key] for row in found.get((job, variant), []) if "test" in row]
    if not values:
        return None
    return Mean(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def compare(one: Mean, other: Mean) -> int:
    """1 or -1 where `one` is better or worse by more than the deviation of seeds (pooled), 0 within it.

    Of two that have no deviation, any difference counts.
    """
    squares = [mean.deviation**2 for mean in (one, other) if mean.deviation is not None]
    pooled = math.sqrt(statistics.fmean(squares)) if squares else 0.0
    return 0 if abs(one.mean - other.mean) <= pooled else 1 if one.mean > other.mean else -1


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("| " + " | ".join(header) + " |")
    print("|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(row) + " |")


def _figures(found: Rows, jobs: Mapping[str, Any], names: Sequence[str]) -> None:
    print(
        "## Figures\n\nTest split; mean and deviation of seeds (number of seeds where it is not that of the others).\n"
    )
    most = max(len(runs) for runs in found.values())
    rows = []
    for variant in names:
        cells = []
        for job in jobs:
            runs, mean = found.get((job, variant), []), mean_of(found, jobs, job, variant)
            lost = sum("failed" in run for run in runs)
            text = "" if mean is None else f"{abs(mean.mean):.2f}"
            text += f" ± {mean.deviation:.2f}" if mean and mean.deviation is not None else ""
            text += f" ({mean.count})" if mean and mean.count < most else ""
            cells.append(" ".join(part for part in (text, f"{lost} diverged" if lost else "") if part) or "-")
        speeds = [run["speed"] for job in jobs for run in found.get((job, variant), []) if "speed" in run]
        cells.append(f"{math.exp(statistics.fmean(map(math.log, speeds))):.2f}" if speeds else "-")
        rows.append([variant, *cells])
    header = [f"{job} ({about.what}) {'↑' if about.mode == 'max' else '↓'}" for job, about in jobs.items()]
    _table(["variant", *header, f"tokens/s, of {BASE}'s"], rows)


def _speeds(found: Rows, jobs: Sequence[str], names: Sequence[str]) -> None:
    print("\n## Speed\n")
    print(f"Tokens a second in training over those of {BASE}, measured in turns; of {BASE} itself, how many.\n")
    rows = []
    for variant in names:
        cells = []
        for job in jobs:
            runs = found.get((job, variant), [])
            ratio = next((f"{run['speed']:.2f}" for run in runs if "speed" in run), "-")
            rates = [run["tokens_per_second"] for run in runs if "tokens_per_second" in run]
            cells.append(f"{statistics.median(rates):,.0f}" if variant == BASE and rates else ratio)
        rows.append([variant, *cells])
    _table(["variant", *jobs], rows)


def _sizes(found: Rows, jobs: Sequence[str], names: Sequence[str]) -> None:
    print("\n## Sizes\n\nHidden size of each, and how far its recurrent weights are from the budget where that is")
    print(f"more than {CLOSE:.0%}.\n")
    rows = []
    budgets = {}
    for variant in names:
        cells = []
        for job in jobs:
            runs = found.get((job, variant))
            if not runs:
                cells.append("-")
                continue
            budgets[job] = runs[0]["budget"]
            share = runs[0]["weights"] / runs[0]["budget"] - 1.0
            cells.append(f"{runs[0]['hidden_size']}" + (f" ({share:+.1%})" if abs(share) > CLOSE else ""))
        rows.append([variant, *cells])
    _table(["variant", *(f"{job} ({budgets[job]:,})" for job in jobs)], rows)


def _conclusions(found: Rows, jobs: Mapping[str, Any], names: Sequence[str]) -> None:
    print("\n## What Jozefowicz 2015 found, and what holds here")
    print("\nBetter and worse are by more than the deviation of seeds (pooled over both); else it is within it.")
    if max(len(runs) for runs in found.values()) == 1:
        print("Here each has one seed, and so no deviation: any difference counts, and decides nothing.")
    print("\n### GRU and LSTM lead\n")
    rows = []
    for variant in names:
        if variant in ("lstm", "gru"):
            continue
        told = [_against(found, jobs, job, variant, ("lstm", "gru")) for job in jobs]
        if any(word != "-" for word in told):
            rows.append([variant, *told])
    _or_nothing(["against the better of lstm and gru", *jobs], rows)
    if rows and all(any((job, leader) in found for job in jobs) for leader in ("lstm", "gru")):
        ahead = [row[0] for row in rows if any(cell.startswith("better") for cell in row[1:])]
        print(
            "\n"
            + (f"Ahead of both on some job: {'; '.join(ahead)}." if ahead else "No variant is ahead of both: holds.")
        )
    print("\n### The forget gate matters most, then the input gate, then the output gate\n")
    rows, orders = [], []
    for job in jobs:
        base = mean_of(found, jobs, job, BASE)
        without = {gate: mean_of(found, jobs, job, f"lstm, no {gate} gate") for gate in GATES}
        if base is None or any(mean is None for mean in without.values()):
            continue
        losses = {gate: base.mean - mean.mean for gate, mean in without.items() if mean}
        order = sorted(GATES, key=lambda gate: -losses[gate])
        orders.append(order)
        sides = [compare(without[later], without[earlier]) for earlier, later in pairwise(GATES)]  # type: ignore
        verdict = "holds" if min(sides) > 0 else "does not" if min(sides) < 0 else "within deviation"
        rows.append([job, *(f"{losses[gate]:+.2f}" for gate in GATES), " > ".join(order), verdict])
    _or_nothing(["job", *(f"lost without {gate}" for gate in GATES), "order", ""], rows)
    if orders:
        first = sum(order[0] == GATES[0] for order in orders)
        print(f"\nThe forget gate matters most on {first} of {len(orders)} jobs.")
    print("\n### A forget bias of 1 helps\n")
    rows = []
    for job in jobs:
        one, zero = mean_of(found, jobs, job, BASE), mean_of(found, jobs, job, "lstm, forget bias 0")
        if one and zero:
            verdict = ("within deviation", "holds", "does not")[compare(one, zero)]
            rows.append([job, f"{abs(zero.mean):.2f}", f"{abs(one.mean):.2f}", verdict])
    _or_nothing(["job", "bias 0", "bias 1", ""], rows)


def _or_nothing(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if rows:
        _table(header, rows)
    else:
        print("The runs that decide it are not there.")


def _against(found: Rows, jobs: Mapping[str, Any], job: str, variant: str, others: Sequence[str]) -> str:
    """How a variant does against the best of others, in a word and a difference."""
    mine = mean_of(found, jobs, job, variant)
    means = [mean for other in others if (mean := mean_of(found, jobs, job, other))]
    if mine is None or not means:
        return "-"
    best = max(means, key=lambda mean: mean.mean)
    word = ("within", "better", "worse")[compare(mine, best)]
    return f"{word} ({mine.mean - best.mean:+.2f})"
