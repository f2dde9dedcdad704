"""What operators want in memory: servers read it and load, keep or unload; all else is loaded on first use."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, delete, select

from openautoglm.serve.faults import Conflict
from openautoglm.serve.registry.audit import changed
from openautoglm.serve.registry.database import Database
from openautoglm.serve.registry.find import by_reference
from openautoglm.serve.registry.names import Reference
from openautoglm.serve.registry.records import Version
from openautoglm.serve.registry.tables import MODELS, VERSIONS, WISHES


@dataclass(frozen=True, slots=True)
class Wish:
    """One version that is to be in memory, or not.

    Attributes:
        loaded: True: load it before its first use. False: it must not be in memory, and no request loads it.
        pinned: never unload it to make room.
    """

    version: Version
    loaded: bool
    pinned: bool
    at_s: float
    by: str


class Wishes:
    """Stores what is wanted."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set(self, reference: Reference, *, loaded: bool, by: str, pinned: bool = False) -> Version:
        """Wish for a version to be loaded, or not to be; return it.

        Raises:
            NotFound: no such version. Conflict: it is archived, or pinned and not loaded at once.
        """
        if pinned and not loaded:
            raise Conflict("only a loaded version can be pinned", where="model")

        def work(connection: Connection) -> Version:
            model, row = by_reference(connection, reference, lock=True)
            if loaded and row.stage == "archived":
                raise Conflict(f"{model.name}/{row.number} is archived", where="model",
                               remedy=f"take it out first: autoglm models stage {model.name}/{row.number} staging")
            values = {"loaded": loaded, "pinned": pinned, "at_s": self._database.now(), "by": by[:96]}
            step = self._database.insert(WISHES).values(version_id=row.id, **values)
            connection.execute(step.on_conflict_do_update(index_elements=["version_id"], set_=values))
            changed(self._database, connection, by, "version.load" if loaded else "version.unload",
                    f"{model.name}/{row.number}", pinned=pinned)
            return Version.of(row, model.name)

        return self._database.write(work)

    def forget(self, reference: Reference, *, by: str) -> None:
        """Take the wish back: loaded on first use again."""
        def work(connection: Connection) -> None:
            model, row = by_reference(connection, reference, lock=True)
            connection.execute(delete(WISHES).where(WISHES.c.version_id == row.id))
            changed(self._database, connection, by, "version.lazy", f"{model.name}/{row.number}")

        self._database.write(work)

    def list(self) -> list[Wish]:
        """Return all wishes, by model and version."""
        query = (select(VERSIONS, MODELS.c.name, WISHES.c.loaded, WISHES.c.pinned, WISHES.c.at_s, WISHES.c.by)
                 .join(WISHES, WISHES.c.version_id == VERSIONS.c.id).join(MODELS, MODELS.c.id == VERSIONS.c.model_id)
                 .order_by(MODELS.c.name, VERSIONS.c.number))
        rows = self._database.read(lambda connection: connection.execute(query).all())
        return [Wish(Version.of(row, row.name), row.loaded, row.pinned, row.at_s, row.by) for row in rows]
