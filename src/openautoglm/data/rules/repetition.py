"""Repetition: texts that say the same thing over and over leave the data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from openautoglm.core.values import Example
from openautoglm.data.rules.base import Drop, Rule, Side

_HAN_AND_KANA = r"\u3040-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_HAN_AND_KANA}]|[^\W{_HAN_AND_KANA}]+")
_RUN = re.compile(r"([^\s])\1+")


def repeated_share(items: Sequence[object]) -> float:
    """Return the share of `items` that occurred before; 0.0 for none."""
    return 1 - len(set(items)) / len(items) if items else 0.0


class Repetition(Rule):
    """Drop texts with too many repeated word n-grams, repeated lines, or one character in a long run.

    Chinese characters and kana count as a word each. Source of the measures: Rae et al. 2021 (Gopher), table
    A1.
    """

    name: ClassVar[str] = "repetition"

    ngram: int = Field(3, ge=1, description="How many words make an n-gram.")
    max_ngram_share: float = Field(
        0.3, ge=0, le=1, description="Largest share of n-grams that occurred before.")
    min_words: int = Field(12, ge=1, description="Texts of fewer words are not judged by their n-grams.")
    max_line_share: float = Field(0.3, ge=0, le=1, description="Largest share of lines that occurred before.")
    min_lines: int = Field(4, ge=1, description="Texts of fewer lines are not judged by their lines.")
    max_run: int = Field(20, ge=1, description="Longest run of one character; whitespace does not count.")
    on: tuple[Side, ...] = Field(("target",), description="Which texts are looked at.")

    def apply(self, example: Example) -> Example | Drop:
        for side in self.on:
            fault = self._fault(example.source if side == "source" else example.target)
            if fault:
                return Drop(f"{side}: {fault}")
        return example

    def _fault(self, text: str) -> str:
        words = _TOKEN.findall(text.casefold())
        if len(words) >= self.min_words:
            share = repeated_share(list(zip(*(words[start:] for start in range(self.ngram)), strict=False)))
            if share > self.max_ngram_share:
                most = self.max_ngram_share
                return f"{share:.0%} of its {self.ngram}-grams are repeated, more than {most:.0%}"
        if "\n" in text:
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            share = repeated_share(lines)
            if len(lines) >= self.min_lines and share > self.max_line_share:
                return f"{share:.0%} of its lines are repeated, more than {self.max_line_share:.0%}"
        longest = max((run.end() - run.start() for run in _RUN.finditer(text)), default=1)
        if text and longest > self.max_run:
            return f"one character {longest} times in a row, more than {self.max_run}"
        return ""
