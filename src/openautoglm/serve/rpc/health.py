"""`grpc.health.v1.Health`: follows readiness, and says at once that the server is ending."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any

from grpc_health.v1 import health_pb2 as pb

from openautoglm.serve.faults import NotFound, Overloaded
from openautoglm.serve.rpc.serving import Call, Method, Serving, methods_of

_EVERY_S = 0.5
_STATUS = pb.HealthCheckResponse.ServingStatus


class Health:
    """The methods of the service.

    Args:
        services: whose health is asked for; the empty name is the whole server.
    """

    def __init__(self, serving: Serving, services: Collection[str]) -> None:
        self._models, self._most = serving.models, serving.settings.watchers
        self._services = {"", *services}
        self._watchers = 0
        self._serves, self._looked_at = False, float("-inf")
        self._ended = asyncio.Event()

    def methods(self) -> Sequence[Method]:
        """All of them; they need no key."""
        answers = {"Check": self.check, "Watch": self.watch, "List": self.all}
        return methods_of(pb.DESCRIPTOR.services_by_name["Health"], answers,
                          scopes=dict.fromkeys(answers), classes=lambda message: getattr(pb, message.name))

    def end(self) -> None:
        """The server is ending: all who watch are told so."""
        self._ended.set()

    async def check(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Whether a service can be used now."""
        if request.service not in self._services:
            raise NotFound(f"there is no service {request.service[:100]!r}", where="service",
                           remedy="leave it out for the whole server")
        yield pb.HealthCheckResponse(status=await self._status())

    async def all(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """The same of all services."""
        status = await self._status()
        yield pb.HealthListResponse(statuses={name: pb.HealthCheckResponse(status=status) for name in self._services})

    async def watch(self, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        """Whether a service can be used, now and whenever that changes."""
        if self._watchers >= self._most:
            raise Overloaded(f"{self._watchers} watch already", remedy="use Check", retry_after_s=1)
        self._watchers += 1
        try:
            told = None
            while True:
                status = await self._status() if request.service in self._services else _STATUS.SERVICE_UNKNOWN
                if status != told:
                    told = status
                    yield pb.HealthCheckResponse(status=status)
                if self._ended.is_set():
                    return
                await asyncio.wait([waiting := asyncio.ensure_future(self._ended.wait())], timeout=_EVERY_S)
                waiting.cancel()
        finally:
            self._watchers -= 1

    async def _status(self) -> Any:
        """The same answer for all who ask within half a second."""
        if self._ended.is_set():
            return _STATUS.NOT_SERVING
        if time.monotonic() - self._looked_at >= _EVERY_S:
            self._serves = await self._models.unready() is None
            self._looked_at = time.monotonic()
        return _STATUS.SERVING if self._serves else _STATUS.NOT_SERVING
