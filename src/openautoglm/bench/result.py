"""The result of a load: one JSON value, flat where ``vllm bench serve`` is, from which pages and tables are made."""

from __future__ import annotations

import datetime
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np

from openautoglm.bench.drive import Drive
from openautoglm.bench.figures import LATENCIES, Measured
from openautoglm.bench.intervals import intervals
from openautoglm.bench.monitor import Look
from openautoglm.bench.settings import Judgement, LoadSettings
from openautoglm.bench.usage import usage
from openautoglm.core.hardware import Machine
from openautoglm.core.version import __version__

FORMAT = 1
_SLICES = 120
_BUSY = 0.9


class Run(NamedTuple):
    """One repetition: what was sent, what it gave, what the server took."""

    drive: Drive
    measured: Measured
    looks: list[Look]


def generator_facts(drives: Iterable[Drive], judge: Judgement) -> dict[str, Any]:
    """How late the generator was, how busy, and whether that makes the figures worthless.

    It is saturated where sendings or looks of the event loop were later than `Judgement.lag_ms` at the 99th percentile,
    or its thread computed in more than a tenth of the seconds all but without a pause.
    """
    drives = list(drives)
    send = np.array([mark.begun_s - mark.intended_s for drive in drives for mark in drive.marks
                     if not math.isnan(mark.begun_s)]) * 1e3
    loop = np.array([lag for drive in drives for lag in drive.seen.loop_lag_s]) * 1e3
    busy = np.array([share for drive in drives for share in drive.seen.busy])
    found: dict[str, Any] = {}
    for name, values in (("send_lag", send), ("loop_lag", loop)):
        if len(values):
            found |= {f"median_{name}_ms": float(np.median(values)), f"p99_{name}_ms": float(np.percentile(values, 99)),
                      f"max_{name}_ms": float(values.max())}
    if len(busy):
        found |= {"cpu_mean": float(busy.mean()), "cpu_max": float(busy.max())}
    late = max(found.get("p99_send_lag_ms", 0.0), found.get("p99_loop_lag_ms", 0.0))
    overworked = bool(len(busy)) and float((busy > _BUSY).mean()) > 0.1
    found["saturated"] = late > judge.lag_ms or overworked
    return found


def summarise(head: Mapping[str, Any], settings: LoadSettings, runs: Sequence[Run], notes: Sequence[str],
              machine: Machine) -> dict[str, Any]:
    """The whole result.

    Figures are means over the repetitions, counts their sums; ``runs`` holds those of each, ``intervals`` low and high.

    Args:
        head: ``backend``, ``label``, ``model_id`` and what else names the load.
        notes: what the plan has to say.
    """
    judge, arrivals = settings.judge, settings.arrivals
    measured = [run.measured for run in runs]
    each = [_with_queue(run, judge) for run in runs]
    errors = sum((Counter(one.errors) for one in measured), Counter[str]())
    generator = generator_facts((run.drive for run in runs), judge)
    stalls = [asdict(stall) | {"repetition": place} for place, run in enumerate(runs)
              for stall in run.drive.seen.stalls]
    figures = _means(each)
    servers = [usage(run.looks, run.drive.start_s + judge.warmup_s, judge.percentiles) for run in runs]
    examples = {kind: text for one in reversed(measured) for kind, text in one.examples.items()}
    result = {
        "format": FORMAT, "date": datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S"), **head,
        "num_prompts": sum(len(run.drive.marks) for run in runs),
        "request_rate": plain(arrivals.request_rate), "burstiness": plain(arrivals.burstiness),
        "max_concurrency": arrivals.max_concurrency, "loop": arrivals.order, "repetitions": len(runs), **figures,
        "goodput_bounds_ms": judge.goodput, "errors_by_kind": dict(errors.most_common()), "error_examples": examples,
        "intervals": intervals(measured, judge, settings.seed), "confidence": judge.confidence,
        "server": _means([{name: value for name, value in server.items() if name != "queue_time"}
                          for server in servers]), "generator": generator, "stalls": stalls}
    result["warnings"] = _warnings(result, judge, notes)
    return result | {
        "runs": each, "quantiles": _quantiles(measured), "series": _series(runs[0], judge),
        "settings": plain(settings.model_dump(mode="json")), "machine": _machine(machine), "version": __version__}


def _with_queue(run: Run, judge: Judgement) -> dict[str, Any]:
    """Figures of a repetition; times in the queue from the server's histogram where answers do not tell them."""
    figures = dict(run.measured.figures)
    queue = usage(run.looks, run.drive.start_s + judge.warmup_s, judge.percentiles).get("queue_time", {})
    if figures["mean_queue_time_ms"] is None:
        figures |= {f"{name}_queue_time_ms": value for name, value in queue.items()}
    return figures


