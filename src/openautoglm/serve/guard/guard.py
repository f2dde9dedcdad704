"""The guard: every request passes `authenticate`, `Who.require` and `admit`, over whichever interface it came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar, TypeVarTuple

from openautoglm.core import log
from openautoglm.serve.faults import Fault, Overloaded, StoreLost, Unauthorised
from openautoglm.serve.guard import secret
from openautoglm.serve.guard.hosts import refuse_open
from openautoglm.serve.guard.rates import Admission, Failures, Rates
from openautoglm.serve.guard.remembered import Remembered, Seen
from openautoglm.serve.guard.rights import ANYONE, Record, Store, Who
from openautoglm.serve.guard.settings import GuardSettings

_SCHEME = "bearer"
_MOST_CHARACTERS = 256
_TOUCH_S = 60.0
_ASKING = 4  # threads that ask the store
Given = TypeVarTuple("Given")
T = TypeVar("T")
_REMEDY = "send `Authorization: Bearer KEY` with a key made by `autoglm keys create`"


class Guard:
    """Checks keys, once by argon2 and then from memory, and holds rates. To be used from one event loop.

    Args:
        store: where keys are kept; None: keys are off, and everybody on this machine may do everything.
        bind: the address that the server listens on; without keys it must be loopback.
        now: seconds since 1970, for expiry.
        clock: seconds on a clock that does not go back, for rates and for what is remembered.

    Raises:
        TaskError: without a store, on an address that others can reach.
    """

    def __init__(self, store: Store | None, settings: GuardSettings | None = None, *, bind: str = "127.0.0.1",
                 now: Callable[[], float] = time.time, clock: Callable[[], float] = time.monotonic) -> None:
        if store is None:
            refuse_open(bind)
        self.settings = settings or GuardSettings()
        self._store = store
        self._now = now
        self._clock = clock
        self._seen = Remembered(self.settings.remembered)
        self._rates = Rates(clock)
        self._failures = Failures(self.settings.failures_per_min, clock)
        self._hashing = asyncio.Semaphore(self.settings.hash_at_once)
        self._threads = ThreadPoolExecutor(self.settings.hash_at_once + _ASKING, thread_name_prefix="guard")
        self._waiting = 0

    @property
    def keyed(self) -> bool:
        """Whether callers need a key; where they do not, REST sees that `Host` and `Origin` name this machine."""
        return self._store is not None

    async def authenticate(self, header: str | None, client: str = "") -> Who:
        """Say who sends the header ``Authorization``.

        Args:
            header: its value, e.g. ``Bearer autoglm_...``; None where there is none.
            client: address of the peer, without its port; empty where it has none, as on a socket of this machine:
                then wrong keys are bounded by the number of hashes at a time alone.

        Raises:
            Unauthorised: no key, or one that is unknown, expired or revoked; which of them is only logged.
            RateLimited: too many wrong keys from this address.
            Overloaded: too many keys are being checked. StoreLost: the database does not answer.
        """
        if self._store is None:
            return ANYONE
        token = _token(header)
        if token is None:
            raise Unauthorised("a key is needed", remedy=_REMEDY)
        digest = self._seen.digest(token)
        seen = self._seen.get(digest)
        if seen is None:
            record = await self._first(self._store, token, digest, client)
        elif self._clock() - seen.tried_s < self.settings.cached_s:
            record = seen.record
        else:
            record = await self._again(self._store, token, seen)
        if record is None or not record.live(self._now()):
            self._seen.drop(digest)
            self._refuse(token, client)
        assert record is not None
        return self._who(record)

    def admit(self, who: Who, tokens: int = 0) -> Admission:
        """Take a request, and the tokens that it may use, from the rates of `who`; settle the result at its end.

        Raises:
            RateLimited: not now; it says when. TooLarge: more tokens than the key has in a minute.
        """
        return self._rates.admit(who, tokens)

    def forget(self, key_id: str) -> None:
        """Ask the store at once when this key comes again; to be called after it was revoked here."""
        self._seen.forget(lambda record: record.key_id == key_id)

    async def _first(self, store: Store, token: str, digest: bytes, client: str) -> Record | None:
        """Check a key that was not seen lately; wrong ones are counted against the address."""
        self._failures.check(client)
        if secret.id_of(token) is None:  # not of the form of a key, which is no secret
            return None
        if self._waiting >= self.settings.hash_waiting:
            raise Overloaded("too many keys are being checked", retry_after_s=1.0)
        self._waiting += 1
        try:
            async with self._hashing:
                again = self._seen.get(digest)  # another request with this key was here first
                if again is not None:
                    return again.record
                self._failures.check(client)
                return await self._verify(store, token, digest)
        finally:
            self._waiting -= 1

    async def _verify(self, store: Store, token: str, digest: bytes) -> Record | None:
        """One argon2 verification, in a thread; as long for an unknown id."""
        record = await self._thread(store.get, secret.id_of(token) or "")
        if not await self._thread(secret.verify, token, record.hash if record is not None else None):
            return None
        assert record is not None
        if record.live(self._now()):
            at_s = self._clock()
            self._seen.put(Seen(digest, record, hashed_s=at_s, asked_s=at_s, tried_s=at_s))
            await self._touch(store, record)
        return record

    async def _again(self, store: Store, token: str, seen: Seen) -> Record | None:
        """A key that passed before: ask whether it still stands, and compute its hash again once in a while.

        One request asks; those that come meanwhile believe the last answer.
        """
        self._seen.put(replace(seen, tried_s=self._clock()))
        try:
            record = await self._thread(store.get, seen.record.key_id)
        except StoreLost:
            if self._clock() - seen.asked_s < self.settings.outage_s:
                return seen.record
            raise
        if record is None or record.hash != seen.record.hash:
            return None
        hashed_s, at_s = seen.hashed_s, self._clock()
        if at_s - hashed_s > self.settings.remembered_s:
            async with self._hashing:
                if not await self._thread(secret.verify, token, record.hash):
                    return None
            hashed_s = at_s
        self._seen.put(Seen(seen.digest, record, hashed_s=hashed_s, asked_s=at_s, tried_s=at_s))
        await self._touch(store, record)
        return record

    async def _touch(self, store: Store, record: Record) -> None:
        """Note the use, at most once in a while; that it could not be noted is worth no refused request."""
        if record.used_s is not None and self._now() - record.used_s < _TOUCH_S:
            return
        try:
            await self._thread(store.touch, record.key_id)
        except Fault as fault:
            log.get(__name__).warning("the use of a key was not noted", extra={"cause": fault.message})

    async def _thread(self, call: Callable[[*Given], T], *arguments: *Given) -> T:
        """Call what blocks in a thread of our own, so that a store that hangs takes none from others."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)

    def _refuse(self, token: str, client: str) -> None:
        self._failures.count(client)
        log.get(__name__).warning("a wrong key", extra={"client": client, "key_id": secret.id_of(token) or "none"})
        raise Unauthorised("this key does not open anything here: it is wrong, expired or revoked", remedy=_REMEDY)

    def _who(self, record: Record) -> Who:
        return Who(record.scopes, record.key_id, record.requests_per_min or self.settings.requests_per_min,
                   record.tokens_per_min or self.settings.tokens_per_min)


def _token(header: str | None) -> str | None:
    """The key in a header of the form ``Bearer KEY``; None for any other."""
    if header is None or len(header) > _MOST_CHARACTERS:
        return None
    scheme, _, token = header.strip(" \t").partition(" ")
    token = token.strip(" \t")
    return token if scheme.lower() == _SCHEME and token else None
