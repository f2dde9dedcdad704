"""Script: texts written mostly in other scripts than the expected ones leave the data."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Drop, Rule, Side
from openautoglm.data.rules.patterns import compiled


def _known(script: str) -> str:
    if not script.replace("_", "").isalpha():
        raise ValueError(f"{script!r} is not the name of a script")
    try:
        compiled(rf"\p{{Script={script}}}")
    except ValueError as error:
        raise ValueError(
            f"{script!r} is not the name of a Unicode script, such as Latin, Han, Cyrillic") from error
    return script


ScriptName = Annotated[str, AfterValidator(_known)]


class Script(Rule):
    """Drop examples in which too few letters belong to the allowed scripts (Unicode Standard Annex 24).

    Digits, punctuation and symbols belong to every script and do not count; a text without letters passes.
    """

    name: ClassVar[str] = "script"

    allowed: tuple[ScriptName, ...] = Field(
        min_length=1, description="Names of Unicode scripts, e.g. Latin, Han, Hiragana, Cyrillic.")
    min_share: float = Field(0.8, ge=0, le=1, description="Smallest share of letters in the allowed scripts.")
    on: tuple[Side, ...] = Field(("target",), description="Which texts are looked at.")

    @cached_property
    def _foreign(self) -> Any:
        scripts = "".join(rf"\p{{Script={script}}}" for script in self.allowed)
        return compiled(rf"(?V1)[\p{{L}}--[{scripts}]]")

    @cached_property
    def _latin(self) -> bool:
        return "latin" in (script.lower() for script in self.allowed)

    def apply(self, example: Example) -> Example | Drop:
        for side in self.on:
            share = self.share(example.source if side == "source" else example.target)
            if share < self.min_share:
                scripts = " or ".join(self.allowed)
                return Drop(f"{share:.0%} of the letters of the {side} are {scripts}, "
                            f"fewer than {self.min_share:.0%}")
        return example

    def share(self, text: str) -> float:
        """Return the share of the letters of `text` in the allowed scripts; 1.0 without letters."""
        if self._latin and text.isascii():
            return 1.0
        letters = sum(map(str.isalpha, text))
        return 1.0 - len(self._foreign.findall(text)) / letters if letters else 1.0
