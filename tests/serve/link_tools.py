"""A connection to an engine without a process behind it."""

from __future__ import annotations

from array import array
from dataclasses import astuple
from typing import Any

from serve_tools import STATS

from openautoglm.engine.request import Decoding
from openautoglm.serve.backend import Order
from openautoglm.serve.worker.frames import framed
from openautoglm.serve.worker.link import Link
from openautoglm.serve.worker.messages import TO_ENGINE, Hello, Message, decode, encode
from openautoglm.serve.worker.settings import WorkerSettings

HELLO = Hello(50, 128, 16, 64, 8, 4, 1000, 500, "native", "f")
HOW = astuple(STATS)
ORDER = Order((5, 6), Decoding(max_new_tokens=9))


class Pipe:
    """Takes what is sent, in place of a socket."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.aborted = False

    def write(self, data: bytes) -> None:
        self.sent.append(decode(data[4:], TO_ENGINE))

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


def link(**settings: Any) -> tuple[Link, Pipe]:
    made, pipe = Link(WorkerSettings(**settings)), Pipe()
    made.connection_made(pipe)  # type: ignore[arg-type]
    tell(made, HELLO)
    return made, pipe


def tell(made: Link, *messages: Message) -> None:
    made.data_received(b"".join(framed(encode(message)) for message in messages))


def numbers(*given: int) -> bytes:
    return array("i", given).tobytes()
