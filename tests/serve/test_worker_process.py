"""An engine in a process of its own: the same answers as without one, and it comes and goes cleanly."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from serve_tools import ENDLESS, answers, run, until

from openautoglm.core.errors import BundleError, ResourceError
from openautoglm.engine.open import ProgramSettings
from openautoglm.engine.request import Decoding, Piece
from openautoglm.engine.settings import EngineSettings
from openautoglm.serve.backend import GrammarText, Order
from openautoglm.serve.faults import BadRequest, ClientGone, Overloaded, TimedOut, TooLong, Unavailable
from openautoglm.serve.worker.opening import Opened, open_in_process, open_model
from openautoglm.serve.worker.settings import WorkerSettings
from openautoglm.serve.worker.worker import Worker

PROGRAM = ProgramSettings(cache_tokens=40_000, threads=1, max_rows=256)
SETTINGS = WorkerSettings(program=PROGRAM, log_level="error")
PROMPTS = [(5, 6, 7), tuple(range(10, 60)), (9,) * 33, (250,)]
WAYS = [Decoding(max_new_tokens=24), Decoding(max_new_tokens=16, temperature=1.0, n=3, seed=5, top_p=0.9),
        Decoding(max_new_tokens=12, num_beams=3, n=2), Decoding(max_new_tokens=8, logprobs=3, ignore_stop=True),
        Decoding(max_new_tokens=12, repetition_penalty=1.3, logit_bias=((7, 2.0),), min_tokens=4)]


@pytest.fixture(scope="module")
def opened(bundle_path: Path) -> Iterator[Opened]:
    """The same model in this process."""
    made = open_model(bundle_path, SETTINGS)
    with made.compiler:
        yield made


async def pieces_of(worker: Any, order: Order) -> list[Piece]:
    async with aclosing(worker.stream(order)) as stream:
        return untimed([piece async for piece in stream])


def untimed(pieces: Iterable[Piece]) -> list[Piece]:
    """Pieces without how long the request had waited."""
    return [piece._replace(queued_s=None) for piece in pieces]


def test_answers_are_the_bare_engines(bundle_path: Path, opened: Opened) -> None:
    async def work() -> None:
        worker = Worker(bundle_path, SETTINGS)
        await worker.start()
        try:
            orders = [Order(prompt, way) for prompt in PROMPTS for way in WAYS]
            found = await asyncio.gather(*(answers(worker, order) for order in orders))
            for order, answer in zip(orders, found, strict=True):
                expected = opened.engine.generate([list(order.prompt)], order.decoding)[0]
                assert [ids for ids, _ in answer] == [list(candidate.ids) for candidate in expected]
                assert [end == "stop" for _, end in answer] == [candidate.finished for candidate in expected]
            assert worker.facts == opened.facts
            assert worker.ready
            await worker.probe(30)
            await until(lambda: worker.stats.finished > len(orders))
            assert (worker.stats.pages_held, worker.stats.failed, worker.restarts) == (0, 0, 0)
        finally:
            await worker.close()
        assert not worker.ready

    run(work())


def test_pieces_are_the_engines_own(bundle_path: Path, opened: Opened) -> None:
    async def work() -> None:
        worker = Worker(bundle_path, SETTINGS)
        await worker.start()
        try:
            scored = Decoding(max_new_tokens=8, logprobs=3, ignore_stop=True)
            from openautoglm.engine.request import Request

            bare = untimed(opened.engine.stream(Request((5, 6), scored)))
            assert await pieces_of(worker, Order((5, 6), scored)) == bare
            decode = opened.tokenizer.decode
            form = GrammarText("json_schema", '{"enum": ["yes", "no"]}')
            ids = [token for piece in await pieces_of(worker, Order((5,), grammar=form)) for token in piece.ids]
            assert decode(ids) in ('"yes"', '"no"')
            whole = [token for piece in await pieces_of(worker, Order((5,), ENDLESS.model_copy(
                update={"max_new_tokens": 60}))) for token in piece.ids]
            stop = decode(whole)[-3:]
            cut = [token for piece in await pieces_of(worker, Order((5,), ENDLESS, stops=(stop,)))
                   for token in piece.ids]
            assert stop in decode(cut)
            assert len(cut) < 200
        finally:
            await worker.close()

    run(work())


def test_refusals_name_the_field(bundle_path: Path) -> None:
    async def work() -> None:
        worker = Worker(bundle_path, SETTINGS)
        with pytest.raises(Unavailable):
            await answers(worker, Order((5,)))
        with pytest.raises(Unavailable):
            _ = worker.facts
        await worker.start()
        try:
            wrong: list[tuple[Order, type[Exception], str]] = [
                (Order(()), BadRequest, "prompt"), (Order((-1,)), BadRequest, "prompt"),
                (Order((2**40,)), BadRequest, "prompt"), (Order((5,) * 9000), TooLong, "prompt"),
                (Order((5,), Decoding(num_beams=40)), BadRequest, "num_beams"),
                (Order((5,), Decoding(logit_bias=((5000, 1.0),))), BadRequest, "logit_bias"),
                (Order((5,), stops=("x",) * 100), BadRequest, "stops"), (Order((5,), id="x" * 9999), BadRequest, "id"),
                (Order((5,), grammar=GrammarText("regex", "(")), BadRequest, "regex"),
                (Order((5,), grammar=GrammarText("json_schema", "no")), BadRequest, "grammar"),
                (Order((5,), timeout_s=0.0), TimedOut, "")]
            for order, kind, field in wrong:
                with pytest.raises(kind) as caught:
                    await answers(worker, order)
                assert (caught.value.where or "") == field  # type: ignore[attr-defined]
            assert await answers(worker, Order((5,), Decoding(max_new_tokens=1))), "it serves on"
        finally:
            await worker.close()

    run(work())


def test_leaving_frees_pages_and_nothing_is_left(bundle_path: Path) -> None:
    async def work() -> None:
        worker = Worker(bundle_path, SETTINGS)
        await worker.start()
        try:
            streams = [worker.stream(Order((5, number), ENDLESS)) for number in range(20)]
            await asyncio.gather(*(anext(stream) for stream in streams))
            await asyncio.gather(*(stream.aclose() for stream in streams))
            tasks = [asyncio.create_task(answers(worker, Order((5, number % 200), ENDLESS))) for number in range(1000)]
            await asyncio.sleep(0.05)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            assert worker.active == 0
            await until(lambda: worker.stats.cancelled >= 1020 and worker.stats.pages_held == 0)
            assert worker.stats.waiting == 0
            assert await answers(worker, Order((5,), Decoding(max_new_tokens=3, ignore_stop=True)))
        finally:
            await worker.close()

    run(work())


def test_a_queue_has_an_end(bundle_path: Path) -> None:
    async def work() -> None:
        settings = SETTINGS.model_copy(update={"engine": EngineSettings(max_batch=2, max_waiting=3)})
        worker = Worker(bundle_path, settings)
        await worker.start()
        try:
            results = await asyncio.gather(
                *(answers(worker, Order((5, number), Decoding(max_new_tokens=50, ignore_stop=True)))
                  for number in range(12)), return_exceptions=True)
            refused = [result for result in results if isinstance(result, Overloaded)]
            served = [result for result in results if isinstance(result, list)]
            assert len(refused) + len(served) == 12
            assert len(refused) >= 7
            assert len(served) >= 3
            assert all(fault.retry_after_s is not None and fault.retry_after_s >= 1 for fault in refused)
        finally:
            await worker.close()

    run(work())


def test_deadlines_end_answers_and_count_in_the_queue(bundle_path: Path) -> None:
    async def work() -> None:
        settings = SETTINGS.model_copy(update={"engine": EngineSettings(max_batch=1)})
        worker = Worker(bundle_path, settings)
        await worker.start()
        try:
            running = asyncio.create_task(answers(worker, Order((5,), ENDLESS, timeout_s=1.0)))
            await until(lambda: worker.active == 1)
            with pytest.raises(TimedOut):
                await answers(worker, Order((6,), ENDLESS, timeout_s=0.05))
            ids, end = (await running)[0]
            assert end in ("deadline", "length")
            assert ids
        finally:
            await worker.close()

    run(work())


def test_a_slow_reader_costs_no_more_than_its_buffer(bundle_path: Path) -> None:
    async def work() -> None:
        worker = Worker(bundle_path, SETTINGS.model_copy(update={"buffer_tokens": 100}))
        await worker.start()
        try:
            stream = worker.stream(Order((5,), ENDLESS))
            first = await anext(stream)
            await until(lambda: worker.active == 0)
            with pytest.raises(ClientGone):
                await anext(stream)
            assert len(first.ids) <= 100
            late_reader = worker.stream(Order((5,), Decoding(max_new_tokens=90, ignore_stop=True)))
            got = list((await anext(late_reader)).ids)
            await until(lambda: worker.active == 0)
            rest = [piece async for piece in late_reader]
            assert len(got) + sum(len(piece.ids) for piece in rest) == 90
            assert len(rest) <= 3, "what waited comes together"
            await until(lambda: worker.stats.pages_held == 0)
        finally:
            await worker.close()

    run(work())


def test_draining_lets_running_requests_finish(bundle_path: Path) -> None:
    async def work() -> None:
        worker = Worker(bundle_path, SETTINGS)
        await worker.start()
        process = worker.process_id
        running = asyncio.create_task(answers(worker, Order((5,), Decoding(max_new_tokens=500, ignore_stop=True))))
        await until(lambda: worker.active == 1)
        closing = asyncio.create_task(worker.close(grace_s=60))
        await asyncio.sleep(0)
        assert not worker.ready
        with pytest.raises(Unavailable):
            await answers(worker, Order((5,)))
        await closing
        assert len((await running)[0][0]) == 500
        assert process is not None
        assert not psutil.pid_exists(process)

    run(work())


def test_the_end_does_not_wait_for_ever(bundle_path: Path) -> None:
    async def work() -> None:
        worker = Worker(bundle_path, SETTINGS)
        await worker.start()
        running = asyncio.create_task(answers(worker, Order((5,), ENDLESS)))
        await until(lambda: worker.active == 1)
        await worker.close(grace_s=0.01)
        with pytest.raises(Unavailable):
            await running
        await worker.close()

    run(work())


@pytest.mark.parametrize(("settings", "kind"), [
    (SETTINGS.model_copy(update={"memory_bytes": 600 << 20, "program": PROGRAM.model_copy(update={
        "cache_tokens": 60_000_000})}), (BundleError, ResourceError)),
    (SETTINGS.model_copy(update={"program": PROGRAM.model_copy(update={"target": "torch:nowhere"})}), BundleError)],
    ids=["memory", "target"])
def test_what_cannot_be_loaded_says_why(bundle_path: Path, settings: WorkerSettings, kind: Any) -> None:
    worker = Worker(bundle_path, settings)
    with pytest.raises(kind):
        run(worker.start())
    assert not worker.ready


def test_a_bundle_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"config\.json|tokenizer\.json"):
        run(Worker(tmp_path, SETTINGS).start())
    with pytest.raises(BundleError, match="does not exist"):
        run(Worker(tmp_path / "nothing", SETTINGS).start())


def test_the_socket_is_private_and_gone_when_it_is_used(bundle_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Path, int]] = []
    made = tempfile.mkdtemp

    def watched(*given: Any, **more: Any) -> str:
        folder = made(*given, **more)
        seen.append((Path(folder), stat.S_IMODE(os.stat(folder).st_mode)))
        return folder

    monkeypatch.setattr(tempfile, "mkdtemp", watched)

    async def work() -> None:
        worker = Worker(bundle_path, SETTINGS)
        await worker.start()
        try:
            assert [mode for _, mode in seen] == [0o700]
            assert not any(folder.exists() for folder, _ in seen)
        finally:
            await worker.close()

    run(work())


def test_the_engine_dies_with_its_server(bundle_path: Path) -> None:
    program = f"""
