"""Token buckets: what passes in a minute, what waits, what is given back."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.serve.faults import RateLimited, TooLarge
from openautoglm.serve.guard.rates import Bucket, Failures, Rates, network
from openautoglm.serve.guard.rights import Who


class Clock:
    def __init__(self) -> None:
        self.at_s = 1000.0

    def __call__(self) -> float:
        return self.at_s


def who(key_id: str = "k", requests: int | None = None, tokens: int | None = None) -> Who:
    return Who(frozenset({"infer"}), key_id, requests, tokens)


def test_a_bucket_fills_evenly() -> None:
    bucket = Bucket(60, 0.0)
    bucket.take(60, 0.0)
    assert bucket.wait_s(1, 0.0) == pytest.approx(1)
    assert bucket.wait_s(60, 30.0) == pytest.approx(30)
    assert bucket.level(1e9) == 60
    assert math.isinf(bucket.wait_s(61, 0.0))
    assert bucket.level(-5.0) == 0  # a clock that goes back takes nothing away


def test_requests_wait_for_their_turn() -> None:
    clock = Clock()
    rates = Rates(clock)
    for _ in range(6):
        rates.admit(who(requests=6), 10)
    with pytest.raises(RateLimited, match="6 requests a minute") as caught:
        rates.admit(who(requests=6), 10)
    assert caught.value.retry_after_s == pytest.approx(10)
    rates.admit(who("other", requests=6), 10)
    clock.at_s += 10
    rates.admit(who(requests=6), 10)
    with pytest.raises(RateLimited):
        rates.admit(who(requests=6), 10)


def test_tokens_wait_and_unused_ones_come_back() -> None:
    clock = Clock()
    rates = Rates(clock)
    first = rates.admit(who(tokens=1000), 800)
    with pytest.raises(RateLimited, match="1,000 tokens a minute") as caught:
        rates.admit(who(tokens=1000), 800)
    assert caught.value.retry_after_s == pytest.approx(36)
    first.settle(100)
    first.settle(0)  # counts once
    second = rates.admit(who(tokens=1000), 900)
    second.settle(1500)  # used beyond what was asked for
    with pytest.raises(RateLimited) as caught:
        rates.admit(who(tokens=1000), 1)
    assert caught.value.retry_after_s == pytest.approx(36.06)


def test_what_never_fits_is_told_at_once() -> None:
    with pytest.raises(TooLarge, match="1,001 tokens are asked for"):
        Rates(Clock()).admit(who(tokens=1000), 1001)


def test_a_refused_request_takes_nothing() -> None:
    rates = Rates(Clock())
    rates.admit(who(requests=2, tokens=100), 100)
    with pytest.raises(RateLimited, match="tokens"):
        rates.admit(who(requests=2, tokens=100), 50)
    rates.admit(who(requests=2, tokens=100), 0)
    with pytest.raises(RateLimited, match="requests"):
        rates.admit(who(requests=2, tokens=100), 0)


def test_without_bounds_everything_passes_and_settling_does_nothing() -> None:
    rates = Rates(Clock())
    for _ in range(1000):
        rates.admit(who(), 10**9).settle(5)
    assert not rates._requests
    assert not rates._tokens


def test_a_new_rate_begins_with_a_full_bucket_and_old_keys_leave() -> None:
    rates = Rates(Clock(), most=2)
    rates.admit(who("a", requests=1), 0)
    rates.admit(who("a", requests=2), 0)
    for key in "bc":
        rates.admit(who(key, requests=1), 0)
    assert list(rates._requests) == ["b", "c"]


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 100)), max_size=60))
def test_no_minute_gives_more_than_two_shares(steps: list[tuple[float, int]]) -> None:
    clock, passed = Clock(), list[tuple[float, int]]()
    waits_s: list[float] = []
    rates = Rates(clock)
    for pause_s, tokens in steps:
        clock.at_s += pause_s
        try:
            rates.admit(who(tokens=100), tokens)
        except RateLimited as fault:
            waits_s.append(fault.retry_after_s or 0.0)
        else:
            passed.append((clock.at_s, tokens))
    assert all(wait_s > 0 for wait_s in waits_s)
    for end_s, _ in passed:
        assert sum(tokens for at_s, tokens in passed if end_s - 60 < at_s <= end_s) <= 200 + 1e-6


@given(st.integers(1, 100), st.floats(0, 100))
def test_after_the_time_that_is_told_it_passes(tokens: int, first: float) -> None:
    clock = Clock()
    rates = Rates(clock)
    rates.admit(who(tokens=100), int(first))
    try:
        rates.admit(who(tokens=100), tokens)
    except RateLimited as fault:
        clock.at_s += (fault.retry_after_s or 0) + 1e-6
        rates.admit(who(tokens=100), tokens)


def test_wrong_keys_by_address() -> None:
    clock = Clock()
    failures = Failures(3, clock, most=2)
    for _ in range(3):
        failures.check("10.0.0.1")
        failures.count("10.0.0.1")
    with pytest.raises(RateLimited, match="too many wrong keys"):
        failures.check("::ffff:10.0.0.1")
    failures.check("10.0.0.2")
    clock.at_s += 20
    failures.check("10.0.0.1")
    for number in range(5):
        failures.count("")
        failures.count(f"10.0.1.{number}")
    failures.check("")
    assert len(failures._buckets) == 2


@pytest.mark.parametrize(("client", "name"), [
    ("10.0.0.1", "10.0.0.1"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"),
    ("::ffff:10.0.0.1", "10.0.0.1"), ("unix", "unix"), ("", "")])
def test_what_counts_as_one_client(client: str, name: str) -> None:
    assert network(client) == name
