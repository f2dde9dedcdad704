"""Starting an engine's process: a private socket, a handshake, and its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openautoglm
from openautoglm.core import log
from openautoglm.core.errors import BundleError, ResourceError
from openautoglm.serve.faults import Unavailable
from openautoglm.serve.worker.link import Link
from openautoglm.serve.worker.messages import Broken, Exit, Hello, Leave, Setup
from openautoglm.serve.worker.settings import WorkerSettings

_log = log.get(__name__)
_CREDENTIALS = struct.Struct("3i")
_STATUS: dict[int, str] = {Exit.BROKEN: "it could not load", Exit.LOST: "it lost the connection",
           Exit.NO_MEMORY: "it had no memory left", Exit.FAILING: "its program failed at every step"}
_POLL_S = 0.1
_LEAVE_S = 5.0


class Child:
    """An engine's process and the connection to it."""

    def __init__(self, process: subprocess.Popen[bytes], link: Link, hello: Hello) -> None:
        self.process, self.link, self.hello = process, link, hello

    async def leave(self) -> None:
        """Ask it to end; kill it where it does not."""
        self.link.fail_all(lambda: Unavailable("the server is ending", remedy="try again later", retry_after_s=1))
        self.link.send(Leave())
        await asyncio.wait([self.link.ended], timeout=_LEAVE_S)
        await self.kill("it was told to end")

    async def kill(self, why: str) -> str:
        """Kill it, whatever it does; its requests fail. Returns how it ended."""
        self.link.abandon(why)
        return await _kill(self.process)


async def launch(bundle: Path, settings: WorkerSettings, cpus: Sequence[int] = ()) -> Child:
    """Start a process and let it load a bundle.

    Raises:
        BundleError: the process says that it cannot be loaded, and why.
        ResourceError: the process does not start, dies, or takes longer than `start_s`.
    """
    folder = Path(tempfile.mkdtemp(prefix="autoglm-"))  # mode 0700
    process: subprocess.Popen[bytes] | None = None
    link: Link | None = None
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.setblocking(False)
            path = str(folder / "engine")
            _bind(door, path)
            process = _spawn(path)
            connection = await _accept(door, process)
        shutil.rmtree(folder)
        link = await _connect(connection, settings)
        link.send(Setup(str(bundle), settings.model_dump_json(), tuple(cpus)))
        async with asyncio.timeout(settings.start_s):
            first: list[asyncio.Future[Any]] = [link.hello, link.ended]
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
        if link.hello.done() and isinstance(hello := link.hello.result(), Hello):
            return Child(process, link, hello)
        raise await _why(process, link, bundle)
    except BaseException as error:
        if link is not None:
            link.abandon("it was given up")
        if process is not None:
            await _kill(process)
        if isinstance(error, TimeoutError):
            raise ResourceError(f"loading takes longer than {settings.start_s:g} s", where=str(bundle),
                                remedy="raise start_s") from error
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _bind(door: socket.socket, path: str) -> None:
    try:
        door.bind(path)
    except OSError as error:
        raise ResourceError(f"no socket can be made: {error}", where=path,
                            remedy="set TMPDIR to a short path that can be written to") from error
    door.listen(1)


def _spawn(path: str) -> subprocess.Popen[bytes]:
    """A process of its own session: signals of a terminal go to the server alone."""
    package = str(Path(openautoglm.__file__).parents[1])
    search = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.Popen(  # nosec B603  # our own command, no shell
        [sys.executable, "-P", "-m", "openautoglm.serve.worker.child", path, str(os.getpid())],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": search},
        start_new_session=True)


async def _accept(door: socket.socket, process: subprocess.Popen[bytes]) -> socket.socket:
    """The process's own connection; any other is refused."""
    accepted = asyncio.ensure_future(asyncio.get_running_loop().sock_accept(door))
    try:
        while not accepted.done():
            await asyncio.wait([accepted], timeout=_POLL_S)
            if not accepted.done() and process.poll() is not None:
                raise ResourceError(f"the engine's process did not start: {_told(process.returncode)}",
                                    remedy="see the log; run `autoglm doctor`")
    finally:
        accepted.cancel()
    connection, _ = accepted.result()
    pid, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    if pid != process.pid or uid != os.getuid():
        connection.close()
        raise ResourceError(f"process {pid} took the place of the engine's", remedy="look for what it is")
    return connection


async def _connect(connection: socket.socket, settings: WorkerSettings) -> Link:
    connection.setblocking(False)
    try:
        _, link = await asyncio.get_running_loop().create_unix_connection(lambda: Link(settings), sock=connection)
    except BaseException:
        connection.close()
        raise
    return link


async def _why(process: subprocess.Popen[bytes], link: Link, bundle: Path) -> BundleError | ResourceError:
    """Why a process gave no Hello."""
    if link.hello.done() and isinstance(said := link.hello.result(), Broken):
        return BundleError(said.message, where=said.where or str(bundle), remedy=said.remedy)
    link.abandon("it did not load")
    return ResourceError(f"the engine's process ended while it loaded: {await _kill(process)}", where=str(bundle),
                         remedy="see the log; give it more memory, or a smaller model or cache")


async def _kill(process: subprocess.Popen[bytes]) -> str:
    """Kill a process and wait for its end, in a thread that nothing can interrupt; returns how it ended."""
    return _told(await asyncio.to_thread(_bury, process))


def _bury(process: subprocess.Popen[bytes]) -> int:
    with contextlib.suppress(subprocess.TimeoutExpired):  # one that has ended by itself says how
        process.wait(_POLL_S)
    process.kill()
    return process.wait()


def _told(code: int) -> str:
    """An exit status in words."""
    if code == -signal.SIGKILL:
        return "killed, maybe by the system for want of memory"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    return _STATUS.get(code, f"exit status {code}")
