"""Two things that make figures worthless, noticed while they happen: a stalled server and a saturated generator."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from openautoglm.bench.client import Pulse
from openautoglm.bench.pace import Pacer
from openautoglm.core import log

_LOOK_S = 0.02
_BUSY_S = 1.0
_log = log.get(__name__)


@dataclass(slots=True)
class Stall:
    """A time in which requests were under way and nothing came; in seconds from the start of the load."""

    from_s: float
    seconds: float


@dataclass(slots=True)
class Watched:
    """What was noticed.

    Attributes:
        stalls: times without a sign of life from the server.
        loop_lag_s: how late the event loop was at each look.
        busy: for each second the share of it that the generator's thread computed.
    """

    stalls: list[Stall] = field(default_factory=list)
    loop_lag_s: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)


class Watch:
    """Looks around every 20 ms while a load runs; `run` ends when it is cancelled.

    Args:
        stall_s: silence of so long is a stall.
        start_s: the start of the load on the pacer's clock.
    """

    def __init__(self, pulse: Pulse, pacer: Pacer, *, stall_s: float, start_s: float) -> None:
        self._pulse, self._pacer, self._stall_s, self._start_s = pulse, pacer, stall_s, start_s
        self._quiet_since = start_s
        self._stall: Stall | None = None
        self.seen = Watched()

    async def run(self) -> None:
        """Look until cancelled."""
        expected = self._pacer.now()
        since, computed = expected, time.thread_time()
        while True:
            expected += _LOOK_S
            await asyncio.sleep(max(0.0, expected - self._pacer.now()))
            now = self._pacer.now()
            self.seen.loop_lag_s.append(max(0.0, now - expected))
            expected = max(expected, now - _LOOK_S)
            self._look(now)
            if now - since >= _BUSY_S:
                spent = time.thread_time()
                self.seen.busy.append((spent - computed) / (now - since))
                since, computed = now, spent

    def close(self) -> None:
        """Take a stall that lasts into account."""
        self._look(self._pacer.now())

    def _look(self, now: float) -> None:
        if not self._pulse.under_way:
            self._quiet_since = now
        since = max(self._quiet_since, self._pulse.at_s)
        if self._pulse.under_way and now - since >= self._stall_s:
            if self._stall is None:
                self._stall = Stall(since - self._start_s, now - since)
                self.seen.stalls.append(self._stall)
                _log.warning("the server has given nothing for %.1f s, %d requests are under way", now - since,
                             self._pulse.under_way)
            self._stall.seconds = now - since
        elif self._stall is not None:
            _log.warning("the server goes on after %.1f s of silence", since - self._start_s - self._stall.from_s)
            self._stall.seconds = max(self._stall.seconds, since - self._start_s - self._stall.from_s)
            self._stall = None
