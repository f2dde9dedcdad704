"""Intervals: they cover what they should, and neighbours that go together widen them."""

from __future__ import annotations

import numpy as np
import pytest

from openautoglm.bench.figures import Measured, Values, distribution
from openautoglm.bench.intervals import intervals
from openautoglm.bench.settings import Judgement

JUDGE = Judgement(resamples=300)


def measured(ms: np.ndarray, *, rate: float = 10.0, goodput: bool = False) -> Measured:
    """A repetition of requests with these end-to-end latencies, `rate` a second."""
    count = len(ms)
    ends = (np.arange(count) + 0.5) / rate
    figures = {"completed": count, "duration": count / rate, "request_throughput": rate, "output_throughput": 5 * rate,
               "total_token_throughput": 7 * rate, "request_goodput": rate / 2 if goodput else None,
               **distribution("e2el", ms, JUDGE.percentiles)}
    return Measured(figures, {"e2el": Values(ms, np.arange(count))}, ends, np.full(count, 2.0), np.full(count, 5.0),
                    np.arange(count) % 2 * 1.0, {}, {})


def test_intervals_cover_the_true_value_as_often_as_they_say() -> None:
    dice = np.random.default_rng(7)
    inside = {"mean_e2el_ms": 0, "median_e2el_ms": 0, "p90_e2el_ms": 0}
    truth = {"mean_e2el_ms": 100.0, "median_e2el_ms": 100 * np.log(2), "p90_e2el_ms": 100 * np.log(10)}
    for trial in range(150):
        found = intervals([measured(dice.exponential(100, 400))], JUDGE, trial)
        for name in inside:
            low, high = found[name]
            inside[name] += low <= truth[name] <= high
    assert all(0.85 <= count / 150 <= 0.995 for count in inside.values()), inside


def test_neighbours_that_go_together_widen_an_interval() -> None:
    dice = np.random.default_rng(3)
    alone = dice.normal(100, 20, 400)
    together = np.repeat(dice.normal(100, 20, 20), 20)
    narrow, wide = (intervals([measured(ms)], JUDGE, 1)["mean_e2el_ms"] for ms in (alone, together))
    assert wide[1] - wide[0] > 2.5 * (narrow[1] - narrow[0])


def test_repetitions_that_differ_widen_an_interval() -> None:
    dice = np.random.default_rng(3)
    same = [measured(dice.normal(100, 5, 200)) for _ in range(4)]
    differing = [measured(dice.normal(100 + 20 * place, 5, 200)) for place in range(4)]
    narrow, wide = (intervals(runs, JUDGE, 1)["mean_e2el_ms"] for runs in (same, differing))
    assert narrow[1] - narrow[0] < 3
    assert wide[1] - wide[0] > 20
    assert wide[0] < 130 < wide[1]


def test_throughputs_have_intervals_and_few_requests_have_none() -> None:
    dice = np.random.default_rng(3)
    found = intervals([measured(dice.normal(100, 5, 200), goodput=True)], JUDGE, 1)
    assert found["request_throughput"] == pytest.approx((10, 10), rel=0.15)
    assert found["output_throughput"] == pytest.approx((50, 50), rel=0.15)
    low, high = found["request_goodput"]
    assert low <= 5 <= high
    assert intervals([measured(dice.normal(100, 5, 8))], JUDGE, 1) == {}


def test_a_seed_gives_the_same_intervals() -> None:
    run = measured(np.random.default_rng(3).normal(100, 5, 200))
    assert intervals([run, run], JUDGE, 5) == intervals([run, run], JUDGE, 5)
    assert intervals([run, run], JUDGE, 5) != intervals([run, run], JUDGE, 6)
