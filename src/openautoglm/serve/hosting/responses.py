"""Answers that were given before, for requests that are the same in everything that shapes an answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from openautoglm.core import log
from openautoglm.serve.hosting.seats import label
from openautoglm.serve.hosting.shelf import Shelf
from openautoglm.serve.registry import responses
from openautoglm.serve.registry.catalog import Catalog
from openautoglm.serve.registry.records import Version
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk

_SHAPELESS = {"model", "stream", "stream_options", "timeout_s", "cache", "user", "metadata", "store", "service_tier",
              "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
"""Fields that say where an answer comes from and how it is sent, not what it is."""
_MOST_WAITING = 256


@dataclass(frozen=True)
class Place:
    """Where the answer to a request is kept.

    Attributes:
        model: the version that answers, as clients can ask for it.
        body: the answer; None where there is none yet.
    """

    key: str
    version: Version
    body: bytes | None

    @property
    def model(self) -> str:
        """See above."""
        return label(self.version)


class CachedResponses:
    """The registry's cache as one server uses it.

    Args:
        shape: what this server does to answers, e.g. how weights are rounded: others' answers are not its own.
        always: also for requests that do not ask for it.
        told: what is called with the version's label and whether its answer was found, each time one is looked for.
    """

    def __init__(self, catalog: Catalog, shelf: Shelf, shape: str = "", *, always: bool = False,
                 told: Callable[[str, bool], None] | None = None) -> None:
        self._registry, self._shelf, self._shape, self._always = catalog.registry, shelf, shape, always
        self._told = told
        self._keeping: set[asyncio.Task[bool]] = set()

    async def find(self, ask: CompletionAsk | ChatAsk, owner: str, sticky: str | None) -> Place | None:
        """Choose the version that is to answer, and look for its answer; None where the cache is not to be used.

        It is used where it is asked for, and where the same request must get the same answer: at temperature 0, or
        with a seed; and not in conversations that are kept, which change with every turn.

        Raises:
            BadRequest, NotFound, Unavailable: as `Shelf.choose`.
        """
        wanted = self._always if ask.cache is None else ask.cache
        same = ask.temperature == 0 or ask.seed is not None
        if not wanted or not same or (isinstance(ask, ChatAsk) and ask.conversation is not None):
            return None
        version = self._shelf.choose(ask.model, sticky)
        if self._shelf.unwanted(version):
            return None
        given = ask.model_dump(exclude=_SHAPELESS, warnings=False)
        fields = {name: value for name, value in given.items() if value is not None}
        shaped = {"kind": type(ask).__name__, "server": self._shape, "ask": exact(fields)}
        key = responses.key(owner, version.fingerprint, shaped)
        place = Place(key, version, await self._registry.run(self._registry.responses.get, key))
        if self._told is not None:
            self._told(place.model, place.body is not None)
        return place

    def keep(self, place: Place, body: bytes) -> None:
        """Keep an answer, after the reply: nobody waits for it, and it may fail."""
        if len(self._keeping) >= _MOST_WAITING:
            return
        task = asyncio.create_task(self._registry.run(self._registry.responses.put, place.key, place.version.id, body))
        self._keeping.add(task)
        task.add_done_callback(self._kept)

    async def close(self) -> None:
        """Wait for what is being kept."""
        await asyncio.gather(*self._keeping, return_exceptions=True)

    def _kept(self, task: asyncio.Task[bool]) -> None:
        self._keeping.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.get(__name__).error("a response was not cached", exc_info=task.exception())


def exact(value: Any) -> Any:
    """JSON that differs wherever the value does: order of keys, and numbers as they were written (``1.50``)."""
    if isinstance(value, dict):
        return {"pairs": [[key, exact(item)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        return [exact(item) for item in value]
    return {"number": str(value)} if isinstance(value, float) else value
