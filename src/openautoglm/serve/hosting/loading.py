"""From a version of the registry to a service that answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from openautoglm.models.bundle import is_packed
from openautoglm.serve.backend import Backend
from openautoglm.serve.faults import Unavailable
from openautoglm.serve.hosting.conversations import Kept
from openautoglm.serve.hosting.judge import Judge
from openautoglm.serve.hosting.seats import label
from openautoglm.serve.registry.catalog import Catalog
from openautoglm.serve.registry.records import Version
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.service import Service, ServiceSettings
from openautoglm.serve.service.values import Observer


class Loader(Protocol):
    """Loads versions."""

    async def estimate(self, version: Version) -> int:
        """About how many bytes its weights will take."""

    async def load(self, version: Version) -> Service:
        """Return a service whose backend has generated a token.

        Raises:
            AutoGLMError, OSError: it cannot be loaded; nothing of it is left in memory.
        """


class BundleLoader:
    """Loads the bundles of a registry.

    Args:
        make: makes a backend for the bundle at a path; may block, and is called in a thread.
        observers: are told what happens to requests, besides the version's own `Judge`.
        warm_s: how long the first token may take.
    """

    def __init__(self, catalog: Catalog, make: Callable[[Path], Backend], settings: ServiceSettings, *,
                 observers: Sequence[Observer] = (), warm_s: float = 60.0) -> None:
        self._catalog, self._make, self._settings = catalog, make, settings
        self._observers, self._warm_s = tuple(observers), warm_s
        self._store = catalog.registry.store

    async def estimate(self, version: Version) -> int:
        """See `Loader`; of a bundle with packed weights, which lie there twice, one kind is counted."""
        return await asyncio.to_thread(_weights, self._store.path(version), version.size_bytes)

    async def load(self, version: Version) -> Service:
        """See `Loader`. All hashes are checked against the card, and the card against the registry."""
        language = await asyncio.to_thread(self._language, version)
        backend = await asyncio.to_thread(self._make, self._store.path(version))
        try:
            await backend.start()
            await backend.probe(self._warm_s)
            if await asyncio.to_thread(self._store.health, version) != "whole":
                raise Unavailable(f"the bundle of {version.uri} was changed while it was loaded")
            kept = Kept(self._catalog.registry, label(version))
            return Service(label(version), language, backend, self._settings, conversations=kept,
                           observers=(*self._observers, Judge(self._catalog, version)))
        except BaseException:
            await backend.close()
            raise

    def _language(self, version: Version) -> Language:
        language = Language.of(self._store.open(version))
        language.tokenizer.pieces  # noqa: B018 - read here, in a thread, as it takes a while
        return language


def _weights(path: Path, size_bytes: int) -> int:
    if not path.is_dir():
        return size_bytes
    sizes = {file.name: file.stat().st_size for file in path.glob("*.safetensors")}
    packed = [size for name, size in sizes.items() if is_packed(name)]
    return max([sum(sizes.values()) - sum(packed), *packed]) or size_bytes
