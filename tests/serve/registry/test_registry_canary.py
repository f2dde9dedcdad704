"""Canaries: the pure decision, and the counts that it is made from."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.serve.registry.canary import Canary, CanarySettings, lower_bound
from openautoglm.serve.registry.outcomes import EDGES_S, ERROR, UNTIMED, Outcomes, bucket_of
from openautoglm.serve.registry.registry import Registry

SETTINGS = CanarySettings(min_requests=50, max_error_rate=0.05, max_latency_ratio=1.5, confidence=0.99)


def outcomes(ok: int = 0, errors: int = 0, latencies_s: list[float] | None = None) -> Outcomes:
    counts = Counter({UNTIMED: ok, ERROR: errors})
    counts.update(bucket_of(latency_s, ok=True) for latency_s in latencies_s or [])
    return Outcomes(dict(counts))


def spread(middle_s: float, count: int, seed: int = 1) -> list[float]:
    dice = random.Random(seed)
    return [middle_s * dice.lognormvariate(0, 0.3) for _ in range(count)]


GOOD = outcomes(ok=2000, errors=4)


@pytest.mark.parametrize(("trial", "baseline", "action"), [
    (outcomes(errors=49), GOOD, "wait"),
    (outcomes(ok=10, errors=40), GOOD, "roll back"),
    (outcomes(ok=190, errors=10), GOOD, "keep"),
    (outcomes(ok=185, errors=15), GOOD, "keep"),
    (outcomes(ok=170, errors=30), GOOD, "roll back"),
    (outcomes(ok=50, errors=150), outcomes(ok=300, errors=900), "keep"),
    (outcomes(ok=50, errors=150), outcomes(ok=1, errors=9), "roll back"),
    (outcomes(ok=50, errors=150), outcomes(), "roll back"),
], ids=["too-few", "most-fail", "as-allowed", "unlucky", "too-many", "all-fail-alike", "small-baseline", "no-baseline"])
def test_errors(trial: Outcomes, baseline: Outcomes, action: str) -> None:
    assert Canary(SETTINGS).judge(trial, baseline).action == action


@pytest.mark.parametrize(("trial_s", "baseline_s", "bound_s", "action"), [
    (0.2, 0.2, None, "keep"), (0.24, 0.2, None, "keep"), (0.5, 0.2, None, "roll back"), (0.5, None, None, "keep"),
    (0.5, None, 0.3, "roll back"), (0.1, 0.1, 0.3, "keep"), (0.1, 0.5, None, "keep")])
def test_latency(trial_s: float, baseline_s: float | None, bound_s: float | None, action: str) -> None:
    baseline = outcomes(latencies_s=spread(baseline_s, 900)) if baseline_s else outcomes()
    canary = Canary(SETTINGS.model_copy(update={"max_latency_s": bound_s}))
    verdict = canary.judge(outcomes(latencies_s=spread(trial_s, 300, seed=2)), baseline)
    assert verdict.action == action, verdict.reason


def test_the_reason_says_what_happened() -> None:
    verdict = Canary(SETTINGS).judge(outcomes(ok=100, errors=60), GOOD)
    assert verdict.reason == "60 of 160 requests failed, 5.0% are allowed; of the baseline's 4 of 2004"
    slow = Canary(SETTINGS).judge(outcomes(latencies_s=[2.0] * 100), outcomes(latencies_s=[0.1] * 100))
    assert "100 of 100 answers took longer than 0.15 s, 1.5 times the baseline's p95" in slow.reason


def test_an_equal_version_is_seldom_taken_back() -> None:
    dice, canary = random.Random(3), Canary(SETTINGS)
    backs = 0
    for _ in range(1000):
        errors = sum(dice.random() < 0.05 for _ in range(200))
        backs += canary.judge(outcomes(ok=200 - errors, errors=errors), GOOD).action == "roll back"
    assert backs <= 20  # one in a hundred by its confidence


@given(st.integers(0, 500), st.integers(0, 500), st.sampled_from([0.9, 0.99, 0.999]))
def test_the_lower_bound_is_below_the_share_and_grows_with_hits(hits: int, more: int, confidence: float) -> None:
    count = hits + more
    bound = lower_bound(hits, count, confidence)
    assert 0 <= bound <= (hits / count if count else 0) + 1e-12
    assert lower_bound(hits + 1, count + 1, confidence) >= bound - 1e-12


def test_wilson_against_figures_worked_out_by_hand() -> None:
    assert lower_bound(10, 100, 0.975) == pytest.approx(0.05523, abs=2e-5)
    assert lower_bound(0, 10, 0.975) == pytest.approx(0, abs=1e-12)
    assert lower_bound(10, 10, 0.975) == pytest.approx(0.72247, abs=2e-5)


@given(st.lists(st.floats(1e-3, 900), min_size=1, max_size=200), st.floats(0.01, 1))
def test_quantiles_are_bounds_and_close(latencies_s: list[float], share: float) -> None:
    found = outcomes(latencies_s=latencies_s).quantile_s(share)
    import math

    exact = sorted(latencies_s)[math.ceil(share * len(latencies_s)) - 1]
    assert found is not None
    assert exact <= found * (1 + 1e-9)
    assert found <= max(exact * 1.26, EDGES_S[0])


@given(st.lists(st.floats(0, 5000), max_size=100), st.floats(1e-3, 900))
def test_slower_is_never_overstated(latencies_s: list[float], limit_s: float) -> None:
    assert outcomes(latencies_s=latencies_s).slower_than(limit_s) <= sum(one >= limit_s * 0.999 for one in latencies_s)


def test_classes() -> None:
    assert bucket_of(None, ok=True) == UNTIMED
    assert bucket_of(0.5, ok=False) == ERROR
    assert bucket_of(float("nan"), ok=True) == UNTIMED
    assert bucket_of(0.0, ok=True) == 0
    assert bucket_of(1e9, ok=True) == len(EDGES_S)
    assert outcomes(latencies_s=[1e9]).quantile_s(0.5) == EDGES_S[-1]
    assert outcomes().quantile_s(0.5) is None


def test_counts_of_all_servers_add_up(filled: Registry, clock: object) -> None:
    ids = {number: one.id for number, one in filled.snapshot().models["reports"].versions.items()}
    minute = int(filled.database.now() // 60)
    for _ in range(3):
        filled.outcomes.add({(ids[1], minute, ERROR): 2, (ids[1], minute, 7): 5, (ids[2], minute - 5, 7): 1,
                             (999_999, minute, 7): 4})
    filled.outcomes.add({})
    totals = filled.outcomes.totals([ids[1], ids[2], ids[3]], since_s=filled.database.now() - 60)
    assert totals[ids[1]] == Outcomes({ERROR: 6, 7: 15})
    assert totals[ids[2]] == totals[ids[3]] == Outcomes({})
    assert filled.outcomes.totals([ids[2]], since_s=0)[ids[2]].requests == 3
    clock.at_s += 8 * 24 * 3600  # type: ignore[attr-defined]
    assert filled.outcomes.prune() == 3
