"""What a database's error means for us: try again, no room, lost, or a fault of our own."""

from __future__ import annotations

from enum import Enum

from sqlalchemy import exc

_FULL = {"SQLITE_FULL", "53100"}
_DAMAGED = {"SQLITE_CORRUPT", "SQLITE_NOTADB", "XX001", "XX002"}
_AGAIN = {"SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_PROTOCOL",
          "40001", "40P01", "55P03", "57014", "53300", "57P01", "57P02", "57P03"}
_REFUSED = {"SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH", "42501", "25006"}


class Failure(Enum):
    """What an error of the database asks for."""

    AGAIN = "the database does not answer"
    FULL = "the database's disk is full"
    DAMAGED = "the database is damaged"
    REFUSED = "the database cannot be written"
    OURS = "a fault of our own"


REMEDIES = {
    Failure.AGAIN: "see that it runs and can be reached; what was asked for can be asked again",
    Failure.FULL: "free some space where the database lies",
    Failure.DAMAGED: "restore it from a backup; copied bundles lie whole in the store's folder",
    Failure.REFUSED: "give this user the right to write it",
}


def judge(error: exc.SQLAlchemyError) -> Failure:
    """Say what `error` means; a lost connection and a lock that was not had in time can be tried again."""
    if isinstance(error, exc.TimeoutError | exc.DisconnectionError):  # no connection free, or all of them stale
        return Failure.AGAIN
    if not isinstance(error, exc.DBAPIError):
        return Failure.OURS
    code = _code(error)
    for codes, failure in ((_FULL, Failure.FULL), (_DAMAGED, Failure.DAMAGED), (_AGAIN, Failure.AGAIN),
                           (_REFUSED, Failure.REFUSED)):
        if code in codes:
            return failure
    lost = error.connection_invalidated or code.startswith("08")
    unnamed = isinstance(error, exc.OperationalError | exc.InterfaceError) and not code
    return Failure.AGAIN if lost or unnamed else Failure.OURS


def _code(error: exc.DBAPIError) -> str:
    """SQLSTATE, or SQLite's name of the error without its details; empty where there is none."""
    state = getattr(error.orig, "sqlstate", None)
    if state:
        return str(state)
    name = getattr(error.orig, "sqlite_errorname", None) or ""
    return "_".join(str(name).split("_")[:2])
