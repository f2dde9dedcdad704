"""What a run folder remembers: which stages are finished, for which inputs; one process at a time."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from openautoglm.core.errors import DataError, ResourceError, TaskError
from openautoglm.core.files import read_json, sha256_file, write_json

FORMAT = 1


class RunState:
    """``RUN/state.json``: the fingerprint of every finished stage, and the hashes of input files.

    Each change is written at once and atomically, so a crash between two stages loses nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "state.json"
        self._value: dict[str, Any] = {"format": FORMAT, "stages": {}, "files": {}}
        if self.path.is_file():
            self._value = self._read()

    def _read(self) -> dict[str, Any]:
        try:
            value = read_json(self.path)
        except (ValueError, OSError) as error:
            raise TaskError(f"the state of this run cannot be read: {error}", where=str(self.path),
                            remedy="run with --fresh, or choose another output folder") from error
        if not isinstance(value, dict) or value.get("format") != FORMAT:
            raise TaskError("the state of this run has another format", where=str(self.path),
                            remedy="run with --fresh, or choose another output folder")
        return value

    def begun(self, stage: str) -> str | None:
        """The fingerprint with which a stage was last begun; None: never."""
        entry = self._value["stages"].get(stage)
        return str(entry["fingerprint"]) if entry else None

    def finished(self, stage: str) -> Mapping[str, Any] | None:
        """What is noted of a finished stage: ``fingerprint``, ``finished_at``, ``seconds``, ``facts``."""
        entry: Mapping[str, Any] | None = self._value["stages"].get(stage)
        return entry if entry and "finished_at" in entry else None

    def begin(self, stage: str, fingerprint: str) -> None:
        """Note that a stage begins; a stage begun again with the same fingerprint goes on where it stopped."""
        self._value["stages"][stage] = {"fingerprint": fingerprint, "begun_at": time.time()}
        write_json(self.path, self._value)

    def finish(self, stage: str, seconds: float, facts: Mapping[str, Any]) -> None:
        """Note that a stage is finished."""
        self._value["stages"][stage] |= {"finished_at": time.time(), "seconds": seconds, "facts": dict(facts)}
        write_json(self.path, self._value)

    def forget(self, stages: Iterable[str]) -> None:
        """Forget that these stages were begun or finished."""
        for stage in stages:
            self._value["stages"].pop(stage, None)
        write_json(self.path, self._value)

    def file_hashes(self, paths: Iterable[Path]) -> dict[str, str]:
        """SHA-256 of each file; read again only where size or time of change differ from the last look.

        Raises:
            DataError: a file that cannot be read.
        """
        known: dict[str, Any] = self._value["files"]
        hashes = {}
        changed = False
        for path in paths:
            try:
                stat = path.stat()
                entry = known.get(str(path))
                if not entry or (entry["size"], entry["mtime_ns"]) != (stat.st_size, stat.st_mtime_ns):
                    entry = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256_file(path)}
                    known[str(path)] = entry
                    changed = True
            except OSError as error:
                raise DataError(f"cannot be read: {error.strerror}", where=str(path),
                                remedy="check the path and its permissions") from error
            hashes[str(path)] = entry["sha256"]
        if changed:
            write_json(self.path, self._value)
        return hashes


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder: two processes never write one. The lock goes with its process, however that ends.

    Raises:
        ResourceError: another process holds it, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise ResourceError(f"the run folder cannot be written: {error.strerror}", where=str(folder),
                            remedy="choose another folder with `output:` or --output") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(handle, 32, 0).decode().strip() or "unknown"
            raise ResourceError(f"another run (process {owner}) works in this folder", where=str(folder),
                                remedy="wait for it, or choose another folder with --output") from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)
