"""Rare values: categories that occur so seldom in a column that they are likely slips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from typing import ClassVar, Self

from pydantic import Field

from openautoglm.core.errors import RuleError
from openautoglm.core.values import Example
from openautoglm.data.rules.base import Drop, Rule


class Rare(Rule):
    """Drop examples in which a categorical field holds a value seen less than `min_count` times.

    `fit` counts the values and returns the rule with the common ones. For columns of free text, names or
    numbers the rule is of no use; `max_values` stops it there.
    """

    name: ClassVar[str] = "rare"
    needs_fit: ClassVar[bool] = True

    fields: tuple[str, ...] = Field(min_length=1, description="Categorical fields to look at.")
    min_count: int = Field(3, ge=2, description="A value seen fewer times than this is rare.")
    max_values: int = Field(
        100_000, ge=1, description="More distinct values than this in a field are an error.")
    common: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Values that are not rare, by field; learnt where not given.")

    def fit(self, examples: Iterable[Example]) -> Self:
        counts: dict[str, Counter[str]] = {name: Counter() for name in self.fields if name not in self.common}
        if not counts:
            return self
        for example in examples:
            for name, value in example.fields:
                if name in counts:
                    counts[name][value] += 1
                    if len(counts[name]) > self.max_values:
                        raise RuleError(
                            f"rare: field {name!r} has more than {self.max_values} distinct values",
                            where=str(example.origin),
                            remedy="look at categorical fields only, or raise max_values")
        for name, counter in counts.items():
            if not counter:
                raise RuleError(f"rare: no example has a field {name!r}",
                                remedy="name a column, or a field of the record")
        learnt = {name: tuple(sorted(value for value, count in counter.items() if count >= self.min_count))
                  for name, counter in counts.items()}
        return self.model_copy(update={"common": {**self.common, **learnt}})

    @cached_property
    def _common(self) -> dict[str, frozenset[str]]:
        return {name: frozenset(values) for name, values in self.common.items()}

    def apply(self, example: Example) -> Example | Drop:
        for name, value in example.fields:
            if name not in self.fields:
                continue
            if name not in self._common:
                raise RuleError(f"rare: the common values of {name!r} are not known",
                                remedy="call fit first, or give them under `common`")
            if value not in self._common[name]:
                return Drop(f"field {name!r} is rarely {value[:80]!r}")
        return example
