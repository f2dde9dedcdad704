"""One function over a stream of jobs in several processes, results in the order of the jobs.

The calling process works too, and hands a job to a helper process whenever that one holds few. Helpers are
fresh interpreters that import nothing of the caller's main module; they end when the caller ends, however it
ends.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import chain, islice
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from openautoglm.core.errors import AutoGLMError, ResourceError

_Done = queue.SimpleQueue["tuple[_Helper, int, Any]"]
AHEAD = 2
"""Jobs that one helper may hold: the one it works on and the next."""


class Builder(NamedTuple):
    """How a helper makes its function: an importable ``module:name`` called with picklable arguments."""

    factory: str
    arguments: tuple[Any, ...]

    def __call__(self) -> Callable[[Any], Any]:
        module, _, name = self.factory.partition(":")
        made: Any = import_module(module)
        for part in name.split("."):
            made = getattr(made, part)
        function: Callable[[Any], Any] = made(*self.arguments)
        return function


def spread(jobs: Iterator[Any], builder: Builder, processes: int) -> Iterator[Any]:
    """Yield the results of the builder's function for every job, in order, on up to `processes` processes.

    Helpers start if there is a second job, so a single job costs no process.

    Raises:
        AutoGLMError: as the function raises it.
        ResourceError: a helper process died.
    """
    done: _Done = queue.SimpleQueue()
    finished: dict[int, Any] = {}
    helpers: list[_Helper] = []
    due = 0
    first = list(islice(jobs, 2))
    with contextlib.ExitStack() as stack:
        if len(first) > 1:
            helpers = [stack.enter_context(_Helper(builder, done)) for _ in range(processes - 1)]
        function = builder()
        number = -1
        for number, job in enumerate(chain(first, jobs)):
            free = min((one for one in helpers if one.free), key=lambda one: one.held, default=None)
            if free is not None:
                free.take(number, job)
            else:
                finished[number] = function(job)
            while not done.empty():
                _collect(done, finished)
            while due in finished:
                yield finished.pop(due)
                due += 1
        while due <= number:
            while due not in finished:
                _collect(done, finished)
            yield finished.pop(due)
            due += 1


def _collect(done: _Done, finished: dict[int, Any]) -> None:
    helper_, number, result = done.get()
    helper_.held -= 1
    if isinstance(result, BaseException):
        raise result
    finished[number] = result


class _Helper:
    """One helper process and the thread that talks to it."""

    def __init__(self, builder: Builder, done: _Done) -> None:
        self.held = 0
        self._ready = False
        self._done = done
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        with theirs:
            command = f"from openautoglm.data.workers import helper; helper({theirs.fileno()})"
            with _interrupts_held():
                self._process = subprocess.Popen(  # nosec B603  # our own command, no shell
                    [sys.executable, "-c", command], pass_fds=[theirs.fileno()], env=environment,
                    stdin=subprocess.DEVNULL)
        self._pipe = Connection(ours.detach())
        self._pipe.send(builder)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> _Helper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join()
        self._pipe.close()

    @property
    def free(self) -> bool:
        return self._ready and self.held < AHEAD

    def take(self, number: int, job: Any) -> None:
        self.held += 1
        try:
            self._pipe.send((number, job))
        except OSError:
            self._fail(number)

    def _listen(self) -> None:
        """Pass results on as they come (in a thread of its own)."""
        try:
            self._ready = bool(self._pipe.recv())
            while True:
                number, result = self._pipe.recv()
                self._done.put((self, number, result))
        except (OSError, EOFError):
            self._ready = False
            if self.held:
                self._fail(-1)

    def _fail(self, number: int) -> None:
        self._done.put((self, number, ResourceError(
            "a helper process ended unexpectedly",
            remedy="it may have run out of memory; try clean.workers: 1")))


@contextlib.contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold interrupts back for a moment; a process started meanwhile begins its life with them held back."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def helper(descriptor: int) -> None:
    """Serve jobs until the pipe closes. Interrupts are the caller's business."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    outbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    with contextlib.suppress(OSError, EOFError), Connection(descriptor) as pipe:
        function = pipe.recv()()
        pipe.send(True)
        threading.Thread(target=_receive, args=(pipe, inbox), daemon=True).start()
        threading.Thread(target=_send, args=(pipe, outbox), daemon=True).start()
        while (task := inbox.get()) is not None:
            number, job = task
            try:
                result = function(job)
            except AutoGLMError as error:
                result = error
            except Exception:
                result = RuntimeError("a helper process failed:\n" + traceback.format_exc())
            outbox.put((number, result))


def _receive(pipe: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    """Take jobs in while others are worked on, so that neither side waits for the other."""
    try:
        while True:
            inbox.put(pipe.recv())
    except (OSError, EOFError):
        inbox.put(None)


def _send(pipe: Connection, outbox: queue.SimpleQueue[Any]) -> None:
    with contextlib.suppress(OSError):
        while True:
            pipe.send(outbox.get())
