"""Scores of translations by sacreBLEU (Post 2018, "A Call for Clarity in Reporting BLEU Scores"), on plain text.

BLEU (Papineni et al. 2002), chrF2 (Popović 2015) and TER (Snover et al. 2006), each with sacreBLEU's signature. BLEU is
in points from 0 to 100, over the tokens of mteval-v13a and with case; chrF2 from 0 to 100; TER in edits a hundred words
of the reference, where less is better.

Beside BLEU stands a lower-cased one. Older papers, those on Multi30k among them, print `multi-bleu.perl` over text that
was lower-cased and tokenised by Moses; theirs cannot be had from plain text exactly, and this is near it: the tokens
are 13a's, which part a sentence's punctuation from its words as Moses does, but leave "man's" whole, where Moses makes
two tokens of it.

Everything takes the hypotheses, a line each, and one list of as many references, or several.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric

TITLES = {
    "bleu": "BLEU",
    "chrf2": "chrF2",
    "ter": "TER",
    "bleu_lowercased": "BLEU, lower-cased, tokenised",
}
EDGES = (8, 12, 16, 20, 30, 50)
"""Lengths in words at which the next bucket of `by_length` begins: narrow where most sentences of captions are."""
TOKENIZED = {
    "a space before a full stop, comma or semicolon": re.compile(r"\S [.,;](?= |$)"),
    "the mark @@ of subwords": re.compile(r"\S@@(?= |$)"),
    "the mark ▁ of subwords": re.compile("▁"),
    "Moses' @-@ for a hyphen": re.compile(" @-@ "),
    "Moses' escapes, as in &apos;": re.compile("&(?:apos|quot|#91|#93|#124);"),
}
TOKENIZED_SHARE = 0.1
"""By how much the share of lines with a sign must be larger on one side for that side to look tokenised."""


class Row(NamedTuple):
    """A score, what it is called and sacreBLEU's signature of its settings."""

    name: str
    score: float
    signature: str


@dataclass(frozen=True)
class Quality:
    """The scores of a set of translations.

    `precisions` are BLEU's modified n-gram precisions in percent, n = 1 to 4; `length_ratio` is hypothesis tokens over
    reference tokens, 0 where the references have none, and `brevity_penalty` what BLEU is multiplied by for it.
    `signatures` has one for each of `bleu`, `chrf2`, `ter` and `bleu_lowercased`.
    """

    bleu: float
    chrf2: float
    ter: float
    bleu_lowercased: float
    precisions: tuple[float, ...]
    brevity_penalty: float
    length_ratio: float
    hypothesis_tokens: int
    reference_tokens: int
    signatures: Mapping[str, str]

    @property
    def settings(self) -> str:
        """What the scores are, to print beside them."""
        return "; ".join(f"{row.name} {row.signature}" for row in self.table())

    def flat(self) -> dict[str, float]:
        """Every score by name, for metrics files: `bleu`, `chrf2`, ..., `precision/1`, ..."""
        values = asdict(self)
        del values["precisions"], values["signatures"]
        return values | {f"precision/{n}": value for n, value in enumerate(self.precisions, start=1)}

    def table(self) -> list[Row]:
        """A row a metric, BLEU first."""
        return [Row(title, getattr(self, name), self.signatures[name]) for name, title in TITLES.items()]


class Bucket(NamedTuple):
    """The sentences of a range of source lengths in words, both ends included; `longest` None is no end."""

    shortest: int
    longest: int | None
    sentences: int
    bleu: float
    length_ratio: float


def quality(hypotheses: Sequence[str], *references: Sequence[str]) -> Quality:
    """Score translations. Raises `ValueError` where there are none, or not as many references."""
    check_lengths(hypotheses, *references)
    scores, signatures = {}, {}
    for name, metric in metrics().items():
        scores[name] = metric.corpus_score(hypotheses, references)
        signatures[name] = str(metric.get_signature())
    bleu = scores["bleu"]
    return Quality(
        **{name: score.score for name, score in scores.items()},
        precisions=tuple(bleu.precisions),
        brevity_penalty=bleu.bp,
        length_ratio=float(bleu.ratio),
        hypothesis_tokens=bleu.sys_len,
        reference_tokens=bleu.ref_len,
        signatures=signatures,
    )


