"""The models of a server by name: the seam to whatever loads them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from openautoglm.serve.faults import NotFound
from openautoglm.serve.service.readiness import Readiness
from openautoglm.serve.service.service import Service
from openautoglm.serve.wire.asks import ChatAsk, CompletionAsk


def sticky_key(ask: CompletionAsk | ChatAsk, owner: str) -> str | None:
    """What keeps requests at one version of a model: the conversation, else the client's user, else the key.

    Args:
        owner: name of the caller's key; empty where keys are off.
    """
    for kind, name in (("c", ask.conversation if isinstance(ask, ChatAsk) else None), ("u", ask.user)):
        if name is not None:
            return f"{owner}\0{kind}\0{name}"
    return owner or None


@dataclass(frozen=True)
class Model:
    """What a client may know of a model.

    Attributes:
        created: seconds since 1970.
        max_tokens: of prompt and answer together; None while it is not loaded.
        fingerprint: of its files; None while it is not loaded.
    """

    name: str
    created: int
    max_tokens: int | None = None
    fingerprint: str | None = None


class Models(Protocol):
    """Finds models by their names."""

    async def listed(self) -> Sequence[Model]:
        """All that can be asked for."""

    def use(self, name: str | None, *, key: str | None = None,
            timeout_s: float | None = None) -> AbstractAsyncContextManager[Service]:
        """The service of a model, which stays loaded within; the only one, or a default, where no name is given.

        Args:
            key: requests of the same key (a conversation, a user) go to the same version, where there are several.
            timeout_s: how long it may take until it is loaded.

        Raises:
            NotFound: there is no such model.
            Unavailable: it cannot be loaded now.
            TimedOut: it was not loaded in time.
        """

    def loaded(self) -> Mapping[str, Service]:
        """Those that are loaded now."""

    async def unready(self) -> str | None:
        """Why the server cannot serve; None where it can."""

    async def drain(self, timeout_s: float) -> bool:
        """Take nothing in any more, and wait for what is under way; whether it ended in time."""


State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]


@dataclass(frozen=True)
class Held:
    """One version as an administrator sees it.

    Attributes:
        version: its number, as text.
        state: whether it is in memory; UNAVAILABLE is not an error, it may be loaded on first use.
        reason: why it is not, where that is known.
    """

    name: str
    version: str
    state: State
    reason: str = ""


class Repository(Protocol):
    """Loads and unloads models at an administrator's wish; a server of one bundle has none."""

    async def index(self) -> Sequence[Held]:
        """All versions that are known."""

    async def load(self, name: str, version: str | None, by: str, *, pin: bool | None = None) -> None:
        """Load a version, the one that a bare name means where none is given; returns when it is ready.

        Args:
            by: who asks, for the audit log.
            pin: never unload it to make room; as it was where None.

        Raises:
            NotFound: there is no such model.
            Unavailable: it cannot be loaded: no room, or damaged.
        """

    async def unload(self, name: str, version: str | None, by: str) -> None:
        """Unload it after its running requests have ended; no request loads it again until `load`.

        Raises:
            NotFound: there is no such model.
        """


class OneModel:
    """The models of a server that has one."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._readiness = Readiness(service.backend)

    async def listed(self) -> Sequence[Model]:
        """See `Models`."""
        service = self._service
        return (Model(service.name, service.created, service.backend.facts.max_tokens, service.fingerprint),)

    @asynccontextmanager
    async def use(self, name: str | None, *, key: str | None = None,
                  timeout_s: float | None = None) -> AsyncIterator[Service]:
        """See `Models`."""
        if name not in (None, self._service.name):
            raise NotFound(f"there is no model {str(name)[:100]!r}", where="model",
                           remedy=f"ask for {self._service.name!r}; /v1/models lists what there is")
        yield self._service

    def loaded(self) -> Mapping[str, Service]:
        """See `Models`."""
        return {self._service.name: self._service}

    async def unready(self) -> str | None:
        """See `Models`."""
        return "the server is ending" if self._service.queue.closed else await self._readiness.fault()

    async def drain(self, timeout_s: float) -> bool:
        """See `Models`."""
        return await self._service.drain(timeout_s)
