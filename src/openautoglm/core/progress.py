"""Progress of long work: a bar on a terminal, plain lines elsewhere, nothing where the log is above ``info``.

::

    with progress(total=len(rows), label="clean", unit="rows") as bar:
        for row in rows:
            bar.advance(1, kept=kept)

Bars may be nested and may end in any order: the screen is one, and each bar is a row of it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from openautoglm.core import log

LINE_EVERY_S = 10.0
BAR_EVERY_S = 0.1
SUMMARY_FROM_S = 1.0
RATE_OVER_S = 30.0

Shown = float | int | str


class View(Protocol):
    """What shows a bar: a row of the live screen, lines in the log, or nothing."""

    every_s: float

    def show(self, bar: Progress) -> None:
        """Show the present state."""

    def close(self, summary: str | None) -> None:
        """Take the bar away and leave the summary behind."""


class Progress:
    """The state of one piece of long work. Made by `progress`; not for several threads at once.

    Attributes:
        total: how much there is to do in `unit`, or None when unknown.
        done: how much is done.
        shown: further facts to show, for example the loss.
    """

    def __init__(self, total: float | None, label: str, unit: str, done: float, view: View) -> None:
        self.total, self.label, self.unit, self.done = total, label, unit, done
        self.shown: dict[str, Shown] = {}
        self._view = view
        self._started = self._pushed = monotonic()
        self._counted = (self._started, done)
        self._recent: deque[tuple[float, float]] = deque([self._counted])

    def resume(self, done: float) -> None:
        """Say that `done` units are done, those before a resumption among them; the rate is reckoned from here on."""
        self.done = done
        self._counted = (monotonic(), done)
        self._recent = deque([self._counted])

    def advance(self, n: float = 1, **shown: Shown) -> None:
        """Count `n` more units as done; keywords are shown beside the bar."""
        self.done += n
        self.update(**shown)

    def update(self, **shown: Shown) -> None:
        """Change what is shown beside the bar."""
        if shown:
            self.shown.update(shown)
        now = monotonic()
        if now - self._recent[-1][0] >= BAR_EVERY_S:
            self._recent.append((now, self.done))
            while now - self._recent[1][0] > RATE_OVER_S:
                self._recent.popleft()
        if now - self._pushed >= self._view.every_s:
            self._pushed = now
            self._view.show(self)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return monotonic() - self._started

    @property
    def rate(self) -> float:
        """Units per second over the last half minute."""
        then, done = self._recent[0]
        return (self.done - done) / max(monotonic() - then, 1e-9)

    @property
    def left_s(self) -> float | None:
        """Seconds left at the present rate; None when the total is unknown or nothing was done yet."""
        if self.total is None or self.rate <= 0:
            return None
        return max(self.total - self.done, 0.0) / self.rate

    def facts(self) -> str:
        """What is shown beside the bar, as text."""
        return "  ".join(f"{key} {amount(value)}" for key, value in self.shown.items())

    def line(self) -> str:
        """Return the present state as one line of text."""
        parts = [f"{amount(self.done)}" + (f"/{amount(self.total)}" if self.total is not None else "")
                 + f" {self.unit}"]
        if self.total:
            parts[0] += f" ({min(self.done / self.total, 1.0):.0%})"
        parts.append(f"{amount(self.rate)} {self.unit}/s")
        if self.left_s is not None:
            parts.append(f"{duration(self.left_s)} left")
        return f"{self.label}: " + ", ".join(parts) + (f"  {self.facts()}" if self.shown else "")

    def close(self, finished: bool) -> None:
        """Take the bar away; work of a second or more leaves one line behind."""
        took = self.elapsed_s
        if took < SUMMARY_FROM_S:
            self._view.close(None)
            return
        count = f"{amount(self.done)} {self.unit} in {duration(took)}"
        since, before = self._counted
        rate = f"{amount((self.done - before) / max(monotonic() - since, 1e-9))} {self.unit}/s"
        verb = "" if finished else "stopped after "
        self._view.close(f"{self.label}: {verb}{count}, {rate}" + (f"  {self.facts()}" if self.shown else ""))


@contextmanager
def progress(total: float | None, label: str, unit: str, *, done: float = 0.0, quiet: bool = False,
             live: bool = True) -> Iterator[Progress]:
    """Show the progress of long work on standard error, with its rate and the time left.

    Args:
        total: how much there is to do, in `unit`; None when unknown.
        label: what is being done, one or two words.
        unit: what is counted, in the plural.
        done: how much was done before (a resumed run); it does not count for the rate.
        quiet: show nothing; so does a log level above ``info``.
        live: False shows plain lines on a terminal too, for work whose timing a screen would disturb.

    A closed or broken standard error ends the showing, never the work.
    """
    bar = Progress(total, label, unit, done, _view(label, unit, quiet, live))
    finished = False
    try:
        yield bar
        finished = True
    finally:
        bar.close(finished)


def _view(label: str, unit: str, quiet: bool, live: bool) -> View:
    if quiet or log.get().level > logging.INFO:
        return Nothing()
    if not live:
        return Lines()
    from openautoglm.core.screen import Row, is_terminal

    return Row(label, unit) if is_terminal() else Lines()


class Nothing:
    """Shows nothing."""

    every_s = float("inf")

    def show(self, bar: Progress) -> None:
        """Show nothing."""

    def close(self, summary: str | None) -> None:
        """Show nothing."""


class Lines:
    """A plain line now and then, through the log where it is configured, else to standard error."""

    every_s = LINE_EVERY_S

    def show(self, bar: Progress) -> None:
        """Write the present state as one line."""
        self._write(bar.line())

    def close(self, summary: str | None) -> None:
        """Write the summary."""
        if summary:
            self._write(summary)

    def _write(self, line: str) -> None:
        if log.get().handlers:
            log.get("progress").info(line)
        else:
            log.write_line(line)


def amount(value: Shown) -> str:
    """Return a figure for people: thousands with commas, four digits of a fraction, text as it is."""
    if isinstance(value, str):
        return value
    if float(value).is_integer() or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def duration(seconds: float) -> str:
    """Return a time for people: ``8.2 s``, ``3:07``, ``2:03:07``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
