"""The line to a client: one event for a piece, and the end of a request whose client has left or does not read."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from rest_tools import MODEL, Running, engine_backend

from openautoglm.serve.service.language import Language

LONG = {"model": MODEL, "prompt": "The Punter", "max_tokens": 400, "ignore_eos": True}


def wait_for(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.005)


@contextmanager
def stepping(language: Language, **options: Any) -> Iterator[tuple[Running, threading.Semaphore]]:
    """A server whose engine takes a step only when the semaphore lets it."""
    gate = threading.Semaphore(0)
    with Running(language, lambda: engine_backend(language, before=lambda step: gate.acquire() and None),
                 **options) as running:
        try:
            yield running, gate
        finally:
            gate.release(100_000)


def raw(server: Running, fields: dict[str, Any], path: str = "/v1/completions") -> socket.socket:
    """A connection on which a request was sent."""
    url = urlsplit(server.url)
    line = socket.create_connection((url.hostname, url.port), timeout=20)
    body = json.dumps(fields).encode()
    line.sendall(b"POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (
        path.encode(), url.netloc.encode(), len(body), body))
    return line


def test_events_are_one_a_piece_and_whole(server: Running) -> None:
    reply = httpx.post(f"{server.url}/v1/completions", json={**LONG, "max_tokens": 7, "stream": True})
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["x-request-id"]
    events = reply.text.split("\n\n")
    assert events[-2:] == ["data: [DONE]", ""]
    parsed = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    whole = httpx.post(f"{server.url}/v1/completions", json={**LONG, "max_tokens": 7}).json()
    assert "".join(event["choices"][0]["text"] for event in parsed) == whole["choices"][0]["text"]
    assert 3 <= len(parsed) <= 8
    assert [event["choices"][0]["finish_reason"] for event in parsed] == [None] * (len(parsed) - 1) + ["length"]


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_leaves_is_noticed_within_one_step(language: Language, stream: bool) -> None:
    with stepping(language) as (server, gate):
        line = raw(server, {**LONG, "stream": stream})
        gate.release(4)
        wait_for(lambda: server.backend.stats.steps == 4)
        assert server.backend.stats.pages_held > 0
        line.close()
        wait_for(lambda: server.call(lambda: server.service.queue.present) == 0)
        gate.release(1)  # the step that was under way
        wait_for(lambda: server.backend.stats.pages_held == 0)
        assert server.backend.stats.steps <= 5
        assert server.backend.stats.cancelled == 1


def test_a_client_that_leaves_the_queue_is_noticed(language: Language) -> None:
    with stepping(language) as (server, gate):
        lines = [raw(server, {**LONG, "stream": True, "prompt": f"{number}"}) for number in range(40)]
        wait_for(lambda: server.call(lambda: server.service.queue.present) == 40)
        for line in lines:
            line.close()
        wait_for(lambda: server.call(lambda: server.service.queue.present) == 0)
        gate.release(1)
        wait_for(lambda: server.backend.stats.waiting == server.backend.stats.pages_held == 0)
        assert server.backend.stats.steps <= 1


def test_a_client_that_does_not_read_is_given_up(language: Language) -> None:
    def slow(step: int) -> None:
        time.sleep(0.0005)

    limits = {"limits": {"stall_s": 0.4}}
    with Running(language, lambda: engine_backend(language, before=slow), options=limits) as server:
        url = urlsplit(server.url)
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        line.connect((url.hostname, url.port))
        body = json.dumps({**LONG, "stream": True, "n": 16, "temperature": 1.0, "logprobs": 20}).encode()
        line.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n%s" % (url.netloc.encode(), len(body), body))
        wait_for(lambda: server.call(lambda: server.service.queue.present) == 1)
        wait_for(lambda: server.call(lambda: server.service.queue.present) == 0)
        wait_for(lambda: server.backend.stats.pages_held == 0)
        assert server.backend.stats.cancelled == 1
        line.close()


def test_a_connection_serves_one_request_after_the_other(server: Running) -> None:
    url = urlsplit(server.url)
    line = http.client.HTTPConnection(url.hostname or "", url.port, timeout=20)
    for stream in (True, False, True):
        line.request("POST", "/v1/completions", json.dumps({**LONG, "max_tokens": 5, "stream": stream}),
                     {"Content-Type": "application/json"})
        body = line.getresponse().read()
        assert body.endswith(b"data: [DONE]\n\n") if stream else json.loads(body)["choices"]
    line.close()


def test_the_deadline_ends_a_request(language: Language) -> None:
    with stepping(language) as (server, gate):
        gate.release(3)
        with httpx.stream("POST", f"{server.url}/v1/completions", json={**LONG, "stream": True, "timeout_s": 0.3},
                          timeout=20) as reply:
            lines = reply.iter_lines()
            assert "choices" in next(lines)
            threading.Timer(0.4, gate.release, (100,)).start()
            rest = [line for line in lines if line]
        error = json.loads(rest[-2].removeprefix("data: "))["error"]
        assert (error["code"], error["param"]) == ("timed_out", "timeout_s")
        assert rest[-1] == "data: [DONE]"
        gate.release(100_000)  # an engine that waits inside a step would never hear of the deadline
        reply = httpx.post(f"{server.url}/v1/completions", json={**LONG, "timeout_s": 0.05}, timeout=20)
        assert reply.status_code in (200, 408)


def test_a_full_queue_says_when_to_come_again(language: Language) -> None:
    options = {"queue": {"requests": 1}}
    with stepping(language, options=options) as (server, gate):
        most = server.backend.facts.max_batch + 1
        lines = [raw(server, {**LONG, "stream": True, "prompt": f"{number}"}) for number in range(most)]
        wait_for(lambda: server.call(lambda: server.service.queue.present) == most)
        reply = httpx.post(f"{server.url}/v1/completions", json=LONG, timeout=20)
        assert reply.status_code == 429
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.headers["x-should-retry"] == "true"
        assert reply.json()["error"]["code"] == "overloaded"
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        for line in lines:
            line.close()
        gate.release(100_000)
        wait_for(lambda: server.call(lambda: server.service.queue.present) == 0)
        assert httpx.post(f"{server.url}/v1/completions", json=LONG, timeout=20).status_code == 200
