"""No page is lost, lent twice, or said to hold what it does not, whatever comes in what order."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from openautoglm.core.errors import ResourceError
from openautoglm.engine.pages import PagePool, extend_keys

SIZE = 2


def keys_of(tokens: list[int], salt: bytes = b"") -> list[bytes]:
    keys: list[bytes] = []
    extend_keys(keys, tokens, SIZE, salt)
    return keys


def test_keys_stand_for_everything_before_them() -> None:
    assert len(keys_of([1, 2, 3, 4, 5])) == 2
    assert keys_of([1, 2, 3, 4])[1] != keys_of([9, 2, 3, 4])[1]
    assert keys_of([1, 2, 3, 4])[0] == keys_of([1, 2])[0]
    assert keys_of([1, 2], b"one") != keys_of([1, 2], b"other")
    grown = keys_of([1, 2])
    extend_keys(grown, [1, 2, 3, 4], SIZE, b"")
    assert grown == keys_of([1, 2, 3, 4])


def test_a_page_comes_back_to_whoever_begins_alike() -> None:
    pool, keys = PagePool(4, SIZE), keys_of([1, 2, 3, 4])
    pages = pool.take(2)
    assert pool.match(keys) == []
    for page, key in zip(pages, keys, strict=True):
        pool.seal(page, key)
    pool.release(pages)
    assert (pool.held, pool.idle, pool.available) == (0, 2, 4)
    assert pool.match(keys_of([1, 2, 9, 9])) == pages[:1]
    assert pool.match(keys) == pages
    assert pool.shared(pages[0])
    assert not pool.shared(pages[1])


def test_the_end_of_what_was_unused_longest_goes_first() -> None:
    pool = PagePool(4, SIZE)
    old, new = pool.take(2), pool.take(2)
    for pages, tokens in ((old, [1, 1, 2, 2]), (new, [3, 3, 4, 4])):
        for page, key in zip(pages, keys_of(tokens), strict=True):
            pool.seal(page, key)
    pool.release(old)
    pool.release(new)
    assert pool.take(3) == [old[1], old[0], new[1]]
    assert pool.evictions == 3
    assert pool.match(keys_of([3, 3, 4, 4])) == new[:1]


def test_more_than_there_is_is_refused_and_nothing_changes() -> None:
    pool = PagePool(3, SIZE)
    pool.take(2)
    with pytest.raises(ResourceError, match="2 pages are wanted, 1 can be lent"):
        pool.take(2)
    assert pool.available == 1


def test_without_keeping_nothing_is_found_again() -> None:
    pool, keys = PagePool(2, SIZE, keep=False), keys_of([1, 2])
    pages = pool.take(1)
    pool.seal(pages[0], keys[0])
    pool.release(pages)
    assert pool.match(keys) == []
    assert pool.idle == 0


class Machine(RuleBasedStateMachine):
    """Sequences come, grow, fork, copy on write and end; the model knows what every page holds."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = PagePool(7, SIZE)
        self.tokens: list[list[int]] = []  # of sequences
        self.pages: list[list[int]] = []
        self.sealed: list[int] = []
        self.content: dict[int, tuple[int, ...]] = {}  # of full pages: all tokens up to their end

    @rule(tokens=st.lists(st.integers(0, 1), min_size=1, max_size=9))
    def begin(self, tokens: list[int]) -> None:
        keys = keys_of(tokens)
        known = self.pool.known(keys)
        found = self.pool.match(keys)
        assert len(found) == known
        for number, page in enumerate(found):
            assert self.content[page] == tuple(tokens[:(number + 1) * SIZE])
        wanted = -(-len(tokens) // SIZE) - len(found)
        if wanted > self.pool.available:
            self.pool.release(found)
            return
        self.tokens.append(tokens)
        self.pages.append(found + self.pool.take(wanted))
        self.sealed.append(len(found))

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), token=st.integers(0, 1))
    def grow(self, data: st.DataObject, token: int) -> None:
        number = data.draw(st.integers(0, len(self.tokens) - 1))
        tokens, pages = self.tokens[number], self.pages[number]
        place = len(tokens) // SIZE
        if place == len(pages):
            if not self.pool.available:
                return
            pages += self.pool.take(1)
        elif self.pool.shared(pages[place]):
            if not self.pool.available:
                return
            old, (new,) = pages[place], self.pool.take(1)
            self.pool.release([old])
            pages[place] = new
        tokens.append(token)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def seal(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.tokens) - 1))
        tokens, keys = self.tokens[number], keys_of(self.tokens[number])
        for place in range(self.sealed[number], len(keys)):
            page = self.pages[number][place]
            self.content[page] = tuple(tokens[:(place + 1) * SIZE])
            self.pool.seal(page, keys[place])
        self.sealed[number] = len(keys)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.tokens) - 1))
        self.pool.share(self.pages[number])
        self.tokens.append(list(self.tokens[number]))
        self.pages.append(list(self.pages[number]))
        self.sealed.append(self.sealed[number])

    @precondition(lambda self: self.tokens)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        number = data.draw(st.integers(0, len(self.tokens) - 1))
        self.pool.release(self.pages.pop(number))
        del self.tokens[number], self.sealed[number]

    @invariant()
    def every_page_is_held_or_can_be_lent(self) -> None:
        holders = Counter(page for pages in self.pages for page in pages)
        assert self.pool.held == len(holders)
        assert self.pool.held + self.pool.available == self.pool.pages
        assert self.pool.idle <= self.pool.available
        assert all(self.pool.shared(page) == (count > 1) for page, count in holders.items())

    @invariant()
    def no_one_writes_to_what_others_read(self) -> None:
        holders = Counter(page for pages in self.pages for page in pages)
        for tokens, pages in zip(self.tokens, self.pages, strict=True):
            assert len(set(pages)) == len(pages)
            for page in pages[len(tokens) // SIZE:]:
                sharing = [other for other, theirs in zip(self.tokens, self.pages, strict=True) if page in theirs]
                assert holders[page] == len(sharing)
                assert all(other[:len(tokens) // SIZE * SIZE] == tokens[:len(tokens) // SIZE * SIZE]
                           for other in sharing)

    def teardown(self) -> None:
        while self.pages:
            self.pool.release(self.pages.pop())
        assert (self.pool.held, self.pool.available) == (0, self.pool.pages)
        assert len(set(self.pool.take(self.pool.pages))) == self.pool.pages


Machine.TestCase.settings = settings(max_examples=30, stateful_step_count=40, deadline=None)
TestPages = Machine.TestCase
