"""Figures in virtual time: exactly what the delays that were set must give (a load's arithmetic, without a machine)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from virtual_time import ScriptedClient, VirtualLoop, drive, plan_of, run_virtual

from openautoglm.bench.drive import Driver
from openautoglm.bench.figures import measure
from openautoglm.bench.pace import LoopPacer
from openautoglm.bench.result import generator_facts
from openautoglm.bench.settings import Arrivals, Judgement

dice = np.random.default_rng(4)
FIRST = dice.gamma(2, 0.1, 400)
GAP = dice.gamma(3, 0.01, 400)
TOKENS = dice.integers(1, 30, 400)


def script(number: int) -> tuple[float, float, int]:
    return float(FIRST[number]), float(GAP[number]), int(TOKENS[number])


def percentiles(name: str, ms: np.ndarray) -> dict[str, float]:
    return {f"mean_{name}_ms": ms.mean(), f"median_{name}_ms": np.median(ms), f"std_{name}_ms": ms.std(),
            **{f"p{p}_{name}_ms": np.percentile(ms, p) for p in (50, 90, 95, 99)}}


@pytest.mark.parametrize("how", ["open", "closed", "at-once"])
def test_latencies_are_those_that_were_set(how: str) -> None:
    arrivals = {"open": Arrivals(request_rate=40), "closed": Arrivals(max_concurrency=7), "at-once": Arrivals()}[how]
    times = np.cumsum(dice.exponential(0.025, 400)) if how == "open" else np.zeros(400)
    found = measure(drive(lambda: ScriptedClient(script), plan_of(times), arrivals), Judgement())
    long = TOKENS > 1
    expected = percentiles("ttft", FIRST * 1e3) | percentiles("itl", np.repeat(GAP, TOKENS - 1) * 1e3)
    expected |= percentiles("tpot", GAP[long] * 1e3) | percentiles("e2el", (FIRST + GAP * (TOKENS - 1)) * 1e3)
    assert {name: found.figures[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert found.figures["completed"] == 400
    assert found.figures["total_output_tokens"] == TOKENS.sum()
    assert found.figures["total_input_tokens"] == 4000
    duration = found.figures["duration"]
    assert found.figures["request_throughput"] == pytest.approx(400 / duration)
    assert found.figures["output_throughput"] == pytest.approx(TOKENS.sum() / duration)
    if how == "open":
        assert duration == pytest.approx((times + FIRST + GAP * (TOKENS - 1)).max())
    if how == "closed":
        assert found.figures["max_concurrent_requests"] == 7


def test_a_slow_server_does_not_slow_the_sending_and_its_queue_is_counted() -> None:
    """Ten requests a second to a server that does one at a time in 0.2 s: the n-th waits for all before it."""
    times = np.arange(50) / 10
    run = drive(lambda: ScriptedClient(lambda number: (0.2, 0.0, 1), slots=1), plan_of(times))
    assert [mark.begun_s - run.start_s for mark in run.marks] == pytest.approx(times)
    waited = np.array([mark.token_s[0] - mark.intended_s for mark in run.marks])
    assert waited == pytest.approx(0.2 + np.arange(50) * 0.1)
    found = measure(run, Judgement()).figures
    assert found["mean_ttft_ms"] == pytest.approx(waited.mean() * 1e3)
    assert found["mean_queue_time_ms"] == pytest.approx(np.arange(50).mean() * 100)
    assert found["steady_request_throughput"] == pytest.approx(5, rel=0.05)
    assert found["request_throughput"] == pytest.approx(5)


def test_what_waits_in_the_generator_counts_as_latency() -> None:
    arrivals = Arrivals(request_rate=10, max_concurrency=1)
    run = drive(lambda: ScriptedClient(lambda number: (0.2, 0.0, 1)), plan_of(np.arange(20) / 10), arrivals)
    found = measure(run, Judgement()).figures
    assert found["mean_client_queue_time_ms"] == pytest.approx(np.arange(20).mean() * 100)
    assert found["mean_e2el_ms"] == pytest.approx(200 + np.arange(20).mean() * 100)
    assert found["max_concurrent_requests"] == 1


def test_a_closed_loop_thinks_and_ends_in_time() -> None:
    arrivals = Arrivals(max_concurrency=2, think_time_s=0.3, duration_s=3.0)
    run = drive(lambda: ScriptedClient(lambda number: (0.2, 0.0, 1)), plan_of(np.zeros(100)), arrivals)
    assert len(run.marks) == 12  # 0, 0.5, ... 2.5 s, two clients
    assert run.unsent == 88
    assert measure(run, Judgement()).figures["unsent"] == 88
    assert {round((mark.intended_s - run.start_s) / 0.5, 6) for mark in run.marks} == set(range(6))


def test_the_warm_up_is_cut() -> None:
    judge = Judgement(warmup_s=2.0)
    slow = drive(lambda: ScriptedClient(lambda number: (5.0 if number < 20 else 0.1, 0.0, 1)),
                 plan_of(np.arange(50) / 10), judge=judge)
    found = measure(slow, judge).figures
    assert (found["completed"], found["not_counted"]) == (30, 20)
    assert found["p99_ttft_ms"] == pytest.approx(100)
    assert found["duration"] == pytest.approx(3.0)
    assert found["request_throughput"] == pytest.approx(10)


def test_goodput_counts_what_keeps_all_bounds() -> None:
    judge = Judgement(goodput={"ttft": 150, "tpot": 20, "e2el": 400})
    cases = [(0.1, 0.01, 5), (0.2, 0.01, 5), (0.1, 0.03, 5), (0.1, 0.02, 17), (0.15, 0.02, 2), (0.1, 0.0, 1)]
    run = drive(lambda: ScriptedClient(lambda number: cases[number]), plan_of(np.arange(6.0)), judge=judge)
    measured = measure(run, judge)
    assert measured.good.tolist() == [1, 0, 0, 0, 1, 1]
    assert measured.figures["request_goodput"] == pytest.approx(3 / measured.figures["duration"])
    assert measure(run, Judgement()).figures["request_goodput"] is None


def test_failures_are_counted_by_kind_and_leave_latencies_alone() -> None:
    kinds = {1: "http_429", 3: "http_429", 4: "closed"}
    run = drive(lambda: ScriptedClient(script, fail=lambda number: kinds.get(number, "")), plan_of(np.arange(6.0)))
    found = measure(run, Judgement())
    assert found.errors == {"http_429": 2, "closed": 1}
    assert found.examples == {"http_429": "as scripted", "closed": "as scripted"}
    assert (found.figures["completed"], found.figures["failed"]) == (3, 3)
    assert found.figures["mean_ttft_ms"] == pytest.approx(FIRST[[0, 2, 5]].mean() * 1e3)


def test_nothing_but_failures_is_still_a_result() -> None:
    run = drive(lambda: ScriptedClient(script, fail=lambda number: "connect"), plan_of(np.arange(3.0)))
    found = measure(run, Judgement()).figures
    assert (found["completed"], found["failed"]) == (0, 3)
    assert found["p99_ttft_ms"] is None
    assert found["request_throughput"] == 0


def test_an_answer_that_takes_too_long_is_an_error() -> None:
    judge = Judgement(timeout_s=1.0)
    run = drive(lambda: ScriptedClient(lambda number: (0.5, 0.3, 2 + number)), plan_of(np.zeros(3)), judge=judge)
    assert [mark.error for mark in run.marks] == ["", "timeout", "timeout"]
    assert run.marks[2].end_s - run.marks[2].intended_s == pytest.approx(1.0)


def test_a_stalled_server_is_noticed() -> None:
    """Tokens every 0.1 s; all answers stop at the same moment for 7 s; and once more until the time is out."""
    def delays(number: int) -> tuple[float, float, int]:
        return 0.1, 0.1, 20

    class Stalling(ScriptedClient):
        async def _answer(self, mark, number, loop):  # type: ignore[no-untyped-def]
            for place in range(20):
                halt = 7.0 if place == 10 and number < 3 else 1e6 if number == 4 and place == 1 else 0.1
                await LoopPacer().until(loop.time() + halt)
                self.pulse.at_s = loop.time()
                mark.token_s.append(loop.time())
            mark.output_tokens = 20

    judge = Judgement(stall_s=2.0, timeout_s=30)
    run = drive(lambda: Stalling(delays), plan_of([0, 0, 0, 20, 20]), judge=judge)
    (first, second) = run.seen.stalls
    assert first.from_s == pytest.approx(1.0, abs=0.05)
    assert first.seconds == pytest.approx(7.0, abs=0.05)
    assert second.from_s == pytest.approx(22.0, abs=0.05)
    assert second.seconds == pytest.approx(28.0, abs=0.05)
    calm = drive(lambda: ScriptedClient(delays), plan_of([0, 0, 30]), judge=judge)
    assert calm.seen.stalls == []  # nothing comes from 2 s to 30 s, but nobody waits


def test_a_saturated_generator_is_noticed() -> None:
    times = np.arange(400) / 100
    judge = Judgement(lag_ms=10)
    idle = drive(lambda: ScriptedClient(lambda number: (0.05, 0.01, 5)), plan_of(times), judge=judge)
    assert not generator_facts([idle], judge)["saturated"]
    busy = drive(lambda: ScriptedClient(lambda number: (0.05, 0.01, 5), burn_s=0.004), plan_of(times), judge=judge)
    facts = generator_facts([busy], judge)  # 500 events a second, 4 ms each: twice what there is
    assert facts["saturated"]
    assert facts["p99_send_lag_ms"] > 100
    assert facts["p99_loop_lag_ms"] > 0


def test_warm_up_requests_come_one_by_one_and_their_failure_is_told() -> None:
    async def work() -> tuple[list[float], str]:
        client = ScriptedClient(lambda number: (0.2, 0.0, 1), fail=lambda number: "http_401" if number == 3 else "")
        driver = Driver(client, client.pulse, LoopPacer(), Arrivals(), Judgement(num_warmups=6))
        began = LoopPacer().now()
        failed = await driver.warm_up(plan_of(np.zeros(10)))
        return [LoopPacer().now() - began, len(client.prepared)], failed.error if failed else ""

    (took, sent), error = run_virtual(work)
    assert took == pytest.approx(0.6)
    assert (sent, error) == (4, "http_401")


def test_virtual_time_is_not_the_real_one() -> None:
    loop = VirtualLoop()
    loop.close()
    assert not math.isclose(loop.time(), 0)
