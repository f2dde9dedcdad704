"""Puts a planned load on a client: an open loop sends on time whatever comes back, a closed loop asks after an answer.

In an open loop a latency counts from the time at which the request was to be sent, so that a server that makes the
generator wait does not hide it (coordinated omission; Tene 2013).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from openautoglm.bench.client import Client, FailedError, Mark, Pulse
from openautoglm.bench.pace import Pacer
from openautoglm.bench.plan import Plan
from openautoglm.bench.settings import Arrivals, Judgement
from openautoglm.bench.watch import Watch, Watched

_LEAD_S = 0.05


@dataclass(frozen=True)
class Drive:
    """A load that has run.

    Attributes:
        marks: requests that were sent, in the order of the plan.
        start_s: its start on the pacer's clock; end_s: when the last answer was over.
        most_under_way: requests at once.
        seen: stalls, lags and the generator's own work.
        unsent: requests of the plan that the time did not suffice for (closed loops).
    """

    marks: list[Mark]
    start_s: float
    end_s: float
    most_under_way: int
    seen: Watched
    unsent: int


class Driver:
    """Puts one load on a client.

    Args:
        pulse: the one that the client was given.
        on_end: is told of each request that is over.
    """

    def __init__(self, client: Client, pulse: Pulse, pacer: Pacer, arrivals: Arrivals, judge: Judgement,
                 on_end: Callable[[Mark], None] | None = None) -> None:
        self._client, self._pulse, self._pacer = client, pulse, pacer
        self._arrivals, self._judge = arrivals, judge
        self._on_end = on_end
        self._unread: asyncio.Queue[Mark] = asyncio.Queue()

    async def warm_up(self, plan: Plan) -> Mark | None:
        """Send the first requests of a plan one after the other; return the first that failed."""
        for ask in plan.asks[:self._judge.num_warmups]:
            mark = Mark(ask, self._client.prepare(ask), self._pacer.now())
            await self._fire(mark)
            self._unread.get_nowait()
            self._unread.task_done()
            await self._read(mark)
            if not mark.ok:
                return mark
        return None

    async def run(self, plan: Plan) -> Drive:
        """Send everything, wait for every answer or its failure."""
        marks = [Mark(ask, self._client.prepare(ask)) for ask in plan.asks]
        self._pulse.most_under_way = 0
        start_s = self._pacer.now() + _LEAD_S
        watch = Watch(self._pulse, self._pacer, stall_s=self._judge.stall_s, start_s=start_s)
        with _no_pauses():
            helpers = [asyncio.create_task(watch.run()), asyncio.create_task(self._read_all())]
            try:
                if self._arrivals.order == "closed":
                    sent = await self._closed(marks, start_s)
                else:
                    sent = await self._open(marks, start_s)
                end_s = self._pacer.now()
                await self._unread.join()
            finally:
                watch.close()
                for helper in helpers:
                    helper.cancel()
                await asyncio.gather(*helpers, return_exceptions=True)
        return Drive(sent, start_s, end_s, self._pulse.most_under_way, watch.seen, len(marks) - len(sent))

    async def _open(self, marks: list[Mark], start_s: float) -> list[Mark]:
        limit = self._arrivals.max_concurrency
        gate = asyncio.Semaphore(limit) if limit is not None else None
        tasks = set()
        try:
            for mark in marks:
                mark.intended_s = start_s + mark.ask.at_s
                await self._pacer.until(mark.intended_s)
                task = asyncio.create_task(self._fire(mark, gate))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
            while tasks:
                await asyncio.wait(tasks)
        finally:
            await _give_up(tasks)
        return marks

    async def _closed(self, marks: list[Mark], start_s: float) -> list[Mark]:
        """Each client takes the next request when its last one is over, until none or no time is left."""
        left = iter(marks)
        end_s = start_s + (self._arrivals.duration_s or float("inf"))
        sent: list[Mark] = []

        async def client() -> None:
            await self._pacer_of_client(start_s)
            while self._pacer.now() < end_s and (mark := next(left, None)) is not None:
                sent.append(mark)
                mark.intended_s = self._pacer.now()
                await self._fire(mark)
                if self._arrivals.think_time_s:
                    await asyncio.sleep(self._arrivals.think_time_s)

        tasks = {asyncio.create_task(client()) for _ in range(self._arrivals.max_concurrency or 1)}
        try:
            await asyncio.gather(*tasks)
        finally:
            await _give_up(tasks)
        return sorted(sent, key=lambda mark: mark.ask.number)

    async def _pacer_of_client(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, at_s - self._pacer.now()))

    async def _fire(self, mark: Mark, gate: asyncio.Semaphore | None = None) -> None:
        """Send one request and wait for the end of its answer; what came is read later."""
        mark.begun_s = self._pacer.now()
        if gate is not None:
            await gate.acquire()
        self._pulse.begin()
        try:
            async with asyncio.timeout(self._judge.timeout_s):
                await self._client.send(mark)
        except TimeoutError:
            mark.error, mark.detail = "timeout", f"no whole answer within {self._judge.timeout_s:g} s"
        except FailedError as error:
            mark.error, mark.detail = error.kind, error.detail
        finally:
            mark.end_s = self._pacer.now()
            self._pulse.end()
            if gate is not None:
                gate.release()
        self._unread.put_nowait(mark)

    async def _read_all(self) -> None:
        while True:
            mark = await self._unread.get()
            try:
                await self._read(mark)
                if self._on_end is not None:
                    self._on_end(mark)
            finally:
                self._unread.task_done()

    async def _read(self, mark: Mark) -> None:
        """Read what came, in slices, so that nothing that is to be sent waits for it."""
        mark.payload = None
        if not mark.ok:
            mark.raw.clear()
            return
        try:
            for _ in self._client.digest(mark):
                await asyncio.sleep(0)
        except FailedError as error:
            mark.error, mark.detail = error.kind, error.detail
        except (AttributeError, TypeError, ValueError) as error:  # JSON of another shape than the interface has
            mark.error, mark.detail = "answer", f"an event is not of the interface's form: {error}"


async def _give_up(tasks: set[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _no_pauses() -> Iterator[None]:
    """The garbage collector rests; what is there is not looked at again by the next collection."""
    was = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        if was:
            gc.enable()
