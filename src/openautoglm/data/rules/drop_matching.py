"""Drop by pattern: examples in which a regular expression is found, or is missing, leave the data."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Drop, Rule, Side
from openautoglm.data.rules.patterns import RegexText, compiled, found


class DropMatching(Rule):
    """Drop examples of which one of the given sides holds a match, or lacks one."""

    name: ClassVar[str] = "drop_matching"

    pattern: RegexText = Field(description="The regular expression to look for.")
    when: Literal["found", "missing"] = Field(
        "found", description="Drop where a side holds, or lacks, a match.")
    on: tuple[Side, ...] = Field(("source", "target"), description="Which texts are searched.")
    ignore_case: bool = Field(False, description="Treat upper and lower case alike.")
    timeout_s: float = Field(1.0, gt=0, description="Seconds after which a search in one text is an error.")

    def apply(self, example: Example) -> Example | Drop:
        pattern = compiled(self.pattern, self.ignore_case)
        for side in self.on:
            text = example.source if side == "source" else example.target
            if found(pattern, text, self.timeout_s, example) == (self.when == "found"):
                verb = "matches" if self.when == "found" else "does not match"
                return Drop(f"{side} {verb} {self.pattern!r}")
        return example
