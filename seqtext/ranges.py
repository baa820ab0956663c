"""[tune] of a recipe: dotted keys, and what values a search tries for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from seqtext.config import Config, parse
from seqtext.errors import ConfigError

SECTIONS = ("data", "model", "train")
"""The tables of a recipe whose keys can be searched."""


class Range(Config):
    """Numbers from `low` to `high`, or one of `choices`."""

    low: int | float | None = None
    """The smallest number; whole, like `high`, for a key that takes whole numbers."""
    high: int | float | None = None
    """The largest number."""
    log: bool = False
    """Draw its logarithm evenly: for what counts by factors, such as a learning rate."""
    step: int | float | None = Field(default=None, gt=0)
    """Only every so many, from `low`."""
    choices: list[bool | int | float | str] = Field(default_factory=list)
    """Values to choose from, instead of numbers."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.choices:
            if self.model_fields_set - {"choices"}:
                raise ValueError("choices stand alone, without low, high, log and step")
            return self
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError(f"log = true needs a low above 0, got {self.low}")
        if self.log and self.step is not None:
            raise ValueError("log = true and step: one or the other")
        return self

    @property
    def ends(self) -> list[Any]:
        """Values that the key must take for the range to make sense."""
        return list(self.choices) or [self.low, self.high]

    def real(self) -> Self:
        """The same for a key that takes fractions."""
        assert self.low is not None and self.high is not None
        return self.model_copy(update={"low": float(self.low), "high": float(self.high)})

    def suggest(self, trial: Any, key: str) -> Any:
        """The value that an Optuna trial takes."""
        if self.choices:
            return trial.suggest_categorical(key, self.choices)
        if isinstance(self.low, int) and isinstance(self.high, int) and not isinstance(self.step, float):
            return trial.suggest_int(key, self.low, self.high, log=self.log, step=self.step or 1)
        return trial.suggest_float(key, self.low, self.high, log=self.log, step=self.step)


def read_ranges(table: Mapping[str, Any], *, source: str) -> tuple[dict[str, Range], list[str]]:
    """The ranges of a [tune] table by their keys, which may be quoted or tables in tables; and faults of others."""
    ranges: dict[str, Range] = {}
    faults: list[str] = []

    def look(values: Any, key: str) -> None:
        if isinstance(values, Mapping) and values and not any(name in Range.model_fields for name in values):
            for name, inner in values.items():
                look(inner, f"{key}.{name}" if key else name)
        elif not isinstance(values, Mapping) or not values:
            faults.append(f"tune.{key}: expected a range such as {{low = 1, high = 9}} or {{choices = [1, 2]}}")
        elif key.partition(".")[0] not in SECTIONS or "." not in key:
            faults.append(f"tune.{key}: expected a key of {', '.join(SECTIONS[:-1])} or {SECTIONS[-1]}")
        else:
            try:
                found = parse(Range, values, source=source, prefix=f"tune.{key}")
            except ConfigError as error:
                faults.extend(error.faults)
                return
            if not found.choices and (found.low is None or found.high is None):
                faults.append(f"tune.{key}: expected low and high, or choices = [...]")
                return
            ranges[key] = found

    for name, values in table.items():
        look(values, name)
    return ranges, faults
