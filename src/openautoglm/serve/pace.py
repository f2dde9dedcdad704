"""How fast requests end, and whether an engine makes progress."""

from __future__ import annotations

from collections import deque

_STALLED_S = 30.0


class Pace:
    """How fast requests end, to say when it is worth to come again."""

    def __init__(self, most: int = 128) -> None:
        self._ends: deque[float] = deque(maxlen=most)

    def note(self, now: float) -> None:
        """A request has ended."""
        self._ends.append(now)

    def retry_after_s(self, waiting: int, now: float) -> float:
        """Seconds until the present queue will have been served at the pace of late, between 1 and 60."""
        if not self._ends or now <= self._ends[0]:
            return 1.0
        return min(60.0, max(1.0, waiting * (now - self._ends[0]) / len(self._ends)))


class Watch:
    """Notices an engine that has work but does not step."""

    def __init__(self, stalled_s: float = _STALLED_S) -> None:
        self.stalled_s = stalled_s
        self._steps, self._since = -1, 0.0

    def idle_s(self, steps: int, busy: bool, now: float) -> float:
        """Tell it how the engine stands; returns for how long it has had work without a step."""
        if steps != self._steps or not busy:
            self._steps, self._since = steps, now
        return now - self._since
