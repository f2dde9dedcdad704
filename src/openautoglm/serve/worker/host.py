"""The engine's process at work: orders come in between steps, what a step gave goes out after it."""

from __future__ import annotations

import os
import queue
import select
import socket
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple

from openautoglm.core import log
from openautoglm.core.errors import AutoGLMError, ResourceError
from openautoglm.engine.request import Decoding, Request
from openautoglm.serve.faults import BadRequest, Fault, Internal, Overloaded
from openautoglm.serve.intake import told
from openautoglm.serve.orders import GrammarText, Order
from openautoglm.serve.pace import Pace
from openautoglm.serve.worker.frames import Frames, ProtocolError
from openautoglm.serve.worker.messages import TO_ENGINE, Ask, Beat, Cancel, Leave, Message, Ping, decode
from openautoglm.serve.worker.opening import Opened
from openautoglm.serve.worker.outbox import Job, Outbox

_log = log.get(__name__)
_READ_BYTES = 1 << 18
_BEAT_S, _IDLE_BEAT_S = 1.0, 0.1
_MOST_FAILURES = 3  # steps one after the other
_SHARE_OF_ROWS = 1 / 16  # a step of many rows takes less than so many steps of one row by row
_FORGET = 0.999


class Host:
    """Serves one connection with one engine, in one thread; grammars are compiled in others.

    Args:
        link: a blocking socket to the server.
        step_s: what a step of one row takes.
    """

    def __init__(self, link: socket.socket, opened: Opened, step_s: float) -> None:
        self._link, self._engine, self._intake = link, opened.engine, opened.intake
        self._frames, self._outbox = Frames(), Outbox(link)
        self._jobs: dict[int, Job] = {}
        self._pace = Pace()
        self._compiled: queue.SimpleQueue[tuple[Job, Request | Exception]] = queue.SimpleQueue()
        self._compiling, self._most_compiling = 0, opened.compiler.limits.waiting + 1
        self._pool = ThreadPoolExecutor(self._most_compiling, "grammar")
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._floor_s = step_s * opened.engine.limits.max_batch_tokens * _SHARE_OF_ROWS
        self._slow_s, self._steps = 0.0, 0
        self._failed, self._failed_before = 0, 0
        self._beat_at, self._told_steps, self._stepped = 0.0, -1, False

    def run(self) -> None:
        """Serve until the server says so, or is gone.

        Raises:
            ProtocolError: it sends what no message is.
            OSError: the connection is broken.
            MemoryError: there is no memory left.
            ResourceError: the program fails at every step.
        """
        try:
            while self._listen():
                began = time.monotonic()
                self._stepped = self._engine.step()
                now = time.monotonic()
                if self._stepped:
                    self._steps += 1
                    self._slow_s = max(now - began, self._slow_s * _FORGET)
                    self._count_failures()
                for job in self._outbox.gather(self._steps):
                    self._jobs.pop(job.number, None)
                    self._pace.note(now)
                if now >= self._beat_at and (self._steps != self._told_steps or not self._engine.idle):
                    self._beat(now)
                self._outbox.send()
        finally:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _count_failures(self) -> None:
        """A step that fails takes its requests with it; a program that always fails is better loaded again."""
        before, self._failed_before = self._failed_before, self._engine.failed_steps
        self._failed = self._failed + 1 if self._failed_before > before else 0
        if self._failed == _MOST_FAILURES:
            self._outbox.gather(self._steps)
            self._outbox.send()
            raise ResourceError(f"the program failed at {self._failed} steps one after the other",
                                remedy="see the causes in the log")

    def _listen(self) -> bool:
        """Do what was asked, waiting for it where there is nothing to step; False at the end."""
        wait = self._wait_s()
        if (wait is None or wait > 0) and not self._select(wait):
            return True
        while True:
            self._take_compiled()
            try:
                some = self._link.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return True
            if not some:
                return False
            for body in self._frames.feed(some):
                if not self._obey(decode(body, TO_ENGINE)):
                    return False
            if len(some) < _READ_BYTES:
                return True

    def _wait_s(self) -> float | None:
        """For how long nothing is to do; None for ever."""
        engine, now = self._engine, time.monotonic()
        if engine.idle:
            return None if self._steps == self._told_steps else max(0.0, self._beat_at - now)
        if self._stepped:
            return 0.0
        beat = max(0.0, self._beat_at - now)
        return beat if engine.wake_at is None else max(0.0, min(engine.wake_at - engine.now(), beat))

    def _select(self, wait_s: float | None) -> bool:
        ready = select.select([self._link.fileno(), self._wake], [], [], wait_s)[0]
        if self._wake in ready:
            os.eventfd_read(self._wake)
        return bool(ready)

    def _obey(self, message: Message) -> bool:
        """Do what a message says; False for the last one."""
        match message:
            case Ask():
                self._ask(message)
            case Cancel(numbers=numbers):
                for number in array("i", numbers):
                    self._cancel(number)
            case Ping():
                self._beat(time.monotonic())
            case Leave():
                return False
            case _:
                raise ProtocolError(f"a message {type(message).__name__} comes at the wrong time")
        return True

    def _ask(self, message: Ask) -> None:
        if message.number in self._jobs:
            raise ProtocolError("a number of a request is taken")
        job = self._jobs[message.number] = Job(message.number)
        now = self._engine.now()
        try:
            order = order_of(message)
            if order.grammar is None:
                self._submit(job, self._intake.prepare(order, now))
            elif self._compiling >= self._most_compiling:
                raise Overloaded("too many grammars wait to be compiled", where="grammar", retry_after_s=1)
            else:
                self._compiling += 1
                self._pool.submit(self._compile, job, order, now)
        except Exception as error:  # whatever it is, it concerns this request alone
            self._refuse(job, error)

    def _compile(self, job: Job, order: Order, now: float) -> None:
        """In a thread of the pool."""
        try:
            result: Request | Exception = self._intake.prepare(order, now)
        except Exception as error:  # told to the client in the engine's thread
            result = error
        self._compiled.put((job, result))
        os.eventfd_write(self._wake, 1)

    def _take_compiled(self) -> None:
        while self._compiling and not self._compiled.empty():
            job, result = self._compiled.get()
            self._compiling -= 1
            if job.gone:
                continue
            if isinstance(result, Exception):
                self._refuse(job, result)
                continue
            try:
                self._submit(job, result)
            except Exception as error:  # as above
                self._refuse(job, error)

    def _submit(self, job: Job, request: Request) -> None:
        try:
            job.ticket = self._engine.submit(request, self._outbox.listener(job))
        except ResourceError as error:
            waiting = self._engine.limits.max_waiting
            raise Overloaded("the queue is full", remedy="try again later",
                             retry_after_s=self._pace.retry_after_s(waiting, time.monotonic())) from error

    def _refuse(self, job: Job, error: Exception) -> None:
        if isinstance(error, MemoryError):
            raise error  # nothing can be relied on any more
        self._jobs.pop(job.number, None)
        if isinstance(error, AutoGLMError):
            fault: Fault = told(error)
        else:
            fault = Internal("the request made the engine fail")
            fault.__cause__ = error
        self._outbox.refuse(job.number, fault)

    def _cancel(self, number: int) -> None:
        job = self._jobs.pop(number, None)
        if job is not None:
            job.gone = True
            if job.ticket is not None:
                self._engine.cancel(job.ticket)

    def _beat(self, now: float) -> None:
        """Say how the engine stands."""
        idle = self._engine.idle
        self._beat_at = now + (_IDLE_BEAT_S if idle else _BEAT_S)
        self._told_steps = self._steps if idle else -1
        self._outbox.put(Beat(self._steps, not idle, max(self._slow_s, self._floor_s), astuple(self._engine.stats)))


def order_of(message: Ask) -> Order:
    """The order that a message carries.

    Raises:
        BadRequest: its decoding is none.
    """
    prompt = array("i", message.prompt)
    try:
        decoding = Decoding.model_validate_json(message.decoding)
    except ValueError as error:
        raise BadRequest("is no set of options", where="decoding", remedy="see the options of Decoding") from error
    grammar = GrammarText(*message.grammar) if message.grammar is not None else None
    return Order(tuple(prompt), decoding, message.priority, message.timeout_s, grammar, message.stops, message.salt,
                 message.id)
