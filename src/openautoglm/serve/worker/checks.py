"""Checks of the fields of messages: type and bounds, and nothing is converted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Check = Callable[[Any], bool]


def whole(low: int, high: int) -> Check:
    """An integer from `low` to `high`; a bool is none."""
    return lambda value: type(value) is int and low <= value <= high


def real(low: float = -math.inf, high: float = math.inf) -> Check:
    """A float or integer from `low` to `high`, infinite only where these are; never NaN."""
    return lambda value: (type(value) is float or type(value) is int) and low <= value <= high


def flag(value: Any) -> bool:
    """A bool."""
    return value is True or value is False


def text(most: int) -> Check:
    """A string of at most so many characters."""
    return lambda value: type(value) is str and len(value) <= most


def data(most: int, unit: int = 1) -> Check:
    """At most so many bytes, a multiple of `unit`."""
    return lambda value: type(value) is bytes and len(value) <= most and len(value) % unit == 0


def one_of(*words: str) -> Check:
    """One of these strings."""
    known = frozenset(words)
    return lambda value: type(value) is str and value in known


def maybe(check: Check) -> Check:
    """None, or what `check` takes."""
    return lambda value: value is None or check(value)


def many(check: Check, most: int) -> Check:
    """A tuple or list of at most so many of what `check` takes."""
    return lambda value: isinstance(value, tuple | list) and len(value) <= most and all(map(check, value))


def row(*checks: Check) -> Check:
    """A tuple or list with a value for each check."""
    return lambda value: (isinstance(value, tuple | list) and len(value) == len(checks)
                          and all(check(item) for check, item in zip(checks, value, strict=True)))
