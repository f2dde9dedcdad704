"""A real server on loopback, in a thread of its own, over an engine whose model is a hash of the text so far."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from fake_program import FakeProgram

from openautoglm.engine.engine import Engine
from openautoglm.engine.settings import EngineSettings
from openautoglm.serve.backend import Backend, InProcess
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.metrics.prometheus import Metrics
from openautoglm.serve.rest.app import make_app
from openautoglm.serve.rest.server import Server, Signals
from openautoglm.serve.rest.serving import Serving
from openautoglm.serve.rest.settings import RestSettings
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.models import OneModel
from openautoglm.serve.service.service import Service, ServiceSettings
from openautoglm.text.tokenizer import END

MODEL = "pubs"


def engine_backend(language: Language, *, before: Callable[[int], None] | None = None, **engine: Any) -> InProcess:
    """A real engine; its answers end by themselves now and then."""
    tokenizer = language.tokenizer
    end = tokenizer.special[END]
    printable = [number for number, piece in enumerate(tokenizer.pieces)
                 if piece and piece.isascii() and piece.decode().isprintable()]

    def logits(tokens: Sequence[int]) -> Any:
        made = np.full(tokenizer.vocab_size, -30.0, np.float32)
        dice = np.random.default_rng(sum(tokens[-8:]) * 31 + len(tokens))
        made[printable] = dice.normal(0, 2, len(printable))
        made[end] = 40.0 if len(tokens) % 23 == 0 else -30.0
        return made

    program = FakeProgram(vocab=tokenizer.vocab_size, positions=512, pages=512, logits=logits, before=before)
    made = Engine(program, EngineSettings(**engine), stop_ids=(end,))
    return InProcess(made, decode=tokenizer.decode, pieces=tokenizer.pieces, fingerprint="0123456789abcdef" * 4)


@dataclass
class Running:
    """A server that listens; use it with ``with``.

    Attributes:
        url: where it listens.
        service: what it serves.
        well: how it ended.
    """

    language: Language
    make_backend: Callable[[], Backend]
    rest: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    guard: Guard = field(default_factory=lambda: Guard(None))
    url: str = ""
    well: bool | None = None

    def __enter__(self) -> Running:
        self._up, self._fault = threading.Event(), list[BaseException]()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._up.wait(30)
        if self._fault:
            raise self._fault[0]
        return self

    def __exit__(self, *_: object) -> None:
        for _ in range(2):
            self.tell()
        self._thread.join(30)
        assert not self._thread.is_alive()
        if self._fault:
            raise self._fault[0]

    def tell(self) -> None:
        """As a signal would."""
        if self._thread.is_alive():
            self.loop.call_soon_threadsafe(self.signals.tell)

    def call(self, work: Callable[[], Any]) -> Any:
        """Call something in the server's event loop."""
        async def inside() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(inside(), self.loop).result(30)

    def beside(self) -> AbstractAsyncContextManager[Any]:
        """What is served beside it."""
        return nullcontext()

    def join(self, timeout_s: float = 30) -> None:
        """Wait until it has ended."""
        self._thread.join(timeout_s)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._fault.append(error)
        finally:
            self._up.set()

    async def _serve(self) -> None:
        self.loop, self.signals = asyncio.get_running_loop(), Signals()
        self.backend = self.make_backend()
        await self.backend.start()
        settings = ServiceSettings.model_validate(self.options)
        self.metrics = Metrics(lambda: {MODEL: self.backend},
                               lambda: {MODEL: (self.service.queue.waiting, self.service.queue.waiting_tokens)})
        self.service = Service(MODEL, self.language, self.backend, settings, observers=[self.metrics])
        rest = RestSettings.model_validate({"port": 0, "shutdown_timeout_s": 5.0, **self.rest})
        models = OneModel(self.service)
        self.serving = Serving(models, self.metrics, self.guard, rest, settings.limits)
        server = Server(make_app(self.serving), models, rest, self.backend.close)
        self.url = server.url
        async with self.beside():
            self._up.set()
            self.well = await server.run(self.signals)
        await self.backend.close()
