"""Aliases and stages: what people call a version, and how far it has come."""

from __future__ import annotations

from sqlalchemy import Connection, delete, select, update

from openautoglm.serve.faults import Conflict
from openautoglm.serve.registry.audit import changed
from openautoglm.serve.registry.database import Database
from openautoglm.serve.registry.find import by_reference, model_row, no_alias, version_row
from openautoglm.serve.registry.names import Reference, check_alias, check_stage
from openautoglm.serve.registry.records import Version
from openautoglm.serve.registry.tables import ALIASES, SHARES, VERSIONS


class Labels:
    """Sets and drops aliases, and moves versions between stages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def set_alias(self, name: str, alias: str, number: int, *, by: str) -> int | None:
        """Let `alias` point at a version; return the number of the version that it pointed at before.

        Raises:
            NotFound: no such model or version. BadRequest: not an alias. Conflict: the version is archived.
        """
        check_alias(alias)

        def work(connection: Connection) -> int | None:
            model = model_row(connection, name, lock=True)
            row = version_row(connection, model, number)
            if row.stage == "archived":
                raise Conflict(f"{model.name}/{number} is archived", where="alias",
                               remedy=f"take it out first: autoglm models stage {model.name}/{number} staging")
            before = connection.execute(
                select(VERSIONS.c.number).join(ALIASES, ALIASES.c.version_id == VERSIONS.c.id)
                .where(ALIASES.c.model_id == model.id, ALIASES.c.alias == alias)).scalar()
            step = self._database.insert(ALIASES).values(model_id=model.id, alias=alias, version_id=row.id)
            connection.execute(step.on_conflict_do_update(index_elements=["model_id", "alias"],
                                                          set_={"version_id": row.id}))
            changed(self._database, connection, by, "alias.set", f"{model.name}/{number}", alias=alias, before=before)
            return before

        return self._database.write(work)

    def drop_alias(self, name: str, alias: str, *, by: str) -> None:
        """Take an alias away; raises NotFound where the model has none of this name."""
        def work(connection: Connection) -> None:
            model = model_row(connection, name, lock=True)
            known = connection.execute(select(ALIASES.c.alias).where(ALIASES.c.model_id == model.id)).scalars().all()
            if alias not in known:
                raise no_alias(model.name, alias, known)
            connection.execute(delete(ALIASES).where(ALIASES.c.model_id == model.id, ALIASES.c.alias == alias))
            changed(self._database, connection, by, "alias.drop", model.name, alias=alias)

        self._database.write(work)

    def set_stage(self, reference: Reference, stage: str, *, by: str) -> Version:
        """Move a version to ``none``, ``staging``, ``production`` or ``archived``, which nobody can use.

        Raises:
            Conflict: it is to be archived while an alias points at it or a route sends it traffic.
        """
        check_stage(stage)

        def work(connection: Connection) -> Version:
            model, row = by_reference(connection, reference, lock=True)
            if stage == "archived":
                aliases = connection.execute(select(ALIASES.c.alias).where(ALIASES.c.version_id == row.id)).all()
                routed = connection.execute(select(SHARES.c.weight).where(SHARES.c.version_id == row.id)).scalar()
                if aliases or routed:
                    use = f"the alias {aliases[0].alias!r} points at it" if aliases else "a route sends it traffic"
                    raise Conflict(f"{model.name}/{row.number} is in use: {use}", where="stage",
                                   remedy="point alias and route at other versions first")
            connection.execute(update(VERSIONS).where(VERSIONS.c.id == row.id).values(stage=stage))
            changed(self._database, connection, by, "stage.set", f"{model.name}/{row.number}", stage=stage,
                    before=row.stage)
            return Version.of(version_row(connection, model, row.number), model.name)

        return self._database.write(work)
