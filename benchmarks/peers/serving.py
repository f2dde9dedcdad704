"""What our engine alone is measured by: reuse of the cache, shared prefixes, and how requests are batched."""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from openautoglm.engine.engine import Engine
from openautoglm.engine.request import Decoding, Request
from openautoglm.engine.sequence import Ticket
from openautoglm.engine.settings import EngineSettings
from peers.runner import Session, step_seconds

SYSTEM_TOKENS, TURN_TOKENS, TURNS, SLOTS = 128, 32, 4, 32


@dataclass(frozen=True)
class Size:
    """How much of each: a few minutes' work on S and E alike."""

    chats: int
    arrivals: int
    most_tokens: int


SIZES = {"S": Size(chats=8, arrivals=96, most_tokens=128), "E": Size(chats=2, arrivals=16, most_tokens=48)}


def reuse(session: Session) -> dict[str, float]:
    """Milliseconds of a token at 512 tokens of context: with the cache, and with the context computed again."""
    step = step_seconds(session, 1, 512, session.shape.decode_tokens // 2)
    return {"reuse-step-ms": 1e3 * step, "recompute-ms": 1e3 * session.seconds(1, 513, 1)}


def chats(session: Session) -> dict[str, float]:
    """Seconds of conversations that share a system prompt, turn by turn, with and without shared prefixes."""
    found: dict[str, float] = {}
    number = SIZES[session.shape.name].chats
    for name, shared in (("shared", True), ("alone", False)):
        engine = Engine(_program(session), EngineSettings(prefix_cache=shared, max_batch=SLOTS), stop_ids=())
        system = session.prompts(1, SYSTEM_TOKENS)[0]
        histories = [list(system) for _ in range(number)]
        begin = time.perf_counter()
        for _ in range(TURNS):
            for history, question in zip(histories, session.prompts(number, TURN_TOKENS), strict=True):
                history += question
                answer = engine.generate([history], Decoding(max_new_tokens=TURN_TOKENS))[0][0]
                history += answer.ids
        found[f"chats-{name}-s"] = time.perf_counter() - begin
        if shared:
            found["chats-hit-rate"] = engine.stats.prefix_hit_rate
    return found


@dataclass(frozen=True)
class Arrival:
    """A request that comes at a time, in seconds from the start."""

    at: float
    request: Request


def arrivals(session: Session, number: int, rate: float) -> list[Arrival]:
    """Poisson arrivals of so many requests a second: 32 to 96 tokens in, 16 to 128 out (on E 48)."""
    chance, shape, most = random.Random(7), session.shape, SIZES[session.shape.name].most_tokens
    at, found = 0.0, []
    for _ in range(number):
        at += chance.expovariate(rate)
        prompt = [chance.randrange(2, shape.vocab) for _ in range(chance.randint(32, 96))]
        found.append(Arrival(at, Request(prompt, Decoding(max_new_tokens=chance.randint(16, most)))))
    return found


Admit = Callable[[int], int]
"""How many waiting requests may start, given how many run."""
POLICIES: dict[str, Admit] = {
    "continuous": lambda running: SLOTS - running,
    "static": lambda running: 0 if running else SLOTS,
    "none": lambda running: 0 if running else 1,
}


def serve(engine: Engine, coming: Sequence[Arrival], admit: Admit) -> tuple[float, list[float]]:
    """Serve the requests as they come; output tokens per second, and each one's seconds from arrival to its end."""
    waiting, latencies = deque(coming), []
    running: list[tuple[Arrival, Ticket]] = []
    begin = time.perf_counter()
    while waiting or running:
        now = time.perf_counter() - begin
        due = sum(arrival.at <= now for arrival in waiting)
        starting = [waiting.popleft() for _ in range(min(due, admit(len(running))))]
        running += [(arrival, engine.submit(arrival.request)) for arrival in starting]
        if not running:
            time.sleep(max(0.0, waiting[0].at - now))
            continue
        engine.turn()
        now = time.perf_counter() - begin
        latencies += [now - arrival.at for arrival, ticket in running if ticket.done]
        running = [(arrival, ticket) for arrival, ticket in running if not ticket.done]
    tokens = sum(arrival.request.decoding.max_new_tokens for arrival in coming)
    return tokens / (time.perf_counter() - begin), latencies


def policies(session: Session) -> dict[str, float]:
    """Throughput and p99 latency of the same arrivals: continuous batching, static batches, one after the other.

    Requests come at 0.8 of what continuous batching served when all of them were there from the start.
    """
    number = SIZES[session.shape.name].arrivals
    engine = Engine(_program(session), EngineSettings(prefix_cache=False, max_batch=SLOTS), stop_ids=())
    at_once = arrivals(session, number, 1e9)
    rate, _ = serve(engine, at_once, POLICIES["continuous"])
    mean = sum(arrival.request.decoding.max_new_tokens for arrival in at_once) / number
    coming = arrivals(session, number, 0.8 * rate / mean)
    found = {}
    for name, admit in POLICIES.items():
        served, latencies = serve(engine, coming, admit)
        found[f"{name}-rate"], found[f"{name}-p99-s"] = served, float(np.percentile(latencies, 99))
    return found


def _program(session: Session) -> Any:
    """The program under the session's engine; that one is idle meanwhile and shares no prefixes."""
    return session.engine.program  # type: ignore[attr-defined]


MEASURES: dict[str, Callable[[Session], dict[str, float]]] = {"reuse": reuse, "chats": chats, "policies": policies}
