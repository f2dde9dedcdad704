"""JSON Lines: one object a line."""

from __future__ import annotations

from collections.abc import Iterator

from openautoglm.data.read.lines import Line
from openautoglm.data.read.row import Bad, Row, Table
from openautoglm.data.read.strict_json import Number, StrictJsonError, parse


def json_lines(lines: Iterator[Line], *, max_depth: int) -> Table:
    """Read one object a line. Blank lines are no rows."""
    return Table(None, _rows(lines, max_depth))


def _rows(lines: Iterator[Line], max_depth: int) -> Iterator[Row | Bad]:
    for number, text, fault in lines:
        if fault is not None:
            yield Bad(number, fault.reason, fault.detail, text)
        elif text and not text.isspace():
            yield json_row(number, text, max_depth)


def json_row(number: int, text: str, max_depth: int) -> Row | Bad:
    """Parse one object into a row."""
    try:
        value = parse(text, max_depth)
    except StrictJsonError as error:
        return Bad(number, error.reason, error.detail, text)
    if not isinstance(value, dict):
        return Bad(number, "not_an_object", f"the row is a JSON {kind(value)}, not an object with columns",
                   text)
    return Row(number, value, text)


def looks_like_lines(head: bytes) -> bool:
    """Whether a JSON file, by its beginning, is one object a line rather than one array or object."""
    found = [line.strip() for line in head.split(b"\n") if line.strip()][:2]
    opened = len(found) == 2 and found[0].startswith(b"{") and found[1].startswith(b"{")
    return opened and found[0].endswith(b"}")


def kind(value: object) -> str:
    """The JSON name of a value's kind."""
    names = {dict: "object", list: "array", bool: "boolean", type(None): "null", str: "string",
             Number: "number"}
    return names.get(type(value), type(value).__name__)
