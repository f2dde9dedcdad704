"""A loader whose models take no memory: services over scripted backends, which load, fail and wait as a test says."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any

from serve_tools import FACTS, FakeBackend
from service_tools import HeldBackend, ask, spoken

from openautoglm.core.errors import BundleError
from openautoglm.serve.faults import Fault
from openautoglm.serve.hosting.conversations import Kept
from openautoglm.serve.hosting.hosted import Hosted
from openautoglm.serve.hosting.judge import Judge
from openautoglm.serve.hosting.keeper import Keeper
from openautoglm.serve.hosting.seats import label
from openautoglm.serve.hosting.settings import HostingSettings
from openautoglm.serve.registry.canary import CanarySettings
from openautoglm.serve.registry.catalog import Catalog, CatalogSettings
from openautoglm.serve.registry.records import Version
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.service import Service
from openautoglm.serve.service.values import Caller


class Loader:
    """Remembers what it loaded; `gate` holds loads back, `broken` versions cannot be loaded."""

    def __init__(self, language: Language, catalog: Catalog, sizes: dict[str, int]) -> None:
        self.language, self.catalog, self.sizes = language, catalog, sizes
        self.estimates = dict(sizes)
        self.loads: Counter[str] = Counter()
        self.backends: dict[str, FakeBackend] = {}
        self.broken: set[str] = set()
        self.faults: dict[str, Fault] = {}
        self.gate: asyncio.Event | None = None
        self.hold: asyncio.Event | None = None

    async def estimate(self, version: Version) -> int:
        return self.estimates.get(label(version), 100)

    async def load(self, version: Version) -> Service:
        name = label(version)
        self.loads[name] += 1
        if self.gate is not None:
            await self.gate.wait()
        if name in self.broken:
            raise BundleError("a file is damaged", where="/secret/path")
        facts = replace(FACTS, vocab_size=self.language.tokenizer.vocab_size, cache_bytes=0,
                        weight_bytes=self.sizes.get(name, 100))
        kind = HeldBackend if self.hold is not None else FakeBackend
        backend = kind(lambda order: ([], self.faults[name]) if name in self.faults else
                       (spoken(self.language, f"I am {name}."), None), facts)
        backend.gate = self.hold
        self.backends[name] = backend
        return Service(name, self.language, backend, observers=[Judge(self.catalog, version)],
                       conversations=Kept(self.catalog.registry, name))


class House:
    """A hosted registry with all that belongs to it."""

    def __init__(self, registry: Registry, language: Language, sizes: dict[str, int] | None = None,
                 canary: dict[str, Any] | None = None, **settings: Any) -> None:
        self.registry = registry
        self.catalog = Catalog(registry, CatalogSettings(refresh_s=0.01, canary=CanarySettings(**canary or {})),
                               dice=random.Random(1))
        self.loader = Loader(language, self.catalog, sizes or {})
        self.hosted = Hosted(self.catalog, self.loader, HostingSettings(**{"look_s": 0.01, **settings}))
        self.keeper = Keeper(self.hosted)

    async def text(self, name: str | None, caller: Caller | None = None, *, key: str | None = None,
                   timeout_s: float | None = None, **fields: Any) -> str:
        """The answer of a model."""
        async with self.hosted.use(name, key=key, timeout_s=timeout_s) as service:
            answering = await service.open(ask(**fields), caller)
            async with aclosing(answering.stream()) as deltas:
                return "".join([delta.text async for delta in deltas])

    def state(self) -> dict[str, str]:
        """What is in memory."""
        return {seat.label: seat.state for seat in self.hosted.seats}


@asynccontextmanager
async def house(registry: Registry, language: Language, **settings: Any) -> AsyncIterator[House]:
    """A hosted registry that is read; its keeper does not run."""
    made = House(registry, language, **settings)
    await made.catalog.refresh()
    try:
        yield made
    finally:
        await made.keeper.close()
        await made.hosted.close()
        await made.catalog.close()


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.002)
