"""What a load asks of a client: one file a transport implements it, `BACKENDS` names them.

A client notes when things happen and nothing else while answers come; what was received is read in `Client.digest`,
piece by piece, when nothing is to be sent. So the cost of reading answers does not show up in their times.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from openautoglm.bench.plan import Ask

BACKENDS = {"openai": "REST, /v1/completions", "openai-chat": "REST, /v1/chat/completions",
            "grpc": "gRPC, TextService/Generate", "grpc-chat": "gRPC, TextService/Chat",
            "engine": "a bundle, straight on the engine"}


class FailedError(Exception):
    """A request that got no whole answer: a kind to count by (``http_429``, ``timeout``, ...), and a detail."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind, self.detail = kind, detail


@dataclass(slots=True)
class Pulse:
    """When the server last gave anything to anyone, and how many requests are under way."""

    at_s: float = -math.inf
    under_way: int = 0
    most_under_way: int = 0

    def begin(self) -> None:
        """Count a request in."""
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)

    def end(self) -> None:
        """Count a request out."""
        self.under_way -= 1


@dataclass(slots=True, eq=False)
class Mark:
    """The times of one request, in seconds of one growing clock, and what came back.

    Attributes:
        ask: the request.
        payload: what `Client.prepare` made of it.
        intended_s: when it was to be sent; latencies count from here, whatever the generator was doing.
        begun_s: when the generator turned to it.
        sent_s: when it was handed to the transport.
        end_s: when its answer was whole, or had failed.
        token_s: when new text came, one entry for each event that brought some.
        raw: what came, with its time, until it is read.
        prompt_tokens, cached_tokens, output_tokens: as the server counts them.
        queue_s: what it waited in the server before it was begun; NaN where that is not known.
        error, detail: kind and text of its failure; empty for a whole answer.
        status: of an answer over HTTP; streamed: whether it came in events.
    """

    ask: Ask
    payload: Any = None
    intended_s: float = math.nan
    begun_s: float = math.nan
    sent_s: float = math.nan
    end_s: float = math.nan
    token_s: list[float] = field(default_factory=list)
    raw: list[tuple[float, bytes]] = field(default_factory=list)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    queue_s: float = math.nan
    error: str = ""
    detail: str = ""
    status: int = 0
    streamed: bool = True

    @property
    def ok(self) -> bool:
        """Whether its answer is whole."""
        return not self.error


class Client(Protocol):
    """A transport. It is used from one event loop."""

    @property
    def model(self) -> str:
        """What is measured, for people."""

    async def open(self) -> None:
        """Get ready.

        Raises:
            LoadError: nobody answers there, or not as expected.
        """

    async def close(self) -> None:
        """Let everything go."""

    def prepare(self, ask: Ask) -> Any:
        """Make of a request what is sent, ahead of time."""

    async def send(self, mark: Mark) -> None:
        """Send ``mark.payload`` and wait for the whole answer; note times as they come. Cancelling it cancels that.

        Raises:
            FailedError: there is no whole answer.
        """

    def digest(self, mark: Mark) -> Iterator[None]:
        """Read what came into the mark; yields now and then, so that sending is not held up.

        Raises:
            FailedError: what came is no whole answer after all.
        """
