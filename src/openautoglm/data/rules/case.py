"""Case: letters become lower, upper, or folded for comparison."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Rule, Side, rewritten

_FORMS = {"lower": str.lower, "upper": str.upper, "fold": str.casefold}


class Case(Rule):
    """Give all letters one case."""

    name: ClassVar[str] = "case"

    to: Literal["lower", "upper", "fold"] = Field(
        "lower", description="The case; `fold` also unifies letters such as ß and ss.")
    on: tuple[Side, ...] = Field(("source", "target"), description="Which sides of an example are rewritten.")

    def apply(self, example: Example) -> Example:
        return rewritten(example, self.on, _FORMS[self.to])
