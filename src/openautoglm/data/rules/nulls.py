"""Nulls: texts and fields that say that there is nothing, such as an empty cell or ``NaN``."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Drop, Rule, Side


class Nulls(Rule):
    """Drop or fill examples whose source, target or required fields are null.

    A text is null when it equals one of `tokens` after trimming, case ignored. Words that are answers
    elsewhere (``none``, ``NA``, ``-``) are not among the defaults.
    """

    name: ClassVar[str] = "nulls"

    on: tuple[Side, ...] = Field(("source", "target"), description="Which texts must not be null.")
    fields: tuple[str, ...] = Field(
        (), description="Fields which must not be null; absent ones count as null.")
    tokens: tuple[str, ...] = Field(
        ("", "null", "(null)", "<null>", "nan", "#n/a", "n/a", "<na>"),
        description="Texts that mean nothing.")
    action: Literal["drop", "fill"] = Field(
        "drop", description="Drop the example, or put `fill` in the place.")
    fill: str = Field("", description="What a null becomes under `action: fill`.")
    allow_empty_source: bool = Field(
        True, description="Let an entirely empty source pass: plain text without a prompt has none.")

    @model_validator(mode="after")
    def _fills(self) -> Self:
        if self.action == "fill" and self.fill.strip().casefold() in self._tokens:
            raise ValueError(f"fill must not be a null itself, and {self.fill!r} is one")
        return self

    @cached_property
    def _tokens(self) -> frozenset[str]:
        return frozenset(token.strip().casefold() for token in self.tokens)

    @cached_property
    def _longest(self) -> int:
        return max(map(len, self._tokens), default=0)

    def apply(self, example: Example) -> Example | Drop:
        if not self.fields and self._is_plain(example.target) and self._is_plain(example.source):
            return example
        sides = [side for side in self.on if self._is_null_side(example, side)]
        values = dict(example.fields) if self.fields else {}
        names = [name for name in self.fields if self._is_null(values.get(name, ""))]
        if not sides and not names:
            return example
        if self.action == "drop":
            what = sides[0] if sides else f"field {names[0]!r}"
            text = getattr(example, what) if sides else values.get(names[0])
            return Drop(f"{what} is null: {text!r}" if text else f"{what} is empty")
        values.update(dict.fromkeys(names, self.fill))
        changes: dict[str, object] = dict.fromkeys(sides, self.fill)
        return example.with_(**changes, fields=tuple(values.items()) if names else example.fields)

    def _is_null_side(self, example: Example, side: Side) -> bool:
        text = example.target if side == "target" else example.source
        if side == "source" and not text and self.allow_empty_source:
            return False
        return self._is_null(text)

    def _is_null(self, text: str) -> bool:
        return not self._is_plain(text) and text.strip().casefold() in self._tokens

    def _is_plain(self, text: str) -> bool:
        """Whether a glance shows that `text` is no null: it is longer than all of them, and not padded."""
        return len(text) > self._longest and not text[0].isspace() and not text[-1].isspace()
