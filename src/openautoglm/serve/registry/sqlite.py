"""SQLite as we use it: write-ahead log, every write its own transaction from the start, a file that may not be swapped.

Source of the transaction recipe: the SQLAlchemy documents on pysqlite; of the options: sqlite.org/pragma.html.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, QueuePool, create_engine, event
from sqlalchemy.exc import DisconnectionError

from openautoglm.serve.registry.settings import RegistrySettings

WRITE = "autoglm_write"


def prepare(file: Path) -> None:
    """Make the file and its folder where they are absent; only their owner can read them."""
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


def engine(file: Path, settings: RegistrySettings) -> Engine:
    """Connections to `file`, which must be there: one that vanished is not made anew, which would hide the loss."""
    def connect() -> sqlite3.Connection:
        wait_s = settings.lock_wait_s
        connection = sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=wait_s, check_same_thread=False,
                                     isolation_level=None)
        try:
            _adjust(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    made = create_engine("sqlite://", creator=connect, poolclass=QueuePool, pool_size=settings.pool,
                         max_overflow=settings.pool, pool_timeout=settings.lock_wait_s)

    @event.listens_for(made, "connect")
    def remember(_connection: Any, record: Any) -> None:
        record.info["file"] = _identity(file)

    @event.listens_for(made, "checkout")
    def compare(_connection: Any, record: Any, _proxy: Any) -> None:
        if record.info.get("file") != _identity(file):
            raise DisconnectionError("the file is not the one that was opened")

    @event.listens_for(made, "begin")
    def begin(connection: Connection) -> None:
        # A reader that becomes a writer half-way is refused when another wrote meanwhile: writers say so at once.
        writes = connection.get_execution_options().get(WRITE)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return made


def _adjust(connection: sqlite3.Connection) -> None:
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        connection.execute("PRAGMA journal_mode=WAL")
    for line in ("synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF", "secure_delete=FAST"):
        connection.execute(f"PRAGMA {line}")


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        facts = file.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino
