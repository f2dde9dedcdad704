"""Whether a version on trial is to be rolled back: pure, from counts of it and of its baseline.

Both rules ask for certainty: the lower bound of a Wilson interval (E. B. Wilson, 1927, J. Am. Stat. Assoc. 22) must
lie above what is allowed, so that a few unlucky requests take nothing back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

from pydantic import Field

from openautoglm.core.settings import Settings
from openautoglm.serve.registry.outcomes import Outcomes

_TAIL = 0.05  # latency is judged at p95


class CanarySettings(Settings):
    """When a version on trial is rolled back.

    Attributes:
        enabled: False judges, and does nothing.
        window_s: outcomes of the last so many seconds count, since the route was set.
        min_requests: fewer of the version on trial decide nothing.
        max_error_rate: share of its requests that may fail.
        max_latency_ratio: how many times the baseline's p95 its latencies may be at p95.
        max_latency_s: what p95 may be at most, whatever the baseline does; None: no bound.
        confidence: of each decision, one-sided.
    """

    enabled: bool = True
    window_s: float = Field(default=600, ge=60, le=24 * 3600)
    min_requests: int = Field(default=50, ge=1)
    max_error_rate: float = Field(default=0.05, gt=0, lt=1)
    max_latency_ratio: float = Field(default=1.5, ge=1)
    max_latency_s: float | None = Field(default=None, gt=0)
    confidence: float = Field(default=0.99, gt=0.5, lt=1)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What to do with a version on trial, and why."""

    action: Literal["keep", "wait", "roll back"]
    reason: str


class Canary:
    """Compares a version on trial with its baseline."""

    def __init__(self, settings: CanarySettings) -> None:
        self.settings = settings

    def judge(self, trial: Outcomes, baseline: Outcomes) -> Verdict:
        """Return what to do with the version on trial.

        A fault that strikes the baseline as much is not the version's, and rolling back would not help.
        """
        wanted = self.settings.min_requests
        if trial.requests < wanted:
            return Verdict("wait", f"{trial.requests} of {wanted} requests")
        reason = self._errors(trial, baseline) or self._latency(trial, baseline)
        if reason is not None:
            return Verdict("roll back", reason)
        return Verdict("keep", f"{trial.errors} of {trial.requests} requests failed")

    def _errors(self, trial: Outcomes, baseline: Outcomes) -> str | None:
        lowest = lower_bound(trial.errors, trial.requests, self.settings.confidence)
        if lowest <= self.settings.max_error_rate:
            return None
        usual = baseline.errors / baseline.requests if baseline.requests >= self.settings.min_requests else 0.0
        if lowest <= usual:
            return None
        return (f"{trial.errors} of {trial.requests} requests failed, {self.settings.max_error_rate:.1%} are allowed; "
                f"of the baseline's {baseline.errors} of {baseline.requests}")

    def _latency(self, trial: Outcomes, baseline: Outcomes) -> str | None:
        limits = [] if self.settings.max_latency_s is None else [(self.settings.max_latency_s, "the bound")]
        usual_s = baseline.quantile_s(1 - _TAIL)
        if usual_s is not None and baseline.timed >= self.settings.min_requests:
            ratio = self.settings.max_latency_ratio
            limits.append((usual_s * ratio, f"{ratio:g} times the baseline's p95"))
        for limit_s, name in limits:
            slow = trial.slower_than(limit_s)
            if lower_bound(slow, trial.timed, self.settings.confidence) > _TAIL:
                return f"{slow} of {trial.timed} answers took longer than {limit_s:.3g} s, {name}"
        return None


def lower_bound(hits: int, count: int, confidence: float) -> float:
    """Lower bound of Wilson's interval for the share behind `hits` of `count`, one-sided."""
    if count == 0:
        return 0.0
    z = NormalDist().inv_cdf(confidence)
    share = hits / count
    middle = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, (middle - spread) / (1 + z * z / count))
