"""A server's ``/metrics``: Prometheus' text form, by the names that vLLM gave them (ours and others follow)."""

from __future__ import annotations

import http.client
import math
import re
import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

NAMES = {"vllm:num_requests_running": "running", "vllm:num_requests_waiting": "waiting",
         "vllm:kv_cache_usage_perc": "kv_use", "vllm:prefix_cache_queries_total": "prefix_queries",
         "vllm:prefix_cache_hits_total": "prefix_hits", "vllm:num_preemptions_total": "preemptions"}
"""Gauges and counters that are looked at, and our names for them."""
QUEUE_TIME, STEP_TOKENS = "vllm:request_queue_time_seconds", "vllm:iteration_tokens_total"
_HISTOGRAMS = (QUEUE_TIME, STEP_TOKENS)
_SUMS = {f"{name}_{part}": (name, part) for name in _HISTOGRAMS for part in ("sum", "count", "bucket")}
_QUERY = urlencode([("name[]", name) for name in (*NAMES, *_SUMS)])
"""Asks for these alone, as Prometheus' own clients read it; a server that does not know it gives all."""
_LE = re.compile(r'[{,]le="([^"]*)"')
_TIMEOUT_S = 5.0


class Histogram(NamedTuple):
    """A histogram since the server's start: sum, number of values, and how many were at most each bound."""

    sum: float
    number: float
    buckets: Mapping[float, float]

    def since(self, before: Histogram) -> Histogram:
        """What came after `before`."""
        return Histogram(self.sum - before.sum, self.number - before.number,
                         {bound: count - before.buckets.get(bound, 0.0) for bound, count in self.buckets.items()})

    def quantile(self, share: float) -> float:
        """The value below which `share` of all are, linear within its bucket as in Prometheus; NaN of nothing."""
        if self.number <= 0:
            return math.nan
        low, below = 0.0, 0.0
        for bound, count in sorted(self.buckets.items()):
            if count >= share * self.number:
                if math.isinf(bound):
                    return low
                return low + (bound - low) * (share * self.number - below) / max(count - below, 1e-12)
            low, below = bound, count
        return low


class Scrape(NamedTuple):
    """Values by our names, all label sets added up, and histograms by theirs."""

    values: dict[str, float]
    histograms: dict[str, Histogram]


def parse(text: str) -> Scrape:
    """Read what matters here of a page of metrics; lines that cannot be read are passed over."""
    values: dict[str, float] = {}
    sums = {name: [0.0, 0.0] for name in _HISTOGRAMS}
    buckets: dict[str, dict[float, float]] = {name: {} for name in _HISTOGRAMS}
    for line in text.splitlines():
        name = re.split(r"[{ ]", line, maxsplit=1)[0]
        if name not in NAMES and name not in _SUMS:
            continue
        value = _number(line[line.rfind("}") + 1:].removeprefix(name).split())
        if value is None:
            continue
        if name in NAMES:
            values[NAMES[name]] = values.get(NAMES[name], 0.0) + value
            continue
        histogram, part = _SUMS[name]
        if part == "bucket":
            found = _LE.search(line)
            bound = _number([found[1]] if found else [])
            if bound is not None:
                buckets[histogram][bound] = buckets[histogram].get(bound, 0.0) + value
        else:
            sums[histogram][part == "count"] += value
    return Scrape(values, {name: Histogram(total, number, buckets[name]) for name, (total, number) in sums.items()
                           if number})


def _number(words: list[str]) -> float | None:
    try:
        return float(words[0])
    except (ValueError, IndexError):
        return None


class Metrics:
    """The page of metrics of one server; used from one thread.

    Args:
        base_url: of the server; headers: as for its other routes.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        url = urlsplit(base_url)
        self._secure, self._host = url.scheme == "https", url.hostname or ""
        self._port, self._path = url.port, f"{url.path.rstrip('/')}/metrics?{_QUERY}"
        self._headers = dict(headers)
        self._link: http.client.HTTPConnection | None = None

    def read(self) -> Scrape | None:
        """The metrics now; None where the server has none, or does not answer within 5 s."""
        try:
            link = self._link or self._connect()
            self._link = None
            link.request("GET", self._path, headers=self._headers)
            answer = link.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException):
            return None
        self._link = link
        return parse(body.decode("utf-8", "replace")) if answer.status == 200 else None

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self._secure:
            return http.client.HTTPSConnection(self._host, self._port, timeout=_TIMEOUT_S,
                                               context=ssl.create_default_context())
        return http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
