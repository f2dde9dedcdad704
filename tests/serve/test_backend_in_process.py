"""The backend without a process: what the service may rely on, on an engine without a model."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from fake_program import FakeProgram, greedy_text
from grammar_tools import tokenizer
from serve_tools import answers, run, until

from openautoglm.engine.engine import Engine
from openautoglm.engine.request import Decoding
from openautoglm.engine.settings import EngineSettings
from openautoglm.serve.backend import Backend, Facts, GrammarText, InProcess, Order, probe
from openautoglm.serve.faults import (
    KINDS,
    TABLE,
    BadRequest,
    EngineLost,
    Fault,
    Internal,
    Overloaded,
    TimedOut,
    TooLong,
    Unavailable,
    Unsupported,
)
from openautoglm.serve.intake import grammar_of
from openautoglm.serve.pace import Pace, Watch

SHORT = Decoding(max_new_tokens=12)
ENDLESS = Decoding(max_new_tokens=100, ignore_stop=True)


class States(FakeProgram):
    """Its states are a row's id."""

    def step(self, ids: Any, positions: Any, layout: Any, wanted: Any) -> Any:
        return ids[wanted][:, None].astype(np.float32)


def make(hidden: Any = None, **options: Any) -> InProcess:
    settings = {name: options.pop(name) for name in list(options) if name in EngineSettings.model_fields}
    engine = Engine(FakeProgram(**options), EngineSettings(**settings), hidden=hidden)
    return InProcess(engine, decode=tokenizer().decode, fingerprint="f")


async def with_backend(backend: InProcess, work: Any) -> None:
    await backend.start()
    try:
        await work(backend)
    finally:
        await backend.close()


def test_answers_facts_and_stats() -> None:
    async def work(backend: Backend) -> None:
        orders = [Order((5 + number, 6), SHORT) for number in range(8)]
        found = await asyncio.gather(*(answers(backend, order) for order in orders))
        assert [answer[0][0] for answer in found] == [greedy_text(order.prompt, 12) for order in orders]
        assert backend.facts == Facts(50, 128, 4, 64, 32, 1024, 0, 0, "fake", "f")
        assert backend.stats.finished == 8
        assert backend.ready
        await backend.probe(10)
        await probe(backend, 10)

    run(with_backend(make(), work))


def test_refusals() -> None:
    async def work(backend: Backend) -> None:
        for order, kind, field in [
            (Order(()), BadRequest, "prompt"), (Order((999,)), BadRequest, "prompt"),
            (Order((5,) * 128), TooLong, "prompt"),
            (Order((5,), Decoding(num_beams=40)), BadRequest, "num_beams"),
            (Order((5,), Decoding(num_beams=2), stops=("x",)), BadRequest, "stop"),
            (Order((5,), Decoding(logit_bias=((77, 1.0),))), BadRequest, "logit_bias"),
            (Order((5,), grammar=GrammarText("regex", "a")), Unsupported, "grammar"),
            (Order((5,), timeout_s=-1), TimedOut, None)]:
            with pytest.raises(kind) as caught:
                await answers(backend, order)
            assert caught.value.where == field  # type: ignore[attr-defined]
        with pytest.raises(Unsupported):
            await backend.embed([[5]])

    run(with_backend(make(), work))


def test_before_and_after_it_is_unavailable() -> None:
    async def work() -> None:
        backend = make()
        assert not backend.ready
        with pytest.raises(Unavailable):
            await answers(backend, Order((5,)))
        await backend.start()
        assert backend.ready
        await backend.close()
        assert not backend.ready
        with pytest.raises(Unavailable):
            await answers(backend, Order((5,)))

    run(work())


def test_a_full_queue() -> None:
    async def work(backend: Backend) -> None:
        found = await asyncio.gather(*(answers(backend, Order((5,), ENDLESS)) for _ in range(6)),
                                     return_exceptions=True)
        refused = [fault for fault in found if isinstance(fault, Overloaded)]
        assert refused
        assert all(fault.retry_after_s is not None and 1 <= fault.retry_after_s <= 60 for fault in refused)

    run(with_backend(make(max_waiting=1, max_batch=1), work))


def test_leaving_frees_pages() -> None:
    async def work(backend: Backend) -> None:
        stream = backend.stream(Order((5,), ENDLESS))
        await anext(stream)
        await stream.aclose()
        await until(lambda: backend.stats.pages_held == 0 and backend.stats.cancelled == 1)

    run(with_backend(make(), work))


