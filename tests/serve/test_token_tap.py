"""Tokens that are written where they arrive: the same text as without, in the same order."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from link_tools import ORDER, link, numbers, tell
from rest_tools import MODEL, Running
from serve_tools import FACTS, FakeBackend, run
from service_tools import Scene, ask, spoken

from openautoglm.engine.request import Piece
from openautoglm.serve.faults import Internal
from openautoglm.serve.orders import Order
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.values import Delta
from openautoglm.serve.worker.calls import Call
from openautoglm.serve.worker.messages import Step


class TappedBackend(FakeBackend):
    """Shows every token but the first and the last to the tap."""

    async def stream(self, order: Order) -> AsyncGenerator[Piece, None]:
        self.orders.append(order)
        first, *middle, last = self.script(order)[0]
        yield first
        for piece in middle:
            if order.tap is None or not order.tap(piece.ids[0]):
                yield piece
        yield last


def test_a_token_goes_to_the_tap_while_the_reader_waits() -> None:
    async def work() -> None:
        call, seen = Call(1, 100, lambda token: bool(seen.append(token) or token != 9)), array("i")
        call.token(5)
        assert await call.next() == Piece(0, (5,))
        reader = asyncio.ensure_future(call.next())
        await asyncio.sleep(0)
        assert call.token(6)
        assert call.token(7)
        assert list(seen) == [6, 7]
        assert not reader.done()
        call.token(9)  # not taken: the reader gets it, and all that follows before it has
        call.token(8)
        assert await reader == Piece(0, (9, 8))
        assert list(seen) == [6, 7, 9]

    run(work())


def test_the_first_token_is_the_readers() -> None:
    async def work() -> None:
        call = Call(1, 100, lambda token: pytest.fail("it was shown"))
        reader = asyncio.ensure_future(call.next())
        await asyncio.sleep(0)
        call.token(5)
        assert await reader == Piece(0, (5,))

    run(work())


def test_a_tap_that_fails_ends_its_own_request_alone() -> None:
    def broken(token: int) -> bool:
        raise OSError("no")

    async def work() -> None:
        made, _ = link()
        bad = made.ask(Order(ORDER.prompt, ORDER.decoding, tap=broken))
        good = made.ask(ORDER)
        tell(made, Step(1, numbers(bad.number, good.number), numbers(5, 5), (), numbers()))
        assert [await bad.next(), await good.next()] == [Piece(0, (5,))] * 2
        reader = asyncio.ensure_future(bad.next())
        await asyncio.sleep(0)
        tell(made, Step(2, numbers(bad.number, good.number), numbers(6, 6), (), numbers()))
        with pytest.raises(Internal) as caught:
            await reader
        assert isinstance(caught.value.__cause__, OSError)
        assert await good.next() == Piece(0, (6,))
        assert made.active == 1

    run(work())


@pytest.mark.parametrize("ready", [True, False], ids=["ready", "busy"])
def test_tapped_deltas_and_the_others_are_the_whole_answer(language: Language, ready: bool) -> None:
    async def work() -> None:
        made = Scene(language, lambda order: (spoken(language, "A cheap pub near the Café."), None), kind=TappedBackend)
        answering = await made.service.open(ask(), None)
        found: list[Delta] = []
        answering.tap(lambda: ready, found.append)
        yielded = 0
        async with aclosing(answering.stream()) as deltas:
            async for delta in deltas:
                found.append(delta)
                yielded += 1
        assert "".join(delta.text for delta in found) == "A cheap pub near the Café."
        assert [delta.finish for delta in found] == [None] * (len(found) - 1) + ["stop"]
        assert yielded == (2 if ready else len(found))
        assert made.report.usage.completion_tokens == len(found)
        assert len(made.observer.gaps) == len(found) - 1

    run(work())


@pytest.mark.parametrize("fields", [{"prompt": ["x", "y"]}, {"stop": ["zzz"]}, {"n": 3}],
                         ids=["prompts", "stop", "copies"])
def test_what_needs_more_care_is_not_tapped(language: Language, fields: dict[str, Any]) -> None:
    async def work() -> None:
        made = Scene(language, lambda order: (spoken(language, "A cheap pub."), None), kind=TappedBackend)
        answering = await made.service.open(ask(**fields), None)
        answering.tap(lambda: True, lambda delta: pytest.fail("it was shown"))
        async with aclosing(answering.stream()) as deltas:
            found = [delta async for delta in deltas]
        assert {"A cheap pub."} == {"".join(delta.text for delta in found if delta.choice == number)
                                    for number in {delta.choice for delta in found}}
        assert all(order.tap is None for order in made.backend.orders)

    run(work())


def test_a_streamed_reply_holds_what_was_tapped(language: Language) -> None:
    facts = FACTS.__class__(**{**vars(FACTS), "vocab_size": language.tokenizer.vocab_size})
    backend = TappedBackend(lambda order: (spoken(language, "A cheap pub near the Café."), None), facts)
    tapped: list[bool] = []
    with Running(language, lambda: backend) as server, httpx.Client(base_url=server.url) as client:
        for path, body in (("completions", {"prompt": "x"}), ("chat/completions", {"messages": [
                {"role": "user", "content": "x"}]})):
            reply = client.post(f"/v1/{path}", json={"model": MODEL, **body, "stream": True, "stream_options": {
                "include_usage": True}})
            *events, last = [line.removeprefix("data: ") for line in reply.text.split("\n\n") if line]
            assert last == "[DONE]"
            told = [json.loads(event) for event in events]
            choices = [event["choices"][0] for event in told[:-1]]
            assert "".join(each.get("text") or each.get("delta", {}).get("content", "") for each in choices) == (
                "A cheap pub near the Café.")
            assert [each["finish_reason"] for each in choices] == [None] * (len(choices) - 1) + ["stop"]
            assert told[-1]["usage"]["completion_tokens"] == len(spoken(language, "A cheap pub near the Café."))
            tapped.append(backend.orders[-1].tap is not None)
        assert client.get("/healthz").status_code == 200  # on the same connection
    assert tapped == [True, True]
