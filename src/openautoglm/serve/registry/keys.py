"""The table of keys: hashes and rights, never a key itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, insert, or_, select, update

from openautoglm.serve.faults import Conflict, NotFound
from openautoglm.serve.registry.audit import note
from openautoglm.serve.registry.database import Database
from openautoglm.serve.registry.names import nearest
from openautoglm.serve.registry.tables import KEYS


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key without its secret.

    Attributes:
        key_id: the public part of the key; it names the key in logs.
        hash: argon2 hash of the whole key.
        scopes: what it may do.
        requests_per_min, tokens_per_min: None: as the server's settings say.
        expires_s, revoked_s, used_s: seconds since 1970, None: never.
    """

    key_id: str
    name: str
    hash: str
    scopes: frozenset[str]
    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    created_s: float = 0.0
    created_by: str = ""
    expires_s: float | None = None
    revoked_s: float | None = None
    used_s: float | None = None

    def live(self, now_s: float) -> bool:
        """Whether it opens anything at `now_s`."""
        return self.revoked_s is None and (self.expires_s is None or now_s < self.expires_s)


class KeyStore:
    """Stores keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: KeyRecord, *, by: str) -> KeyRecord:
        """Store a new key; raises Conflict where a live key has its name already."""
        def work(connection: Connection) -> KeyRecord:
            now_s = self._database.now()
            alive = [row for row in connection.execute(select(KEYS).where(KEYS.c.name == record.name))
                     if _record(row).live(now_s)]
            if alive:
                raise Conflict(f"a key named {record.name!r} is in use", where="--name",
                               remedy="choose another name, or revoke that key first")
            connection.execute(insert(KEYS).values(
                key_id=record.key_id, name=record.name, hash=record.hash, scopes=" ".join(sorted(record.scopes)),
                requests_per_min=record.requests_per_min, tokens_per_min=record.tokens_per_min,
                created_s=now_s, created_by=by[:96], expires_s=record.expires_s))
            note(self._database, connection, by, "key.create", record.key_id, name=record.name,
                 scopes=sorted(record.scopes), expires_s=record.expires_s)
            return _record(connection.execute(select(KEYS).where(KEYS.c.key_id == record.key_id)).one())

        return self._database.write(work)

    def get(self, key_id: str) -> KeyRecord | None:
        """Return a key by its id, None where there is none."""
        query = select(KEYS).where(KEYS.c.key_id == key_id)
        row = self._database.read(lambda connection: connection.execute(query).one_or_none())
        return None if row is None else _record(row)

    def list(self) -> list[KeyRecord]:
        """Return all keys, oldest first, revoked ones too."""
        query = select(KEYS).order_by(KEYS.c.created_s, KEYS.c.key_id)
        return [_record(row) for row in self._database.read(lambda connection: connection.execute(query).all())]

    def revoke(self, name: str, *, by: str) -> KeyRecord:
        """Revoke the key of this id or name, for good; raises NotFound, with the nearest name, where none lives."""
        def work(connection: Connection) -> KeyRecord:
            now_s = self._database.now()
            rows: Sequence[Row[Any]] = connection.execute(
                select(KEYS).where(or_(KEYS.c.key_id == name, KEYS.c.name == name))).all()
            alive = [record for record in map(_record, rows) if record.revoked_s is None]
            if not alive:
                known = connection.execute(select(KEYS.c.name).where(KEYS.c.revoked_s.is_(None))).scalars().all()
                raise NotFound(f"no key {name[:64]!r} is in use{nearest(name, known)}", where="key")
            for record in alive:
                connection.execute(update(KEYS).where(KEYS.c.key_id == record.key_id).values(revoked_s=now_s))
                note(self._database, connection, by, "key.revoke", record.key_id, name=record.name)
            return alive[-1]

        return self._database.write(work)

    def touch(self, key_id: str) -> None:
        """Note that the key was used now."""
        step = update(KEYS).where(KEYS.c.key_id == key_id).values(used_s=self._database.now())
        self._database.write(lambda connection: connection.execute(step))


def _record(row: Row[Any]) -> KeyRecord:
    return KeyRecord(row.key_id, row.name, row.hash, frozenset(row.scopes.split()), row.requests_per_min,
                     row.tokens_per_min, row.created_s, row.created_by, row.expires_s, row.revoked_s, row.used_s)
