"""Open a file as a table by its format, and read files as a stream of examples and rejects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from openautoglm.core.values import Example, Reject
from openautoglm.data.read.delimited import delimited
from openautoglm.data.read.json_array import json_array
from openautoglm.data.read.json_lines import json_lines, looks_like_lines
from openautoglm.data.read.lines import lines
from openautoglm.data.read.parquet import parquet
from openautoglm.data.read.paths import file_format
from openautoglm.data.read.plain_text import plain_text
from openautoglm.data.read.row import Row, Table
from openautoglm.data.read.shape import shaped
from openautoglm.data.read.source import open_source
from openautoglm.data.settings import DataSettings

OnBytes = Callable[[int], None]
COLUMN_ROWS = 100


@contextmanager
def open_table(path: Path, settings: DataSettings, on_bytes: OnBytes | None = None) -> Iterator[Table]:
    """Open one file as a table of rows.

    Raises:
        DataError: the file cannot be opened, its format is not known, or its header is unreadable.
    """
    kind = file_format(path, settings)
    limit, depth = settings.max_row_bytes, settings.max_json_depth
    if kind == "parquet":
        yield parquet(path, settings.needed_columns(), max_row_bytes=limit)
        if on_bytes is not None:
            on_bytes(path.stat().st_size)
        return
    with open_source(path, settings.encoding, on_bytes) as source:
        if kind in ("csv", "tsv"):
            delimiter = settings.delimiter or ("," if kind == "csv" else "\t")
            yield delimited(lines(source, limit), delimiter=delimiter, quoting=settings.quoting,
                            header=settings.header, max_row_bytes=limit, where=str(path))
        elif kind == "text":
            yield plain_text(lines(source, limit), unit=settings.text_unit, max_row_bytes=limit)
        elif kind == "jsonl" or looks_like_lines(source.head):
            yield json_lines(lines(source, limit), max_depth=depth)
        else:
            yield json_array(source, max_row_bytes=limit, max_depth=depth)


def read(paths: Iterable[Path], settings: DataSettings, on_bytes: OnBytes | None = None
         ) -> Iterator[Example | Reject]:
    """Stream the rows of files, in order: each an example, or a reject with its file, line and reason.

    Args:
        paths: files, as `resolve` gives them.
        settings: format, shape and limits.
        on_bytes: told how many bytes on disk were read, for a progress bar; their sum is
            `count_bytes(paths)`.

    Raises:
        DataError: a file cannot be opened or lacks a column. A file that breaks in the middle gives a reject.
    """
    for path in paths:
        with open_table(path, settings, on_bytes) as table:
            yield from shaped(table, settings, str(path))


def columns(path: Path, settings: DataSettings) -> list[str]:
    """Return the columns of a file; of JSON, those of its first hundred objects.

    Raises:
        DataError: as `open_table`.
    """
    with open_table(path, settings) as table:
        if table.columns is not None:
            return list(table.columns)
        rows = (row for row in islice(table.rows, COLUMN_ROWS) if isinstance(row, Row))
        return list(dict.fromkeys(name for row in rows for name in row.values))
