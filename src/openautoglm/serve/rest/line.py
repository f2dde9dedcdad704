"""The line to one client: its body in time, and the moment it leaves."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from openautoglm.serve.faults import ClientGone, TimedOut, UnsupportedMedia
from openautoglm.serve.wire.fields import Ask
from openautoglm.serve.wire.json_body import parse_object
from openautoglm.serve.wire.limits import Limits
from openautoglm.serve.wire.validate import check_body, read_ask

AnAsk = TypeVar("AnAsk", bound=Ask)
_JSON = "application/json"


async def read_body(request: Request, kind: type[AnAsk], limits: Limits, *, empty: bool = False) -> AnAsk:
    """Read the body of a request as an ask.

    Args:
        empty: a request without a body asks for the defaults.

    Raises:
        UnsupportedMedia: it is not said to be JSON.
        TooLarge, TimedOut, BadRequest, Unsupported: it is too large, too slow, or no such ask.
        ClientGone: the client left before it had sent all.
    """
    if empty and not _has_body(request):
        return kind()
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != _JSON:
        raise UnsupportedMedia("the body must be JSON", where="Content-Type", remedy=f"send Content-Type: {_JSON}")
    return read_ask(kind, parse_object(await _body(request.receive, limits), limits.json_depth), limits)


def _has_body(request: Request) -> bool:
    headers = request.headers
    return ("content-type" in headers or "transfer-encoding" in headers or headers.get("content-length", "0") != "0")


async def _body(receive: Receive, limits: Limits) -> bytes:
    parts = bytearray()
    try:
        async with asyncio.timeout(limits.body_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone("the client has left")
                parts += message.get("body", b"")
                check_body(len(parts), limits)
                if not message.get("more_body", False):
                    return bytes(parts)
    except TimeoutError as error:
        raise TimedOut(f"the body took longer than {limits.body_s:g} s", where="body",
                       remedy="send it faster") from error


class Pen(Protocol):
    """Writes parts of a reply past all layers; a server may put one into the scope of a request."""

    def ready(self) -> bool:
        """Whether the reply has begun and the client reads it."""

    def write(self, part: bytes) -> None:
        """Write a part; only when it is ready."""


class Line:
    """Where a reply is written; made by `connected`.

    Attributes:
        pen: for parts that need not wait; None where the server has none.
    """

    def __init__(self, send: Send, pen: Pen | None = None) -> None:
        self._send, self.pen = send, pen
        self._since: float | None = None

    async def send(self, message: dict[str, Any]) -> None:
        """Write a part of the reply; waits while the client does not read."""
        self._since = time.monotonic()
        await self._send(message)
        self._since = None

    def stalled_s(self) -> float:
        """For how long the part that is being written has waited."""
        return 0.0 if self._since is None else time.monotonic() - self._since


@asynccontextmanager
async def connected(scope: Scope, receive: Receive, send: Send, limits: Limits) -> AsyncIterator[Line]:
    """Run what is within as long as the client is there; when it leaves or stops reading, that is cancelled at once.

    The last part of a reply is sent outside, as its end looks like a client's leaving.

    Raises:
        ClientGone: the client has left.
    """
    task = asyncio.current_task()
    assert task is not None
    line, gone = Line(send, scope.get("pen")), False

    async def watch() -> None:
        nonlocal gone
        heard = asyncio.ensure_future(receive())
        try:
            while line.stalled_s() < limits.stall_s:
                await asyncio.wait([heard], timeout=limits.stall_s / 2)
                if not heard.done():
                    continue
                if heard.result()["type"] == "http.disconnect":
                    break
                heard = asyncio.ensure_future(receive())
            gone = True
            task.cancel()
        finally:
            heard.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield line
    except asyncio.CancelledError:
        if gone and not task.uncancel():
            raise ClientGone("the client has left, or has stopped reading") from None
        raise
    finally:
        watcher.cancel()
