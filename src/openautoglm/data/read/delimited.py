"""CSV and TSV: logical rows with the number of their first line, and recovery after a broken quote."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import Literal

from openautoglm.core.errors import DataError
from openautoglm.data.read.lines import Line
from openautoglm.data.read.row import Bad, Row, Table


class _RowTooLongError(Exception):
    """The row being read cannot be completed."""


class _Feed:
    """Feeds lines to the csv reader and keeps those of the current row, so that they can be read again."""

    def __init__(self, lines: Iterator[Line], limit: int) -> None:
        self.lines, self.limit = lines, limit
        self.again: deque[Line] = deque()
        self.held: list[Line] = []

    def __iter__(self) -> Iterator[str]:
        lines, held, again, size = self.lines, self.held, self.again, 0
        while True:
            line = again.popleft() if again else next(lines, None)
            if line is None:
                return
            size = size + len(line[1]) if held else len(line[1])
            held.append(line)
            if size > self.limit or (line[2] is not None and not line[2].whole):
                raise _RowTooLongError
            yield line[1] + "\n"

    def take(self) -> list[Line]:
        """Return the lines of the current row and begin the next row."""
        held = self.held.copy()
        self.held.clear()
        return held

    def give_up(self) -> list[Line]:
        """Give up the first line of the current row; the others are read again as rows of their own."""
        held = self.take()
        self.again.extendleft(reversed(held[1:]))
        return held


_Record = tuple[int, list[str], str]


def _records(feed: _Feed, delimiter: str, quoting: bool) -> Iterator[_Record | Bad]:
    how: Literal[0, 3] = csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE
    csv.field_size_limit(max(csv.field_size_limit(), feed.limit + 1))
    while True:
        try:
            for cells in csv.reader(feed, delimiter=delimiter, quoting=how, strict=True):
                held = feed.held
                if len(held) > 1:
                    yield _many(feed.take(), cells)
                    continue
                number, text, fault = held.pop()
                if fault is not None:
                    yield Bad(number, fault.reason, fault.detail, text)
                elif cells:
                    yield number, cells, text
            return
        except (csv.Error, _RowTooLongError) as error:
            yield _broken(feed.give_up(), error, feed.limit)


def _many(held: list[Line], cells: list[str]) -> _Record | Bad:
    raw = "\n".join(text for _, text, _ in held)
    for number, _, fault in held:
        if fault is not None:
            return Bad(held[0][0], fault.reason, f"{fault.detail} {number}", raw)
    return held[0][0], cells, raw


def _broken(held: list[Line], error: Exception, limit: int) -> Bad:
    number, text, fault = held[0]
    if fault is not None:
        return Bad(number, fault.reason, fault.detail, text)
    if isinstance(error, _RowTooLongError):
        return Bad(number, "unclosed_quote", f"a quote opened here is not closed within {limit:,} bytes "
                   f"or before line {held[-1][0]}", text)
    if len(held) > 1 or "unexpected end" in str(error):
        return Bad(number, "unclosed_quote",
                   f"a quote opened here is not closed properly (line {held[-1][0]})", text)
    return Bad(number, "broken_row", str(error), text)


def delimited(lines: Iterator[Line], *, delimiter: str, quoting: bool, header: tuple[str, ...] | None,
              max_row_bytes: int, where: str) -> Table:
    """Read rows under a header. Blank lines are no rows.

    A quote that does not close within `max_row_bytes`, or is followed by more text in its cell, costs the
    line it was opened in: reading goes on at the next line.

    Raises:
        DataError: the header row is unreadable.
    """
    records = _records(_Feed(lines, max_row_bytes), delimiter, quoting)
    if header is None:
        first = next(records, None)
        if isinstance(first, Bad):
            raise DataError(f"the header row is unreadable: {first.detail}", where=f"{where}:{first.line}",
                            remedy="repair the first line, or set data.encoding, data.delimiter or "
                                   "data.quoting")
        header = tuple(first[1]) if first is not None else ()
    return Table(header, _rows(records, header))


def _rows(records: Iterator[_Record | Bad], names: tuple[str, ...]) -> Iterator[Row | Bad]:
    width = len(names)
    for record in records:
        if isinstance(record, Bad):
            yield record
        elif len(record[1]) == width:
            yield Row(record[0], dict(zip(names, record[1], strict=True)), record[2])
        else:
            yield Bad(record[0], "wrong_columns", f"{len(record[1])} cells where the header has {width}",
                      record[2])
