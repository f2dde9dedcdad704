"""Who may do what: the seam to whatever knows keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

Scope = Literal["infer", "metrics", "admin"]
SCOPES: frozenset[str] = frozenset(get_args(Scope))


@dataclass(frozen=True)
class Who:
    """A caller that is known.

    Attributes:
        name: of the key, for logs and figures; never the key itself. Empty where keys are off.
        scopes: what it may do.
        salt: pages of the cache are shared only among callers of the same salt.
    """

    name: str = ""
    scopes: frozenset[str] = frozenset()
    salt: bytes = b""


class Guard(Protocol):
    """Tells who calls."""

    @property
    def keyed(self) -> bool:
        """Whether callers need a key."""

    async def authenticate(self, authorization: str | None) -> Who:
        """Tell whose the value of an ``Authorization`` header (``Bearer KEY``) is.

        Raises:
            Unauthorised: there is none, or no such key.
            RateLimited: the key has used up its share for now.
            StoreLost: the keys cannot be read.
        """


class NoKeys:
    """A guard for loopback alone: everybody may do everything."""

    keyed = False

    async def authenticate(self, authorization: str | None) -> Who:
        """See `Guard`."""
        return Who(scopes=SCOPES)
