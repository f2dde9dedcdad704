"""What every format is read into: a table of rows, bad ones among them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple


class Row(NamedTuple):
    """One record: its first line, its values by column, and its text (empty: show the values)."""

    line: int
    values: Mapping[str, Any]
    raw: str


class Bad(NamedTuple):
    """One record that is none: its first line, a reason slug, a detail, and the text."""

    line: int
    reason: str
    detail: str
    raw: str


class Table(NamedTuple):
    """A file as rows; `columns` is None where every row names its own (JSON)."""

    columns: tuple[str, ...] | None
    rows: Iterator[Row | Bad]
