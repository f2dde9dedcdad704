"""The registry as one object: its parts share a database and a store.

Everything here blocks but `Registry.run`, which takes any of it to a thread; servers choose models by `catalog`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, TypeVar

from openautoglm.models.bundle import Bundle
from openautoglm.serve.registry import picture, sqlite
from openautoglm.serve.registry.audit import Audit
from openautoglm.serve.registry.bundles import BundleStore
from openautoglm.serve.registry.choose import Snapshot
from openautoglm.serve.registry.conversations import Conversations
from openautoglm.serve.registry.database import Database
from openautoglm.serve.registry.keys import KeyStore
from openautoglm.serve.registry.labels import Labels
from openautoglm.serve.registry.outcomes import OutcomeStore
from openautoglm.serve.registry.places import Place, place
from openautoglm.serve.registry.records import Version
from openautoglm.serve.registry.responses import Responses
from openautoglm.serve.registry.routes import Routes
from openautoglm.serve.registry.schema import bring_up
from openautoglm.serve.registry.settings import RegistrySettings
from openautoglm.serve.registry.versions import Versions
from openautoglm.serve.registry.wishes import Wishes

P = ParamSpec("P")
T = TypeVar("T")


class Registry:
    """An open registry; may be used by many threads, and is a context manager that closes it.

    Attributes:
        versions, labels, routes, wishes: models and what is said of them.
        outcomes: how requests of each version ended.
        audit: who changed what.
        conversations, responses, keys: what the service keeps.
        store: the bundles.
    """

    def __init__(self, place: Place, database: Database) -> None:
        self.place = place
        self.database = database
        self.store = BundleStore(place.store)
        self.versions = Versions(database, self.store)
        self.labels = Labels(database)
        self.routes = Routes(database)
        self.wishes = Wishes(database)
        self.outcomes = OutcomeStore(database)
        self.audit = Audit(database)
        self.conversations = Conversations(database)
        self.responses = Responses(database)
        self.keys = KeyStore(database)
        self._threads = ThreadPoolExecutor(2 * database.settings.pool, thread_name_prefix="registry")

    def snapshot(self) -> Snapshot:
        """Read all models."""
        return picture.snapshot(self.database)

    def revision(self) -> int:
        """How many changes the models have seen."""
        return picture.revision(self.database)

    def bundle(self, version: Version) -> Bundle:
        """Open the bundle of a version, all hashes checked; raises Unavailable where it is missing or damaged."""
        return self.store.open(version)

    def tidy(self) -> dict[str, int]:
        """Remove what has expired or is too old; return counts. To be called now and then, by one server or all."""
        return {"conversations": self.conversations.expire(), "outcomes": self.outcomes.prune(),
                "audit": self.audit.prune()}

    async def run(self, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T:
        """Call something of the registry without blocking the event loop: in a thread of the registry's own.

        A database that hangs takes no threads from others that way: ``await registry.run(registry.keys.get, key_id)``.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, lambda: call(*arguments, **options))

    def close(self) -> None:
        """Close all connections, after what still runs has ended."""
        self._threads.shutdown()
        self.database.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def open_registry(registry: str | os.PathLike[str] | None = None, store: str | os.PathLike[str] | None = None,
                  settings: RegistrySettings | None = None, *, now: Callable[[], float] = time.time) -> Registry:
    """Open a registry, made where there is none, its schema brought up to date.

    Args:
        registry: file or URL; None: ``OPENAUTOGLM_REGISTRY``, else the user's data folder.
        store: folder of copied bundles; None: ``OPENAUTOGLM_STORE``, else beside the database's file.

    Raises:
        BadRequest: a URL that cannot be read. Conflict: a newer version has written it.
        StoreLost, DiskFull: the database does not answer, or has no room.
    """
    where = place(registry, store)
    if where.file is not None:
        sqlite.prepare(where.file)
    database = Database(where, settings or RegistrySettings(), now=now)
    try:
        bring_up(database)
    except BaseException:
        database.close()
        raise
    return Registry(where, database)
