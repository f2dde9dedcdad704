"""The quality report as one self-contained HTML page: plots are inline SVG, every text of the data is
escaped."""

from __future__ import annotations

from functools import cache
from typing import Any

from openautoglm.core.svg import STYLE, Series, bar_chart, histogram
from openautoglm.data.quality import QualityReport

CHECKS = {"exact_duplicate": "exact duplicates", "near_duplicate": "near-duplicates", "leak": "leaks"}


def render(report: QualityReport) -> str:
    """Return the page."""
    return str(_template().render(report=report, style=STYLE, flow=flow(report), plots=plots(report),
                                  total=lambda rows: sum(rows.values())))


@cache
def _template() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("openautoglm.data", "."), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["count"] = lambda value: f"{value:,}"
    environment.filters["percent"] = lambda value: f"{value:.2%}"
    return environment.get_template("quality.html.j2")


def flow(report: QualityReport) -> list[tuple[str, int, int]]:
    """Return the way of the rows: what happened, how many rows went, how many remained."""
    remaining = sum(report.rows_read.values()) + report.rejects.rows
    steps = [("rows in the files", 0, remaining)]
    gone = [("cannot be read", report.rejects.rows)] if report.rejects.rows else []
    gone += [(CHECKS.get(name, f"rule {name}"), rows) for name, rows in report.dropped.items()]
    for name, rows in gone:
        remaining -= rows
        steps.append((name, rows, remaining))
    return steps


def plots(report: QualityReport) -> dict[str, Any]:
    """Return the plots by name, as markup that is safe (its texts are escaped where they are drawn)."""
    from markupsafe import Markup

    steps = flow(report)
    drawn = {"flow": bar_chart([(name if not gone else f"after: {name}", rows) for name, gone, rows in steps],
                               title="Rows that remain", label_width=230)}
    for measure, by_split in report.lengths.items():
        series = [Series(split, [(place, count / max(sum(facts.counts), 1))
                                 for place, count in enumerate(facts.counts)])
                  for split, facts in by_split.items()]
        drawn[measure] = histogram(report.length_edges[measure], series, title=f"Length: {measure}",
                                   x_label=measure)
    for split, shares in report.scripts.items():
        bars = [(script, round(100 * share, 2)) for script, share in shares.items()]
        drawn[f"script {split}"] = bar_chart(bars, title=f"Characters of targets by script, {split} files",
                                             unit="%")
    return {name: Markup(svg)  # nosec B704  # drawn by us, every text in it escaped
            for name, svg in drawn.items()}
