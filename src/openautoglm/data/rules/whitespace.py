"""Whitespace: trimmed, doubled spaces collapsed, line ends made plain, control characters removed."""

from __future__ import annotations

import re
import sys
from typing import ClassVar, Literal

from pydantic import Field

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Rule, Side, rewritten

_SPACES = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_DOUBLED = re.compile(r"(?<=\S) {2,}")
_RUN = re.compile(rf"(?<=\S)[ \t{_SPACES}]+")
_LINE_ENDS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
_PADDED_LINE_ENDS = re.compile(f"[ \t{_SPACES}]+(?=\n)")
_PADDED_LINES = re.compile(f"[ \t{_SPACES}]*\n\\s*")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ufff9-\ufffb]")
_INVISIBLE = re.compile("[\u00ad\u200b\u2060]")


def _may_change(texts: str) -> bool:
    return ("  " in texts or "| " in texts or " |" in texts or not texts.isprintable()
            or texts[:1] == " " or texts[-1:] == " ")


class Whitespace(Rule):
    """Trim texts, collapse runs of spaces, unify line ends, remove control characters.

    The indentation of lines after the first is kept. Joiners that scripts and emoji need (ZWJ, ZWNJ) and
    marks of direction stay.
    """

    name: ClassVar[str] = "whitespace"

    on: tuple[Side, ...] = Field(("source", "target"), description="Which sides of an example are rewritten.")
    trim: bool = Field(
        True, description="Remove whitespace at both ends of a text and at the ends of its lines.")
    collapse: bool = Field(True, description="Make a run of spaces inside a line one space.")
    plain_spaces: bool = Field(
        True, description="Make tabs, no-break, ideographic and other wide spaces a plain space.")
    newlines: Literal["keep", "space"] = Field(
        "keep", description="`keep` unifies line ends to a line feed; `space` joins lines by one space.")
    blank_lines: int = Field(1, ge=0, description="How many blank lines may follow each other.")
    controls: bool = Field(True, description="Remove control characters, byte order marks among them.")
    invisible: bool = Field(
        False,
        description="Remove zero-width spaces, word joiners and soft hyphens; Thai and Khmer use the first.")

    def apply(self, example: Example) -> Example:
        return rewritten(example, self.on, self.rewrite, _may_change)

    def rewrite(self, text: str) -> str:
        """Return `text` cleaned; the same object where it was clean."""
        if not _may_change(text):
            return text
        if not text.isprintable():
            text = self._printable(text)
        if self.trim:
            text = text.strip()
        if not self.plain_spaces:
            return _DOUBLED.sub(" ", text) if self.collapse else text
        return _RUN.sub(" " if self.collapse else lambda run: " " * len(run[0]), text)

    def _printable(self, text: str) -> str:
        if self.controls:
            text = _CONTROLS.sub("", text)
        if self.invisible:
            text = _INVISIBLE.sub("", text)
        text = _LINE_ENDS.sub("\n", text)
        return self._lines(text) if "\n" in text else text

    def _lines(self, text: str) -> str:
        if self.newlines == "space":
            return _PADDED_LINES.sub(" ", text)
        if self.trim:
            text = _PADDED_LINE_ENDS.sub("", text)
        most = self.blank_lines + 1
        return re.sub(f"\n{{{most + 1},{sys.maxunicode}}}", "\n" * most, text)
