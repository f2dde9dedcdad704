"""A server that follows a script: it answers over HTTP/1.1 with set delays, and keeps the times at which it wrote.

    async with ScriptedServer(lambda number: Script(first_s=0.2, gaps_s=[0.05] * 9)) as server:
        ...  # server.url
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any


@dataclass
class Script:
    """What happens to one request.

    Attributes:
        first_s: delay of the first token; gaps_s: those between the others.
        status: of the answer.
        ends: ``well``, ``cut`` (no finish reason), ``closed`` (the connection breaks), ``error`` (an event tells of an
            error), ``never`` (nothing more comes), ``nonsense`` (an event is no JSON).
        text: of each token.
        usage: whether the last event counts tokens.
        close: the connection is closed after the answer.
        framed: chunks; otherwise the end of the connection is the end of the answer.
    """

    first_s: float = 0.0
    gaps_s: Sequence[float] = ()
    status: int = 200
    ends: str = "well"
    text: str = " word"
    usage: bool = True
    close: bool = False
    framed: bool = True


@dataclass
class Served:
    """What was asked, and when answers were written."""

    path: str
    headers: dict[str, str]
    body: Any
    came_s: float
    token_s: list[float] = field(default_factory=list)


class ScriptedServer:
    """Serves on loopback; `served` keeps every request for an answer."""

    def __init__(self, script: Callable[[int], Script], *, metrics: Callable[[], str] | None = None,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._script, self._metrics, self._clock = script, metrics, clock
        self.served: list[Served] = []
        self.connections = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> ScriptedServer:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._tasks.add(asyncio.create_task(self._connected(reader, writer)))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._serve(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        if method == "GET":
            return self._small(writer, path)
        served = Served(path, headers, json.loads(body), self._clock())
        self.served.append(served)
        return await self._answer(writer, served, self._script(len(self.served) - 1))

    def _small(self, writer: asyncio.StreamWriter, path: str) -> bool:
        asked = path.partition("?")[0] == "/metrics" and self._metrics
        text = asked() if asked else json.dumps({"data": [{"id": "scripted"}]})
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(text.encode())}\r\n\r\n{text}".encode())
        return True

    async def _answer(self, writer: asyncio.StreamWriter, served: Served, script: Script) -> bool:
        if script.status != 200:
            text = '{"error": {"message": "not now"}}'
            writer.write(f"HTTP/1.1 {script.status} No\r\nRetry-After: 1\r\nContent-Length: {len(text)}\r\n\r\n{text}"
                         .encode())
            return True
        frame = "Transfer-Encoding: chunked\r\n" if script.framed else ""
        if script.close or not script.framed:
            frame += "Connection: close\r\n"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n{frame}\r\n".encode())
        chat = "chat" in served.path
        if chat:  # as OpenAI does: a role without text comes first
            self._event(writer, script, {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
        for delay in (script.first_s, *script.gaps_s):
            await asyncio.sleep(delay)
            said = {"delta": {"content": script.text}} if chat else {"text": script.text}
            served.token_s.append(self._clock())
            self._event(writer, script, {"choices": [{"index": 0, **said, "finish_reason": None}]})
        return await self._end(writer, script, served, chat)

    async def _end(self, writer: asyncio.StreamWriter, script: Script, served: Served, chat: bool) -> bool:
        if script.ends == "never":
            await asyncio.sleep(3600)
        if script.ends == "closed":
            writer.transport.abort()
            return False
        if script.ends == "error":
            self._event(writer, script, {"error": {"message": "broke down"}})
        elif script.ends == "nonsense":
            self._write(writer, script, b"data: {never closed\n\n")
        elif script.ends == "well":
            said = {"delta": {}} if chat else {"text": ""}
            self._event(writer, script, {"choices": [{"index": 0, **said, "finish_reason": "length"}]})
            if script.usage:
                self._event(writer, script, {"choices": [], "usage": {
                    "prompt_tokens": 7, "completion_tokens": len(served.token_s),
                    "prompt_tokens_details": {"cached_tokens": 3}}})
            self._write(writer, script, b"data: [DONE]\n\n")
        if script.framed:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return script.framed and not script.close

    def _event(self, writer: asyncio.StreamWriter, script: Script, value: Any) -> None:
        self._write(writer, script, f"data: {json.dumps(value)}\n\n".encode())

    def _write(self, writer: asyncio.StreamWriter, script: Script, data: bytes) -> None:
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n" if script.framed else data)
