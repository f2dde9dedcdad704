"""Where every call arrives, whatever method it names: known or not, it needs a key unless the method is open.

Messages come here as bytes, so that nothing is parsed before it is known who calls, and one that cannot be parsed is
the client's fault and not the server's. A call of one message is read as a stream of one, so that it must come in time.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from openautoglm.core import log
from openautoglm.serve.faults import BadRequest, ClientGone, Fault, MethodNotAllowed, TimedOut, Unauthorised, as_fault
from openautoglm.serve.guard.rights import NOBODY
from openautoglm.serve.rpc.serving import Call, Method, Serving
from openautoglm.serve.service.values import Caller
from openautoglm.serve.wire.validate import check_body

_log = log.get(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_QUIET = frozenset({"grpc.health.v1.Health", "ServerLive", "ServerReady"})
_TOLD_CHARS = 2000


class Desk(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Answers all calls of a server."""

    def __init__(self, serving: Serving, methods: Iterable[Method]) -> None:
        self._serving = serving
        self._methods: Mapping[str, Method] = {method.path: method for method in methods}

    def service(self, details: Any) -> Any:
        """See `grpc.GenericRpcHandler`: there is an answer to every path, so that unknown ones need a key, too."""
        method = self._methods.get(details.method)
        metadata = list(details.invocation_metadata or ())

        async def serve(_: Any, context: Any) -> None:
            await self._serve(method, _Visit(method, metadata, context), context)

        return grpc.stream_stream_rpc_method_handler(serve)

    async def _serve(self, method: Method | None, visit: _Visit, context: Any) -> None:
        try:
            call = await self._admit(method, visit)
            if method is None:
                raise MethodNotAllowed("there is no such method", remedy="see docs/grpc.md, or ask for reflection")
            read: Any = self._many(method, context) if method.many else await self._one(method, context)
            async with aclosing(method.answer(read, call)) as replies:
                async for reply in replies:
                    await self._write(context, reply.SerializeToString())
            context.set_trailing_metadata(visit.trailing())
            visit.code = "OK"
        except asyncio.CancelledError:
            left_s = context.time_remaining()
            visit.code = "DEADLINE_EXCEEDED" if left_s is not None and left_s <= 0 else "CANCELLED"
            raise
        except Exception as error:
            fault = as_fault(error, visit.request_id)
            visit.code = fault.row.grpc
            await context.abort(grpc.StatusCode[visit.code], fault.public[:_TOLD_CHARS], visit.trailing(fault))
        finally:
            self._told(visit)

    async def _admit(self, method: Method | None, visit: _Visit) -> Call:
        """Let a call in.

        Raises:
            Fault: why not.
        """
        guard, who = self._serving.guard, NOBODY
        scope = "infer" if method is None else method.scope
        if scope is not None:
            keys = visit.given("authorization")
            if len(keys) > 1:
                raise Unauthorised("there are several keys", remedy="send one in the metadata `authorization`")
            who = await guard.authenticate(keys[0] if keys else None, visit.client)
            who.require(scope)
        visit.who = who
        trace = (visit.given("traceparent") or [""])[0][:128]
        caller = Caller(who.name, visit.request_id, who.salt, trace, lambda tokens: guard.admit(who, tokens).settle)
        return Call(caller, who, visit.left_s)

    async def _one(self, method: Method, context: Any) -> Any:
        """The one message of a call.

        Raises:
            TimedOut: it does not come. BadRequest: there is none, or it cannot be parsed. TooLarge: it is too large.
        """
        limits = self._serving.limits
        try:
            async with asyncio.timeout(limits.body_s):
                read = await context.read()
        except TimeoutError as error:
            raise TimedOut(f"the message took longer than {limits.body_s:g} s", where="body",
                           remedy="send it faster") from error
        if read is grpc.aio.EOF:
            raise BadRequest("there is no message", where="body", remedy="send one")
        return self._parsed(method, read)

    async def _many(self, method: Method, context: Any) -> AsyncGenerator[Any, None]:
        while (read := await context.read()) is not grpc.aio.EOF:
            yield self._parsed(method, read)

    def _parsed(self, method: Method, read: bytes) -> Any:
        check_body(len(read), self._serving.limits)
        try:
            return method.request.FromString(read)
        except (DecodeError, ValueError) as error:
            raise BadRequest(f"is no {method.request.DESCRIPTOR.full_name}", where="body",
                             remedy="send what the .proto file says") from error

    async def _write(self, context: Any, reply: bytes) -> None:
        """Send a reply.

        Raises:
            ClientGone: nobody reads it.
        """
        try:
            async with asyncio.timeout(self._serving.limits.stall_s):
                await context.write(reply)
        except TimeoutError as error:
            raise ClientGone("the client has stopped reading") from error

    def _told(self, visit: _Visit) -> None:
        seconds = time.monotonic() - visit.began
        if self._serving.figures is not None:
            self._serving.figures.rpc(visit.service, visit.name, visit.code, seconds)
        quiet = visit.code == "OK" and not _QUIET.isdisjoint((visit.service, visit.name))
        level = _log.debug if quiet else _log.info
        level("rpc %s/%s", visit.service, visit.name, extra={
            "code": visit.code, "seconds": round(seconds, 4), "request_id": visit.request_id,
            **({"key": visit.who.name} if visit.who.name else {})})


class _Visit:
    """One call: its id, its metadata, who sent it, how it ended."""

    def __init__(self, method: Method | None, metadata: Iterable[tuple[str, Any]], context: Any) -> None:
        self._metadata = list(metadata)
        self.left_s = context.time_remaining
        self.client = client_of(context.peer() or "")
        self.service, self.name = ("other", "other") if method is None else (method.service, method.name)
        given = (self.given("x-request-id") or [""])[0]
        self.request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.began, self.code, self.who = time.monotonic(), "UNKNOWN", NOBODY

    def given(self, name: str) -> list[str]:
        """The values of a name in the metadata."""
        return [value for key, value in self._metadata if key == name and isinstance(value, str)]

    def trailing(self, fault: Fault | None = None) -> tuple[tuple[str, str], ...]:
        """The metadata after a reply: the request's id; of a fault its kind, and when to come again."""
        told = [("x-request-id", self.request_id)]
        if fault is not None:
            told.append(("x-fault", fault.kind))
        if fault is not None and fault.retry_after_s is not None:
            told.append(("retry-after", str(max(1, math.ceil(fault.retry_after_s)))))
        return tuple(told)


def client_of(peer: str) -> str:
    """The address in gRPC's name of a peer, e.g. ``ipv4:127.0.0.1:4711``; empty on a Unix socket."""
    kind, _, rest = unquote(peer).partition(":")
    address = rest.rpartition(":")[0] if kind in ("ipv4", "ipv6") else ""
    return address.removeprefix("[").removesuffix("]")
