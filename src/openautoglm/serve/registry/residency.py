"""Which models leave memory when another comes: pure, least recently used first, within a budget."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resident:
    """A model in memory.

    Attributes:
        key: what it is called.
        size_bytes: weights and cache.
        used_s: when it was last used, on any clock.
        pinned: stays, whatever comes.
        busy: requests are running on it; it stays until they are done.
    """

    key: str
    size_bytes: int
    used_s: float
    pinned: bool = False
    busy: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """What to unload, in this order, before the newcomer loads.

    Attributes:
        unload: keys of models, least recently used first.
        fits: whether the newcomer has room after that.
        later: it does not fit now, but will once those that are busy can leave.
        short_bytes: what is missing where it does not fit.
    """

    unload: tuple[str, ...] = ()
    fits: bool = True
    later: bool = False
    short_bytes: int = 0


def plan(size_bytes: int, residents: Iterable[Resident], budget_bytes: int) -> Plan:
    """Plan for a newcomer of `size_bytes`; where it does not fit nothing is unloaded in vain.

    With a size of 0 it brings those that are there back under a budget that has become smaller.
    """
    there = list(residents)
    over_bytes = sum(one.size_bytes for one in there) + size_bytes - budget_bytes
    chosen, over_bytes = _until(there, over_bytes, busy=False)
    if over_bytes <= 0:
        return Plan(_spare(chosen, over_bytes))
    _, still_over_bytes = _until(there, over_bytes, busy=True)
    leaves = tuple(one.key for one in chosen) if size_bytes == 0 else ()
    return Plan(leaves, fits=False, later=still_over_bytes <= 0, short_bytes=over_bytes)


def _until(there: list[Resident], over_bytes: int, *, busy: bool) -> tuple[list[Resident], int]:
    """Choose by last use until nothing is over; return the chosen and what is still over."""
    chosen: list[Resident] = []
    for one in sorted(there, key=lambda one: (one.used_s, one.key)):
        if over_bytes <= 0:
            break
        if not one.pinned and one.busy == busy and one.size_bytes > 0:
            chosen.append(one)
            over_bytes -= one.size_bytes
    return chosen, over_bytes


def _spare(chosen: list[Resident], over_bytes: int) -> tuple[str, ...]:
    """Leave out those that need not go after all: small ones, when a large one had to go later in the order."""
    kept: set[str] = set()
    for one in reversed(chosen):  # the most recently used are spared first
        if one.size_bytes <= -over_bytes:
            kept.add(one.key)
            over_bytes += one.size_bytes
    return tuple(one.key for one in chosen if one.key not in kept)
