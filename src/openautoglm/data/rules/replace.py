"""Replacement: what a regular expression finds becomes something else."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field, model_validator

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Rule, Side, rewritten
from openautoglm.data.rules.patterns import RegexText, check_replacement, compiled, substituted


class Replace(Rule):
    """Replace every match of a regular expression."""

    name: ClassVar[str] = "replace"
    idempotent: ClassVar[bool] = False

    pattern: RegexText = Field(description="The regular expression to look for.")
    by: str = Field("", description=r"What takes the place of a match; \1 or \g<name> stand for its groups.")
    on: tuple[Side, ...] = Field(("source", "target"), description="Which sides of an example are rewritten.")
    ignore_case: bool = Field(False, description="Treat upper and lower case alike.")
    timeout_s: float = Field(1.0, gt=0, description="Seconds after which a search in one text is an error.")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_replacement(self.pattern, self.by)
        return self

    def apply(self, example: Example) -> Example:
        pattern = compiled(self.pattern, self.ignore_case)
        return rewritten(
            example, self.on, lambda text: substituted(pattern, self.by, text, self.timeout_s, example))
