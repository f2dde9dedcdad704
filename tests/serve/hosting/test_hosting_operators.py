"""What operators wish is done: ahead of use, against use, over the registry of all servers; and readiness says so."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hosting_tools import house, until
from serve_tools import run
from sqlalchemy import update

from openautoglm.serve.faults import NotFound, StoreLost, Unavailable
from openautoglm.serve.registry.names import Reference
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.registry.tables import MARKS, MODELS
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.values import Caller


def lose(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the database away, until the patch is undone."""
    def lost(*_: Any) -> Any:
        raise StoreLost("gone")

    monkeypatch.setattr(registry.database, "read", lost)
    monkeypatch.setattr(registry.database, "write", lost)


def test_wishes_are_loaded_ahead_and_the_server_is_not_ready_before(registry: Registry, language: Language) -> None:
    async def work() -> None:
        registry.wishes.set(Reference("reports", 2), loaded=True, by="ann")
        async with house(registry, language) as made:
            made.loader.gate = asyncio.Event()
            await made.keeper.start()
            assert await made.hosted.unready() == "reports/2 is being loaded"
            made.loader.gate.set()
            await until(lambda: made.state() == {"reports/2": "READY"})
            assert await made.hosted.unready() is None
            made.loader.gate = asyncio.Event()
            registry.wishes.set(Reference("reports", 1), loaded=True, by="ann")
            await made.catalog.refresh()
            await until(lambda: made.state().get("reports/1") == "LOADING")
            assert await made.hosted.unready() is None  # what is wished for later takes nobody out of service
            made.loader.gate.set()

    run(work())


def test_it_is_ready_when_the_registry_was_read_and_nothing_fails(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language, retry_s=60) as made:
            assert await made.hosted.unready() is None
            await made.text("reports/1")
            assert await made.hosted.unready() is None
            made.loader.backends["reports/1"].ready = False
            assert str(await made.hosted.unready()).startswith("reports/1: the engine")
            made.loader.backends["reports/1"].ready = True
            made.loader.broken.add("reports/2")
            with pytest.raises(Unavailable):
                await made.text("reports/2")
            assert await made.hosted.unready() is None  # nobody wished for it
            registry.wishes.set(Reference("reports", 2), loaded=True, by="ann")
            await made.catalog.refresh()
            assert await made.hosted.unready() == "reports/2 cannot be loaded"
        from openautoglm.serve.hosting.hosted import Hosted
        from openautoglm.serve.registry.catalog import Catalog

        assert await Hosted(Catalog(registry), made.loader).unready() == "the registry has not been read yet"

    run(work())


def test_what_is_wished_away_leaves_and_no_request_brings_it_back(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language) as made:
            await made.keeper.start()
            await made.text("reports/1")
            await made.hosted.unload("reports", "1", "key:abc")
            assert made.state() == {}
            assert made.loader.backends["reports/1"].closed
            with pytest.raises(Unavailable, match="taken out of service"):
                await made.text("reports/1")
            assert "reports/1" not in [model.name for model in await made.hosted.listed()]
            held = {one.version: one for one in await made.hosted.index()}
            assert (held["1"].state, held["1"].reason) == ("UNAVAILABLE", "taken out of service")
            await made.hosted.load("reports", "1", "key:abc")
            assert await made.text("reports/1") == "I am reports/1."
            assert {one.version: one.state for one in await made.hosted.index()} == {
                "1": "READY", "2": "UNAVAILABLE", "3": "UNAVAILABLE"}
            await made.hosted.release("reports", "1", "key:abc")
            assert not made.catalog.wishes
            log = [(line.action, line.by) for line in registry.audit.list(subject="reports")][:3]
            assert log == [("version.lazy", "key:abc"), ("version.load", "key:abc"), ("version.unload", "key:abc")]

    run(work())


def test_unloading_waits_for_running_requests(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language) as made:
            hold = made.loader.hold = asyncio.Event()
            running = asyncio.create_task(made.text("reports/1"))
            await until(lambda: "reports/1" in made.loader.backends and bool(made.loader.backends["reports/1"].orders))
            unloading = asyncio.create_task(made.hosted.unload("reports", "1", "ann"))
            await until(lambda: made.state() == {"reports/1": "UNLOADING"})
            assert not made.loader.backends["reports/1"].closed
            hold.set()
            assert await running == "I am reports/1."
            await unloading
            assert made.state() == {}

    run(work())


