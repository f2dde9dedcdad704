"""Length: texts that are too short or too long leave the data."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Drop, Rule

Unit = Literal["characters", "words"]


def _ordered(bounds: tuple[int | None, int | None]) -> tuple[int | None, int | None]:
    low, high = bounds
    if low is not None and high is not None and low > high:
        raise ValueError(f"the lower bound {low} is above the upper bound {high}")
    return bounds


Bounds = Annotated[tuple[int | None, int | None], AfterValidator(_ordered)]
"""Lower and upper bound, both included; null leaves a side open."""


def measure(text: str, unit: Unit) -> int:
    """Return the number of characters, or of words between whitespace, of `text`."""
    return len(text) if unit == "characters" else len(text.split())


class Length(Rule):
    """Drop examples whose source or target lies outside its bounds."""

    name: ClassVar[str] = "length"

    source: Bounds | None = Field(None, description="[least, most] of the source; null leaves a side open.")
    target: Bounds | None = Field(
        (1, None), description="[least, most] of the target; null leaves a side open.")
    unit: Unit = Field("characters", description="What is counted; words stand between whitespace.")

    def apply(self, example: Example) -> Example | Drop:
        if self.target is not None:
            reason = self._outside("target", example.target, self.target)
            if reason:
                return Drop(reason)
        if self.source is not None:
            reason = self._outside("source", example.source, self.source)
            if reason:
                return Drop(reason)
        return example

    def _outside(self, side: str, text: str, bounds: tuple[int | None, int | None]) -> str:
        low, high = bounds
        length = measure(text, self.unit)
        if low is not None and length < low:
            return f"{side} has {length} {self.unit}, fewer than {low}"
        if high is not None and length > high:
            return f"{side} has {length} {self.unit}, more than {high}"
        return ""
