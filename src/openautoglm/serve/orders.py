"""What a backend is asked for, in a form that travels between processes, and what it says of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from openautoglm.engine.engine import Engine
from openautoglm.engine.request import Decoding

GrammarKind = Literal["json_schema", "json_object", "regex", "choice"]
PROBE_PRIORITY = 1 << 20
Tap = Callable[[int], bool]
"""Takes a single token of the first answer; False where it cannot now. It runs in the event loop and must be quick."""


@dataclass(frozen=True)
class GrammarText:
    """What answers must follow; compiled where the engine runs, with the help of a process that can be killed.

    Attributes:
        text: a JSON schema; nothing; a pattern; a JSON list of strings.
    """

    kind: GrammarKind
    text: str = ""


@dataclass(frozen=True)
class Order:
    """A request in a form that travels.

    Attributes:
        prompt: ids.
        priority: higher goes first.
        timeout_s: from submission; time in the queue counts.
        grammar: what answers must follow.
        stops: strings that end an answer; the ids of what is found of them are in the pieces.
        salt: pages of the cache are shared only among orders of the same salt.
        id: of the request, for logs.
        tap: may be shown a token the moment it comes, while nothing came before it that its reader has not taken; a
            token that it takes is in no piece. A backend need not use it. It does not travel.
    """

    prompt: tuple[int, ...]
    decoding: Decoding = field(default_factory=Decoding)
    priority: int = 0
    timeout_s: float | None = None
    grammar: GrammarText | None = None
    stops: tuple[str, ...] = ()
    salt: bytes = b""
    id: str = ""
    tap: Tap | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Facts:
    """What a backend serves with, known once it has started.

    Attributes:
        vocab_size: ids that may be generated are below.
        max_tokens: of prompt and answer together.
        page_size, pages: of the cache.
        max_batch: sequences that run together.
        max_waiting: requests that the queue takes.
        weight_bytes, cache_bytes: that they take in memory.
        target: what runs the model.
        fingerprint: of the bundle.
    """

    vocab_size: int
    max_tokens: int
    page_size: int
    pages: int
    max_batch: int
    max_waiting: int
    weight_bytes: int
    cache_bytes: int
    target: str
    fingerprint: str

    @classmethod
    def of(cls, engine: Engine, fingerprint: str) -> Facts:
        """The facts of an engine that serves the bundle of this fingerprint."""
        limits, program = engine.limits, engine.program
        return cls(limits.vocab_size, min(limits.positions, limits.pages * limits.page_size), limits.page_size,
                   limits.pages, limits.max_batch, limits.max_waiting, program.facts.weight_bytes,
                   program.facts.cache_bytes, program.plan.target, fingerprint)


def probe_order(timeout_s: float) -> Order:
    """An order of one token which goes before all others."""
    return Order((0,), Decoding(max_new_tokens=1, ignore_stop=True), PROBE_PRIORITY, timeout_s, id="probe")
