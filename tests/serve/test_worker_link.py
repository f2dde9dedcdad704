"""The server's side of the connection, without a process: what comes is checked, readers are served, hangs are seen."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from link_tools import HELLO, HOW, ORDER, link, numbers, tell
from serve_tools import STATS, run

from openautoglm.engine.request import Decoding, Piece
from openautoglm.serve.backend import Order
from openautoglm.serve.faults import BadRequest, ClientGone, EngineLost, Overloaded, TimedOut, Unsupported
from openautoglm.serve.worker.calls import Call
from openautoglm.serve.worker.frames import framed
from openautoglm.serve.worker.letters import parts_of
from openautoglm.serve.worker.messages import (
    Ask,
    Beat,
    Cancel,
    Embed,
    Embedded,
    Ping,
    Refused,
    Step,
    encode,
)


async def all_of(call: Call) -> list[Piece]:
    found = []
    while (piece := await call.next()) is not None:
        found.append(piece)
    return found


def test_orders_go_out_and_pieces_come_in() -> None:
    async def work() -> None:
        made, pipe = link()
        first, second = made.ask(ORDER), made.ask(ORDER)
        asked = pipe.sent[0]
        assert isinstance(asked, Ask)
        assert (asked.number, asked.prompt, asked.decoding) == (first.number, numbers(5, 6), '{"max_new_tokens":9}')
        last = (second.number, 0, (8,), (), (), "stop", None)
        tell(made, Step(1, numbers(first.number, second.number), numbers(10, 11), (), b""),
             Step(2, numbers(first.number), numbers(12), (last,), numbers(second.number)),
             Step(3, b"", b"", ((first.number, 0, (13,), (), (), "length", None),), numbers(first.number)))
        assert await all_of(first) == [Piece(0, (10, 12)), Piece(0, (13,), finish="length")]
        assert await all_of(second) == [Piece(0, (11,)), Piece(0, (8,), finish="stop")]
        assert made.active == 0
        assert made.nobody.is_set()

    run(work())


def test_a_reader_that_waits_is_woken_at_each_step() -> None:
    async def work() -> None:
        made, _ = link()
        call = made.ask(ORDER)
        for token in range(5):
            waiting = asyncio.create_task(call.next())
            await asyncio.sleep(0)
            tell(made, Step(token, numbers(call.number), numbers(token), (), b""))
            assert await waiting == Piece(0, (token,))

    run(work())


def test_hidden_states_come_in_one_message() -> None:
    async def work() -> None:
        made, pipe = link()
        task = asyncio.create_task(made.embed([[5, 6], [7]]))
        await asyncio.sleep(0)
        assert pipe.sent == [Embed(1, numbers(5, 6, 7), (2, 1))]
        tell(made, Embedded(1, 2, np.arange(4, dtype=np.float32).tobytes()))
        assert (await task).tolist() == [[0.0, 1.0], [2.0, 3.0]]
        short = asyncio.create_task(made.embed([[5], [6]]))
        await asyncio.sleep(0)
        tell(made, Embedded(2, 2, np.arange(2, dtype=np.float32).tobytes()))
        with pytest.raises(EngineLost):
            await short
        refused = asyncio.create_task(made.embed([[5]]))
        await asyncio.sleep(0)
        tell(made, Refused(3, "unsupported", "no states", None, None, None))
        with pytest.raises(Unsupported):
            await refused
        with pytest.raises(BadRequest):
            await made.embed([[2**40]])
        assert made.active == 0

    run(work())


def test_many_texts_are_cut_into_messages() -> None:
    texts = [[1] * size for size in (5, 400_000, 700_000, 2, *[1] * 40)]
    parts = list(parts_of(texts))
    assert [text for part in parts for text in part] == texts
    assert [len(part) for part in parts] == [2, 32, 10]
    assert list(parts_of([[1]])) == [[[1]]]


def test_leaving_is_told_once_for_all_that_leave_together() -> None:
    async def work() -> None:
        made, pipe = link()
        calls = [made.ask(ORDER) for _ in range(5)]
        for call in calls[:4]:
            made.leave(call)
            made.leave(call)
        await asyncio.sleep(0)
        assert pipe.sent[5:] == [Cancel(numbers(*(call.number for call in calls[:4])))]
        tell(made, Step(1, numbers(calls[0].number), numbers(3), (), b""))
        assert made.active == 1

    run(work())


def test_refusals_fail_their_request() -> None:
    async def work() -> None:
        made, _ = link()
        call, other = made.ask(ORDER), made.ask(ORDER)
        tell(made, Refused(call.number, "bad_request", "is empty", "prompt", "give ids", None))
        with pytest.raises(BadRequest, match="is empty") as caught:
            await call.next()
        assert (caught.value.where, caught.value.remedy) == ("prompt", "give ids")
        assert not other.over

    run(work())


def test_more_requests_than_engine_and_queue_take_are_refused_here() -> None:
    async def work() -> None:
        made, pipe = link()
        for _ in range(12):
            made.ask(ORDER)
        with pytest.raises(Overloaded):
            made.ask(ORDER)
        assert len(pipe.sent) == 12

    run(work())


def test_a_lost_connection_fails_all() -> None:
    async def work() -> None:
        made, _ = link()
        calls = [made.ask(ORDER) for _ in range(3)]
        tell(made, Step(1, numbers(calls[0].number), numbers(3), (), b""))
        made.connection_lost(None)
        assert await calls[0].next() == Piece(0, (3,)), "what came before is not lost"
        for call in calls:
            with pytest.raises(EngineLost):
                await call.next()
        with pytest.raises(EngineLost):
            made.ask(ORDER)
        assert "ended" in made.ended.result()

    run(work())


def test_deadlines_hold_though_the_engine_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openautoglm.serve.worker.link._LATE_S", 0.0)

    async def work() -> None:
        made, pipe = link()
        call = made.ask(Order((5,), timeout_s=0.01))
        with pytest.raises(TimedOut):
            await call.next()
        await asyncio.sleep(0)
        assert isinstance(pipe.sent[-1], Cancel)

    run(work())


def test_beams_that_come_together_make_no_reader_slow() -> None:
    async def work() -> None:
        made, _ = link(buffer_tokens=10)
        call = made.ask(Order((5, 6), Decoding(max_new_tokens=9, num_beams=3, n=3)))
        beams = tuple((call.number, copy, tuple(range(9)), (), (), "length", None) for copy in range(3))
        tell(made, Step(1, b"", b"", beams, numbers(call.number)))
        assert [len(piece.ids) for piece in await all_of(call)] == [9, 9, 9]

    run(work())


def test_a_slow_reader_is_cut_off() -> None:
    async def work() -> None:
        made, pipe = link(buffer_tokens=10)
        call = made.ask(ORDER)
        for token in range(11):
            tell(made, Step(token, numbers(call.number), numbers(token), (), b""))
        await asyncio.sleep(0)
        assert isinstance(pipe.sent[-1], Cancel)
        with pytest.raises(ClientGone):
            await call.next()
        made, pipe = link(buffer_tokens=27)
        scored = made.ask(ORDER)
        piece = (scored.number, 0, (5,), (-0.5,), (((5, -0.5), (6, -1.0)),), None, None)  # 1 and 2 times 4
        for step in range(3):
            tell(made, Step(step, b"", b"", (piece,), b""))
        assert not scored.over
        assert len((await scored.next()).alternatives[0]) == 2  # type: ignore[union-attr]
        for step in range(2):
            tell(made, Step(step, b"", b"", (piece,), b""))
        with pytest.raises(ClientGone):
            await scored.next()

    run(work())


@pytest.mark.parametrize("data", [b"\xff" * 4, framed(b"nonsense"), framed(encode(Ping())), framed(encode(HELLO)),
                                  framed(encode(Step(1, b"", b"", (), b""))[:-3])],
                         ids=["long", "noise", "kind", "second", "cut"])
def test_what_is_no_message_ends_the_connection(data: bytes) -> None:
    async def work() -> None:
        made, pipe = link()
        call = made.ask(ORDER)
        made.data_received(data)
        assert pipe.aborted
        assert "protocol" in made.ended.result()
        with pytest.raises(EngineLost):
            await call.next()

    run(work())


@given(st.lists(st.binary(max_size=80), max_size=5))
def test_noise_of_any_kind_raises_nothing(pieces: list[bytes]) -> None:
    async def work() -> None:
        made, _ = link()
        call = made.ask(ORDER)
        for piece in pieces:
            made.data_received(piece)
        made.connection_lost(None)
        with pytest.raises(EngineLost):
            await call.next()

    run(work())


def test_numbers_that_nobody_asked_with_are_let_go() -> None:
    async def work() -> None:
        made, _ = link()
        tell(made, Step(1, numbers(77), numbers(5), ((78, 0, (5,), (), (), None, None),), numbers(79)),
             Refused(80, "internal", "", None, None, None), Beat(1, False, 0.1, HOW))
        assert not made.ended.done()
        assert made.stats == STATS

    run(work())


def test_silence_is_a_hang() -> None:
    async def work() -> None:
        made, pipe = link(stall_s=0.2)
        call = made.ask(ORDER)
        assert made.steady
        watching = asyncio.create_task(made.watch())
        await asyncio.sleep(0.15)
        assert not made.steady
        assert [message for message in pipe.sent if isinstance(message, Ping)]
        assert "no progress" in await watching
        with pytest.raises(EngineLost):
            await call.next()

    run(work())


def test_beats_without_steps_are_a_hang_and_with_steps_are_none() -> None:
    async def work() -> None:
        stuck, _ = link(stall_s=0.2)
        moving, _ = link(stall_s=0.2)
        idle, _ = link(stall_s=0.2)
        watches = [asyncio.create_task(one.watch()) for one in (stuck, moving, idle)]
        for step in range(40):
            await asyncio.sleep(0.01)
            tell(stuck, Beat(7, True, 0.001, HOW))
            tell(moving, Beat(step, True, 0.001, HOW))
            tell(idle, Beat(7, False, 0.001, HOW))
        assert [one.ended.done() for one in (stuck, moving, idle)] == [True, False, False]
        for watch in watches:
            watch.cancel()

    run(work())


def test_slow_steps_are_given_time() -> None:
    async def work() -> None:
        made, _ = link(stall_s=1, start_s=50)
        assert made.progress.patience_s == 1
        tell(made, Beat(1, True, 2.0, HOW))
        assert made.progress.patience_s == 16
        tell(made, Beat(2, True, 100.0, HOW))
        assert made.progress.patience_s == 50

    run(work())


def test_a_loop_that_was_busy_itself_blames_nobody() -> None:
    async def work() -> None:
        made, _ = link(stall_s=0.2)
        watching = asyncio.create_task(made.watch())
        for _ in range(3):
            await asyncio.sleep(0.01)
            time.sleep(0.3)
            tell(made, Beat(0, False, 0.001, HOW))
        assert not made.ended.done()
        watching.cancel()

    run(work())
