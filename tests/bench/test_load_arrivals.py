"""Arrivals: their rate, their burstiness, their seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from openautoglm.bench.arrivals import arrival_times
from openautoglm.bench.settings import Arrivals

rates = st.floats(0.01, 1000)
shapes = st.one_of(st.floats(0.2, 20), st.just(math.inf))
seeds = st.integers(0, 2**31)


@given(rates, shapes, st.integers(1, 5), st.integers(1, 300), seeds)
def test_a_seed_gives_the_same_times_and_another_seed_others(rate: float, shape: float, burst: int, count: int,
                                                             seed: int) -> None:
    settings = Arrivals(request_rate=rate, burstiness=shape, burst_size=burst, num_prompts=count)
    times = arrival_times(settings, seed)
    assert len(times) == count
    assert times[0] >= 0
    assert (np.diff(times) >= 0).all()
    assert (times == arrival_times(settings, seed)).all()
    if not math.isinf(shape):
        assert (times != arrival_times(settings, seed + 1)).any()


@given(rates, shapes, st.integers(1, 4), seeds)
def test_the_mean_rate_is_the_one_asked_for(rate: float, shape: float, burst: int, seed: int) -> None:
    count = 20_000 * burst
    times = arrival_times(Arrivals(request_rate=rate, burstiness=shape, burst_size=burst, num_prompts=count), seed)
    spread = 1 / math.sqrt(20_000 * shape) if not math.isinf(shape) else 0.0  # standard error of the mean gap
    assert (count / rate) == pytest.approx(times[-1], rel=6 * spread + 2e-4)


@given(rates, st.floats(0.2, 20), seeds)
def test_gaps_vary_as_their_burstiness_says(rate: float, shape: float, seed: int) -> None:
    gaps = np.diff(arrival_times(Arrivals(request_rate=rate, burstiness=shape, num_prompts=20_000), seed))
    variation = gaps.std() / gaps.mean()
    assert variation == pytest.approx(1 / math.sqrt(shape), rel=0.15)


@given(rates, st.integers(2, 7), seeds)
def test_bursts_arrive_together(rate: float, burst: int, seed: int) -> None:
    times = arrival_times(Arrivals(request_rate=rate, burst_size=burst, num_prompts=burst * 40), seed)
    groups = times.reshape(-1, burst)
    assert (groups == groups[:, :1]).all()
    assert len(np.unique(times)) == 40


@given(st.floats(1, 200), shapes, st.floats(0.5, 60), seeds)
def test_a_duration_bounds_the_times(rate: float, shape: float, duration: float, seed: int) -> None:
    times = arrival_times(Arrivals(request_rate=rate, burstiness=shape, duration_s=duration), seed)
    assert (times < duration).all()
    expected = rate * duration
    spread = 0 if math.isinf(shape) else math.sqrt(expected / shape)
    assert len(times) == pytest.approx(expected, abs=7 * spread + 2)
    short = arrival_times(Arrivals(request_rate=rate, burstiness=shape, duration_s=duration, num_prompts=3), seed)
    assert len(short) == min(3, len(times))


def test_an_infinite_burstiness_is_an_even_beat() -> None:
    times = arrival_times(Arrivals(request_rate=4, burstiness=math.inf, num_prompts=5), 3)
    assert times.tolist() == [0, 0.25, 0.5, 0.75, 1.0]
    assert arrival_times(Arrivals(num_prompts=3), 0).tolist() == [0, 0, 0]


def test_poisson_counts_have_the_variance_of_their_mean() -> None:
    times = arrival_times(Arrivals(request_rate=50, duration_s=2000), 11)
    counts = np.bincount(times.astype(int), minlength=2000)
    assert counts.mean() == pytest.approx(50, rel=0.02)
    assert counts.var() == pytest.approx(50, rel=0.1)


@pytest.mark.parametrize("wrong", [
    {"request_rate": 0}, {"burstiness": 0}, {"duration_s": 0}, {"burst_size": 2}, {"think_time_s": 1},
    {"request_rate": 5, "max_concurrency": 2, "think_time_s": 1}], ids=lambda wrong: "-".join(wrong))
def test_settings_that_do_not_fit_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Arrivals.model_validate(wrong)


def test_a_closed_loop_has_clients_and_no_rate() -> None:
    assert Arrivals(max_concurrency=4).order == "closed"
    assert Arrivals(max_concurrency=4, request_rate=2).order == "open"
    assert Arrivals().order == "open"
