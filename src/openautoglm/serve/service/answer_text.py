"""From ids to the text of one answer, piece by piece; only what is certain is shown."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from openautoglm.engine.text_stream import StopFilter
from openautoglm.serve.service.values import TokenLogprob
from openautoglm.text.tokenizer import Tokenizer

_DECODER = codecs.getincrementaldecoder("utf-8")


class AnswerText:
    """The text of one answer as it grows: the same as the tokenizer's of all its ids, at a fraction of the time.

    Args:
        pieces: bytes of each id.
        stops: strings that end the text.
        drop: text that is left out where the answer begins with it.

    Attributes:
        last: when its last token came; None before the first.
    """

    def __init__(self, pieces: Sequence[bytes], stops: Sequence[str] = (), drop: str = "") -> None:
        self._pieces, self._drop = pieces, drop
        self.last: float | None = None
        self._decode = _DECODER("replace").decode
        self._filter = StopFilter(stops) if stops else None

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the text."""
        return self._filter is not None and self._filter.stopped is not None

    def feed(self, ids: Sequence[int]) -> str:
        """Take new ids; return the text that is certain now."""
        pieces = self._pieces
        text = self._decode(pieces[ids[0]] if len(ids) == 1 else b"".join([pieces[token] for token in ids]))
        return self._show(text) if self._drop or self._filter is not None else text

    def finish(self) -> str:
        """Return what was held back; the answer has ended."""
        text = self._decode(b"", True)
        if self._drop or self._filter is not None:
            text = self._show(text) if text else text
            if self._filter is not None and not self.stopped:
                text += self._filter.rest()
        return text

    def _show(self, text: str) -> str:
        if self.stopped:
            return ""
        if self._drop and text:
            text, self._drop = text.removeprefix(self._drop), ""
        return self._filter.show(text) if self._filter is not None and text else text


class TokenTexts:
    """Single tokens in text form, for log-probabilities."""

    def __init__(self, tokenizer: Tokenizer, pieces: Sequence[bytes]) -> None:
        self._pieces = pieces
        self._special = {number: text for text, number in tokenizer.special.items()}

    def text(self, token: int) -> tuple[str, bytes]:
        """The text and the bytes of an id; a special token has a name and no bytes."""
        if token in self._special:
            return self._special[token], b""
        piece = self._pieces[token] if token < len(self._pieces) else b""
        return piece.decode("utf-8", "replace"), piece

    def logprobs(self, ids: Sequence[int], logprobs: Sequence[float],
                 alternatives: Sequence[Sequence[tuple[int, float]]]) -> tuple[TokenLogprob, ...]:
        """Put the log-probabilities of a piece in text form; the one of a stop id is left out."""
        made = []
        for token, logprob, others in zip(ids, logprobs, alternatives, strict=False):
            text, piece = self.text(token)
            top = tuple((name, value, raw) for other, value in others for name, raw in (self.text(other),))
            made.append(TokenLogprob(text, logprob, piece, top))
        return tuple(made)


def pieces_of(tokenizer: Tokenizer, vocab_size: int) -> tuple[bytes, ...]:
    """Bytes of every id below `vocab_size`; empty for special tokens and for ids without text.

    Raises:
        TokenizerError: the vocabulary is not byte-level.
    """
    return (*tokenizer.pieces, *(b"",) * (vocab_size - len(tokenizer.pieces)))
