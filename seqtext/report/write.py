"""The report of one or more runs: a page by itself, with what they share side by side and then each run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

from seqtext import __version__
from seqtext.errors import InputError
from seqtext.files import write_text
from seqtext.metrics.bootstrap import interval, paired
from seqtext.plot import check_plot
from seqtext.report.figures import Curve, line_figure
from seqtext.report.held import Held, hold
from seqtext.report.html import Section, page, paragraph, safe, table
from seqtext.report.measures import Measure, cut, measures, same_examples
from seqtext.report.sections import SECTIONS, Pictures
from seqtext.training.config import Ridge

SAMPLES = 1000
"""Resamples of an interval."""
EACH = 5
"""Runs of a task up to which each is compared with each."""
Found = Mapping[tuple[str, str], list[Measure]]
"""The measures of each run and split."""


def write_report(
    folders: Sequence[str | Path], out: str | Path, *, examples: int = 5, limit: int = 200, device: str = "auto"
) -> Path:
    """Write a page about runs, with so many `examples` a list; where a run holds no predictions, `limit` are made.

    Raises `InputError` where the page cannot be written, there is no matplotlib, or a folder is no run: nothing is
    written then.
    """
    check_plot("seqtext report")
    out = Path(out)
    if examples < 1 or limit < 1:
        raise InputError(f"--examples {examples} and --limit {limit}: expected 1 or more")
    if out.is_dir():
        raise InputError(f"--out {out}: this is a folder; a file is expected")
    if not out.absolute().parent.is_dir():
        raise InputError(f"--out {out}: no such folder: {out.parent}")
    names = _names([Path(folder) for folder in folders])
    held = [hold(folder, name=name, limit=limit, device=device) for folder, name in zip(folders, names)]
    text = compose(held, examples=examples)
    try:
        write_text(out, text)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written: {error.strerror or error}") from None
    return out


def compose(held: Sequence[Held], *, examples: int) -> str:
    """The page."""
    pictures = Pictures()
    found = {
        (one.name, split): measures(one.run.task, records)
        for one in held
        for split, records in (("valid", one.records), ("test", one.tested))
    }
    tasks = list(dict.fromkeys(one.task for one in held))
    sections = [Section("Scores", _scores(held, found))]
    if len(held) > 1:
        sections.append(Section("Differences, and whether they are chance", _significance(held, found)))
    sections.append(Section("Learning curves", _curves(held, pictures)))
    sections.append(Section("Settings", _settings(held)))
    for one in held:
        prefix = f"{one.name}: " if len(held) > 1 else ""
        parts = SECTIONS[one.task](one, pictures, examples) if one.records else []
        where = paragraph(one.about, soft=True)
        if not parts:
            sections.append(Section(f"{prefix}predictions", where + paragraph("There is nothing more to show.")))
        for number, part in enumerate(parts):
            sections.append(Section(f"{prefix}{part.title}", part.body if number else where + part.body))
    title = f"{held[0].name}: {held[0].task}" if len(held) == 1 else f"{len(held)} runs: {', '.join(tasks)}"
    lead = paragraph(
        f"Written by seqtext {__version__} from {', '.join(str(one.run.folder) for one in held)}.", soft=True
    )
    return page(title, lead, sections)


def _names(folders: Sequence[Path]) -> list[str]:
    """The last parts of the paths, as many as tell them apart."""
    for depth in range(1, 1 + max(len(folder.parts) for folder in folders)):
        names = ["/".join(folder.parts[-depth:]) for folder in folders]
        if len(set(names)) == len(names):
            return names
    raise InputError(f"{', '.join(map(str, folders))}: the same run twice")


def _figure(value: float, one: Measure) -> str:
    return f"{one.factor * value:.2f}"


def _scores(held: Sequence[Held], found: Found) -> str:
    tasks = list(dict.fromkeys(one.task for one in held))
    rows, bare = [], []
    for one in held:
        meta = one.run.meta
        for split in ("valid", "test"):
            for measure in found[one.name, split]:
                whole = interval(measure.statistics, measure.score, samples=SAMPLES)
                between = f"{_figure(whole.low, measure)} to {_figure(whole.high, measure)}"
                value, count = _figure(whole.score, measure), f"{len(measure.statistics):,}"
                rows.append([*_called(one, tasks), split, measure.title, value, between, count])
        if not one.tested and "test" in meta["scores"]:
            for measure in found[one.name, "valid"]:
                if measure.key in meta["scores"]["test"]:
                    value = _figure(meta["scores"]["test"][measure.key], measure)
                    examples = meta["data"].get("test", {}).get("examples", 0)
                    rows.append([*_called(one, tasks), "test", measure.title, value, "", f"{examples:,}"])
            bare.append(one.name)
        if not (found[one.name, "valid"] or found[one.name, "test"]):
            rows.append([*_called(one, tasks), "", "none", "", "", "0"])
    text = table(
        ["run", *(["task"] if len(tasks) > 1 else []), "split", "score", "value", "95% interval", "examples"],
        rows,
        caption=f"Intervals by {SAMPLES:,} bootstrap resamples of the examples",
        texts=(1, 2, 3) if len(tasks) > 1 else (1, 2),
    )
    if bare:
        text += paragraph(
            f"No interval of the test score of {', '.join(bare)}: an export, or a run of an older version, keeps no "
            "predictions of its test split.",
            soft=True,
        )
    facts = [
        [
            one.name,
            one.run.meta.get("recipe", ""),
            one.run.recipe.seed,
            f"{one.run.meta.get('parameters', 0):,}",
            f"{one.run.meta['step']:,}",
            one.run.meta.get("epochs", ""),
            _speed(one),
            one.run.meta.get("finished") or ("exported" if one.run.exported else "not finished"),
        ]
        for one in held
    ]
    header = ["run", "recipe", "seed", "parameters", "best step", "epochs", "tokens/s in training", "ended"]
    text += table(header, facts, texts=(1, 7))
    if len(tasks) > 1:
        text += paragraph(
            f"These runs are of different tasks ({', '.join(tasks)}): their sizes and speed stand side by side, "
            "but their scores measure different things, on other data, and cannot be compared; nor can their settings, "
            "which are listed run by run."
        )
    return text


def _called(one: Held, tasks: Sequence[str]) -> list[str]:
    """A run's name, and where there are several tasks its own."""
    return [one.name, one.task] if len(tasks) > 1 else [one.name]


