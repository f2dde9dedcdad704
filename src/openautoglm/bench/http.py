"""A lean HTTP/1.1 client for measurements: each piece of a body gets the time at which the event loop handed it over.

Parsing is llhttp's, through httptools. One connection serves one request at a time and is kept for the next one; there
are as many connections as requests under way. No redirects, no proxies, no cookies, no compression.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from openautoglm.bench.client import FailedError, Pulse
from openautoglm.core.errors import LoadError
from openautoglm.core.extras import require
from openautoglm.core.version import __version__

Clock = Callable[[], float]
_CONNECT_S = 30.0


class Answer:
    """An answer as it comes: status, type of content, and the pieces of its body with their times."""

    __slots__ = ("content_type", "pieces", "retry_after", "status", "whole")

    def __init__(self, loop: asyncio.AbstractEventLoop, pieces: list[tuple[float, bytes]]) -> None:
        self.status = 0
        self.content_type = ""
        self.retry_after = ""
        self.pieces = pieces
        self.whole: asyncio.Future[None] = loop.create_future()


class Connection(asyncio.Protocol):
    """One connection; `idle` says whether it takes a request."""

    def __init__(self, now: Clock, pulse: Pulse, parser: Callable[[Any], Any]) -> None:
        self._now, self._pulse, self._new_parser = now, pulse, parser
        self._transport: asyncio.WriteTransport | None = None
        self._parser: Any = None
        self._answer: Answer | None = None
        self._framed = False
        self._at = 0.0
        self.used = False

    @property
    def idle(self) -> bool:
        """Whether a request may be sent on it."""
        return self._answer is None and self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, answer: Answer) -> None:
        """Write a request; `answer` is filled as it comes."""
        assert self._transport is not None
        self._answer, self._framed = answer, False
        self._parser = self._new_parser(self)
        self._transport.write(request)

    def abort(self) -> None:
        """Cut the connection at once; a request on it fails by itself or was given up."""
        self._answer = None
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the event loop: take the time, then look at the data."""
        self._at = self._pulse.at_s = self._now()
        if self._answer is None:
            self.abort()  # nobody asked
            return
        try:
            self._parser.feed_data(data)
        except Exception as error:  # the parser raises many kinds, all for an answer that is no HTTP
            self._fail("answer", f"the answer is not HTTP/1.1: {error}")
            self.abort()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        name, answer = name.lower(), self._answer
        self._framed = self._framed or name in (b"content-length", b"transfer-encoding")
        if answer is not None and name == b"content-type":
            answer.content_type = value.decode("latin-1").lower()
        elif answer is not None and name == b"retry-after":
            answer.retry_after = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        if self._answer is not None:
            self._answer.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Called by the parser."""
        if self._answer is not None:
            self._answer.pieces.append((self._at, body))

    def on_message_complete(self) -> None:
        """Called by the parser."""
        answer = self._answer
        if answer is None or answer.status < 200:
            return
        self.used, self._answer = True, None
        if not self._parser.should_keep_alive() and self._transport is not None:
            self._transport.close()
        if not answer.whole.done():
            answer.whole.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        """Called by the event loop."""
        self._transport = None
        answer = self._answer
        if answer is not None and answer.status >= 200 and not self._framed:  # its end was the connection's
            self._answer = None
            if not answer.whole.done():
                answer.whole.set_result(None)
        elif answer is not None:
            self._fail("closed", f"the server closed the connection before the answer was whole ({error or 'EOF'})")

    def _fail(self, kind: str, detail: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.whole.done():
            answer.whole.set_exception(FailedError(kind, detail))


class Http:
    """Connections to one server.

    Args:
        base_url: ``http://host:port``, with a path before all others if need be.
        headers: of every request, e.g. ``Authorization``.

    Raises:
        LoadError: the URL is none.
        MissingExtraError: httptools is not installed.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], now: Clock, pulse: Pulse) -> None:
        url = urlsplit(base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise LoadError(f"{base_url!r} is no address of a server", where="--base-url",
                            remedy="write http://host:port")
        self._ssl = ssl.create_default_context() if url.scheme == "https" else None
        self.host, self.port = url.hostname, url.port or (443 if self._ssl else 80)
        self._path = url.path.rstrip("/")
        fields = {"Host": url.netloc.rpartition("@")[2], "User-Agent": f"openautoglm/{__version__}", "Accept": "*/*",
                  "Content-Type": "application/json", **headers}
        if any(not text.isprintable() for item in fields.items() for text in item):
            raise LoadError("a header holds control characters", where="--header", remedy="write NAME=VALUE")
        self._head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._now, self._pulse = now, pulse
        self._parser = require("httptools", "serve").HttpResponseParser
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        """The bytes of a request."""
        head = f"{method} {self._path}{path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n"
        return head.encode("latin-1", "replace") + body

    async def exchange(self, request: bytes, pieces: list[tuple[float, bytes]], on_sent: Callable[[], None]) -> Answer:
        """Send a request and wait for its whole answer. Cancelling it cuts the connection.

        A kept connection that the server has closed meanwhile is replaced once.

        Raises:
            FailedError: kinds ``connect``, ``closed``, ``answer``.
        """
        while True:
            connection = await self._take()
            again = connection.used
            answer = Answer(asyncio.get_running_loop(), pieces)
            on_sent()
            connection.send(request, answer)
            try:
                await answer.whole
            except FailedError as error:
                self._all.discard(connection)
                if again and error.kind == "closed" and not answer.status:
                    continue
                raise
            except BaseException:
                self._all.discard(connection)
                connection.abort()
                raise
            if connection.idle:
                self._idle.append(connection)
            else:
                self._all.discard(connection)
            return answer

    async def json(self, method: str, path: str, value: Any = None) -> tuple[int, Any]:
        """Status and JSON value of a small answer; None where it is no JSON.

        Raises:
            FailedError: as `exchange`.
        """
        body = b"" if value is None else json.dumps(value).encode()
        pieces: list[tuple[float, bytes]] = []
        answer = await self.exchange(self.request(method, path, body), pieces, lambda: None)
        try:
            return answer.status, json.loads(b"".join(piece for _, piece in pieces))
        except ValueError:
            return answer.status, None

    def close(self) -> None:
        """Cut all connections."""
        for connection in self._all:
            connection.abort()
        self._all.clear()
        self._idle.clear()

    async def _take(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.idle:
                return connection
            self._all.discard(connection)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: Connection(self._now, self._pulse, self._parser), self.host, self.port, ssl=self._ssl)
        except (OSError, ssl.SSLError) as error:  # TimeoutError is an OSError
            raise FailedError("connect", f"{self.host}:{self.port}: {error or 'no answer'}") from error
        self._all.add(connection)
        return connection
