"""Successful checks, remembered for a while under a keyed hash: the keys themselves are in no table of ours."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from openautoglm.serve.guard.rights import Record


@dataclass(frozen=True, slots=True)
class Seen:
    """A key that passed.

    Attributes:
        record: what the store knew of it.
        hashed_s: when its hash was computed last.
        asked_s: when the store answered last.
        tried_s: when it was asked last, whether it answered or not.
    """

    digest: bytes
    record: Record
    hashed_s: float
    asked_s: float
    tried_s: float


class Remembered:
    """Bounded by number, the least recently used leave first; safe to use from threads."""

    def __init__(self, most: int) -> None:
        self._secret = secrets.token_bytes(32)  # of this process alone
        self._most = most
        self._seen: OrderedDict[bytes, Seen] = OrderedDict()
        self._lock = threading.Lock()

    def digest(self, token: str) -> bytes:
        """The keyed hash of a key."""
        return hmac.digest(self._secret, token.encode("utf-8", "surrogatepass"), hashlib.sha256)

    def get(self, digest: bytes) -> Seen | None:
        """What is known of the key behind `digest`; compared in constant time."""
        with self._lock:
            found = self._seen.get(digest)
            if found is None or not hmac.compare_digest(found.digest, digest):
                return None
            self._seen.move_to_end(digest)
            return found

    def put(self, seen: Seen) -> None:
        """Remember a key that passed."""
        with self._lock:
            self._seen[seen.digest] = seen
            self._seen.move_to_end(seen.digest)
            while len(self._seen) > self._most:
                self._seen.popitem(last=False)

    def drop(self, digest: bytes) -> None:
        """Forget a key."""
        with self._lock:
            self._seen.pop(digest, None)

    def forget(self, matches: Callable[[Record], bool]) -> None:
        """Forget all keys of which `matches` says so."""
        with self._lock:
            for digest in [digest for digest, seen in self._seen.items() if matches(seen.record)]:
                del self._seen[digest]
