"""Mojibake: text decoded with the wrong encoding becomes what it was (``CafÃ©`` -> ``Café``), by ftfy."""

from __future__ import annotations

import functools
import re
from typing import Any, ClassVar, Literal

from pydantic import Field

from openautoglm.core.extras import require
from openautoglm.core.values import Example
from openautoglm.data.rules.base import Rule, Side, rewritten

Also = Literal["entities", "ligatures", "widths", "quotes", "line_breaks", "controls", "terminal",
               "surrogates"]
_OPTIONS = {"entities": "unescape_html", "ligatures": "fix_latin_ligatures", "widths": "fix_character_width",
            "quotes": "uncurl_quotes", "line_breaks": "fix_line_breaks", "controls": "remove_control_chars",
            "terminal": "remove_terminal_escapes", "surrogates": "fix_surrogates"}


@functools.cache
def _suspicion() -> re.Pattern[str]:
    """What every repairable text holds: two neighbours, or two around a blank, out of one-byte code pages.

    UTF-8 spells a character beyond ASCII in two bytes or more, each of 128 and above, so a wrong decoding
    leaves neighbours; a second byte A0 may have become a blank; C1 controls are suspicious alone. The test of
    ftfy itself costs 60 microseconds for a sentence, this one about 1.5.
    """
    chardata = require("ftfy", "train").chardata
    high = bytes(range(128, 256))
    pages = "".join(high.decode(page, "ignore") for page in chardata.CHARMAP_ENCODINGS)
    letters = re.escape("".join(sorted({*pages, "\ufffd", "\x1a"})))
    leads = "ÂÃÅÎÐÙ"
    return re.compile(f"[{letters}\x80-\x9f](?:(?<=[\x80-\x9f])| ?[{letters}]|(?<=[{leads}]) )")


def _is_suspicious(text: str) -> bool:
    return not text.isascii() and _suspicion().search(text) is not None


class Mojibake(Rule):
    """Repair texts that went through a wrong decoding, once or several times; leave all others as they are.

    Source: ftfy (https://ftfy.readthedocs.io), whose heuristic decides what is mojibake.
    """

    name: ClassVar[str] = "mojibake"

    on: tuple[Side, ...] = Field(("source", "target"), description="Which sides of an example are rewritten.")
    also: tuple[Also, ...] = Field(
        (), description="Further repairs of ftfy: HTML entities, ligatures, widths, curly quotes and others.")

    def apply(self, example: Example) -> Example:
        return rewritten(example, self.on, self.rewrite, None if self.also else _is_suspicious)

    def rewrite(self, text: str) -> str:
        """Return `text` repaired; the same object where nothing was wrong."""
        if not self.also and not _is_suspicious(text):
            return text
        fixed: str = require("ftfy", "train").fix_text(text, self._config)
        return text if fixed == text else fixed

    @functools.cached_property
    def _config(self) -> Any:
        options = {option: name in self.also for name, option in _OPTIONS.items()}
        return require("ftfy", "train").TextFixerConfig(normalization=None, **options)
