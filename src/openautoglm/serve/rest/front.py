"""The outermost layer of the server: every request passes here, whatever route it asks for.

It gives the request an id, sees that it was meant for this server, tells who calls and whether they may, bounds the
body before anything reads it, adds the headers of all replies, and writes one line to the log.
"""

from __future__ import annotations

import re
import time
import uuid
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from openautoglm.core import log
from openautoglm.serve.faults import BadRequest, as_fault
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.guard.rights import NOBODY
from openautoglm.serve.rest.access import check_host, check_origin, scope_of
from openautoglm.serve.rest.errors import error_response
from openautoglm.serve.rest.settings import LOOPBACK, RestSettings
from openautoglm.serve.wire.limits import Limits
from openautoglm.serve.wire.validate import check_body

_log = log.get(__name__)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_HEADERS = {b"x-content-type-options": b"nosniff", b"cache-control": b"no-store", b"referrer-policy": b"no-referrer",
            b"x-frame-options": b"DENY", b"cross-origin-resource-policy": b"same-origin",
            b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'"}
_QUIET = frozenset({"/healthz", "/ready", "/metrics"})


class HttpFigures(Protocol):
    """Counts requests."""

    def http(self, handler: str, method: str, status: int, seconds: float) -> None:
        """A request was answered; `handler` is a route and no path that a client made up."""


class Front:
    """Wraps an application."""

    def __init__(self, app: ASGIApp, guard: Guard, settings: RestSettings, limits: Limits,
                 figures: HttpFigures | None = None) -> None:
        self._app, self._guard, self._limits, self._figures = app, guard, limits, figures
        self._hosts = LOOPBACK if settings.hosts is None and not guard.keyed else settings.hosts
        tls = {b"strict-transport-security": b"max-age=31536000"} if settings.tls_cert is not None else {}
        self._headers = {**_HEADERS, **tls}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        visit = _Visit(scope, receive, send, self._headers, self._limits)
        try:
            await self._admit(scope, visit)
            await self._app(scope, visit.receive, visit.send)
        except Exception as error:
            fault = as_fault(error, visit.request_id)
            if visit.status:
                return  # its reply has begun: the connection ends without an end of the reply
            await error_response(fault)(scope, receive, visit.send)
        finally:
            self._told(scope, visit)

    async def _admit(self, scope: Scope, visit: _Visit) -> None:
        """Let a request in.

        Raises:
            Fault: why not.
        """
        headers = visit.headers
        host = headers.get(b"host", b"").decode("latin-1")
        check_host(host, self._hosts)
        origin = headers.get(b"origin")
        check_origin(None if origin is None else origin.decode("latin-1"), host)
        needed = scope_of(scope["path"], scope["method"])
        who = NOBODY
        if needed is not None:
            key = headers.get(b"authorization")
            client = scope.get("client") or ("", 0)
            who = await self._guard.authenticate(None if key is None else key.decode("latin-1"), client[0])
            who.require(needed)
        scope["who"], visit.who = who, who
        scope["admit"] = lambda tokens: self._guard.admit(who, tokens).settle
        if sum(name == b"host" for name, _ in scope["headers"]) > 1:
            raise BadRequest("stands there twice", where="Host", remedy="send it once")
        length = headers.get(b"content-length")
        if length is not None:
            if not length.isdigit():
                raise BadRequest("is no number", where="Content-Length", remedy="correct it")
            check_body(int(length[:20]), self._limits)

    def _told(self, scope: Scope, visit: _Visit) -> None:
        seconds = time.monotonic() - visit.began
        route = getattr(scope.get("route"), "path", "other")
        if self._figures is not None:
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._figures.http(route, method, visit.status or 499, seconds)
        level = _log.debug if route in _QUIET and visit.status < 400 else _log.info
        level("%s %s", scope["method"], scope["path"][:200], extra={
            "status": visit.status or 499, "seconds": round(seconds, 4), "request_id": visit.request_id,
            **({"key": visit.who.name} if visit.who.name else {})})


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class _Visit:
    """One request: its id, its headers, how much of its body has come, and how it is answered."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, added: dict[bytes, bytes], limits: Limits) -> None:
        self.headers = dict(scope["headers"])
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given.decode() if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope["request_id"] = self.request_id
        self.began, self.status, self.who = time.monotonic(), 0, NOBODY
        self._receive, self._send, self._added, self._limits = receive, send, added, limits
        self._read = 0

    async def receive(self) -> Message:
        """Hand on what comes, as long as it is not too much.

        Raises:
            TooLarge: it is.
        """
        message = await self._receive()
        if message["type"] == "http.request":
            self._read += len(message.get("body", b""))
            check_body(self._read, self._limits)
        return message

    async def send(self, message: Message) -> None:
        """Hand on what is answered, with the headers that all replies have."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            known = dict(message.get("headers", ()))
            more = [(name, value) for name, value in self._added.items() if name not in known]
            message = {**message, "headers": [*message.get("headers", ()), *more,
                                              (b"x-request-id", self.request_id.encode())]}
        await self._send(message)


