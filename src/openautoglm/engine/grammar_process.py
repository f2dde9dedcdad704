"""The server's end of the process in which grammars are tried out (`grammar_worker`)."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import openautoglm
from openautoglm.core.errors import ResourceError
from openautoglm.engine.grammar_worker import pack, write_frame

_GRACE_S = 5.0
_START_S = 60.0


class GrammarProcess:
    """Starts at the first request, again after it has died. For one thread at a time.

    Args:
        pieces: bytes of each id.
        limits: the library's own bounds.
        memory_bytes: that a grammar may take there.
        time_s: that it may take there.
    """

    def __init__(self, pieces: Sequence[bytes], limits: Mapping[str, int], memory_bytes: int, time_s: float) -> None:
        self._pieces, self._time_s = pieces, time_s
        self._settings = {"limits": dict(limits), "memory_bytes": memory_bytes, "time_s": time_s}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process's number while it runs."""
        return self._process.pid if self._process is not None else None

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request, return its reply.

        Raises:
            ResourceError: the process could not be started, or died.
        """
        if self._process is None or self._process.poll() is not None:
            self._start()
        return self._exchange(json.dumps(request).encode(), self._time_s + _GRACE_S)

    def close(self) -> None:
        """End the process and whatever it is working on."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its forks are of the same group
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()

    def _start(self) -> None:
        self.close()
        package = str(Path(openautoglm.__file__).parents[1])
        path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
        self._process = subprocess.Popen(  # nosec B603  # our own command, no shell
            [sys.executable, "-P", "-m", "openautoglm.engine.grammar_worker"], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": path},
            start_new_session=True)
        self._send(json.dumps(self._settings).encode())
        self._exchange(pack(self._pieces), _START_S)

    def _send(self, data: bytes) -> None:
        process = self._process
        if process is None or process.stdin is None:
            raise self._died()
        try:
            write_frame(process.stdin, data)
        except BrokenPipeError as error:
            raise self._died() from error

    def _exchange(self, data: bytes, time_s: float) -> dict[str, Any]:
        self._send(data)
        over, reply = time.monotonic() + time_s, b""
        while len(reply) < 4 or len(reply) < 4 + int.from_bytes(reply[:4], "little"):
            reply += self._receive(over)
        return cast(dict[str, Any], json.loads(reply[4:]))

    def _receive(self, over: float) -> bytes:
        process = self._process
        if process is None or process.stdout is None:
            raise self._died()
        left = max(over - time.monotonic(), 0)
        if not select.select([process.stdout], [], [], left)[0]:
            raise self._died()
        some = os.read(process.stdout.fileno(), 65536)
        if not some:
            raise self._died()
        return some

    def _died(self) -> ResourceError:
        self.close()
        return ResourceError("the process that compiles grammars does not answer", where="grammar",
                             remedy="try again; see that Python can start processes and has memory left")
