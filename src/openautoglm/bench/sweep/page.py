"""The result of a sweep: a table, plots, the knees, the recommendation; as JSON and as one page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openautoglm.bench.result import plain
from openautoglm.bench.sweep.choose import Curve, Run, best_run, curves, recommend
from openautoglm.bench.sweep.points import SweepSettings
from openautoglm.core.files import atomic_write, write_json
from openautoglm.core.page import Section, folded, page, plots, table, text
from openautoglm.core.svg import Series, bar_chart, line_chart

HEAD = ("settings", "load", "requests/s", "tokens/s", "TTFT p99, ms", "ITL p99, ms", "E2EL mean, ms", "E2EL p99, ms",
        "sequences together", "busy cores", "memory, MB", "KV cache", "")
_LINES = 6


def row(run: Run, settings: SweepSettings, mark: str) -> tuple[Any, ...]:
    """One line of the table; `mark` is shown at its end."""
    figures, server = run.figures, run.figures["server"]
    memory = server.get("rss_bytes_max")
    kv = server.get("kv_use_max")
    return (run.point.differs(settings.axes), run.amount, run.qps, run.tokens_per_s, figures.get("p99_ttft_ms"),
            figures.get("p99_itl_ms"), run.latency_ms, run.p99_ms, server.get("running_mean"), server.get("cpu_cores"),
            None if memory is None else memory / 1e6, None if kv is None else f"{kv:.0%}",
            mark or ("" if run.sound else "not sound"))


def rows(found: Sequence[Curve], settings: SweepSettings) -> list[tuple[Any, ...]]:
    """The whole table, point by point; knees and the recommended run are marked."""
    best = best_run(found, settings.load.judge.goodput)
    made = []
    for curve in found:
        for place, run in enumerate(curve.runs):
            mark = "knee" if place == curve.knee else ""
            mark = f"{mark}, recommended".removeprefix(", ") if run is best else mark
            made.append(row(run, settings, mark))
    return made


def summary(runs: Sequence[Run], failed: Sequence[Mapping[str, Any]], settings: SweepSettings) -> dict[str, Any]:
    """The result for machines."""
    found = curves(runs)
    bounds = settings.load.judge.goodput
    best = best_run(found, bounds)
    return {
        "format": 1, "recommendation": recommend(found, bounds, settings.axes, settings.loads.unit),
        "recommended": None if best is None else {"point": best.point.model_dump(mode="json"), "amount": best.amount},
        "unit": settings.loads.unit, "goodput_bounds_ms": bounds,
        "curves": [{"point": curve.point.model_dump(mode="json"),
                    "knee": None if curve.knee is None else curve.runs[curve.knee].amount,
                    "runs": [dict(run.figures) for run in curve.runs]} for curve in found],
        "failed": [dict(one) for one in failed], "settings": plain(settings.model_dump(mode="json"))}


def write_sweep(output: Path, runs: Sequence[Run], failed: Sequence[Mapping[str, Any]], settings: SweepSettings,
                name: str) -> tuple[Path, Path]:
    """Write ``sweep.json`` and ``sweep.html``; return both paths."""
    facts = summary(runs, failed, settings)
    write_json(output / "sweep.json", facts)
    with atomic_write(output / "sweep.html") as file:
        file.write(render(curves(runs), failed, settings, facts["recommendation"], name))
    return output / "sweep.json", output / "sweep.html"


def render(found: Sequence[Curve], failed: Sequence[Mapping[str, Any]], settings: SweepSettings, advice: str,
           name: str) -> str:
    """The page."""
    best = best_run(found, settings.load.judge.goodput)
    lines = rows(found, settings)
    place = next((number for number, line in enumerate(lines) if str(line[-1]).endswith("recommended")), None)
    sections = [Section("Recommendation", text(advice)), Section("Curves", _charts(found, settings, best)),
                Section("Table", table(HEAD, lines, best=place))]
    if failed:
        sections.append(Section("Failures", table(("settings", "load", "why"), [
            (str(one["point"]), one["amount"], one["error"]) for one in failed])))
    warned = [(curve.point.differs(settings.axes), run.amount, warning) for curve in found for run in curve.runs
              for warning in run.figures["warnings"]]
    if warned:
        sections.append(Section("Notes", folded(f"{len(warned)} notes on single runs",
                                                table(("settings", "load", "note"), warned))))
    return page(f"Sweep of {name}", f"{len(found)} settings, loads in {settings.loads.unit}", sections)


def _charts(found: Sequence[Curve], settings: SweepSettings, best: Run | None) -> str:
    """The curves with the highest throughput; a ring marks each knee."""
    able = sorted((curve for curve in found if curve.runs), key=lambda curve: -max(run.qps for run in curve.runs))
    shown = able[:_LINES]
    names = [curve.point.differs(settings.axes) for curve in shown]

    def chart(title: str, x_label: str, y_label: str, x: Any, y: Any, *, log_y: bool = False) -> str:
        series = [Series(name, [(x(run), y(run)) for run in curve.runs if y(run) is not None])
                  for name, curve in zip(names, shown, strict=True)]
        knees = [(x(run), y(run), "knee") for curve in shown if curve.knee is not None
                 for run in [curve.runs[curve.knee]] if y(run) is not None]
        return line_chart(series, title=title, x_label=x_label, y_label=y_label, log_y=log_y, markers=True, rings=knees)

    unit = settings.loads.unit
    charts = [chart("p99 latency by throughput", "requests/s", "ms", lambda run: run.qps, lambda run: run.p99_ms,
                    log_y=True),
              chart("throughput by load", unit, "requests/s", lambda run: run.amount, lambda run: run.qps),
              chart("busy cores by load", unit, "cores", lambda run: run.amount,
                    lambda run: run.figures["server"].get("cpu_cores"))]
    bars = [(curve.point.differs(settings.axes), curve.runs[curve.knee].tokens_per_s) for curve in able
            if curve.knee is not None]
    charts.append(bar_chart(bars, title="tokens per second at the knee", unit="tokens/s"))
    note = f" {len(able) - len(shown)} more settings are in the table only." if len(able) > len(shown) else ""
    marked = "" if best is None else f" Recommended: {best.point.differs(settings.axes)}."
    return text(f"A ring marks the knee of each curve.{note}{marked}", kind="note") + plots(charts)
