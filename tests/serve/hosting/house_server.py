"""A real server on loopback, in a thread of its own, over a registry whose models are scripted."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hosting_tools import House
from rest_tools import Running

from openautoglm.serve.guard import secret
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.guard.settings import GuardSettings
from openautoglm.serve.hosting.responses import CachedResponses
from openautoglm.serve.metrics.prometheus import Metrics
from openautoglm.serve.registry.keys import KeyRecord
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.rest.app import make_app
from openautoglm.serve.rest.server import Server, Signals
from openautoglm.serve.rest.serving import Serving
from openautoglm.serve.rest.settings import RestSettings


@dataclass
class HouseRunning(Running):
    """See `Running`; the options are those of `House`.

    Attributes:
        keyed: ask for the registry's keys.
        cache_all: the server's option for the cache of responses.
    """

    registry: Registry | None = None
    keyed: bool = True
    cache_all: bool = False
    guarding: dict[str, Any] = field(default_factory=dict)

    async def _serve(self) -> None:
        assert self.registry is not None
        self.loop, self.signals = asyncio.get_running_loop(), Signals()
        self.house = House(self.registry, self.language, **self.options)
        await self.house.catalog.start()
        await self.house.keeper.start()
        hosted = self.house.hosted
        self.metrics = Metrics(lambda: {name: service.backend for name, service in hosted.loaded().items()})
        guard = Guard(self.registry.keys if self.keyed else None, GuardSettings(**self.guarding))
        rest = RestSettings.model_validate({"port": 0, "shutdown_timeout_s": 5.0, **self.rest})
        responses = CachedResponses(self.house.catalog, hosted.shelf, always=self.cache_all,
                                    told=self.metrics.cached)
        self.serving = Serving(hosted, self.metrics, guard, rest, hosted=hosted, responses=responses)
        server = Server(make_app(self.serving), hosted, rest, hosted.close)
        self.url = server.url
        self._up.set()
        self.well = await server.run(self.signals)
        await self.house.keeper.close()
        await hosted.close()
        await self.house.catalog.close()


def house_server(registry: Registry, language: Any, **more: Any) -> HouseRunning:
    """A server that is to be entered."""
    def nothing() -> Any:
        raise AssertionError("the backends are those of the house")

    return HouseRunning(language, nothing, registry=registry, **more)


def key(registry: Registry, *scopes: str, name: str = "") -> dict[str, str]:
    """The header of a new key with these scopes."""
    key_id, token, hashed = secret.mint()
    registry.keys.add(KeyRecord(key_id, name or "-".join(scopes), hashed, frozenset(scopes)), by="test")
    return {"authorization": f"Bearer {token}"}
