"""From marks to figures, by the names of ``vllm bench serve``, such as ``p99_itl_ms``.

Definitions, in seconds on one clock; a request counts from its intended time, see `openautoglm.bench.drive`:

- TTFT: first text, less the intended time. E2EL: the answer is whole, less the intended time.
- ITL: time between two events that bring text. TPOT: (E2EL - TTFT) / (output tokens - 1).
- queue time: in the server; client queue time: from the intended time until the request was handed to the transport.
- throughputs: of whole answers, over the time from the end of the warm-up to the last answer's end.
- steady throughputs: what came between the end of the warm-up and the last sending, of all requests.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openautoglm.bench.client import Mark
from openautoglm.bench.drive import Drive
from openautoglm.bench.settings import Judgement

Floats = NDArray[np.float64]
LATENCIES = {"ttft": "time to first token", "tpot": "time per output token after the first",
             "itl": "inter-token latency", "e2el": "end-to-end latency", "queue_time": "time in the server's queue",
             "client_queue_time": "time in the generator"}
RATES = {"request_throughput": "requests/s", "output_throughput": "output tokens/s",  # nosec B105  # a unit
         "total_token_throughput": "tokens/s", "request_goodput": "good requests/s"}


class Values(NamedTuple):
    """Values of one latency in milliseconds, and for each the place of its request in the order of time."""

    ms: Floats
    owner: NDArray[np.int64]


class Measured(NamedTuple):
    """One repetition, reduced.

    Attributes:
        figures: by name; None where nothing was measured.
        latencies: values by name of the latency; a name without any is left out.
        ends_s: when each whole answer ended, from the end of the warm-up; input_tokens, output_tokens, good: of each.
        errors: how many requests failed, by kind.
        examples: one detail of each kind.
    """

    figures: dict[str, Any]
    latencies: dict[str, Values]
    ends_s: Floats
    input_tokens: Floats
    output_tokens: Floats
    good: Floats
    errors: dict[str, int]
    examples: dict[str, str]


def measure(drive: Drive, judge: Judgement) -> Measured:
    """Reduce the marks of one repetition."""
    from_s = drive.start_s + judge.warmup_s
    counted = sorted((mark for mark in drive.marks if mark.intended_s >= from_s), key=lambda mark: mark.intended_s)
    whole = [mark for mark in counted if mark.ok]
    latencies = _latencies(whole)
    good = np.array([_is_good(mark, judge.goodput) for mark in whole], np.float64)
    inputs = np.array([mark.prompt_tokens for mark in whole], np.float64)
    outputs = np.array([mark.output_tokens for mark in whole], np.float64)
    ends = np.array([mark.end_s for mark in whole], np.float64) - from_s
    duration = float(ends.max()) if len(ends) else max(0.0, drive.end_s - from_s)
    errors = Counter(mark.error for mark in counted if not mark.ok)
    figures: dict[str, Any] = {
        "duration": duration, "completed": len(whole), "failed": len(counted) - len(whole),
        "not_counted": len(drive.marks) - len(counted), "unsent": drive.unsent,
        "total_input_tokens": int(inputs.sum()), "total_output_tokens": int(outputs.sum()),
        "request_throughput": _per(len(whole), duration), "output_throughput": _per(outputs.sum(), duration),
        "total_token_throughput": _per(inputs.sum() + outputs.sum(), duration),
        "request_goodput": _per(good.sum(), duration) if judge.goodput else None,
        "max_output_tokens_per_s": _most_per_second(counted, from_s), "max_concurrent_requests": drive.most_under_way,
        **_steady(drive, from_s), **_cached(whole)}
    for name in LATENCIES:
        figures |= distribution(name, latencies[name].ms if name in latencies else np.zeros(0), judge.percentiles)
    examples = {mark.error: mark.detail for mark in reversed(counted) if not mark.ok}
    return Measured(figures, latencies, ends, inputs, outputs, good, dict(errors.most_common()), examples)


def distribution(name: str, ms: Floats, percentiles: Sequence[float]) -> dict[str, float | None]:
    """Mean, median, standard deviation and percentiles (linear between values) under their names; None without values.
    """
    names = [f"mean_{name}_ms", f"median_{name}_ms", f"std_{name}_ms", *percentile_names(name, percentiles)]
    if not len(ms):
        return dict.fromkeys(names)
    found = [ms.mean(), np.median(ms), ms.std(), *np.percentile(ms, percentiles)]
    return {key: float(value) for key, value in zip(names, found, strict=True)}


def percentile_names(name: str, percentiles: Sequence[float]) -> list[str]:
    """``p99_ttft_ms``, ``p99.9_ttft_ms``."""
    return [f"p{percentile:g}_{name}_ms" for percentile in percentiles]


def _latencies(whole: Sequence[Mark]) -> dict[str, Values]:
    found: dict[str, tuple[list[float], list[int]]] = {name: ([], []) for name in LATENCIES}

    def add(name: str, place: int, seconds: float) -> None:
        if not math.isnan(seconds):
            found[name][0].append(seconds)
            found[name][1].append(place)

    for place, mark in enumerate(whole):
        add("e2el", place, mark.end_s - mark.intended_s)
        add("client_queue_time", place, mark.sent_s - mark.intended_s)
        add("queue_time", place, mark.queue_s)
        if mark.token_s and mark.streamed:
            add("ttft", place, mark.token_s[0] - mark.intended_s)
            add("tpot", place, _tpot(mark))
            gaps = np.diff(mark.token_s)
            found["itl"][0].extend(gaps.tolist())
            found["itl"][1].extend([place] * len(gaps))
    return {name: Values(np.array(seconds) * 1e3, np.array(owner, np.int64))
            for name, (seconds, owner) in found.items() if seconds}


def _tpot(mark: Mark) -> float:
    """Seconds a token after the first; NaN of an answer of one token."""
    if mark.output_tokens < 2 or not mark.token_s:
        return math.nan
    return (mark.end_s - mark.token_s[0]) / (mark.output_tokens - 1)


def _is_good(mark: Mark, bounds_ms: dict[str, float]) -> bool:
    """Whether a whole answer keeps all bounds; one of a single token keeps any TPOT."""
    first_s = mark.token_s[0] if mark.token_s and mark.streamed else mark.end_s
    tpot = _tpot(mark)
    found = {"ttft": first_s - mark.intended_s, "tpot": 0.0 if math.isnan(tpot) else tpot,
             "e2el": mark.end_s - mark.intended_s}
    return all(found[name] * 1e3 <= bound for name, bound in bounds_ms.items())


def _per(amount: float, seconds: float) -> float | None:
    return float(amount) / seconds if seconds > 0 else None


def _most_per_second(marks: Sequence[Mark], from_s: float) -> float:
    """The most events with text in any one second."""
    seconds = np.array([int(at_s - from_s) for mark in marks for at_s in mark.token_s if at_s >= from_s], np.int64)
    return float(np.bincount(seconds).max()) if len(seconds) else 0.0


def _steady(drive: Drive, from_s: float) -> dict[str, float | None]:
    """Throughputs of the time in which the load was on; failed requests count with what they got."""
    until_s = max((mark.intended_s for mark in drive.marks), default=from_s)
    if until_s - from_s <= 0:
        return {"steady_duration": None, "steady_request_throughput": None, "steady_output_throughput": None}
    tokens = sum(mark.output_tokens / len(mark.token_s) * sum(from_s <= at_s < until_s for at_s in mark.token_s)
                 for mark in drive.marks if mark.token_s)
    requests = sum(mark.ok and from_s <= mark.end_s < until_s for mark in drive.marks)
    span = until_s - from_s
    return {"steady_duration": span, "steady_request_throughput": requests / span,
            "steady_output_throughput": tokens / span}


def _cached(whole: Sequence[Mark]) -> dict[str, float | None]:
    """The share of prompt tokens that answers report as cached."""
    asked = sum(mark.prompt_tokens for mark in whole)
    return {"cached_prompt_share": sum(mark.cached_tokens for mark in whole) / asked if asked else None}
