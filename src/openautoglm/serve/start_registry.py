"""From a registry to a server that answers: nothing is loaded but what is wished for, the rest when it is asked for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping

from pydantic import Field

from openautoglm.core import log
from openautoglm.core.errors import ResourceError
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.guard.hosts import refuse_open
from openautoglm.serve.hosting.hosted import Hosted
from openautoglm.serve.hosting.keeper import Keeper
from openautoglm.serve.hosting.loading import BundleLoader
from openautoglm.serve.hosting.responses import CachedResponses
from openautoglm.serve.hosting.settings import HostingSettings
from openautoglm.serve.metrics.prometheus import Metrics
from openautoglm.serve.registry.catalog import Catalog, CatalogSettings
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.rest.app import make_app
from openautoglm.serve.rest.server import Server, Signals
from openautoglm.serve.rest.serving import Serving
from openautoglm.serve.service.service import Service
from openautoglm.serve.start import ServeSettings, make_backend, observers_of, rpc_beside

_log = log.get(__name__)


class ServeRegistrySettings(ServeSettings):
    """Options of a server of a registry.

    Attributes:
        hosting: what may be in memory.
        catalog: how often the registry is looked at, and when versions on trial are rolled back.
        preload: versions that are loaded before the server listens.
        response_cache: answer requests that are exactly the same from the cache, also where they do not ask for it.
    """

    hosting: HostingSettings = HostingSettings()
    catalog: CatalogSettings = CatalogSettings()
    preload: tuple[str, ...] = Field(default=())
    response_cache: bool = False


async def serve_registry(registry: Registry, settings: ServeRegistrySettings, *, guard: Guard | None = None,
                         started: Callable[[str], None] = lambda url: None) -> bool:
    """Serve the models of a registry until a signal comes; whether everything that was under way has ended well.

    Args:
        registry: is closed by the caller.
        guard: tells who calls; without keys the server listens on loopback alone.
        started: is told the address when requests are taken.

    Raises:
        ResourceError: the registry holds no model; or the address can be reached from elsewhere, without keys.
        NotFound, Unavailable: what is to be loaded first is not there, or cannot be loaded.
        StoreLost: the database does not answer.
    """
    guard = guard or Guard(None, bind=settings.rest.host)
    if not guard.keyed:
        refuse_open(settings.rest.host)
        refuse_open(settings.rest.host if settings.rpc is None else settings.rpc.host)
    catalog = Catalog(registry, settings.catalog)
    await catalog.start()
    try:
        if not catalog.snapshot.models:
            raise ResourceError("holds no models", where=str(registry.place),
                                remedy="register one: autoglm models register BUNDLE --name NAME")
        return await _serve(catalog, settings, guard, started)
    finally:
        await catalog.close()


async def _serve(catalog: Catalog, settings: ServeRegistrySettings, guard: Guard,
                 started: Callable[[str], None]) -> bool:
    def loaded() -> Mapping[str, Service]:
        return hosted.loaded()

    metrics = Metrics(lambda: {name: service.backend for name, service in loaded().items()},
                      lambda: {name: (service.queue.waiting, service.queue.waiting_tokens)
                               for name, service in loaded().items()})
    observers, close_traces = observers_of(metrics, settings)
    loader = BundleLoader(catalog, lambda path: make_backend(path, settings), settings.service, observers=observers,
                          warm_s=settings.hosting.warm_s)
    hosted = Hosted(catalog, loader, settings.hosting)
    keeper = Keeper(hosted)
    responses = CachedResponses(catalog, hosted.shelf, _shape(settings), always=settings.response_cache,
                                told=metrics.cached)
    with Signals() as signals:
        preloading = asyncio.create_task(hosted.preload(settings.preload))
        told = asyncio.create_task(signals.first.wait())
        try:
            await asyncio.wait([preloading, told], return_when=asyncio.FIRST_COMPLETED)
            if not preloading.done():
                return True
            await preloading
            await keeper.start()
            serving = Serving(hosted, metrics, guard, settings.rest, settings.service.limits, hosted, responses)
            server = Server(make_app(serving), hosted, settings.rest, hosted.close)
            _log.info("serving %s", server.url, extra={"models": len(catalog.snapshot.models),
                                                       "registry": str(catalog.registry.place)})
            async with rpc_beside(serving, settings.rpc):
                started(server.url)
                return await server.run(signals)
        finally:
            told.cancel()
            preloading.cancel()
            await asyncio.gather(preloading, return_exceptions=True)
            await keeper.close()
            await hosted.close()
            await responses.close()
            await asyncio.to_thread(close_traces)


def _shape(settings: ServeRegistrySettings) -> str:
    """What this server's options do to answers."""
    program = settings.worker.program.model_dump(mode="json", include={"target", "dtype", "quantise", "cache"})
    return json.dumps([program, settings.service.max_tokens], sort_keys=True)
