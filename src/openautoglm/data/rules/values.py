"""Values: fields that may hold only what a list or a pattern allows."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Drop, Rule
from openautoglm.data.rules.patterns import RegexText, compiled, found

Value = Annotated[str, Field(coerce_numbers_to_str=True)]


class Values(Rule):
    """Drop examples in which a field holds a value that is not allowed."""

    name: ClassVar[str] = "values"

    allowed: dict[str, tuple[Value, ...]] = Field(
        default_factory=dict, description="Field name to its allowed values; quote yes and no in YAML.")
    patterns: dict[str, RegexText] = Field(
        default_factory=dict,
        description="Field name to a regular expression that its whole value must match.")
    ignore_case: bool = Field(False, description="Treat upper and lower case alike.")
    absent: Literal["keep", "drop"] = Field("keep", description="What becomes of examples without the field.")
    timeout_s: float = Field(1.0, gt=0, description="Seconds after which matching one value is an error.")

    @model_validator(mode="after")
    def _names_something(self) -> Self:
        if not self.allowed and not self.patterns:
            raise ValueError("name at least one field under `allowed` or `patterns`")
        return self

    @cached_property
    def _sets(self) -> dict[str, frozenset[str]]:
        return {name: frozenset(map(self._fold, values)) for name, values in self.allowed.items()}

    def apply(self, example: Example) -> Example | Drop:
        values = dict(example.fields)
        for name, allowed in self._sets.items():
            value = values.get(name)
            if value is not None and self._fold(value) not in allowed:
                return Drop(f"field {name!r} may not be {value[:80]!r}")
        for name, pattern in self.patterns.items():
            value = values.get(name)
            whole = compiled(rf"\A(?:{pattern})\Z", self.ignore_case)
            if value is not None and not found(whole, value, self.timeout_s, example):
                return Drop(f"field {name!r} does not match {pattern!r}: {value[:80]!r}")
        if self.absent == "drop":
            for name in (*self.allowed, *self.patterns):
                if name not in values:
                    return Drop(f"field {name!r} is absent")
        return example

    def _fold(self, value: str) -> str:
        return value.casefold() if self.ignore_case else value
