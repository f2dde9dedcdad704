"""One database, SQLite or PostgreSQL: units of work in a transaction, tried again while that is safe."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.engine import URL
from sqlalchemy.exc import SQLAlchemyError

from openautoglm.core import log
from openautoglm.core.errors import AutoGLMError, ResourceError
from openautoglm.core.extras import installed
from openautoglm.serve.faults import DiskFull, StoreLost
from openautoglm.serve.registry import sqlite
from openautoglm.serve.registry.failures import REMEDIES, Failure, judge
from openautoglm.serve.registry.places import Place
from openautoglm.serve.registry.settings import RegistrySettings

T = TypeVar("T")
Work = Callable[[Connection], T]
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 0.5


class Database:
    """Runs units of work; may be used by many threads.

    A unit may run more than once, so it must touch nothing but the connection.
    """

    def __init__(self, place: Place, settings: RegistrySettings, *, now: Callable[[], float] = time.time,
                 sleep: Callable[[float], None] = time.sleep) -> None:
        self.settings = settings
        self.now = now
        self.name = str(place)
        self._sleep = sleep
        self._lost = False  # since the last try: as long as it is, nobody waits for another
        self.engine = (sqlite.engine(place.file, settings) if place.file is not None
                       else _postgres(place.url, settings))

    def read(self, work: Work[T]) -> T:
        """Return what `work` returns; it sees one state of the database on SQLite, committed rows on PostgreSQL.

        Raises:
            StoreLost: the database did not answer within `retry_s`.
        """
        return self._run(work, writes=False)

    def write(self, work: Work[T]) -> T:
        """Return what `work` returns, its changes stored as a whole or not at all.

        Raises:
            StoreLost: the database did not answer; where it was lost while it stored, the change may be stored.
            DiskFull: there is no room; nothing was changed.
        """
        return self._run(work, writes=True)

    def insert(self, table: Table) -> Any:
        """An INSERT which knows ``on_conflict_do_update`` and ``on_conflict_do_nothing``."""
        dialect = sqlite_dialect if self.engine.dialect.name == "sqlite" else postgresql
        return dialect.insert(table)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _run(self, work: Work[T], *, writes: bool) -> T:
        start_s, pause_s = time.monotonic(), _FIRST_PAUSE_S
        while True:
            stage = _Stage()
            try:
                result = self._once(work, stage, writes=writes)
            except SQLAlchemyError as error:
                failure = judge(error)
                unsure = writes and stage.commits
                late = self._lost or time.monotonic() - start_s + pause_s > self.settings.retry_s
                if failure is not Failure.AGAIN or unsure or late:
                    self._lost = failure is Failure.AGAIN
                    raise self._fault(failure, error, unsure) from error
            else:
                self._lost = False
                return result
            self._sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _once(self, work: Work[T], stage: _Stage, *, writes: bool) -> T:
        with self.engine.connect().execution_options(**{sqlite.WRITE: writes}) as connection, connection.begin():
            result = work(connection)
            stage.commits = True
        return result

    def _fault(self, failure: Failure, error: SQLAlchemyError, unsure: bool) -> Exception:
        if failure is Failure.OURS:
            return error
        told: AutoGLMError
        if failure is Failure.FULL:
            told = DiskFull(failure.value, where=self.name, remedy=REMEDIES[failure])
        else:
            remedy = REMEDIES[failure]
            if unsure:
                remedy = "look whether the change was stored before it is asked for again"
            told = StoreLost(failure.value, where=self.name, remedy=remedy, retry_after_s=_LONGEST_PAUSE_S)
        log.get(__name__).warning(failure.value, extra={"database": self.name, "cause": _first_line(error)})
        return told


class _Stage:
    """How far a unit of work has come."""

    commits = False


def _first_line(error: SQLAlchemyError) -> str:
    return (str(getattr(error, "orig", None) or error).splitlines() or [""])[0]


def _postgres(url: URL, settings: RegistrySettings) -> Engine:
    if not installed("psycopg"):
        raise ResourceError("PostgreSQL needs the package psycopg", where=url.render_as_string(hide_password=True),
                            remedy="pip install 'psycopg[binary]' -c constraints.txt")
    options = (f"-c statement_timeout={int(settings.statement_s * 1000)} "
               f"-c lock_timeout={int(settings.lock_wait_s * 1000)} -c timezone=UTC")
    return create_engine(
        url, pool_size=settings.pool, max_overflow=settings.pool, pool_pre_ping=True,
        pool_timeout=settings.lock_wait_s,
        connect_args={"connect_timeout": settings.connect_s, "options": options, "application_name": "openautoglm"})
