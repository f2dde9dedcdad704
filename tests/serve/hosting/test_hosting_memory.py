"""A budget: who is idle leaves first, who is busy or pinned stays, and a newcomer waits until there is room."""

from __future__ import annotations

import asyncio

import pytest
from hosting_tools import House, house, until
from serve_tools import run

from openautoglm.serve.faults import Unavailable
from openautoglm.serve.registry.names import Reference
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.service.language import Language

SIZES = {"reports/1": 100, "reports/2": 100, "reports/3": 100}


async def running(made: House, name: str) -> asyncio.Task[str]:
    """A request that runs until `hold` is set."""
    task = asyncio.create_task(made.text(name))
    await until(lambda: name in made.loader.backends and bool(made.loader.backends[name].orders))
    return task


def test_the_least_recently_used_leaves(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language, sizes=SIZES, memory_bytes=250) as made:
            for name in ("reports/1", "reports/2", "reports/1"):
                await made.text(name)
            await made.text("reports/3")
            assert made.state() == {"reports/1": "READY", "reports/3": "READY"}
            assert made.loader.backends["reports/2"].closed
            assert not made.loader.backends["reports/1"].closed
            assert await made.text("reports/2") == "I am reports/2."
            assert made.loader.loads["reports/2"] == 2

    run(work())


def test_what_is_busy_stays_and_the_newcomer_waits(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language, sizes=SIZES, memory_bytes=100) as made:
            hold = made.loader.hold = asyncio.Event()
            first = await running(made, "reports/1")
            made.loader.hold = None
            second = asyncio.create_task(made.text("reports/2"))
            await until(lambda: len(made.state()) == 2)
            await asyncio.sleep(0.02)
            assert made.loader.loads == {"reports/1": 1}
            assert not made.loader.backends["reports/1"].closed
            hold.set()
            assert await asyncio.gather(first, second) == ["I am reports/1.", "I am reports/2."]
            assert made.state() == {"reports/2": "READY"}

    run(work())


def test_without_room_in_time_it_can_be_asked_again(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language, sizes=SIZES, memory_bytes=100, room_s=0.02) as made:
            made.loader.hold = asyncio.Event()
            first = await running(made, "reports/1")
            for _ in range(2):
                with pytest.raises(Unavailable, match="no room in memory for reports/2"):
                    await made.text("reports/2")
            assert not made.hosted.failures.failing(registry.versions.get("reports/2"))
            made.loader.hold.set()
            await first
            assert await made.text("reports/2") == "I am reports/2."

    run(work())


def test_what_is_pinned_stays(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language, sizes=SIZES, memory_bytes=200, room_s=0.02) as made:
            await made.hosted.load("reports", "1", "ann", pin=True)
            for name in ("reports/2", "reports/3", "reports/2"):
                await made.text(name)
                assert "reports/1" in made.state()
            await made.hosted.load("reports", "1", "ann")
            assert made.hosted.shelf.pinned == {registry.versions.get("reports/1").id}
            registry.wishes.set(Reference("reports", 2), loaded=True, pinned=True, by="ann")
            await made.catalog.refresh()
            with pytest.raises(Unavailable, match="no room"):
                await made.text("reports/3")

    run(work())


def test_what_is_larger_than_all_memory_is_refused_and_let_go(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language, sizes={**SIZES, "reports/3": 500}, memory_bytes=300) as made:
            await made.text("reports/1")
            with pytest.raises(Unavailable, match="no room"):
                await made.text("reports/3")
            assert not made.loader.loads["reports/3"]
            made.loader.estimates["reports/3"] = 150  # the estimate was wrong
            with pytest.raises(Unavailable, match="cannot be loaded now"):
                await made.text("reports/3")
            assert made.loader.backends["reports/3"].closed
            assert made.state() == {"reports/1": "READY"}

    run(work())


def test_a_wrong_estimate_is_made_good_when_others_are_idle(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language, sizes={**SIZES, "reports/3": 190}, memory_bytes=200) as made:
            made.loader.estimates["reports/3"] = 50
            await made.text("reports/1")
            assert await made.text("reports/3") == "I am reports/3."
            await until(lambda: made.state() == {"reports/3": "READY"})
            await made.text("reports/1")
            assert made.state() == {"reports/1": "READY"}
            assert await made.text("reports/3") == "I am reports/3."  # now its size is known before it comes
            assert made.state() == {"reports/3": "READY"}

    run(work())


def test_many_models_asked_for_at_once_never_exceed_the_budget(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language, sizes=SIZES, memory_bytes=200) as made:
            most = 0

            async def ask(number: int) -> None:
                nonlocal most
                assert await made.text(f"reports/{number % 3 + 1}") == f"I am reports/{number % 3 + 1}."
                most = max(most, sum(seat.size_bytes for seat in made.hosted.seats))

            for _ in range(5):
                await asyncio.gather(*(ask(number) for number in range(30)))
            assert 100 <= most <= 200
            assert sum(made.loader.loads.values()) >= 3

    run(work())