def _speed(one: Held) -> str:
    rates = [line["tokens_per_second"] for line in one.kind("epoch")]
    return f"{sum(rates) / len(rates):,.0f}" if rates else ""


def _significance(held: Sequence[Held], found: Found) -> str:
    rows, notes = [], []
    for task, same in _by_task(held):
        if len(same) == 1:
            notes.append(f"{same[0].name} is the only run of the task {task}: there is nothing to compare it with.")
        pairs = list(combinations(same, 2))
        if len(same) > EACH:
            pairs = [(same[0], other) for other in same[1:]]
            notes.append(f"Of more than {EACH} runs of a task, each is compared with the first alone.")
        for first, other in pairs:
            for split in ("valid", "test"):
                for pair in zip(found[first.name, split], found[other.name, split]):
                    one, two = cut(*pair)
                    if len(one.keys) < max(len(each.keys) for each in pair):
                        notes.append(
                            f"{one.title} ({split}) of {first.name} and {other.name} is compared over the first "
                            f"{len(one.keys):,} examples, all that one of them was scored on; --limit says how many "
                            "are predicted for an export."
                        )
                    if reason := same_examples(one, two):
                        notes.append(f"{one.title} ({split}) of {first.name} and {other.name}: no test, {reason}.")
                        continue
                    names = [other.name, first.name, split, one.title + (" (less is better)" if one.less else "")]
                    rows.append([*names, *_paired(one, two)])
            if not (found[first.name, "valid"] and found[other.name, "valid"]):
                notes.append(f"{first.name} and {other.name}: no test, as one of them has no predictions.")
    header = ["run", "compared with", "split", "score", "difference", "95% interval", "p", "better in"]
    text = ""
    if rows:
        caption = (
            f"Paired bootstrap over the same examples (Koehn 2004), {SAMPLES:,} resamples. p is two-sided: below 0.05 "
            "where the interval does not hold 0. A tie counts as half better"
        )
        text = table(header, rows, caption=caption, texts=(1, 2, 3))
        if len(rows) > 1:
            text += paragraph(
                f"These are {len(rows)} comparisons, and p is not corrected for their number: of twenty between "
                "equals, one is below 0.05 by chance.",
                soft=True,
            )
    return text + "".join(map(paragraph, notes))


def _paired(one: Measure, two: Measure) -> list[str]:
    """The difference two - one, its interval, p, and the share of resamples in which it is the better."""
    result = paired(one.statistics, two.statistics, one.score, less=one.less, samples=SAMPLES)
    between = f"{one.factor * result.low:+.2f} to {one.factor * result.high:+.2f}"
    return [f"{one.factor * result.difference:+.2f}", between, f"{result.p:.4f}", f"{result.wins:.1%}"]


def _by_task(held: Sequence[Held]) -> list[tuple[str, list[Held]]]:
    order = {one.task: place for place, one in reversed(list(enumerate(held)))}
    ranked = sorted(held, key=lambda one: order[one.task])
    return [(task, list(group)) for task, group in groupby(ranked, key=lambda one: one.task)]


