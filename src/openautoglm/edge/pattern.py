"""Patterns of pre-tokenisers as small tables: alternatives of classes with bounds, no regular expressions at run time.

What is understood is what tokenizers of GLM models and ours use: alternatives, sequences, classes ``[...]``, ``\\p{L}``
and the like, groups (``(?i:...)`` too), a look ahead at one class ``(?!...)``, bounds ``? * + {m} {m,n}``, greedy or
possessive. Which code points a property holds is asked of the tokenizers library itself, so it is of its version of
Unicode.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

from tokenizers import Regex, pre_tokenizers

from openautoglm.core.errors import TokenizerError

NO_BOUND = 0xFFFF
LAST = 0x110000
_PLANES = (*range(4), 14)  # the others hold nothing but unassigned and private code points
_ESCAPES = {"r": "\r", "n": "\n", "t": "\t", "f": "\f", "v": "\v"}
_FOLDS = {"s": "\u017f", "k": "\u212a"}  # letters beyond ASCII that a letter of ASCII folds to
Kind = Literal["class", "none"]
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Element:
    """Some code points of a class; of kind ``none`` a look ahead that the next one is not of it."""

    kind: Kind
    ranges: Ranges
    least: int = 1
    most: int = 1
    possessive: bool = False


Alternative = tuple[Element, ...]


def parse(pattern: str) -> list[Alternative]:
    """The alternatives of a pattern, in the order in which they are tried.

    Raises:
        TokenizerError: it uses something else, or may match nothing at all.
    """
    parser = _Parser(pattern)
    found = parser.alternatives(folded=False)
    if parser.rest:
        raise parser.fault("a bracket is closed that was not opened")
    for alternative in found:
        if not any(element.kind == "class" and element.least for element in alternative):
            raise TokenizerError(f"the pattern {pattern!r} may match an empty text", where="pre_tokenizer",
                                 remedy="export a model whose tokenizer is GLM-4's or ours")
    return found


class _Parser:
    def __init__(self, pattern: str) -> None:
        self.pattern, self.at = pattern, 0

    @property
    def rest(self) -> str:
        return self.pattern[self.at:]

    def fault(self, why: str) -> TokenizerError:
        return TokenizerError(f"the pattern {self.pattern!r} cannot be made a table: at {self.at}, {why}",
                              where="pre_tokenizer", remedy="export a model whose tokenizer is GLM-4's or ours")

    def alternatives(self, *, folded: bool) -> list[Alternative]:
        found = self._sequence(folded=folded)
        while self.rest.startswith("|"):
            self.at += 1
            found = found + self._sequence(folded=folded)
        return found

    def _sequence(self, *, folded: bool) -> list[Alternative]:
        """One sequence; a group in it makes several, in the order in which they are tried."""
        made: list[Alternative] = [()]
        while self.rest and self.rest[0] not in "|)":
            parts = self._atom(folded=folded)
            made = [(*before, *part) for before in made for part in parts]
        return made

    def _atom(self, *, folded: bool) -> list[Alternative]:
        if self.rest.startswith("(?!"):
            self.at += 3
            inner = self.alternatives(folded=folded)
            self._close()
            if len(inner) != 1 or len(inner[0]) != 1 or (inner[0][0].least, inner[0][0].most) != (1, 1):
                raise self.fault("a look ahead at more than one code point")
            return [(replace(inner[0][0], kind="none"),)]
        if group := re.match(r"\(\?(i?):", self.rest):
            self.at += group.end()
            inner = self.alternatives(folded=folded or bool(group[1]))
            self._close()
            if self.rest[:1] in ("?", "*", "+", "{"):
                raise self.fault("a group with a bound")
            return inner
        ranges = self._class(folded=folded)
        least, most, possessive = self._bound()
        return [(Element("class", ranges, least, most, possessive),)]

    def _close(self) -> None:
        if not self.rest.startswith(")"):
            raise self.fault("a group has no end")
        self.at += 1

    def _bound(self) -> tuple[int, int, bool]:
        found = re.match(r"([?*+])|\{(\d+)(?:(,)(\d*))?\}", self.rest)
        if not found:
            return 1, 1, False
        self.at += found.end()
        if found[1]:
            least, most = {"?": (0, 1), "*": (0, NO_BOUND), "+": (1, NO_BOUND)}[found[1]]
        else:
            least = int(found[2])
            most = least if not found[3] else int(found[4]) if found[4] else NO_BOUND
        again = self.rest.startswith("+")
        possessive = again and bool(found[1])
        if again and found[2] and least == 1:  # behind braces a plus repeats, in the library's dialect
            most = NO_BOUND
        elif again and found[2]:
            raise self.fault("a bound of a bound")
        self.at += again
        if self.rest[:1] in ("?", "+", "*") or most > NO_BOUND or least > most:
            raise self.fault("a bound of another kind")
        return least, most, possessive

    def _class(self, *, folded: bool) -> Ranges:
        character = self.rest[0]
        if character == "[":
            return self._brackets(folded=folded)
        if character == "\\":
            return self._escape()
        if character in "(){}?*+^$.]":
            raise self.fault(f"{character!r} in this place")
        self.at += 1
        return _letters(character, folded)

    def _brackets(self, *, folded: bool) -> Ranges:
        self.at += 1
        inverted = self.rest.startswith("^")
        self.at += inverted
        parts: list[tuple[int, int]] = []
        while self.rest and self.rest[0] != "]":
            if self.rest[0] == "[" or self.rest.startswith("&&"):
                raise self.fault("a class within a class")
            if self.rest[0] == "\\":
                parts += self._escape()
                continue
            first = self.rest[0]
            self.at += 1
            if len(self.rest) > 1 and self.rest[0] == "-" and self.rest[1] not in "]\\":
                parts.append((ord(first), ord(self.rest[1]) + 1))
                self.at += 2
                if folded:
                    raise self.fault("a range without regard to case")
            else:
                parts += _letters(first, folded)
        if not self.rest:
            raise self.fault("a class has no end")
        self.at += 1
        merged = _merged(parts)
        return _inverted(merged) if inverted else merged

    def _escape(self) -> Ranges:
        found = re.match(r"\\(?:[pP]\{\^?\w+\}|[sSdDwWrntfv]|[^\w])", self.rest)
        if not found:
            raise self.fault("an unknown escape")
        self.at += found.end()
        text = found[0]
        if text[1] in _ESCAPES:
            return _letters(_ESCAPES[text[1]], False)
        return property_ranges(text) if text[1].isalpha() else _letters(text[1], False)


def _letters(character: str, folded: bool) -> Ranges:
    letters = {character}
    if folded:
        if not character.isascii():
            raise TokenizerError(f"the pattern asks for {character!r} in either case", where="pre_tokenizer",
                                 remedy="export a model whose tokenizer is GLM-4's or ours")
        letters |= {character.lower(), character.upper(), _FOLDS.get(character.lower(), character)}
    return _merged([(ord(letter), ord(letter) + 1) for letter in letters])


@lru_cache(64)
def property_ranges(expression: str) -> Ranges:
    """The code points, in half-open ranges, that an expression such as ``\\p{L}`` matches in the tokenizers library.

    Raises:
        TokenizerError: the library does not know it.
    """
    codes = [code for plane in _PLANES for code in range(plane << 16, (plane + 1) << 16) if not 0xD800 <= code < 0xE000]
    text = "".join(map(chr, codes))
    try:
        splitter = pre_tokenizers.Split(Regex(f"(?:{expression})+"), "removed")
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{expression!r} is no class: {error}", where="pre_tokenizer",
                             remedy="fetch or write tokenizer.json again") from error
    gaps = [place for _, place in splitter.pre_tokenize_str(text)]
    return _merged(list(_between(gaps, codes)))


def _between(gaps: list[tuple[int, int]], codes: list[int]) -> Iterator[tuple[int, int]]:
    """Ranges of code points that lie in none of the gaps, which are places in `codes`."""
    at = 0
    for first, last in [*gaps, (len(codes), len(codes))]:
        start = at
        for place in range(at, first):  # a range ends where code points are left out
            if place + 1 == first or codes[place + 1] != codes[place] + 1:
                yield codes[start], codes[place] + 1
                start = place + 1
        at = last


def _merged(ranges: list[tuple[int, int]]) -> Ranges:
    made: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if made and first <= made[-1][1]:
            made[-1] = (made[-1][0], max(last, made[-1][1]))
        else:
            made.append((first, last))
    return tuple(made)


def _inverted(ranges: Ranges) -> Ranges:
    edges = [0, *(edge for one in ranges for edge in one), LAST]
    return tuple((first, last) for first, last in zip(edges[::2], edges[1::2], strict=True) if first < last)
