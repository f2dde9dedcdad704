"""From a cell to text, or the reason why not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from typing import Any

from openautoglm.data.read.json_lines import kind
from openautoglm.data.read.strict_json import Number


class UnfitError(Exception):
    """A row that is read but makes no example: a reason slug and a detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def as_text(values: Mapping[str, Any], column: str, empty: bool, *, missing: bool | None = None) -> str:
    """Return a cell as text.

    Numbers stay as written, true and false become words, a list of strings becomes lines.

    Args:
        values: the row.
        column: the column.
        empty: whether an empty or null cell is the empty text.
        missing: whether a missing column is, too (default: as `empty`).

    Raises:
        UnfitError: ``missing_column``, ``null``, ``empty``, ``not_text``, ``nul_byte``.
    """
    value = values.get(column)
    if type(value) is not str:
        value = _converted(values, value, column, empty, empty if missing is None else missing)
    if "\0" in value:
        raise UnfitError("nul_byte", f"the column {column!r} holds a NUL character")
    if not empty and (not value or value.isspace()):
        raise UnfitError("empty", f"the column {column!r} is empty")
    return value


def _converted(values: Mapping[str, Any], value: Any, column: str, empty: bool, missing: bool) -> str:
    if value is None:
        if column not in values and not missing:
            shown = ", ".join(repr(name[:60]) for name in list(values)[:20])
            raise UnfitError("missing_column",
                             f"the row has no column {column!r} (it has: {shown or 'none'})")
        if not empty:
            raise UnfitError("null", f"the column {column!r} is null")
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, int | float):
        if value != value or value in (float("inf"), float("-inf")):
            raise UnfitError("not_finite", f"the column {column!r} is {value}")
        return str(value)
    if isinstance(value, date | time | Decimal):
        return str(value)
    if isinstance(value, list) and all(type(item) is str for item in value):
        return "\n".join(value)
    raise UnfitError("not_text", f"the column {column!r} is of the kind {kind(value)}, not text")
