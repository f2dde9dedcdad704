"""Estimates as tables."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from openautoglm.pipeline.estimating.cost import Cost
from openautoglm.pipeline.units import bytes_text

_NAMES = {"train": "training", "compress": "compressing", "serve": "serving"}


def print_costs(found: Sequence[Cost]) -> None:
    """Print each estimate: its settings, the parts of its peak, the time, and what would make it fit."""
    out = Console()
    for number, cost in enumerate(found):
        if number:
            out.print()
        out.print(_table(cost))
        for text in _lines(cost):
            out.print(text, markup=False, highlight=False)


def _table(cost: Cost) -> Table:
    table = Table("", "", "share", title=_NAMES[cost.what], title_justify="left", box=None, pad_edge=False,
                  show_header=False)
    for name, value in cost.settings.items():
        table.add_row(name, value, "")
    table.add_row("", "", "")
    for name, size in sorted(cost.parts.items(), key=lambda part: -part[1]):
        if size:
            table.add_row(f"  {name}", bytes_text(size), f"{size / cost.peak_bytes:.0%}")
    table.add_row("peak memory", f"{bytes_text(cost.peak_bytes)} ({cost.peak})", "")
    for moment, parts in cost.moments.items():
        if moment != cost.peak:
            table.add_row(f"  at {moment}", bytes_text(sum(parts.values())), "")
    table.add_row("time", cost.time_text, "")
    return table


def _lines(cost: Cost) -> list[str]:
    fits = f"{'fits into' if cost.fits else 'DOES NOT FIT into'} {bytes_text(cost.limit_bytes)}"
    return [f"time reckoned: {cost.reckoned}", fits, *([f"remedy: {cost.remedy}"] if not cost.fits else [])]
