"""Frames on a stream of bytes: four bytes of length, little-endian, then so many bytes."""

from __future__ import annotations

from collections.abc import Iterator

from openautoglm.core.errors import AutoGLMError

HEAD = 4
MOST_BYTES = 32 << 20
"""Of one frame; a longer one is refused before it is read."""


class ProtocolError(AutoGLMError):
    """The other side sends what no message is. It is not talked to any more."""


def framed(body: bytes) -> bytes:
    """Put the length before a message.

    Raises:
        ProtocolError: it is too long.
    """
    if len(body) > MOST_BYTES:
        raise ProtocolError(f"a message of {len(body)} bytes is longer than {MOST_BYTES}")
    return len(body).to_bytes(HEAD, "little") + body


class Frames:
    """Cuts a stream into messages. Holds no more than one frame and one piece of the stream."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, some: bytes) -> Iterator[bytes]:
        """Take bytes; yield the messages that are complete.

        Raises:
            ProtocolError: a frame is too long.
        """
        held = self._held
        held += some
        start = 0
        try:
            while len(held) - start >= HEAD:
                size = int.from_bytes(held[start:start + HEAD], "little")
                if size > MOST_BYTES:
                    raise ProtocolError(f"a frame of {size} bytes is longer than {MOST_BYTES}")
                end = start + HEAD + size
                if len(held) < end:
                    break
                yield bytes(held[start + HEAD:end])
                start = end
        finally:
            del held[:start]
