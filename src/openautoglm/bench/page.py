"""A result as one self-contained HTML page, made from its JSON alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from openautoglm.bench.figures import LATENCIES, RATES
from openautoglm.core.page import Section, code, folded, page, plots, table, text, tiles
from openautoglm.core.svg import Series, line_chart

_SERVER = {"cpu_cores": "busy cores", "rss_bytes_max": "most resident memory, bytes",
           "rss_bytes_start": "at the start", "rss_bytes_end": "at the end", "running_mean": "sequences together, mean",
           "running_max": "most", "waiting_mean": "requests in the queue, mean", "waiting_max": "most",
           "kv_use_mean": "share of the KV cache in use, mean", "kv_use_max": "most",
           "prefix_hit_rate": "share of prompt tokens found in the prefix cache",
           "tokens_per_step": "tokens a step", "preemptions": "preemptions"}
_GENERATOR = {"median_send_lag_ms": "sending lag, median, ms", "p99_send_lag_ms": "p99", "max_send_lag_ms": "most",
              "p99_loop_lag_ms": "event loop's lag, p99, ms", "max_loop_lag_ms": "most",
              "cpu_mean": "share of a core, mean", "cpu_max": "most", "saturated": "saturated"}
_GIB = 1 << 30


def render(result: Mapping[str, Any]) -> str:
    """The page."""
    rate = result["request_rate"]
    load = (f"{result['max_concurrency']} clients" if result["loop"] == "closed"
            else f"{rate} requests/s" if rate != "inf" else "all requests at once")
    subtitle = (f"{result['backend']}, {load}, {result['num_prompts']:,} requests, repetitions: "
                f"{result['repetitions']}, {result['date']}")
    sections = [Section("Summary", _summary(result)), Section("Latencies", _latencies(result)),
                Section("Over time", _over_time(result["series"])),
                Section("Server", _facts(result["server"], _SERVER)),
                Section("Generator", _facts(result["generator"], _GENERATOR)),
                Section("Errors", _errors(result)), Section("Settings", _settings(result))]
    title = f"Load on {result['label'] or result['model_id']}"
    return page(title, subtitle, [section for section in sections if section.html])


def _summary(result: Mapping[str, Any]) -> str:
    shown: list[tuple[str, Any]] = [(words, result[name]) for name, words in RATES.items() if result[name] is not None]
    shown += [("answers", result["completed"]), ("failures", result["failed"])]
    shown += [(f"{name.upper()} p50, ms", result[f"median_{name}_ms"]) for name in ("ttft", "itl", "e2el")
              if result[f"median_{name}_ms"] is not None]
    warnings = "".join(text(warning, kind="warn") for warning in result["warnings"])
    rows = [(words, result[name], *_span(result, name)) for name, words in RATES.items() if result[name] is not None]
    rows += [(name.replace("_", " "), result[name], "", "") for name in
             ("steady_request_throughput", "steady_output_throughput", "max_output_tokens_per_s",
              "max_concurrent_requests", "cached_prompt_share") if result[name] is not None]
    return warnings + tiles(shown) + table(("figure", "value", *_bounds_names(result)), rows)


def _bounds_names(result: Mapping[str, Any]) -> tuple[str, str]:
    share = f"{result['confidence']:.0%}"
    return f"{share} low", f"{share} high"


def _span(result: Mapping[str, Any], name: str) -> Sequence[Any]:
    return result["intervals"].get(name) or ("", "")


def latency_rows(result: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """For each latency to be shown: its name, its words, and the end of its figures' names.

    The generator's own time is shown where `max_concurrency` lets requests wait there.
    """
    waits = result["loop"] == "open" and result["max_concurrency"]
    return [(name, words, f"_{name}_ms") for name, words in LATENCIES.items()
            if result.get(f"mean_{name}_ms") is not None and (name != "client_queue_time" or waits)]


def figure_names(result: Mapping[str, Any], name: str) -> list[str]:
    """Names of one latency's figures, in the order of the result; p50 is left out, the median says it."""
    return [key for key in result if key.endswith(f"_{name}_ms") and key.count("_") == name.count("_") + 2
            and not key.startswith("p50_")]


def _latencies(result: Mapping[str, Any]) -> str:
    html, charts = "", []
    for name, words, end in latency_rows(result):
        rows = [(key.removesuffix(end), result[key], *_span(result, key)) for key in figure_names(result, name)]
        html += f"<h3>{name.replace('_', ' ')}: {words}, ms</h3>"
        html += table(("figure", "ms", *_bounds_names(result)), rows)
        if name in result["quantiles"]:
            points = list(enumerate(result["quantiles"][name]))
            charts.append(line_chart([Series(name, points)], title=f"{words}: share of values below",
                                     x_label="percent", y_label="ms"))
    return plots(charts) + html


def _over_time(series: Mapping[str, Any]) -> str:
    width = series["slice_s"]

    def over(values: Sequence[float | None]) -> list[tuple[float, float]]:
        return [((place + 0.5) * width, float("nan") if value is None else value)
                for place, value in enumerate(values)]

    first = [Series("median", over(series["median_ttft_ms"])), Series("most", over(series["max_ttft_ms"]))]
    charts = [line_chart([Series("events", over(series["events_per_s"]))], title="events with text, per second",
                         x_label="s", y_label="1/s"),
              line_chart([Series("answers", over(series["requests_per_s"]))], title="answers that ended, per second",
                         x_label="s", y_label="1/s"),
              line_chart(first, title="time to first token, by time of sending", x_label="s", y_label="ms")]
    looks = series["looks"]
    for names, title, unit, factor in ((("running", "waiting"), "requests in the server", "requests", 1.0),
                                       (("kv_use",), "share of the KV cache in use", "share", 1.0),
                                       (("rss_bytes",), "resident memory", "GiB", 1 / _GIB)):
        lines = [Series(name, [(look["at_s"], look[name] * factor) for look in looks if name in look])
                 for name in names]
        if any(line.points for line in lines):
            charts.append(line_chart(lines, title=title, x_label="s", y_label=unit))
    return text("The first repetition.", kind="note") + plots(charts)


def _facts(found: Mapping[str, Any], words: Mapping[str, str]) -> str:
    rows = [(name, words[name], found[name]) for name in words if found.get(name) is not None]
    return table(("what", "value", "key"), [(what, value, name) for name, what, value in rows]) if rows else ""


def _errors(result: Mapping[str, Any]) -> str:
    examples = result["error_examples"]
    rows = [(kind, count, examples.get(kind, "")) for kind, count in result["errors_by_kind"].items()]
    return table(("kind", "requests", "for example"), rows) if rows else ""


def _settings(result: Mapping[str, Any]) -> str:
    shown = {name: result[name] for name in ("settings", "machine", "version", "program", "engine", "base_url")
             if name in result}
    return folded("settings and machine", code(json.dumps(shown, indent=2, ensure_ascii=False)))
