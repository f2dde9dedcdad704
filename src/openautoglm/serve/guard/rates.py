"""Rates: token buckets, one for each key and kind, and one for each address that sends wrong keys."""

from __future__ import annotations

import ipaddress
import math
from collections import OrderedDict
from collections.abc import Callable

from openautoglm.serve.faults import RateLimited, TooLarge
from openautoglm.serve.guard.rights import Who

_MINUTE_S = 60.0


class Bucket:
    """Holds up to a minute's share, and fills again evenly.

    Args:
        per_min: what may be taken in a minute.
        now_s: the present time, on any clock that does not go back.
    """

    __slots__ = ("_at_s", "_level", "per_min")

    def __init__(self, per_min: float, now_s: float) -> None:
        self.per_min = per_min
        self._level = per_min
        self._at_s = now_s

    def level(self, now_s: float) -> float:
        """What can be taken now; below zero after more was used than was taken."""
        filled = max(0.0, now_s - self._at_s) * self.per_min / _MINUTE_S
        return min(self.per_min, self._level + filled)

    def wait_s(self, amount: float, now_s: float) -> float:
        """How long until `amount` can be taken; 0: now; infinite: more than the bucket holds."""
        if amount > self.per_min:
            return math.inf
        return max(0.0, amount - self.level(now_s)) * _MINUTE_S / self.per_min

    def take(self, amount: float, now_s: float) -> None:
        """Take `amount`, whatever there is; a negative one gives back."""
        self._level = min(self.per_min, self.level(now_s) - amount)
        self._at_s = now_s


class Admission:
    """A request that was let in; `settle` it with what it really used."""

    def __init__(self, bucket: Bucket | None, tokens: int, clock: Callable[[], float]) -> None:
        self._bucket = bucket
        self._tokens = tokens
        self._clock = clock
        self._settled = False

    def settle(self, used: int) -> None:
        """Give back what was asked for and not used, or take what was used beyond; counts once."""
        if self._bucket is not None and not self._settled:
            self._bucket.take(used - self._tokens, self._clock())
        self._settled = True


class Rates:
    """The buckets of all keys; to be used from one event loop or under a lock."""

    def __init__(self, clock: Callable[[], float], most: int = 10_000) -> None:
        self._clock = clock
        self._requests: OrderedDict[str, Bucket] = OrderedDict()
        self._tokens: OrderedDict[str, Bucket] = OrderedDict()
        self._most = most

    def admit(self, who: Who, tokens: int) -> Admission:
        """Take one request and `tokens` from the buckets of `who`, both or neither.

        Args:
            tokens: of the prompt, and as many as the answer may have.

        Raises:
            RateLimited: not now; it says when. TooLarge: more tokens than the key has in a minute.
        """
        now_s = self._clock()
        requests = self._bucket(self._requests, who.key_id, who.requests_per_min, now_s)
        bucket = self._bucket(self._tokens, who.key_id, who.tokens_per_min, now_s)
        for one, amount, unit in ((requests, 1, "requests"), (bucket, tokens, "tokens")):
            wait_s = one.wait_s(amount, now_s) if one is not None else 0.0
            if one is not None and math.isinf(wait_s):
                raise TooLarge(f"{amount:,} {unit} are asked for, this key has {one.per_min:,.0f} a minute",
                               where="max_tokens", remedy="ask for fewer")
            if one is not None and wait_s > 0:
                raise RateLimited(f"this key has used its {one.per_min:,.0f} {unit} a minute",
                                  remedy=f"try again in {math.ceil(wait_s)} s", retry_after_s=wait_s)
        if requests is not None:
            requests.take(1, now_s)
        if bucket is not None:
            bucket.take(tokens, now_s)
        return Admission(bucket, tokens, self._clock)

    def _bucket(self, table: OrderedDict[str, Bucket], key: str, per_min: int | None, now_s: float) -> Bucket | None:
        if per_min is None:
            return None
        found = table.get(key)
        if found is None or found.per_min != per_min:
            found = table[key] = Bucket(per_min, now_s)
        table.move_to_end(key)
        while len(table) > self._most:
            table.popitem(last=False)
        return found


class Failures:
    """Wrong keys by address: each costs a computation, so an address has only so many a minute."""

    def __init__(self, per_min: int, clock: Callable[[], float], most: int = 10_000) -> None:
        self._per_min = per_min
        self._clock = clock
        self._most = most
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def check(self, client: str) -> None:
        """Raise RateLimited where `client` has sent too many wrong keys; one without an address never has."""
        bucket = self._buckets.get(network(client)) if client else None
        wait_s = bucket.wait_s(1, self._clock()) if bucket is not None else 0.0
        if wait_s > 0:
            raise RateLimited("too many wrong keys from this address",
                              remedy=f"try again in {math.ceil(wait_s)} s", retry_after_s=wait_s)

    def count(self, client: str) -> None:
        """Count a wrong key."""
        if not client:
            return
        name, now_s = network(client), self._clock()
        self._buckets.setdefault(name, Bucket(self._per_min, now_s)).take(1, now_s)
        self._buckets.move_to_end(name)
        while len(self._buckets) > self._most:
            self._buckets.popitem(last=False)


def network(client: str) -> str:
    """What counts as one client: an IPv4 address, an IPv6 network of 64 bits, or the text as it is."""
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return client[:64]
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address if address.version == 4 else ipaddress.ip_network((address, 64), strict=False))
