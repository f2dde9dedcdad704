"""The quarantine: rejects go to a file with their reasons, are counted, and too many stop the run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from openautoglm.core.errors import DataError
from openautoglm.core.files import atomic_write
from openautoglm.core.values import Example, Reject
from openautoglm.data.read.reader import OnBytes, read
from openautoglm.data.settings import DataSettings

EARLY_ROWS = 1000


class RejectLog:
    """Writes rejects to `path` (one JSON object a line, atomically) and judges their share of all rows.

    A context manager: on leaving, the file is put in place and the share is judged. It is put in place too
    when the share is too large, so that the user can look; on any other error it is discarded.

    Args:
        path: where the rejects go; None to count only.
        max_ratio: the largest share of rows that may be rejected.

    Attributes:
        rows: rows seen, rejects included.
        counts: rejects by reason.
    """

    def __init__(self, path: Path | None, max_ratio: float) -> None:
        self.path, self.max_ratio = path, max_ratio
        self.rows = 0
        self.counts: Counter[str] = Counter()
        self._first: Reject | None = None
        self._stack = ExitStack()
        self._file: IO[Any] | None = None
        self._judged: DataError | None = None

    @property
    def rejects(self) -> int:
        """How many rows were rejected."""
        return self.counts.total()

    @property
    def ratio(self) -> float:
        """The share of rows that were rejected, 0 without rows."""
        return self.rejects / self.rows if self.rows else 0.0

    def __enter__(self) -> Self:
        if self.path is not None:
            self._file = self._stack.enter_context(atomic_write(self.path))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if error is None or error is self._judged:
            self._stack.close()
        else:
            self._stack.__exit__(kind, error, trace)
        if error is None:
            self.judge()

    def examples(self, items: Iterable[Example | Reject]) -> Iterator[Example]:
        """Pass the examples on and keep the rejects.

        Raises:
            DataError: early, when far too many of at least a thousand rows are rejects.
        """
        far = min(max(5 * self.max_ratio, 0.1), (1 + self.max_ratio) / 2)
        for item in items:
            self.rows += 1
            if isinstance(item, Example):
                yield item
                continue
            self._keep(item)
            if self.rows >= EARLY_ROWS and self.rejects > far * self.rows:
                self._judged = self._too_many()
                raise self._judged

    def judge(self) -> None:
        """Compare the share of rejects with the limit.

        Raises:
            DataError: it is larger.
        """
        if self.rejects and self.ratio > self.max_ratio:
            raise self._too_many()

    def _keep(self, reject: Reject) -> None:
        self._first = self._first or reject
        self.counts[reject.reason] += 1
        if self._file is not None:
            row = {"file": reject.origin.file, "line": reject.origin.line, "reason": reject.reason,
                   "detail": reject.detail, "raw": reject.raw}
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _too_many(self) -> DataError:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in self.counts.most_common(5))
        first = f"; the first: {self._first.detail}" if self._first else ""
        return DataError(
            f"{self.rejects:,} of {self.rows:,} rows cannot be read ({self.ratio:.1%}, allowed "
            f"{self.max_ratio:.1%}): {reasons}{first}",
            where=str(self._first.origin) if self._first else None,
            remedy=(f"look at {self.path}, then " if self.path else "") +
            "repair the rows, correct data.format, data.encoding or the columns, or raise "
            "data.max_reject_ratio")


def read_checked(paths: Iterable[Path], settings: DataSettings, log: Path | RejectLog | None,
                 on_bytes: OnBytes | None = None) -> Iterator[Example]:
    """Stream the examples of files; rejects are written to `log` and judged by `settings.max_reject_ratio`.

    Args:
        paths: files, as `resolve` gives them.
        settings: format, shape and limits.
        log: a file for this call, or an open `RejectLog` that several calls share (its owner judges at the
            end).
        on_bytes: as for `read`.

    Raises:
        DataError: a file cannot be read, or too many rows are rejects.
    """
    items = read(paths, settings, on_bytes)
    if isinstance(log, RejectLog):
        yield from log.examples(items)
        return
    with RejectLog(log, settings.max_reject_ratio) as own:
        yield from own.examples(items)
