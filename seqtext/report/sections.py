"""What a report shows of one run, by its task: tables, its worst errors, and pictures of what it does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from seqtext import draw
from seqtext.data.labels import spans
from seqtext.inspecting.attention import attends, inspect_attention
from seqtext.inspecting.losses import token_losses
from seqtext.metrics import classification, entities
from seqtext.metrics.perplexity import LineScore, total
from seqtext.metrics.translation import quality, sentence_chrf
from seqtext.plot import INK, attention_figure, drawing, inline
from seqtext.report.held import Held
from seqtext.report.html import Section, figure, heated, line, matrix, paragraph, safe, spans_marked, table
from seqtext.report.measures import remembered
from seqtext.tasks.translated import length_table

WIDEST = 20
"""Classes of a confusion matrix, at most."""
SHORT, LONG = 4, 30
"""Words of the sentences that are shown as pictures, where there are such."""


class Pictures:
    """Numbers the pictures of a page."""

    def __init__(self) -> None:
        self.count = 0

    def add(self, drawn: Callable[[], Any], title: str, *, caption: str = "", kind: Any = None) -> str:
        """A matplotlib figure as a part of the page, of a `kind` that `html.figure` has."""
        self.count += 1
        with drawing(INK):
            return figure(inline(drawn(), title=title, number=self.count), caption=caption, kind=kind)


def percent(value: float) -> str:
    return f"{100 * value:.2f}"


def tagged(held: Held, pictures: Pictures, count: int) -> list[Section]:
    task: Any = held.run.task
    records = held.records
    found = entities.score(
        [record["gold"] for record in records],
        [record["tags"] for record in records],
        scheme=task.scheme,
        tokens=[record["tokens"] for record in records],
        known_words=task.lexicon.words.__contains__,
    )
    header = ["type", "precision", "recall", "F1", "gold", "found", "correct"]
    rows = [[row.name, *map(percent, row[1:4]), *(f"{value:,}" for value in row[4:])] for row in found.table()]
    kinds = list(found.types)
    both = [(spans(record["gold"], task.scheme), spans(record["tags"], task.scheme)) for record in records]
    wrong = [len(set(gold) ^ set(ours)) for gold, ours in both]
    order = sorted((row for row in range(len(records)) if wrong[row]), key=lambda row: -wrong[row])
    errors = "".join(
        paragraph(f"Example {row + 1:,}: {wrong[row]} entities missed or wrongly found", soft=True)
        + line("gold", spans_marked(records[row]["tokens"], both[row][0], kinds))
        + line("found", spans_marked(records[row]["tokens"], both[row][1], kinds))
        for row in order[:count]
    )
    having = [row for row in range(len(records)) if both[row][1] and not wrong[row]][:count]
    right = "".join(line(f"{row + 1:,}", spans_marked(records[row]["tokens"], both[row][1], kinds)) for row in having)
    return [
        Section("Types of entities", table(header, rows)),
        Section("Worst errors", errors or paragraph("No entity is missed, and none wrongly found.")),
        Section("Entities that were found", right or paragraph("There is no sentence with all its entities found.")),
    ]


def classified(held: Held, pictures: Pictures, count: int) -> list[Section]:
    names = held.run.task.names  # type: ignore[attr-defined]
    records = [record for record in held.records if record.get("gold") and record.get("probabilities")]
    if not records:
        return []
    chances = np.array([[record["probabilities"].get(name, 0.0) for name in names] for record in records])
    found = classification.score(
        [record["gold"] for record in records], [record["label"] for record in records], chances, names
    )
    header = ["class", "precision", "recall", "F1", "gold", "found", "correct"]
    rows = [[row.name, *map(percent, row[1:4]), *(f"{value:,}" for value in row[4:])] for row in found.table()]
    figures = f"Macro F1 {percent(found.macro_f1)}, log-loss {found.log_loss:.4f}, calibration error {found.ece:.4f}."
    wrong = [row for row, record in enumerate(records) if record["label"] != record["gold"]]
    wrong.sort(key=lambda row: -max(chances[row]))
    errors = table(
        ["gold", "found", "probability", "text"],
        [
            [records[row]["gold"], records[row]["label"], f"{max(chances[row]):.4f}", _text(records[row])]
            for row in wrong[:count]
        ],
        caption=f"The {min(count, len(wrong))} of {len(wrong):,} that it is most confidently wrong about",
        texts=(1, 3),
    )
    sections = [
        Section("Classes", paragraph(figures) + table(header, rows)),
        Section("Confusion", _confusion(found)),
        Section("Worst errors", errors if wrong else paragraph("Nothing is labelled wrongly.")),
    ]
    if held.task == "sentiment" and attends(held.model):
        sections.append(Section("Attention", _looks(held, _readable(records, "text")[:count])))
    if held.task == "tree-sentiment":
        sections.append(Section("Trees", _trees(held, wrong, count)))
    return sections


def _text(record: dict[str, Any]) -> str:
    return record.get("text") or " ".join(record["tokens"])


def _confusion(found: classification.Classification) -> str:
    names, counts = found.labels, found.confusion
    if len(names) <= WIDEST:
        return matrix(names, counts, caption="A row a gold class, a column a found one, shaded by the row's shares")
    wrong = [(n, a, b) for a, row in zip(names, counts) for b, n in zip(names, row) if n and a != b]
    wrong.sort(key=lambda entry: -entry[0])
    rows = [[gold, ours, f"{n:,}"] for n, gold, ours in wrong[:WIDEST]]
    return table(["gold", "found", "texts"], rows, caption=f"The {len(rows)} most frequent confusions")


def _looks(held: Held, records: Sequence[dict[str, Any]]) -> str:
    """Texts, each word shaded by the attention it gets."""
    parts = [paragraph("The stronger a word is coloured, the more of the text's vector it makes.", soft=True)]
    for record in records:
        seen = inspect_attention(held.model, record["text"])
        right = "right" if record["label"] == record["gold"] else f"wrong, {record['gold']}"
        parts.append(line(f"{seen.result} ({right})", heated(seen.source, seen.weights[0])))
    return "".join(parts)


def _trees(held: Held, wrong: Sequence[int], count: int) -> str:
    """Shaded trees: of what is wrong first, then of what is right, of readable sizes."""
    names = held.run.task.names  # type: ignore[attr-defined]
    fitting = [row for row, one in enumerate(held.records) if SHORT <= len(one["tokens"]) <= LONG]
    chosen = [row for row in wrong if row in set(fitting)][: count // 2]
    chosen += [row for row in fitting if row not in set(wrong)][: count - len(chosen)]
    parts = []
    for row in chosen:
        record = held.records[row]
        nodes = record["nodes"]
        tree = draw.LabelledTree(
            words=record["tokens"],
            labels=[node["label"] for node in nodes],
            probabilities=[[node["probabilities"].get(name, 0.0) for name in names] for node in nodes],
            arities=[node["children"] for node in nodes],
            starts=[node["start"] for node in nodes],
            ends=[node["end"] for node in nodes],
            classes=names,
        )
        caption = f"Example {row + 1:,}: gold {record['gold']}, found {record['label']}"
        parts.append(figure(draw.svg(tree), caption=caption, kind="whole"))
    return "".join(parts) or paragraph("There is no sentence of a length that a picture has room for.")


def written(held: Held, pictures: Pictures, count: int) -> list[Section]:
    scored = [record for record in held.records if record["tokens"]]
    tokens, unknown = (sum(record[key] for record in scored) for key in ("tokens", "unknown"))
    facts = f"{tokens:,} tokens, line ends counted, {unknown:,} of them unknown ({unknown / max(1, tokens):.2%})."
    hard = sorted((one for one in scored if one["tokens"] >= SHORT), key=lambda record: -record["perplexity"])
    lines = table(
        ["perplexity", "tokens", "unknown", "text"],
        [[f"{one['perplexity']:,.1f}", one["tokens"], one["unknown"], one["text"]] for one in hard[:count]],
        caption=f"Of the lines of {SHORT} tokens or more, those with the highest perplexity",
        texts=(3,),
    )
    model: Any = held.model
    names = getattr(held.run.task, "names", [])
    if names:
        lines += _by_label(scored, names)
    conditioned = model.module.conditioning is not None
    read = scored[:200]
    labels = [record["label"] for record in read] if conditioned else None
    costs = token_losses(model, [record["text"] for record in read], labels)
    every = [(cost.nll, cost.token, before) for each in costs for cost, before in zip(each, _before(each))]
    every.sort(key=lambda one: one[0])
    worst = {token: (nll, before) for nll, token, before in every}  # the last of a token is where it costs most
    surprising = table(
        ["loss in nats", "token", "after"],
        [
            [f"{nll:.2f}", token, before]
            for token, (nll, before) in sorted(worst.items(), key=lambda one: -one[1][0])[:count]
        ],
        caption=f"Of the {len(every):,} tokens of the first {len(read)} lines, each line read by itself; every token "
        "once, where it costs most",
        texts=(1, 2),
    )
    shown = "".join(
        line(f"{number}", heated([cost.token for cost in each], [cost.nll for cost in each], unit=" nats"))
        for number, each in enumerate(costs[:count], start=1)
    )
    texts = ""
    for label in names if conditioned else [None]:
        samples = model.generate("", samples=2, max_tokens=60, seed=1, temperature=0.8, label=label)
        for number, one in enumerate(samples, start=1):
            name = f"{number}" if label is None else f"{label} {number}"
            texts += line(name, safe(" ↵ ".join(one.text.split("\n"))))
    return [
        Section("Perplexity", paragraph(facts) + lines),
        Section("Tokens with the highest loss", surprising + paragraph("The loss of each token:", soft=True) + shown),
        Section("Generated text", paragraph("At temperature 0.8, seed 1, from the beginning of a text.") + texts),
    ]


def _by_label(records: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    rows = []
    for name in names:
        scores = [
            LineScore(-one["log_probability"], one["tokens"], one["unknown"]) for one in records if one["label"] == name
        ]
        whole = total(scores)
        rows.append([name, f"{len(scores):,}", f"{whole.targets:,}", f"{whole.perplexity:.2f}"])
    return table(["label", "documents", "tokens", "perplexity"], rows, caption="By label")


def _before(costs: Sequence[Any]) -> list[str]:
    """The three tokens before each."""
    tokens = [cost.token for cost in costs]
    return [" ".join(tokens[max(0, place - 3) : place]) for place in range(len(tokens))]


def translated(held: Held, pictures: Pictures, count: int) -> list[Section]:
    sources = [record["source"] for record in held.records]
    ours = [record.get("translation", "") for record in held.records]
    gold = [record["reference"]["text"] for record in held.records]
    rows = [[row.name, f"{row.score:.2f}", row.signature] for row in quality(ours, gold).table()]
    lengths = length_table(sources, ours, gold)
    chrf = sentence_chrf(ours, gold)
    order = sorted(range(len(ours)), key=chrf.__getitem__)
    errors = table(
        ["chrF2", "source", "translation", "reference"],
        [[f"{chrf[row]:.1f}", sources[row], ours[row], gold[row]] for row in order[:count]],
        caption="Those with the lowest chrF2",
        texts=(1, 2, 3),
    )
    sections = [
        Section("Translations", table(["score", "", "how"], rows, texts=(2,))),
        Section(lengths.title, table(lengths.header, lengths.rows)),
        Section("Worst errors", errors),
    ]
    if attends(held.model):
        parts = []
        for record in _readable(held.records, "source")[: min(count, 4)]:
            seen = inspect_attention(held.model, record["source"])
            title = f"Attention of the translation of: {record['source']}"
            parts.append(
                pictures.add(
                    partial(attention_figure, seen.source, seen.target, seen.weights),
                    title,
                    caption=f"{record['source']} → {seen.result}",
                    kind="whole",
                )
            )
        sections.append(Section("Attention", "".join(parts)))
    return sections


def recalled(held: Held, pictures: Pictures, count: int) -> list[Section]:
    task: Any = held.run.task
    records = held.records
    predictions, rows = remembered(task, records)
    right, _ = task.right(predictions, rows)
    tables = "".join(table(one.header, one.rows, caption=one.title) for one in task.tables(predictions, rows))
    ends = np.cumsum([len(record["gold"]) for record in records])[:-1]
    wrong = []
    for fine, record, given in zip(np.split(right, ends), records, predictions):
        answers = zip(fine, record["gold"], given.answers, given.probabilities or given.answers)
        wrong.append([0.0 if one else _fault(*answer) for one, *answer in answers])
    order = sorted((row for row in range(len(records)) if any(wrong[row])), key=lambda row: -sum(wrong[row]))
    unit = " probable, and wrong" if task.names else " away"
    errors = "".join(
        paragraph(f"Example {row + 1:,}: {np.count_nonzero(wrong[row])} of {len(wrong[row])} wrong", soft=True)
        + line("read", heated(words := records[row]["text"].split(), [0.0] * len(words)))
        + line("gold", heated(records[row]["gold"], [0.0] * len(wrong[row])))
        + line("found", heated(records[row]["answers"], wrong[row], unit=unit))
        for row in order[:count]
    )
    return [
        Section("Answers", tables),
        Section("Worst sequences", errors or paragraph("No answer is wrong.")),
    ]


def _fault(gold: str, given: str | float, chance: float) -> float:
    """How bad a wrong answer is: the probability that it got, or how far a number is away."""
    return chance if isinstance(given, str) else abs(float(gold) - given)


def _readable(records: Sequence[dict[str, Any]], key: str) -> list[dict[str, Any]]:
    """Those of a length that is easily looked at first."""
    return sorted(records, key=lambda record: not SHORT <= len(record[key].split()) <= LONG)


SECTIONS: dict[str, Callable[[Held, Pictures, int], list[Section]]] = {
    "ner": tagged,
    "sentiment": classified,
    "tree-sentiment": classified,
    "lm": written,
    "translation": translated,
    "memory": recalled,
}
