"""A load over real sockets against a scripted server with set delays: what is measured is what the server did.

In virtual time nothing can be late, so all figures must be those that were set. In real time, where a busy machine
makes server and client late, means and medians must agree within 2 % with the times at which the server wrote.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted_server import Script, ScriptedServer
from virtual_time import run_virtual

from openautoglm.bench.client import Mark, Pulse
from openautoglm.bench.detail import details, file_name, save
from openautoglm.bench.drive import Drive, Driver
from openautoglm.bench.figures import distribution, measure
from openautoglm.bench.pace import LoopPacer, Pacer, ThreadPacer
from openautoglm.bench.plan import Planner
from openautoglm.bench.rest import RestClient, Server
from openautoglm.bench.run import run_load
from openautoglm.bench.settings import Arrivals, Judgement, LoadSettings, Prompts
from openautoglm.bench.targets import RestTarget
from openautoglm.bench.words import word_vocabulary
from openautoglm.core.errors import LoadError
from openautoglm.core.files import read_json

PERCENTILES = (50, 90, 95, 99)


FIRST = [0.05 + 0.013 * ((7 * number) % 40) for number in range(150)]
GAPS = [[0.004 + 0.003 * ((number + 5 * place) % 11) for place in range(number % 9)] for number in range(150)]


def script(number: int) -> Script:
    """Delays that differ from request to request and from token to token, so that percentiles do."""
    return Script(first_s=FIRST[number], gaps_s=GAPS[number])


async def measured(settings: LoadSettings, pacer: Pacer, pulse: Pulse) -> tuple[Drive, ScriptedServer]:
    """A load over REST, server and client on one clock."""
    async with ScriptedServer(script, clock=pacer.now) as server:
        client = RestClient(Server(base_url=server.url, model="m"), settings.prompts, pulse, pacer.now)
        driver = Driver(client, pulse, pacer, settings.arrivals, settings.judge)
        run = await driver.run(Planner(settings, word_vocabulary(None)).plan())
        await client.close()
        return run, server


@pytest.mark.parametrize("arrivals", [Arrivals(request_rate=50, num_prompts=150),
                                      Arrivals(max_concurrency=12, num_prompts=150)], ids=["open", "closed"])
def test_figures_are_those_that_were_set(arrivals: Arrivals) -> None:
    run, server = run_virtual(lambda: measured(LoadSettings(arrivals=arrivals), LoopPacer(), Pulse()), look_s=2e-4)
    found = measure(run, Judgement()).figures
    assert (found["completed"], found["failed"]) == (150, 0)
    assert found["total_output_tokens"] == sum(len(gaps) + 1 for gaps in GAPS)
    order = [served.body["prompt"] for served in server.served]  # the n-th that came was answered by the n-th script
    number = {prompt: place for place, prompt in enumerate(order)}
    places = [number[mark.ask.prompt.text] for mark in run.marks]
    first = np.array([FIRST[place] for place in places]) * 1e3
    spans = np.array([sum(GAPS[place]) for place in places]) * 1e3
    counts = np.array([len(GAPS[place]) for place in places])
    expected = {**distribution("ttft", first, PERCENTILES), **distribution("e2el", first + spans, PERCENTILES),
                **distribution("itl", np.concatenate([GAPS[place] for place in places]) * 1e3, PERCENTILES),
                **distribution("tpot", (spans[counts > 0] / counts[counts > 0]), PERCENTILES)}
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=0.02)
    assert found["mean_ttft_ms"] == pytest.approx(expected["mean_ttft_ms"], rel=1e-6)


def test_real_times_agree_with_the_servers_own() -> None:
    """In real time: compared with what the server wrote down, not with what it was set to."""
    settings = LoadSettings(arrivals=Arrivals(request_rate=40, num_prompts=60))

    async def work() -> tuple[Drive, ScriptedServer]:
        pacer = ThreadPacer()
        try:
            return await measured(settings, pacer, Pulse())
        finally:
            pacer.close()

    run, server = asyncio.run(asyncio.wait_for(work(), 60))
    found = measure(run, settings.judge).figures
    assert found["completed"] == 60
    wrote = {served.body["prompt"]: served.token_s for served in server.served}
    itl = np.concatenate([np.diff(times) for times in wrote.values()]) * 1e3
    ttft = np.array([wrote[mark.ask.prompt.text][0] - mark.intended_s for mark in run.marks]) * 1e3
    for name, values in (("itl", itl), ("ttft", ttft)):
        assert found[f"mean_{name}_ms"] == pytest.approx(values.mean(), rel=0.02)
        assert found[f"median_{name}_ms"] == pytest.approx(np.median(values), rel=0.02)


METRICS = """# HELP vllm:num_requests_running Running.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model_name="scripted"}} 3
vllm:num_requests_waiting{{model_name="scripted"}} 1
vllm:kv_cache_usage_perc{{model_name="scripted"}} 0.25
vllm:prefix_cache_queries_total{{model_name="scripted"}} {queries}
vllm:prefix_cache_hits_total{{model_name="scripted"}} {hits}
vllm:request_queue_time_seconds_bucket{{le="0.1",model_name="scripted"}} {half}
vllm:request_queue_time_seconds_bucket{{le="0.3",model_name="scripted"}} {count}
vllm:request_queue_time_seconds_bucket{{le="+Inf",model_name="scripted"}} {count}
vllm:request_queue_time_seconds_sum{{model_name="scripted"}} {sum}
vllm:request_queue_time_seconds_count{{model_name="scripted"}} {count}
"""


@contextmanager
def serving(script: Callable[[int], Script], **options: Any) -> Iterator[ScriptedServer]:
    """A scripted server in a thread with a loop of its own."""
    ready = threading.Event()
    found: list[ScriptedServer] = []
    loops: list[asyncio.AbstractEventLoop] = []
    stop: list[asyncio.Event] = []

    async def work() -> None:
        async with ScriptedServer(script, **options) as server:
            found.append(server)
            loops.append(asyncio.get_running_loop())
            stop.append(asyncio.Event())
            ready.set()
            await stop[0].wait()

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    assert ready.wait(30)
    try:
        yield found[0]
    finally:
        loops[0].call_soon_threadsafe(stop[0].set)
        thread.join()


def quick(**judge: Any) -> LoadSettings:
    return LoadSettings(arrivals=Arrivals(request_rate=100, num_prompts=30), prompts=Prompts(input_len=5, output_len=3),
                        judge=Judgement(sample_s=0.05, resamples=100, **judge))


def test_a_result_holds_figures_server_and_page(tmp_path: Path) -> None:
    looks = iter(range(1, 10_000))

    def metrics() -> str:
        at = next(looks)
        return METRICS.format(queries=at * 100, hits=at * 40, half=at * 2, count=at * 4, sum=at * 0.5)

    kept: dict[str, list[Any]] = {}

    def keep(repetition: int, marks: list[Mark]) -> None:
        for name, values in details(marks, repetition).items():
            kept.setdefault(name, []).extend(values)

    with serving(lambda number: Script(first_s=0.02, gaps_s=[0.01] * 2, status=429 if number % 10 == 9 else 200),
                 metrics=metrics) as server:
        target = RestTarget(Server(base_url=server.url), Prompts(), label="a run")
        result = run_load(quick(repetitions=2, goodput={"ttft": 60_000}), target, keep)
    assert result["model_id"] == "scripted"
    assert (result["completed"] + result["failed"], result["repetitions"]) == (60, 2)
    assert result["errors_by_kind"] == {"http_429": 6}
    assert result["request_goodput"] == pytest.approx(result["request_throughput"])
    assert result["server"]["kv_use_mean"] == 0.25
    assert result["server"]["prefix_hit_rate"] == pytest.approx(0.4)
    assert result["server"]["running_mean"] == 3
    assert result["server"]["rss_bytes_max"] > 1 << 20  # of this process, which listens there
    assert result["mean_queue_time_ms"] == pytest.approx(125)
    assert result["median_queue_time_ms"] == pytest.approx(100)
    assert result["p90_queue_time_ms"] == pytest.approx(260)
    low, high = result["intervals"]["mean_ttft_ms"]
    assert low <= result["mean_ttft_ms"] <= high
    assert any("6 of 60 requests failed" in warning for warning in result["warnings"])
    assert [len(values) for values in kept.values()] == [60] * len(kept)
    assert sum(latency is None for latency in kept["latencies"]) == 6
    path, page = save(result | kept, tmp_path, None)
    assert path.name == file_name(result)
    assert path.name.startswith("a run-100.0qps-scripted-")
    assert read_json(path)["p99_ttft_ms"] == result["p99_ttft_ms"]
    html = page.read_text()
    assert "time to first token" in html
    assert "http_429" in html
    assert not re.search(r"(src|href)=\"?(?!#)[a-z]+:", html)  # nothing from outside


def test_a_server_that_refuses_the_warm_up_stops_the_load() -> None:
    with serving(lambda number: Script(status=401)) as server, pytest.raises(LoadError, match="http_401"):
        run_load(quick(), RestTarget(Server(base_url=server.url), Prompts()))


def test_a_server_without_metrics_is_measured_all_the_same() -> None:
    with serving(lambda number: Script()) as server:
        result = run_load(quick(num_warmups=0), RestTarget(Server(base_url=server.url), Prompts()))
    assert result["completed"] == 30
    assert result["mean_queue_time_ms"] is None
    assert "kv_use_mean" not in result["server"]


def test_a_stalled_server_is_told_in_the_result() -> None:
    settings = quick(stall_s=0.3, timeout_s=1.0, num_warmups=0)
    with serving(lambda number: Script(ends="never" if number == 29 else "well")) as server:
        result = run_load(settings, RestTarget(Server(base_url=server.url), Prompts()))
    assert len(result["stalls"]) == 1
    assert result["errors_by_kind"] == {"timeout": 1}
    assert any("stalled" in warning for warning in result["warnings"])
