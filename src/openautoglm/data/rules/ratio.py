"""Ratio: pairs whose target is far longer or shorter than its source leave the data."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Drop, Rule
from openautoglm.data.rules.length import Unit, measure


class Ratio(Rule):
    """Drop examples whose target length divided by source length lies outside the bounds.

    An empty source has no ratio and passes.
    """

    name: ClassVar[str] = "ratio"

    least: float = Field(0.1, ge=0, description="Smallest allowed target length per source length.")
    most: float = Field(10.0, gt=0, description="Largest allowed target length per source length.")
    unit: Unit = Field("characters", description="What is counted; words stand between whitespace.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.least > self.most:
            raise ValueError(f"least ({self.least:g}) is above most ({self.most:g})")
        return self

    def apply(self, example: Example) -> Example | Drop:
        source = measure(example.source, self.unit)
        if source == 0:
            return example
        ratio = measure(example.target, self.unit) / source
        if ratio < self.least:
            return Drop(f"target is {ratio:.3g} times as long as the source, less than {self.least:g}")
        if ratio > self.most:
            return Drop(f"target is {ratio:.3g} times as long as the source, more than {self.most:g}")
        return example
