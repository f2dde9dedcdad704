"""Brings a database's schema up to date when it is opened, under a lock, and refuses what is newer or not ours."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from openautoglm.core import log
from openautoglm.serve.faults import Conflict
from openautoglm.serve.registry.database import Database
from openautoglm.serve.registry.tables import METADATA, SCHEMA_TABLE

_LOCK = 0x6175_746F_676C_6D  # "autoglm", for PostgreSQL's advisory locks
_ONE = threading.Lock()  # the steps speak to one connection through a name of their module
_OPTIONS = {"version_table": SCHEMA_TABLE, "transactional_ddl": True}


def steps() -> ScriptDirectory:
    """The steps that come with this version."""
    folder = Path(__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.set_main_option("version_locations", str(folder).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    return ScriptDirectory.from_config(config)


def bring_up(database: Database) -> None:
    """Take the schema to the newest step; of several processes that open at once, one does the work.

    Raises:
        Conflict: a newer version of openautoglm has written it, or tables of ours are there without a schema mark.
        StoreLost, DiskFull: the database does not answer, or has no room; nothing was changed.
    """
    known = steps()
    newest = known.get_current_head()
    before = database.read(lambda connection: _present(connection, known, database.name))
    if before == newest:
        return
    if database.write(lambda connection: _upgrade(connection, known, database.name)) and before is not None:
        log.get(__name__).info("the registry's schema was brought up to date", extra={
            "database": database.name, "schema": newest, "before": before})


def _present(connection: Connection, known: ScriptDirectory, name: str) -> str | None:
    """The step that the database is at; None where it has no tables of ours."""
    found = MigrationContext.configure(connection, opts=dict(_OPTIONS)).get_current_revision()
    if found is None:
        there = set(inspect(connection).get_table_names()) & set(METADATA.tables)
        if there:
            raise Conflict(f"the database has the table {sorted(there)[0]}, but no mark of its schema", where=name,
                           remedy="restore it from a backup, or give another database")
        return None
    if found not in {step.revision for step in known.walk_revisions()}:
        raise Conflict(f"a newer openautoglm has written this registry (schema {found[:16]})", where=name,
                       remedy="install that version or a newer one; nothing was changed")
    return found


def _upgrade(connection: Connection, known: ScriptDirectory, name: str) -> bool:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    newest = known.get_current_head()
    if _present(connection, known, name) == newest:  # another process was faster
        return False

    def plan(revision: Any, _context: Any) -> Any:
        return known._upgrade_revs(newest or "head", revision)

    with _ONE, EnvironmentContext(Config(), known, fn=plan) as environment:
        environment.configure(connection=connection, target_metadata=METADATA, **_OPTIONS)  # type: ignore[arg-type]
        environment.run_migrations()
    return True
