"""Where one answer stands in a grammar: which ids may come next, and whether it may end."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import GenerationError
from openautoglm.engine.grammar_library import Mask, Matcher

UInt32 = NDArray[np.uint32]


class GrammarState:
    """The grammar of one answer; for one thread at a time. Made by `GrammarCompiler.compile`.

    The tables that the library builds as texts need them are shared by all states of one grammar, and have bounds.
    A state that finds them full goes on with tables of its own, so that one answer's text cannot end another's.

    Args:
        matcher: at the beginning of the grammar.
        fresh: makes a matcher with tables of its own.
        vocab_size: ids.
        stop_ids: ids that end an answer; allowed where the grammar is complete, and nowhere else.
    """

    def __init__(self, matcher: Matcher, fresh: Callable[[], Matcher], vocab_size: int,
                 stop_ids: Iterable[int]) -> None:
        self._matcher, self._fresh, self._vocab_size = matcher, fresh, vocab_size
        self._stops = frozenset(stop for stop in stop_ids if 0 <= stop < vocab_size)
        self._mask = Mask(vocab_size)
        self._words = np.frombuffer(self._mask.bytes, np.uint32)
        self._stop_words = np.zeros_like(self._words)
        for stop in self._stops:
            self._stop_words[stop >> 5] |= np.uint32(1 << (stop & 31))
        self._tokens: list[int] = []
        self._ended = self._own = False

    @property
    def complete(self) -> bool:
        """Whether the answer may end here."""
        return self._ended or self._look()

    @property
    def finished(self) -> bool:
        """Whether nothing may follow but a stop id, or one has come already."""
        return self._ended or (self._matcher.is_stopped() and not self._matcher.is_error())

    def fill_mask(self, out: UInt32) -> None:
        """Set bit ``i % 32`` of word ``i // 32`` for every id i that may come next, and clear the others.

        Args:
            out: [ceil(ids / 32)] of as many ids as can be chosen, e.g. of the model's vocabulary.

        Raises:
            GenerationError: the grammar is too complex for its limits.
        """
        out[:] = 0
        if self._ended:
            return
        words = self._words | self._stop_words if self._look() else self._words & ~self._stop_words
        width = min(len(out), len(words))
        out[:width] = words[:width]

    def advance(self, token: int) -> bool:
        """Take a token; False when the grammar does not allow it, and then nothing has changed.

        Raises:
            GenerationError: the grammar is too complex for its limits.
        """
        if self._ended or not 0 <= token < self._vocab_size:
            return False
        if token in self._stops:
            self._ended = self._look()
            return self._ended
        if not self._take(token):
            self._look()  # tells full tables, which allow nothing either, from a token that is not allowed
            if not self._allows(token) or not self._take(token):
                return False
        self._tokens.append(token)
        return True

    def rollback(self, n: int) -> None:
        """Forget the last `n` tokens.

        Raises:
            GenerationError: there are not so many.
        """
        count = len(self._tokens) + self._ended
        if not 0 <= n <= count:
            raise GenerationError(f"{n} tokens cannot be taken back, there are {count}", where="grammar",
                                  remedy="take back no more than were taken")
        if n and self._ended:
            self._ended, n = False, n - 1
        if n:
            del self._tokens[len(self._tokens) - n:]
            if not self._matcher.rollback(n):
                self._renew()

    def copy(self) -> GrammarState:
        """A second state at the same place, e.g. for another answer to the same request."""
        other = GrammarState(self._matcher.deep_copy(), self._fresh, self._vocab_size, self._stops)
        other._tokens, other._ended, other._own = [*self._tokens], self._ended, self._own
        return other

    def _take(self, token: int) -> bool:
        return self._matcher.try_consume_tokens([token]) == 1

    def _allows(self, token: int) -> bool:
        return bool(int(self._words[token >> 5]) >> (token & 31) & 1)

    def _look(self) -> bool:
        """Bring the mask up to date; whether the answer may end here."""
        ends = self._mask.fill(self._matcher)
        if self._matcher.is_error():
            self._renew()
            ends = self._mask.fill(self._matcher)
            if self._matcher.is_error():
                raise self._too_complex()
        return ends

    def _renew(self) -> None:
        """Take tables of one's own in place of full ones, and follow the tokens so far again."""
        if self._own and self._matcher.is_error():
            raise self._too_complex()
        self._matcher, self._own = self._fresh(), True
        if self._matcher.try_consume_tokens(self._tokens) != len(self._tokens):
            raise self._too_complex()

    def _too_complex(self) -> GenerationError:
        return GenerationError(f"the grammar became too complex after {len(self._tokens)} tokens: "
                               f"{self._matcher.get_error().splitlines()[:1]}", where="grammar",
                               remedy="bound its repetitions and alternatives more tightly, or raise table_states "
                                      "or step_fuel")
