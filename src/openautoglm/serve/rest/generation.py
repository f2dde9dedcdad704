"""The replies to completions and chats: streamed or whole, ended at once when the client leaves."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openautoglm.core import log
from openautoglm.serve.faults import ClientGone, Fault, as_fault
from openautoglm.serve.guard.rights import NOBODY, Who
from openautoglm.serve.rest.events import DONE, ChatEvents, CompletionEvents, Events, error_event
from openautoglm.serve.rest.line import Line, connected
from openautoglm.serve.rest.whole import Gathered
from openautoglm.serve.service.answering import Answering
from openautoglm.serve.service.models import Models
from openautoglm.serve.service.service import Service
from openautoglm.serve.service.values import Caller, unbounded
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk

_log = log.get(__name__)
_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
_SHOWN = 4000


def caller_of(request: Request) -> Caller:
    """Who sent a request, as the outermost layer found out."""
    scope = request.scope
    who: Who = scope.get("who", NOBODY)
    return Caller(who.name, scope.get("request_id", ""), who.salt, request.headers.get("traceparent", "")[:128],
                  scope.get("admit", unbounded))


class GenerationReply(Response):
    """The reply to one ask.

    Args:
        show: write the prompt to the log.
    """

    def __init__(self, models: Models, ask: CompletionAsk | ChatAsk, caller: Caller, *, show: bool = False) -> None:
        self._models, self._ask, self._caller, self._show = models, ask, caller, show
        self._chat, self._begun = isinstance(ask, ChatAsk), False
        self.status_code, self.background, self.body = 200, None, b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate and send.

        Raises:
            Fault: before anything was sent.
        """
        if self._show:
            _log.info("asked: %s", self._ask.model_dump_json(exclude_none=True, warnings=False)[:_SHOWN],
                      extra={"request_id": self._caller.request_id})
        async with self._models.use(self._ask.model) as service:
            try:
                async with connected(receive, send, service.limits) as line:
                    answering = await service.open(self._ask, self._caller)
                    try:
                        last = await (self._stream if self._ask.stream else self._whole)(service, answering, line)
                    finally:
                        answering.cancel()
            except ClientGone:
                if not self._begun:
                    raise
                scope.get("abort", _nothing)()  # what is written already may never be read
                return
            await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _whole(self, service: Service, answering: Answering, line: Line) -> bytes:
        gathered = Gathered(answering.count)
        async with aclosing(answering.stream()) as deltas:
            async for delta in deltas:
                gathered.add(delta)
        head, logprobs = self._head(service, ""), self._logprobs
        reply = gathered.chat(head, answering.usage, logprobs=logprobs, call=_call(answering)) if self._chat else \
            gathered.completion(head, answering.usage, logprobs=logprobs)
        body = json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode()
        await self._begin(line, [(b"content-type", b"application/json"),
                                 (b"content-length", str(len(body)).encode())])
        return body

    async def _stream(self, service: Service, answering: Answering, line: Line) -> bytes:
        """Send all events but the last; the head goes out with the first of them, so that a fault has its status."""
        options = self._ask.stream_options
        counted = options is not None and bool(options.include_usage)
        events = self._events(service, answering, counted)
        try:
            async with aclosing(answering.stream()) as deltas:
                async for delta in deltas:
                    event = events.event(delta)
                    if not self._begun:
                        await self._begin(line, _STREAM)
                    if event:
                        await line.send({"type": "http.response.body", "body": event, "more_body": True})
        except Exception as error:
            if not self._begun:
                raise
            return self._broken(error)
        return (events.usage(answering.usage) if counted else b"") + DONE

    async def _begin(self, line: Line, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._begun = True
        await line.send({"type": "http.response.start", "status": 200, "headers": list(headers)})

    def _broken(self, error: Exception) -> bytes:
        """The end of a stream that went wrong under way."""
        fault: Fault = as_fault(error, self._caller.request_id)
        return error_event(fault) + DONE

    @property
    def _logprobs(self) -> bool:
        return self._ask.logprobs not in (None, False)

    def _events(self, service: Service, answering: Answering, counted: bool) -> Events:
        head = self._head(service, ".chunk" if self._chat else "")
        if self._chat:
            return ChatEvents(head, usage=counted, logprobs=self._logprobs, call=_call(answering))
        return CompletionEvents(head, usage=counted, logprobs=self._logprobs)

    def _head(self, service: Service, kind: str) -> dict[str, Any]:
        name = "chat.completion" if self._chat else "text_completion"
        return {"id": f"{'chatcmpl' if self._chat else 'cmpl'}-{uuid.uuid4().hex}", "object": name + kind,
                "created": int(time.time()), "model": self._ask.model, "system_fingerprint": service.fingerprint}


def _nothing() -> None:
    """Where a connection cannot be ended at once."""


def _call(answering: Answering) -> tuple[str, str] | None:
    """The id and the name of the function that is called."""
    return None if answering.tool is None else (f"call_{uuid.uuid4().hex[:24]}", answering.tool)
