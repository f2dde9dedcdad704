"""Who asks, and what the guard needs to know of keys: a small protocol, so that any store can stand behind it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from openautoglm.serve.faults import BadRequest, Forbidden

Scope = Literal["infer", "admin", "metrics"]
SCOPES: tuple[str, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Who:
    """Somebody who was let in.

    Attributes:
        scopes: what they may do.
        key_id: public id of their key; empty where keys are off.
        requests_per_min, tokens_per_min: their rates; None: no bound.
    """

    scopes: frozenset[str]
    key_id: str = ""
    requests_per_min: int | None = None
    tokens_per_min: int | None = None

    @property
    def name(self) -> str:
        """How logs and figures name them."""
        return self.key_id

    @property
    def salt(self) -> bytes:
        """Pages of the cache are shared only among requests of one salt, so that no key can time another's prompts."""
        return hashlib.sha256(self.key_id.encode()).digest()[:16] if self.key_id else b""

    @property
    def actor(self) -> str:
        """How the audit log names them."""
        return f"key:{self.key_id}" if self.key_id else "anyone on this machine"

    def require(self, scope: Scope) -> None:
        """Raise Forbidden where they lack `scope`; no scope holds another."""
        if scope not in self.scopes:
            raise Forbidden(f"this key lacks the scope {scope!r}", remedy="use a key that has it")


ANYONE = Who(frozenset(SCOPES))
"""Everybody, where keys are off."""
NOBODY = Who(frozenset())
"""Who asks for what is open to all."""


class Record(Protocol):
    """What a store knows of a key; times are seconds since 1970, None: never."""

    @property
    def key_id(self) -> str:
        """The public part."""

    @property
    def hash(self) -> str:
        """Argon2 hash of the whole key."""

    @property
    def scopes(self) -> frozenset[str]:
        """What it may do."""

    @property
    def requests_per_min(self) -> int | None:
        """None: as the server's settings say."""

    @property
    def tokens_per_min(self) -> int | None:
        """None: as the server's settings say."""

    @property
    def expires_s(self) -> float | None:
        """When it ends by itself."""

    @property
    def used_s(self) -> float | None:
        """When it was used last, as far as that was noted."""

    def live(self, now_s: float) -> bool:
        """Whether it opens anything at `now_s`."""


class Store(Protocol):
    """Where keys are kept; both calls may block, and raise StoreLost where the store does not answer."""

    def get(self, key_id: str) -> Record | None:
        """Return a key by its public id."""

    def touch(self, key_id: str) -> None:
        """Note that the key was used now."""


def check_scopes(scopes: list[str]) -> frozenset[str]:
    """Return the scopes; raises BadRequest where one is unknown or there is none."""
    wrong = next((scope for scope in scopes if scope not in SCOPES), None)
    if wrong is not None or not scopes:
        raise BadRequest(f"there is no scope {wrong[:40]!r}" if wrong is not None else "a key needs a scope",
                         where="--scope", remedy=f"use {', '.join(SCOPES)}")
    return frozenset(scopes)
