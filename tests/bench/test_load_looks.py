"""What is seen of a server: its metrics, its process, its figures over time; and waking up on time."""

from __future__ import annotations

import asyncio
import math
import os
import socket
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.bench.monitor import Look, MetricsSource, Monitor, ProcessSource, server_pid
from openautoglm.bench.pace import ThreadPacer
from openautoglm.bench.scrape import QUEUE_TIME, STEP_TOKENS, Histogram, Metrics, parse
from openautoglm.bench.usage import usage

PAGE = """# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a {odd} name"} 2.0
vllm:num_requests_running{engine="1",model_name="b"} 3.0 1700000000000
vllm:kv_cache_usage_perc{engine="0"} 0.5
vllm:num_requests_runningx 99
vllm:prefix_cache_hits_total 12
vllm:num_preemptions_total nonsense
vllm:iteration_tokens_total_bucket{le="8"} 4
vllm:iteration_tokens_total_bucket{le="+Inf"} 5
vllm:iteration_tokens_total_sum 60
vllm:iteration_tokens_total_count 5
process_cpu_seconds_total 12.5
"""


def test_a_page_of_metrics_is_read() -> None:
    found = parse(PAGE)
    assert found.values == {"running": 5.0, "kv_use": 0.5, "prefix_hits": 12.0}
    assert found.histograms == {STEP_TOKENS: Histogram(60, 5, {8.0: 4.0, math.inf: 5.0})}


@given(st.text())
def test_no_page_breaks_the_reader(text: str) -> None:
    parse(text)
    parse(f"vllm:num_requests_running{text} 1\n{QUEUE_TIME}_bucket{text}")


def test_quantiles_of_a_histogram_are_linear_in_their_bucket() -> None:
    histogram = Histogram(0, 100, {1.0: 20.0, 3.0: 80.0, math.inf: 100.0})
    assert histogram.quantile(0.1) == pytest.approx(0.5)
    assert histogram.quantile(0.5) == pytest.approx(2.0)
    assert histogram.quantile(0.8) == pytest.approx(3.0)
    assert histogram.quantile(0.99) == 3.0  # nothing is known beyond the last bound
    assert math.isnan(Histogram(0, 0, {}).quantile(0.5))


def look(at_s: float, values: dict[str, float], queue: tuple[float, float] | None = None) -> Look:
    histograms = {} if queue is None else {QUEUE_TIME: Histogram(queue[0], queue[1], {1.0: queue[1]})}
    return Look(at_s, values, histograms)


def test_usage_takes_differences_from_the_end_of_the_warm_up() -> None:
    looks = [look(0, {"cpu_s": 0, "rss_bytes": 1, "steps": 0, "step_tokens": 0, "prefix_hits": 0, "prefix_queries": 0},
                  (0, 0)),
             look(2, {"cpu_s": 4, "rss_bytes": 10, "steps": 10, "step_tokens": 50, "running": 1, "kv_use": 0.1,
                      "prefix_hits": 5, "prefix_queries": 100}, (1, 10)),
             look(4, {"cpu_s": 7, "rss_bytes": 30, "running": 4, "kv_use": 0.4, "waiting": 2}),
             look(6, {"cpu_s": 8, "rss_bytes": 20, "steps": 30, "step_tokens": 250, "running": 2, "kv_use": 0.3,
                      "prefix_hits": 55, "prefix_queries": 200, "preemptions": 3}, (5, 20))]
    found = usage(looks, 3.0, (50,))
    assert found["cpu_cores"] == pytest.approx(1.0)
    assert (found["rss_bytes_start"], found["rss_bytes_end"], found["rss_bytes_max"]) == (10, 20, 30)
    assert (found["running_mean"], found["running_max"], found["kv_use_max"], found["waiting_max"]) == (3, 4, 0.4, 2)
    assert found["prefix_hit_rate"] == pytest.approx(0.5)
    assert found["tokens_per_step"] == pytest.approx(10)
    assert found["queue_time"]["mean"] == pytest.approx(400)
    assert found["queue_time"]["p50"] == pytest.approx(500)
    assert "preemptions" not in found  # seen only once
    assert usage([], 0, (50,)) == {}


def test_a_process_and_its_children_are_weighed() -> None:
    """The child takes some memory and processor time, and tells when it has."""
    work = "import sys; x = bytearray(60_000_000); sum(range(6_000_000)); print('done', flush=True); sys.stdin.read()"
    source = ProcessSource(os.getpid())
    before, _ = source.look()
    child = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"done\n"
    during, _ = source.look()
    child.communicate()
    after, _ = source.look()
    assert during["rss_bytes"] - before["rss_bytes"] > 50_000_000
    assert during["processes"] == before["processes"] + 1
    assert during["cpu_s"] > before["cpu_s"]
    assert after["cpu_s"] >= during["cpu_s"]  # what an ended child took stays counted
    assert after["rss_bytes"] < during["rss_bytes"]


def test_a_process_that_is_gone_gives_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    source = ProcessSource(child.pid)
    assert source.look()[0]["rss_bytes"] > 0
    child.communicate(b"\n")
    assert source.look() == ({}, {})


def test_who_listens_is_found_on_loopback_only() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert server_pid("127.0.0.1", port) == os.getpid()
        assert server_pid("localhost", port) == os.getpid()
        assert server_pid("192.0.2.1", port) is None
        assert server_pid("example.org", port) is None
    assert server_pid("127.0.0.1", port) is None


def test_a_server_without_metrics_is_left_alone_after_three_looks() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    source = MetricsSource(Metrics(f"http://127.0.0.1:{port}", {}))
    assert [source.look() for _ in range(5)] == [({}, {})] * 5
    assert source._failures == 3
    source.close()


def test_a_monitor_looks_at_the_beginning_and_at_the_end() -> None:
    class Counting:
        looks = 0
        closed = False

        def look(self) -> tuple[dict[str, float], dict[str, Histogram]]:
            self.looks += 1
            return {"n": float(self.looks)}, {}

        def close(self) -> None:
            self.closed = True

    source = Counting()
    monitor = Monitor([source], 3600)
    monitor.start()
    looks = monitor.stop()
    assert [one.values["n"] for one in looks] == [1, 2]
    assert source.closed


def test_a_pacer_wakes_nobody_early() -> None:
    async def work() -> list[float]:
        pacer = ThreadPacer()
        late = []
        for _ in range(20):
            at_s = pacer.now() + 0.003
            await pacer.until(at_s)
            late.append(time.monotonic() - at_s)
        await pacer.until(pacer.now() - 1)
        pacer.close()
        return late

    assert min(asyncio.run(work())) >= 0


def test_a_pacer_survives_a_waiter_that_gave_up() -> None:
    async def work() -> None:
        pacer = ThreadPacer()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pacer.until(pacer.now() + 0.05), 0.005)
        await pacer.until(pacer.now() + 0.1)
        pacer.close()

    asyncio.run(work())