def _means(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over repetitions, of counts the sums; None where a repetition has none."""
    found: dict[str, Any] = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        values = [run.get(name) for run in runs]
        known = [value for value in values if value is not None]
        if len(known) < len(runs):
            found[name] = None
        elif name in ("completed", "failed", "not_counted", "unsent", "total_input_tokens", "total_output_tokens",
                      "preemptions"):
            found[name] = int(sum(known))
        elif name.endswith("_max") or name.startswith("max_"):
            found[name] = max(known)
        else:
            found[name] = float(np.mean(known))
    return found


def _warnings(result: Mapping[str, Any], judge: Judgement, notes: Sequence[str]) -> list[str]:
    """What a reader must know before the figures."""
    generator, done, failed = result["generator"], result["completed"], result["failed"]
    found = [f"the server stalled: nothing came for {stall['seconds']:.1f} s, from {stall['from_s']:.1f} s on "
             f"(repetition {stall['repetition'] + 1})" for stall in result["stalls"]]
    if generator["saturated"]:
        found.insert(0, "the generator was saturated: at the 99th percentile sendings lagged by "
                        f"{generator.get('p99_send_lag_ms', 0):.1f} ms and its loop by "
                        f"{generator.get('p99_loop_lag_ms', 0):.1f} ms, its thread used up to "
                        f"{generator.get('cpu_max', 0):.0%} of a core; latencies are too high: lower the rate, or run "
                        "it elsewhere")
    if failed:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in result["errors_by_kind"].items())
        found.append(f"{failed:,} of {done + failed:,} requests failed: {kinds}")
    highest = max(judge.percentiles)
    needed = math.ceil(1 / (1 - highest / 100))
    if 0 < done < needed * result["repetitions"]:
        found.append(f"p{highest:g} is hardly more than the largest value: it needs {needed:,} requests a repetition")
    if result["unsent"]:
        found.append(f"{result['unsent']:,} requests were not sent: the time was over")
    return [*found, *notes]


def _quantiles(measured: Sequence[Measured]) -> dict[str, list[float]]:
    """For each latency its values in milliseconds at 0, 1, ... 100 percent of all repetitions."""
    found = {}
    for name in LATENCIES:
        parts = [one.latencies[name].ms for one in measured if name in one.latencies]
        if parts:
            found[name] = [float(value) for value in np.percentile(np.concatenate(parts), range(101))]
    return found


def _series(run: Run, judge: Judgement) -> dict[str, Any]:
    """The first repetition over time: per slice of a second or more, from the start of the load."""
    drive = run.drive
    span = max(drive.end_s - drive.start_s, 1e-9)
    width = max(1.0, span / _SLICES)
    count = int(span / width) + 1
    tokens = np.zeros(count)
    ended = np.zeros(count)
    first: list[list[float]] = [[] for _ in range(count)]
    for mark in drive.marks:
        places = ((np.array(mark.token_s) - drive.start_s) / width).astype(np.int64)
        np.add.at(tokens, np.clip(places, 0, count - 1), 1)
        ended[min(count - 1, int((mark.end_s - drive.start_s) / width))] += mark.ok
        if mark.ok and mark.token_s:
            first[min(count - 1, max(0, int((mark.intended_s - drive.start_s) / width)))].append(
                (mark.token_s[0] - mark.intended_s) * 1e3)
    looks = [{"at_s": look.at_s - drive.start_s, **{name: look.values[name] for name in
              ("running", "waiting", "kv_use", "rss_bytes", "cpu_s") if name in look.values}} for look in run.looks]
    return {"slice_s": width, "warmup_s": judge.warmup_s, "events_per_s": (tokens / width).tolist(),
            "requests_per_s": (ended / width).tolist(),
            "median_ttft_ms": [float(np.median(part)) if part else None for part in first],
            "max_ttft_ms": [max(part) if part else None for part in first],
            "looks": looks[:: max(1, len(looks) // (4 * _SLICES))]}


def plain(value: Any) -> Any:
    """The same value for JSON, which knows no infinity: ``inf`` in words, at any depth."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: plain(item) for name, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list | tuple) else value


def _machine(machine: Machine) -> dict[str, Any]:
    return {"cores": machine.cores, "memory_bytes": machine.memory_bytes, "isa": list(machine.isa),
            "platform": machine.platform, "python": machine.python}


