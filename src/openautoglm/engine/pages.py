"""Pages of the KV cache: lent, shared, kept for later requests that begin alike, and taken back.

A page is *held* while sequences refer to it, *idle* when none does but its tokens may be wanted again, and *free*
otherwise. A full page is known by a digest of its tokens and of all tokens before them, so equal digests mean equal
keys and values. Idle pages are given away when free ones run out, the longest unused first.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from openautoglm.core.errors import ResourceError


def extend_keys(keys: list[bytes], tokens: Sequence[int], page_size: int, salt: bytes) -> None:
    """Append to `keys` the digests of the full pages of `tokens` that it lacks."""
    for number in range(len(keys), len(tokens) // page_size):
        before = keys[-1] if keys else blake2b(salt, digest_size=32).digest()
        page = array("i", tokens[number * page_size:(number + 1) * page_size])
        keys.append(blake2b(before + page.tobytes(), digest_size=32).digest())


class PagePool:
    """Who refers to which page.

    Args:
        pages: pages of the cache.
        page_size: tokens of a page.
        keep: keep full pages whose sequences have ended, for others that begin alike.

    Attributes:
        asked_tokens, hit_tokens: of admitted sequences: all tokens, and those found in the cache.
        evictions: idle pages given away.
    """

    def __init__(self, pages: int, page_size: int, *, keep: bool = True) -> None:
        self.pages, self.page_size, self._keep = pages, page_size, keep
        self.asked_tokens = self.hit_tokens = self.evictions = 0
        self._references = [0] * pages
        self._free = list(range(pages - 1, -1, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._key_of: list[bytes | None] = [None] * pages
        self._page_of: dict[bytes, int] = {}

    @property
    def available(self) -> int:
        """Pages that can be lent now."""
        return len(self._free) + len(self._idle)

    @property
    def held(self) -> int:
        """Pages that sequences refer to."""
        return self.pages - self.available

    @property
    def idle(self) -> int:
        """Pages kept for later requests."""
        return len(self._idle)

    def shared(self, page: int) -> bool:
        """Whether several sequences refer to a page, so that none may write to it."""
        return self._references[page] > 1

    def take(self, count: int) -> list[int]:
        """Lend pages whose content does not matter.

        Raises:
            ResourceError: there are not so many.
        """
        if count > self.available:
            raise ResourceError(f"{count} pages are wanted, {self.available} can be lent",
                                remedy="wait for sequences to end, or load the program with more pages")
        taken = []
        for _ in range(count):
            page = self._free.pop() if self._free else self._evict()
            self._references[page] = 1
            taken.append(page)
        return taken

    def match(self, keys: Iterable[bytes]) -> list[int]:
        """Lend the pages that hold the longest known beginning of `keys`."""
        found = []
        for key in keys:
            page = self._page_of.get(key)
            if page is None:
                break
            if self._references[page] == 0:
                del self._idle[page]
            self._references[page] += 1
            found.append(page)
        return found

    def known(self, keys: Iterable[bytes]) -> int:
        """How many of the first `keys` are known; lends nothing."""
        count = 0
        for key in keys:
            if key not in self._page_of:
                break
            count += 1
        return count

    def share(self, pages: Iterable[int]) -> None:
        """Let one more sequence refer to held pages."""
        for page in pages:
            self._references[page] += 1

    def release(self, pages: Sequence[int]) -> None:
        """End a sequence's references. Of pages given back together, the last ones are given away first."""
        for page in reversed(pages):
            self._references[page] -= 1
            if self._references[page] == 0:
                if self._key_of[page] is None:
                    self._free.append(page)
                else:
                    self._idle[page] = None

    def seal(self, page: int, key: bytes) -> None:
        """Say that a held page is full and what it holds; a page that holds the same already stays the known one."""
        if self._keep and key not in self._page_of and self._key_of[page] is None:
            self._page_of[key] = page
            self._key_of[page] = key

    def count(self, asked: int, hit: int) -> None:
        """Note for the hit rate how many tokens of an admitted sequence were in the cache."""
        self.asked_tokens += asked
        self.hit_tokens += hit

    def _evict(self) -> int:
        page, _ = self._idle.popitem(last=False)
        key = self._key_of[page]
        if key is not None:
            del self._page_of[key]
        self._key_of[page] = None
        self.evictions += 1
        return page
