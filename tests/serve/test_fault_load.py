"""The load of the tests of faults tells what became of a request, whatever the server does."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

import fault_load
from fault_load import Load

STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BODY: dict[str, Any] = {"prompt": "x", "stream": True}


def chunks(*events: str, whole: bool = True) -> bytes:
    parts = [f"data: {event}\n\n".encode() for event in events]
    return STREAM + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + (b"0\r\n\r\n" if whole else b"")


def whole(status: str, body: str) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


async def outcomes(replies: Sequence[bytes | None], body: dict[str, Any]) -> Load:
    """What a load finds of a server that replies these bytes, then ends the connection; None: it never does."""
    left = list(replies)

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        told = left.pop(0)
        if told is not None:
            writer.write(told)
            writer.close()
        else:
            await reader.read()
            writer.close()

    server = await asyncio.start_server(reply, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with Load(f"http://127.0.0.1:{port}", len(replies), [body], again=False) as load:
            pass
    return load


@pytest.mark.parametrize(("reply", "stream", "kind"), [
    (chunks('{"choices": []}', "[DONE]"), True, "finished"),
    (chunks('{"choices": []}', '{"error": {"code": "engine_lost"}}', "[DONE]"), True, "error engine_lost"),
    (chunks('{"choices": []}'), True, "lost"),
    (chunks('{"choices": []}', whole=False), True, "lost"),
    (chunks(whole=False), True, "lost"),
    (whole("503 Unavailable", '{"error": {"code": "unavailable"}}'), True, "503 unavailable"),
    (whole("200 OK", "{}"), False, "finished"),
    (b"", True, "cut"),
    (b"", False, "cut"),
    (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{", False, "lost"),
    (None, True, "silent"),
], ids=["finished", "error", "no end", "broken", "head", "refused", "whole", "cut", "cut whole", "half", "silent"])
def test_what_became_of_a_request(reply: bytes | None, stream: bool, kind: str,
                                  monkeypatch: pytest.MonkeyPatch) -> None:
    if reply is None:
        monkeypatch.setattr(fault_load, "TIMEOUT_S", 0.2)
    load = asyncio.run(outcomes([reply], {**BODY, "stream": stream}))
    assert dict(load.counts()) == {kind: 1}
    assert bool(load.lost()) == (kind in ("lost", "silent", "cut"))


def test_what_was_cut_is_lost_only_where_it_began_before() -> None:
    before = time.monotonic()
    load = asyncio.run(outcomes([b"", b""], BODY))
    assert load.lost(before=before) == []
    assert len(load.lost(before=time.monotonic())) == 2


def test_the_time_until_an_answer_comes_again_is_that_of_a_request_begun_after_the_fault() -> None:
    load = asyncio.run(outcomes([chunks("{}", "[DONE]")], BODY))
    assert load.recovered_s(load.outcomes[0].begun + 1) is None
    found = load.recovered_s(load.outcomes[0].begun - 1)
    assert found is not None
    assert found >= 1
