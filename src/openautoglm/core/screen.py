"""The live screen on a terminal: one rich display for the process, one row for each bar.

A terminal is one thing shared by all, so its state stands here, in one object with a lock.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Column

from openautoglm.core.log import write_line

if TYPE_CHECKING:
    from openautoglm.core.progress import Progress


def is_terminal() -> bool:
    """Whether standard error is a terminal that can show a live bar."""
    return _isatty(sys.stderr) and not Console(file=sys.stderr).is_dumb_terminal


def _isatty(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False


class Deaf:
    """A stream which stops writing, without a word, once the stream behind it is closed or broken."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.broken = False

    def write(self, text: str) -> int:
        """Write the text, or drop it when nobody can read it any more."""
        if not self.broken:
            try:
                self._stream.write(text)
            except (OSError, ValueError):
                self.broken = True
        return len(text)

    def flush(self) -> None:
        """Flush the stream behind."""
        if not self.broken:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self.broken = True

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


class Screen:
    """Starts the display with the first row and stops it with the last."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._display: RichProgress | None = None

    def open(self, label: str, unit: str) -> TaskID:
        """Add a row and return its key."""
        with self._lock:
            if self._display is None:
                self._display = self._new_display()
                self._display.start()
            return self._display.add_task(label, total=None, figures=f"0 {unit}")

    def show(self, row: TaskID, done: float, total: float | None, figures: str) -> None:
        """Bring a row up to date."""
        with self._lock:
            if self._display is not None:
                self._display.update(row, completed=done, total=total, figures=figures)

    def close(self, row: TaskID, summary: str | None) -> None:
        """Take a row away; the summary stays above the remaining rows."""
        with self._lock:
            if self._display is None:
                return
            self._display.remove_task(row)
            if not self._display.tasks:
                self._display.stop()
                self._display = None
        if summary:
            write_line(summary)

    @staticmethod
    def _new_display() -> RichProgress:
        console = Console(file=cast(TextIO, Deaf(sys.stderr)))
        columns = (
            TextColumn("{task.description}", style="bold", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=16, table_column=Column(min_width=10)),
            TimeElapsedColumn(table_column=Column(no_wrap=True, min_width=7)),
            TextColumn("{task.fields[figures]}", markup=False,
                       table_column=Column(no_wrap=True, overflow="ellipsis")))
        # A result that is piped elsewhere must stay in its pipe, so stdout is only taken over on a terminal.
        return RichProgress(*columns, console=console, transient=True, redirect_stdout=_isatty(sys.stdout))


_SCREEN = Screen()


class Row:
    """One bar of the live screen."""

    every_s = 0.1

    def __init__(self, label: str, unit: str) -> None:
        self._row = _SCREEN.open(label, unit)

    def show(self, bar: Progress) -> None:
        """Show the present state."""
        figures = bar.line().removeprefix(f"{bar.label}: ")
        _SCREEN.show(self._row, bar.done, bar.total, figures)

    def close(self, summary: str | None) -> None:
        """Take the row away and leave the summary behind."""
        _SCREEN.close(self._row, summary)
