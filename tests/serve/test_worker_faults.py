"""Engines that are killed, hang, run out of memory or cannot be started: requests fail cleanly, and service returns."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from serve_tools import ENDLESS, answers, run, until

from openautoglm.engine.open import ProgramSettings
from openautoglm.engine.request import Decoding
from openautoglm.serve.backend import Order
from openautoglm.serve.faults import EngineLost, Fault, Unavailable
from openautoglm.serve.worker.fleet import Fleet
from openautoglm.serve.worker.frames import framed
from openautoglm.serve.worker.messages import Exit, Ping, Setup, encode
from openautoglm.serve.worker.settings import WorkerSettings
from openautoglm.serve.worker.worker import Worker

SETTINGS = WorkerSettings(program=ProgramSettings(cache_tokens=40_000, threads=1, max_rows=256), log_level="error",
                          backoff_s=0.05, most_backoff_s=0.2)
SCORED = Decoding(max_new_tokens=40, logprobs=50, ignore_stop=True)
SHORT = Decoding(max_new_tokens=10, ignore_stop=True)


@asynccontextmanager
async def serving(bundle: Path, **changes: Any) -> AsyncIterator[Worker]:
    worker = Worker(bundle, SETTINGS.model_copy(update=changes))
    await worker.start()
    try:
        yield worker
    finally:
        await worker.close()


def pid(worker: Worker) -> int:
    assert worker.process_id is not None
    return worker.process_id


async def serves_again(worker: Worker) -> None:
    await until(lambda: worker.ready)
    assert len((await answers(worker, Order((5,), SHORT)))[0][0]) == 10


def test_killed_mid_stream(bundle_path: Path) -> None:
    async def work() -> None:
        async with serving(bundle_path) as worker:
            streams = [worker.stream(Order((5, number), ENDLESS)) for number in range(8)]
            await asyncio.gather(*(anext(stream) for stream in streams))
            first = pid(worker)
            os.kill(first, signal.SIGKILL)

            async def rest(stream: Any) -> None:
                async for _ in stream:
                    pass

            results = await asyncio.gather(*(rest(stream) for stream in streams), return_exceptions=True)
            assert all(isinstance(result, EngineLost) for result in results)
            assert all(result.row.retryable for result in results)
            assert worker.active == 0
            await until(lambda: not worker.ready or pid(worker) != first)
            await serves_again(worker)
            assert worker.restarts == 1
            assert pid(worker) != first
            assert not psutil.pid_exists(first)

    run(work())


def test_while_it_is_down_requests_are_told_so(bundle_path: Path) -> None:
    async def work() -> None:
        async with serving(bundle_path, backoff_s=30.0, most_backoff_s=30.0) as worker:
            os.kill(pid(worker), signal.SIGKILL)
            await until(lambda: not worker.ready)
            await until(lambda: worker.process_id is None)
            with pytest.raises(Unavailable) as caught:
                await answers(worker, Order((5,), SHORT))
            assert caught.value.retry_after_s
            assert worker.stats.steps > 0, "what was known last"
            assert worker.facts.max_batch > 0

    run(work())


def test_an_engine_that_hangs_is_killed(bundle_path: Path) -> None:
    async def work() -> None:
        async with serving(bundle_path, stall_s=0.5) as worker:
            first = pid(worker)
            stream = worker.stream(Order((5,), ENDLESS))
            await anext(stream)
            os.kill(first, signal.SIGSTOP)
            with pytest.raises(EngineLost):
                async for _ in stream:
                    pass
            await serves_again(worker)
            assert worker.restarts == 1
            assert not psutil.pid_exists(first)

    run(work())


def test_an_engine_that_hangs_when_idle_is_noticed(bundle_path: Path) -> None:
    async def work() -> None:
        async with serving(bundle_path, stall_s=0.5) as worker:
            first = pid(worker)
            os.kill(first, signal.SIGSTOP)
            await until(lambda: not worker.ready)
            await until(lambda: worker.process_id not in (first, None))
            await serves_again(worker)

    run(work())


def test_a_healthy_engine_is_left_alone(bundle_path: Path) -> None:
    async def work() -> None:
        async with serving(bundle_path, stall_s=0.3) as worker:
            first = pid(worker)
            await asyncio.sleep(1.0)
            await answers(worker, Order((5,), ENDLESS.model_copy(update={"max_new_tokens": 2000})))
            assert (pid(worker), worker.restarts, worker.ready) == (first, 0, True)

    run(work())


@pytest.mark.slow
def test_out_of_memory(bundle_path: Path) -> None:
    async def work() -> None:
        async with serving(bundle_path) as worker:
            first = pid(worker)
            room = psutil.Process(first).memory_info().vms + (1 << 20)
            resource.prlimit(first, resource.RLIMIT_AS, (room, room))
            results: list[Any] = []
            number = 0
            while worker.process_id == first:
                orders = [Order(tuple((place * 7 + some) % 250 for place in range(3000)), SCORED)
                          for some in range(number, number + 20)]
                results += await asyncio.gather(*(answers(worker, order) for order in orders), return_exceptions=True)
                number += 20
                assert number < 2000, "it never ran out of memory"
            failed = [result for result in results if not isinstance(result, list)]
            assert failed
            assert all(isinstance(result, Fault) and result.row.retryable for result in failed), failed[:3]
            await serves_again(worker)
            assert worker.restarts >= 1

    run(work())


def test_a_bundle_that_is_away_for_a_while(bundle_path: Path, tmp_path: Path) -> None:
    async def work() -> None:
        place = tmp_path / "bundle"
        place.symlink_to(bundle_path)
        async with serving(place) as worker:
            place.unlink()
            os.kill(pid(worker), signal.SIGKILL)
            await until(lambda: worker.restarts >= 2)
            assert not worker.ready
            place.symlink_to(bundle_path)
            await serves_again(worker)

    run(work())


def test_closing_while_it_is_started_again(bundle_path: Path) -> None:
    async def work() -> None:
        async with serving(bundle_path) as worker:
            os.kill(pid(worker), signal.SIGKILL)
            await until(lambda: worker.restarts == 1)
        assert not worker.ready
        left = [child for child in psutil.Process().children() if "openautoglm.serve" in " ".join(child.cmdline())]
        assert left == []

    run(work())


def test_a_fleet_goes_on_without_one_replica(bundle_path: Path) -> None:
    async def work() -> None:
        fleet = Fleet.of(bundle_path, SETTINGS, 2)
        await fleet.start()
        try:
            workers = [replica for replica in fleet.replicas if isinstance(replica, Worker)]
            assert fleet.facts.pages == 2 * workers[0].facts.pages
            os.kill(pid(workers[0]), signal.SIGKILL)
            found = await asyncio.gather(*(answers(fleet, Order((number,), SHORT)) for number in range(12)))
            assert all(len(answer[0][0]) == 10 for answer in found), "nothing was lost"
            await until(lambda: all(worker.ready for worker in workers))
            await fleet.probe(30)
        finally:
            await fleet.close()

    run(work())


@pytest.mark.parametrize("first", [framed(b"nonsense"), b"\xff" * 8, framed(encode(Ping())), b"\x05\0\0\0ab",
                                   framed(encode(Setup("nothing", "[]", ())))],
                         ids=["noise", "long", "kind", "cut", "settings"])
def test_a_process_that_hears_nonsense_ends(first: bytes, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "s"))
        door.listen()
        process = subprocess.Popen(
            [sys.executable, "-m", "openautoglm.serve.worker.child", str(tmp_path / "s"), str(os.getpid())],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stderr=subprocess.DEVNULL)
        connection, _ = door.accept()
        with connection:
            connection.sendall(first)
            connection.shutdown(socket.SHUT_WR)
            assert process.wait(60) in (Exit.LOST, Exit.BROKEN)


def test_a_process_whose_server_is_another_one_does_not_start(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "openautoglm.serve.worker.child", str(tmp_path / "s"), "1"],
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, timeout=60, check=False)
    assert done.returncode == Exit.LOST
