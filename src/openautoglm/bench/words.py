"""What made prompts are made of: ids for an engine, words for a server."""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from openautoglm.text.tokenizer import Tokenizer

_PLAIN = """the of to and in is that it for was on are as with his they at be this from have or by one had not but what
all were when we there can an your which their said if do will each about how up out them then she many some so these
would other into has more her two like him see time could no make than first been its who now people my made over did
down only way find use may water long little very after words called just where most know"""
_WORD = re.compile(r" [A-Za-z]{2,}")
_FEWEST_WORDS = 32


class Vocabulary(NamedTuple):
    """Pieces that prompts are put together from.

    Attributes:
        ids: [pieces] of tokens; empty where only words are known.
        words: [pieces] each with the space before it; empty where only ids are wanted.
        exact: whether a word is one token, so that lengths are as asked for.
    """

    ids: NDArray[np.int64]
    words: tuple[str, ...]
    exact: bool

    @property
    def size(self) -> int:
        """How many pieces there are."""
        return max(len(self.ids), len(self.words))


def id_vocabulary(tokenizer: Tokenizer | None, vocab_size: int) -> Vocabulary:
    """All ids below `vocab_size` that are no special tokens; without a tokenizer, all."""
    special = set(tokenizer.special.values()) if tokenizer is not None else set()
    ids = np.array([number for number in range(vocab_size) if number not in special], np.int64)
    return Vocabulary(ids, (), True)


def word_vocabulary(tokenizer: Tokenizer | None) -> Vocabulary:
    """Words that are one token each; plain English ones where there is no tokenizer, or too few of those in it."""
    if tokenizer is not None:
        pieces = [(number, piece.decode("utf-8", "replace")) for number, piece in enumerate(tokenizer.pieces)]
        words = [(number, word) for number, word in pieces if _WORD.fullmatch(word)]
        encoded = tokenizer.encode_batch([word for _, word in words])
        kept = [(number, word) for (number, word), ids in zip(words, encoded, strict=True) if ids == [number]]
        if len(kept) >= _FEWEST_WORDS:
            return Vocabulary(np.array([number for number, _ in kept], np.int64), tuple(word for _, word in kept), True)
    return Vocabulary(np.zeros(0, np.int64), tuple(f" {word}" for word in _PLAIN.split()), False)
