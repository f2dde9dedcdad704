"""A conversation on a real engine: its turns are stored, and its next turn finds the pages of those before."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from rest_tools import engine_backend
from serve_tools import run
from service_tools import ask

from openautoglm.serve.faults import Conflict, TooLarge
from openautoglm.serve.hosting.conversations import Kept
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.service import Service
from openautoglm.serve.service.values import Caller
from openautoglm.serve.wire.messages import Message

LONG = "The Punter is a cheap pub near Café Rouge. " * 4


def test_the_next_turn_computes_new_text_alone(registry: Registry, language: Language) -> None:
    async def work() -> None:
        backend = engine_backend(language)
        await backend.start()
        service = Service("m", language, backend, conversations=Kept(registry, "reports/1"))
        page = backend.facts.page_size

        async def turn(text: str, owner: str, name: str = "c") -> tuple[int, int]:
            """Say something; the tokens of the prompt, and those that were found in the cache."""
            before = backend.stats.prefix_hit
            answering = await service.open(
                ask(messages=[{"role": "user", "content": text}], conversation=name, max_tokens=8, temperature=0),
                Caller(owner, salt=owner.encode()))
            async with aclosing(answering.stream()) as deltas:
                async for _ in deltas:
                    pass
            assert answering.unkept is None
            return answering.usage.prompt_tokens, backend.stats.prefix_hit - before

        try:
            first, found = await turn(LONG, "ann")
            assert found == 0
            second, found = await turn("And then?", "ann")
            assert second > first
            assert found >= first - first % page - page
            assert found > first // 2
            _, found = await turn(LONG, "bob")  # another key's pages are not shared
            assert found == 0
            assert registry.conversations.read("ann", "c").turns == 4
            assert registry.conversations.read("bob", "c").turns == 2
        finally:
            await backend.close()

    run(work())


def test_what_the_store_refuses_is_a_fault(registry: Registry) -> None:
    async def work() -> None:
        kept = Kept(registry, "reports/1")
        said = (Message(role="user", content="x"), Message(role="assistant", content="y"))
        assert await kept.recall("c", "ann") == ()
        await kept.remember("c", "ann", 0, said)
        assert await kept.recall("c", "ann") == said
        with pytest.raises(Conflict):
            await kept.remember("c", "ann", 0, said)
        with pytest.raises(TooLarge):
            await kept.remember("c", "ann", 2, said * 300)
        assert await kept.recall("c", "ann") == said

    run(work())
