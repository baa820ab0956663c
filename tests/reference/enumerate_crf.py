"""A linear chain by enumeration: every sequence scored one by one, in plain Python, straight from the definitions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

Path = tuple[int, ...]


class EnumeratedChain:
    """All label sequences of one sentence with their scores, in lexicographic order."""

    def __init__(
        self,
        logits: Sequence[Sequence[float]],
        start: Sequence[float],
        transitions: Sequence[Sequence[float]],
        end: Sequence[float],
    ) -> None:
        """`logits` [time][label]; a forbidden weight is -inf."""
        self.scores: dict[Path, float] = {}
        for path in itertools.product(range(len(start)), repeat=len(logits)):
            score = math.fsum(logits[t][label] for t, label in enumerate(path))
            if path:
                score += start[path[0]] + end[path[-1]]
            score += sum(transitions[a][b] for a, b in itertools.pairwise(path))
            self.scores[path] = score

    def log_sum(self, wanted: Callable[[Path], bool] = lambda path: True) -> float:
        """Log of the summed exp(score) of the wanted paths."""
        chosen = [score for path, score in self.scores.items() if wanted(path)]
        best = max(chosen, default=-math.inf)
        return best if best == -math.inf else best + math.log(math.fsum(math.exp(score - best) for score in chosen))

    def probability(self, wanted: Callable[[Path], bool]) -> float:
        return math.exp(self.log_sum(wanted) - self.log_sum())

    def ranked(self) -> list[tuple[float, Path]]:
        """Allowed paths, best first; of equals, the lexicographically smallest."""
        allowed = [(score, path) for path, score in self.scores.items() if score > -math.inf]
        return sorted(allowed, key=lambda item: -item[0])

    def span_probability(self, start: int, labels: Path, continues: Sequence[Sequence[bool]]) -> float:
        """Probability that exactly the span `labels` begins at `start`: neither side goes on into it or out of it."""
        end = start + len(labels)

        def wanted(path: Path) -> bool:
            open_left = start > 0 and continues[path[start - 1]][path[start]]
            open_right = end < len(path) and continues[path[end - 1]][path[end]]
            return path[start:end] == labels and not open_left and not open_right

        return self.probability(wanted)
