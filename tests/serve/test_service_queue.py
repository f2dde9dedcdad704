"""The queue: bounded by requests and by tokens; the end; readiness."""

from __future__ import annotations

import asyncio

import pytest
from serve_tools import FakeBackend, run
from service_tools import HeldBackend, Scene, ask

from openautoglm.engine.request import Piece
from openautoglm.serve.faults import EngineLost, Overloaded, TimedOut, Unavailable
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.models import OneModel
from openautoglm.serve.service.queue import Queue, QueueSettings
from openautoglm.serve.service.readiness import Readiness


def queue(requests: int, tokens: int = 1000, slots: int = 2) -> Queue:
    return Queue(QueueSettings(requests=requests, tokens=tokens), slots)


def test_requests_are_bounded() -> None:
    async def work() -> None:
        line = queue(1)
        places = []
        for _ in range(3):  # two that run, one that waits
            line.check(1, 10)
            places.append(line.enter(10))
        with pytest.raises(Overloaded) as caught:
            line.check(1, 10)
        assert 1 <= (caught.value.retry_after_s or 0) <= 60
        places[0].begin()
        assert (line.waiting, line.waiting_tokens, line.present) == (2, 20, 3)
        with pytest.raises(Overloaded):
            line.check(1, 10)
        with places[0]:
            pass
        line.check(1, 10)
        with pytest.raises(Overloaded):
            line.check(2, 10)

    run(work())


def test_tokens_are_bounded() -> None:
    async def work() -> None:
        line = queue(100, tokens=50)
        places = [line.enter(20), line.enter(20)]
        line.check(1, 10)
        with pytest.raises(Overloaded, match="40 tokens"):
            line.check(1, 11)
        places[0].begin()
        line.check(1, 11)

    run(work())


def test_an_empty_server_takes_whatever_fits_the_limits() -> None:
    async def work() -> None:
        line = queue(0, tokens=1, slots=1)
        line.check(64, 10_000)
        with line.enter(5), pytest.raises(Overloaded):
            line.check(1, 1)
        line.check(1, 1)

    run(work())


def test_a_full_queue_refuses_before_the_engine_is_asked(language: Language) -> None:
    async def work() -> None:
        made = Scene(language, lambda order: ([Piece(0, (40,))], None), facts={"max_batch": 1},
                     settings={"queue": {"requests": 1}})
        made.backend.gate = asyncio.Event()
        opened = [await made.service.open(ask()) for _ in range(2)]
        with pytest.raises(Overloaded):
            await made.service.open(ask())
        assert made.backend.orders == []
        assert made.report.fault == "overloaded"
        for answering in opened:
            answering.cancel()
        (await made.service.open(ask())).cancel()

    run(work())


def test_the_end_lets_running_requests_finish_and_takes_no_new_ones(language: Language) -> None:
    async def work() -> None:
        made = Scene(language, lambda order: ([Piece(0, (40,)), Piece(0, (41,), finish="stop")], None),
                     kind=HeldBackend)
        made.backend.gate = asyncio.Event()
        models = OneModel(made.service)
        assert await models.unready() is None
        under_way = asyncio.create_task(made.deltas())
        await asyncio.sleep(0)
        while not made.backend.orders:
            await asyncio.sleep(0.001)
        assert not await models.drain(0.01)
        assert await models.unready() == "the server is ending"
        with pytest.raises(Unavailable):
            await made.service.open(ask())
        draining = asyncio.create_task(models.drain(30))
        made.backend.gate.set()
        assert await draining
        assert len(await under_way) == 2

    run(work())


def test_ready_means_that_a_token_came_lately_or_comes_now() -> None:
    async def work() -> None:
        faults: list[Exception | None] = [None]
        probes = 0

        def script(order: object) -> tuple[list[Piece], Exception | None]:
            nonlocal probes
            probes += 1
            return [], faults[0]

        backend = FakeBackend(script)  # type: ignore[arg-type]
        ready = Readiness(backend, lately_s=0.05)
        assert await asyncio.gather(*(ready.fault() for _ in range(9))) == [None] * 9
        assert probes == 1  # one probe for all
        faults[0] = TimedOut("no token")
        assert await ready.fault() is None  # it worked a moment ago
        await asyncio.sleep(0.06)
        assert "no token" in str(await ready.fault())
        backend.stats = type(backend.stats)(**{**vars(backend.stats), "generated_tokens": 5})
        assert await ready.fault() is None  # others get tokens
        faults[0] = EngineLost("secret /path")
        await asyncio.sleep(0.06)
        assert "secret" not in str(await ready.fault())
        backend.ready = False
        assert "starting" in str(await ready.fault())

    run(work())
