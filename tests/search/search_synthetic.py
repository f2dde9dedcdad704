"""A synthetic training run: losses fall with tokens towards a floor that depends on the point."""

from __future__ import annotations

from openautoglm.search.records import Outcome
from openautoglm.search.settings import SearchSettings
from openautoglm.search.space import Choice, Derived, Fixed, Float, Int, Point, Space
from openautoglm.search.study import Report

MAX_TOKENS = 2700
SETTINGS = SearchSettings(trials=30, seed=7, brackets=2, metric="bleu")


def space() -> Space:
    """Five searched dimensions of every kind, and a fixed one."""
    return Space({
        "lr": Float(1e-4, 1e-1, log=True), "layers": Int(1, 8), "heads": Choice((2, 4, 8)),
        "kv_heads": Derived(lambda point: [n for n in (1, 2, 4, 8) if int(point["heads"]) % n == 0]),
        "dropout": Float(0.0, 0.5), "schedule": Fixed("cosine")})


def floor(point: Point) -> float:
    """The loss of a point after endless training: best at lr 0.01, 5 layers, no dropout."""
    import math

    lr, layers, dropout = float(point["lr"]), int(point["layers"]), float(point["dropout"])
    return (math.log10(lr) + 2) ** 2 + 0.1 * (layers - 5) ** 2 + dropout + 0.05 / int(point["kv_heads"])


def objective(point: Point, report: Report) -> Outcome:
    """Report at each ninth of the tokens; fail where training would (a very high rate on a deep model)."""
    if float(point["lr"]) > 0.05 and int(point["layers"]) > 6:
        raise FloatingPointError("loss exploded")
    loss = floor(point)
    for part in range(1, 10):
        report(300 * part, loss + 3.0 / part)
    return Outcome(loss, {"bleu": 100.0 - 10.0 * loss})


CONSTRAINTS = {"parameters": lambda point: int(point["layers"]) * int(point["heads"]) - 48.0}
