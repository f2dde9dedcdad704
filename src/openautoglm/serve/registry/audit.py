"""The audit log: who changed what, and when; written in the transaction of the change, whole with it or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from openautoglm.serve.registry.database import Database
from openautoglm.serve.registry.tables import AUDIT, MARKS

CATALOG = "catalog"
_DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the log."""

    id: int
    at_s: float
    by: str
    action: str
    subject: str
    detail: dict[str, Any]


def note(database: Database, connection: Connection, by: str, action: str, subject: str, **detail: object) -> None:
    """Write a line; `detail` must be JSON-like and hold no secret and no text of a user's."""
    connection.execute(insert(AUDIT).values(
        at_s=database.now(), by=by[:96], action=action, subject=subject[:160],
        detail=json.dumps(detail, sort_keys=True)))


def changed(database: Database, connection: Connection, by: str, action: str, subject: str, **detail: object) -> None:
    """`note` it, and mark the catalog as changed, so that every server reads it again."""
    note(database, connection, by, action, subject, **detail)
    step = database.insert(MARKS).values(name=CATALOG, value=1)
    connection.execute(step.on_conflict_do_update(index_elements=["name"], set_={"value": MARKS.c.value + 1}))


class Audit:
    """Reads the log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, *, subject: str | None = None, limit: int = 100, before: int | None = None) -> list[Entry]:
        """Return lines, newest first; `subject` is a model's name or a key's id, `before` the id to go on below."""
        query = select(AUDIT).order_by(AUDIT.c.id.desc()).limit(limit)
        if subject is not None:
            inside = AUDIT.c.subject.startswith(f"{subject}/", autoescape=True)
            query = query.where((AUDIT.c.subject == subject) | inside)
        if before is not None:
            query = query.where(AUDIT.c.id < before)
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [Entry(row.id, row.at_s, row.by, row.action, row.subject, json.loads(row.detail)) for row in rows]

    def prune(self) -> int:
        """Remove lines older than `audit_days`; return how many."""
        oldest_s = self._database.now() - self._database.settings.audit_days * _DAY_S
        return self._database.write(
            lambda connection: connection.execute(delete(AUDIT).where(AUDIT.c.at_s < oldest_s)).rowcount)
