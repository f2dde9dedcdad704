"""How connections are taken: no head may trickle in for ever, and one that nobody reads can be ended at once."""

from __future__ import annotations

import asyncio
import socket
import uuid

from uvicorn._types import HTTPScope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from openautoglm.core.errors import ResourceError
from openautoglm.serve.faults import BadRequest
from openautoglm.serve.rest.errors import error_bytes
from openautoglm.serve.rest.settings import RestSettings

_BACKLOG = 2048
_REFUSED = error_bytes(BadRequest("is no HTTP that this server reads", where="request", remedy="send HTTP/1.1"))
_REFUSAL = (b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n"
            b"x-content-type-options: nosniff\r\ncache-control: no-store\r\nx-request-id: %s\r\n\r\n%s")


class _Pen:
    """Writes parts of the reply to one request; see `Pen`. A reply of known length has none of them."""

    __slots__ = ("_protocol", "_scope")

    def __init__(self, protocol: HttpToolsProtocol, scope: HTTPScope) -> None:
        self._protocol, self._scope = protocol, scope

    def ready(self) -> bool:
        """See `Pen`."""
        cycle = self._protocol.cycle
        return (cycle is not None and cycle.scope is self._scope and cycle.chunked_encoding is True
                and cycle.response_started and not cycle.response_complete and not cycle.disconnected
                and not self._protocol.flow.write_paused)

    def write(self, part: bytes) -> None:
        """See `Pen`."""
        self._protocol.transport.write(b"%x\r\n%b\r\n" % (len(part), part))


def door(settings: RestSettings) -> type[HttpToolsProtocol]:
    """The protocol of a server with these settings."""
    class Door(HttpToolsProtocol):
        """One connection."""

        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect()

        def connection_lost(self, exc: Exception | None) -> None:
            self._came()
            super().connection_lost(exc)

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self.scope["abort"] = self.transport.abort  # type: ignore[typeddict-unknown-key]
            self.scope["pen"] = _Pen(self, self.scope)  # type: ignore[typeddict-unknown-key]
            self._expect()

        def on_headers_complete(self) -> None:
            self._came()
            super().on_headers_complete()

        def send_400_response(self, msg: str) -> None:
            """What cannot be read is refused in the form of all errors."""
            self.transport.write(_REFUSAL % (len(_REFUSED), uuid.uuid4().hex.encode(), _REFUSED))
            self.transport.close()

        def _expect(self) -> None:
            """The head of a request must come in time."""
            if self._late is None:
                self._late = self.loop.call_later(settings.header_s, self.transport.abort)

        def _came(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Door


def listen(settings: RestSettings) -> socket.socket:
    """Take the address.

    Raises:
        ResourceError: it is taken, or none of this machine.
    """
    where = f"{settings.host}:{settings.port}"
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(settings.host, settings.port,
                                                                type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)  # by the protocol asyncio sees that small writes must not wait
    except OSError as error:
        raise ResourceError(f"is no address: {error.strerror}", where=where, remedy="correct --host") from error
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError as error:
        made.close()
        raise ResourceError(f"cannot be listened on: {error.strerror}", where=where,
                            remedy="end the program that holds the port, or choose another one with --port") from error
    return made
