"""The REST client against a scripted server on loopback: what is sent, what is read, how failures are named."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from scripted_server import Script, ScriptedServer

from openautoglm.bench.client import FailedError, Mark, Pulse
from openautoglm.bench.plan import Ask
from openautoglm.bench.prompts import Prompt
from openautoglm.bench.rest import RestClient, Server
from openautoglm.bench.settings import Prompts
from openautoglm.core.errors import LoadError
from openautoglm.core.values import Turn

ASK = Ask(0, 0.0, Prompt("hello"), 5, 11)


def run(work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(asyncio.wait_for(work(), timeout=60))


async def asked(client: RestClient, ask: Ask = ASK) -> Mark:
    """One request, read to its end; a failure is noted as the driver does."""
    mark = Mark(ask, client.prepare(ask))
    try:
        await client.send(mark)
        for _ in client.digest(mark):
            await asyncio.sleep(0)
    except FailedError as error:
        mark.error, mark.detail = error.kind, error.detail
    return mark


def one(script: Script, **options: Any) -> tuple[Mark, ScriptedServer]:
    """One request to a server of one script."""
    async def work() -> tuple[Mark, ScriptedServer]:
        async with ScriptedServer(lambda number: script) as server:
            client = RestClient(Server(base_url=server.url, **options), Prompts(), Pulse())
            await client.open()
            mark = await asked(client)
            await client.close()
            return mark, server

    found: tuple[Mark, ScriptedServer] = run(work)
    return found


def test_a_completion_is_asked_as_openai_wants_it() -> None:
    mark, server = one(Script(gaps_s=[0] * 4), headers={"Authorization": "Bearer k"}, extra_body={"user": "u"})
    served = server.served[0]
    assert served.path == "/v1/completions"
    assert served.headers["authorization"] == "Bearer k"
    assert served.body == {"model": "scripted", "prompt": "hello", "max_tokens": 5, "stream": True, "temperature": 0.0,
                           "stream_options": {"include_usage": True}, "ignore_eos": True, "user": "u"}
    assert (mark.prompt_tokens, mark.output_tokens, mark.cached_tokens) == (7, 5, 3)
    assert (len(mark.token_s), mark.error) == (5, "")


def test_a_chat_sends_turns_and_the_empty_first_piece_is_no_token() -> None:
    turns = (Turn("system", "short"), Turn("user", "hello"), Turn("observation", "42"))

    async def work() -> tuple[Mark, dict[str, Any]]:
        async with ScriptedServer(lambda number: Script(first_s=0.1, gaps_s=[0] * 2)) as server:
            client = RestClient(Server(base_url=server.url, backend="openai-chat", model="m"),
                                Prompts(temperature=0.5, ignore_eos=False), Pulse())
            mark = await asked(client, Ask(0, 0.0, Prompt("hello", turns=turns), 5, 11))
            await client.close()
            return mark, server.served[0].body

    mark, body = run(work)
    assert len(mark.token_s) == 3
    assert mark.token_s[0] - mark.sent_s >= 0.1
    assert [message["role"] for message in body["messages"]] == ["system", "user", "tool"]
    assert (body["temperature"], body["seed"], "ignore_eos" in body) == (0.5, 11, False)


def test_without_usage_events_are_counted() -> None:
    mark, _ = one(Script(gaps_s=[0] * 6, usage=False))
    assert (mark.output_tokens, mark.prompt_tokens) == (7, 0)


@pytest.mark.parametrize(("script", "kind", "says"), [
    (Script(status=429), "http_429", "not now"),
    (Script(status=503), "http_503", "not now"),
    (Script(gaps_s=[0], ends="closed"), "closed", "before the answer was whole"),
    (Script(gaps_s=[0], ends="cut"), "cut", "finish reason"),
    (Script(gaps_s=[0], ends="cut", framed=False), "cut", "finish reason"),
    (Script(gaps_s=[0], ends="error"), "error", "broke down"),
    (Script(gaps_s=[0], ends="nonsense"), "answer", "no JSON"),
], ids=["429", "503", "closed", "cut", "cut-unframed", "error", "nonsense"])
def test_failures_have_kinds(script: Script, kind: str, says: str) -> None:
    mark, _ = one(script)
    assert mark.error == kind
    assert says in mark.detail


def test_an_answer_without_frames_ends_with_its_connection() -> None:
    mark, _ = one(Script(gaps_s=[0] * 3, framed=False))
    assert (mark.error, mark.output_tokens) == ("", 4)


def test_connections_are_kept_and_a_closed_one_is_replaced() -> None:
    async def work() -> tuple[list[str], int, int]:
        async with ScriptedServer(lambda number: Script(close=number == 2)) as server:
            client = RestClient(Server(base_url=server.url, model="m"), Prompts(), Pulse())
            errors = [(await asked(client)).error for _ in range(4)]
            kept = server.connections
            together = await asyncio.gather(*(asked(client) for _ in range(5)))
            await client.close()
            return [*errors, *(mark.error for mark in together)], kept, server.connections

    errors, kept, most = run(work)
    assert errors == [""] * 9
    assert kept == 2
    assert most == 6


def test_a_connection_that_the_server_dropped_meanwhile_is_no_failure() -> None:
    async def work() -> tuple[str, int]:
        closing: list[asyncio.StreamWriter] = []

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            body = b'data: {"choices": [{"text": "x", "finish_reason": "stop"}]}\n\n'
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%b"
                         % (len(body), body))
            closing.append(writer)
            await reader.read()  # until the other side is gone
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            client = RestClient(Server(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", model="m"),
                                Prompts(), Pulse())
            first = await asked(client)
            closing[0].transport.abort()  # not seen by the client before it sends again
            second = await asked(client)
            await client.close()
            await asyncio.sleep(0.01)
            return first.error + second.error, len(closing)

    assert run(work) == ("", 2)


def test_cancelling_cuts_the_connection() -> None:
    async def work() -> tuple[bool, str]:
        async with ScriptedServer(lambda number: Script(gaps_s=[0] * 3, ends="never" if not number else "well")
                                  ) as server:
            client = RestClient(Server(base_url=server.url, model="m"), Prompts(), Pulse())
            mark = Mark(ASK, client.prepare(ASK))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.3):
                    await client.send(mark)
            after = await asked(client)
            await client.close()
            return len(mark.raw) >= 1, after.error

    assert run(work) == (True, "")


def test_an_answer_that_is_not_streamed_has_no_first_token() -> None:
    async def work() -> Mark:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            body = (b'{"choices": [{"text": "all", "finish_reason": "stop"}], '
                    b'"usage": {"prompt_tokens": 3, "completion_tokens": 9}}')
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
                         % (len(body), body))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            client = RestClient(Server(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", model="m"),
                                Prompts(), Pulse())
            mark = await asked(client)
            await client.close()
            return mark

    mark = run(work)
    assert (mark.error, mark.streamed, mark.output_tokens) == ("", False, 9)


def test_an_answer_that_is_not_http_is_told() -> None:
    async def work() -> str:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"SSH-2.0-OpenSSH_9.2\r\n")
            await writer.drain()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        async with server:
            client = RestClient(Server(base_url=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", model="m"),
                                Prompts(), Pulse())
            mark = await asked(client)
            await client.close()
            await asyncio.sleep(0.01)
            return mark.error

    assert run(work) == "answer"


def test_nobody_there_and_wrong_addresses_are_told() -> None:
    async def nobody() -> None:
        await RestClient(Server(base_url="http://127.0.0.1:9"), Prompts(), Pulse()).open()

    with pytest.raises(LoadError, match="does not answer"):
        run(nobody)
    for url in ("127.0.0.1:8080", "ftp://x", "http://"):
        with pytest.raises(LoadError, match="no address"):
            RestClient(Server(base_url=url), Prompts(), Pulse())
    with pytest.raises(LoadError, match="control characters"):
        RestClient(Server(headers={"X": "a\r\nEvil: b"}), Prompts(), Pulse())


def test_keys_do_not_get_into_results() -> None:
    assert "secret" not in repr(Server(headers={"Authorization": "Bearer secret"}))
