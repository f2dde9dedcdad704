"""The process in which grammars are tried out, so that a bad one cannot hurt the server. Run by `GrammarProcess`.

Frames come on standard input and go out on standard output: four bytes of length, then the bytes. First the limits
(JSON) and the vocabulary; then requests (JSON), one reply each. Every request is worked on in a fork of this process,
under limits of memory, processor and time: a fork that dies takes nothing with it, and its growth is what the grammar
takes.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import select
import signal
import sys
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn, cast

from openautoglm.engine.grammar_library import Mask, Matcher, complaint, make_matcher, make_tokenizer

WALKS, WALK_TOKENS = 3, 48
_FAILED, _OUT_OF_MEMORY = 1, 3
Reply = dict[str, Any]


def write_frame(stream: IO[bytes], data: bytes) -> None:
    """Send one frame."""
    stream.write(len(data).to_bytes(4, "little") + data)
    stream.flush()


def pack(pieces: Sequence[bytes]) -> bytes:
    """Put a vocabulary into bytes: their number, their lengths, themselves."""
    return array("I", [len(pieces), *map(len, pieces)]).tobytes() + b"".join(pieces)


def unpack(data: bytes) -> list[bytes]:
    """Undo `pack`."""
    size = array("I").itemsize
    count = array("I", data[:size])[0]
    place = size * (count + 1)
    pieces = []
    for length in array("I", data[size:place]):
        pieces.append(data[place:place + length])
        place += length
    return pieces


def rehearse(tokenizer: Any, source: str, limits: Mapping[str, int], vocab_size: int) -> Reply:
    """Compile a grammar and write some random texts by it, as an engine would.

    The library builds its tables as texts need them, so compiling alone proves little.
    """
    before = allocated_bytes()
    matcher = make_matcher(tokenizer, source, limits)
    if matcher.is_error():
        return {"kind": "invalid", "error": matcher.get_error()}
    dice, mask = random.Random(0), Mask(vocab_size)  # nosec B311  # no secret
    for _ in range(WALKS):
        failure = _walk(matcher, mask, dice)
        if failure is not None:
            return failure
        matcher.reset()
    return {"kind": "good", "bytes": max(allocated_bytes() - before, 0)}


def _walk(matcher: Matcher, mask: Mask, dice: random.Random) -> Reply | None:
    for place in range(WALK_TOKENS):
        if matcher.is_stopped() and not matcher.is_error():
            return None
        ends = mask.fill(matcher)
        error = matcher.get_error()
        if not error:
            allowed = int.from_bytes(mask.bytes, "little")
            if allowed == 0:
                return None if ends else {"kind": "empty", "error": f"nothing may follow after {place} tokens"}
            above = allowed >> dice.randrange(allowed.bit_length())
            token = allowed.bit_length() - above.bit_length() + (above & -above).bit_length() - 1
            if matcher.try_consume_tokens([token]) == 1:
                continue
        if error.startswith("NoExtension"):
            return {"kind": "empty", "error": f"nothing may follow after {place} tokens"}
        return {"kind": "complex", "error": error or "the grammar's tables are full"}
    return None


def locate(parts: Sequence[str]) -> Reply:
    """Find the last of these schemas which has the same fault as the first, and its number.

    A schema stands before the schemas inside it.
    """
    first = complaint(parts[0])
    same = [number for number, part in enumerate(parts) if complaint(part) == first]
    return {"kind": "located", "number": same[-1] if first else 0, "error": first}


class _MallInfo(ctypes.Structure):
    """glibc's mallinfo2."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]


def allocated_bytes() -> int:
    """Memory that this process has taken from its allocator; resident memory where the C library does not tell."""
    mallinfo = getattr(ctypes.CDLL(None), "mallinfo2", None)
    if mallinfo is None:
        return _pages(1)
    mallinfo.restype = _MallInfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def _pages(field: int) -> int:
    """A field of the kernel's statm in bytes: 0 virtual, 1 resident."""
    return int(Path("/proc/self/statm").read_text().split()[field]) * resource.getpagesize()


def apart(work: Callable[[], Reply], memory_bytes: int, time_s: float) -> Reply:
    """Run `work` in a fork with bounds on memory and time; the fork is dead when this returns."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        _child(work, reader, writer, memory_bytes, time_s)
    os.close(writer)
    data, over = b"", time.monotonic() + time_s
    try:
        while True:
            left = over - time.monotonic()
            if left <= 0 or not select.select([reader], [], [], left)[0]:
                return {"kind": "time", "error": f"it took longer than {time_s:g} s"}
            some = os.read(reader, 65536)
            if not some:
                break
            data += some
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)  # not reaped yet, so the number is still its own
        status = os.waitpid(child, 0)[1]
    return cast(Reply, json.loads(data)) if data else _end(status, memory_bytes, time_s)


def _end(status: int, memory_bytes: int, time_s: float) -> Reply:
    """Why a fork gave no reply."""
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGXCPU:
        return {"kind": "time", "error": f"it took longer than {time_s:g} s"}
    if code in (_OUT_OF_MEMORY, -signal.SIGABRT):  # the library aborts where it gets no memory
        return {"kind": "memory", "error": f"it took more than {memory_bytes >> 20} MiB"}
    return {"kind": "complex", "error": f"the library failed on it (exit code {code})"}


def _child(work: Callable[[], Reply], reader: int, writer: int, memory_bytes: int, time_s: float) -> NoReturn:
    """The fork's own part."""
    code = _FAILED
    try:
        os.close(reader)
        space = _pages(0) + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (space, space))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (int(time_s) + 1, int(time_s) + 2))
        os.write(writer, json.dumps(work()).encode())
        code = 0
    except MemoryError:
        code = _OUT_OF_MEMORY
    finally:
        os._exit(code)


def main() -> None:
    """Serve requests until standard input ends."""
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints must not come between frames
    settings = json.loads(_read(requests))
    pieces = unpack(_read(requests))
    tokenizer, limits = make_tokenizer(pieces), settings["limits"]
    write_frame(replies, b'{"kind": "ready"}')
    while frame := _read(requests):
        request = json.loads(frame)

        def work(request: Reply = request) -> Reply:
            if "parts" in request:
                return locate(request["parts"])
            return rehearse(tokenizer, request["source"], limits, len(pieces))

        reply = apart(work, settings["memory_bytes"], settings["time_s"])
        write_frame(replies, json.dumps(reply).encode())


def _read(stream: IO[bytes]) -> bytes:
    """One frame; empty at the end of the stream."""
    head = stream.read(4)
    return stream.read(int.from_bytes(head, "little")) if len(head) == 4 else b""


if __name__ == "__main__":
    main()
