"""The replies to completions and chats: streamed or whole, ended at once when the client leaves."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from openautoglm.core import log
from openautoglm.serve.faults import ClientGone, Fault, as_fault
from openautoglm.serve.guard.rights import NOBODY, Who
from openautoglm.serve.hosting.responses import Place
from openautoglm.serve.rest.cached import Answers, Replayed, packed
from openautoglm.serve.rest.errors import error_object
from openautoglm.serve.rest.events import DONE, ChatEvents, CompletionEvents, Events, chunk, error_event
from openautoglm.serve.rest.line import Line, connected
from openautoglm.serve.rest.serving import Serving
from openautoglm.serve.rest.whole import Gathered
from openautoglm.serve.service.models import sticky_key
from openautoglm.serve.service.values import Caller, Delta, unbounded
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
    """The reply to one ask."""

    def __init__(self, serving: Serving, ask: CompletionAsk | ChatAsk, caller: Caller) -> None:
        self._models, self._cache, self._limits = serving.models, serving.responses, serving.limits
        self._ask, self._caller, self._show = ask, caller, serving.settings.log_prompts
        self._chat, self._begun = isinstance(ask, ChatAsk), False
        self._place: Place | None = None
        self._broken_off = False
        self.status_code, self.background, self.body = 200, None, b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Generate and send.

        Raises:
            Fault: before anything was sent.
        """
        if self._show:
            _log.info("asked: %s", self._ask.model_dump_json(exclude_none=True, warnings=False)[:_SHOWN],
                      extra={"request_id": self._caller.request_id})
        try:
            async with connected(scope, receive, send, self._limits) as line:
                last = await self._answer(line)
        except ClientGone:
            if not self._begun:
                raise
            scope.get("abort", _nothing)()  # what is written already may never be read
            return
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _answer(self, line: Line) -> bytes:
        """Generate and send all but the end, which is returned; the time until the model is loaded counts."""
        began, ask, sticky = time.monotonic(), self._ask, sticky_key(self._ask, self._caller.name)
        if self._cache is not None:
            self._place = await self._cache.find(ask, self._caller.name, sticky)
        place = self._place
        if place is not None and place.body is not None:
            self._caller.admit(0)
            found = Replayed(place.body)
            return await self._told(found, found.fingerprint, line)
        name, timeout_s = ask.model if place is None else place.model, ask.timeout_s or self._limits.timeout_s
        async with self._models.use(name, key=sticky, timeout_s=timeout_s) as service:
            caller = replace(self._caller, waited_s=time.monotonic() - began)
            answering = await service.open(ask, caller)
            try:
                return await self._told(answering, service.fingerprint, line)
            finally:
                answering.cancel()

    async def _told(self, answering: Answers, fingerprint: str, line: Line) -> bytes:
        """Send the answers, and keep them where they are to be cached."""
        gathered = Gathered(answering.count)
        last = await (self._stream if self._ask.stream else self._whole)(answering, gathered, fingerprint, line)
        if self._cache is not None and self._place is not None and self._place.body is None and not self._broken_off:
            self._cache.keep(self._place, packed(gathered, answering, fingerprint))
        return last

    async def _whole(self, answering: Answers, gathered: Gathered, fingerprint: str, line: Line) -> bytes:
        async with aclosing(answering.stream()) as deltas:
            async for delta in deltas:
                gathered.add(delta)
        head, logprobs = self._head(fingerprint, ""), self._logprobs
        reply = gathered.chat(head, answering.usage, logprobs=logprobs, call=_call(answering)) if self._chat else \
            gathered.completion(head, answering.usage, logprobs=logprobs)
        reply |= self._unkept(answering)
        body = json.dumps(reply, ensure_ascii=False, separators=(",", ":")).encode()
        await self._begin(line, [(b"content-type", b"application/json"),
                                 (b"content-length", str(len(body)).encode())])
        return body

    async def _stream(self, answering: Answers, gathered: Gathered, fingerprint: str, line: Line) -> bytes:
        """Send all events but the last; the head goes out with the first of them, so that a fault has its status."""
        options = self._ask.stream_options
        counted = options is not None and bool(options.include_usage)
        events = self._events(answering, fingerprint, counted)
        cached = self._place is not None
        pen = line.pen
        if pen is not None:
            def take(delta: Delta) -> None:
                if event := events.event(delta):
                    pen.write(event)
                if cached:
                    gathered.add(delta)

            answering.tap(pen.ready, take)
        try:
            async with aclosing(answering.stream()) as deltas:
                async for delta in deltas:
                    event = events.event(delta)
                    if not self._begun:
                        await self._begin(line, _STREAM)
                    if event:
                        await line.send({"type": "http.response.body", "body": event, "more_body": True})
                    if cached:
                        gathered.add(delta)
        except Exception as error:
            if not self._begun:
                raise
            return self._broken(error)
        unkept = self._unkept(answering)
        told = chunk({**self._head(fingerprint, ".chunk"), "choices": [], **unkept}) if unkept else b""
        return told + (events.usage(answering.usage) if counted else b"") + DONE

    def _unkept(self, answering: Answers) -> dict[str, Any]:
        """What is told where an answer was given, but could not be kept in its conversation."""
        fault = answering.unkept
        if fault is None:
            return {}
        as_fault(fault, self._caller.request_id)
        name = self._ask.conversation if isinstance(self._ask, ChatAsk) else None
        return {"conversation": {"name": name, "kept": False, "error": error_object(fault)}}

    async def _begin(self, line: Line, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self._begun = True
        place = self._place
        cache = () if place is None else ((b"x-cache", b"miss" if place.body is None else b"hit"),)
        await line.send({"type": "http.response.start", "status": 200, "headers": [*headers, *cache]})

    def _broken(self, error: Exception) -> bytes:
        """The end of a stream that went wrong under way."""
        self._broken_off = True
        fault: Fault = as_fault(error, self._caller.request_id)
        return error_event(fault) + DONE

    @property
    def _logprobs(self) -> bool:
        return self._ask.logprobs not in (None, False)

    def _events(self, answering: Answers, fingerprint: str, counted: bool) -> Events:
        head = self._head(fingerprint, ".chunk" if self._chat else "")
        if self._chat:
            return ChatEvents(head, usage=counted, logprobs=self._logprobs, call=_call(answering))
        return CompletionEvents(head, usage=counted, logprobs=self._logprobs)

    def _head(self, fingerprint: str, kind: str) -> dict[str, Any]:
        name = "chat.completion" if self._chat else "text_completion"
        return {"id": f"{'chatcmpl' if self._chat else 'cmpl'}-{uuid.uuid4().hex}", "object": name + kind,
                "created": int(time.time()), "model": self._ask.model, "system_fingerprint": fingerprint}


def _nothing() -> None:
    """Where a connection cannot be ended at once."""


def _call(answering: Answers) -> tuple[str, str] | None:
    """The id and the name of the function that is called."""
    return None if answering.tool is None else (f"call_{uuid.uuid4().hex[:24]}", answering.tool)