@pytest.mark.parametrize("how", ["archived", "removed", "renamed", "wished away"])
def test_a_version_that_is_gone_leaves_memory(registry: Registry, language: Language, how: str) -> None:
    async def work() -> None:
        async with house(registry, language) as made:
            await made.catalog.start()
            await made.keeper.start()
            await made.text("reports/1")
            if how == "archived":
                registry.labels.set_stage(Reference("reports", 1), "archived", by="ann")
            elif how == "removed":
                registry.versions.remove("reports/1", by="ann")
            elif how == "wished away":
                registry.wishes.set(Reference("reports", 1), loaded=False, by="ann")
            else:
                def rename(connection: Any) -> None:
                    connection.execute(update(MODELS).values(name="renamed"))
                    connection.execute(update(MARKS).values(value=MARKS.c.value + 1))

                registry.database.write(rename)
            await until(lambda: made.state() == {})
            assert made.loader.backends["reports/1"].closed
            with pytest.raises((NotFound, Unavailable)):
                await made.text("reports/1")
            if how == "renamed":
                assert await made.text("renamed/1") == "I am renamed/1."

    run(work())


def test_a_version_that_cannot_be_loaded_is_no_wish(registry: Registry, language: Language) -> None:
    async def work() -> None:
        async with house(registry, language) as made:
            made.loader.broken.add("reports/1")
            with pytest.raises(Unavailable):
                await made.hosted.load("reports", "1", "ann")
            assert registry.wishes.list() == []
            assert await made.hosted.unready() is None
            with pytest.raises(NotFound):
                await made.hosted.load("reports", "9", "ann")
            with pytest.raises(NotFound):
                await made.hosted.unload("nobody", None, "ann")

    run(work())


def test_a_list_of_all_that_can_be_asked_for(registry: Registry, language: Language) -> None:
    async def work() -> None:
        registry.labels.set_alias("reports", "champion", 2, by="ann")
        registry.labels.set_stage(Reference("reports", 1), "archived", by="ann")
        async with house(registry, language) as made:
            await made.text("reports/2")
            listed = {model.name: model for model in await made.hosted.listed()}
            assert set(listed) == {"reports", "reports/2", "reports/3", "reports@champion"}
            assert listed["reports"] == listed["reports/2"].__class__("reports", *_facts(listed["reports/2"]))
            assert listed["reports/2"].max_tokens == 128
            assert listed["reports/3"].max_tokens is None
            for name in listed:
                await made.text(name)

    run(work())


def _facts(model: Any) -> tuple[Any, ...]:
    return model.created, model.max_tokens, model.fingerprint


def test_the_last_picture_serves_while_the_database_is_gone(registry: Registry, language: Language,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        async with house(registry, language) as made:
            await made.catalog.start()
            await made.keeper.start()
            await made.text("reports/1")
            lose(registry, monkeypatch)
            await until(lambda: made.catalog.lost)
            for number in (1, 2, 3):  # also those that are not in memory yet
                assert await made.text(f"reports/{number}") == f"I am reports/{number}."
            assert await made.hosted.unready() is None
            for work in (made.hosted.load, made.hosted.unload):
                with pytest.raises(StoreLost):
                    await work("reports", "1", "ann")
            assert "reports/1" in made.state()
            talk = {"messages": [{"role": "user", "content": "x"}], "conversation": "c"}
            with pytest.raises(StoreLost):
                await made.text("reports/1", Caller("ann"), **talk)
            monkeypatch.undo()
            await until(lambda: not made.catalog.lost)
            await made.text("reports/1", Caller("ann"), **talk)
            assert registry.conversations.read("ann", "c").turns == 2
            assert registry.conversations.read("ann", "c").model == "reports/1"
            registry.labels.set_stage(Reference("reports", 2), "archived", by="ann")
            await until(lambda: "reports/2" not in made.state())

    run(work())