def _curves(held: Sequence[Held], pictures: Pictures) -> str:
    """Loss, score and gradient, each run a line; those of a task together."""
    parts = []
    grouped = _by_task(held)
    for task, same in grouped:
        key, of = same[0].run.task.goal.key, f" ({task})" if len(grouped) > 1 else ""
        solved = [one for one in same if isinstance(one.run.recipe.train.optimizer, Ridge)]
        lines = {one.name: _line(one, ("epoch",), "epoch", "loss") for one in same if one not in solved}
        parts.append(_curve(pictures, lines, f"Training loss{of}", "epoch", "loss a target, nats"))
        lines = {one.name: _line(one, ("epoch",), "epoch", "loss") for one in solved}  # not nats: on no axis with them
        parts.append(_curve(pictures, lines, f"Squared error of the solved read-out{of}", "epoch", "mean over targets"))
        lines = {one.name: _line(one, ("valid",), "epoch", key) for one in same}
        parts.append(_curve(pictures, lines, f"Validation {key}{of}", "epoch", key))
        lines = {one.name: _line(one, ("train",), "step", "grad_norm") for one in same}
        clips = {one.run.recipe.train.clip for one in same}
        limit = (f"clipped at {clips.copy().pop():g}", clips.pop()) if len(clips) == 1 and 0.0 not in clips else None
        name, y = f"Gradient norm{of}", "norm before clipping"
        parts.append(_curve(pictures, lines, name, "step", y, limit=limit, log=True))
    shown = "".join(parts)
    if not shown:
        return paragraph("No run holds a report of its training; an export leaves them out.")
    return f'<div class="curves">{shown}</div>\n'


def _line(one: Held, kinds: tuple[str, ...], x: str, y: str) -> Curve:
    points = [(line[x], line[y]) for line in one.kind(*kinds) if line.get(x) is not None and line.get(y) is not None]
    return [point[0] for point in points], [point[1] for point in points]


def _curve(pictures: Pictures, lines: Mapping[str, Curve], title: str, x: str, y: str, **how: Any) -> str:
    real = {name: line for name, line in lines.items() if line[0]}
    if not real:
        return ""
    if all(len(steps) == 1 for steps, _ in real.values()):  # a point is no curve
        points = [f"{name}: {values[0]:.4g} at {x} {steps[0]}" for name, (steps, values) in real.items()]
        return f"<div><h3>{safe(title)}</h3>{''.join(map(paragraph, points))}</div>\n"
    if how.get("log") and not all(value > 0 for _, values in real.values() for value in values):
        how["log"] = False
    drawn = pictures.add(lambda: line_figure(real, x=x, y=y, **how), title)
    return f"<div><h3>{safe(title)}</h3>{drawn}</div>\n"


def _settings(held: Sequence[Held]) -> str:
    """Where the runs of a task differ, and all settings of each."""
    text = ""
    for task, same in _by_task(held):
        if len(same) == 1:
            continue
        flat = [_flat(one) for one in same]
        keys = [key for key in dict.fromkeys(key for one in flat for key in one)]
        rows = [[key, *(one.get(key, "–") for one in flat)] for key in keys]
        changed = set().union(*(_flat(one, changed=True) for one in same))
        differing = [row for row in rows if len(set(row[1:])) > 1 and _tells(row, changed)]
        caption = f"Settings that differ ({task}); – where a run has no such setting"
        if differing:
            places = tuple(range(1, 1 + len(same)))
            text += table(["setting", *(one.name for one in same)], differing, caption=caption, texts=places)
        else:
            text += paragraph(f"All settings are the same ({task}).")
    for one in held:
        text += f"<details><summary>All settings of {safe(one.name)}</summary><pre>{_verbatim(one)}</pre></details>\n"
    return text


def _verbatim(one: Held) -> str:
    return "\n".join(safe(line) for line in one.run.recipe.toml().split("\n"))


def _tells(row: Sequence[str], changed: set[str]) -> bool:
    """Whether all runs have this setting, or one has it that is not at its default, or it names a part."""
    return "–" not in row or row[0] in changed or row[0].rpartition(".")[2] in ("name", "cell")


def _flat(one: Held, *, changed: bool = False) -> dict[str, str]:
    """The settings of a run by dotted key, as text, without those that it does not read; or `changed` ones alone."""
    recipe = one.run.recipe
    found: dict[str, str] = {"seed": str(recipe.seed)}
    if one.run.exported:
        found["weights (of an export)"] = one.run.exported

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict) and value:
            for key, inner in value.items():
                walk(f"{prefix}.{key}", inner)
        else:
            found[prefix] = "" if value is None else str(value)

    for section in ("data", "model", "train"):
        walk(section, getattr(recipe, section).model_dump(exclude_defaults=changed))
    if found.get("model.recurrence") == "hidden":  # then nothing is fed back
        found = {key: value for key, value in found.items() if not key.startswith("model.feedback")}
    return found
