"""The catalog: chooses from memory, follows changes, survives a lost database, rolls a bad version back."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import pytest

from openautoglm.serve.faults import BadRequest, NotFound, StoreLost, Unavailable
from openautoglm.serve.registry.canary import CanarySettings
from openautoglm.serve.registry.catalog import Catalog, CatalogSettings
from openautoglm.serve.registry.names import Reference
from openautoglm.serve.registry.registry import Registry


def finish(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, timeout=60))


def catalog(registry: Registry, clock: Any, **canary: Any) -> Catalog:
    settings = CatalogSettings(refresh_s=0.01, canary=CanarySettings(**canary))
    return Catalog(registry, settings, now=clock, dice=random.Random(1))


def test_it_must_be_read_first_and_refuses_what_is_not_there(filled: Registry, clock: Any) -> None:
    one = catalog(filled, clock)
    with pytest.raises(Unavailable):
        one.choose("reports")
    finish(one.refresh())
    assert one.choose("models:/reports/2").number == 2
    with pytest.raises(NotFound):
        one.choose("report")
    with pytest.raises(BadRequest):
        one.choose("../reports")


def test_it_reads_only_what_has_changed(filled: Registry, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        one = catalog(filled, clock)
        assert await one.refresh()
        assert not await one.refresh()
        filled.labels.set_alias("reports", "champion", 1, by="ann")
        filled.wishes.set(Reference("reports", 2), loaded=True, by="ann")
        assert await one.refresh()
        assert one.choose("reports").number == 1
        assert [wish.version.number for wish in one.wishes] == [2]

    finish(work())


def test_an_empty_registry_is_served_too(registry: Registry, clock: Any) -> None:
    one = catalog(registry, clock)
    assert finish(one.refresh())
    with pytest.raises(NotFound):
        one.choose("reports")


def test_a_bad_version_is_rolled_back_and_stays_so(filled: Registry, clock: Any) -> None:
    async def work() -> None:
        filled.routes.set("reports", {1: 90, 2: 10}, by="ann")
        servers = [catalog(filled, clock, min_requests=50) for _ in range(2)]
        for one in servers:
            await one.refresh()
        drawn: Counter[int] = Counter()
        for number in range(1000):
            one = servers[number % 2]
            version = one.choose("reports", key=f"user-{number}")
            drawn[version.number] += 1
            one.record(version, ok=version.number == 1 or number % 4 != 0, latency_s=0.1)
        assert 60 < drawn[2] < 140
        verdicts = [await one.judge() for one in servers]
        assert [verdict["reports/2"].action for verdict in verdicts] == ["wait", "wait"]  # nothing was sent yet
        await servers[0].flush()
        await servers[1].look()
        assert all(servers[1].choose("reports").number == 1 for _ in range(50))
        await servers[0].look()
        assert all(servers[0].choose("reports").number == 1 for _ in range(50))
        assert [entry.action for entry in filled.audit.list()].count("route.rollback") == 1
        entry = filled.audit.list(limit=1)[0]
        assert (entry.by, entry.subject) == ("canary", "reports/2")
        assert "requests failed" in entry.detail["reason"]
        assert servers[0].choose("reports/2").number == 2  # by its number it can still be asked

    finish(work())


def test_a_slow_version_is_rolled_back(filled: Registry, clock: Any) -> None:
    async def work() -> None:
        filled.routes.set("reports", {1: 1, 2: 1}, by="ann", baseline=1)
        one = catalog(filled, clock, min_requests=30)
        await one.refresh()
        for number in range(200):
            version = one.choose("reports", key=str(number))
            one.record(version, ok=True, latency_s=0.1 if version.number == 1 else 0.3)
        await one.look()
        assert {one.choose("reports", key=str(number)).number for number in range(50)} == {1}

    finish(work())


def test_old_outcomes_do_not_count_against_a_new_route(filled: Registry, clock: Any) -> None:
    async def work() -> None:
        one = catalog(filled, clock, min_requests=10)
        await one.refresh()
        for _ in range(100):
            one.record(one.choose("reports/2"), ok=False)
        await one.flush()
        clock.at_s += 120
        filled.routes.set("reports", {1: 1, 2: 1}, by="ann")
        await one.refresh()
        assert (await one.judge())["reports/2"].action == "wait"

    finish(work())


def test_judging_can_be_switched_off(filled: Registry, clock: Any) -> None:
    async def work() -> None:
        filled.routes.set("reports", {1: 9, 2: 1}, by="ann")
        one = catalog(filled, clock, min_requests=10, enabled=False)
        await one.refresh()
        for _ in range(100):
            one.record(one.choose("reports/2"), ok=False)
        await one.flush()
        assert (await one.judge())["reports/2"].action == "roll back"
        assert filled.routes.get("reports").shares[1].weight == 1  # type: ignore[union-attr]

    finish(work())


def test_it_serves_on_while_the_database_is_gone_and_counts_are_kept(filled: Registry, clock: Any) -> None:
    async def work() -> None:
        filled.routes.set("reports", {1: 90, 2: 10}, by="ann")
        one = catalog(filled, clock)
        await one.start()
        read, write = filled.database.read, filled.database.write

        def lost(_: Any) -> Any:
            raise StoreLost("gone")

        filled.database.read = filled.database.write = lost  # type: ignore[method-assign]
        version = one.choose("reports", key="user")
        for _ in range(7):
            one.record(version, ok=True, latency_s=0.2)
        while not one.lost:
            await asyncio.sleep(0.005)
        assert one.choose("reports", key="user") == version
        filled.database.read, filled.database.write = read, write  # type: ignore[method-assign]
        while one.lost:
            await asyncio.sleep(0.005)
        await one.close()
        assert filled.outcomes.totals([version.id], since_s=0)[version.id].requests == 7

    finish(work())


def test_counts_that_cannot_be_sent_are_bounded(filled: Registry, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: Any) -> Any:
        raise StoreLost("gone")

    async def work() -> None:
        one = Catalog(filled, CatalogSettings(unsent=5), now=clock)
        await one.refresh()
        version = one.choose("reports/1")
        with monkeypatch.context() as patch:
            patch.setattr(filled.database, "write", lost)
            for _ in range(20):
                clock.at_s += 60
                one.record(version, ok=True)
                with pytest.raises(StoreLost):
                    await one.flush()
        await one.flush()
        assert filled.outcomes.totals([version.id], since_s=0)[version.id].requests == 5

    finish(work())


def test_a_catalog_that_cannot_be_read_at_all_does_not_start(filled: Registry, clock: Any,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_: Any) -> Any:
        raise StoreLost("gone")

    monkeypatch.setattr(filled.database, "read", lost)
    with pytest.raises(StoreLost):
        finish(catalog(filled, clock).start())
