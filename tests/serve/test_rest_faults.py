"""What clients of the whole server see of faults: engines that die, hang or run out of memory, clients that leave or do
not read, signals under load. No request that was taken is lost without an error, and service comes back."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from rest_tools import MODEL, Running
from serve_tools import run

from openautoglm.core import log
from openautoglm.engine.open import ProgramSettings
from openautoglm.engine.settings import EngineSettings
from openautoglm.serve.service.language import open_language
from openautoglm.serve.worker.settings import WorkerSettings
from openautoglm.serve.worker.worker import Worker

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import served
from fault_load import Load, hang_up, raw, visit_and_leave
from served import Served

_log = log.get(__name__)
PROGRAM = ProgramSettings(cache_tokens=60_000, threads=1, max_rows=256)
WORKER = WorkerSettings(program=PROGRAM, log_level="error", backoff_s=0.05, most_backoff_s=0.2)
WIDE = {"engine": EngineSettings(max_batch=32), "program": PROGRAM.model_copy(update={"max_wanted": 32})}
LONG: dict[str, Any] = {"prompt": "The Punter", "max_tokens": 6000, "ignore_eos": True, "temperature": 1.0}
WAIT_S = 120.0


def ask(model: str, **fields: Any) -> dict[str, Any]:
    return {**LONG, "model": model, "stream": True, **fields}


async def until(condition: Callable[[], bool], what: str) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < WAIT_S, f"{what} did not come"
        await asyncio.sleep(0.005)
    return time.monotonic() - began


@contextmanager
def serving(bundle: Path, options: dict[str, Any] | None = None, **worker: Any) -> Iterator[Running]:
    """The whole server in a thread, its engine in a process."""
    language, _ = open_language(bundle)
    with Running(language, lambda: Worker(bundle, WORKER.model_copy(update=worker)), options=options or {}) as running:
        yield running


def engine_id(server: Running) -> int:
    assert isinstance(server.backend, Worker)
    found = server.backend.process_id
    assert found is not None
    return found


def idle(server: Running) -> bool:
    stats = server.backend.stats
    return not (stats.pages_held or stats.waiting or stats.filling or stats.decoding)


async def comes_back(server: Running, since: float) -> None:
    """Service returns: it says that it is ready, and answers."""
    async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S) as client:
        while (await client.get("/ready")).status_code != 200:
            assert time.monotonic() - since < WAIT_S, "it did not come back"
            await asyncio.sleep(0.01)
        _log.warning("service was back after %.2f s", time.monotonic() - since)
        reply = await client.post("/v1/completions", json=ask(MODEL, max_tokens=5, stream=False))
        assert (reply.status_code, reply.json()["usage"]["completion_tokens"]) == (200, 5)


def test_an_engine_that_is_killed_under_load(bundle_path: Path) -> None:
    async def work(server: Running) -> None:
        bodies = [ask(MODEL), ask(MODEL, prompt="A pub"), ask(MODEL, stream=False), ask(MODEL, n=3)]
        async with Load(server.url, 12, bodies, again=False) as load:
            await until(lambda: server.backend.stats.decoding > 4, "the load")
            first, since = engine_id(server), time.monotonic()
            os.kill(first, signal.SIGKILL)
        assert set(load.counts()) <= {"error engine_lost", "503 engine_lost"}, load.counts()
        assert load.counts()["error engine_lost"] > 0
        assert load.counts()["503 engine_lost"] >= 3
        await comes_back(server, since)
        assert engine_id(server) != first

    with serving(bundle_path) as server:
        run(work(server), 300)


def test_clients_that_try_again_are_served_again(bundle_path: Path) -> None:
    async def work(server: Running) -> None:
        async with Load(server.url, 6, [ask(MODEL, max_tokens=300)]) as load:
            await until(lambda: load.counts()["finished"] > 6, "the load")
            since = time.monotonic()
            os.kill(engine_id(server), signal.SIGKILL)
            await until(lambda: load.recovered_s(since) is not None, "an answer after the fault")
        _log.warning("the first answer came %.2f s after the fault", load.recovered_s(since))
        assert load.lost() == []
        assert set(load.counts()) <= {"finished", "error engine_lost", "503 engine_lost", "503 unavailable"}
        assert load.counts()["finished"] < len(load.outcomes), f"nobody saw the fault: {load.counts()}"

    with serving(bundle_path) as server:
        run(work(server), 300)


def test_an_engine_that_hangs_under_load(bundle_path: Path) -> None:
    async def work(server: Running) -> None:
        async with Load(server.url, 8, [ask(MODEL)], again=False) as load:
            await until(lambda: server.backend.stats.decoding > 4, "the load")
            first, since = engine_id(server), time.monotonic()
            os.kill(first, signal.SIGSTOP)
            async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S) as client:
                assert (await client.get("/healthz")).status_code == 200
                while (reply := await client.get("/ready")).status_code == 200:
                    await asyncio.sleep(0.01)
                assert reply.json()["reason"]
        assert set(load.counts()) <= {"error engine_lost", "503 engine_lost"}, load.counts()
        await comes_back(server, since)
        assert engine_id(server) != first
        assert not psutil.pid_exists(first)

    with serving(bundle_path, stall_s=2.0) as server:
        run(work(server), 300)


@pytest.mark.slow
def test_an_engine_without_memory(bundle_path: Path) -> None:
    async def work(server: Running) -> None:
        first, since = engine_id(server), time.monotonic()
        bodies = [ask(MODEL, prompt=f"{number} " * 1200, max_tokens=60, logprobs=20) for number in range(40)]
        async with Load(server.url, 16, bodies) as load:
            await until(lambda: load.counts()["finished"] > 3, "the load")
            room = psutil.Process(first).memory_info().vms
            resource.prlimit(first, resource.RLIMIT_AS, (room, room))
            await until(lambda: engine_id_or_none(server) not in (first, None), "another engine")
            since = time.monotonic()
            await until(lambda: load.recovered_s(since) is not None, "an answer after the fault")
        assert load.lost() == []
        assert set(load.counts()) <= {"finished", "error engine_lost", "503 engine_lost", "503 unavailable"}
        await comes_back(server, since)

    with serving(bundle_path) as server:
        run(work(server), 400)


def engine_id_or_none(server: Running) -> int | None:
    assert isinstance(server.backend, Worker)
    return server.backend.process_id


@pytest.mark.slow
def test_a_thousand_clients_that_leave_mid_stream(bundle_path: Path) -> None:
    with serving(bundle_path, **WIDE) as server:
        first = engine_id(server)
        left = 0
        for _ in range(10):
            found = visit_and_leave(server.url, [ask(MODEL, prompt=f"Pub {number}") for number in range(100)])
            assert set(found) == {"left mid-stream"}, found
            left += found["left mid-stream"]
        assert left == 1000
        run(until(lambda: server.call(lambda: server.service.queue.present) == 0, "the end of the queue"), 300)
        run(until(lambda: idle(server), "the pages"), 300)
        assert server.backend.stats.cancelled >= 900
        run(comes_back(server, time.monotonic()), 300)
        assert engine_id(server) == first


@pytest.mark.slow
def test_slow_readers_are_given_up_and_keep_nobody_waiting(bundle_path: Path) -> None:
    with serving(bundle_path, {"limits": {"stall_s": 1.0}}, buffer_tokens=20_000, **WIDE) as server:
        before = psutil.Process().memory_info().rss
        lines = [raw(server.url, ask(MODEL, prompt=f"Pub {number}", logprobs=20), receive_bytes=2048)
                 for number in range(4)]
        run(until(lambda: server.call(lambda: server.service.queue.present) == 4, "the slow readers"), 300)
        reply = httpx.post(f"{server.url}/v1/completions", json=ask(MODEL, max_tokens=50, stream=False), timeout=WAIT_S)
        assert reply.status_code == 200
        run(until(lambda: server.call(lambda: server.service.queue.present) == 0, "their end"), 300)
        run(until(lambda: idle(server), "the pages"), 300)
        assert server.backend.stats.cancelled == 4
        assert psutil.Process().memory_info().rss - before < 64 << 20
        for line in lines:
            hang_up(line, rudely=True)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("--in-process",)], ids=["worker", "in-process"])
def test_a_signal_under_load_loses_nothing(bundle_path: Path, more: tuple[str, ...]) -> None:
    async def work(server: Served) -> None:
        bodies = [ask(served.MODEL, max_tokens=200), ask(served.MODEL, max_tokens=100, n=2)]
        async with Load(server.url, 12, bodies) as load:
            await until(lambda: load.counts()["finished"] > 12, "the load")
            since = time.monotonic()
            server.tell()
            await until(lambda: server.process.poll() is not None, "its end")
        _log.warning("it ended %.2f s after the signal", time.monotonic() - since)
        assert load.lost(before=since) == []
        assert set(load.counts()) <= {"finished", "503 unavailable", "cut"}, load.counts()
        assert server.process.returncode == 0, server.log

    with Served(bundle_path, "--max-batch", "4", "--shutdown-timeout", "200", *more) as server:
        run(work(server), 400)


@pytest.mark.slow
def test_a_second_signal_under_load_tells_everybody(bundle_path: Path) -> None:
    async def work(server: Served) -> None:
        bodies = [ask(served.MODEL, max_tokens=8000), ask(served.MODEL, max_tokens=8000, stream=False)]
        async with Load(server.url, 12, bodies, again=False) as load:
            await until(lambda: server.figure("vllm:num_requests_running") == 4, "the load")
            await until(lambda: server.figure("vllm:num_requests_waiting") == 8, "the queue")
            since = time.monotonic()
            server.tell()
            async with httpx.AsyncClient(base_url=server.url, timeout=WAIT_S) as client:
                while (await client.get("/ready")).status_code == 200:
                    await asyncio.sleep(0.01)
            server.tell()
            await until(lambda: server.process.poll() is not None, "its end")
        assert load.lost(before=since) == []
        assert set(load.counts()) <= {"finished", "error engine_lost", "error unavailable", "503 engine_lost",
                                      "503 unavailable"}, load.counts()
        assert len(load.outcomes) == 12
        assert server.process.returncode == 1, server.log

    with Served(bundle_path, "--max-batch", "4", "--shutdown-timeout", "600") as server:
        run(work(server), 400)
