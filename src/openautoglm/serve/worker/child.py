"""The engine's process: ``python -m openautoglm.serve.worker.child SOCKET PARENT``. Started by `launch`.

It ends when the server ends, however that happens: the kernel is asked to kill it then, and the end of the connection
says the same. Signals of the terminal and of service managers are the server's business; it drains, and then says so.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import resource
import signal
import socket
import sys
import time

from openautoglm.core import log
from openautoglm.core.errors import AutoGLMError, ResourceError
from openautoglm.engine.engine import Engine
from openautoglm.engine.request import Decoding
from openautoglm.serve.worker.frames import HEAD, MOST_BYTES, ProtocolError, framed
from openautoglm.serve.worker.host import Host
from openautoglm.serve.worker.messages import TO_ENGINE, Broken, Exit, Hello, Message, Setup, decode, encode
from openautoglm.serve.worker.opening import Opened, open_model
from openautoglm.serve.worker.settings import WorkerSettings

_log = log.get(__name__)
_PR_SET_PDEATHSIG = 1
_BUFFER_BYTES = 1 << 20


def main(path: str, parent: int) -> int:
    """Connect, load what the server names, serve; returns the exit status."""
    die_with(parent)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    with socket.socket(socket.AF_UNIX) as link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
        link.connect(path)
        try:
            found = _open(link)
            if found is None:
                return Exit.BROKEN
            opened, step_s = found
            with opened.compiler:
                _send(link, Hello(**vars(opened.facts)))
                Host(link, opened, step_s).run()
        except MemoryError:
            _log.critical("the engine has run out of memory")
            return Exit.NO_MEMORY
        except (ProtocolError, OSError) as error:
            _log.error("the connection to the server is over: %s", error)
            return Exit.LOST
        except ResourceError as error:
            _log.critical("%s", error)
            return Exit.FAILING
    return 0


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its parent ends.

    Raises:
        SystemExit: it has ended already.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        raise SystemExit(Exit.LOST)


def warm_up(engine: Engine) -> float:
    """Generate a few tokens; returns what a step of one row takes, in seconds.

    Raises:
        GenerationError: the program does not run.
    """
    step_s = float("inf")
    for _ in range(2):
        began = time.monotonic()
        engine.generate([[0]], Decoding(max_new_tokens=2, ignore_stop=True))
        step_s = min(step_s, (time.monotonic() - began) / 2)
    return step_s


def _open(link: socket.socket) -> tuple[Opened, float] | None:
    """Load, and say what a step takes; where that fails, tell the server why."""
    setup = decode(_receive(link), TO_ENGINE)
    if not isinstance(setup, Setup):
        raise ProtocolError("the first message is no Setup")
    try:
        settings = WorkerSettings.model_validate_json(setup.settings)
        log.configure(settings.log_format, settings.log_level)
        if setup.cpus:
            os.sched_setaffinity(0, setup.cpus)
        if settings.memory_bytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (settings.memory_bytes, settings.memory_bytes))
        opened = open_model(setup.bundle, settings)
        return opened, warm_up(opened.engine)
    except AutoGLMError as error:
        broken = Broken(error.message[:65_536], _cut(error.where), _cut(error.remedy))
    except MemoryError:
        broken = Broken("there is not enough memory to load the model", setup.bundle[:4096],
                        "quantise it, give it fewer cache_tokens, or allow more memory_bytes")
    except Exception as error:  # a fault of ours; the log says where
        _log.exception("the model cannot be loaded")
        broken = Broken(f"the model cannot be loaded: {error!r}"[:4096], setup.bundle[:4096], "see the log")
    _send(link, broken)
    return None


def _cut(text: str | None) -> str | None:
    return text if text is None else text[:4096]


def _send(link: socket.socket, message: Message) -> None:
    link.sendall(framed(encode(message)))


def _receive(link: socket.socket) -> bytes:
    """One frame, before there is a loop to read them."""
    size = int.from_bytes(_exactly(link, HEAD), "little")
    if size > MOST_BYTES:
        raise ProtocolError(f"a frame of {size} bytes is longer than {MOST_BYTES}")
    return _exactly(link, size)


def _exactly(link: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        some = link.recv(size - len(data))
        if not some:
            raise ProtocolError("the connection ended before its first message")
        data += some
    return bytes(data)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
