"""Versions come into memory when they are asked for: once, for all who wait, and no longer than they may wait."""

from __future__ import annotations

import asyncio
import logging

import pytest
from hosting_tools import house, until
from serve_tools import run

from openautoglm.serve.faults import BadRequest, NotFound, TimedOut, Unavailable
from openautoglm.serve.registry.names import Reference
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.service.language import Language


@pytest.mark.parametrize(("name", "number"), [
    ("reports", 3), ("reports/1", 1), ("models:/reports/2", 2), ("reports@champion", 2), ("models:/reports@latest", 3),
    (None, 3)], ids=["plain", "number", "uri", "alias", "latest", "none"])
def test_a_name_becomes_a_version(registry: Registry, language: Language, name: str | None, number: int) -> None:
    async def work() -> None:
        registry.labels.set_alias("reports", "champion", 2, by="ann")
        if name in ("reports", None):
            registry.labels.set_alias("reports", "champion", 3, by="ann")
        async with house(registry, language) as made:
            assert await made.text(name) == f"I am reports/{number}."
            assert made.loader.loads == {f"reports/{number}": 1}

    run(work())


def test_what_is_not_there_is_told(registry: Registry, language: Language) -> None:
    async def work() -> None:
        registry.labels.set_stage(Reference("reports", 1), "archived", by="ann")
        async with house(registry, language) as made:
            for name, kind in (("repots", NotFound), ("reports/9", NotFound), ("reports@none", NotFound),
                               ("reports/1", NotFound), ("../reports", BadRequest), ("reports/../1", BadRequest)):
                with pytest.raises(kind) as caught:
                    await made.text(name)
                assert caught.value.where == "model"
            assert not made.loader.loads
        registry.versions.register(registry.store.path(registry.versions.get("reports/3")), "second", by="ann",
                                   copy=False)
        async with house(registry, language) as made:
            with pytest.raises(BadRequest, match="there are 2 models"):
                await made.text(None)

    run(work())


def test_many_wait_for_one_load(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language) as made:
            made.loader.gate = asyncio.Event()
            asking = [asyncio.create_task(made.text("reports/1")) for _ in range(20)]
            await until(lambda: made.loader.loads["reports/1"] == 1)
            assert made.state() == {"reports/1": "LOADING"}
            assert not made.hosted.loaded()
            made.loader.gate.set()
            assert await asyncio.gather(*asking) == ["I am reports/1."] * 20
            assert made.loader.loads == {"reports/1": 1}
            assert list(made.hosted.loaded()) == ["reports/1"]

    run(work())


def test_who_leaves_or_runs_out_of_time_does_not_stop_the_load(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language) as made:
            made.loader.gate = asyncio.Event()
            first = asyncio.create_task(made.text("reports/1"))
            second = asyncio.create_task(made.text("reports/1"))
            await until(lambda: made.loader.loads["reports/1"] == 1)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            with pytest.raises(TimedOut, match="not loaded in time"):
                await made.text("reports/1", timeout_s=0.01)
            made.loader.gate.set()
            assert await second == "I am reports/1."
            assert made.loader.loads["reports/1"] == 1
            assert [seat.users for seat in made.hosted.seats] == [0]

    run(work())


def test_a_failure_is_remembered_for_a_while(registry: Registry, language: Language,
                                             caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with house(registry, language, retry_s=0.2) as made:
            made.loader.broken.add("reports/1")
            for _ in range(5):
                with caplog.at_level(logging.ERROR), pytest.raises(Unavailable) as caught:
                    await made.text("reports/1")
                assert "secret" not in caught.value.public + str(caught.value.__cause__)
                assert caught.value.retry_after_s == 1
            assert made.loader.loads["reports/1"] == 1
            assert "/secret/path" in caplog.text
            assert made.state() == {}
            assert await made.text("reports/2") == "I am reports/2."
            await asyncio.sleep(0.25)
            with pytest.raises(Unavailable):
                await made.text("reports/1")
            assert made.loader.loads["reports/1"] == 2
            failure = made.hosted.failures
            assert failure.waiting(registry.versions.get("reports/1"))
            await asyncio.sleep(0.25)  # twice as long this time
            assert failure.waiting(registry.versions.get("reports/1"))
            made.loader.broken.clear()
            await made.hosted.load("reports", "1", "ann")  # an administrator need not wait
            assert await made.text("reports/1") == "I am reports/1."
            assert not failure.failing(registry.versions.get("reports/1"))

    run(work())


def test_a_bundle_that_is_damaged_fails_and_names_nothing(registry: Registry) -> None:
    from openautoglm.serve.hosting.loading import BundleLoader
    from openautoglm.serve.registry.catalog import Catalog
    from openautoglm.serve.service.service import ServiceSettings

    async def work() -> None:
        catalog = Catalog(registry)
        await catalog.refresh()
        version = registry.versions.get("reports/1")
        weights = registry.store.path(version) / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-4] + b"abcd")
        loader = BundleLoader(catalog, lambda path: pytest.fail("the backend is not made"), ServiceSettings())
        assert await loader.estimate(version) == len(whole)
        with pytest.raises(Unavailable) as caught:
            await loader.load(version)
        assert str(weights.parent) not in caught.value.public

    run(work())


def test_requests_are_drained_and_loads_given_up(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language) as made:
            made.loader.hold = asyncio.Event()
            running = asyncio.create_task(made.text("reports/1"))
            await until(lambda: "reports/1" in made.loader.backends and bool(made.loader.backends["reports/1"].orders))
            made.loader.gate = asyncio.Event()
            waiting = asyncio.create_task(made.text("reports/2"))
            await until(lambda: made.loader.loads["reports/2"] == 1)
            assert not await made.hosted.drain(0.01)
            with pytest.raises(Unavailable):
                await waiting
            with pytest.raises(Unavailable, match="ending"):
                await made.text("reports/1")
            assert await made.hosted.unready() == "the server is ending"
            draining = asyncio.create_task(made.hosted.drain(10))
            made.loader.hold.set()
            assert await running == "I am reports/1."
            assert await draining
            await made.hosted.close()
            assert made.loader.backends["reports/1"].closed
            assert made.state() == {}

    run(work())
