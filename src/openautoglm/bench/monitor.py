"""What a server takes while it is under load: processor, memory, cache, batches; looked at from an own thread."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

import psutil

from openautoglm.bench.scrape import QUEUE_TIME, STEP_TOKENS, Histogram, Metrics
from openautoglm.core import log
from openautoglm.engine.stats import Stats

_log = log.get(__name__)


class Look(NamedTuple):
    """One look: the time, values by name, and histograms by name."""

    at_s: float
    values: dict[str, float]
    histograms: dict[str, Histogram]


class Source(Protocol):
    """Something to look at."""

    def look(self) -> tuple[dict[str, float], dict[str, Histogram]]:
        """Values and histograms now; empty where nothing can be seen."""

    def close(self) -> None:
        """Let go what looking takes."""


class ProcessSource:
    """A process and its descendants: processor seconds and resident memory, those of ended children included."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._cpu_s: dict[tuple[int, float], float] = {}

    def look(self) -> tuple[dict[str, float], dict[str, Histogram]]:
        """See `Source.look`."""
        rss = 0
        try:
            family = [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return {}, {}
        for process in family:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    self._cpu_s[process.pid, process.create_time()] = times.user + times.system
                    rss += process.memory_info().rss
            except psutil.Error:  # it has ended meanwhile
                continue
        return {"cpu_s": sum(self._cpu_s.values()), "rss_bytes": float(rss), "processes": float(len(family))}, {}

    def close(self) -> None:
        """See `Source.close`."""


class MetricsSource:
    """A server's ``/metrics``; after three failures in a row it is left alone."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._failures = 0

    def look(self) -> tuple[dict[str, float], dict[str, Histogram]]:
        """See `Source.look`."""
        if self._failures >= 3:
            return {}, {}
        found = self._metrics.read()
        self._failures = self._failures + 1 if found is None else 0
        if found is None:
            return {}, {}
        values = dict(found.values)
        step = found.histograms.get(STEP_TOKENS)
        if step is not None:
            values |= {"steps": step.number, "step_tokens": step.sum}
        return values, {name: value for name, value in found.histograms.items() if name == QUEUE_TIME}

    def close(self) -> None:
        """See `Source.close`."""
        self._metrics.close()


class EngineSource:
    """An engine in this process."""

    def __init__(self, stats: Callable[[], Stats]) -> None:
        self._stats = stats

    def look(self) -> tuple[dict[str, float], dict[str, Histogram]]:
        """See `Source.look`."""
        now = self._stats()
        share = min(now.prefix_hit_rate, 1 - 1e-9)
        hits = now.prompt_tokens * share / (1 - share)  # computed tokens are those that were not found
        return {"running": float(now.filling + now.decoding), "waiting": float(now.waiting),
                "kv_use": now.pages_held / now.pages, "prefix_hits": hits, "prefix_queries": now.prompt_tokens + hits,
                "preemptions": float(now.preemptions), "steps": float(now.steps),
                "step_tokens": float(now.prompt_tokens + now.generated_tokens)}, {}

    def close(self) -> None:
        """See `Source.close`."""


class Monitor:
    """Looks at its sources every so many seconds, from `start` to `stop`."""

    def __init__(self, sources: list[Source], every_s: float) -> None:
        self._sources, self._every_s = sources, every_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)
        self.looks: list[Look] = []

    def start(self) -> None:
        """Take the first look and go on in a thread."""
        self._look()
        self._thread.start()

    def stop(self) -> list[Look]:
        """Take the last look and return all."""
        self._end.set()
        self._thread.join()
        self._look()
        for source in self._sources:
            source.close()
        return self.looks

    def _run(self) -> None:
        while not self._end.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        values: dict[str, float] = {}
        histograms: dict[str, Histogram] = {}
        for source in self._sources:
            found, more = source.look()
            values |= found
            histograms |= more
        self.looks.append(Look(time.monotonic(), values, histograms))


def server_pid(host: str, port: int) -> int | None:
    """The process that listens there, if that is this machine and the system tells."""
    try:
        local = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = False
    if not local:
        return None
    try:
        found = [link.pid for link in psutil.net_connections(kind="tcp")
                 if link.status == psutil.CONN_LISTEN and link.laddr.port == port and link.pid]
    except psutil.Error:
        return None
    for pid in found:
        return _eldest(pid, set(found))
    return None


def _eldest(pid: int, listeners: set[int]) -> int:
    """The one whose children the other listeners are, where workers share a socket."""
    try:
        parents = [parent.pid for parent in psutil.Process(pid).parents()]
    except psutil.Error:
        return pid
    return next((parent for parent in reversed(parents) if parent in listeners), pid)
