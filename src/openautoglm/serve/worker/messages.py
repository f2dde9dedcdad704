"""What server and engine say to each other: these messages, these fields, these bounds, and nothing else.

On the wire a message is a msgpack list of its kind and a map of its fields. Both sides check what they send and what
they get; what does not pass is a fault of the program or an attack, and ends the connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, ClassVar, get_args

import msgpack

from openautoglm.engine.request import Finish
from openautoglm.engine.stats import Stats
from openautoglm.serve.faults import KINDS as FAULTS
from openautoglm.serve.orders import GrammarKind
from openautoglm.serve.worker.checks import Check, data, flag, many, maybe, one_of, real, row, text, whole
from openautoglm.serve.worker.frames import MOST_BYTES, ProtocolError

Checks = Mapping[str, Check]
MOST_NUMBER = 2**53
MOST_PROMPT_BYTES = 8 << 20
MOST_IDS = 1 << 20
_SMALL, _LONG = 4096, 1 << 20
_COUNT, _NUMBER = whole(0, MOST_NUMBER), whole(0, 2**31 - 1)
_TOKEN, _LOGPROB = whole(0, 2**31 - 1), real()
_FINISHES = get_args(Finish)
_PIECE = row(_NUMBER, whole(0, 255), many(_TOKEN, MOST_IDS), many(_LOGPROB, MOST_IDS),
             many(many(row(_TOKEN, _LOGPROB), 100), MOST_IDS), maybe(one_of(*_FINISHES)), maybe(real(0)))
_STATS = row(*[maybe(real(0))] * len(fields(Stats)))


class Exit(IntEnum):
    """Status with which the engine's process ends, besides 0: could not load, lost the connection, had no memory left,
    has a program that always fails."""

    BROKEN = 2
    LOST = 3
    NO_MEMORY = 4
    FAILING = 5


@dataclass(frozen=True)
class Message:
    """A message; its fields are checked when it is made.

    Raises:
        ProtocolError: a field is not what it must be; the text names it and not what it holds.
    """

    checks: ClassVar[Checks] = {}

    def __post_init__(self) -> None:
        for name, check in self.checks.items():
            if not check(getattr(self, name)):
                raise ProtocolError(f"a message {type(self).__name__} has a wrong {name}")


@dataclass(frozen=True)
class Setup(Message):
    """To the engine, first: what to load. `settings` is JSON of `WorkerSettings`, `cpus` the processors to stay on."""

    bundle: str
    settings: str
    cpus: tuple[int, ...]
    checks: ClassVar[Checks] = {"bundle": text(_SMALL), "settings": text(_LONG),
                                "cpus": many(whole(0, 65535), 4096)}


@dataclass(frozen=True)
class Ask(Message):
    """To the engine: an order. `prompt` is int32, `decoding` JSON; `grammar` is kind and text."""

    number: int
    prompt: bytes
    decoding: str
    priority: int
    timeout_s: float | None
    grammar: tuple[GrammarKind, str] | None
    stops: tuple[str, ...]
    salt: bytes
    id: str
    checks: ClassVar[Checks] = {
        "number": _NUMBER, "prompt": data(MOST_PROMPT_BYTES, 4), "decoding": text(_LONG),
        "priority": whole(-2**31, 2**31), "timeout_s": maybe(real(-1e9, 1e9)),
        "grammar": maybe(row(one_of(*get_args(GrammarKind)), text(_LONG))),
        "stops": many(text(_SMALL), 64), "salt": data(_SMALL), "id": text(_SMALL)}


@dataclass(frozen=True)
class Embed(Message):
    """To the engine: texts whose mean hidden states are wanted. `ids` is int32, `lengths` those of the texts."""

    number: int
    ids: bytes
    lengths: tuple[int, ...]
    checks: ClassVar[Checks] = {"number": _NUMBER, "ids": data(MOST_PROMPT_BYTES, 4),
                                "lengths": many(whole(1, MOST_PROMPT_BYTES), 4096)}


@dataclass(frozen=True)
class Cancel(Message):
    """To the engine: nobody waits for these any more. `numbers` is int32."""

    numbers: bytes
    checks: ClassVar[Checks] = {"numbers": data(_LONG, 4)}


@dataclass(frozen=True)
class Ping(Message):
    """To the engine: say how you stand."""


@dataclass(frozen=True)
class Leave(Message):
    """To the engine: end."""


@dataclass(frozen=True)
class Hello(Message):
    """From the engine: loaded. The fields are those of `Facts`."""

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
    checks: ClassVar[Checks] = {
        "vocab_size": _NUMBER, "max_tokens": _NUMBER, "page_size": whole(1, 65536), "pages": _NUMBER,
        "max_batch": whole(1, 65536), "max_waiting": _NUMBER, "weight_bytes": _COUNT, "cache_bytes": _COUNT,
        "target": text(64), "fingerprint": text(256)}


@dataclass(frozen=True)
class Broken(Message):
    """From the engine: the model could not be loaded."""

    message: str
    where: str | None
    remedy: str | None
    checks: ClassVar[Checks] = {"message": text(_LONG), "where": maybe(text(_SMALL)), "remedy": maybe(text(_SMALL))}


@dataclass(frozen=True)
class Step(Message):
    """From the engine: what a step gave.

    Attributes:
        steps: of the engine so far.
        numbers, ids: int32; single tokens of first answers that go on, by request.
        pieces: all others: number of the request, and the fields of a `Piece`.
        ended: int32; requests whose answers are complete.
    """

    steps: int
    numbers: bytes
    ids: bytes
    pieces: tuple[tuple[Any, ...], ...]
    ended: bytes
    checks: ClassVar[Checks] = {"steps": _COUNT, "numbers": data(_LONG, 4), "ids": data(_LONG, 4),
                                "pieces": many(_PIECE, MOST_IDS), "ended": data(_LONG, 4)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.numbers) != len(self.ids):
            raise ProtocolError("a message Step has a wrong ids")


@dataclass(frozen=True)
class Refused(Message):
    """From the engine: a request has failed; the fields are those of a `Fault`."""

    number: int
    kind: str
    message: str
    where: str | None
    remedy: str | None
    retry_after_s: float | None
    checks: ClassVar[Checks] = {
        "number": _NUMBER, "kind": one_of(*FAULTS), "message": text(_LONG), "where": maybe(text(_SMALL)),
        "remedy": maybe(text(_SMALL)), "retry_after_s": maybe(real(0, 1e6))}


@dataclass(frozen=True)
class Embedded(Message):
    """From the engine: what `Embed` asked for; `rows` is fp32 [texts, hidden]."""

    number: int
    hidden: int
    rows: bytes
    checks: ClassVar[Checks] = {"number": _NUMBER, "hidden": whole(1, 1 << 20), "rows": data(MOST_BYTES, 4)}

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.rows) % (4 * self.hidden):
            raise ProtocolError("a message Embedded has a wrong rows")


@dataclass(frozen=True)
class Beat(Message):
    """From the engine: how it stands. `slow_s` is what a step may well take; `stats` are the fields of `Stats`."""

    steps: int
    busy: bool
    slow_s: float
    stats: tuple[float | None, ...]
    checks: ClassVar[Checks] = {"steps": _COUNT, "busy": flag, "slow_s": real(0, 1e9), "stats": _STATS}


TO_ENGINE: dict[str, type[Message]] = {kind.__name__: kind for kind in (Setup, Ask, Embed, Cancel, Ping, Leave)}
FROM_ENGINE: dict[str, type[Message]] = {kind.__name__: kind
                                         for kind in (Hello, Broken, Step, Refused, Embedded, Beat)}


def encode(message: Message) -> bytes:
    """Write a message."""
    body: bytes = msgpack.packb([type(message).__name__, vars(message)], unicode_errors="surrogatepass")
    return body


def decode(body: bytes, known: Mapping[str, type[Message]]) -> Message:
    """Read a message of one of the known kinds.

    Raises:
        ProtocolError: it is none, or has other fields, or values out of their bounds.
    """
    try:
        kind, values = msgpack.unpackb(body, strict_map_key=True, use_list=False, unicode_errors="surrogatepass")
        made = known[kind]
        if set(values) != set(made.checks):
            raise ProtocolError(f"a message {kind} has other fields than it should")
        return made(**values)
    except ProtocolError:
        raise
    except Exception as error:  # whatever bytes from elsewhere make a parser raise
        raise ProtocolError(f"what came is no message: {type(error).__name__}") from error
