"""The result of an evaluation: figures with their full names, intervals and signatures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from openautoglm.evaluate.base import Better


@dataclass(frozen=True, slots=True)
class Score:
    """One figure.

    Attributes:
        key: short name in settings, e.g. ``bleu``.
        name: full name with its variant, to be shown beside the figure.
        value: the figure on all cases.
        low, high: bounds of its bootstrap interval; None without one.
        signature: settings and versions it depends on.
        better: which way is better.
    """

    key: str
    name: str
    value: float
    low: float | None
    high: float | None
    signature: str
    better: Better


@dataclass(frozen=True, slots=True)
class Scores:
    """All figures of one evaluation; ``scores["bleu"]`` gives one.

    Attributes:
        all: the figures, in table order.
        cases, references: how many were compared.
        bootstrap: signature of the intervals, empty without them.
        notes: what a reader should know before trusting the figures.
    """

    all: tuple[Score, ...]
    cases: int
    references: int
    bootstrap: str
    notes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Score]:
        return iter(self.all)

    def __contains__(self, key: object) -> bool:
        return any(score.key == key for score in self.all)

    def __getitem__(self, key: str) -> Score:
        """Return the figure of a metric's key; KeyError names those that are there."""
        for score in self.all:
            if score.key == key:
                return score
        raise KeyError(f"{key}; measured were {', '.join(score.key for score in self.all)}")

    def values(self) -> dict[str, float]:
        """Return the figures alone, by key."""
        return {score.key: score.value for score in self.all}

    def table(self) -> str:
        """Return a table for people: name, figure, interval."""
        rows = [(score.name, _show(score.value), _span(score)) for score in self.all]
        width = max(len(name) for name, _, _ in rows)
        spans = max(len(span) for _, _, span in rows)
        lines = [f"{name:<{width}}  {value:>9}  {span:>{spans}}".rstrip() for name, value, span in rows]
        foot = f"{self.cases} cases, {self.references} references"
        foot += f"; {self.bootstrap}" if self.bootstrap else ""
        return "\n".join([*lines, foot, *(f"note: {note}" for note in self.notes)])

    def to_dict(self) -> dict[str, Any]:
        """Return plain containers for JSON."""
        return {
            "cases": self.cases, "references": self.references, "bootstrap": self.bootstrap,
            "notes": list(self.notes),
            "scores": {score.key: {"name": score.name, "value": score.value, "low": score.low,
                                   "high": score.high, "signature": score.signature, "better": score.better}
                       for score in self.all},
        }


def _span(score: Score) -> str:
    return "" if score.low is None or score.high is None else f"[{_show(score.low)}, {_show(score.high)}]"


def _show(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4f}"
