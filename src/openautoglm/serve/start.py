"""From a bundle to a server that answers: the backend is started, the service put before it, and the doors opened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import Field

from openautoglm.core import log
from openautoglm.core.settings import Settings
from openautoglm.serve.backend import Backend
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.guard.hosts import refuse_open
from openautoglm.serve.metrics.prometheus import Metrics
from openautoglm.serve.rest.app import make_app
from openautoglm.serve.rest.server import Server, Signals
from openautoglm.serve.rest.serving import Serving
from openautoglm.serve.rest.settings import RestSettings
from openautoglm.serve.rpc.settings import RpcSettings
from openautoglm.serve.service.language import open_language
from openautoglm.serve.service.models import OneModel
from openautoglm.serve.service.service import Service, ServiceSettings
from openautoglm.serve.service.values import Observer
from openautoglm.serve.worker.fleet import Fleet
from openautoglm.serve.worker.opening import open_in_process
from openautoglm.serve.worker.settings import WorkerSettings
from openautoglm.serve.worker.worker import Worker

_log = log.get(__name__)


class ServeSettings(Settings):
    """Options of a server of one bundle.

    Attributes:
        name: of the model for clients; the bundle's own where left out.
        in_process: run the engine in the server's process.
        replicas: engines, each in a process of its own.
        otlp: where traces are sent, e.g. ``http://127.0.0.1:4318/v1/traces``; nowhere when None.
        rpc: the gRPC server; none when None.
    """

    name: str | None = Field(default=None, min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    in_process: bool = False
    replicas: int = Field(default=1, ge=1, le=64)
    otlp: str | None = None
    rest: RestSettings = RestSettings()
    rpc: RpcSettings | None = None
    service: ServiceSettings = ServiceSettings()
    worker: WorkerSettings = WorkerSettings()


async def serve_bundle(path: Path, settings: ServeSettings, *, guard: Guard | None = None,
                       started: Callable[[str], None] = lambda url: None) -> bool:
    """Serve a bundle until a signal comes; whether everything that was under way has ended well.

    Args:
        guard: tells who calls; without keys the server listens on loopback alone.
        started: is told the address when requests are taken.

    Raises:
        TaskError: the address can be reached from elsewhere, and there are no keys.
        BundleError, MissingExtraError: the bundle cannot be served.
    """
    guard = guard or Guard(None, bind=settings.rest.host)
    if not guard.keyed:
        refuse_open(settings.rest.host)
        refuse_open(settings.rest.host if settings.rpc is None else settings.rpc.host)
    language, _ = open_language(path)
    backend = make_backend(path, settings)
    with Signals() as signals:
        starting = asyncio.create_task(backend.start())
        told = asyncio.create_task(signals.first.wait())
        try:
            await asyncio.wait([starting, told], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return True
            await starting
            services: dict[str, Service] = {}
            metrics = Metrics(lambda: {name: service.backend for name, service in services.items()},
                              lambda: {name: (service.queue.waiting, service.queue.waiting_tokens)
                                       for name, service in services.items()})
            observers, close_traces = observers_of(metrics, settings)
            name = settings.name or str(language.recipe.get("name") or path.stem or "model")
            services[name] = Service(name, language, backend, settings.service, observers=observers)
            models = OneModel(services[name])
            serving = Serving(models, metrics, guard, settings.rest, settings.service.limits)
            server = Server(make_app(serving), models, settings.rest, backend.close)
            _log.info("serving %s", server.url, extra={"model": name, "target": backend.facts.target})
            try:
                async with rpc_beside(serving, settings.rpc):
                    started(server.url)
                    return await server.run(signals)
            finally:
                await asyncio.to_thread(close_traces)
        finally:
            told.cancel()
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await backend.close()


@asynccontextmanager
async def rpc_beside(serving: Serving, settings: RpcSettings | None) -> AsyncIterator[None]:
    """Serve the same over gRPC, where that is wanted.

    Raises:
        ResourceError: the address is taken, or the certificate cannot be used.
    """
    if settings is None:
        yield
        return
    from openautoglm.serve.rpc.server import RpcServer
    from openautoglm.serve.rpc.serving import Serving as RpcServing

    made = RpcServing(serving.models, serving.metrics, serving.guard, settings, serving.limits, serving.repository)
    async with RpcServer(made) as server:
        _log.info("serving gRPC on %s", server.address)
        yield


def make_backend(path: Path, settings: ServeSettings) -> Backend:
    """What generates: in this process, in one of its own, or in several.

    Raises:
        AutoGLMError: a model of this process cannot be loaded.
    """
    if settings.in_process:
        return open_in_process(path, settings.worker)
    if settings.replicas > 1:
        return Fleet.of(path, settings.worker, settings.replicas)
    return Worker(path, settings.worker)


def observers_of(metrics: Metrics, settings: ServeSettings) -> tuple[Sequence[Observer], Callable[[], None]]:
    """Who is told what happens to requests, and what ends it."""
    if settings.otlp is None:
        return (metrics,), lambda: None
    from openautoglm.serve.metrics.traces import Traces

    traces = Traces.to(settings.otlp)
    return (metrics, traces), traces.close
