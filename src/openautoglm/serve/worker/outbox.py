"""What a step gave, gathered into one frame for the server."""

from __future__ import annotations

import socket
from array import array
from collections.abc import Callable
from typing import Any

from openautoglm.core import log
from openautoglm.engine.embed import Embedding
from openautoglm.engine.request import Piece
from openautoglm.engine.sequence import Ticket
from openautoglm.serve.faults import Fault, Internal
from openautoglm.serve.intake import told
from openautoglm.serve.worker.frames import ProtocolError, framed
from openautoglm.serve.worker.messages import Message, Refused, Step, encode

_log = log.get(__name__)
_MOST_TEXT, _MOST_WORD = 65_536, 4096


class Job:
    """A request in the engine's process.

    Attributes:
        number: that the server gave it.
        ticket: the engine's; None before it is submitted.
        embedding: the texts, where hidden states are asked for.
        gone: nobody waits for it any more.
    """

    __slots__ = ("embedding", "gone", "number", "ticket")

    def __init__(self, number: int) -> None:
        self.number, self.gone = number, False
        self.ticket: Ticket | None = None
        self.embedding: Embedding | None = None


class Outbox:
    """Gathers messages, and sends them together. Sending blocks while the server does not read."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._bytes = bytearray()
        self._numbers, self._ids = array("i"), array("i")
        self._pieces: list[tuple[Any, ...]] = []
        self._ended: list[Job] = []

    def listener(self, job: Job) -> Callable[[Piece], None]:
        """What the engine shall show a request's pieces to."""
        number = job.number

        def hear(piece: Piece) -> None:
            copy, ids, logprobs, _, finish, queued_s = piece
            if finish is None and copy == 0 and len(ids) == 1 and not logprobs and queued_s is None:
                self._numbers.append(number)
                self._ids.append(ids[0])
            elif not job.gone:
                if finish is not None:
                    self._ended.append(job)
                if finish != "error":
                    self._pieces.append((number, *piece))

        return hear

    def put(self, message: Message) -> None:
        """Add a message.

        Raises:
            ProtocolError: it is longer than a frame may be.
        """
        self._bytes += framed(encode(message))

    def refuse(self, number: int, fault: Fault) -> None:
        """Tell that a request has failed; what is ours is in the log, too."""
        if fault.kind in ("internal", "engine_lost"):
            _log.error("a request failed: %s", fault, exc_info=fault.__cause__)
        self.put(Refused(number, fault.kind, fault.message[:_MOST_TEXT], _cut(fault.where), _cut(fault.remedy),
                         fault.retry_after_s))

    def gather(self, steps: int) -> list[Job]:
        """Put what the last step gave into messages; returns the requests that have ended."""
        if not (self._numbers or self._pieces or self._ended):
            return []
        done = [job for job in self._ended if job.ticket is not None and job.ticket.done]
        failed = [(job, job.ticket.error) for job in done if job.ticket is not None and job.ticket.error is not None]
        lost = {job.number for job, _ in failed}
        well = array("i", [job.number for job in dict.fromkeys(done) if job.number not in lost])
        try:
            self.put(Step(steps, self._numbers.tobytes(), self._ids.tobytes(), tuple(self._pieces), well.tobytes()))
        except ProtocolError:
            lost |= self._one_by_one(steps, well)
        for job, error in dict(failed).items():
            self.refuse(job.number, told(error))
        del self._numbers[:], self._ids[:]
        self._pieces.clear()
        self._ended.clear()
        return done

    def send(self) -> None:
        """Send all messages.

        Raises:
            OSError: the server is gone.
        """
        if self._bytes:
            self._link.sendall(self._bytes)
            self._bytes.clear()

    def _one_by_one(self, steps: int, well: array[int]) -> set[int]:
        """Put each piece into a message of its own, as they are too long together or one of them is wrong.

        Returns the requests whose pieces are wrong; they fail alone.
        """
        wrong: set[int] = set()
        self.put(Step(steps, self._numbers.tobytes(), self._ids.tobytes(), (), b""))
        for piece in self._pieces:
            try:
                self.put(Step(steps, b"", b"", (piece,), b""))
            except ProtocolError as error:
                fault = Internal("an answer cannot be sent")
                fault.__cause__ = error
                if piece[0] not in wrong:
                    self.refuse(piece[0], fault)
                wrong.add(piece[0])
        rest = array("i", [number for number in well if number not in wrong])
        self.put(Step(steps, b"", b"", (), rest.tobytes()))
        return wrong


def _cut(text: str | None) -> str | None:
    return text if text is None else text[:_MOST_WORD]
