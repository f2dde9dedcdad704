"""OpenAI's REST interface as a client: completions and chat completions, streamed by server-sent events."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import Field

from openautoglm.bench.client import FailedError, Mark, Pulse
from openautoglm.bench.http import Http
from openautoglm.bench.plan import Ask
from openautoglm.bench.settings import Prompts
from openautoglm.core.errors import LoadError
from openautoglm.core.settings import Settings

ENDPOINTS = {"openai": "/v1/completions", "openai-chat": "/v1/chat/completions"}
_SLICE = 16
_DETAIL = 300
ROLES = {"observation": "tool"}


class Server(Settings):
    """Where a server is, and how it is asked.

    Attributes:
        base_url: ``http://host:port``.
        backend: which of its interfaces.
        endpoint: its path; the usual one when None.
        model: name of the model; the first of ``/v1/models`` when None.
        headers: of every request; they are not written into results.
        extra_body: added to every request.
    """

    base_url: str = "http://127.0.0.1:8080"
    backend: str = "openai"
    endpoint: str | None = None
    model: str | None = None
    headers: dict[str, str] = Field(default_factory=dict, repr=False)
    extra_body: dict[str, Any] = Field(default_factory=dict)


class RestClient:
    """See `openautoglm.bench.client.Client`."""

    def __init__(self, server: Server, prompts: Prompts, pulse: Pulse, now: Callable[[], float] = time.monotonic
                 ) -> None:
        self._server, self._prompts, self._now = server, prompts, now
        self.http = Http(server.base_url, server.headers, now, pulse)
        self._path = server.endpoint or ENDPOINTS[server.backend]
        self._model = server.model or ""

    @property
    def model(self) -> str:
        """The name of the model that is asked for."""
        return self._model

    async def open(self) -> None:
        """Ask for the model's name where it was not given.

        Raises:
            LoadError: nobody answers, or there is no model.
        """
        if self._model:
            return
        where = self._server.base_url
        try:
            status, found = await self.http.json("GET", "/v1/models")
        except FailedError as error:
            raise LoadError(f"does not answer: {error.detail}", where=where,
                            remedy="start the server, or give its address with --base-url") from error
        names = [item.get("id") for item in found.get("data", [])] if isinstance(found, Mapping) else []
        if status != 200 or not names or not isinstance(names[0], str):
            key = " (a key is missing or wrong)" if status in (401, 403) else ""
            raise LoadError(f"/v1/models names no model: status {status}{key}", where=where,
                            remedy="give --model, and --api-key where the server asks for one")
        self._model = names[0]

    async def close(self) -> None:
        """Cut the connections."""
        self.http.close()

    def prepare(self, ask: Ask) -> bytes:
        """The bytes of the request."""
        prompts, prompt = self._prompts, ask.prompt
        body: dict[str, Any] = {"model": self._model, "max_tokens": ask.max_tokens, "stream": True,
                                "stream_options": {"include_usage": True}, "temperature": prompts.temperature}
        if prompts.temperature > 0:
            body |= {"top_p": prompts.top_p, "seed": ask.seed}
        if prompts.ignores_eos:
            body["ignore_eos"] = True
        if self._server.backend == "openai-chat":
            turns = [(turn.role, turn.text) for turn in prompt.turns] or [("user", prompt.text)]
            body["messages"] = [{"role": ROLES.get(role, role), "content": text} for role, text in turns]
        else:
            body["prompt"] = prompt.text
        return self.http.request("POST", self._path, json.dumps({**body, **self._server.extra_body}).encode())

    async def send(self, mark: Mark) -> None:
        """Send it; pieces of the answer are kept with their times.

        Raises:
            FailedError: as `Http.exchange`, and ``http_NNN`` for a status other than 200.
        """
        def sent() -> None:
            mark.sent_s = self._now()
            mark.raw.clear()

        answer = await self.http.exchange(mark.payload, mark.raw, sent)
        mark.status = answer.status
        if answer.status != 200:
            text = b"".join(piece for _, piece in mark.raw).decode("utf-8", "replace")
            raise FailedError(f"http_{answer.status}", text[:_DETAIL])
        mark.streamed = "text/event-stream" in answer.content_type

    def digest(self, mark: Mark) -> Iterator[None]:
        """Read the events.

        Raises:
            FailedError: ``answer`` for one that is no JSON, ``error`` for one that tells of an error, ``cut`` where the
                end is missing.
        """
        raw, mark.raw = mark.raw, []
        if not mark.streamed:
            whole = b"".join(piece for _, piece in raw)
            self._event(mark, raw[-1][0] if raw else mark.end_s, whole)
            return
        ended, rest = False, b""
        for count, (at_s, piece) in enumerate(raw):
            lines = (rest + piece).split(b"\n")
            rest = lines.pop()
            for line in lines:
                if line.startswith(b"data:"):
                    ended = self._event(mark, at_s, line[5:].strip()) or ended
            if count % _SLICE == _SLICE - 1:
                yield
        if rest.startswith(b"data:"):
            ended = self._event(mark, raw[-1][0], rest[5:].strip()) or ended
        if not ended:
            raise FailedError("cut", "the stream ended without a finish reason")
        mark.output_tokens = mark.output_tokens or len(mark.token_s)

    def _event(self, mark: Mark, at_s: float, data: bytes) -> bool:
        """Note what an event brings; True for one that ends the answer."""
        if data == b"[DONE]":
            return True
        try:
            event = json.loads(data)
        except ValueError as error:
            raise FailedError("answer", f"an event is no JSON: {data[:_DETAIL]!r}") from error
        if not isinstance(event, dict) or event.get("error"):
            raise FailedError("error", data[:_DETAIL].decode("utf-8", "replace"))
        usage = event.get("usage")
        if isinstance(usage, dict):
            mark.prompt_tokens = int(usage.get("prompt_tokens") or 0)
            mark.output_tokens = int(usage.get("completion_tokens") or 0)
            mark.cached_tokens = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
        ended = False
        for choice in event.get("choices") or ():
            if _brings_text(choice):
                mark.token_s.append(at_s)
            ended = ended or choice.get("finish_reason") is not None
        return ended


def _brings_text(choice: Mapping[str, Any]) -> bool:
    if choice.get("text"):
        return True
    said = choice.get("delta") or choice.get("message") or {}
    return bool(said.get("content") or said.get("reasoning_content") or said.get("tool_calls"))
