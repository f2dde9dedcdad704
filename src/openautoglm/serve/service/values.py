"""What travels between the service and those who speak to clients."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

Finish = Literal["stop", "length", "tool_calls"]


class TokenLogprob(NamedTuple):
    """A token in text form.

    Attributes:
        text: of the token; U+FFFD where it is a part of a character.
        logprob: natural logarithm of its probability.
        raw: its bytes; empty for a special token.
        top: the likeliest tokens in its place, with their own bytes.
    """

    text: str
    logprob: float
    raw: bytes
    top: tuple[tuple[str, float, bytes], ...] = ()


class Delta(NamedTuple):
    """What was added to one answer.

    Attributes:
        choice: number of the answer: prompts one after the other, `n` answers each.
        text: new text; empty where a character or a stop string is not whole yet.
        logprobs: of the new tokens, where asked for.
        finish: why the answer ended; None while it goes on.
    """

    choice: int
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    finish: Finish | None = None


@dataclass
class Usage:
    """Tokens of a request.

    Attributes:
        prompt_tokens: of all prompts.
        completion_tokens: of all answers so far.
        dropped_messages, dropped_tokens: what was left out of prompts that were too long.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    dropped_messages: int = 0
    dropped_tokens: int = 0

    def as_json(self) -> dict[str, object]:
        """In OpenAI's form; what was dropped only where something was."""
        told: dict[str, object] = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
                                   "total_tokens": self.prompt_tokens + self.completion_tokens}
        if self.dropped_messages or self.dropped_tokens:
            told["dropped"] = {"messages": self.dropped_messages, "tokens": self.dropped_tokens}
        return told


Settle = Callable[[int], None]
"""Told how many tokens a request has used in the end."""


def unbounded(tokens: int) -> Settle:
    """Let a request of so many tokens in, whoever asks."""
    return lambda used: None


@dataclass(frozen=True)
class Caller:
    """Who asks.

    Attributes:
        name: of the key; empty where keys are off.
        request_id: for logs.
        salt: pages of the cache are shared only among callers of the same salt.
        trace: the `traceparent` that came with the request.
        admit: takes a request and its tokens from what the caller may use; raises RateLimited or TooLarge.
        waited_s: how long the request has waited already, e.g. for its model to be loaded; its deadline counts it.
    """

    name: str = ""
    request_id: str = ""
    salt: bytes = b""
    trace: str = ""
    admit: Callable[[int], Settle] = unbounded
    waited_s: float = 0.0


@dataclass
class Report:
    """What became of one request; told to observers when it has ended. Times are on the monotonic clock, in seconds.

    Attributes:
        model: that answered.
        kind: ``completion``, ``chat`` or ``embedding``.
        arrived: when it came; `arrived_at` is the same in seconds since 1970.
        begun: when its first prompt left the queue; None where it never did, or where the backend does not say.
        first, last: when its first and last token came; None before.
        ended: when it had ended.
        finishes: why its answers ended.
        fault: the kind of fault that ended it; None where it ended well.
        max_tokens, n: that were asked for.
        settle: told what was used in the end.
    """

    model: str
    kind: str
    caller: Caller
    arrived: float
    arrived_at: float
    usage: Usage = field(default_factory=Usage)
    begun: float | None = None
    first: float | None = None
    last: float | None = None
    ended: float = 0.0
    finishes: list[str] = field(default_factory=list)
    fault: str | None = None
    max_tokens: int = 0
    n: int = 1
    settle: Settle = field(default=lambda used: None, repr=False)

    def end(self, fault: str | None, observers: Iterable[Observer]) -> None:
        """The request has ended, by a fault of that kind or well; whoever must know is told."""
        self.ended, self.fault = time.monotonic(), fault
        self.settle(self.usage.prompt_tokens + self.usage.completion_tokens)
        for observer in observers:
            observer.ended(self)


class Observer(Protocol):
    """Is told what happens to requests; must be quick, and never fail."""

    def first_token(self, model: str, seconds: float) -> None:
        """A request's first token came so long after the request."""

    def next_token(self, model: str, seconds: float) -> None:
        """A further token came so long after the one before it."""

    def ended(self, report: Report) -> None:
        """A request has ended, well or not."""
