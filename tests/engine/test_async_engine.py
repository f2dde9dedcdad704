"""An engine in a thread: many callers, cancellation by leaving, faults and ends that reach everyone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any

import pytest
from fake_program import FakeProgram, greedy_text

from openautoglm.core.errors import AutoGLMError, GenerationError, ResourceError
from openautoglm.engine.async_engine import AsyncEngine
from openautoglm.engine.engine import Engine
from openautoglm.engine.request import Decoding, Request
from openautoglm.engine.settings import EngineSettings

SHORT = Decoding(max_new_tokens=12)
ENDLESS = Decoding(max_new_tokens=100, ignore_stop=True)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, timeout=60))


def make(**options: Any) -> AsyncEngine:
    settings = {name: options.pop(name) for name in list(options) if name in EngineSettings.model_fields}
    return AsyncEngine(Engine(FakeProgram(**options), EngineSettings(**settings)))


def test_many_callers_get_what_they_would_get_alone() -> None:
    prompts = [[5 + i, 6, 7 + i % 3] for i in range(20)]

    async def streamed(engine: AsyncEngine, prompt: list[int]) -> list[int]:
        return [token async for piece in engine.stream(Request(prompt, SHORT)) for token in piece.ids]

    async def work() -> None:
        async with make() as engine:
            whole = [engine.generate(Request(prompt, SHORT)) for prompt in prompts]
            results = await asyncio.gather(*whole, *(streamed(engine, prompt) for prompt in prompts))
            assert engine.stats.finished == 40
            assert engine.alive
        expected = [greedy_text(prompt, 12) for prompt in prompts]
        assert [list(found[0].ids) for found in results[:20]] == expected
        assert results[20:] == expected
        assert not engine.alive

    run(work())


async def _until_idle(engine: AsyncEngine) -> None:
    while engine.stats.pages_held or engine.stats.waiting:
        await asyncio.sleep(0.001)


def test_leaving_cancels() -> None:
    async def work() -> None:
        async with make() as engine:
            stream = engine.stream(Request([5], ENDLESS))
            await anext(stream)
            await stream.aclose()  # type: ignore[attr-defined]
            task = asyncio.create_task(engine.generate(Request([6], ENDLESS)))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await _until_idle(engine)
            assert engine.stats.finished == 0

    gate = threading.Semaphore(0)

    async def blocked() -> None:  # every step waits to be let through, so that nothing can end by itself
        async with make(before=lambda step: gate.acquire() and None) as engine:
            task = asyncio.create_task(engine.generate(Request([6], ENDLESS)))
            gate.release()
            while not engine.stats.steps:
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            gate.release()  # the step that was under way
            await _until_idle(engine)
            assert engine.stats.cancelled == 1
            assert engine.stats.steps <= 2

    run(work())
    run(blocked())


def test_refusals_and_faults_reach_their_caller() -> None:
    async def work() -> None:
        async with make(max_waiting=1, max_batch=1) as engine:
            with pytest.raises(GenerationError, match="empty"):
                await engine.generate(Request([]))
            with pytest.raises(GenerationError, match="outside"):
                [piece async for piece in engine.stream(Request([999]))]
            results = await asyncio.gather(*(engine.generate(Request([5], ENDLESS)) for _ in range(6)),
                                           return_exceptions=True)
            assert any(isinstance(result, ResourceError) for result in results)
            assert any(isinstance(result, list) for result in results)

    async def stumbling() -> None:
        def before(step: int) -> None:
            if step == 2:
                raise MemoryError("no scratch")

        async with make(before=before) as engine:
            with pytest.raises(GenerationError, match="no scratch"):
                await engine.generate(Request([5], ENDLESS))
            assert engine.alive

    run(work())
    run(stumbling())


def test_closing_ends_what_is_under_way() -> None:
    async def work() -> None:
        engine = make(positions=4096, pages=2048)
        engine.start()
        task = asyncio.create_task(engine.generate(Request([5], Decoding(max_new_tokens=4000, ignore_stop=True))))
        while not engine.stats.steps:
            await asyncio.sleep(0.001)
        await asyncio.to_thread(engine.close)
        with pytest.raises(GenerationError, match="closed"):
            await task
        with pytest.raises(GenerationError, match="does not run"):
            await engine.generate(Request([5]))

    run(work())


def test_an_engine_that_breaks_down_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def work() -> None:
        inner = Engine(FakeProgram())
        async with AsyncEngine(inner) as engine:
            monkeypatch.setattr(inner, "step", lambda: 1 // 0)
            with pytest.raises(AutoGLMError, match=r"broke down.*ZeroDivisionError"):
                await engine.generate(Request([5], ENDLESS))
            with pytest.raises(GenerationError, match="does not run"):
                await engine.generate(Request([5]))

    run(work())


def test_waiting_for_company_wakes_up() -> None:
    async def work() -> None:
        async with make(min_batch=5, max_wait=0.01) as engine:
            found = await engine.generate(Request([5], SHORT, deadline=engine.now() + 60))
            assert list(found[0].ids) == greedy_text([5], 12)

    run(work())


def test_who_waits_for_company_holds_nobody_up() -> None:
    async def work() -> None:
        async with make(min_batch=3, max_wait=1.0, max_batch=3) as engine:
            brief = Decoding(max_new_tokens=2, ignore_stop=True)
            others = [asyncio.create_task(engine.generate(Request([7 + number], brief))) for number in range(2)]
            long = asyncio.create_task(engine.generate(Request([5], ENDLESS)))
            await asyncio.gather(*others)
            late = asyncio.create_task(engine.generate(Request([6], SHORT)))
            await long
            assert not late.done(), "it still waits for a third one, or for its second to pass"
            await late

    run(work())


def test_a_caller_whose_loop_is_gone_is_let_go() -> None:
    engine = make(positions=4096, pages=2048)
    engine.start()

    async def leave() -> None:
        stream = engine.stream(Request([5], Decoding(max_new_tokens=3000, ignore_stop=True)))
        await anext(stream)
        engine._leave = lambda call: None  # type: ignore[method-assign]  # as if the loop had died at once

    run(leave())
    try:
        async def wait() -> None:
            while not engine.stats.cancelled:
                await asyncio.sleep(0.001)

        run(wait())
        assert engine.alive
    finally:
        engine.close()
