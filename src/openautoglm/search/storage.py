"""Where trials are kept: a journal file in the folder, or a database; one process at a time writes."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from openautoglm.core.errors import SearchError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

JOURNAL = "journal.log"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the lock goes with the process, however it ends.

    Raises:
        SearchError: another process is searching in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder / "search.lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SearchError("another process is searching here", where=str(folder),
                              remedy="wait for it, stop it, or use another folder") from error
        yield
    finally:
        os.close(handle)


def open_storage(url: str | None, folder: Path) -> BaseStorage:
    """Open the storage; call it under :func:`alone`.

    Raises:
        SearchError: the database cannot be opened, or its driver is not installed.
    """
    if url is None:
        return _journal(folder / JOURNAL)
    from optuna.storages import RDBStorage
    from sqlalchemy.exc import SQLAlchemyError

    try:
        return RDBStorage(url)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        where = url.partition("://")[0] + "://..."
        raise SearchError(f"the database cannot be opened: {str(error).splitlines()[0]}", where=where,
                          remedy="check search.storage and that its driver is installed (psycopg)") from error


class _Held:
    """Optuna's lock, always granted: the folder is held. Optuna's own lock files outlive a killed process."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


def _journal(path: Path) -> BaseStorage:
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    _drop_torn_line(path)
    return JournalStorage(JournalFileBackend(str(path), lock_obj=_Held()))


def _drop_torn_line(path: Path) -> None:
    """Cut a last line without its end, which a power failure can leave; Optuna could not read past it."""
    if not path.exists():
        return
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        with path.open("r+b") as file:
            file.truncate(text.rfind(b"\n") + 1)
            os.fsync(file.fileno())
