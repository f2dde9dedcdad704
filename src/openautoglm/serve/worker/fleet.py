"""Several backends as one: requests go where there is least to do, or where the beginning of their prompt is known.

Prompts that begin alike go to the same replica, so that its cache has their pages (rendezvous hashing: Thaler and
Ravishankar 1998; a replica that leaves moves its own prompts only), unless it has much more to do than another one.
"""

from __future__ import annotations

import asyncio
import os
import time
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import fields, replace
from hashlib import blake2b
from itertools import pairwise
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.core.errors import BundleError
from openautoglm.engine.request import Piece
from openautoglm.engine.stats import Stats
from openautoglm.serve.backend import Backend, Embeddings, late
from openautoglm.serve.faults import EngineLost, Fault, Overloaded, Unavailable
from openautoglm.serve.orders import Facts, Order
from openautoglm.serve.worker.settings import WorkerSettings
from openautoglm.serve.worker.worker import Worker

_log = log.get(__name__)
_ELSEWHERE = (EngineLost, Unavailable, Overloaded)
"""Faults of a replica after which a request that has shown nothing yet is tried on another one."""


class Fleet:
    """A `Backend` over replicas of one model.

    Args:
        prefix_tokens: the beginning of a prompt that decides where it goes, in whole pages; 0: none does.
        slack: requests that a replica may have more than the least loaded one and still get what begins alike; a
            quarter of its batch when None.

    Attributes:
        replicas: in order.
    """

    def __init__(self, replicas: Sequence[Backend], *, prefix_tokens: int = 64, slack: int | None = None) -> None:
        self.replicas = tuple(replicas)
        self._prefix_tokens, self._slack = prefix_tokens, slack
        self._load = [0] * len(self.replicas)
        self._used = [0] * len(self.replicas)
        self._turn = 0

    @classmethod
    def of(cls, bundle: str | Path, settings: WorkerSettings | None = None, replicas: int = 2) -> Fleet:
        """Replicas in processes of their own, which share the processors and the memory for the cache evenly."""
        settings = settings or WorkerSettings()
        program = settings.program
        parts = split(sorted(os.sched_getaffinity(0)), replicas)
        threads = program.threads or (None if parts[0] else 1)
        program = program.model_copy(update={"threads": threads, "cache_share": program.cache_share / replicas})
        settings = settings.model_copy(update={"program": program})
        return cls([Worker(bundle, settings, cpus=cpus, name=f"engine {number}")
                    for number, cpus in enumerate(parts)])

    @property
    def facts(self) -> Facts:
        """See `Backend`; what replicas have is added up."""
        return combined([replica.facts for replica in self.replicas])

    @property
    def stats(self) -> Stats:
        """See `Backend`; counts are added up."""
        return total([replica.stats for replica in self.replicas])

    @property
    def ready(self) -> bool:
        """Whether a replica is."""
        return any(replica.ready for replica in self.replicas)

    @property
    def load(self) -> tuple[int, ...]:
        """Requests under way on each replica."""
        return tuple(self._load)

    async def start(self) -> None:
        """See `Backend`. All replicas start, or none."""
        try:
            await asyncio.gather(*(replica.start() for replica in self.replicas))
            if len({replica.facts.fingerprint for replica in self.replicas}) > 1:
                raise BundleError("the replicas serve different models", remedy="let nobody write to the bundle")
        except BaseException:
            await self.close()
            raise

    async def close(self, grace_s: float = 0) -> None:
        """See `Backend`."""
        await asyncio.gather(*(replica.close(grace_s) for replica in self.replicas))

    async def stream(self, order: Order) -> AsyncGenerator[Piece, None]:
        """See `Backend`. A request whose replica is lost before its first piece goes to another one.

        Once only, as it may be what kills them.
        """
        over = None if order.timeout_s is None else time.monotonic() + order.timeout_s
        tried: list[int] = []
        faults: list[Fault] = []
        begun = False
        while len(tried) < len(self.replicas):
            number = self._choose(order, tried)
            tried.append(number)
            if over is not None and faults:
                order = replace(order, timeout_s=over - time.monotonic())
                if over <= time.monotonic():
                    raise late()
            self._load[number] += 1
            try:
                async with aclosing(self.replicas[number].stream(order)) as pieces:
                    async for piece in pieces:
                        begun = True
                        yield piece
                return
            except _ELSEWHERE as fault:
                if begun or (isinstance(fault, EngineLost) and any(isinstance(one, EngineLost) for one in faults)):
                    raise
                faults.append(fault)
            finally:
                self._load[number] -= 1
        raise worst(faults)

    async def embed(self, prompts: Sequence[Sequence[int]]) -> Embeddings:
        """See `Backend`."""
        return await self._anywhere(lambda replica: replica.embed(prompts))

    async def probe(self, timeout_s: float) -> None:
        """See `Backend`; one replica that generates is enough."""
        found = await asyncio.gather(*(replica.probe(timeout_s) for replica in self.replicas), return_exceptions=True)
        if all(found):
            raise next(error for error in found if error is not None)

    async def _anywhere(self, work: Callable[[Backend], Awaitable[Embeddings]]) -> Embeddings:
        tried: list[int] = []
        faults: list[Fault] = []
        while len(tried) < len(self.replicas):
            number = self._choose(None, tried)
            tried.append(number)
            self._load[number] += 1
            try:
                return await work(self.replicas[number])
            except _ELSEWHERE as fault:
                faults.append(fault)
            finally:
                self._load[number] -= 1
        raise worst(faults)

    def _choose(self, order: Order | None, tried: Sequence[int]) -> int:
        """The replica that a request goes to, of those that were not tried; ready ones first."""
        left = [number for number in range(len(self.replicas)) if number not in tried]
        left = [number for number in left if self.replicas[number].ready] or left
        chosen = min(left, key=lambda number: (self._load[number], self._used[number]))
        key = self._key(order) if order is not None else None
        if key is not None:
            known = max(left, key=lambda number: blake2b(key + number.to_bytes(4, "little"), digest_size=8).digest())
            slack = self._slack if self._slack is not None else max(1, self.replicas[known].facts.max_batch // 4)
            if self._load[known] - self._load[chosen] <= slack:
                chosen = known
        self._turn += 1
        self._used[chosen] = self._turn
        return chosen

    def _key(self, order: Order) -> bytes | None:
        """A digest of the first pages of a prompt; None where it does not fill one, or no replica has started."""
        sizes = [replica.facts.page_size for replica in self.replicas if replica.ready]
        most = min(self._prefix_tokens, len(order.prompt) - 1)
        whole = most - most % sizes[0] if sizes else 0
        if whole <= 0:
            return None
        try:
            first = array("q", order.prompt[:whole]).tobytes()
        except (TypeError, OverflowError):  # no ids: the replica says so
            return None
        return blake2b(first, key=blake2b(order.salt, digest_size=16).digest(), digest_size=16).digest()


def worst(faults: Sequence[Fault]) -> Fault:
    """What a client is told when no replica took its request: a full queue, when one was; else the first fault."""
    full = [fault for fault in faults if isinstance(fault, Overloaded)]
    return min(full, key=lambda fault: fault.retry_after_s or 0) if full else faults[0]


def split(cpus: Sequence[int], parts: int) -> list[tuple[int, ...]]:
    """Share processors among replicas, neighbours together; empty parts where there are more replicas."""
    if parts > len(cpus):
        return [()] * parts
    bounds = [len(cpus) * number // parts for number in range(parts + 1)]
    return [tuple(cpus[begin:end]) for begin, end in pairwise(bounds)]


def combined(facts: Sequence[Facts]) -> Facts:
    """The facts of all replicas together."""
    return replace(facts[0], vocab_size=min(one.vocab_size for one in facts),
                   max_tokens=min(one.max_tokens for one in facts),
                   **{name: sum(getattr(one, name) for one in facts)
                      for name in ("pages", "max_batch", "max_waiting", "weight_bytes", "cache_bytes")})


def total(stats: Sequence[Stats]) -> Stats:
    """The stats of all replicas together: counts and speeds added up; shares and medians weighed by requests."""
    names = [field.name for field in fields(Stats)]
    values: dict[str, Any] = {name: sum(getattr(one, name) or 0 for one in stats) for name in names}
    timed = [one for one in stats if one.ttft_s is not None]
    values["prefix_hit_rate"] = _mean([(one.prefix_hit_rate, one.requests) for one in stats])
    values["ttft_s"] = _mean([(one.ttft_s or 0, one.requests) for one in timed]) if timed else None
    return Stats(**values)


def _mean(weighed: Sequence[tuple[float, int]]) -> float:
    weight = sum(count for _, count in weighed)
    return sum(value * count for value, count in weighed) / weight if weight else 0.0
