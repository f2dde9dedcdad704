"""Log-probabilities in OpenAI's two forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from openautoglm.serve.service.values import TokenLogprob

_LEAST = -9999.0
"""In place of minus infinity, which JSON does not know."""


class Offsets:
    """Where tokens begin in the text of an answer."""

    def __init__(self) -> None:
        self.next = 0

    def after(self, text: str) -> int:
        """Where a token begins; the next one begins after its text."""
        start = self.next
        self.next += len(text)
        return start


def completion_logprobs(tokens: Sequence[TokenLogprob], offsets: Offsets) -> dict[str, Any]:
    """The form of completions."""
    return {"tokens": [token.text for token in tokens],
            "token_logprobs": [max(token.logprob, _LEAST) for token in tokens],
            "top_logprobs": [{text: max(value, _LEAST) for text, value, _ in token.top} for token in tokens],
            "text_offset": [offsets.after(token.text) for token in tokens]}


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """The form of chats."""
    return {"content": [{**_token(token.text, token.logprob, token.raw),
                         "top_logprobs": [_token(*other) for other in token.top]} for token in tokens],
            "refusal": None}


def _token(text: str, logprob: float, raw: bytes) -> dict[str, Any]:
    return {"token": text, "logprob": max(logprob, _LEAST), "bytes": list(raw)}
