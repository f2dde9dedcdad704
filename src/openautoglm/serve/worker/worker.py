"""A backend whose engine has a process of its own, which is watched, killed where it hangs, and started again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import numpy as np

from openautoglm.core import log
from openautoglm.core.errors import AutoGLMError
from openautoglm.engine.request import Piece
from openautoglm.engine.stats import Stats
from openautoglm.serve.backend import Embeddings, probe, wait_for
from openautoglm.serve.faults import BadRequest, Unavailable
from openautoglm.serve.orders import Facts, Order, probe_order
from openautoglm.serve.worker.launch import Child, launch
from openautoglm.serve.worker.letters import facts_of, parts_of
from openautoglm.serve.worker.link import Link
from openautoglm.serve.worker.settings import WorkerSettings

_log = log.get(__name__)


class Worker:
    """A `Backend` over one process; belongs to one event loop.

    Args:
        bundle: folder or archive, or a checkpoint folder.
        cpus: processors that the process stays on; empty: all.
        name: for the log.
    """

    def __init__(self, bundle: str | Path, settings: WorkerSettings | None = None, *, cpus: Sequence[int] = (),
                 name: str = "engine") -> None:
        self._bundle, self._settings = Path(bundle), settings or WorkerSettings()
        self._cpus, self._name = tuple(cpus), name
        self._child: Child | None = None
        self._facts: Facts | None = None
        self._stats: Stats | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._open = False
        self._restarts = 0

    @property
    def facts(self) -> Facts:
        """See `Backend`."""
        if self._facts is None:
            raise _not_yet()
        return self._facts

    @property
    def stats(self) -> Stats:
        """See `Backend`; counts begin anew when the engine is started again."""
        if self._child is not None and self._child.link.stats is not None:
            self._stats = self._child.link.stats
        if self._stats is None:
            raise _not_yet()
        return self._stats

    @property
    def ready(self) -> bool:
        """See `Backend`."""
        return self._open and self._child is not None and self._child.link.steady

    @property
    def restarts(self) -> int:
        """How often the engine was started again."""
        return self._restarts

    @property
    def active(self) -> int:
        """Requests under way."""
        return self._child.link.active if self._child is not None else 0

    @property
    def process_id(self) -> int | None:
        """Of the engine; None while there is none."""
        return self._child.process.pid if self._child is not None else None

    async def start(self) -> None:
        """See `Backend`.

        Raises:
            BundleError, ResourceError: the model cannot be loaded; it is not tried again.
            Fault: it cannot generate.
        """
        self._child = await self._launch()
        self._open = True
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {self._name}")

    async def close(self, grace_s: float = 0) -> None:
        """See `Backend`."""
        self._open = False
        if self._child is not None and grace_s > 0:
            await wait_for(self._child.link.nobody, grace_s)
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        child, self._child = self._child, None
        if child is not None:
            await child.leave()

    async def stream(self, order: Order) -> AsyncGenerator[Piece, None]:
        """See `Backend`."""
        link = self._usable()
        call = link.ask(order)
        try:
            while (piece := await call.next()) is not None:
                yield piece
        finally:
            link.leave(call)

    async def embed(self, prompts: Sequence[Sequence[int]]) -> Embeddings:
        """See `Backend`."""
        if not prompts:
            raise BadRequest("is empty", where="input", remedy="give at least one text")
        return np.concatenate([await self._usable().embed(part) for part in parts_of(prompts)])

    async def probe(self, timeout_s: float) -> None:
        """See `Backend`."""
        await probe(self, timeout_s)

    def _usable(self) -> Link:
        if self._child is None or not self._open:
            raise Unavailable(f"the engine is {'starting again' if self._open else 'ending or has not started'}",
                              remedy="try again later", retry_after_s=1)
        return self._child.link

    async def _launch(self) -> Child:
        """Start a process; it has generated a token when this returns."""
        settings = self._settings
        child = await launch(self._bundle, settings, self._cpus)
        try:
            await child.link.ask(probe_order(settings.start_s)).next()
            await child.link.known()
        except BaseException:
            await child.kill("it did not answer")
            raise
        self._facts = facts_of(child.hello)
        _log.info("%s serves %s", self._name, self._bundle,
                  extra={"pid": child.process.pid, "target": self._facts.target, "pages": self._facts.pages})
        return child

    async def _keep(self) -> None:
        """Watch the process; when it is lost, start another one."""
        settings, delay = self._settings, self._settings.backoff_s
        while self._child is not None:
            begun = time.monotonic()
            failed = self._child.link.active
            why = await self._child.link.watch()
            child, self._stats, self._child = self._child, self.stats, None
            how = await child.kill(why)
            if time.monotonic() - begun > settings.settled_s:
                delay = settings.backoff_s
            _log.error("%s was lost: %s", self._name, why, extra={"ended": how, "requests": failed, "again_s": delay})
            while self._child is None:
                await asyncio.sleep(delay)
                delay = min(2 * delay, settings.most_backoff_s)
                self._restarts += 1
                try:
                    self._child = await self._launch()
                except AutoGLMError as error:
                    _log.error("%s cannot be started again: %s", self._name, error, extra={"again_s": delay})


def _not_yet() -> Unavailable:
    return Unavailable("the engine has not started", remedy="try again later", retry_after_s=1)
