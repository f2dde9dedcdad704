"""Plain text: a row is a paragraph or a line, in the one column `text`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from openautoglm.data.read.lines import Line, LineFault
from openautoglm.data.read.row import Bad, Row, Table

COLUMN = "text"


def plain_text(lines: Iterator[Line], *, unit: Literal["paragraph", "line"], max_row_bytes: int) -> Table:
    """Read paragraphs (separated by blank lines) or every line that is not blank."""
    return Table((COLUMN,), _lines(lines) if unit == "line" else _paragraphs(lines, max_row_bytes))


def _lines(lines: Iterator[Line]) -> Iterator[Row | Bad]:
    for number, text, fault in lines:
        if fault is not None:
            yield Bad(number, fault.reason, fault.detail, text)
        elif text and not text.isspace():
            text = text.removesuffix("\r")
            yield Row(number, {COLUMN: text}, text)


def _paragraphs(lines: Iterator[Line], limit: int) -> Iterator[Row | Bad]:
    start, size, held = 0, 0, list[str]()
    wrong: LineFault | None = None
    for number, text, fault in lines:
        if fault is None and (not text or text.isspace()):
            if held:
                yield _paragraph(start, held, wrong)
            start, size, held, wrong = 0, 0, [], None
            continue
        start = start or number
        size += len(text.encode("utf-8", "replace")) + 1
        if size > limit + 1 and wrong is None:
            wrong = LineFault("row_too_long", f"the paragraph is longer than max_row_bytes ({limit:,} bytes)")
        wrong = wrong or fault
        if wrong is None or not held:
            held.append(text.removesuffix("\r"))
    if held:
        yield _paragraph(start, held, wrong)


def _paragraph(start: int, held: list[str], fault: LineFault | None) -> Row | Bad:
    text = "\n".join(held)
    if fault is not None:
        return Bad(start, fault.reason, fault.detail, text)
    return Row(start, {COLUMN: text}, text)
