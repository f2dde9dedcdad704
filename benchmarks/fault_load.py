"""Load on a server that is about to fail, and what became of every request; `faults.py` and tests use it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import httpx

PATH = "/v1/completions"
TIMEOUT_S = 240.0
_NO_LINGER = struct.pack("ii", 1, 0)
LOST = ("lost", "silent")
"""What must never become of a request: its reply ends without an end or an error, or nothing comes."""


@dataclass
class Outcome:
    """What became of one request.

    Attributes:
        kind: ``finished``; ``error CODE``, told in a stream; ``STATUS CODE``; ``cut``, the connection ended, or was not
            taken, before anything was replied; ``lost``, it ended within the reply; ``silent``, nothing came in time.
        begun, first, ended: on the clock of `time.monotonic`; `first` is that of the first event.
    """

    kind: str
    begun: float
    ended: float = 0.0
    first: float | None = None


async def ask(client: httpx.AsyncClient, body: dict[str, Any]) -> Outcome:
    """Send a request and read its reply to the end, whatever that is."""
    outcome, begun = Outcome("cut", time.monotonic()), False
    try:
        async with asyncio.timeout(TIMEOUT_S), client.stream("POST", PATH, json=body) as reply:
            begun = True
            if body.get("stream") and reply.status_code == 200:
                outcome.kind = await _read_events(reply, outcome)
            else:
                told = json.loads(await reply.aread())
                whole = reply.status_code == 200
                outcome.kind = "finished" if whole else f"{reply.status_code} {told['error']['code']}"
    except TimeoutError:
        outcome.kind = "silent"
    except httpx.HTTPError:
        outcome.kind = "lost" if begun else "cut"
    outcome.ended = time.monotonic()
    return outcome


async def _read_events(reply: httpx.Response, outcome: Outcome) -> str:
    kind, done = "finished", False
    async for line in reply.aiter_lines():
        if not line:
            continue
        if outcome.first is None:
            outcome.first = time.monotonic()
        if line == "data: [DONE]":
            done = True
        elif '"error"' in line and (error := json.loads(line.removeprefix("data: ")).get("error")):
            kind = f"error {error['code']}"
    return kind if done else "lost"


def new_client(url: str) -> httpx.AsyncClient:
    """A client that takes a connection for every request."""
    return httpx.AsyncClient(base_url=url, timeout=None, limits=httpx.Limits(
        max_connections=None, max_keepalive_connections=0))


@dataclass
class Load:
    """Clients that ask again and again; use it with ``async with``, at whose end all replies have been read.

    Args:
        bodies: of the requests; each client takes them in turn.
        again: whether clients go on after their first request.

    Attributes:
        outcomes: of the requests that have ended.
        under_way: requests that have not.
    """

    url: str
    clients: int
    bodies: Sequence[dict[str, Any]]
    again: bool = True
    outcomes: list[Outcome] = field(default_factory=list)
    under_way: int = 0

    async def __aenter__(self) -> Load:
        self._stopping = False
        self._client = await new_client(self.url).__aenter__()
        self._tasks = [asyncio.create_task(self._go(number)) for number in range(self.clients)]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None,
                        trace: TracebackType | None) -> None:
        self._stopping = True
        if kind is not None:
            for task in self._tasks:
                task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=kind is not None)
        await self._client.__aexit__(kind, error, trace)

    async def _go(self, number: int) -> None:
        while True:
            self.under_way += 1
            try:
                outcome = await ask(self._client, self.bodies[number % len(self.bodies)])
            finally:
                self.under_way -= 1
            self.outcomes.append(outcome)
            number += self.clients
            if self._stopping or not self.again:
                return
            if outcome.kind != "finished":
                await asyncio.sleep(0.02)  # a server that is down is not asked without a pause

    def counts(self) -> Counter[str]:
        """Requests by what became of them."""
        return Counter(outcome.kind for outcome in self.outcomes)

    def lost(self, before: float = float("inf")) -> list[Outcome]:
        """Requests that were lost without an error; those that were cut too where they had begun before then."""
        return [outcome for outcome in self.outcomes
                if outcome.kind in LOST or (outcome.kind == "cut" and outcome.begun < before)]

    def recovered_s(self, since: float) -> float | None:
        """How long after a fault the first request finished that had begun after it."""
        ends = [outcome.first or outcome.ended for outcome in self.outcomes
                if outcome.kind == "finished" and outcome.begun > since]
        return min(ends) - since if ends else None


def raw(url: str, body: dict[str, Any], *, receive_bytes: int | None = None) -> socket.socket:
    """A connection on which a request was sent, with a buffer of so many bytes for what is received."""
    where, data = urlsplit(url), json.dumps(body).encode()
    line = socket.socket()
    if receive_bytes is not None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
    line.settimeout(TIMEOUT_S)
    line.connect((where.hostname, where.port))
    line.sendall(b"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        PATH.encode(), where.netloc.encode(), len(data), data))
    return line


def hang_up(line: socket.socket, *, rudely: bool) -> None:
    """Leave a connection; rudely: without a word."""
    if rudely:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    line.close()


def visit_and_leave(url: str, bodies: Iterable[dict[str, Any]]) -> Counter[str]:
    """Clients at once, each of which leaves as soon as the first piece of its answer has come."""
    lines = [raw(url, body) for body in bodies]
    found: Counter[str] = Counter()
    for number, line in enumerate(lines):
        with contextlib.closing(line):
            got = b""
            while b"data: " not in got and (some := line.recv(65536)):
                got += some
                if b" 200 " not in got.partition(b"\r\n")[0]:
                    break
            found["left mid-stream" if b"data: " in got else got.partition(b"\r\n")[0].decode()] += 1
            hang_up(line, rudely=number % 2 == 0)
    return found
