"""Outliers: numeric fields far from the rest of their column."""

from __future__ import annotations

import difflib
import math
import random
import re
from collections.abc import Iterable
from typing import ClassVar, Literal, Self

from pydantic import Field

from openautoglm.core.errors import RuleError
from openautoglm.core.values import Example
from openautoglm.data.rules.base import Drop, Rule

_NUMBER = re.compile(r"[^\d.,+-]*([-+]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?)\D*", re.ASCII)
_SWAP = str.maketrans(",.", ".,")
_LONGEST = 64


def number(text: str, decimal: Literal[".", ","] = ".") -> float | None:
    """Return the only number in `text` (``£1,200``, ``78%``, ``4 patients``); None for none or several."""
    if len(text) > _LONGEST:
        return None
    match = _NUMBER.fullmatch(text.translate(_SWAP) if decimal == "," else text)
    return float(match[1].replace(",", "")) if match else None


class Moments:
    """Count, mean and deviation of a stream, in one pass (Welford 1962)."""

    def __init__(self) -> None:
        self.count, self.mean, self._squares = 0, 0.0, 0.0

    def add(self, value: float) -> None:
        self.count += 1
        delta = value - self.mean
        self.mean += delta / self.count
        self._squares += delta * (value - self.mean)

    def limits(self, threshold: float) -> tuple[float, float]:
        """Return mean minus and plus `threshold` sample standard deviations."""
        deviation = math.sqrt(self._squares / (self.count - 1)) if self.count > 1 else 0.0
        return self.mean - threshold * deviation, self.mean + threshold * deviation


class Reservoir:
    """The values of a stream: all of them up to `size`, then an even sample (Vitter 1985, algorithm R)."""

    def __init__(self, size: int) -> None:
        self.count, self._size, self._kept = 0, size, list[float]()
        self._random = random.Random(0)  # nosec B311  # no secret

    def add(self, value: float) -> None:
        self.count += 1
        if len(self._kept) < self._size:
            self._kept.append(value)
            return
        place = self._random.randrange(self.count)
        if place < self._size:
            self._kept[place] = value

    def limits(self, threshold: float) -> tuple[float, float]:
        """Return the quartiles moved outwards by `threshold` interquartile ranges (Tukey 1977)."""
        kept = sorted(self._kept)
        low, high = _quantile(kept, 0.25), _quantile(kept, 0.75)
        return low - threshold * (high - low), high + threshold * (high - low)


def _quantile(ordered: list[float], share: float) -> float:
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


class Outliers(Rule):
    """Drop examples in which a numeric field lies outside the limits of its column.

    `fit` learns the limits of fields that `limits` does not give, in one pass and bounded memory; the rule
    which it returns holds them. One far value widens its own z-score limits in a small column: prefer `iqr`
    there.
    """

    name: ClassVar[str] = "outliers"
    needs_fit: ClassVar[bool] = True

    fields: tuple[str, ...] = Field(min_length=1, description="Numeric fields to look at.")
    method: Literal["zscore", "iqr"] = Field(
        "iqr", description="Limits from mean and standard deviation, or from the quartiles.")
    threshold: float | None = Field(
        None, gt=0,
        description="Deviations (default 3) or interquartile ranges (default 1.5) that are allowed.")
    limits: dict[str, tuple[float, float] | None] = Field(
        default_factory=dict, description="[least, most] by field; null for none; learnt where not given.")
    decimal: Literal[".", ","] = Field(".", description="The decimal sign; the other one groups thousands.")
    not_numeric: Literal["keep", "drop"] = Field(
        "keep", description="What becomes of values without one number.")
    min_count: int = Field(20, ge=2, description="Fewer numbers than this give no limits.")
    sample: int = Field(
        100_000, ge=100, description="Numbers kept per field for quartiles; exact up to here.")

    def fit(self, examples: Iterable[Example]) -> Self:
        streams = {name: self._stream() for name in self.fields if name not in self.limits}
        if not streams:
            return self
        seen: set[str] = set()
        for example in examples:
            for name, value in example.fields:
                if len(seen) < 1000:
                    seen.add(name)
                if name in streams:
                    amount = number(value, self.decimal)
                    if amount is not None and math.isfinite(amount):
                        streams[name].add(amount)
        for name in streams:
            if name not in seen:
                raise RuleError(f"outliers: no example has a field {name!r}", remedy=_remedy(name, seen))
        threshold = self.threshold or (3.0 if self.method == "zscore" else 1.5)
        learnt = {name: stream.limits(threshold) if stream.count >= self.min_count else None
                  for name, stream in streams.items()}
        return self.model_copy(update={"limits": {**self.limits, **learnt}})

    def apply(self, example: Example) -> Example | Drop:
        limits = self.limits
        for name, value in example.fields:
            if name not in self.fields:
                continue
            if name not in limits:
                raise RuleError(f"outliers: the limits of {name!r} are not known",
                                remedy="call fit first, or give them under `limits`")
            amount, bounds = number(value, self.decimal), limits[name]
            if amount is None:
                if self.not_numeric == "drop":
                    return Drop(f"field {name!r} is no number: {value[:80]!r}")
            elif bounds is not None and not bounds[0] <= amount <= bounds[1]:
                return Drop(f"field {name!r} is {amount:g}, outside {bounds[0]:g} to {bounds[1]:g}")
        return example

    def _stream(self) -> Moments | Reservoir:
        return Moments() if self.method == "zscore" else Reservoir(self.sample)


def _remedy(name: str, seen: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(seen), n=1)
    return f"did you mean {near[0]!r}?" if near else f"fields are: {', '.join(sorted(seen)) or 'none at all'}"
