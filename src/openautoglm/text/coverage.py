"""What of a record a text covers: are the values of its fields mentioned?

Knows no data set: a field is a name and a value, and a value is covered when it stands in the text after both
are brought to one plain form.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_NOT_WORD = re.compile(r"[^\w]+")
_SPACED = re.compile(r"[a-z0-9]")


def normalise(text: str) -> str:
    """Return `text` case-folded, without accents; whatever is neither letter nor digit becomes one space.

    ``"Café  Brazil's (£20-25)"`` becomes ``"cafe brazil s 20 25"``.
    """
    folded = unicodedata.normalize("NFKD", text).casefold()
    bare = "".join(character for character in folded if not unicodedata.combining(character))
    return _NOT_WORD.sub(" ", bare.replace("_", " ")).strip()


def mentions(text: str, value: str) -> bool:
    """Tell whether `value` stands in `text` at word borders, both normalised.

    Scripts that write no spaces have no word borders. An empty value is always covered.
    """
    return _contains(f" {normalise(text)} ", normalise(value))


def coverage(fields: Iterable[tuple[str, str]], text: str) -> float:
    """Return the share of the fields whose value `text` mentions, 0 to 1; 1 when no field has a value."""
    padded = f" {normalise(text)} "
    found = [_contains(padded, value) for value in (normalise(value) for _, value in fields) if value]
    return sum(found) / len(found) if found else 1.0


def missing(fields: Iterable[tuple[str, str]], text: str) -> tuple[tuple[str, str], ...]:
    """Return the fields whose value `text` does not mention."""
    padded = f" {normalise(text)} "
    return tuple((name, value) for name, value in fields if not _contains(padded, normalise(value)))


def _contains(padded: str, value: str) -> bool:
    return (f" {value} " if _SPACED.search(value) else value) in padded
