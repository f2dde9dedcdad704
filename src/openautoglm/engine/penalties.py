"""What changes the logits of one sequence before a token is chosen: penalties, biases, bounds, a grammar's mask.

In this order: repetition penalty (over the prompt and the answer), presence and frequency penalties (over the answer),
logit bias, stop ids masked before `min_tokens`, the grammar's mask. Letter: V ids.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from openautoglm.core.errors import GenerationError
from openautoglm.engine.request import Decoding, GrammarState

Float32 = NDArray[np.float32]


class Shaper:
    """Changes rows of logits for one sequence, whose tokens it is told one by one.

    Args:
        prompt: ids.
        decoding: the request's options.
        stops: ids that end the answer.
        vocab_size: ids that may be generated are below.
        grammar: what the answer must follow, at its beginning.
    """

    def __init__(self, prompt: Sequence[int], decoding: Decoding, stops: frozenset[int], vocab_size: int,
                 grammar: GrammarState | None = None) -> None:
        self._repetition = decoding.repetition_penalty
        self._presence, self._frequency = decoding.presence_penalty, decoding.frequency_penalty
        self._counts: dict[int, int] = {}
        self._prompt = frozenset(prompt) if self._repetition != 1 else frozenset()
        self._bias_ids = np.array([token for token, _ in decoding.logit_bias], np.int64)
        self._bias = np.array([bias for _, bias in decoding.logit_bias], np.float32)
        self._stops = np.array(sorted(stop for stop in stops if stop < vocab_size), np.int64)
        self._min_tokens, self._generated = decoding.min_tokens, 0
        self._vocab_size, self._grammar = vocab_size, grammar
        self._words = np.zeros(-(-vocab_size // 32), np.uint32) if grammar is not None else None

    def fork(self) -> Shaper:
        """Return a second one for a beam that has the same tokens so far."""
        other = object.__new__(Shaper)
        other.__dict__.update(self.__dict__)
        other._counts = dict(self._counts)
        other._grammar = self._grammar.copy() if self._grammar is not None else None
        return other

    @property
    def ended(self) -> bool:
        """Whether the grammar allows nothing more."""
        return self._grammar is not None and self._grammar.finished

    def apply(self, row_V: Float32) -> None:
        """Change the logits of the next token in place.

        Raises:
            GenerationError: the grammar allows no id.
        """
        if self._repetition != 1:
            ids = np.fromiter(self._prompt.union(self._counts), np.int64)
            ids = ids[ids < self._vocab_size]
            seen = row_V[ids]
            row_V[ids] = np.where(seen > 0, seen / np.float32(self._repetition), seen * np.float32(self._repetition))
        if self._counts and (self._presence or self._frequency):
            ids = np.fromiter(self._counts.keys(), np.int64)
            counts = np.fromiter(self._counts.values(), np.float32)
            row_V[ids] -= np.float32(self._presence) + np.float32(self._frequency) * counts
        if len(self._bias):
            row_V[self._bias_ids] += self._bias
        if self._generated < self._min_tokens:
            row_V[self._stops] = -np.inf
        if self._grammar is not None and self._words is not None:
            self._mask(row_V, self._grammar, self._words)

    def push(self, token: int) -> bool:
        """Take a token; False when the grammar does not allow it, and then nothing has changed."""
        if self._grammar is not None and not self._grammar.advance(token):
            return False
        self._counts[token] = self._counts.get(token, 0) + 1
        self._generated += 1
        return True

    def pop(self, tokens: Sequence[int]) -> None:
        """Forget the last tokens, which were these."""
        for token in tokens:
            self._counts[token] -= 1
            if not self._counts[token]:
                del self._counts[token]
        self._generated -= len(tokens)
        if self._grammar is not None and tokens:
            self._grammar.rollback(len(tokens))

    def _mask(self, row_V: Float32, grammar: GrammarState, words: NDArray[np.uint32]) -> None:
        grammar.fill_mask(words)
        allowed = np.unpackbits(words.view(np.uint8), count=self._vocab_size, bitorder="little").view(np.bool_)
        row_V[:self._vocab_size][~allowed] = -np.inf
        if not allowed.any():
            raise GenerationError("the grammar allows no token", where="grammar",
                                  remedy="check the grammar against the vocabulary and the request's stop ids")
