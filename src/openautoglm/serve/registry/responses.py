"""Responses kept for requests that are exactly the same; bounded in bytes, the least recently used leave first.

A cache never fails a request: where the database is lost or full, nothing is found and nothing is kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, func, select, update

from openautoglm.core import log
from openautoglm.serve.faults import DiskFull, StoreLost
from openautoglm.serve.registry.database import Database
from openautoglm.serve.registry.tables import RESPONSES, VERSIONS

_TOUCH_S = 60.0


def key(owner: str, fingerprint: str, ask: Mapping[str, Any]) -> str:
    """The key of a request: SHA-256 over who asks, the bundle's fingerprint, and all that shapes the answer.

    Other keys' requests never match, so that nobody learns from the time of an answer what others have asked.
    """
    text = json.dumps([owner, fingerprint, ask], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Responses:
    """Keeps bodies of responses."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> bytes | None:
        """Return the body kept under `key`, None where there is none or it is too old."""
        now_s = self._database.now()
        query = select(RESPONSES.c.body, RESPONSES.c.used_s).where(
            RESPONSES.c.key == key, RESPONSES.c.created_s > now_s - self._database.settings.response_s)
        touch = update(RESPONSES).where(RESPONSES.c.key == key).values(used_s=now_s)
        try:
            row = self._database.read(lambda connection: connection.execute(query).one_or_none())
            if row is not None and row.used_s < now_s - _TOUCH_S:
                self._database.write(lambda connection: connection.execute(touch))
        except (StoreLost, DiskFull) as error:
            log.get(__name__).warning("the response cache was left out", extra={"cause": error.message})
            return None
        return None if row is None else bytes(row.body)

    def put(self, key: str, version_id: int, body: bytes) -> bool:
        """Keep `body`; return whether it was kept. Older ones leave until all fit into the bound."""
        settings, now_s = self._database.settings, self._database.now()
        if len(body) > min(settings.response_bytes, settings.response_cache_bytes):
            return False

        def work(connection: Connection) -> bool:
            if connection.execute(select(VERSIONS.c.id).where(VERSIONS.c.id == version_id)).scalar() is None:
                return False
            values = {"version_id": version_id, "body": body, "size_bytes": len(body), "created_s": now_s,
                      "used_s": now_s}
            step = self._database.insert(RESPONSES).values(key=key, **values)
            connection.execute(step.on_conflict_do_update(index_elements=["key"], set_=values))
            connection.execute(delete(RESPONSES).where(RESPONSES.c.created_s <= now_s - settings.response_s))
            _shrink(connection, settings.response_cache_bytes, key)
            return True

        try:
            return self._database.write(work)
        except (StoreLost, DiskFull) as error:
            log.get(__name__).warning("a response was not cached", extra={"cause": error.message})
            return False

    def size_bytes(self) -> int:
        """Bytes of all bodies."""
        return self._database.read(_total)

    def clear(self) -> int:
        """Remove all; return how many."""
        return self._database.write(lambda connection: connection.execute(delete(RESPONSES)).rowcount)


def _total(connection: Connection) -> int:
    return int(connection.execute(select(func.coalesce(func.sum(RESPONSES.c.size_bytes), 0))).scalar() or 0)


def _shrink(connection: Connection, most_bytes: int, newest: str) -> None:
    over_bytes = _total(connection) - most_bytes
    if over_bytes <= 0:
        return
    leave: list[str] = []
    oldest_first = (select(RESPONSES.c.key, RESPONSES.c.size_bytes).where(RESPONSES.c.key != newest)
                    .order_by(RESPONSES.c.used_s, RESPONSES.c.key))
    for row in connection.execute(oldest_first):
        leave.append(row.key)
        over_bytes -= row.size_bytes
        if over_bytes <= 0:
            break
    connection.execute(delete(RESPONSES).where(RESPONSES.c.key.in_(leave)))
