"""How truly a load client measures: its own client and httpx against a server that tells when it wrote each event.

    python benchmarks/load_client.py --streams 1 8 32 --seconds 10

A server in a process of its own streams events at set times and writes into each event when it was written; both share
one clock. Printed for each client and number of streams: by how much later than the server wrote it the client says an
event came (median, p99), the error of the mean time between events, and the client's processor time an event.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection
from typing import Any

import httpx
import numpy as np

from openautoglm.bench.client import Mark, Pulse
from openautoglm.bench.plan import Ask
from openautoglm.bench.prompts import Prompt
from openautoglm.bench.rest import RestClient, Server
from openautoglm.bench.settings import Prompts

Times = list[tuple[float, float]]  # written, received
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Streamer(asyncio.Protocol):
    """Streams as many events as ``max_tokens`` asks for, one every `gap_s`."""

    def __init__(self, gap_s: float) -> None:
        self._gap_s = gap_s
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        self._got += data
        head, found, body = self._got.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        if found and len(body) >= length:
            self._got = b""
            self._transport.write(HEAD)
            loop = asyncio.get_running_loop()
            loop.call_later(self._gap_s, self._next, json.loads(body)["max_tokens"], loop.time() + self._gap_s)

    def _next(self, left: int, due: float) -> None:
        if self._transport.is_closing():
            return
        event = {"id": "cmpl-0123456789abcdef", "object": "text_completion", "created": 1700000000, "model": "scripted",
                 "choices": [{"index": 0, "text": " word", "logprobs": None, "finish_reason": None if left > 1 else
                              "length", "written": time.monotonic()}]}
        self._write(b"data: " + json.dumps(event).encode() + b"\n\n")
        if left > 1:
            asyncio.get_running_loop().call_at(due + self._gap_s, self._next, left - 1, due + self._gap_s)
        else:
            self._write(b"data: [DONE]\n\n")
            self._transport.write(b"0\r\n\r\n")

    def _write(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


def serve(pipe: Connection, gap_s: float) -> None:
    """Serve until killed; the port goes through the pipe."""
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Streamer(gap_s), "127.0.0.1", 0, backlog=1024)
        pipe.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(run())


async def ours(url: str, streams: int, events: int) -> Times:
    """By the client of `autoglm bench`."""
    client = RestClient(Server(base_url=url, model="scripted"), Prompts(), Pulse())
    marks = [Mark(Ask(number, 0.0, Prompt("word"), events, 0)) for number in range(streams)]
    for mark in marks:
        mark.payload = client.prepare(mark.ask)
    await asyncio.gather(*(client.send(mark) for mark in marks))
    times: Times = []
    for mark in marks:
        raw = b"".join(piece for _, piece in mark.raw)
        for _ in client.digest(mark):
            pass
        written = [json.loads(line[6:])["choices"][0]["written"] for line in raw.split(b"\n")
                   if line.startswith(b"data: {")]
        times += zip(written, mark.token_s, strict=True)
    await client.close()
    return times


async def by_httpx(url: str, streams: int, events: int) -> Times:
    """By httpx, each event read as it comes."""
    times: Times = []
    body = {"model": "scripted", "prompt": "word", "max_tokens": events, "stream": True}

    async def one(client: httpx.AsyncClient) -> None:
        async with client.stream("POST", "/v1/completions", json=body) as answer:
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    at_s = time.monotonic()
                    times.append((json.loads(line[6:])["choices"][0]["written"], at_s))

    async with httpx.AsyncClient(base_url=url, timeout=None, limits=httpx.Limits(max_connections=None)) as client:
        await asyncio.gather(*(one(client) for _ in range(streams)))
    return times


CLIENTS: dict[str, Callable[[str, int, int], Coroutine[Any, Any, Times]]] = {"ours": ours, "httpx": by_httpx}


def measure(name: str, streams: int, seconds: float, gap_s: float) -> str:
    """One row of the table."""
    here, there = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(there, gap_s), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}"
    events = int(seconds / gap_s)
    try:
        asyncio.run(CLIENTS[name](url, 1, 20))
        before = time.process_time()
        times = np.array(asyncio.run(CLIENTS[name](url, streams, events)))
        spent = time.process_time() - before
    finally:
        server.kill()
        server.join()
    late = (times[:, 1] - times[:, 0]) * 1e3
    spans = times[:, 1].max() - times[:, 1].min(), times[:, 0].max() - times[:, 0].min()
    return (f"| {name} | {streams} | {streams / gap_s:,.0f} | {np.median(late):.3f} | {np.percentile(late, 99):.3f} | "
            f"{abs(spans[0] / spans[1] - 1):.3%} | {spent / len(times) * 1e6:.0f} |")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--gap-ms", type=float, default=20)
    options = parser.parse_args()
    print("| client | streams | events/s | median ms late | p99 ms late | error of the mean gap | CPU us an event |")
    print("|---|---|---|---|---|---|---|")
    for streams in options.streams:
        for name in CLIENTS:
            print(measure(name, streams, options.seconds, options.gap_ms / 1e3), flush=True)


if __name__ == "__main__":
    main()
