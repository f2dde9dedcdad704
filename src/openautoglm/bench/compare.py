"""Two results side by side: which figures changed, and whether by more than chance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from openautoglm.bench.figures import LATENCIES, RATES
from openautoglm.bench.page import figure_names
from openautoglm.bench.result import FORMAT
from openautoglm.core.errors import LoadError
from openautoglm.core.files import read_json
from openautoglm.core.page import Section, page, plots, table, text
from openautoglm.core.svg import Series, line_chart

_SAME = ("backend", "model_id", "loop", "request_rate", "burstiness", "max_concurrency", "settings", "machine")
_MORE_IS_BETTER = (*RATES, "steady_request_throughput", "steady_output_throughput", "prefix_hit_rate")
_SERVER = ("cpu_cores", "rss_bytes_max", "running_mean", "kv_use_max", "prefix_hit_rate", "tokens_per_step")


class Change(NamedTuple):
    """One figure of both results; `verdict` is ``better``, ``worse``, ``same`` (the intervals overlap) or empty."""

    name: str
    before: float
    after: float
    verdict: str

    @property
    def percent(self) -> float | None:
        """By how much it grew."""
        return (self.after / self.before - 1) * 100 if self.before else None


def read_result(path: str | Path) -> dict[str, Any]:
    """Read a result that was written before.

    Raises:
        LoadError: it cannot be read, or is not the result of a load.
    """
    try:
        value = read_json(path)
    except (OSError, ValueError) as error:
        raise LoadError(f"cannot be read: {error}", where=str(path), remedy="give the JSON of a load") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT or "intervals" not in value:
        raise LoadError("is not the result of a load, or of another version", where=str(path),
                        remedy="give the JSON that `autoglm bench` wrote, or measure again")
    return value


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Every figure that both have.

    The verdict asks whether the intervals of both are apart, which is stricter than a test at their level.
    """
    names = [*RATES, "steady_request_throughput", "steady_output_throughput"]
    names += [name for latency in LATENCIES for name in figure_names(before, latency)]
    found = [Change(name, before[name], after[name], _verdict(name, before, after)) for name in names
             if before.get(name) is not None and after.get(name) is not None]
    server = [(name, before["server"].get(name), after["server"].get(name)) for name in _SERVER]
    return found + [Change(name, a, b, "") for name, a, b in server if a is not None and b is not None]


def differing(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What was not the same in the two loads, so that figures may differ for that reason."""
    return [name for name in _SAME if before.get(name) != after.get(name)]


def _verdict(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    first, second = before["intervals"].get(name), after["intervals"].get(name)
    if first is None or second is None:
        return ""
    if first[0] <= second[1] and second[0] <= first[1]:
        return "same"
    grew = after[name] > before[name]
    return "better" if grew == (name in _MORE_IS_BETTER) else "worse"


def render_comparison(before: Mapping[str, Any], after: Mapping[str, Any], names: tuple[str, str]) -> str:
    """Both results on one page."""
    rows = [(change.name, change.before, change.after, change.percent, change.verdict)
            for change in changes(before, after)]
    charts = [line_chart([Series(label, list(enumerate(result["quantiles"][latency])))
                          for label, result in zip(names, (before, after), strict=True)],
                         title=f"{words}: share of values below", x_label="percent", y_label="ms")
              for latency, words in LATENCIES.items()
              if latency in before["quantiles"] and latency in after["quantiles"]]
    notes = "".join(text(f"{label}: {warning}", kind="warn")
                    for label, result in zip(names, (before, after), strict=True) for warning in result["warnings"])
    other = differing(before, after)
    if other:
        notes += text(f"the loads differ in: {', '.join(other)}", kind="note")
    return page("Two loads", f"{names[0]} and {names[1]}",
                [Section("Figures", notes + table(("figure", *names, "change, %", "verdict"), rows)),
                 Section("Latencies", plots(charts))])
