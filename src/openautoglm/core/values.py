"""Values that travel between rooms: frozen, small, with no behaviour beyond what they derive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple


class Origin(NamedTuple):
    """Where a datum comes from: the file as given, and its first line (1-based; row number in Parquet)."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


class Turn(NamedTuple):
    """One earlier turn of a conversation: role (``system``, ``user``, ``assistant``, ``observation``) and text."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Example:
    """One training pair as it travels.

    Attributes:
        source: the input text (empty for plain language modelling).
        target: the text to be learnt.
        origin: file and line it was read from.
        fields: name and value of the record behind the source (columns, or parsed from the source);
            rules, slot coverage and reranking read them.
        turns: earlier turns of a conversation, oldest first.
    """

    source: str
    target: str
    origin: Origin
    fields: tuple[tuple[str, str], ...] = ()
    turns: tuple[Turn, ...] = ()

    def with_(self, **changes: object) -> Example:
        """Return a copy with the named attributes replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Reject:
    """One row that could not be read: origin, reason (a short slug and detail), and the raw text (bounded)."""

    origin: Origin
    reason: str
    detail: str
    raw: str
