"""Containment: the target must mention what the source's fields say."""

from __future__ import annotations

import functools
import re
import unicodedata
from functools import cached_property
from typing import ClassVar

from pydantic import Field

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Drop, Rule


@functools.lru_cache(maxsize=8192)
def _without_marks(text: str) -> str:
    letters = unicodedata.normalize("NFKD", text)
    return "".join(letter for letter in letters if not unicodedata.combining(letter))


class Containment(Rule):
    """Drop examples whose target mentions too few of the values of the given fields.

    A value counts as mentioned when it occurs in the target, after both were normalised. Fields that an
    example lacks, and values among `except_values`, ask for nothing.
    """

    name: ClassVar[str] = "containment"

    fields: tuple[str, ...] = Field((), description="Fields whose values must be mentioned; empty means all.")
    min_share: float = Field(
        1.0, gt=0, le=1, description="Smallest share of the values that must be mentioned.")
    ignore_case: bool = Field(True, description="Treat upper and lower case alike.")
    ignore_diacritics: bool = Field(
        True, description="Treat é and e alike, and full-width and plain letters.")
    ignore_spaces: bool = Field(True, description="Treat every run of whitespace as one space.")
    whole_words: bool = Field(False, description="A value inside a longer word is no mention.")
    except_values: tuple[str, ...] = Field(
        ("yes", "no", "true", "false"), description="Values that texts do not spell out; case is ignored.")

    @cached_property
    def _except(self) -> frozenset[str]:
        return frozenset(map(str.casefold, self.except_values))

    def apply(self, example: Example) -> Example | Drop:
        wanted = [(name, value) for name, value in example.fields
                  if (not self.fields or name in self.fields) and value.strip()
                  and value.strip().casefold() not in self._except]
        if not wanted:
            return example
        target = self._normalised(example.target)
        missing = [(name, value) for name, value in wanted if not self._mentions(target, value)]
        share = 1 - len(missing) / len(wanted)
        if share >= self.min_share:
            return example
        name, value = missing[0]
        return Drop(f"target mentions {len(wanted) - len(missing)} of {len(wanted)} values; "
                    f"{name!r} is missing: {value[:80]!r}")

    def _mentions(self, target: str, value: str) -> bool:
        value = self._normalised(value)
        if not self.whole_words:
            return value in target
        return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", target) is not None

    def _normalised(self, text: str) -> str:
        if self.ignore_diacritics and not text.isascii():
            text = _without_marks(text)
        if self.ignore_case:
            text = text.casefold()
        return " ".join(text.split()) if self.ignore_spaces else text
