"""The server's life: it listens, serves, and ends in order when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import ssl
from collections.abc import Awaitable, Callable, Generator
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from openautoglm.core import log
from openautoglm.core.errors import ResourceError
from openautoglm.serve.rest.door import door, listen
from openautoglm.serve.rest.settings import RestSettings
from openautoglm.serve.service.models import Models

_log = log.get(__name__)
_LAST_REPLIES_S = 2.0
_LAST_REQUESTS_S = 0.5
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """The signals that end a server; belongs to one event loop, in the main thread. Use it with ``with``.

    Attributes:
        first, second: set when they came.
    """

    def __init__(self) -> None:
        self.first, self.second = asyncio.Event(), asyncio.Event()

    def __enter__(self) -> Signals:
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self.tell)
        return self

    def __exit__(self, *_: object) -> None:
        for number in _SIGNALS:
            asyncio.get_running_loop().remove_signal_handler(number)

    def tell(self) -> None:
        """A signal has come."""
        (self.second if self.first.is_set() else self.first).set()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals are ours."""
        yield


class Server:
    """An application that listens.

    Args:
        models: are drained at the end.
        close: ends what generates; running requests fail with an error that clients may retry.

    Raises:
        ResourceError: the address is taken, or the certificate cannot be used.
    """

    def __init__(self, app: ASGIApp, models: Models, settings: RestSettings,
                 close: Callable[[], Awaitable[None]]) -> None:
        self._models, self._settings, self._close = models, settings, close
        self._config = uvicorn.Config(
            app, http=door(settings), ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, timeout_keep_alive=settings.keep_alive_s, limit_concurrency=settings.connections,
            timeout_graceful_shutdown=int(_LAST_REPLIES_S), **_tls(settings))
        try:
            self._config.load()
        except (OSError, ssl.SSLError) as error:
            raise ResourceError(f"the certificate cannot be used: {error}", where=str(settings.tls_cert),
                                remedy="give PEM files that belong together and can be read") from error
        self._socket = listen(settings)
        self._server = _Server(self._config)

    @property
    def url(self) -> str:
        """Where clients find it."""
        host, port = self._socket.getsockname()[:2]
        scheme = "http" if self._settings.tls_cert is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"

    async def run(self, signals: Signals) -> bool:
        """Serve until a signal comes; whether everything that was under way has ended well.

        After the first signal the server is not ready any more, takes no requests, and lets running ones finish within
        `shutdown_timeout_s`. A second one ends it at once. What has been sent by then and was not read yet is refused
        with an answer: it listens half a second longer.
        """
        serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        told = asyncio.create_task(signals.first.wait())
        try:
            await asyncio.wait([serving, told], return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                await serving
                return False
            well = await self._drain(signals)
            await self._close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(signals.second.wait(), _LAST_REQUESTS_S)
            self._server.should_exit = True
            self._server.force_exit = not well and signals.second.is_set()
            await serving
            return well
        finally:
            told.cancel()

    async def _drain(self, signals: Signals) -> bool:
        timeout_s = self._settings.shutdown_timeout_s
        _log.info("ending: running requests may finish within %g s; a second signal ends them", timeout_s)
        draining = asyncio.create_task(self._models.drain(timeout_s))
        hurry = asyncio.create_task(signals.second.wait())
        await asyncio.wait([draining, hurry], return_when=asyncio.FIRST_COMPLETED)
        hurry.cancel()
        well = draining.done() and draining.result()
        draining.cancel()
        if not well:
            _log.warning("requests that were under way have not finished; they are told so")
        return well


def _tls(settings: RestSettings) -> dict[str, Any]:
    if settings.tls_cert is None:
        return {}
    clients = settings.tls_clients
    return {"ssl_certfile": str(settings.tls_cert), "ssl_keyfile": str(settings.tls_key),
            "ssl_ca_certs": None if clients is None else str(clients),
            "ssl_cert_reqs": ssl.CERT_NONE if clients is None else ssl.CERT_REQUIRED}


def adopt_uvicorn_log() -> None:
    """Let what uvicorn has to say go where our log goes; warnings and errors alone."""
    theirs = logging.getLogger("uvicorn.error")
    theirs.handlers[:], theirs.propagate = log.get().handlers, False
    theirs.setLevel(logging.WARNING)