def corpus_bleu(hypotheses: Sequence[str], *references: Sequence[str]) -> float:
    """The BLEU of `quality` alone, which takes a fifth of the time. Raises `ValueError` as `quality` does."""
    from sacrebleu.metrics import BLEU

    check_lengths(hypotheses, *references)
    return float(BLEU(force=True).corpus_score(hypotheses, references).score)


def by_length(
    sources: Sequence[str], hypotheses: Sequence[str], *references: Sequence[str], edges: Sequence[int] = EDGES
) -> list[Bucket]:
    """BLEU of the sentences of each range of source lengths, shortest first, without the ranges that have none.

    Every one of `edges` is the least number of words, parted at white space, of a bucket; shorter sentences are in one
    before the first. Raises `ValueError` as `quality` does, and where edges are not positive and rising.
    """
    from sacrebleu.metrics import BLEU

    check_lengths(hypotheses, *references)
    if len(sources) != len(hypotheses):
        raise ValueError(f"{len(sources):,} sources, but {len(hypotheses):,} hypotheses")
    starts = [0, *edges]
    if any(after <= before for before, after in zip(starts, edges)):
        raise ValueError(f"edges {list(edges)}: expected positive numbers, each larger than the one before")
    members: list[list[int]] = [[] for _ in starts]
    for number, source in enumerate(sources):
        members[bisect_right(edges, len(source.split()))].append(number)
    buckets = []
    for start, end, numbers in zip(starts, [*edges, None], members):
        if numbers:
            chosen = [[lines[number] for number in numbers] for lines in (hypotheses, *references)]
            score = BLEU(force=True).corpus_score(chosen[0], chosen[1:])
            longest = None if end is None else end - 1
            buckets.append(Bucket(start, longest, len(numbers), score.score, float(score.ratio)))
    return buckets


def sentence_chrf(hypotheses: Sequence[str], *references: Sequence[str]) -> list[float]:
    """chrF2 of each line by itself, 0 to 100: an empty hypothesis has 0. Raises `ValueError` as `quality` does."""
    from sacrebleu.metrics import CHRF

    check_lengths(hypotheses, *references)
    metric = CHRF()
    return [metric.sentence_score(line, others).score for line, *others in zip(hypotheses, *references)]


def tokenization_warning(hypotheses: Sequence[str], *references: Sequence[str]) -> str | None:
    """What to tell the user where one side looks tokenised and the other does not, None where all is well.

    In such text words and tokens of the two sides may not meet, so that its scores are too low. A side looks tokenised
    where a sign of that, such as a space before a full stop, is in a share of its lines that is larger than the other's
    by `TOKENIZED_SHARE`.
    """
    every = [line for lines in references for line in lines]
    for side, lines, other, others in (
        ("hypotheses", hypotheses, "references", every),
        ("references", every, "hypotheses", hypotheses),
    ):
        for sign, pattern in TOKENIZED.items():
            found = [line for line in lines if pattern.search(line)]
            if found and len(found) / len(lines) > TOKENIZED_SHARE + _share(pattern, others):
                seen = f"{sign} in {len(found):,} of {len(lines):,} lines, as in {found[0]!r}"
                return f"the {side} look tokenised and the {other} do not ({seen}); detokenise the {side} first"
    return None


def metrics() -> dict[str, Metric]:
    """sacreBLEU's metrics by their names in `Quality`, new ones each time, for they remember what they scored last."""
    from sacrebleu.metrics import BLEU, CHRF, TER

    # `force` only turns off sacreBLEU's own warning about tokenised text, which goes to a logger.
    return {
        "bleu": BLEU(force=True),
        "chrf2": CHRF(),
        "ter": TER(),
        "bleu_lowercased": BLEU(lowercase=True, force=True),
    }


def check_lengths(hypotheses: Sequence[str], *references: Sequence[str]) -> None:
    """Raises `ValueError` where there is no hypothesis, no list of references, or one of another length."""
    if not hypotheses or not references:
        raise ValueError("nothing to score: no hypotheses" if references else "nothing to score against: no references")
    for lines in references:
        if len(lines) != len(hypotheses):
            raise ValueError(f"{len(lines):,} references, but {len(hypotheses):,} hypotheses")


def _share(pattern: re.Pattern[str], lines: Sequence[str]) -> float:
    return sum(pattern.search(line) is not None for line in lines) / len(lines) if lines else 0.0