import asyncio, os, sys
from openautoglm.serve.worker.settings import WorkerSettings
from openautoglm.serve.worker.worker import Worker
async def work():
    worker = Worker({str(bundle_path)!r}, WorkerSettings.model_validate_json({SETTINGS.model_dump_json()!r}))
    await worker.start()
    print(worker.process_id, flush=True)
    await asyncio.sleep(600)
asyncio.run(work())
"""
    server = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE,
                              env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    with server:
        assert server.stdout is not None
        engine = psutil.Process(int(server.stdout.readline()))
        server.kill()
        engine.wait(30)


@pytest.mark.slow
def test_an_idle_engine_costs_nothing(bundle_path: Path) -> None:
    async def work() -> None:
        worker = Worker(bundle_path, SETTINGS)
        await worker.start()
        try:
            await answers(worker, Order((5,), Decoding(max_new_tokens=5)))
            await asyncio.sleep(0.5)
            engine, server = psutil.Process(worker.process_id), psutil.Process()
            before = sum(engine.cpu_times()[:2]), sum(server.cpu_times()[:2])
            await asyncio.sleep(3)
            after = sum(engine.cpu_times()[:2]), sum(server.cpu_times()[:2])
            assert after[0] - before[0] < 0.1
            assert after[1] - before[1] < 0.1
        finally:
            await worker.close()

    run(work())


def test_embeddings_are_the_bare_engines(bundle_path: Path, opened: Opened) -> None:
    async def work() -> None:
        worker = Worker(bundle_path, SETTINGS)
        await worker.start()
        try:
            texts = [list(range(3, 4 + number % 40)) for number in range(70)]
            streams = [worker.stream(Order((5, number), ENDLESS)) for number in range(4)]
            await asyncio.gather(*(anext(stream) for stream in streams))
            found, more = await asyncio.gather(worker.embed(texts), worker.embed(texts[:3]))
            assert opened.engine.embedder is not None
            made = opened.engine.embedder.submit(texts)
            while not made.done:
                opened.engine.turn()
            assert np.abs(found - made.result()).max() < 1e-5
            assert np.abs(more - found[:3]).max() < 1e-5
            for wrong, kind in (([[]], BadRequest), ([[5] * 9000], TooLong), ([[-1]], BadRequest), ([], BadRequest)):
                with pytest.raises(kind):
                    await worker.embed(wrong)
            for stream in streams:
                await stream.aclose()
            leaving = asyncio.create_task(worker.embed([[7] * 8000] * 20))
            await until(lambda: worker.active == 1)
            leaving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await leaving
            await until(lambda: worker.stats.pages_held == 0 and worker.stats.decoding == 0)
        finally:
            await worker.close()

    run(work())


def test_the_same_without_a_process(bundle_path: Path, opened: Opened) -> None:
    async def work() -> None:
        backend = open_in_process(bundle_path, SETTINGS)
        await backend.start()
        try:
            found = await asyncio.gather(*(answers(backend, Order(prompt, WAYS[0])) for prompt in PROMPTS))
            expected = opened.engine.generate([list(prompt) for prompt in PROMPTS], WAYS[0])
            assert [answer[0][0] for answer in found] == [list(some[0].ids) for some in expected]
            assert backend.facts == opened.facts
            await backend.probe(30)
        finally:
            await backend.close()

    run(work())
