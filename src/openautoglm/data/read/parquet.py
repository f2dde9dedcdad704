"""Parquet in batches, through polars; the row number (1-based) stands for the line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openautoglm.core.errors import DataError, MissingExtraError
from openautoglm.data.read.row import Bad, Row, Table
from openautoglm.data.read.source import open_file

BATCH_ROWS = 8192
MAGIC = b"PAR1"


def parquet(path: Path, needed: tuple[str, ...], *, max_row_bytes: int) -> Table:
    """Read the needed columns, a batch at a time.

    A batch that cannot be decoded is one bad row, and the end of its file.

    Raises:
        DataError: the file cannot be opened or is not Parquet.
        MissingExtraError: polars is not installed.
    """
    with open_file(path) as file:
        head = file.read(4)
    if head != MAGIC:
        raise DataError("is not a Parquet file (it does not begin with PAR1)", where=str(path),
                        remedy="set data.format to what the file is")
    try:
        import polars as pl
    except ImportError as error:
        raise MissingExtraError("polars", "train") from error
    errors = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError, ValueError)
    try:
        frame = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        columns = tuple(frame.collect_schema().names())
    except errors as error:
        raise DataError(f"the Parquet file is damaged: {_short(error)}", where=str(path),
                        remedy="write the file again, or leave it out") from error
    return Table(columns, _rows(frame.select([name for name in needed if name in columns]), errors,
                                max_row_bytes))


def _short(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _rows(frame: Any, errors: tuple[type[BaseException], ...], limit: int) -> Iterator[Row | Bad]:
    number = 0
    batches = _batches(frame)
    while True:
        try:
            batch = next(batches, None)
        except errors as error:
            yield Bad(number + 1, "damaged_parquet", f"rows from here on cannot be read: {_short(error)}", "")
            return
        if batch is None:
            return
        for values in batch:
            number += 1
            size = sum(len(value) for value in values.values() if isinstance(value, str | bytes))
            if size > limit:
                yield Bad(number, "row_too_long", f"longer than max_row_bytes ({limit:,} bytes)", "")
            else:
                yield Row(number, values, "")


def _batches(frame: Any) -> Iterator[list[dict[str, Any]]]:
    start = 0
    while True:
        batch = frame.slice(start, BATCH_ROWS).collect(engine="streaming")
        if batch.height == 0:
            return
        yield batch.to_dicts()
        start += batch.height
