"""BLEU, chrF2 and TER of a file of translations, and whether they are better than another's.

    python scripts/bleu.py HYP REF [REF ...] [--baseline HYP2] [--samples 1000] [--seed 12345] [--json]

Files have one sentence a line, not tokenised, and may be gzipped; HYP may be - for standard input. The scores are those
of `sacrebleu REF -i HYP -m bleu chrf ter`; with --baseline those of its --paired-bs too, and the interval of the
difference. A byte order mark is no part of the text.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from typing import Any

from seqtext.data.text import open_text, text_lines
from seqtext.errors import DataError, InputError
from seqtext.metrics.bootstrap import SEED, Difference, compare
from seqtext.metrics.translation import Quality, quality, tokenization_warning

STDIN = "standard input"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("hypotheses", metavar="HYP", help="the translations, a line each; - is standard input")
    parser.add_argument("references", metavar="REF", nargs="+", help="what they should be; several are alternatives")
    parser.add_argument("--baseline", metavar="HYP2", help="another system's translations, to compare with")
    parser.add_argument("--samples", type=count, default=1000, help="resamples of the comparison (default 1000)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the resamples (default {SEED})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    try:
        run(parser.parse_args())
        sys.stdout.flush()
    except InputError as error:
        print(f"bleu.py: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); give Python nothing left to flush into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def run(arguments: argparse.Namespace) -> None:
    names = [arguments.hypotheses, *arguments.references]
    if arguments.baseline is not None:
        names.append(arguments.baseline)
    if names.count("-") > 1:
        raise InputError("- is standard input, which can be one of the files only")
    if arguments.seed < 0:
        raise InputError(f"--seed {arguments.seed}: expected 0 or more")
    hypotheses, *others = texts = [read(name) for name in names]
    references = texts[1 : 1 + len(arguments.references)]
    for name, lines in zip(arguments.references, references):
        check_lengths(names[0], hypotheses, name, lines)
    if arguments.baseline is not None:
        check_lengths(arguments.baseline, others[-1], names[1], references[0])
    warning = tokenization_warning(hypotheses, *references)
    if warning:
        print(f"bleu.py: warning: {warning}", file=sys.stderr)
    scores = quality(hypotheses, *references)
    differences = None
    if arguments.baseline is not None:
        differences = compare(others[-1], hypotheses, *references, samples=arguments.samples, seed=arguments.seed)
    if arguments.json:
        print(json.dumps(as_json(len(hypotheses), scores, differences, warning), indent=2))
        return
    report(len(hypotheses), scores)
    if differences is not None:
        seeded = f"{arguments.samples:,} resamples, seed {arguments.seed}"
        print(f"\nPaired bootstrap against {arguments.baseline}: {seeded}")
        report_comparison(differences)


def read(name: str) -> list[str]:
    """The lines of a file. Raises `DataError` naming file and line where it does not read, or has none."""
    lines = text_lines(sys.stdin.buffer, STDIN) if name == "-" else open_text(name)
    found = [line for _, line in lines]
    if not found:
        raise DataError("no line in it", path=title(name))
    return found


def check_lengths(hypotheses: str, translated: list[str], reference: str, wanted: list[str]) -> None:
    """Raises `DataError` naming the shorter file, and the first line of the other that has no counterpart in it."""
    files = (hypotheses, translated, "translation"), (reference, wanted, "reference")
    (shorter, fewer, what), (longer, more, _) = sorted(files, key=lambda file: len(file[1]))
    if len(fewer) != len(more):
        counts = f"{number(len(fewer), 'line')}, but {title(longer)} has {len(more):,}"
        raise DataError(f"{counts}: line {len(fewer) + 1:,} has no {what}", path=title(shorter))


def title(name: str) -> str:
    return STDIN if name == "-" else name


def number(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def count(text: str) -> int:
    """An option's whole number."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: expected 1 or more")
    return value


def report(lines: int, scores: Quality) -> None:
    for name, score, signature in scores.table():
        print(f"{name:<28} {score:6.2f}  {signature}")
    tokens = f"{scores.hypothesis_tokens:,} / {scores.reference_tokens:,} tokens"
    precisions = " ".join(f"{value:.1f}" for value in scores.precisions)
    print(f"{'length ratio':<28} {scores.length_ratio:6.3f}  {tokens}; {number(lines, 'line')}")
    print(f"{'brevity penalty':<28} {scores.brevity_penalty:6.3f}  n-gram precisions {precisions}")
    print(
        "\nCompare BLEU with other sacreBLEU figures of this signature. The lower-cased one is near what older papers "
        "print,\nmulti-bleu.perl over text lower-cased and tokenised by Moses; its tokens are 13a's, not Moses'."
    )


def report_comparison(differences: list[Difference]) -> None:
    print(f"{'':<7} {'baseline':>8} {'this':>7} {'difference':>10}  {'95% interval':<18} {'p':>6}  better in")
    for row in differences:
        interval = f"{row.low:+.2f} to {row.high:+.2f}"
        scores = f"{row.baseline:>8.2f} {row.system:>7.2f} {row.difference:>+10.2f}"
        print(f"{row.metric:<7} {scores}  {interval:<18} {row.p:>6.4f}  {row.wins:.1%}")
    print("p is sacreBLEU's; for TER less is better.")
    for row in differences:
        print(f"{row.metric:<7} {row.signature}")


def as_json(lines: int, scores: Quality, differences: list[Difference] | None, warning: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {"lines": lines, **scores.flat(), "signatures": dict(scores.signatures)}
    if differences is not None:
        values["comparison"] = [row._asdict() | {"difference": row.difference} for row in differences]
    if warning:
        values["warning"] = warning
    return values


if __name__ == "__main__":
    main()
