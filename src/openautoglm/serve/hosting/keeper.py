"""Keeps what is in memory as operators want it: one look after the other at the catalog, behind the requests."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from openautoglm.core import log
from openautoglm.serve.hosting.hosted import Hosted


class Keeper:
    """Loads what is wished for, and unloads what was archived, removed, renamed or wished away."""

    def __init__(self, hosted: Hosted) -> None:
        self._hosted = hosted
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._leaving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Begin to load what is wished for, and go on in the background; the server is not ready until it was tried."""
        self._hosted.arrivals.starting |= {version.id for version in self._hosted.shelf.wanted}
        await self.look()
        self._task = asyncio.create_task(self._keep(), name="keeper of the models")

    async def close(self) -> None:
        """End the task."""
        self._stop.set()
        if self._task is not None:
            await self._task

    async def look(self) -> None:
        """One round."""
        hosted = self._hosted
        if hosted.closed or hosted.catalog.snapshot.revision < 0:
            return
        there = {version.id for model in hosted.catalog.snapshot.models.values() for version in model.versions.values()}
        hosted.failures.keep(there)
        for seat in hosted.seats:
            out = not hosted.shelf.known(seat.version) or hosted.shelf.unwanted(seat.version)
            if out and seat.leaving is None and not hosted.asked[seat.version.id]:
                task = asyncio.create_task(hosted.seats.leave(seat))
                self._leaving.add(task)  # it may take as long as its requests run
                task.add_done_callback(self._leaving.discard)
        for version in hosted.shelf.wanted:
            if hosted.seats.get(version) is None and not hosted.failures.waiting(version):
                hosted.arrivals.begin(version)
        await hosted.seats.shrink()

    async def _keep(self) -> None:
        while not self._stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), self._hosted.settings.look_s)
                return
            try:
                await self.look()
            except Exception:
                log.get(__name__).exception("a look at the models in memory failed")