def test_a_step_that_fails_is_an_engine_lost() -> None:
    failures = [MemoryError("no scratch")]

    def before(step: int) -> None:
        if step == 2 and failures:
            raise failures.pop()

    async def work(backend: Backend) -> None:
        with pytest.raises(EngineLost) as caught:
            await answers(backend, Order((5,), ENDLESS))
        assert "scratch" in str(caught.value)
        assert "scratch" not in caught.value.public
        assert await answers(backend, Order((5,), SHORT))

    run(with_backend(make(before=before), work))


def test_closing_waits_for_what_is_under_way() -> None:
    gate = threading.Event()

    async def work() -> None:
        backend = make(before=lambda step: gate.wait(60) and None)
        await backend.start()
        running = asyncio.create_task(answers(backend, Order((5,), SHORT)))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(backend.close(grace_s=60))
        await asyncio.sleep(0.01)
        assert not closing.done()
        gate.set()
        await closing
        assert (await running)[0][0] == greedy_text([5], 12)

    run(work())


def test_a_stuck_engine_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    async def work(backend: InProcess) -> None:
        backend._watch.stalled_s = 0.05
        running = asyncio.create_task(answers(backend, Order((5,), SHORT)))
        await until(lambda: not backend.ready)
        with pytest.raises(TimedOut):
            await backend.probe(0.05)
        gate.set()
        await running
        assert backend.ready

    run(with_backend(make(before=lambda step: gate.wait(60) and None), work))


def test_embeddings() -> None:
    async def work(backend: Backend) -> None:
        assert (await backend.embed([[5, 7], [9]])).tolist() == [[6.0], [9.0]]
        for prompts, kind, field in [([], BadRequest, "input"), ([[5], []], BadRequest, "input.1"),
                                     ([[5] * 200], TooLong, "input.0"), ([[777]], BadRequest, "input.0")]:
            with pytest.raises(kind) as caught:
                await backend.embed(prompts)
            assert caught.value.where == field  # type: ignore[attr-defined]

    run(with_backend(make(hidden=States), work))


@pytest.mark.parametrize(("asked", "field"), [
    (GrammarText("json_schema", '{"type": "integer"}'), "json_schema"), (GrammarText("json_object"), "json_object"),
    (GrammarText("regex", "a+"), "regex"), (GrammarText("choice", '["a", "b"]'), "choice")], ids=str)
def test_grammars_are_read(asked: GrammarText, field: str) -> None:
    assert grammar_of(asked, 1000).kind == field


@pytest.mark.parametrize("asked", [
    GrammarText("json_schema", "{"), GrammarText("json_schema", "3"), GrammarText("choice", "[]"),
    GrammarText("choice", '"a"'), GrammarText("choice", "[1]"), GrammarText("regex", "a" * 2000),
    GrammarText("json_schema", "[" * 100_000)], ids=lambda asked: asked.text[:9])
def test_grammars_of_the_wrong_form_are_refused(asked: GrammarText) -> None:
    with pytest.raises(BadRequest):
        grammar_of(asked, 1000)


@pytest.mark.parametrize("kind", sorted(TABLE))
def test_every_kind_of_fault_is_whole(kind: str) -> None:
    fault = KINDS[kind]("inside 0x7f", where="field", remedy="do", retry_after_s=2)
    assert (fault.kind, fault.row) == (kind, TABLE[kind])
    assert 400 <= fault.row.status < 600
    assert fault.row.grpc.isupper()
    assert fault.field == "field"
    assert ("0x7f" in fault.public) == (not fault.row.says)
    if fault.row.status >= 500 and kind != "unavailable":
        assert fault.row.says, "the inside does not go out"


def test_the_table_and_the_classes_are_one() -> None:
    assert set(KINDS) == set(TABLE)
    assert set(KINDS.values()) == set(Fault.__subclasses__())
    assert Fault("x").kind == Internal.kind
    assert {kind for kind, row in TABLE.items() if row.retryable} == {
        "timed_out", "rate_limited", "overloaded", "engine_lost", "unavailable", "store_lost"}


def test_the_pace_says_when_to_come_again() -> None:
    pace = Pace(4)
    assert pace.retry_after_s(10, 0.0) == 1.0
    for second in range(10):
        pace.note(float(second))
    assert pace.retry_after_s(10, 10.0) == pytest.approx(10.0)
    assert pace.retry_after_s(1000, 10.0) == 60.0
    assert pace.retry_after_s(0, 10.0) == 1.0


def test_a_watch_counts_while_there_is_work() -> None:
    watch = Watch(5)
    assert watch.idle_s(3, False, 10.0) == 0
    assert watch.idle_s(3, False, 90.0) == 0
    assert watch.idle_s(3, True, 95.0) == 5
    assert watch.idle_s(4, True, 96.0) == 0
    assert watch.idle_s(4, True, 99.0) == 3
