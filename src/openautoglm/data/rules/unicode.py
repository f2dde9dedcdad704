"""Unicode normalisation: one form of every character, so that equal texts are equal bytes."""

from __future__ import annotations

import unicodedata
from typing import ClassVar, Literal

from pydantic import Field

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Rule, Side, rewritten


class Unicode(Rule):
    """Bring texts into a Unicode normalisation form (Unicode Standard Annex 15)."""

    name: ClassVar[str] = "unicode"

    on: tuple[Side, ...] = Field(("source", "target"), description="Which sides of an example are rewritten.")
    form: Literal["NFC", "NFKC", "NFD", "NFKD"] = Field(
        "NFC",
        description="NFC keeps the look of every text; NFKC also unifies widths, ligatures and superscripts.")

    def apply(self, example: Example) -> Example:
        return rewritten(example, self.on, self.rewrite, self._may_change)

    def rewrite(self, text: str) -> str:
        """Return `text` in the form; the same object where it was in it."""
        return unicodedata.normalize(self.form, text) if self._may_change(text) else text

    def _may_change(self, text: str) -> bool:
        return not (text.isascii() or unicodedata.is_normalized(self.form, text))
