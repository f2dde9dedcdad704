"""From finished runs to curves, knees and one recommendation.

The knee of a curve is where throughput over mean latency, the power, is largest (Kleinrock 1979): below it a server has
room, above it requests mostly wait.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from openautoglm.bench.sweep.points import Axes, Point

_ENOUGH = 0.97
"""Of the highest throughput what counts as equal: among those the lowest latency is taken."""
_MOST_FAILED = 0.01


class Run(NamedTuple):
    """One point under one load: what matters of its figures."""

    point: Point
    amount: float
    figures: Mapping[str, Any]

    @property
    def qps(self) -> float:
        """Answers per second."""
        return float(self.figures.get("steady_request_throughput") or self.figures["request_throughput"] or 0.0)

    @property
    def tokens_per_s(self) -> float:
        """Generated tokens per second."""
        return float(self.figures.get("steady_output_throughput") or self.figures["output_throughput"] or 0.0)

    @property
    def latency_ms(self) -> float | None:
        """Mean of end to end."""
        value = self.figures.get("mean_e2el_ms")
        return None if value is None else float(value)

    @property
    def p99_ms(self) -> float | None:
        """99th percentile of end to end."""
        value = self.figures.get("p99_e2el_ms")
        return None if value is None else float(value)

    @property
    def answered(self) -> bool:
        """Whether answers came, and hardly any request failed."""
        asked = self.figures["completed"] + self.figures["failed"]
        return bool(self.figures["completed"]) and self.figures["failed"] <= _MOST_FAILED * asked

    @property
    def sound(self) -> bool:
        """Whether its figures can be trusted: no saturated generator, no stall."""
        return self.answered and not self.figures["generator"]["saturated"] and not self.figures["stalls"]

    def keeps(self, bounds_ms: Mapping[str, float]) -> bool:
        """Whether the 99th percentiles keep bounds by name."""
        found = {name: self.figures.get(f"p99_{name}_ms") for name in bounds_ms}
        return all(value is not None and value <= bounds_ms[name] for name, value in found.items())


class Curve(NamedTuple):
    """One point under all its loads, smallest first; `knee` is the place of its knee, None without any."""

    point: Point
    runs: Sequence[Run]
    knee: int | None


def curves(runs: Sequence[Run]) -> list[Curve]:
    """Runs by point, in the order in which the points first appear."""
    by_point: dict[Point, list[Run]] = {}
    for run in runs:
        by_point.setdefault(run.point, []).append(run)
    return [Curve(point, some, knee(some))
            for point, some in ((point, sorted(some, key=lambda run: run.amount)) for point, some in by_point.items())]


def knee(runs: Sequence[Run]) -> int | None:
    """The place of the run with the largest power; None where no run gave answers."""
    powers = [run.qps / run.latency_ms if run.latency_ms else 0.0 for run in runs]
    best = max(powers, default=0.0)
    return powers.index(best) if best > 0 else None


def best_run(found: Sequence[Curve], bounds_ms: Mapping[str, float]) -> Run | None:
    """The run to be recommended.

    With bounds: of those that keep them the highest throughput, of tokens. Without: of the knees. Runs within 3 % of
    the highest are equal, and the one of the lowest p99 is taken. Only where no run is sound, others are considered.
    """
    if bounds_ms:
        able = [run for curve in found for run in curve.runs if run.answered and run.keeps(bounds_ms)]
    else:
        able = [curve.runs[curve.knee] for curve in found if curve.knee is not None]
        able = [run for run in able if run.answered]
    able = [run for run in able if run.sound] or able
    most = max((run.tokens_per_s for run in able), default=0.0)
    near = [run for run in able if run.tokens_per_s >= _ENOUGH * most]
    return min(near, key=lambda run: run.p99_ms or 0.0, default=None)


def recommend(found: Sequence[Curve], bounds_ms: Mapping[str, float], axes: Axes, unit: str) -> str:
    """The recommendation in one sentence."""
    best = best_run(found, bounds_ms)
    words = " ".join(f"{name}:{bound:g}" for name, bound in bounds_ms.items())
    if best is None:
        if not any(curve.runs for curve in found):
            return "No run has finished, so nothing can be recommended."
        if bounds_ms:
            return (f"No setting keeps p99 within {words} ms at any load that was tried: try lower loads or other "
                    "settings.")
        return "In every run requests failed, so nothing can be recommended."
    why = f"the highest throughput with p99 within {words} ms" if bounds_ms else "the highest throughput at its knee"
    p99 = "" if best.p99_ms is None else f" with p99 {best.p99_ms:,.0f} ms"
    also = ""
    if best.point.format not in ("stored", "fp32", "bf16"):
        also = f"; check its quality with `autoglm evaluate --quantise {best.point.format.partition(':')[0]}` first"
    if not best.sound:
        also += "; but the machine was too busy or stalled in every such run: measure again when it is quiet"
    return (f"Use {best.point.differs(axes)}: {why}, {best.qps:,.2f} requests/s and {best.tokens_per_s:,.0f} tokens/s "
            f"at {best.amount:g} {unit}{p99}{also}.")
