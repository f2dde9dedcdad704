"""llguidance, the library that turns grammars into masks: the one file that knows its names.

Chosen in docs/decisions/010-structured-output-library.md. Imports nothing but the standard library, so that the
process which tries grammars out stays small.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

from openautoglm.core.extras import require

PACKAGE = "llguidance"
EXTRA = "serve"
END_MARK = b"\xff<end>"
"""The piece of one id more than the vocabulary has: allowed by the library exactly where a text may end."""


class Matcher(Protocol):
    """What we use of the library's matcher. It never raises: it enters a state of error and stays in it."""

    def unsafe_compute_mask_ptr(self, trg_pointer: int, trg_byte_size: int) -> None:
        """Write the mask of the next token to an address."""

    def try_consume_tokens(self, tokens: list[int]) -> int:
        """Take tokens as far as they are allowed; how many."""

    def rollback(self, num_tokens: int) -> bool:
        """Forget tokens."""

    def reset(self) -> bool:
        """Forget all tokens."""

    def is_stopped(self) -> bool:
        """Whether nothing can follow, by an error or because the text is whole."""

    def is_accepting(self) -> bool:
        """Whether the text is whole as it is."""

    def is_error(self) -> bool:
        """Whether it is in a state of error."""

    def get_error(self) -> str:
        """Why; empty without an error."""

    def deep_copy(self) -> Matcher:
        """Return a second one at the same place; the two share what they learn about the grammar."""


class _Vocabulary:
    """A vocabulary in the form that the library asks for; text is never tokenised by it."""

    bos_token_id = None
    is_tokenizer_wrapper = True

    def __init__(self, pieces: Sequence[bytes], special: Sequence[int]) -> None:
        self.tokens = [*pieces, END_MARK]
        self.eos_token_id = len(pieces)
        self.special_token_ids = [*special, len(pieces)]

    def __call__(self, text: object) -> list[int]:
        return []


def make_tokenizer(pieces: Sequence[bytes]) -> Any:
    """Sort a vocabulary into the library's trie; ids with an empty piece are never allowed.

    Raises:
        MissingExtraError: the library is not installed.
    """
    library = require(PACKAGE, EXTRA)
    return library.LLTokenizer(_Vocabulary(pieces, []))


def make_matcher(tokenizer: Any, source: str, limits: Mapping[str, int]) -> Matcher:
    """Compile a grammar; see `Matcher.get_error` for what was wrong with it. Lets other threads run meanwhile."""
    library = require(PACKAGE, EXTRA)
    bounds = library.LLParserLimits(verbose_errors=False, **limits)
    return cast(Matcher, library.LLMatcher(tokenizer, source, log_level=0, limits=bounds))


def complaint(schema: str) -> str:
    """What the library has against a JSON schema, by its text; empty for nothing."""
    library = require(PACKAGE, EXTRA).LLMatcher
    return str(library.validate_grammar(library.grammar_from_json_schema(schema)))


class Mask:
    """Room for one mask, as the library writes it.

    Args:
        vocab_size: ids.
    """

    def __init__(self, vocab_size: int) -> None:
        self.bytes = bytearray(vocab_size // 32 * 4 + 4)  # a bit more than the vocabulary, for the end
        self._end = vocab_size
        self._address = ctypes.addressof((ctypes.c_char * len(self.bytes)).from_buffer(self.bytes))

    def fill(self, matcher: Matcher) -> bool:
        """Ask for the mask of the next token; whether the text may end here. The bit of the end is cleared."""
        matcher.unsafe_compute_mask_ptr(self._address, len(self.bytes))
        byte, bit = self._end >> 3, 1 << (self._end & 7)
        ends = bool(self.bytes[byte] & bit)
        self.bytes[byte] &= ~bit & 0xFF
        return ends
