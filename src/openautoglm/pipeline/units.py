"""Amounts as people write them: ``25m``, ``1h30m``, ``2GB``, ``30M``."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

_NUMBER = r"(\d+(?:\.\d+)?)"
_DURATION = re.compile(rf"(?:{_NUMBER}\s*h)?\s*(?:{_NUMBER}\s*m(?:in)?)?\s*(?:{_NUMBER}\s*s)?")
_SIZE = re.compile(rf"{_NUMBER}\s*([kmgt]?)(i?)b?", re.IGNORECASE)
_COUNT = re.compile(rf"{_NUMBER}\s*([kmb]?)", re.IGNORECASE)
_STEPS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def parse_minutes(value: Any) -> Any:
    """``25`` (minutes), ``"25m"``, ``"1h30m"``, ``"90s"`` -> minutes; other values are left to pydantic.

    Raises:
        ValueError: text that is not a duration.
    """
    if not isinstance(value, str):
        return value
    text = value.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    found = _DURATION.fullmatch(text)
    if not text or not found or not any(found.groups()):
        raise ValueError(f"{value!r} is not a duration; write 25 (minutes), 25m, 1h30m or 90s")
    hours, minutes, seconds = (float(part or 0) for part in found.groups())
    return hours * 60 + minutes + seconds / 60


def parse_bytes(value: Any) -> Any:
    """``"2GB"``, ``"512MiB"``, ``1000`` -> bytes (GB is 10^9, GiB 2^30); other values are left to pydantic.

    Raises:
        ValueError: text that is not a size.
    """
    if not isinstance(value, str):
        return value
    found = _SIZE.fullmatch(value.strip())
    if not found:
        raise ValueError(f"{value!r} is not a size; write 2GB, 512MiB or a number of bytes")
    number, prefix, binary = found.groups()
    return int(float(number) * (1024 if binary else 1000) ** _STEPS[prefix.lower()])


def parse_count(value: Any) -> Any:
    """``"30M"``, ``"1.5B"``, ``3000000`` -> a whole number; other values are left to pydantic.

    Raises:
        ValueError: text that is not a count.
    """
    if not isinstance(value, str):
        return value
    found = _COUNT.fullmatch(value.strip().replace("_", ""))
    if not found:
        raise ValueError(f"{value!r} is not a count; write 3000000, 30M or 1.5B")
    number, prefix = found.groups()
    return int(float(number) * {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}[prefix.lower()])


def minutes_text(minutes: float) -> str:
    """Minutes as a short text: ``0.5`` -> ``30 s``, ``95`` -> ``1 h 35 min``."""
    seconds = round(minutes * 60)
    if seconds < 120:
        return f"{seconds} s"
    hours, rest = divmod(round(seconds / 60), 60)
    return f"{hours} h {rest} min" if hours else f"{rest} min"


def bytes_text(size: float) -> str:
    """Bytes as a short text with decimal prefixes."""
    for prefix in ("B", "kB", "MB", "GB"):
        if abs(size) < 1000:
            return f"{size:.0f} {prefix}" if prefix == "B" else f"{size:.1f} {prefix}"
        size /= 1000
    return f"{size:.1f} TB"


Minutes = Annotated[float, BeforeValidator(parse_minutes), Field(gt=0)]
Bytes = Annotated[int, BeforeValidator(parse_bytes), Field(gt=0)]
Count = Annotated[int, BeforeValidator(parse_count), Field(gt=0)]
