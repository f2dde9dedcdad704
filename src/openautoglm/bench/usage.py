"""From looks at a server to figures of what it took."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from openautoglm.bench.monitor import Look
from openautoglm.bench.scrape import QUEUE_TIME


def usage(looks: Sequence[Look], from_s: float, percentiles: Sequence[float]) -> dict[str, Any]:
    """What was taken from `from_s` (on the clock of the looks) to the last look; only what could be seen.

    Keys: ``cpu_cores`` (mean number of busy cores), ``rss_bytes_start``, ``_end``, ``_max``; ``running_mean``,
    ``running_max`` (sequences that are computed together), ``waiting_mean``, ``waiting_max``, ``kv_use_mean``,
    ``kv_use_max`` (share of the pages), ``prefix_hit_rate``, ``preemptions``, ``tokens_per_step``; and of a server with
    metrics ``queue_time`` (milliseconds: mean, median, percentiles, from its histogram).
    """
    later = [look for look in looks if look.at_s >= from_s]
    before = [look for look in looks if look.at_s < from_s]
    kept = [*before[-1:], *later]
    found: dict[str, Any] = {}
    for name in ("running", "waiting", "kv_use"):
        values = [look.values[name] for look in later if name in look.values]
        if values:
            found |= {f"{name}_mean": float(np.mean(values)), f"{name}_max": float(np.max(values))}
    rss = [look.values["rss_bytes"] for look in kept if "rss_bytes" in look.values]
    if rss:
        found |= {"rss_bytes_start": int(rss[0]), "rss_bytes_end": int(rss[-1]), "rss_bytes_max": int(max(rss))}
    return {**found, **_growth(kept), **_queue(kept, percentiles)}


def _growth(looks: Sequence[Look]) -> dict[str, Any]:
    """Differences of what only grows."""
    found: dict[str, Any] = {}

    def grown(name: str) -> float | None:
        having = [look for look in looks if name in look.values]
        return having[-1].values[name] - having[0].values[name] if len(having) > 1 else None

    cpu, seconds = grown("cpu_s"), looks[-1].at_s - looks[0].at_s if looks else 0.0
    if cpu is not None and seconds > 0:
        found["cpu_cores"] = cpu / seconds
    hits, queries = grown("prefix_hits"), grown("prefix_queries")
    if hits is not None and queries:
        found["prefix_hit_rate"] = hits / queries
    steps, tokens = grown("steps"), grown("step_tokens")
    if steps and tokens is not None:
        found["tokens_per_step"] = tokens / steps
    preemptions = grown("preemptions")
    if preemptions is not None:
        found["preemptions"] = int(preemptions)
    return found


def _queue(looks: Sequence[Look], percentiles: Sequence[float]) -> dict[str, Any]:
    having = [look.histograms[QUEUE_TIME] for look in looks if QUEUE_TIME in look.histograms]
    if len(having) < 2:
        return {}
    spent = having[-1].since(having[0])
    if spent.number <= 0:
        return {}
    found = {"mean": spent.sum / spent.number * 1e3, "median": spent.quantile(0.5) * 1e3}
    found |= {f"p{percentile:g}": spent.quantile(percentile / 100) * 1e3 for percentile in percentiles}
    return {"queue_time": {name: value for name, value in found.items() if not math.isnan(value)}}
