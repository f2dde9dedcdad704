"""Versions that could not be loaded: remembered, so that not every request tries again."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from openautoglm.serve.faults import Unavailable
from openautoglm.serve.registry.records import Version


@dataclass(frozen=True, slots=True)
class _Failure:
    """When it may be tried again, and how long it was put off."""

    until_s: float
    delay_s: float


class Failures:
    """Remembers by the registry's id of a version.

    Args:
        first_s, most_s: how long a version is not tried again; twice as long after each failure, to `most_s`.
    """

    def __init__(self, first_s: float, most_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._first_s, self._most_s, self._clock = first_s, most_s, clock
        self._known: dict[int, _Failure] = {}

    def add(self, version: Version) -> float:
        """Note a failure; return in how many seconds the version may be tried again."""
        before = self._known.get(version.id)
        delay_s = self._first_s if before is None else min(2 * before.delay_s, self._most_s)
        self._known[version.id] = _Failure(self._clock() + delay_s, delay_s)
        return delay_s

    def forget(self, version: Version) -> None:
        """It was loaded, or somebody asks for another try."""
        self._known.pop(version.id, None)

    def keep(self, ids: Collection[int]) -> None:
        """Forget all other versions: they are gone."""
        self._known = {key: failure for key, failure in self._known.items() if key in ids}

    def failing(self, version: Version) -> bool:
        """Whether the last try failed."""
        return version.id in self._known

    def waiting(self, version: Version) -> bool:
        """Whether it is too early for another try."""
        return self.failing(version) and self._known[version.id].until_s > self._clock()

    def fault(self, version: Version) -> Unavailable:
        """What clients are told; why it is so is in the log alone."""
        left_s = self._known[version.id].until_s - self._clock() if self.failing(version) else self._first_s
        return Unavailable(f"{version.model}/{version.number} cannot be loaded now", where="model",
                           remedy="try again later, or ask for another version", retry_after_s=max(1.0, left_s))
